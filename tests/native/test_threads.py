"""How many threads the CPU's ops use, and that they live with forks, workers and other threads."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import cvops
from cvops.backends import extension, threads
from native import BINDINGS, program, run

pytestmark = pytest.mark.skipif(
    extension.native() is None, reason="needs the compiled extension cvops._native"
)


@pytest.fixture(autouse=True)
def _restored():
    yield
    extension.native().set_num_threads(0)


@pytest.fixture(scope="module")
def boxes():
    rng = np.random.default_rng(0)
    low = rng.random((2000, 2), np.float32)
    return np.concatenate([low, low + rng.random((2000, 2), np.float32)], axis=1)


def iou(boxes):
    """About a millisecond's work."""
    return cvops.box_iou(boxes, boxes, backend="native")


def in_a_new_python(code, **environment):
    env = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "import cvops; print(cvops.get_num_threads())"


class TestNumber:
    def test_what_was_set(self):
        for number in (1, 3, np.int64(2), True):
            cvops.set_num_threads(number)
            assert cvops.get_num_threads() == number

    @pytest.mark.parametrize("number", [0, -1, 1025])
    def test_out_of_range(self, number):
        with pytest.raises(ValueError, match=f"num_threads: expected 1 to 1024, got {number}"):
            cvops.set_num_threads(number)

    @pytest.mark.parametrize(("number", "kind"), [(2.0, "float"), ("2", "str"), (None, "NoneType")])
    def test_no_integer(self, number, kind):
        with pytest.raises(TypeError, match=f"num_threads: expected an integer, got {kind}"):
            cvops.set_num_threads(number)

    @pytest.mark.parametrize(
        ("environment", "number"),
        [
            ({"OMP_NUM_THREADS": "5"}, 5),
            ({"OMP_NUM_THREADS": "4,2"}, 4),  # of nested regions the outermost
            ({"OMP_NUM_THREADS": "5", "CVOPS_NUM_THREADS": "3"}, 3),
            ({"OMP_NUM_THREADS": "5", "CVOPS_NUM_THREADS": "0"}, 5),
        ],
    )
    def test_the_environment(self, environment, number):
        assert in_a_new_python(SHOW, **environment) == str(number)

    def test_the_cores_that_the_process_may_use(self):
        code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {SHOW}"
        assert in_a_new_python(code) == "1"
        assert in_a_new_python(SHOW, OMP_NUM_THREADS="many") == in_a_new_python(SHOW)

    def test_without_the_extension(self, monkeypatch):
        monkeypatch.setattr(extension, "native", lambda: None)
        cvops.set_num_threads(3)
        assert cvops.get_num_threads() == 1
        monkeypatch.undo()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_results_do_not_depend_on_it(boxes, threads):
    cvops.set_num_threads(threads)
    np.testing.assert_array_equal(iou(boxes), cvops.box_iou(boxes, boxes, backend="numpy"))


def test_threads_are_kept_and_no_more_are_made(boxes):
    def threads():
        time.sleep(0.1)  # until Python's own are gone
        return len(os.listdir("/proc/self/task"))

    cvops.set_num_threads(3)
    iou(boxes)
    before = threads()
    callers = [threading.Thread(target=lambda: [iou(boxes) for _ in range(5)]) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert threads() <= before


def test_callers_from_several_threads_get_their_own_results(boxes):
    cvops.set_num_threads(2)
    parts = [boxes[i::6] for i in range(6)]
    results = [None] * 6

    def work(i):
        for _ in range(20):
            results[i] = iou(parts[i])

    callers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for part, result in zip(parts, results):
        np.testing.assert_array_equal(result, iou(part))


# --- other processes ------------------------------------------------------------------------------


def report(boxes, queue):
    begun_with = cvops.get_num_threads()
    first = iou(boxes)
    cvops.set_num_threads(2)
    queue.put((begun_with, cvops.get_num_threads(), np.array_equal(first, iou(boxes))))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_worker_begins_with_one_thread(boxes, method):
    cvops.set_num_threads(2)
    iou(boxes)  # the pool has a thread now
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=report, args=(boxes, queue))
    worker.start()
    assert queue.get() == (1, 2, True)
    worker.join()
    assert worker.exitcode == 0
    assert cvops.get_num_threads() == 2


def fork_amid_calls(boxes):
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
                begun_with = cvops.get_num_threads()
                cvops.set_num_threads(2)
                os._exit(0 if begun_with == 1 and np.array_equal(iou(boxes), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        caller.join()


def test_a_fork_amid_a_call_of_another_thread(boxes):
    """The child finds a pool that works: it must neither wait for it nor use it."""
    # By a process that has little to copy.
    worker = multiprocessing.get_context("spawn").Process(target=fork_amid_calls, args=(boxes,))
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


def test_workers_of_torchs_dataloader():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    loader = torch.utils.data.DataLoader(Dataset(), num_workers=2)
    assert [float(batch) for batch in loader] == [1, 1, 1, 1]


def test_workers_of_mxnets_dataloader(mx):
    loader = mx.gluon.data.DataLoader(Dataset(), 1, num_workers=2)
    assert [batch.asscalar() for batch in loader] == [1, 1, 1, 1]


def test_a_pool_of_processes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(threads_of_a_worker, range(2)) == [1, 1]


def test_the_main_process_is_no_worker():
    threads.limit_spawned_workers()
    assert cvops.get_num_threads() == int(in_a_new_python(SHOW, **only_threads(os.environ)))


def only_threads(environment):
    return {k: v for k, v in environment.items() if "NUM_THREADS" in k}


# --- the pool itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_the_pool_under_a_sanitizer(sanitizer):
    flags = "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"
    run(program("parallel_for", *flags, BINDINGS / "runtime" / "threads.cpp"))
