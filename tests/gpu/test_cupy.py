"""CuPy's arrays: where results live, which stream is used, what a call may not do.

A machine without a GPU runs this, too: see test_cupy_emulated.py.
"""

import ctypes
import threading
from collections import Counter

import numpy as np
import pytest
from backend_runner import runner
from cases import CALLS
from emulator import driver

import cvops
from cvops import _imports, arrays
from cvops.backends import extension, nvrtc

#: What a call may do on a device: queue.
QUEUED = {"cuLaunchKernel", "cuMemcpyDtoDAsync_v2", "cuMemsetD8Async"}
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
def two(cupy):
    if extension.native().device_count() < 2:
        pytest.skip("needs two GPUs")


@pytest.fixture
def calls(cupy):
    """What is called of CUDA."""
    if not driver.installed():
        pytest.skip("needs the emulated driver, which writes down what is called")
    driver.calls.clear()
    return driver.calls


@pytest.fixture
def cupys_kernels(cupy):
    """That CuPy can compile kernels of its own, by which it copies."""
    _imports.load_nvrtc()
    try:
        cupy.zeros(2, np.float32)[::-1].copy()
    except cupy.cuda.compiler.CompileException:
        pytest.skip("CuPy lacks CUDA's headers: pip install cvops[cuda12] or [cuda13]")


@pytest.fixture(params=["cupy", "native"])
def backend(request, cupy):
    runner("cuda", request.param)  # skips where it cannot run
    return request.param


def on_device(cupy, number, op):
    """The arguments of a call of ``op``, its arrays on that device, and what it is to give."""
    arguments, options = CALLS[op]
    with cupy.cuda.Device(number):
        inside = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arguments]
        cupy.cuda.Device().synchronize()
    expected = getattr(cvops, op)(*arguments, **options, backend="numpy")
    return inside, options, expected if isinstance(expected, tuple) else (expected,)


def call(op, backend, arguments, options):
    out = getattr(cvops, op)(*arguments, **options, backend=backend)
    return out if isinstance(out, tuple) else (out,)


@pytest.mark.parametrize("op", CALLS)
def test_results_live_where_the_arrays_do(cupy, two, backend, op):
    inside, options, expected = on_device(cupy, 1, op)
    assert cupy.cuda.Device().id == 0
    out = call(op, backend, inside, options)
    assert cupy.cuda.Device().id == 0
    for got, want in zip(out, expected):
        assert isinstance(got, cupy.ndarray)
        assert got.device.id == 1
        np.testing.assert_array_equal(got.get(), want)


@pytest.mark.parametrize("op", CALLS)
def test_a_call_queues_and_does_nothing_else(cupy, calls, backend, op):
    inside, options, _ = on_device(cupy, 0, op)
    for _ in range(2):  # loads the kernels, and leaves memory in CuPy's pool
        call(op, backend, inside, options)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        call(op, backend, inside, options)
        before = cupy.get_default_memory_pool().total_bytes()
        calls.clear()
        out = call(op, backend, inside, options)
        queued = list(calls)
    assert cupy.get_default_memory_pool().total_bytes() == before
    assert all(isinstance(x, cupy.ndarray) for x in out)
    assert {x.function for x in queued} <= QUEUED, Counter(x.function for x in queued)
    assert {x.stream for x in queued} == {stream.ptr}
    assert not any(x.host for x in queued)
    assert {x.function for x in queued} & {"cuLaunchKernel"}


def test_the_stream_is_that_of_the_arrays_device(cupy, two, calls, backend):
    inside, options, expected = on_device(cupy, 1, "box_iou")
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True).use()
    with cupy.cuda.Stream(non_blocking=True):  # of device 0, which is current
        calls.clear()
        (out,) = call("box_iou", backend, inside, options)
        assert {(x.device, x.stream) for x in calls if x.function in QUEUED} == {(1, stream.ptr)}
    with cupy.cuda.Device(1):
        cupy.cuda.Stream.null.use()
    np.testing.assert_array_equal(out.get(), expected[0])


@pytest.mark.parametrize("number", [0, 1])
def test_a_stream_that_cupy_does_not_know(cupy, two, backend, number, monkeypatch):
    """As PyTorch's: a number."""
    (x, y), _, (expected,) = on_device(cupy, number, "box_iou")
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


def test_an_error_leaves_device_and_stream_as_they_were(cupy, two, backend, monkeypatch):
    def fail(*args):
        raise RuntimeError("in the body")

    (x, y), _, _ = on_device(cupy, 1, "box_iou")
    monkeypatch.setattr(arrays.CuPy, "empty_cuda", fail)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        with pytest.raises(RuntimeError, match="in the body"):
            cvops.box_iou(x, y, backend=backend)
        assert cupy.cuda.get_current_stream() == stream
    assert cupy.cuda.Device().id == 0


def test_arrays_of_two_devices(cupy, two):
    x, y = (on_device(cupy, number, "box_iou")[0][0] for number in (0, 1))
    with pytest.raises(
        TypeError, match="lhs is a CuPy array on GPU 0 and rhs a CuPy array on GPU 1"
    ):
        cvops.box_iou(x, y)


@pytest.fixture(params=["not aligned", "not contiguous"])
def view(request, cupy, two, cupys_kernels):
    """Boxes on device 1 in memory that the kernels cannot read as it is."""
    with cupy.cuda.Device(1):
        if request.param == "not aligned":
            view = cupy.asarray(np.r_[np.float32(0), BOXES.ravel()])[1:].reshape(-1, 4)
            assert view.data.ptr % arrays.ALIGNMENT == 4
        else:
            view = cupy.asarray(BOXES[:, ::-1].copy())[:, ::-1]
            assert not view.flags.c_contiguous
    return view


