"""CuPy's arrays: devices, streams and driver calls of an op.

test_cupy_emulated.py runs these tests on a machine without a GPU.
"""

import ctypes
from collections import Counter

import numpy as np
import pytest
from backend_runner import runner
from cases import CALLS
from emulator import driver
from in_threads import run_in_threads

import cvops
from cvops import _imports, arrays
from cvops.backends import extension, nvrtc

#: The functions of the driver that an op may call: they only queue work.
QUEUED = {"cuLaunchKernel", "cuLaunchKernelEx", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async"}
BOXES = CALLS["box_iou"][0][0]
IOU = cvops.box_iou(BOXES, BOXES, backend="numpy")


@pytest.fixture
def cupy():
    missing = extension.missing_cupy()
    if missing is not None:
        pytest.skip(f"cupy on cuda {missing}")
    import cupy

    return cupy


@pytest.fixture
def two_gpus(cupy):
    if extension.native().device_count() < 2:
        pytest.skip("needs two GPUs")


@pytest.fixture
def driver_calls(cupy):
    """The calls of CUDA's functions, which only the emulated driver records."""
    if not driver.installed():
        pytest.skip("needs the emulated driver, which records calls")
    driver.calls.clear()
    return driver.calls


@pytest.fixture
def cupy_can_copy(cupy):
    """Skip if CuPy cannot compile its own kernels, which copy arrays."""
    _imports.load_nvrtc()
    try:
        cupy.zeros(2, np.float32)[::-1].copy()
    except cupy.cuda.compiler.CompileException:
        pytest.skip("CuPy lacks CUDA's headers: pip install cvops[cuda12] or [cuda13]")


@pytest.fixture(params=["cupy", "native"])
def backend(request, cupy):
    runner("cuda", request.param)  # skips if the backend cannot run
    return request.param


def arguments_on(cupy, device, op):
    """Return the arguments of a call of ``op`` on a device, its options, and its results."""
    arguments, options = CALLS[op]
    with cupy.cuda.Device(device):
        inside = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments]
        cupy.cuda.Device().synchronize()
    expected = getattr(cvops, op)(*arguments, **options, backend="numpy")
    return inside, options, expected if isinstance(expected, tuple) else (expected,)


def call(op, backend, arguments, options):
    out = getattr(cvops, op)(*arguments, **options, backend=backend)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("op", CALLS)
def test_results_are_on_the_device_of_the_arrays(cupy, two_gpus, backend, op):
    inside, options, expected = arguments_on(cupy, 1, op)
    assert cupy.cuda.Device().id == 0
    out = call(op, backend, inside, options)
    assert cupy.cuda.Device().id == 0
    for got, want in zip(out, expected):
        assert isinstance(got, cupy.ndarray)
        assert got.device.id == 1
        np.testing.assert_array_equal(got.get(), want)


@pytest.mark.parametrize("op", CALLS)
def test_repeated_call_only_queues_work(cupy, driver_calls, backend, op):
    inside, options, _ = arguments_on(cupy, 0, op)
    for _ in range(2):  # loads the kernels, and leaves memory in CuPy's pool
        call(op, backend, inside, options)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        call(op, backend, inside, options)
        before = cupy.get_default_memory_pool().total_bytes()
        driver_calls.clear()
        out = call(op, backend, inside, options)
        queued = list(driver_calls)
    assert cupy.get_default_memory_pool().total_bytes() == before
    assert all(isinstance(x, cupy.ndarray) for x in out)
    assert {x.function for x in queued} <= QUEUED, Counter(x.function for x in queued)
    assert {x.stream for x in queued} == {stream.ptr}
    assert not any(x.host for x in queued)
    assert {x.function for x in queued} & {"cuLaunchKernel"}


def test_launches_use_the_stream_of_the_arrays_device(cupy, two_gpus, driver_calls, backend):
    inside, options, expected = arguments_on(cupy, 1, "box_iou")
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True).use()
    with cupy.cuda.Stream(non_blocking=True):  # a stream of device 0, the current one
        driver_calls.clear()
        (out,) = call("box_iou", backend, inside, options)
        queued = [x for x in driver_calls if x.function in QUEUED]
        assert {(x.device, x.stream) for x in queued} == {(1, stream.ptr)}
    with cupy.cuda.Device(1):
        cupy.cuda.Stream.null.use()
    np.testing.assert_array_equal(out.get(), expected[0])


