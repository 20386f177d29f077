// Approximate scores of hard negative mining, and the bound of their error: see mining.cuh.
#pragma once
#include "target.cuh"

#ifdef __CUDACC__
namespace cvops {

// An approximate score is the bit distance of 1 / (probability of class 0) below kCertain. A lower
// score is a better negative. It is 0 if 1 / p is not below kCertain or NaN. All other scores have
// a leading digit of at least 1, so bin 0 holds the uncertain candidates.
constexpr int kApproxShift = 18, kFineShift = 7;
constexpr float kCertain = 0x1p63f;
constexpr uint32 kApproxTop = 0x5f000000 + (1u << kApproxShift);

// 2^x with a relative error of at most 2^-22; 0 for results below 2^-126. The CPU version adds the
// maximum error, so that tests cover the worst case.
__device__ __forceinline__ float approx_exp2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y * (bits_of(x) & 1 ? 1 + 0x1p-22f : 1 - 0x1p-22f);
#endif
}

// Bound of |approximate 1 / p * exact p - 1|. The term per class covers both sums, which round by
// 2^-24 at each addition. The constant term covers the exponents. If a sum is below kCertain, each
// relevant difference of logits is at most 64 ln 2. One rounding of it changes its exponential by
// at most 2^-18 ln 2. So do the roundings of 1 / ln 2 and of the product. The roundings of the
// differences are one in the approximate exponent and two in the exact one. The total is less than
// 2^-16. The bound is eight times that, which also covers 2^-22 of approx_exp2 and the final
// roundings.
__device__ __forceinline__ float approx_error(int num_classes) {
  return 0x1p-13f + 0x1p-21f * (float)num_classes;
}

__device__ __forceinline__ uint32 approx_score(float sum) {
  return sum < kCertain ? kApproxTop - bits_of(sum) : 0;
}

__device__ __forceinline__ float sum_of(uint32 approx) { return float_of(kApproxTop - approx); }

// Adds the digits of a warp to the bins. Most scores have equal leading digits, so the lanes that
// share the first lane's bin add to it once.
__device__ __forceinline__ void count_digit(uint32* bins, uint32 digit, bool counted) {
  const unsigned lanes = __ballot_sync(kWarp, counted);
  if (lanes == 0) return;
  const int leader = __ffs(lanes) - 1;
  const uint32 leaders = __shfl_sync(kWarp, digit, leader);
  const unsigned same = __ballot_sync(kWarp, counted && digit == leaders);
  if (lane_id() == leader) {
    atomicAdd(&bins[digit], (uint32)__popc(same));
  } else if (counted && digit != leaders) {
    atomicAdd(&bins[digit], 1u);
  }
}

// Four anchors per thread. If rows are `wide` (aligned to 16 bytes), they are adjacent. Otherwise
// they are 32 apart, so that adjacent lanes load adjacent anchors.
template <bool wide>
struct FourAnchors {
  int64 first;
  int num;

  __device__ FourAnchors(int64 begin, int num)
      : first(begin + (wide ? 4 * threadIdx.x : threadIdx.x / 32 * 128 + lane_id())), num(num) {}

  __device__ int64 at(int i) const { return first + (wide ? i : 32 * i); }
  __device__ bool has(int i) const { return at(i) < num; }

  // Loads have arbitrary values where there is no anchor. Data that is read once bypasses the
  // caches.
  __device__ void load(float (&x)[4], const float* row) const {
    if (wide) {
      const float4 four = __ldcs(reinterpret_cast<const float4*>(row + (has(0) ? first : 0)));
      x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
    } else {
      for (int i = 0; i < 4; ++i) x[i] = has(i) ? __ldcs(row + at(i)) : 0.0f;
    }
  }

  __device__ void load(int (&x)[4], const int* row) const {
    if (wide) {
      const int4 four = *reinterpret_cast<const int4*>(row + (has(0) ? first : 0));
      x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
    } else {
      for (int i = 0; i < 4; ++i) x[i] = has(i) ? row[at(i)] : 0;
    }
  }

  __device__ void store(uint32* row, const uint32 (&x)[4]) const {
    if (wide) {
      if (has(0)) __stcg(reinterpret_cast<uint4*>(row + first), make_uint4(x[0], x[1], x[2], x[3]));
    } else {
      // Rows are read in 16-byte units, so the padding is written too.
      for (int i = 0; i < 4; ++i) {
        if (at(i) < (num + 3) / 4 * 4) row[at(i)] = x[i];
      }
    }
  }
};

// Approximate scores of four anchors per thread, and the histogram of their leading digits.
template <bool wide>
__device__ __forceinline__ void score_tile(uint32* scores, uint32* bins, const int* states,
                                           const float* logits, int num_classes,
                                           FourAnchors<wide> anchors) {
  int state[4];
  float own[4], sum[4];
  uint32 score[4];
  anchors.load(state, states);
  anchors.load(own, logits);
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] = 1 + (own[i] - own[i]);  // NaN if own[i] is infinite
#pragma unroll 5
  for (int c = 1; c < num_classes; ++c) {
    float x[4];
    anchors.load(x, logits + (int64)c * anchors.num);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += approx_exp2((x[i] - own[i]) * 1.44269504f);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool candidate = anchors.has(i) && state[i] == kScored + (int)kUnscored;
    score[i] = candidate ? approx_score(sum[i]) : kNoCandidate;
    count_digit(bins, score[i] >> kApproxShift, candidate);
  }
  anchors.store(scores, score);
}

}  // namespace cvops
#endif
