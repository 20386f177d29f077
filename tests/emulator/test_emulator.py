"""The emulator itself: what it computes, what it refuses, and that it catches planted bugs."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cvops
from emulator import backends
from emulator.build import cached, compiler
from emulator.emulator import EmulatorError, Module
from emulator.extension import build_extension

pytestmark = pytest.mark.skipif(shutil.which(compiler()[0]) is None, reason="no C++ compiler")

KERNELS = r"""
struct Line {
  float slope;
  int offset;
  double scale;
};

__device__ __forceinline__ int thread_in_grid() {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  return block * (blockDim.x * blockDim.y * blockDim.z) + thread;
}

extern "C" __global__ void indices(int* __restrict__ out) {
  out += 6 * thread_in_grid();
  out[0] = blockIdx.z, out[1] = blockIdx.y, out[2] = blockIdx.x;
  out[3] = threadIdx.z, out[4] = threadIdx.y, out[5] = threadIdx.x;
}

// Each block reverses its part of x, through static and through dynamic shared memory.
extern "C" __global__ void __launch_bounds__(64) reverse(int* out, int* out2, const int* x) {
  __shared__ int tile[64];
  CVOPS_DYNAMIC_SHARED(int, dynamic_tile);
  const int first = blockIdx.x * blockDim.x, t = threadIdx.x, last = blockDim.x - 1;
  tile[t] = dynamic_tile[t] = x[first + t];
  __syncthreads();
  out[first + t] = tile[last - t];
  out2[first + t] = dynamic_tile[last - t];
}

extern "C" __global__ void without_a_barrier(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = tile[(5 * threadIdx.x + 1) % 64];
}

extern "C" __global__ void vector_read(float* out, int shift) {
  const float w = reinterpret_cast<const float4*>(out + shift)->w;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = w + 1;
}

extern "C" __global__ void uninitialized(int* out) {
  __shared__ int tile[2];
  CVOPS_DYNAMIC_SHARED(int, dynamic_tile);
  out[0] = tile[1], out[1] = dynamic_tile[1];
  tile[1] = dynamic_tile[1] = 0;  // the next block must not see it
}

// out (4, 32): the lane that each lane's value comes from.
extern "C" __global__ void shuffles(int* out, int by, int width) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(~0u, lane, by, width);
  out[32 + lane] = __shfl_up_sync(~0u, lane, by, width);
  out[64 + lane] = __shfl_down_sync(~0u, lane, by, width);
  out[96 + lane] = __shfl_xor_sync(~0u, lane, by, width);
}

extern "C" __global__ void shuffle_wide(double* doubles, unsigned long long* ints) {
  doubles[threadIdx.x] = __shfl_xor_sync(~0u, 1.0 / (threadIdx.x + 1), 1);
  ints[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x * (1ull << 40), 1);
}

// Lanes 0 to 15 and lanes 16 to 31 vote apart, at the same time.
extern "C" __global__ void votes(unsigned* out, const int* x) {
  const unsigned lane = threadIdx.x, half = lane < 16 ? 0xffffu : 0xffff0000u;
  out[lane] = __ballot_sync(half, x[lane] > 0);
  out[32 + lane] = __any_sync(half, x[lane] > 0);
  out[64 + lane] = __all_sync(half, x[lane] > 0);
  out[96 + lane] = __match_any_sync(half, x[lane]);
}

// Threads of the last warp exit at once: they count as arrived.
extern "C" __global__ void block_votes(int* out, const int* x) {
  if (threadIdx.x >= 64) return;
  const int count = __syncthreads_count(x[threadIdx.x] > 0);
  const int any = __syncthreads_or(x[threadIdx.x] > 0), all = __syncthreads_and(x[threadIdx.x] > 0);
  if (threadIdx.x == 63) out[0] = count, out[1] = any, out[2] = all;
}

extern "C" __global__ void atomics(int* ints, unsigned* uints, unsigned long long* longs,
                                   float* floats) {
  __shared__ int count;
  const int i = thread_in_grid();
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&ints[0], count);
  atomicMax(&ints[1], i);
  atomicMin(&ints[2], -i);
  atomicAdd(&uints[0], 1);
  atomicOr(&uints[1], 1u << i % 32);
  atomicAnd(&uints[2], ~(1u << i % 31));
  atomicAdd(&longs[0], 1ull << 33);
  atomicMax(&longs[1], (unsigned long long)i << 32);
  atomicAdd(&floats[0], 0.5f);
  if (atomicCAS(&uints[3], 0u, 7u) == 0u) atomicAdd(&uints[4], 1u);
  atomicAdd(&ints[3], atomicExch(&ints[4], 1));  // all but the first find the 1
}

