"""The threads of the CPU's ops: their number, and calls from threads, forks and workers."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from in_threads import run_in_threads

import cvops
from cvops.backends import extension, threads
from native import BINDINGS, program, run

pytestmark = pytest.mark.skipif(
    extension.native() is None, reason="needs the compiled extension cvops._native"
)


@pytest.fixture(autouse=True)
def _default_number_of_threads():
    yield
    extension.native().set_num_threads(0)


@pytest.fixture(scope="module")
def boxes():
    rng = np.random.default_rng(0)
    low = rng.random((2000, 2), np.float32)
    return np.concatenate([low, low + rng.random((2000, 2), np.float32)], axis=1)


def iou(boxes):
    """Return the IoU of all pairs of boxes, which takes about a millisecond."""
    return cvops.box_iou(boxes, boxes, backend="native")


def run_python(code, **environment):
    """Return the output of code in a new process, without variables for numbers of threads."""
    env = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "import cvops; print(cvops.get_num_threads())"


class TestNumber:
    def test_number_that_was_set_is_returned(self):
        for number in (1, 3, np.int64(2), True):
            cvops.set_num_threads(number)
            assert cvops.get_num_threads() == number

    @pytest.mark.parametrize("number", [0, -1, 1025])
    def test_number_out_of_range_is_refused(self, number):
        with pytest.raises(ValueError, match=f"num_threads: expected 1 to 1024, got {number}"):
            cvops.set_num_threads(number)

    @pytest.mark.parametrize(
        ("number", "name"),
        [(2.0, "float"), ("2", "str"), (None, "NoneType")],
        ids=["float", "str", "None"],
    )
    def test_number_that_is_no_integer_is_refused(self, number, name):
        with pytest.raises(TypeError, match=f"num_threads: expected an integer, got {name}"):
            cvops.set_num_threads(number)

    @pytest.mark.parametrize(
        ("environment", "number"),
        [
            ({"OMP_NUM_THREADS": "5"}, 5),
            ({"OMP_NUM_THREADS": "4,2"}, 4),  # the first number is that of the outermost region
            ({"OMP_NUM_THREADS": "5", "CVOPS_NUM_THREADS": "3"}, 3),
            ({"OMP_NUM_THREADS": "5", "CVOPS_NUM_THREADS": "0"}, 5),
        ],
        ids=["OMP", "OMP list", "CVOPS before OMP", "CVOPS invalid"],
    )
    def test_environment_sets_the_number(self, environment, number):
        assert run_python(SHOW, **environment) == str(number)

    def test_default_is_the_number_of_available_cores(self):
        code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {SHOW}"
        assert run_python(code) == "1"
        assert run_python(SHOW, OMP_NUM_THREADS="many") == run_python(SHOW)

    def test_number_is_1_without_the_extension(self, monkeypatch):
        monkeypatch.setattr(extension, "native", lambda: None)
        cvops.set_num_threads(3)
        assert cvops.get_num_threads() == 1
        monkeypatch.undo()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_results_do_not_depend_on_the_number_of_threads(boxes, threads):
    cvops.set_num_threads(threads)
    np.testing.assert_array_equal(iou(boxes), cvops.box_iou(boxes, boxes, backend="numpy"))


def test_concurrent_calls_start_no_more_threads(boxes):
    def count_threads():
        time.sleep(0.1)  # Python's threads end
        return len(os.listdir("/proc/self/task"))

    cvops.set_num_threads(3)
    iou(boxes)
    before = count_threads()
    run_in_threads(lambda _: [iou(boxes) for _ in range(5)], range(6))
    assert count_threads() <= before


def test_concurrent_callers_get_their_own_results(boxes):
    cvops.set_num_threads(2)
    parts = [boxes[i::6] for i in range(6)]
    results = [None] * 6

    def work(i):
        for _ in range(20):
            results[i] = iou(parts[i])

    run_in_threads(work, range(6))
    for part, result in zip(parts, results):
        np.testing.assert_array_equal(result, iou(part))


# --- other processes ------------------------------------------------------------------------------


def report(boxes, queue):
    at_start = cvops.get_num_threads()
    first = iou(boxes)
    cvops.set_num_threads(2)
    queue.put((at_start, cvops.get_num_threads(), np.array_equal(first, iou(boxes))))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_starts_with_one_thread(boxes, method):
    cvops.set_num_threads(2)
    iou(boxes)  # starts a thread of the pool
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=report, args=(boxes, queue))
    worker.start()
    assert queue.get() == (1, 2, True)
    worker.join()
    assert worker.exitcode == 0
    assert cvops.get_num_threads() == 2


def fork_during_calls(boxes):
    cvops.set_num_threads(2)
    done = threading.Event()

    def busy():
        while not done.is_set():
            iou(boxes)

    caller = threading.Thread(target=busy)
    caller.start()
    expected = iou(boxes)
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                at_start = cvops.get_num_threads()
                cvops.set_num_threads(2)
                os._exit(0 if at_start == 1 and np.array_equal(iou(boxes), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        caller.join()


def test_fork_during_a_call_of_another_thread_gives_the_same_result(boxes):
    """The pool of the child has no threads: the child must not wait for it."""
    # A new process forks faster than this one, because it has less memory.
    worker = multiprocessing.get_context("spawn").Process(target=fork_during_calls, args=(boxes,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def threads_of_a_worker(_):
    return cvops.get_num_threads()


class Dataset:
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return float(cvops.get_num_threads())


def test_workers_of_the_dataloader_of_torch_use_one_thread():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    loader = torch.utils.data.DataLoader(Dataset(), num_workers=2)
    assert [float(batch) for batch in loader] == [1, 1, 1, 1]


def test_workers_of_the_dataloader_of_mxnet_use_one_thread(mx):
    loader = mx.gluon.data.DataLoader(Dataset(), 1, num_workers=2)
    assert [batch.asscalar() for batch in loader] == [1, 1, 1, 1]


def test_workers_of_a_pool_use_one_thread():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(threads_of_a_worker, range(2)) == [1, 1]


def test_main_process_keeps_its_number_of_threads():
    threads.limit_spawned_workers()
    variables = {k: v for k, v in os.environ.items() if "NUM_THREADS" in k}
    assert cvops.get_num_threads() == int(run_python(SHOW, **variables))


# --- the pool -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_pool_passes_a_sanitizer(sanitizer):
    flags = "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"
    run(program("parallel_for", *flags, BINDINGS / "runtime" / "threads.cpp"))
