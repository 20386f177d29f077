"""Random calls of each op: the C++ on the CPU gives the bits of the reference implementation.

``make fuzz`` makes many calls, and ``make sanitize`` makes them with sanitizers in the C++.
"""

import os

import inputs
import numpy as np
import pytest
from cases import ANY_FLOAT, CALLS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cvops

#: The number of calls of each op. Without a number the calls are the same in every run.
EXAMPLES = os.environ.get("CVOPS_FUZZ_EXAMPLES")


def same_bits(a, b):
    """Compare arrays by their bits; each NaN is equal to each other NaN."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    kind = f"u{a.itemsize}"
    equal = (a.view(kind) == b.view(kind)) | (np.isnan(a) & np.isnan(b))
    return bool(equal.all())


@st.composite
def calls(draw, op):
    arguments, options = getattr(inputs, op)(inputs.Inputs(draw))
    if op in ANY_FLOAT and draw(st.booleans()):
        arguments = tuple([inputs.as_doubles(x) for x in arguments])
    return arguments, options


def test_every_op_has_inputs():
    assert [op for op in CALLS if not hasattr(inputs, op)] == []


@pytest.mark.parametrize("op", CALLS)
def test_native_call_has_the_bits_of_the_reference(native, op):
    function = getattr(cvops, op)

    @settings(
        max_examples=int(EXAMPLES or 15),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(op))
    def check(call):
        arguments, options = call
        with np.errstate(all="ignore"):
            want = function(*arguments, **options, backend="numpy")
        got = function(*arguments, **options, backend="native")
        if not isinstance(want, tuple):
            want, got = (want,), (got,)
        for a, b in zip(want, got):
            assert same_bits(a, b)

    check()