def test_an_input_is_copied_on_its_device(cupy, backend, view):
    out = cvops.box_iou(view, view, backend=backend)
    assert (out.device.id, cupy.cuda.Device().id) == (1, 0)
    np.testing.assert_array_equal(out.get(), IOU)


def test_nothing(cupy, backend):
    none = cupy.zeros((0, 4), np.float32)
    assert cvops.box_iou(none, cupy.asarray(BOXES), backend=backend).shape == (0, 300)


def test_threads_with_devices_of_their_own(cupy, two, backend):
    wrong = []

    def work(number):
        (x, y), _, _ = on_device(cupy, number, "box_iou")
        for _ in range(10):
            out = cvops.box_iou(x, y, backend=backend)
            if out.device.id != number or not np.array_equal(out.get(), IOU):
                wrong.append(out)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kernels_are_compiled_for_every_gpu(calls):
    assert nvrtc.architectures() == [80, 90]


class TestDriver:
    """That the emulated driver refuses what CUDA does, or the tests above would say little."""

    @pytest.fixture
    def launch(self, cupy, calls):
        """launch(stream): the driver's error of a kernel of GPU 0."""
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

    def test_a_stream_of_another_device(self, cupy, launch, two, capfd):
        with cupy.cuda.Device(1):
            stream = cupy.cuda.Stream()
        assert launch(stream.ptr) == 400
        assert "box_iou: of GPUs (0, 1) where 0 is current" in capfd.readouterr().err

    def test_a_kernel_of_another_device(self, cupy, launch, two, capfd):
        with cupy.cuda.Device(1):
            assert launch(0) == 400
        assert "box_iou: of GPUs (0, 1) where 1 is current" in capfd.readouterr().err

    def test_a_thread_without_a_context(self, cupy, launch, capfd):
        driver.api.thread.context = None
        try:
            assert launch(0) == 201
        finally:
            cupy.cuda.Device(0).use()
        assert "cuLaunchKernel: the thread has no context" in capfd.readouterr().err

    def test_a_context_that_nobody_gave(self, cupy, calls, capfd):
        with pytest.raises(RuntimeError, match="cuCtxSetCurrent: 201"):
            extension.native().set_context(99)
        assert cupy.cuda.Device().id == 0
        assert "0x63 is no context" in capfd.readouterr().err

    def test_memory_that_is_not_a_gpus(self, cupy, calls, two, capfd):
        cuda, host, inside = ctypes.CDLL("libcuda.so.1"), np.zeros(8), cupy.zeros(8)
        here, there = ctypes.c_uint64(inside.data.ptr), ctypes.c_uint64(host.ctypes.data)
        size, stream = ctypes.c_size_t(8), ctypes.c_void_p()
        assert cuda.cuMemcpyDtoDAsync_v2(here, there, size, stream) == 1
        assert cuda.cuMemsetD8Async(there, 0, size, stream) == 1
        with cupy.cuda.Device(1):
            assert cuda.cuMemsetD8Async(here, 0, size, stream) == 400
        assert "are not in memory of a GPU" in capfd.readouterr().err

    def test_memory_of_another_device(self, cupy, calls, two, capfd, monkeypatch):
        (x, y), _, _ = on_device(cupy, 1, "box_iou")
        zero = arrays.Device("cuda", 0)
        monkeypatch.setattr(arrays.CuPy, "describe", lambda self, x: (zero, x.dtype, x.shape))
        with pytest.raises(RuntimeError, match=r"box_iou<<<.*>>>: 700"):
            cvops.box_iou(x, y, backend="cupy")
        assert "is not on GPU 0" in capfd.readouterr().err

    def test_dynamic_shared_memory_beside_static(self, cupy, calls, capfd):
        driver, most = cupy.cuda.driver, 227 << 10
        module = cupy.cuda.function.Module()  # whose functions nobody else has
        module.load_file(str(nvrtc.cubin_file("box_nms", 90)))
        function = module.get_function("box_nms_rank").ptr
        static = driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        assert static > 5120 * 8  # a key for each row
        limit = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.funcSetAttribute(function, limit, most - static + 1)
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.launchKernel(function, 1, 1, 1, 1, 1, 1, (48 << 10) - static + 1, 0, 0, 0)
        driver.funcSetAttribute(function, limit, most - static)
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.launchKernel(function, 1, 1, 1, 1, 1, 1, most - static + 1, 0, 0, 0)
        assert "bytes of shared memory" in capfd.readouterr().err

    def test_a_cubin_for_another_gpu(self, cupy, calls, two, capfd):
        module = cupy.RawModule(path=str(nvrtc.cubin_file("box_iou", 80)))
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="209"):
            module.get_function("box_iou")
        assert "a cubin for sm_80" in capfd.readouterr().err

    @pytest.mark.parametrize("what", ["malloc", "synchronize"])
    def test_what_would_break_a_capture(self, cupy, calls, what, capfd):
        runtime = cupy.cuda.runtime
        with cupy.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture(runtime.streamCaptureModeGlobal)
            with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
                runtime.malloc(16) if what == "malloc" else stream.synchronize()
            with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
                stream.end_capture()
        assert "not while a graph is captured" in capfd.readouterr().err
