"""The GPU half of the operators for MXNet, its kernels emulated: what MXNet would run on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emulator.extension import build_operators
from test_mxnet_operators import CASES, as_list, function, operators

from cvops import _kernels

__all__ = ["operators"]

RUN = """
import json, sys
import numpy as np
from cvops._mxnet import mxnet
mx = mxnet()
mx.library.load(sys.argv[1], verbose=False)
data = np.load(sys.argv[2])
results = {}
for op, options in json.loads(sys.argv[3]).items():
    inputs = [mx.nd.array(data[key]) for key in sorted(k for k in data if k.startswith(op + "/"))]
    # A slice that begins anywhere, as the kernels do not take it.
    inputs = [mx.nd.concat(x.reshape((-1,))[:1], x.reshape((-1,)), dim=0) for x in inputs]
    shapes = [data[key].shape for key in sorted(k for k in data if k.startswith(op + "/"))]
    inputs = [x[1:].reshape(shape) for x, shape in zip(inputs, shapes)]
    for x in inputs:
        x.attach_grad()
    with mx.autograd.record():
        out = getattr(mx.nd.contrib, "cvops_" + op)(*inputs, **options)
        out = out if isinstance(out, list) else [out]
        loss = sum((x * mx.nd.arange(x.size).reshape(x.shape)).sum() for x in out)
    loss.backward()
    for i, x in enumerate([*out, *(x.grad for x in inputs)]):
        results[f"{op}/{i}"] = x.asnumpy()
np.savez(sys.argv[4], **results)
"""


@pytest.fixture(scope="module")
def results(mx, tmp_path_factory):
    """Outputs and gradients of every operator, by a process that has loaded the emulated ones."""
    wheel = Path(mx.__file__).parent
    bindings = Path(__file__).parents[1] / "bindings"
    library = build_operators(bindings, _kernels.KERNELS, wheel)
    folder = tmp_path_factory.mktemp("operators")
    inputs = {f"{op}/{i}": x.astype(np.float32) for op in CASES for i, x in enumerate(CASES[op][0])}
    np.savez(folder / "in.npz", **inputs)
    options = json.dumps({op: {k: str(v) for k, v in CASES[op][1].items()} for op in CASES})
    done = subprocess.run(
        [sys.executable, "-c", RUN, library, folder / "in.npz", options, folder / "out.npz"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npz")


@pytest.mark.parametrize("op", CASES)
def test_the_same_as_on_the_cpu(mx, operators, results, op):
    inputs = [mx.nd.array(x.astype(np.float32)) for x in CASES[op][0]]
    for x in inputs:
        x.attach_grad()
    with mx.autograd.record():
        out = function(mx.nd, op)(*inputs, **CASES[op][1])
        out = out if isinstance(out, list) else [out]
        loss = sum((x * mx.nd.arange(x.size).reshape(x.shape)).sum() for x in out)
    loss.backward()
    expected = as_list([*out, *(x.grad for x in inputs)])
    assert len([key for key in results if key.startswith(f"{op}/")]) == len(expected)
    for i, want in enumerate(expected):
        np.testing.assert_array_equal(results[f"{op}/{i}"], want)