extern "C" __global__ void functions(int* ints, float* floats) {
  ints[0] = __popc(0xF0F0u), ints[1] = __popcll(1ull << 63 | 1);
  ints[2] = __ffs(8), ints[3] = __ffsll(1ll << 40), ints[4] = __ffs(0);
  ints[5] = __clz(1), ints[6] = __clzll(1), ints[7] = __clz(0);
  ints[8] = __brev(1u) == 0x80000000u, ints[9] = __float_as_int(1.0f);
  ints[10] = min(-1, 2), ints[11] = max(-1, 1u) == 0xffffffffu, ints[12] = max(3ll, 2);
  ints[13] = __double_as_longlong(__longlong_as_double(5)), ints[14] = __float2int_rn(2.5f);
  ints[15] = __float2int_rz(3e9f);
  const float nan = __int_as_float(0x7fc00000);
  floats[0] = min(nan, 1.0f), floats[1] = max(2.0f, nan), floats[2] = __uint_as_float(0x40000000u);
}

extern "C" __global__ void scaled(float4* out, const float4* x, float by) {
  const float4 v = __ldg(x + threadIdx.x);
  __stcs(out + threadIdx.x, make_float4(by * v.x, by * v.y, by * v.z, by * v.w));
}

extern "C" __global__ void on_line(double* out, const Line line, long long at) {
  out[0] = (line.slope * at + line.offset) * line.scale;
}

extern "C" __global__ void divergent(int* out) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
extern "C" __global__ void half_a_barrier(int* out) {
  if (threadIdx.x < 5) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}
extern "C" __global__ void gone(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
}
extern "C" __global__ void partial_warp(int* out) { out[0] = __shfl_sync(~0u, 1, 0); }
extern "C" __global__ void left_out(int* out) { __syncwarp(2u); }
extern "C" __global__ void two_masks(int* out) { __syncwarp(threadIdx.x < 2 ? 3u : ~0u); }
extern "C" __global__ void two_votes(int* out) {
  if (threadIdx.x < 5) {
    __any_sync(~0u, 1);
  } else {
    __all_sync(~0u, 1);
  }
}
extern "C" __global__ void odd_width(int* out) { __shfl_sync(~0u, 1, 0, 12); }
extern "C" __global__ void who_is_here(int* out) { out[0] = __activemask(); }
extern "C" __global__ void trap(int* out) { __trap(); }
extern "C" __global__ void nothing() {}
// extern "C" __global__ void commented_out() {}
"""

# Each has a planted bug, or none, by its last argument.
PLANTED = r"""
extern "C" __global__ void global_write(float* out, int shift) {
  out[(int)threadIdx.x + shift] = 1;
}