@pytest.mark.parametrize("number", [0, 1], ids=["GPU 0", "GPU 1"])
def test_launches_use_a_stream_that_cupy_did_not_make(cupy, two_gpus, backend, number, monkeypatch):
    """PyTorch gives such a stream: the number of a handle."""
    (x, y), _, (expected,) = arguments_on(cupy, number, "box_iou")
    with cupy.cuda.Device(number):
        foreign = cupy.cuda.runtime.streamCreateWithFlags(cupy.cuda.runtime.streamNonBlocking)
    monkeypatch.setattr(arrays.CuPy, "stream", lambda self, device: foreign)
    before = cupy.cuda.get_current_stream()
    driver.calls.clear()
    out = cvops.box_iou(x, y, backend=backend)
    assert cupy.cuda.get_current_stream() == before
    if driver.installed():
        assert {x.stream for x in driver.calls if x.function in QUEUED} == {foreign}
    cupy.cuda.runtime.streamSynchronize(foreign)
    np.testing.assert_array_equal(out.get(), expected)


def test_device_and_stream_are_restored_after_an_error(cupy, two_gpus, backend, monkeypatch):
    def fail(*args):
        raise RuntimeError("in the body")

    (x, y), _, _ = arguments_on(cupy, 1, "box_iou")
    monkeypatch.setattr(arrays.CuPy, "empty_cuda", fail)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        with pytest.raises(RuntimeError, match="in the body"):
            cvops.box_iou(x, y, backend=backend)
        assert cupy.cuda.get_current_stream() == stream
    assert cupy.cuda.Device().id == 0


def test_arrays_of_two_devices_are_refused(cupy, two_gpus):
    x, y = (arguments_on(cupy, device, "box_iou")[0][0] for device in (0, 1))
    with pytest.raises(
        TypeError, match="lhs is a CuPy array on GPU 0 and rhs a CuPy array on GPU 1"
    ):
        cvops.box_iou(x, y)


@pytest.fixture(params=["misaligned", "not contiguous"])
def view(request, cupy, two_gpus, cupy_can_copy):
    """Boxes on device 1 whose memory the kernels cannot read without a copy."""
    with cupy.cuda.Device(1):
        if request.param == "misaligned":
            view = cupy.asarray(np.r_[np.float32(0), BOXES.ravel()])[1:].reshape(-1, 4)
            assert view.data.ptr % arrays.ALIGNMENT == 4
        else:
            view = cupy.asarray(BOXES[:, ::-1].copy())[:, ::-1]
            assert not view.flags.c_contiguous
    return view


def test_view_is_copied_on_its_device(cupy, backend, view):
    out = cvops.box_iou(view, view, backend=backend)
    assert (out.device.id, cupy.cuda.Device().id) == (1, 0)
    np.testing.assert_array_equal(out.get(), IOU)


def test_empty_boxes_give_an_empty_result(cupy, backend):
    none = cupy.zeros((0, 4), np.float32)
    assert cvops.box_iou(none, cupy.asarray(BOXES), backend=backend).shape == (0, 300)


def test_concurrent_calls_on_two_devices_give_the_right_results(cupy, two_gpus, backend):
    def work(device):
        (x, y), _, _ = arguments_on(cupy, device, "box_iou")
        for _ in range(10):
            out = cvops.box_iou(x, y, backend=backend)
            assert out.device.id == device
            np.testing.assert_array_equal(out.get(), IOU)

    run_in_threads(work, [0, 1, 0, 1])


def test_architectures_are_those_of_all_gpus(driver_calls):
    assert nvrtc.architectures() == [80, 90]


