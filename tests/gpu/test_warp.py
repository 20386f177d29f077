"""The functions of warps, and the prefix sum and the sort of a block, against NumPy."""

import shutil

import numpy as np
import pytest
from emulator.arena import Arena
from emulator.build import compiler
from emulator.emulator import Module

from cvops.backends import nvrtc

pytestmark = pytest.mark.skipif(shutil.which(compiler()[0]) is None, reason="no C++ compiler")

KERNELS = """
using namespace cvops;

extern "C" __global__ void sums(uint32* sum, int* prefix, const int* x) {
  const int t = threadIdx.x;
  sum[t] = warp_sum((uint32)x[t]);
  prefix[t] = warp_prefix_sum(x[t]);
}

extern "C" __global__ void extremes(uint64* most, uint32* least, float* most_float, const uint64* x,
                                    const float* f) {
  const int t = threadIdx.x;
  most[t] = warp_max(x[t]);
  least[t] = warp_min((uint32)x[t]);
  most_float[t] = warp_max(f[t]);
}

extern "C" __global__ void append(int* out, int* count, const int* is_appended) {
  const int t = threadIdx.x, at = warp_append(count, is_appended[t]);
  if (is_appended[t]) out[at] = t;
}
"""


@pytest.fixture(scope="module")
def launch():
    module = Module(nvrtc.source("warp") + KERNELS, "warp")
    return lambda kernel, threads, *args: module.launch(kernel, (1,), (threads,), args)


def test_warp_sums_match_numpy(launch):
    x = np.random.default_rng(0).integers(-1000, 1000, (2, 32), dtype=np.int32)
    sums, prefix = np.empty_like(x, np.uint32), np.empty_like(x)
    launch("sums", 64, sums, prefix, x)
    np.testing.assert_array_equal(sums.view(np.int32), np.repeat(x.sum(1, keepdims=True), 32, 1))
    np.testing.assert_array_equal(prefix, x.cumsum(1))


@pytest.mark.parametrize("bits", [1, 32, 33, 64])
def test_warp_maxima_and_minima_match_numpy(launch, bits):
    """The 64-bit numbers are equal in both halves, in one half, or in none."""
    rng = np.random.default_rng(bits)
    x = rng.integers(0, 2**bits - 1, 32, dtype=np.uint64, endpoint=True)
    x = np.concatenate([x, ~x])
    f = rng.normal(size=64).astype(np.float32)
    most, least, most_float = np.empty_like(x), np.empty_like(x, np.uint32), np.empty_like(f)
    launch("extremes", 64, most, least, most_float, x, f)
    np.testing.assert_array_equal(most, np.repeat(x.reshape(2, 32).max(1), 32))
    lower = x.astype(np.uint32).reshape(2, 32)
    np.testing.assert_array_equal(least, np.repeat(lower.min(1), 32))
    np.testing.assert_array_equal(most_float, np.repeat(f.reshape(2, 32).max(1), 32))


@pytest.mark.parametrize(
    "threads",
    [[], [31], [0, 5, 31], range(32), range(0, 64, 3), range(64)],
    ids=["none", "last lane", "three lanes", "first warp", "every third", "all"],
)
def test_warp_append_writes_the_threads_of_a_warp_in_order(launch, threads):
    """The list has 7 elements before; the warps may come in either order."""
    append, out, count = np.zeros(64, np.int32), np.full(71, -1, np.int32), np.int32([7])
    append[list(threads)] = 1
    launch("append", 64, out, count, append)
    assert count == 7 + len(threads)
    assert (out[:7] == -1).all()
    assert (out[count[0] :] == -1).all()
    parts = [[t for t in threads if t // 32 == warp] for warp in range(2)]
    assert out[7 : count[0]].tolist() in ([*parts[0], *parts[1]], [*parts[1], *parts[0]])


SCAN = """
extern "C" __global__ void scan(int* before, int* total, const cvops::uint64* words, int num,
                                int first) {
  const int all = cvops::popcount_prefix_sum(before, num, first, [&](int w) { return words[w]; });
  if (threadIdx.x == 0) *total = all;
}
"""


@pytest.mark.parametrize(
    ("num", "seed", "sanitizer"),
    [(1, 0, None), (512, 0, None), (1300, 0, None), (1300, 2, None), (1300, 0, "thread")],
)
def test_prefix_sum_of_a_block_counts_the_bits_before_each_word(num, seed, sanitizer):
    """512 threads take 512 words at a time. The seed is the order of the warps."""
    rng = np.random.default_rng(num)
    random = rng.integers(0, 2**64, num, np.uint64) & rng.integers(0, 2**64, num, np.uint64)
    arena = Arena()
    words, before = arena.array((num,), np.uint64), arena.array((num + 1,), np.int32)
    total = arena.array((1,), np.int32)
    words[:] = random
    args = before, total, words, np.int32(num), np.int32(7)
    module = Module(nvrtc.source("nms/last_block") + SCAN, "scan", sanitizer)
    module.launch("scan", (1,), (512,), args, seed=seed, arena=arena if sanitizer else None)
    bits = np.unpackbits(random.view(np.uint8)).reshape(num, 64).sum(axis=1)
    np.testing.assert_array_equal(before, 7 + np.append(0, bits.cumsum()))
    assert total == before[-1]
    arena.close()


@pytest.mark.parametrize(
    ("num", "seed", "sanitizer"),
    [(1500, 0, None), (2048, 0, None), (2048, 2, None), (2048, 0, "thread")],
)
def test_tile_of_keys_is_sorted(num, seed, sanitizer):
    """512 threads have four keys each; those of distant threads pass through shared memory."""
    random = np.random.default_rng(num).integers(0, 2**64 - 1, num, np.uint64)
    arena = Arena()
    keys, out = arena.array((num,), np.uint64), arena.array((num,), np.uint64)
    counts = arena.array((1,), np.int32)
    keys[:], counts[:] = random, num
    args = out, keys, counts, np.int32(num), np.int32(2048)
    module = Module(nvrtc.source("sort"), "sort", sanitizer)
    module.launch("sort_tiles", (1, 1), (512,), args, seed=seed, arena=arena if sanitizer else None)
    np.testing.assert_array_equal(out, np.sort(random))
    arena.close()
