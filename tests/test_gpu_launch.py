"""Launches of CuPy's backend: what graphs keep of them, refusals, threads, scratch memory."""

import threading

import numpy as np
import pytest
from conftest import runner
from emulator import driver

import cvops
from cvops.ops._op import BACKENDS, Op

missing = BACKENDS["cuda", "cupy"].missing()
if missing is not None:
    pytest.skip(f"cupy on cuda {missing}", allow_module_level=True)

cupy = pytest.importorskip("cupy")


@pytest.fixture
def boxes(rng):
    def boxes(num):
        low, size = rng.random((2, num, 2), np.float32)
        return np.concatenate([low, low + size], axis=1)

    return boxes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_graph_keeps_the_arguments(boxes):
    x, y = boxes(5), boxes(7)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        lhs, rhs = cupy.asarray(x), cupy.asarray(y)
        cvops.box_iou(lhs, rhs, backend="cupy")  # loads the kernel, and fills the pool
        stream.begin_capture()
        out = cvops.box_iou(lhs, rhs, backend="cupy")
        graph = stream.end_capture()
        # The memory that the arguments stood in is used again before the graph runs.
        cvops.box_iou(lhs[:1], rhs[:1], backend="cupy")
        out.data.memset_async(7, out.nbytes)
        graph.launch(stream)
        np.testing.assert_array_equal(out.get(), cvops.box_iou(x, y))


def test_a_graph_of_many_launches_reads_new_data(rng):
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


def test_a_refused_launch_is_named_and_the_next_one_is_not_hurt(boxes):
    x = boxes(5)
    lhs = cupy.asarray(x)
    op = Op("too many threads", boxes="float32 (N, 4)")

    @op.body("kernels")
    def body(gpu, boxes):
        out = gpu.empty((5, 5), np.float32)
        gpu.launch("box_iou", "box_iou", (1, 1), (2048,), out, boxes, boxes, 5, 5, False)
        return out

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"box_iou<<<\(1, 1\), \(2048,\), 0>>>: "):
            op.call("cupy", boxes=lhs)()
    out = cvops.box_iou(lhs, lhs, backend="cupy")
    np.testing.assert_array_equal(out.get(), cvops.box_iou(x, x))


def test_options_that_differ_give_each_its_result(rng):
    """A call is repeated as it was for these options before."""
    rows = cupy.asarray(rng.random((100, 6), np.float32))
    for _ in range(2):
        for options in (dict(topk=50), dict(topk=20), dict(topk=50, id_index=0)):
            out = cvops.box_nms(rows, **options, backend="cupy").get()
            np.testing.assert_array_equal(out, cvops.box_nms(rows.get(), **options))


@pytest.mark.parametrize("backend", ["cupy", "native"])
def test_zeros_of_two_signs_are_two_options(boxes, backend):
    runner("cuda", backend)  # skips where it cannot run
    anchor, label = cupy.asarray(boxes(5)[None]), cupy.asarray(np.full((1, 1, 5), -1, np.float32))
    scores = cupy.asarray(np.zeros((1, 2, 5), np.float32))
    for zero in (0.0, -0.0, 0.0):
        *_, classes = cvops.multibox_target(
            anchor, label, scores, ignore_label=zero, backend=backend
        )
        assert np.signbit(classes.get()).tolist() == [[str(zero) == "-0.0"] * 5]


def test_a_thread_whose_context_was_taken_from_it(boxes):
    """By other code that uses the driver: cuCtxPopCurrent."""
    if not driver.installed():
        pytest.skip("needs the emulated driver")
    x = boxes(5)
    lhs, want = cupy.asarray(x), cvops.box_iou(x, x)
    for _ in range(2):
        driver.api.thread.context = False
        out = cvops.box_iou(lhs, lhs, backend="cupy")
        np.testing.assert_array_equal(out.get(), want)


def test_threads_at_a_time(boxes):
    """Each a new one, which has not spoken to the GPU before, and with work of its own."""
    inputs = [(boxes(n), boxes(9 - n)) for n in range(1, 9)]
    arrays = [[cupy.asarray(x) for x in pair] for pair in inputs]
    cupy.cuda.runtime.deviceSynchronize()
    wrong, together = [], threading.Barrier(len(inputs))

    def work(i):
        try:
            want = cvops.box_iou(*inputs[i])
            together.wait(60)
            for _ in range(20):
                np.testing.assert_array_equal(cvops.box_iou(*arrays[i], backend="cupy").get(), want)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
