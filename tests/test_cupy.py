"""CuPy's arrays: where results live, which stream is used, what a call may not do.

A machine without a GPU runs this, too: see test_cupy_emulated.py.
"""

import threading
from collections import Counter

import numpy as np
import pytest
from conftest import runner
from emulator import driver
from test_graph import CALLS

import cvops
from cvops import _imports, arrays
from cvops.backends import extension, nvrtc
from cvops.ops._op import Op

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
    monkeypatch.setattr(arrays.CuPy, "empty", fail)
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


ECHO = """
struct Pair { int first; float second[2]; };
extern "C" __global__ void echo(float* out, const float* missing, int i, long long l, float f,
                                Pair pair) {
  out[0] = missing == nullptr;
  out[1] = i == -2147483647 - 1;
  out[2] = l == (1ll << 40) + 1;
  out[3] = f;
  out[4] = pair.first;
  out[5] = pair.second[1];
}
"""


def test_each_kind_of_argument_arrives(cupy, tmp_path, monkeypatch):
    (tmp_path / "echo.cuh").write_text(ECHO)
    monkeypatch.setattr(nvrtc, "KERNELS", tmp_path)
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
    op = Op("echo")

    @op.body("kernels")
    def body(gpu):
        out = gpu.empty((6,), np.float32)
        pair = np.array((7, (8, 9)), [("first", "i4"), ("second", "f4", 2)])
        gpu.launch("echo", "echo", (1,), (1,), out, None, -(2**31), 2**40 + 1, 0.1, pair)
        return out

    out = op.call("cupy", like=cupy.zeros(1))()
    np.testing.assert_array_equal(out.get(), np.float32([1, 1, 1, 0.1, 7, 9]))


def test_kernels_are_compiled_for_every_gpu(calls):
    assert nvrtc.architectures() == [80, 90]


class TestDriver:
    """That the emulated driver refuses what CUDA does, or the tests above would say little."""

    def test_a_stream_of_another_device(self, cupy, calls, two, capfd):
        with cupy.cuda.Device(1):
            stream = cupy.cuda.Stream()
        start = nvrtc.start(nvrtc.load("box_iou", "box_iou", 0), (1,), (1,), 0, 0)
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="400"):
            start(stream.ptr, 0, 0)
        assert "box_iou: of GPUs (0, 1) where 0 is current" in capfd.readouterr().err

    def test_a_thread_without_a_context(self, cupy, calls, capfd):
        start = nvrtc.start(nvrtc.load("box_iou", "box_iou", 0), (1,), (1,), 0, 0)
        driver.api.thread.context = False
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="201"):
            start(0, 0, 0)
        assert "box_iou: the thread has no context" in capfd.readouterr().err

    def test_memory_of_another_device(self, cupy, calls, two, capfd, monkeypatch):
        (x, y), _, _ = on_device(cupy, 1, "box_iou")
        zero = arrays.Device("cuda", 0)
        monkeypatch.setattr(arrays.CuPy, "describe", lambda self, x: (zero, x.dtype, x.shape))
        with pytest.raises(RuntimeError, match=r"box_iou<<<.*>>>: 700"):
            cvops.box_iou(x, y, backend="cupy")
        assert "is not on GPU 0" in capfd.readouterr().err

    def test_dynamic_shared_memory_beside_static(self, cupy, calls, capfd):
        driver, most = cupy.cuda.driver, 227 << 10
        function = nvrtc.load("box_nms", "box_nms_rank", 0)
        static = driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        assert static > 5120 * 8  # a key for each row
        limit = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.funcSetAttribute(function, limit, most - static + 1)
        with pytest.raises(driver.CUDADriverError, match=r"^1: "):
            driver.launchKernel(function, 1, 1, 1, 1, 1, 1, (48 << 10) - static + 1, 0, 0, 0)
        nvrtc.start(function, (1,), (1,), most - static, 0)
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