class TestDriver:
    """The emulated driver refuses what CUDA refuses; the tests above rely on it."""

    @pytest.fixture
    def launch(self, cupy, driver_calls):
        """launch(stream): launch a kernel of GPU 0 and return the driver's error."""
        function = ctypes.c_void_p(nvrtc.load("box_iou", 0))
        cuda = ctypes.CDLL("libcuda.so.1")
        empty = ctypes.c_void_p()

        def launch(stream):
            sizes = [ctypes.c_uint(1)] * 6
            arguments = (ctypes.c_void_p * 6)(*[ctypes.addressof(empty)] * 6)
            return cuda.cuLaunchKernel(
                function, *sizes, ctypes.c_uint(0), ctypes.c_void_p(stream), arguments, None
            )

        return launch

    def test_stream_of_another_device_is_refused(self, cupy, launch, two_gpus, capfd):
        with cupy.cuda.Device(1):
            stream = cupy.cuda.Stream()
        assert launch(stream.ptr) == 400
        assert "box_iou: expected the current GPU 0, got (0, 1)" in capfd.readouterr().err

    def test_kernel_of_another_device_is_refused(self, cupy, launch, two_gpus, capfd):
        with cupy.cuda.Device(1):
            assert launch(0) == 400
        assert "box_iou: expected the current GPU 1, got (0, 1)" in capfd.readouterr().err

    def test_launch_without_a_context_is_refused(self, cupy, launch, capfd):
        driver.api.thread.context = None
        try:
            assert launch(0) == 201
        finally:
            cupy.cuda.Device(0).use()
        assert "cuLaunchKernel: the thread has no context" in capfd.readouterr().err

    def test_unknown_context_is_refused(self, cupy, driver_calls, capfd):
        with pytest.raises(RuntimeError, match="cuCtxSetCurrent: 201"):
            extension.native().set_context(99)
        assert cupy.cuda.Device().id == 0
        assert "expected a context, got 0x63" in capfd.readouterr().err

    def test_copies_and_fills_outside_of_device_memory_are_refused(
        self, cupy, driver_calls, two_gpus, capfd
    ):
        cuda, host, inside = ctypes.CDLL("libcuda.so.1"), np.zeros(8), cupy.zeros(8)
        here, there = ctypes.c_uint64(inside.data.ptr), ctypes.c_uint64(host.ctypes.data)
        size, stream = ctypes.c_size_t(8), ctypes.c_void_p()
        assert cuda.cuMemcpyDtoDAsync_v2(here, there, size, stream) == 1
        assert cuda.cuMemsetD8Async(there, 0, size, stream) == 1
        with cupy.cuda.Device(1):
            assert cuda.cuMemsetD8Async(here, 0, size, stream) == 400
        assert "are not in memory of a GPU" in capfd.readouterr().err

    def test_argument_in_memory_of_another_device_is_refused(
        self, cupy, driver_calls, two_gpus, capfd, monkeypatch
    ):
        (x, y), _, _ = arguments_on(cupy, 1, "box_iou")
        zero = arrays.Device("cuda", 0)
        monkeypatch.setattr(arrays.CuPy, "describe", lambda self, x: (zero, x.dtype, x.shape))
        with pytest.raises(RuntimeError, match=r"box_iou<<<.*>>>: 700"):
            cvops.box_iou(x, y, backend="cupy")
        assert "is not on GPU 0" in capfd.readouterr().err

    def test_dynamic_and_static_shared_memory_have_one_limit(self, cupy, driver_calls, capfd):
        driver, most = cupy.cuda.driver, 227 << 10
        module = cupy.cuda.function.Module()  # its functions have no attributes from other tests
        module.load_file(str(nvrtc.cubin_file("box_nms", 90)))
        function = module.get_function("box_nms_rank").ptr
        static = driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        assert static > 5120 * 4  # a part of the key of each row
        limit = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.funcSetAttribute(function, limit, most - static + 1)
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.launchKernel(function, 1, 1, 1, 1, 1, 1, (48 << 10) - static + 1, 0, 0, 0)
        driver.funcSetAttribute(function, limit, most - static)
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.launchKernel(function, 1, 1, 1, 1, 1, 1, most - static + 1, 0, 0, 0)
        assert "bytes of shared memory" in capfd.readouterr().err

    def test_cubin_of_another_architecture_is_refused(self, cupy, driver_calls, two_gpus, capfd):
        module = cupy.RawModule(path=str(nvrtc.cubin_file("box_iou", 80)))
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="209"):
            module.get_function("box_iou")
        assert "cubin: expected sm_90, got sm_80" in capfd.readouterr().err

    @pytest.mark.parametrize("function", ["malloc", "synchronize"])
    def test_allocation_or_a_wait_invalidates_a_capture(self, cupy, driver_calls, function, capfd):
        runtime = cupy.cuda.runtime
        with cupy.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture(runtime.streamCaptureModeGlobal)
            with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
                runtime.malloc(16) if function == "malloc" else stream.synchronize()
            with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
                stream.end_capture()
        assert "not allowed while a graph is captured" in capfd.readouterr().err
