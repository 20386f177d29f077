"""Compares each op of the installed package with its reference implementation.

``python tests/check_wheel.py`` needs NumPy only. It checks a wheel, and not this checkout.
"""

from pathlib import Path

import numpy as np
from cases import CALLS

import cvops
from cvops.backends import extension


def results(out):
    return out if isinstance(out, tuple) else (out,)


def main():
    installed = Path(cvops.__file__).parent
    assert extension.native() is not None, "the compiled extension is missing"
    for name, (arrays, options) in CALLS.items():
        op = getattr(cvops, name)
        want = results(op(*arrays, **options, backend="numpy"))
        for got, expected in zip(results(op(*arrays, **options, backend="native")), want):
            np.testing.assert_array_equal(got, expected, err_msg=name)
    print(f"cvops {cvops.__version__}, {installed}: {len(CALLS)} ops are right")


if __name__ == "__main__":
    main()
