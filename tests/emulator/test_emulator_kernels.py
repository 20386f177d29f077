"""The results of kernels in the emulator."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

SEEDS = [0, 1, 2, 3]


def test_kernels_are_found_in_the_source(kernels):
    assert kernels.kernels[:3] == ("indices", "reverse", "without_a_barrier")
    assert "commented_out" not in kernels.kernels


@pytest.mark.parametrize("seed", SEEDS)
def test_each_thread_has_its_indices(kernels, seed):
    grid, block = (3, 2, 2), (5, 4, 3)
    out = np.full((*grid[::-1], *block[::-1], 6), -1, np.int32)
    kernels.launch("indices", grid, block, (out,), seed=seed)
    np.testing.assert_array_equal(np.moveaxis(out, -1, 0), np.indices(out.shape[:-1]))


def check_reverse(kernels, seed, blocks=50):
    x = np.random.default_rng(seed).integers(0, 1000, (blocks, 64), np.int32)
    out, out2 = np.zeros_like(x), np.zeros_like(x)
    kernels.launch("reverse", (blocks,), (64,), (out, out2, x), shared=64 * 4, seed=seed)
    np.testing.assert_array_equal(out, x[:, ::-1])
    np.testing.assert_array_equal(out2, x[:, ::-1])


@pytest.mark.parametrize("os_threads", [0, 1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_threads_exchange_shared_memory_at_a_barrier(kernels, seed, os_threads):
    kernels.os_threads = os_threads
    check_reverse(kernels, seed)
    kernels.os_threads = 0


def test_concurrent_launches_give_the_right_results(kernels):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: check_reverse(kernels, seed), range(100)))


def test_missing_barrier_gives_another_result_for_each_seed(kernels):
    results = set()
    for seed in SEEDS:
        out = np.zeros(64, np.int32)
        kernels.launch("without_a_barrier", (1,), (64,), (out,), seed=seed)
        results.add(tuple(out))
    assert len(results) == len(SEEDS)


def test_shared_memory_is_filled_with_junk(kernels):
    out = np.zeros(2, np.int32)
    kernels.launch("uninitialized", (20,), (1,), (out,), shared=8)
    np.testing.assert_array_equal(out.view(np.uint32), [0xCDCDCDCD, 0xCDCDCDCD])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("by", "width", "lane", "expected"),
    [
        (3, 32, 10, [3, 7, 13, 9]),
        (3, 32, 1, [3, 1, 4, 2]),
        (5, 32, 30, [5, 25, 30, 27]),
        (3, 8, 10, [8 + 3, 10, 13, 9]),
        (3, 8, 13, [8 + 3, 10, 13, 14]),
        (9, 8, 13, [8 + 1, 13, 13, 4]),
        (8, 8, 5, [0, 5, 5, 5]),
    ],
    ids=[
        "warp, lane 10",
        "warp, first lanes",
        "warp, last lanes",
        "eighth, first lanes",
        "eighth, last lanes",
        "delta 9",
        "delta 8",
    ],
)
def test_shuffles_read_the_right_lane(kernels, by, width, lane, expected, seed):
    out = np.zeros((4, 32), np.int32)
    kernels.launch("shuffles", (1,), (32,), (out, np.int32(by), np.int32(width)), seed=seed)
    np.testing.assert_array_equal(out[:, lane], expected)


def test_64_bit_shuffles_read_the_right_lane(kernels):
    doubles, ints = np.zeros(32), np.zeros(32, np.uint64)
    kernels.launch("shuffle_wide", (1,), (32,), (doubles, ints))
    lanes = np.arange(32) ^ 1
    np.testing.assert_array_equal(doubles, 1 / (lanes + 1))
    np.testing.assert_array_equal(ints, lanes.astype(np.uint64) << np.uint64(40))


@pytest.mark.parametrize("seed", SEEDS)
def test_votes_include_the_lanes_of_the_mask(kernels, seed):
    x = np.array([1, 0, 1, 2] * 4 + [3] * 16, np.int32)
    out = np.zeros((4, 32), np.uint32)
    kernels.launch("votes", (1,), (32,), (out, x), seed=seed)
    ballot, any_, all_, match = out
    np.testing.assert_array_equal(ballot, [0b1101_1101_1101_1101] * 16 + [0xFFFF0000] * 16)
    np.testing.assert_array_equal(any_, [1] * 32)
    np.testing.assert_array_equal(all_, [0] * 16 + [1] * 16)
    np.testing.assert_array_equal(match[:4], [0x5555, 0x2222, 0x5555, 0x8888])
    np.testing.assert_array_equal(match[16:], [0xFFFF0000] * 16)


@pytest.mark.parametrize(
    ("positive", "expected"),
    [(0, [0, 0, 0]), (9, [9, 1, 0]), (64, [64, 1, 1])],
    ids=["none", "some", "all"],
)
def test_votes_of_a_block_include_the_threads_that_have_not_exited(kernels, positive, expected):
    x = (np.arange(96) < positive).astype(np.int32)
    out = np.full(3, -1, np.int32)
    kernels.launch("block_votes", (1,), (96,), (out, x))
    np.testing.assert_array_equal(out, expected)


def test_atomics_combine_the_values_of_all_threads(kernels):
    ints, floats = np.zeros(5, np.int32), np.zeros(1, np.float32)
    uints = np.array([0, 0, 0xFFFFFFFF, 0, 0], np.uint32)
    longs = np.zeros(2, np.uint64)
    threads = 40 * 128
    kernels.launch("atomics", (40,), (128,), (ints, uints, longs, floats))
    np.testing.assert_array_equal(ints, [threads, threads - 1, -(threads - 1), threads - 1, 1])
    np.testing.assert_array_equal(uints, [threads, 0xFFFFFFFF, 1 << 31, 7, 1])
    np.testing.assert_array_equal(longs, [threads << 33, (threads - 1) << 32])
    assert floats[0] == threads / 2


def test_functions_of_one_thread_give_the_values_of_cuda(kernels):
    ints, floats = np.zeros(16, np.int32), np.zeros(3, np.float32)
    kernels.launch("functions", (1,), (1,), (ints, floats))
    bits = [8, 2, 4, 41, 0, 31, 63, 32, 1, 0x3F800000]
    np.testing.assert_array_equal(ints, [*bits, -1, 1, 3, 5, 2, 2**31 - 1])
    np.testing.assert_array_equal(floats, np.float32([1, 2, 2]))


def test_vectors_are_loaded_and_stored(kernels):
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    out = np.zeros_like(x)
    kernels.launch("scaled", (1,), (8,), (out, x, np.float32(2)))
    np.testing.assert_array_equal(out, 2 * x)


LINE = np.array([(0.5, 3, 10)], np.dtype("f4, i4, f8", align=True))


@pytest.mark.parametrize("line", [LINE, LINE[0], LINE.reshape(())], ids=["array", "scalar", "0-d"])
def test_struct_is_passed_by_value(kernels, line):
    out = np.zeros(1)
    kernels.launch("on_line", (1,), (1,), (out, line, np.int64(4)))
    assert out[0] == (0.5 * 4 + 3) * 10


def test_address_is_passed_to_a_pointer(kernels):
    out = np.zeros(1)
    kernels.launch("on_line", (1,), (1,), (np.uintp(out.ctypes.data), LINE, np.int64(4)))
    assert out[0] == 50


def test_read_only_array_is_passed_to_a_pointer_to_const(kernels):
    x, out = np.zeros(4, np.float32), np.ones(4, np.float32)
    x.flags.writeable = False
    kernels.launch("scaled", (1,), (1,), (out, x, np.float32(1)))
    np.testing.assert_array_equal(out, 0)


def test_launch_at_the_limits_runs(kernels):
    kernels.launch("empty", (1,), (16, 1, 64), (), 227 * 1024)
    kernels.launch("empty", (1, 65535), (1,), ())