extern "C" __global__ void static_write(float* out, int shift) {
  __shared__ float tile[32];
  float* first = tile;  // out of sight of the check of array bounds
  first[threadIdx.x + shift] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void static_index(float* out, int shift) {
  __shared__ float tile[32];
  tile[threadIdx.x + shift] = 1;
  out[threadIdx.x] = 1;
}

extern "C" __global__ void dynamic_write(float* out, int shift) {
  CVOPS_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + shift] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void vector_read(float* out, int shift) {
  out[0] = reinterpret_cast<const float4*>(out + shift)->w + 1;
}

extern "C" __global__ void cast(float* out, int times) { out[0] = 1 + (int)(times * 3e9f); }

// A thread reads what one of the other warp wrote.
extern "C" __global__ void exchange(int* out, int racy) {
  __shared__ int tile[64];
  tile[threadIdx.x] = threadIdx.x;
  if (!racy) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// The second round overwrites what others may not have read yet.
extern "C" __global__ void exchange_twice(int* out, int racy) {
  __shared__ int tile[64];
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = threadIdx.x + round;
    __syncthreads();
    out[threadIdx.x] = tile[63 - threadIdx.x];
    if (!racy) __syncthreads();
  }
}

extern "C" __global__ void exchange_in_warp(int* out, int racy) {
  CVOPS_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = threadIdx.x;
  if (!racy) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

extern "C" __global__ void count(int* out, int racy) {
  if (racy) ++out[0];
  else atomicAdd(out, 1);
}
"""

SEEDS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def kernels():
    return Module(KERNELS, "test_emulator")


@pytest.fixture(scope="module")
def address():
    return Module(PLANTED, "planted", "address")


@pytest.fixture(scope="module")
def thread():
    return Module(PLANTED, "planted", "thread")


def test_finds_the_kernels(kernels):
    assert kernels.kernels[:3] == ("indices", "reverse", "without_a_barrier")
    assert "commented_out" not in kernels.kernels


@pytest.mark.parametrize("seed", SEEDS)
def test_indices(kernels, seed):
    grid, block = (3, 2, 2), (5, 4, 3)
    out = np.full((*grid[::-1], *block[::-1], 6), -1, np.int32)
    kernels.launch("indices", grid, block, (out,), seed=seed)
    np.testing.assert_array_equal(np.moveaxis(out, -1, 0), np.indices(out.shape[:-1]))


def reverse(kernels, seed, blocks=50):
    x = np.random.default_rng(seed).integers(0, 1000, (blocks, 64), np.int32)
    out, out2 = np.zeros_like(x), np.zeros_like(x)
    kernels.launch("reverse", (blocks,), (64,), (out, out2, x), shared=64 * 4, seed=seed)
    np.testing.assert_array_equal(out, x[:, ::-1])
    np.testing.assert_array_equal(out2, x[:, ::-1])


@pytest.mark.parametrize("os_threads", [0, 1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_shared_memory_and_barriers(kernels, seed, os_threads):
    kernels.os_threads = os_threads
    reverse(kernels, seed)
    kernels.os_threads = 0


def test_launches_from_many_threads(kernels):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: reverse(kernels, seed), range(100)))


def test_a_missing_barrier_shows_under_another_seed(kernels):
    answers = set()
    for seed in SEEDS:
        out = np.zeros(64, np.int32)
        kernels.launch("without_a_barrier", (1,), (64,), (out,), seed=seed)
        answers.add(tuple(out))
    assert len(answers) == len(SEEDS)


def test_shared_memory_starts_as_junk(kernels):
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
)
def test_shuffles(kernels, by, width, lane, expected, seed):
    out = np.zeros((4, 32), np.int32)
    kernels.launch("shuffles", (1,), (32,), (out, np.int32(by), np.int32(width)), seed=seed)
    np.testing.assert_array_equal(out[:, lane], expected)


def test_shuffles_of_64_bits(kernels):
    doubles, ints = np.zeros(32), np.zeros(32, np.uint64)
    kernels.launch("shuffle_wide", (1,), (32,), (doubles, ints))
    lanes = np.arange(32) ^ 1
    np.testing.assert_array_equal(doubles, 1 / (lanes + 1))
    np.testing.assert_array_equal(ints, lanes.astype(np.uint64) << np.uint64(40))


@pytest.mark.parametrize("seed", SEEDS)
def test_votes(kernels, seed):
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
    ("positive", "expected"), [(0, [0, 0, 0]), (9, [9, 1, 0]), (64, [64, 1, 1])]
)
def test_votes_of_a_block(kernels, positive, expected):
    x = (np.arange(96) < positive).astype(np.int32)
    out = np.full(3, -1, np.int32)
    kernels.launch("block_votes", (1,), (96,), (out, x))
    np.testing.assert_array_equal(out, expected)


def test_atomics(kernels):
    ints, floats = np.zeros(5, np.int32), np.zeros(1, np.float32)
    uints = np.array([0, 0, 0xFFFFFFFF, 0, 0], np.uint32)
    longs = np.zeros(2, np.uint64)
    threads = 40 * 128
    kernels.launch("atomics", (40,), (128,), (ints, uints, longs, floats))
    np.testing.assert_array_equal(ints, [threads, threads - 1, -(threads - 1), threads - 1, 1])
    np.testing.assert_array_equal(uints, [threads, 0xFFFFFFFF, 1 << 31, 7, 1])
    np.testing.assert_array_equal(longs, [threads << 33, (threads - 1) << 32])
    assert floats[0] == threads / 2


def test_functions(kernels):
    ints, floats = np.zeros(16, np.int32), np.zeros(3, np.float32)
    kernels.launch("functions", (1,), (1,), (ints, floats))
    bits = [8, 2, 4, 41, 0, 31, 63, 32, 1, 0x3F800000]
    np.testing.assert_array_equal(ints, [*bits, -1, 1, 3, 5, 2, 2**31 - 1])
    np.testing.assert_array_equal(floats, np.float32([1, 2, 2]))


def test_vectors(kernels):
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    out = np.zeros_like(x)
    kernels.launch("scaled", (1,), (8,), (out, x, np.float32(2)))
    np.testing.assert_array_equal(out, 2 * x)


LINE = np.array([(0.5, 3, 10)], np.dtype("f4, i4, f8", align=True))


@pytest.mark.parametrize("line", [LINE, LINE[0], LINE.reshape(())], ids=["array", "scalar", "0-d"])
def test_a_struct_by_value(kernels, line):
    out = np.zeros(1)
    kernels.launch("on_line", (1,), (1,), (out, line, np.int64(4)))
    assert out[0] == (0.5 * 4 + 3) * 10


def test_an_address(kernels):
    out = np.zeros(1)
    kernels.launch("on_line", (1,), (1,), (np.uintp(out.ctypes.data), LINE, np.int64(4)))
    assert out[0] == 50


@pytest.mark.parametrize(
    ("kernel", "threads", "message"),
    [
        ("divergent", 64, r"thread \(40, 0, 0\): waits at the barrier test_emulator:\d+ while"),
        ("half_a_barrier", 32, r"__syncwarp .* for lane 0, which waits at the barrier"),
        ("gone", 32, r"__shfl_sync .* lane 5.* has exited"),
        ("partial_warp", 48, r"mask 0xffffffff, but lane 16 does not exist"),
        ("two_votes", 32, r"__a\w\w_sync meets __a\w\w_sync of lane"),
        ("two_masks", 32, r"mask 0xffffffff.* lane \d+.* (has exited|with mask 0x00000003)"),
        ("left_out", 32, r"lane that its mask 0x00000002 leaves out"),
        ("odd_width", 32, r"width 12, which is not a power of two"),
        ("who_is_here", 32, r"__activemask\(\)"),
        ("trap", 32, r"__trap\(\)"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_broken_rules(kernels, kernel, threads, message, seed):
    with pytest.raises(EmulatorError, match=message):
        kernels.launch(kernel, (2,), (threads,), (np.zeros(64, np.int32),), seed=seed)


@pytest.mark.parametrize(
    ("kernel", "grid", "block", "shared", "message"),
    [
        ("nothing", (1,), (1025,), 0, "at most 1024 threads"),
        ("nothing", (1,), (32, 33), 0, "at most 1024 threads"),
        ("nothing", (1,), (1, 1, 65), 0, "64 along z"),
        ("nothing", (1, 65536), (1,), 0, "at most 2147483647 x 65535 x 65535 blocks"),
        ("nothing", (1, 1, 65536), (1,), 0, "at most 2147483647 x 65535 x 65535 blocks"),
        ("nothing", (0,), (1,), 0, r"grid \(0, 1, 1\) is empty"),
        ("nothing", (1,), (0,), 0, r"block \(0, 1, 1\) is empty"),
        ("nothing", (1,), (1,), 227 * 1024 + 1, "at most 232448 bytes of shared memory"),
        ("uninitialized", (1,), (1,), 227 * 1024 - 7, "not 8 static and 232441 dynamic ones"),
        ("reverse", (1,), (65,), 0, "__launch_bounds__ allows blocks of 64 threads"),
        ("absent", (1,), (1,), 0, "no such kernel"),
    ],
)
def test_refused_launches(kernels, kernel, grid, block, shared, message):
    args = (np.zeros(2, np.int32),) if kernel == "uninitialized" else ()
    with pytest.raises(EmulatorError, match=message):
        kernels.launch(kernel, grid, block, args, shared)


def test_the_limits_themselves(kernels):
    kernels.launch("nothing", (1,), (16, 1, 64), (), 227 * 1024)
    kernels.launch("nothing", (1, 65535), (1,), ())


READ_ONLY = np.zeros(4, np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("kernel", "args", "error", "message"),
    [
        ("scaled", (np.zeros(4, np.float32),), EmulatorError, "takes 3 arguments, not 1"),
        ("scaled", (0, 0, 0), TypeError, "scaled: argument 0 is neither .* <class 'int'>"),
        ("scaled", "f4 f4 double", EmulatorError, "argument 2 has 8 bytes, the parameter 4"),
        ("scaled", "f4 f4 f4", EmulatorError, "argument 2 is an array, the parameter a value of 4"),
        ("scaled", "float f4 float", EmulatorError, "argument 0 is a value of 4 .* a pointer"),
        ("scaled", "f4 odd float", EmulatorError, "argument 1 is not aligned to the 16 bytes"),
        ("scaled", "f4 strided float", ValueError, "scaled: argument 1 is not C-contiguous"),
        ("scaled", "constant f4 float", EmulatorError, "argument 0 is a read-only array"),
        ("on_line", "f4 double long", EmulatorError, "argument 1 has 8 bytes, the parameter 16"),
    ],
)
def test_refused_arguments(kernels, kernel, args, error, message):
    known = {
        "f4": np.zeros(8, np.float32),
        "odd": np.zeros(8, np.float32)[1:5],
        "strided": np.zeros(8, np.float32)[::2],
        "constant": READ_ONLY,
        "float": np.float32(1),
        "double": np.float64(1),
        "long": np.int64(1),
    }
    args = tuple(known[name] for name in args.split()) if isinstance(args, str) else args
    with pytest.raises(error, match=message):
        kernels.launch(kernel, (1,), (1,), args)


def test_a_read_only_array_is_fine_for_const(kernels):
    out = np.ones(4, np.float32)
    kernels.launch("scaled", (1,), (1,), (out, READ_ONLY, np.float32(1)))
    np.testing.assert_array_equal(out, 0)


def test_an_error_tells_what_was_launched(kernels):
    with pytest.raises(EmulatorError, match=r"test_emulator: trap, grid \(2, 1, 1\), block \(3, 1"):
        kernels.launch("trap", (2,), (3,), (np.zeros(1, np.int32),))


def test_a_compiler_error_names_the_line():
    with pytest.raises(EmulatorError, match=r"broken\.cuh:2.*not declared"):
        Module('extern "C" __global__ void f(int* x) {\n  *x = y;\n}', "broken.cuh")


@pytest.mark.parametrize(
    ("kernel", "threads", "shift", "message"),
    [
        ("global_write", 32, 1, "heap-buffer-overflow"),
        ("global_write", 32, -1, "heap-buffer-overflow"),
        ("static_write", 32, 1, "global-buffer-overflow"),
        ("dynamic_write", 32, 1, "heap-buffer-overflow"),
        ("vector_read", 1, 1, "misaligned address"),
        ("static_index", 32, 1, "index 32 out of bounds"),
        ("cast", 1, 1, "outside the range of representable values"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_address_sanitizer(address, kernel, threads, shift, message, seed):
    def launch(shift):
        out = np.zeros(32, np.float32)
        args = out, np.int32(shift)
        address.launch(kernel, (2,), (threads,), args, shared=32 * 4, seed=seed)
        return out

    np.testing.assert_array_equal(launch(0)[:threads], 1)
    with pytest.raises(EmulatorError, match=message):
        launch(shift)


@pytest.mark.parametrize("kernel", ["exchange", "exchange_twice", "exchange_in_warp", "count"])
@pytest.mark.parametrize("seed", [0, 2])
def test_thread_sanitizer(thread, kernel, seed):
    def launch(racy):
        out = np.zeros(64, np.int32)
        thread.launch(kernel, (2,), (64,), (out, np.int32(racy)), shared=64 * 4, seed=seed)
        return out

    right = {
        "exchange": np.arange(64)[::-1],
        "exchange_twice": np.arange(64)[::-1] + 1,
        "exchange_in_warp": np.arange(64) ^ 1,
        "count": np.arange(64) * 0 + 128 * (np.arange(64) == 0),
    }
    np.testing.assert_array_equal(launch(racy=False), right[kernel])
    with pytest.raises(EmulatorError, match="data race"):
        launch(racy=True)


@pytest.mark.parametrize("kernel", ["exchange", "exchange_twice", "exchange_in_warp", "count"])
def test_no_false_alarm_of_the_address_sanitizer(address, kernel):
    address.launch(kernel, (2,), (64,), (np.zeros(64, np.int32), np.int32(0)), shared=64 * 4)


@pytest.mark.parametrize("kernel", ["global_write", "static_write", "dynamic_write", "vector_read"])
def test_no_false_alarm_of_the_thread_sanitizer(thread, kernel):
    out = np.zeros(32, np.float32)
    thread.launch(kernel, (1,), (1,), (out, np.int32(0)), shared=64)
    assert out[0] == 1


def test_sanitized_launches_report_broken_rules(address):
    with pytest.raises(EmulatorError, match="argument 1 is an array, the parameter a value"):
        address.launch("count", (1,), (1,), (np.zeros(1, np.int32), np.zeros(1, np.int32)))
    with pytest.raises(EmulatorError, match="argument 0 is a value of 8 bytes"):
        address.launch("count", (1,), (1,), (np.uintp(4096), np.int32(0)))


def test_who_wants_the_same_file_waits_for_the_one_that_makes_it(monkeypatch, tmp_path):
    monkeypatch.setenv("CVOPS_EMULATOR_CACHE", str(tmp_path))
    made = []

    def make(path):
        made.append(path)
        time.sleep(0.1)
        path.write_text("made")

    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: cached("a", ".txt", ["key"], make), range(4)))
    assert len(made) == len(set(files)) == 1
    assert files[0].read_text() == "made"
    assert cached("a", ".txt", ["another key"], make) != files[0]


EXTENSION = {
    "bindings/python/module.cpp": """
        #include <pybind11/pybind11.h>
        #include "sum.h"

        PYBIND11_MODULE(CVOPS_MODULE_NAME, m) { m.def("sum", &sum); }
    """,
    "bindings/sum.h": "int sum(int x);",
    "bindings/cpu/sum.cpp": """
        #include "sum.h"
        #include "sum.cuh"

        int sum(int x) { return x + kOfTheKernels + OF_THE_FLAGS; }
    """,
    "kernels/sum.cuh": "constexpr int kOfTheKernels = 20;",
}


def test_an_extension_is_built_again_for_another_header_or_flag(tmp_path):
    def write(file, text):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def build(name, flag):
        folders = tmp_path / "bindings", tmp_path / "kernels"
        return build_extension(*folders, name, [f"-DOF_THE_FLAGS={flag}"])

    for file, text in EXTENSION.items():
        write(file, text)
    assert build("_native_of_a_test", 300).sum(1) == 321
    assert build("_native_of_a_flag", 400).sum(1) == 421
    write("kernels/sum.cuh", "constexpr int kOfTheKernels = 50;")
    assert build("_native_of_a_header", 300).sum(1) == 351


def test_a_misaligned_address(kernels):
    """A GPU stops at a float4 that is not aligned; the CPU would read it."""
    out = backends.aligned((32,), np.float32)
    out[:] = 1
    kernels.launch("vector_read", (2,), (4,), (out, np.int32(4)))
    assert out[0] == 2
    message = (
        r"block \(0, 0, 0\), thread \(0, 0, 0\): test_emulator:\d+: misaligned address .*float4"
    )
    for shift in (1, 2, 3):
        with pytest.raises(EmulatorError, match=message):
            kernels.launch("vector_read", (2,), (4,), (out, np.int32(shift)))


#: The kernel whose argument is to point past an array, the argument's number, and by what bytes.
OUTSIDE = {
    "written past scratch": ("sort_compact", 0, 8),
    "written before scratch": ("sort_compact", 0, -8),
    "counts past scratch": ("sort_compact", 1, 8),
    "read past scratch": ("sort_tiles", 1, 2048),
    "read past an input": ("box_nms_score", 2, 24),
    "written past a result": ("box_nms_write", 0, 16),
}


@pytest.mark.parametrize(("kernel", "argument", "by"), OUTSIDE.values(), ids=OUTSIDE)
def test_an_op_that_leaves_an_array_is_found(monkeypatch, kernel, argument, by):
    """Each array of a call is apart from the others, also in the one piece of scratch memory."""
    data = np.random.default_rng(0).random((2, 100, 6)).astype(np.float32) + 1

    def moved(launch):
        if launch.kernel != kernel:
            return launch
        arguments = [*launch.arguments]
        address = int.from_bytes(arguments[argument], "little") + by
        arguments[argument] = address.to_bytes(8, "little")
        return launch._replace(arguments=arguments)

    want = cvops.box_nms(data, backend="numpy")
    np.testing.assert_array_equal(cvops.box_nms(data, backend="emulated-small-address"), want)
    monkeypatch.setattr(backends, "on_launch", moved)
    with pytest.raises(EmulatorError, match=f"{kernel}.*\n*.*(use-after-poison|READ|WRITE)"):
        cvops.box_nms(data, backend="emulated-small-address")
