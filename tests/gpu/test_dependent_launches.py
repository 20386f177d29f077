"""Programmatic dependent launches: which launches have the attribute, and who may refuse it.

test_cupy_emulated.py runs these tests on a machine without a GPU.
"""

import ctypes
import functools

import numpy as np
import pytest
from backend_runner import runner
from cases import CALLS
from emulator import driver

import cvops
from cvops.backends import cuda, extension
from cvops.backends.registry import BACKENDS
from cvops.ops import _op

missing = BACKENDS["cuda", "cupy"].missing()
if missing is not None:
    pytest.skip(f"cupy on cuda {missing}", allow_module_level=True)
if not driver.installed():
    pytest.skip("needs the emulated driver, which records calls", allow_module_level=True)

cupy = pytest.importorskip("cupy")

#: An op with three launches.
OP = "box_nms_backward"


@pytest.fixture(params=["cupy", "native"])
def backend(request):
    runner("cuda", request.param)  # skips if the backend cannot run
    return request.param


@pytest.fixture
def call(backend, monkeypatch):
    """call(op, device=0): the launches, whose results are checked; its executors are new."""
    key = "cuda", backend
    functions = cuda.cupy_functions() if backend == "cupy" else cuda.nvrtc_functions()
    executor = type("New", (cuda.Cuda,), {"functions": lambda self: functions})
    executors = functools.lru_cache(None)(executor)
    monkeypatch.setitem(BACKENDS, key, BACKENDS[key]._replace(executor=executors))
    _op.clear_caches()

    def call(op, device=0):
        arrays, options = CALLS[op]
        with cupy.cuda.Device(device):
            inside = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arrays]
        driver.calls.clear()
        out = getattr(cvops, op)(*inside, **options, backend=backend)
        launches = own_launches()
        expected = getattr(cvops, op)(*arrays, **options, backend="numpy")
        pairs = zip(out, expected) if isinstance(out, tuple) else [(out, expected)]
        for got, want in pairs:
            np.testing.assert_array_equal(got.get(), want)
        return launches

    yield call
    _op.clear_caches()


def own_launches():
    """Return the launches of cvops since the list of calls was empty; CuPy copies some arrays."""
    return [x for x in driver.calls if x.kernel and not x.kernel.startswith("cupy_")]


def dependent(launches):
    return [x.dependent for x in launches]


@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
@pytest.mark.parametrize("op", CALLS)
def test_all_launches_of_an_op_but_the_first_are_dependent(call, op):
    for _ in range(2):  # the first launch of a call does not depend on the call before it
        launches = call(op)
        assert dependent(launches) == [False] + [True] * (len(launches) - 1)


def test_launches_are_independent_on_a_gpu_whose_kernels_do_not_wait(call):
    assert driver.devices.CAPABILITIES[1] == (8, 0)
    assert dependent(call(OP, device=1)) == [False] * 3


@pytest.mark.parametrize(
    ("value", "expected"), [("0", False), ("1", True), ("", True)], ids=["0", "1", "empty"]
)
def test_environment_variable_of_0_gives_independent_launches(call, monkeypatch, value, expected):
    monkeypatch.setenv("CVOPS_DEPENDENT_LAUNCHES", value)
    assert dependent(call(OP)) == [False, expected, expected]


@pytest.mark.parametrize(("version", "expected"), [(12020, False), (12030, True)])
def test_driver_needs_dependent_launches_in_graphs(call, monkeypatch, version, expected):
    monkeypatch.setattr(driver.devices, "driver_version", version)
    assert dependent(call(OP)) == [False, expected, expected]


@pytest.mark.parametrize("error", [driver.api.INVALID_VALUE, driver.api.NOT_SUPPORTED])
def test_refusal_gives_independent_launches_from_then_on(call, monkeypatch, capfd, error):
    monkeypatch.setattr(driver.kernels, "refusal", error)
    for _ in range(2):
        assert dependent(call(OP)) == [False] * 3
    assert capfd.readouterr().err.count("no dependent launches") == 1


def test_captured_launches_are_dependent(backend):
    arrays, options = CALLS[OP]
    with cupy.cuda.Stream(non_blocking=True) as stream:
        inside = list(map(cupy.asarray, arrays))
        getattr(cvops, OP)(*inside, **options, backend=backend)  # loads the kernels
        stream.begin_capture()
        driver.calls.clear()
        out = getattr(cvops, OP)(*inside, **options, backend=backend)
        launches = own_launches()
        graph = stream.end_capture()
        out.data.memset_async(7, out.nbytes)
        graph.launch(stream)
        stream.synchronize()
    assert [(x.captured, x.dependent) for x in launches] == [
        *((True, False), (True, True), (True, True))
    ]
    expected = getattr(cvops, OP)(*arrays, **options, backend="numpy")
    np.testing.assert_array_equal(out.get(), expected)


def test_launch_between_other_work_is_independent(launch):
    """The kernels wait for kernels only. The function calls two ops with one Gpu."""
    memory = cupy.zeros(4, np.float32)
    driver.calls.clear()
    assert launch("launch_among_copies", ctypes.c_void_p(memory.data.ptr)) == ""
    queued = [x for x in driver.calls if x.stream is not None]
    op = [False, True, "cuMemsetD8Async", False, True, "cuMemcpyDtoDAsync_v2", False, True]
    assert [x.dependent if x.kernel else x.function for x in queued] == 2 * op


def test_error_of_a_launch_does_not_end_dependent_launches(launch):
    memory = cupy.zeros(4, np.float32)
    driver.calls.clear()
    error = launch("launch_with_error", ctypes.c_void_p(memory.data.ptr))
    assert error.startswith("box_iou<<<(1, 1, 1), (2048, 1, 1), 0>>>: 1 (")
    assert dependent(own_launches()) == [False, False, True]


def test_launch_that_python_makes_is_independent(call, monkeypatch):
    """The benchmarks time such launches one by one."""
    original = cuda.Call

    def around(library, device, native_device, stream):
        native = extension.native().AroundDevice(native_device, lambda kernel, launch: launch())
        return original(library, device, native, stream)

    monkeypatch.setattr(cuda, "Call", around)
    assert dependent(call(OP)) == [False] * 3
