"""The GPU functions of the operators for MXNet, with emulated kernels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emulator.backends import BINDINGS
from emulator.extension import build_operators
from operator_cases import CASES, array, as_list, ours

from cvops import _imports
from cvops.backends import nvrtc

RUN = """
import json, sys
import numpy as np
from cvops._mxnet import mxnet
mx = mxnet()
sys.path.insert(0, sys.argv[5])
from emulator import backends
getattr(backends, sys.argv[6])()
mx.library.load(sys.argv[1], verbose=False)
data = np.load(sys.argv[2])


def shifted(x):
    # A copy at an address that is not a multiple of 16 bytes.
    flat = x.reshape((-1,))
    return mx.nd.concat(flat[:1], flat, dim=0)[1:].reshape(x.shape)


results = {}
for op, options in json.loads(sys.argv[3]).items():
    arrays = [data[key] for key in sorted(data) if key.startswith(op + "/")]
    inputs = [mx.nd.array(x, dtype=x.dtype) for x in arrays]
    inputs = [shifted(x) for x in inputs]
    for x in inputs:
        x.attach_grad()
    operator = getattr(mx.nd.contrib, "cvops_" + op)
    with mx.autograd.record():
        out = operator(*inputs, **options)
        out = out if isinstance(out, list) else [out]
        weights = [mx.nd.arange(x.size, dtype=x.dtype).reshape(x.shape) for x in out]
        loss = sum((x * w).sum().astype("float32") for x, w in zip(out, weights))
    loss.backward()
    for i, x in enumerate([*out, *(x.grad for x in inputs)]):
        results[f"{op}/{i}"] = x.asnumpy()
    places = [shifted(x.zeros_like()) for x in out]
    operator(*inputs, out=places if len(places) > 1 else places[0], **options)
    for i, x in enumerate(places):
        results[f"{op}/{i}/shifted"] = x.asnumpy()
    if len(out) == 1 and out[0].shape == inputs[0].shape:
        operator(*inputs, out=inputs[0], **options)
        results[f"{op}/0/in place"] = inputs[0].asnumpy()
np.savez(sys.argv[4], **results)
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("use_for_mxnet", id="kernels"),
        pytest.param("use_driver_for_mxnet", id="driver", marks=pytest.mark.slow),
    ],
)
def results(request, mx, tmp_path_factory):
    """Outputs and gradients of every operator, from a process that loads the emulated operators."""
    if request.param == "use_driver_for_mxnet":
        pytest.importorskip("cupy")
        try:
            _imports.load_nvrtc().getVersion()
        except RuntimeError as error:
            pytest.skip(f"needs NVRTC: {error}")
    native = pytest.importorskip("cvops._native")
    wheel = Path(mx.__file__).parent
    core = Path(native.__file__).parent / "lib" / "libcvops.so"
    library = build_operators(BINDINGS, nvrtc.KERNELS, wheel, core)
    folder = tmp_path_factory.mktemp("operators")
    inputs = {
        f"{op}/{i}": array(mx, x).asnumpy() for op in CASES for i, x in enumerate(CASES[op][0])
    }
    np.savez(folder / "in.npz", **inputs)
    options = json.dumps({op: {k: str(v) for k, v in CASES[op][1].items()} for op in CASES})
    done = subprocess.run(
        [
            *(sys.executable, "-c", RUN, library, folder / "in.npz", options, folder / "out.npz"),
            *(Path(__file__).parents[1], request.param),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npz")


@pytest.mark.parametrize("op", CASES)
def test_operator_on_a_gpu_equals_that_on_the_cpu(mx, operators, results, op):
    inputs = [array(mx, x) for x in CASES[op][0]]
    for x in inputs:
        x.attach_grad()
    with mx.autograd.record():
        out = ours(mx.nd, op)(*inputs, **CASES[op][1])
        out = out if isinstance(out, list) else [out]
        weights = [mx.nd.arange(x.size, dtype=x.dtype).reshape(x.shape) for x in out]
        loss = sum((x * w).sum().astype("float32") for x, w in zip(out, weights))
    loss.backward()
    expected = as_list([*out, *(x.grad for x in inputs)])
    plain = [key for key in results if key.count("/") == 1]
    assert len([key for key in plain if key.startswith(f"{op}/")]) == len(expected)
    for i, want in enumerate(expected):
        np.testing.assert_array_equal(results[f"{op}/{i}"], want)


def test_address_of_the_output_does_not_change_the_result(results):
    """The outputs are at an address that is not a multiple of 16 bytes, or replace an input."""
    keys = [key for key in results if key.count("/") == 2]
    assert {key.partition("/")[0] for key in keys} == CASES.keys()
    assert "box_nms/0/in place" in keys
    for key in keys:
        np.testing.assert_array_equal(results[key], results[key.rpartition("/")[0]], err_msg=key)
