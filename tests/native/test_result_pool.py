"""The memory of large results on the CPU: its reuse, its owners, its limit, and its release."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from in_threads import run_in_threads

import cvops

native = pytest.importorskip("cvops._native")
MIB = 1 << 20
SHAPE = (700, 500)  # 1.4 MB of float32


@pytest.fixture(autouse=True)
def size():
    """Empty the pool, and restore its size after the test."""
    before = native.result_pool_size()
    native.set_result_pool_size(256 * MIB)
    gc.collect()
    native.release_results()
    yield
    native.set_result_pool_size(before)
    native.release_results()


def empty(shape=SHAPE, dtype=np.float32):
    return native.empty(shape, dtype)


def use(num, shape=(2 * MIB,)):
    """Make some results of bytes at the same time, and free them."""
    live = [empty(shape, np.uint8) for _ in range(num)]
    assert len(live) == num


def address(x):
    return x.__array_interface__["data"][0]


def run_python(code, **environment):
    """Return the output of code in a new process."""
    head = "import os, resource\nimport numpy as np\nfrom cvops import _native as native\n"
    env = {k: v for k, v in os.environ.items() if k != "CVOPS_RESULT_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        env={**env, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, "float64", np.dtype("int32"), np.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (3 * MIB,), (2, 700, 800), (4000, 0)])
def test_array_has_the_shape_and_the_dtype(shape, dtype):
    x, expected = native.empty(shape, dtype), np.empty(shape, dtype)
    assert (x.shape, x.dtype, x.strides) == (expected.shape, expected.dtype, expected.strides)
    assert x.flags.carray


@pytest.mark.parametrize("shape", [(-1, MIB), (2**40, 2**40), (MIB, "2"), (MIB, 2.0)])
def test_shape_that_numpy_refuses_has_its_error(shape):
    with pytest.raises((ValueError, TypeError)) as expected:
        np.empty(shape, np.float32)
    with pytest.raises(expected.type, match=str(expected.value)[:20]):
        native.empty(shape, np.float32)


def test_dtype_that_numpy_refuses_has_its_error():
    with pytest.raises(TypeError, match="nonsense"):
        native.empty(SHAPE, "nonsense")


def test_small_array_owns_its_memory():
    assert native.empty((MIB // 4 - 1,), np.float32).flags.owndata
    assert not native.empty((MIB // 4,), np.float32).flags.owndata


def test_large_array_begins_at_a_huge_page():
    for num in (MIB, 2 * MIB, 2 * MIB + 1, 9 * MIB):
        assert address(empty((num,), np.uint8)) % (2 * MIB) == 0


# --- reuse ----------------------------------------------------------------------------------------


def test_memory_of_a_freed_result_is_reused():
    x = empty()
    first = address(x)
    del x
    assert address(empty()) == first
    assert native.kept_result_bytes() >= 4 * 700 * 500


def test_result_of_a_similar_size_reuses_memory():
    first = address(empty((10 * MIB,), np.uint8))
    assert address(empty((10 * MIB - 5000,), np.uint8)) == first


def test_result_of_an_op_has_the_same_bits_in_used_memory():
    rng = np.random.default_rng(0)
    low = rng.random((900, 2), np.float32)
    boxes = np.concatenate([low, low + rng.random((900, 2), np.float32)], axis=1)
    native.set_result_pool_size(0)
    expected = cvops.box_iou(boxes, boxes)
    assert expected.flags.owndata
    native.set_result_pool_size(256 * MIB)
    x = cvops.box_iou(boxes, boxes)
    x.view(np.uint32)[...] = 0xFFFFFFFF
    first = address(x)
    del x
    y = cvops.box_iou(boxes, boxes)
    assert address(y) == first
    np.testing.assert_array_equal(y.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    "view",
    [lambda x: x[100:], lambda x: x[::-1, ::2].T, memoryview, lambda x: x.reshape(-1).view("u1")],
    ids=["slice", "strides", "memoryview", "dtype"],
)
def test_view_keeps_the_memory_of_a_result(view):
    x = empty()
    x[...] = 7
    first, kept = address(x), view(x)
    del x
    others = [empty() for _ in range(5)]
    for other in others:
        other[...] = 8
    assert first not in map(address, others)
    expected = np.full(SHAPE, 7, np.float32)
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(view(expected)))
    del kept
    assert address(empty()) == first


def test_live_results_never_share_memory():
    """Sizes of several classes, freed in random order."""
    rng = np.random.default_rng(0)
    live = []
    for step in range(400):
        if len(live) > 12:
            live.pop(rng.integers(len(live)))
        x = empty((int(rng.integers(MIB, 4 * MIB)),), np.uint8)
        x[::4096], x[-1] = step % 251, step % 251
        live.append(x)
        ranges = sorted((address(y), address(y) + y.nbytes) for y in live)
        assert all(end <= begin for (_, end), (begin, _) in zip(ranges, ranges[1:]))
    for x in live:
        assert (x[::4096] == x[0]).all()
        assert x[-1] == x[0]


def test_results_of_concurrent_threads_never_share_memory():
    wrong = []

    def work(thread):
        for i in range(100):
            x, y = empty(), empty((2 * MIB,), np.uint8)
            x[...], y[::512] = thread, i
            if (x != thread).any() or (y[::512] != i).any():
                wrong.append(thread)

    run_in_threads(work, range(4))
    assert not wrong


# --- limit ----------------------------------------------------------------------------------------


def test_pool_keeps_no_more_than_its_size():
    native.set_result_pool_size(5 * MIB)
    use(6)
    assert native.kept_result_bytes() == 4 * MIB


def test_pool_frees_the_oldest_result_first():
    native.set_result_pool_size(4 * MIB)
    a, b, c = (empty((2 * MIB,), np.uint8) for _ in range(3))
    first, last = address(a), {address(b), address(c)}
    del a, b, c
    again = [empty((2 * MIB,), np.uint8) for _ in range(2)]
    assert {address(x) for x in again} == last
    assert first not in last


def test_smaller_size_frees_results():
    use(3)
    native.set_result_pool_size(3 * MIB)
    assert native.kept_result_bytes() <= 3 * MIB
    native.release_results()
    assert native.kept_result_bytes() == 0


@pytest.mark.parametrize("size", [0, -1])
def test_pool_without_a_size_is_off(size):
    x = empty()
    native.set_result_pool_size(size)
    assert native.result_pool_size() == 0
    assert empty().flags.owndata
    del x
    assert native.kept_result_bytes() == 0


def test_result_larger_than_the_pool_owns_its_memory():
    native.set_result_pool_size(MIB)
    assert empty().flags.owndata


@pytest.mark.parametrize(
    ("value", "size"),
    [(None, 256), ("", 256), ("0", 0), ("40", 40), ("-1", 256), ("many", 256), ("1.5", 256)],
)
def test_environment_sets_the_size(value, size):
    environment = {} if value is None else {"CVOPS_RESULT_POOL": value}
    assert run_python("print(native.result_pool_size())", **environment) == str(size * MIB)


RESIDENT = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
live = [np.asarray(native.empty((4 << 20,), np.uint8)) for _ in range(40)]
for x in live:
    x[...] = 1
most = resident()
del live, x
print((most - before) >> 20, (resident() - before) >> 20)
"""


