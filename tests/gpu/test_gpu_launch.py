"""Launches of CuPy's backend: graphs, arguments, refusals and threads."""

import ctypes
import functools
import threading

import numpy as np
import pytest
from backend_runner import runner
from emulator import driver
from in_threads import run_in_threads

import cvops
from cvops.backends import cuda, extension, nvrtc
from cvops.backends.registry import BACKENDS
from cvops.ops import _op

missing = BACKENDS["cuda", "cupy"].missing()
if missing is not None:
    pytest.skip(f"cupy on cuda {missing}", allow_module_level=True)

cupy = pytest.importorskip("cupy")


@pytest.fixture
def boxes(rng):
    """boxes(num): random boxes."""

    def boxes(num):
        low, size = rng.random((2, num, 2), np.float32)
        return np.concatenate([low, low + size], axis=1)

    return boxes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_graph_keeps_the_arguments_of_its_launch(boxes):
    x, y = boxes(5), boxes(7)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        lhs, rhs = cupy.asarray(x), cupy.asarray(y)
        cvops.box_iou(lhs, rhs, backend="cupy")  # loads the kernel, and fills the pool
        stream.begin_capture()
        out = cvops.box_iou(lhs, rhs, backend="cupy")
        graph = stream.end_capture()
        # Another call reuses the memory of the arguments before the graph runs.
        cvops.box_iou(lhs[:1], rhs[:1], backend="cupy")
        out.data.memset_async(7, out.nbytes)
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), cvops.box_iou(x, y))


def test_graph_of_many_launches_reads_new_data(rng):
    rows = rng.random((3, 100, 6), np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        data = cupy.asarray(rows)
        cvops.box_nms(data, id_index=0, backend="cupy")
        stream.begin_capture()
        out = cvops.box_nms(data, id_index=0, backend="cupy")
        graph = stream.end_capture()
        rows = rows[::-1].copy()
        data.set(rows)
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), cvops.box_nms(rows, id_index=0))


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


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Replace the kernels of cvops by the source ECHO."""
    known = nvrtc.source, nvrtc.kernels, nvrtc.sources, nvrtc.source_of
    (tmp_path / "echo.cuh").write_text(ECHO)
    monkeypatch.setattr(nvrtc, "KERNELS", tmp_path)
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path))
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


def test_kernel_receives_each_type_of_argument(launch, echo):
    out = cupy.zeros(6, np.float32)
    assert launch("launch_echo", ctypes.c_void_p(out.data.ptr)) == ""
    np.testing.assert_array_equal(out.get(), np.float32([1, 1, 1, 0.1, 7, 9]))


def test_integer_beyond_int32_is_refused(launch):
    error = launch("launch_box_iou", None, ctypes.c_longlong(2**31), 32)
    assert error == "box_iou: 2147483648 does not fit its parameter"


def test_refused_launch_is_named_and_the_next_launch_works(boxes, launch):
    x = boxes(5)
    lhs = cupy.asarray(x)
    for _ in range(2):
        memory = ctypes.c_void_p(lhs.data.ptr)
        error = launch("launch_box_iou", memory, ctypes.c_longlong(5), 2048)
        assert error.startswith("box_iou<<<(1, 2, 1), (2048, 1, 1), 16>>>: 1 (")
    out = cvops.box_iou(lhs, lhs, backend="cupy")
    np.testing.assert_array_equal(out.get(), cvops.box_iou(x, x))


def test_repeated_calls_with_other_options_give_the_right_results(rng):
    rows = cupy.asarray(rng.random((100, 6), np.float32))
    for _ in range(2):
        for options in (dict(topk=50), dict(topk=20), dict(topk=50, id_index=0)):
            out = cvops.box_nms(rows, **options, backend="cupy").get()
            np.testing.assert_array_equal(out, cvops.box_nms(rows.get(), **options))


@pytest.mark.parametrize("backend", ["cupy", "native"])
def test_options_of_zero_and_minus_zero_give_different_results(boxes, backend):
    runner("cuda", backend)  # skips if the backend cannot run
    anchor, label = cupy.asarray(boxes(5)[None]), cupy.asarray(np.full((1, 1, 5), -1, np.float32))
    scores = cupy.asarray(np.zeros((1, 2, 5), np.float32))
    for zero in (0.0, -0.0, 0.0):
        *_, classes = cvops.multibox_target(
            anchor, label, scores, ignore_label=zero, backend=backend
        )
        assert np.signbit(classes.get()).tolist() == [[str(zero) == "-0.0"] * 5]


@pytest.mark.parametrize("backend", ["cupy", "native"])
def test_call_works_after_its_thread_lost_the_context(boxes, backend):
    """Other code may pop the context: cuCtxPopCurrent."""
    if not driver.installed():
        pytest.skip("needs the emulated driver")
    x = boxes(5)
    lhs, want = cupy.asarray(x), cvops.box_iou(x, x)
    for _ in range(2):
        driver.api.thread.context = None
        out = cvops.box_iou(lhs, lhs, backend=backend)
        np.testing.assert_array_equal(out.get(), want)


@pytest.fixture(params=["cupy", "native"])
def new_functions(request, monkeypatch):
    """The name of a backend whose executor has loaded no kernel."""
    runner("cuda", request.param)  # skips if the backend cannot run
    if request.param == "cupy":
        functions = extension.native().Functions(find=nvrtc.load)
        monkeypatch.setattr(nvrtc, "_loaded", {})
    else:
        make = cuda.nvrtc_functions if driver.installed() else cuda.native_functions
        functions = make.__wrapped__()
    name = "cuda", request.param
    executor = functools.lru_cache(None)(
        type("New", (cuda.Cuda,), {"functions": lambda self: functions})
    )
    monkeypatch.setitem(BACKENDS, name, BACKENDS[name]._replace(executor=executor))
    _op.clear_caches()
    yield request.param
    _op.clear_caches()


def test_concurrent_first_calls_give_the_right_results(boxes, new_functions):
    """Each thread is new, has no context, and has its own arrays."""
    inputs = [(boxes(n), boxes(9 - n)) for n in range(1, 9)]
    arrays = [[cupy.asarray(x) for x in pair] for pair in inputs]
    cupy.cuda.runtime.deviceSynchronize()
    barrier = threading.Barrier(len(inputs))

    def work(i):
        want = cvops.box_iou(*inputs[i])
        barrier.wait(60)
        for _ in range(20):
            out = cvops.box_iou(*arrays[i], backend=new_functions)
            np.testing.assert_array_equal(out.get(), want)

    run_in_threads(work, range(len(inputs)))
