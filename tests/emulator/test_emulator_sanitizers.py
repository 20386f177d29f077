"""Sanitized launches: AddressSanitizer and ThreadSanitizer find planted bugs, and no others."""

import numpy as np
import pytest

import cvops

from . import backends
from .emulator import EmulatorError, Module

#: The last argument of a kernel selects its bug, or no bug.
PLANTED = r"""
extern "C" __global__ void global_write(float* out, int shift) {
  out[(int)threadIdx.x + shift] = 1;
}

extern "C" __global__ void static_write(float* out, int shift) {
  __shared__ float tile[32];
  float* first = tile;  // hides the array from the check of array bounds
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

// A thread reads the value of a thread in the other warp.
extern "C" __global__ void exchange(int* out, int racy) {
  __shared__ int tile[64];
  tile[threadIdx.x] = threadIdx.x;
  if (!racy) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// The second round overwrites values that other threads may still need.
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


@pytest.fixture(scope="module")
def address():
    return Module(PLANTED, "planted", "address")


@pytest.fixture(scope="module")
def thread():
    return Module(PLANTED, "planted", "thread")


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
    ids=[
        "write after an array",
        "write before an array",
        "write after static shared memory",
        "write after dynamic shared memory",
        "misaligned read",
        "index out of bounds",
        "cast out of range",
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_address_sanitizer_finds_a_planted_bug(address, kernel, threads, shift, message, seed):
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
def test_thread_sanitizer_finds_a_planted_race(thread, kernel, seed):
    def launch(racy):
        out = np.zeros(64, np.int32)
        thread.launch(kernel, (2,), (64,), (out, np.int32(racy)), shared=64 * 4, seed=seed)
        return out

    expected = {
        "exchange": np.arange(64)[::-1],
        "exchange_twice": np.arange(64)[::-1] + 1,
        "exchange_in_warp": np.arange(64) ^ 1,
        "count": np.arange(64) * 0 + 128 * (np.arange(64) == 0),
    }
    np.testing.assert_array_equal(launch(racy=False), expected[kernel])
    with pytest.raises(EmulatorError, match="data race"):
        launch(racy=True)


@pytest.mark.parametrize("kernel", ["exchange", "exchange_twice", "exchange_in_warp", "count"])
def test_address_sanitizer_accepts_a_correct_kernel(address, kernel):
    address.launch(kernel, (2,), (64,), (np.zeros(64, np.int32), np.int32(0)), shared=64 * 4)


@pytest.mark.parametrize("kernel", ["global_write", "static_write", "dynamic_write", "vector_read"])
def test_thread_sanitizer_accepts_a_correct_kernel(thread, kernel):
    out = np.zeros(32, np.float32)
    thread.launch(kernel, (1,), (1,), (out, np.int32(0)), shared=64)
    assert out[0] == 1


def test_sanitized_launch_refuses_an_argument_unlike_the_parameter(address):
    with pytest.raises(EmulatorError, match="argument 1: expected a value of 4 bytes"):
        address.launch("count", (1,), (1,), (np.zeros(1, np.int32), np.zeros(1, np.int32)))
    with pytest.raises(
        EmulatorError, match="argument 0: expected a pointer, got a value of 8 bytes"
    ):
        address.launch("count", (1,), (1,), (np.uintp(4096), np.int32(0)))


#: name -> the kernel, the index of the argument to move, and the bytes by which it moves.
OUTSIDE = {
    "write after scratch memory": ("sort_compact", 0, 8),
    "write before scratch memory": ("sort_compact", 0, -8),
    "count after scratch memory": ("sort_compact", 1, 8),
    "read after scratch memory": ("sort_tiles", 1, 2048),
    "read after an input": ("box_nms_score", 2, 24),
    "write after a result": ("box_nms_write", 0, 16),
}


@pytest.mark.parametrize(("kernel", "argument", "by"), OUTSIDE.values(), ids=OUTSIDE)
def test_address_sanitizer_finds_an_access_outside_of_the_arrays_of_an_op(
    monkeypatch, kernel, argument, by
):
    """Gaps separate the arrays of a call, and the parts of its scratch memory."""
    data = np.random.default_rng(0).random((2, 300, 6)).astype(np.float32) + 1

    def move(launch):
        if launch.kernel != kernel:
            return launch
        arguments = [*launch.arguments]
        address = int.from_bytes(arguments[argument], "little") + by
        arguments[argument] = address.to_bytes(8, "little")
        return launch._replace(arguments=arguments)

    expected = cvops.box_nms(data, backend="numpy")
    np.testing.assert_array_equal(cvops.box_nms(data, backend="emulated-small-address"), expected)
    monkeypatch.setattr(backends, "on_launch", move)
    with pytest.raises(EmulatorError, match=f"{kernel}.*\n*.*(use-after-poison|READ|WRITE)"):
        cvops.box_nms(data, backend="emulated-small-address")