@pytest.mark.parametrize("size", [0, 16])
def test_resident_memory_after_large_results_is_limited(size):
    most, after = map(int, run_python(RESIDENT, CVOPS_RESULT_POOL=str(size)).split())
    assert most >= 160
    assert after <= size + 5


# --- release --------------------------------------------------------------------------------------


def test_pool_is_released_when_the_system_has_no_memory():
    code = """
live = [native.empty((8 << 20,), np.uint8) for _ in range(3)]
del live
kept = native.kept_result_bytes()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (10 << 20),) * 2)
x = native.empty((12 << 20,), np.uint8)
x[...] = 1
try:
    native.empty((100 << 20,), np.uint8)
except MemoryError as error:
    print(kept >> 20, x.flags.owndata, native.kept_result_bytes(), str(error)[:16])
"""
    assert run_python(code) == "24 False 0 Unable to alloca"


def test_fork_releases_the_pool_and_keeps_live_results():
    x = empty()
    x[...] = 1
    use(3)
    assert native.kept_result_bytes() > 0
    child = os.fork()
    if child == 0:
        kept = native.kept_result_bytes()
        x += 1
        y = empty()
        y[...] = 5
        same = bool((x == 2).all())
        del x, y
        os._exit(0 if kept == 0 and same and native.kept_result_bytes() > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert native.kept_result_bytes() == 0
    assert (x == 1).all()


def test_fork_during_calls_of_other_threads():
    done = []

    def work(thread):
        if thread:
            while not done:
                empty()[0] = thread
            return
        try:
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    x = empty()
                    x[...] = 3
                    os._exit(0 if (x == 3).all() else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            done.append(True)

    run_in_threads(work, range(3))


def test_result_that_lives_at_exit_is_no_error():
    code = "x = native.empty((4 << 20,), np.uint8)\nx[...] = 1\nprint(x[9])"
    assert run_python(code) == "1"


@pytest.mark.parametrize("sizes", [(3, 5), (600_000, 7), (4_000_000, 2_000_000)])
def test_several_arrays_are_apart_and_aligned(sizes):
    """Together they are small; one is small; all are large."""
    made = native.empty_all(((sizes[0],), np.float32), ((sizes[1], 1), "u1"), ((0,), np.int32))
    assert [(x.shape, x.dtype) for x in made] == [
        ((sizes[0],), np.float32),
        ((sizes[1], 1), np.uint8),
        ((0,), np.int32),
    ]
    assert all(x.flags.carray and x.ctypes.data % x.itemsize == 0 for x in made)
    assert not np.shares_memory(made[0], made[1])


def test_small_part_lies_in_the_memory_of_a_large_one():
    large, small = native.empty_all(((3 << 20,), np.uint8), ((1 << 19,), np.float32))
    assert large.base is small.base is not None
    assert small.ctypes.data - large.ctypes.data == 3 << 20


def test_array_that_is_too_large_is_an_error_beside_a_large_one():
    for shape in ((1 << 60,), (1 << 31, 1 << 31, 1 << 31)):
        with pytest.raises((MemoryError, ValueError)):
            native.empty_all(((5 << 20,), np.float32), (shape, np.float32))
    with pytest.raises(TypeError, match="expected pairs of a shape and a dtype"):
        native.empty_all((5 << 20,))
