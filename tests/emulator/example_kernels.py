"""Kernels for the tests of the emulator."""

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

// Each block reverses its part of x, in static and in dynamic shared memory.
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
  tile[1] = dynamic_tile[1] = 0;  // the next block must not read these zeros
}

// out (4, 32): the lane whose value each lane reads.
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

// Lanes 0 to 15 and lanes 16 to 31 vote separately and concurrently.
extern "C" __global__ void votes(unsigned* out, const int* x) {
  const unsigned lane = threadIdx.x, half = lane < 16 ? 0xffffu : 0xffff0000u;
  out[lane] = __ballot_sync(half, x[lane] > 0);
  out[32 + lane] = __any_sync(half, x[lane] > 0);
  out[64 + lane] = __all_sync(half, x[lane] > 0);
  out[96 + lane] = __match_any_sync(half, x[lane]);
}

// The threads of the last warp exit, and the barriers do not wait for them.
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
  atomicAdd(&ints[3], atomicExch(&ints[4], 1));  // all threads except the first read 1
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

extern "C" __global__ void two_barriers(int* out) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
extern "C" __global__ void barrier_and_collective(int* out) {
  if (threadIdx.x < 5) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}
extern "C" __global__ void exited_lane(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_sync(~0u, 1, 0);
}
extern "C" __global__ void partial_warp(int* out) { out[0] = __shfl_sync(~0u, 1, 0); }
extern "C" __global__ void lane_not_in_mask(int* out) { __syncwarp(2u); }
extern "C" __global__ void two_masks(int* out) { __syncwarp(threadIdx.x < 2 ? 3u : ~0u); }
extern "C" __global__ void two_collectives(int* out) {
  if (threadIdx.x < 5) {
    __any_sync(~0u, 1);
  } else {
    __all_sync(~0u, 1);
  }
}
extern "C" __global__ void invalid_width(int* out) { __shfl_sync(~0u, 1, 0, 12); }
extern "C" __global__ void active_mask(int* out) { out[0] = __activemask(); }
extern "C" __global__ void trap(int* out) { __trap(); }
extern "C" __global__ void empty() {}
// extern "C" __global__ void commented_out() {}
"""
