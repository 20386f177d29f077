// Hard negative mining, a step of multibox_target: of the candidates of an image, the `wanted` ones
// with the lowest softmax probability of class 0 become negatives.
//
// The textbook algorithm computes the probability of each candidate and sorts the candidates. The
// kernels select instead of sorting, and save most of the exact exponentials, which are slow:
//
//   multibox_target_score    approximate probability of each candidate, histogram of the leading
//                            digits
//   multibox_target_refine   the range of scores that the approximation leaves undecided; exact
//                            probabilities in it; radix select of the last negative
//
// The approximation never changes the selection.
#pragma once
#include "exp_log.cuh"
#include "mining_scores.cuh"
#include "target.cuh"

namespace cvops {

constexpr int kScoreThreads = CVOPS_STEP(256, 64);   // threads per block of multibox_target_score
constexpr int kRefineThreads = CVOPS_STEP(512, 64);  // threads per block of multibox_target_refine

// A lower score is a better negative.
CVOPS_HD uint32 mining_score(float background) {
  return background == background ? bits_of(background) : kUnordered;
}

}  // namespace cvops

CVOPS_KERNEL multibox_target_score(cvops::uint32* scores, cvops::uint32* bins, const int* states,
                                   const float* cls_pred, const int* wanted,
                                   cvops::TargetShape shape);
CVOPS_KERNEL multibox_target_refine(cvops::TargetBuffers buffers, const float* cls_pred,
                                    cvops::TargetShape shape, int splits);

#ifdef __CUDACC__
// Approximate scores and the histogram of their leading digits. cls_pred (images, classes,
// anchors).
extern "C" __global__ void __launch_bounds__(cvops::kScoreThreads)
    multibox_target_score(unsigned int* __restrict__ scores, unsigned int* __restrict__ bins,
                          const int* __restrict__ states, const float* __restrict__ cls_pred,
                          const int* __restrict__ wanted, const cvops::TargetShape shape) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ uint32 own_bins[kDigitBins];
  const int num = shape.num_anchors;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    if (wanted[image] == 0) continue;
    const int64 row = image * row_length(num);
    const float* logits = cls_pred + image * shape.num_classes * num;
    clear_bins(own_bins);
    __syncthreads();
    for (int64 begin = (int64)blockIdx.x * 4 * blockDim.x; begin < num;
         begin += (int64)gridDim.x * 4 * blockDim.x) {
      if (num % 4 == 0) {
        score_tile(scores + row, own_bins, states + row, logits, shape.num_classes,
                   FourAnchors<true>(begin, num));
      } else {
        score_tile(scores + row, own_bins, states + row, logits, shape.num_classes,
                   FourAnchors<false>(begin, num));
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kDigitBins; i += blockDim.x) {
      if (own_bins[i]) atomicAdd(&bins[image * kDigitBins + i], own_bins[i]);
    }
    __syncthreads();
  }
}

namespace cvops {

// Number of candidates in the bin of the last negative above which the next digit is counted too.
constexpr uint32 kFew = CVOPS_STEP(256, 4);

// Smallest i with counts[0] + ... + counts[i] >= rank, by one warp. The counts before i are
// subtracted from `rank`. -1 if the total is less than `rank`. `num` is a multiple of 32.
__device__ __forceinline__ int find_rank(const uint32* counts, int num, uint32& rank) {
  for (int first = 0; first < num; first += 32) {
    const uint32 own = counts[first + lane_id()], sum = warp_prefix_sum(own);
    const unsigned reached = __ballot_sync(kWarp, sum >= rank);
    if (reached) {
      const int at = __ffs(reached) - 1;
      rank -= __shfl_sync(kWarp, sum - own, at);
      return first + at;
    }
    rank -= __shfl_sync(kWarp, sum, 31);
  }
  return -1;
}

// The bin that contains a rank, the rank within the bin, and the number of elements in it.
struct Digit {
  int bin;  // -1 if the total is less than the rank
  uint32 rank, count;
};

// Selects the bin with a rank, by the whole block. The bins are in shared memory.
__device__ __forceinline__ Digit radix_select_digit(const uint32* bins, uint32 rank) {
  __shared__ uint32 sums[kDigitBins / 32];
  __shared__ Digit found;
  __syncthreads();
  for (int i = threadIdx.x / 32; i < kDigitBins / 32; i += blockDim.x / 32) {
    const uint32 sum = warp_sum(bins[32 * i + lane_id()]);
    if (lane_id() == 0) sums[i] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int group = find_rank(sums, kDigitBins / 32, rank);
    const int bin = group < 0 ? -1 : 32 * group + find_rank(bins + 32 * group, 32, rank);
    if (lane_id() == 0) found = {bin, rank, bin < 0 ? 0 : bins[bin]};
  }
  __syncthreads();
  const Digit digit = found;
  __syncthreads();  // the bins may be cleared from here on
  return digit;
}

// Candidates that the approximate scores leave undecided. Scores below `first` are certain
// negatives. Scores in [first, last], and 0 (uncertain), are undecided. Their exact scores, and no
// others, are in (lowest, highest]. All other candidates are no negatives.
struct UndecidedRange {
  uint32 first, last, lowest, highest;

  __device__ bool is_certain(uint32 score) const { return score && score < first; }
};

// Loads four adjacent scores. Those of anchors from `end` on are kNoCandidate.
__device__ __forceinline__ void load_scores(uint32 (&score)[4], const uint32* scores, int first,
                                            int end) {
  uint4 four = make_uint4(kNoCandidate, kNoCandidate, kNoCandidate, kNoCandidate);
  if (first < end) four = *reinterpret_cast<const uint4*>(scores + first);
  score[0] = four.x, score[1] = four.y, score[2] = four.z, score[3] = four.w;
}

// Histogram of the second digit of the scores in [low, low + width).
__device__ __forceinline__ void count_second_digit(uint32* bins, const uint32* scores,
                                                   int num_anchors, uint32 low, uint32 width) {
  clear_bins(bins);
  __syncthreads();
  for (int begin = 0; begin < num_anchors; begin += 4 * blockDim.x) {
    const int first = begin + 4 * (int)threadIdx.x;
    uint32 score[4];
    load_scores(score, scores, first, num_anchors);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool counted = first + i < num_anchors && score[i] - low < width;
      count_digit(bins, (score[i] - low) >> kFineShift, counted);
    }
  }
}

// Computes the undecided range. `rank` >= 1 is the rank of the last negative; `bins` is scratch
// memory; `counts` is the histogram of the leading digits.
__device__ __forceinline__ UndecidedRange find_undecided(uint32* bins, const uint32* counts,
                                                         const uint32* scores, int num_anchors,
                                                         int num_classes, uint32 rank) {
  for (int i = threadIdx.x; i < kDigitBins; i += blockDim.x) bins[i] = i ? counts[i] : 0;
  const bool all_certain = counts[0] == 0;
  Digit digit = radix_select_digit(bins, rank);
  UndecidedRange undecided = {0, kNoCandidate - 1, 0, kUnordered};
  const float error = 3 * approx_error(num_classes);  // two scores, and the arithmetic on them
  if (digit.bin < 0 || error > 0.3f) return undecided;
  uint32 low = (uint32)digit.bin << kApproxShift, width = 1u << kApproxShift;
  if (digit.count > kFew) {
    count_second_digit(bins, scores, num_anchors, low, width);
    low += (uint32)radix_select_digit(bins, digit.rank).bin << kFineShift;
    width = 1u << kFineShift;
  }
  undecided.last = approx_score(sum_of(low + width - 1) * (1 - error));
  if (all_certain) undecided.first = approx_score(sum_of(low) * (1 + error));
  if (undecided.first) {
    undecided.lowest = bits_of((1 - error) / sum_of(undecided.first));
    undecided.highest = bits_of((1 + error) / sum_of(undecided.last));
  }
  return undecided;
}

// Radix select: the mining_key with exactly `rank` lower keys among scores in [lowest, highest].
// Each digit, from the highest, takes one pass over the anchors. One pass is usually enough. All
// threads of the block must call it.
__device__ __forceinline__ uint64 radix_select_key(uint32* bins, const int* states, int num_anchors,
                                                   uint32 lowest, uint32 highest, uint32 rank) {
  const int index_bits = 32 - __clz(num_anchors);
  uint64 prefix = 0;
  int above = 32 - __clz((int)(highest - lowest)) + index_bits, digits;
  for (bool found = false; !found && above; above -= digits) {
    digits = above < 11 ? above : 11;
    clear_bins(bins);
    __syncthreads();
    for (int begin = 0; begin < num_anchors; begin += 4 * blockDim.x) {
      const int first = begin + 4 * (int)threadIdx.x;
      int4 four = make_int4(0, 0, 0, 0);
      if (first < num_anchors) four = __ldcg(reinterpret_cast<const int4*>(states + first));
      const int state[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32 score = (uint32)state[i] - kScored - lowest;
        const uint64 key = (uint64)score << index_bits | (uint32)(first + i);
        const bool counted =
            first + i < num_anchors && score <= highest - lowest && key >> above == prefix;
        count_digit(bins, (uint32)(key >> (above - digits)) & ((1u << digits) - 1), counted);
      }
    }
    const Digit digit = radix_select_digit(bins, rank);
    prefix = prefix << digits | (uint32)digit.bin;
    rank = digit.rank;
    found = rank == digit.count;
  }
  const uint64 end = (prefix + 1) << above;
  return mining_key(lowest + (uint32)(end >> index_bits), (int)(end & ((1ull << index_bits) - 1)));
}

// Softmax of class 0 of an anchor, with logits at distance `stride`. The order is MXNet's.
__device__ __forceinline__ float background_of(const float* logits, int num_classes, int64 stride) {
  float top = logits[0];
#pragma unroll 8
  for (int c = 1; c < num_classes; ++c) top = larger(logits[c * stride], top);
  const float background = exp_of(logits[0] - top);
  float sum = background;
#pragma unroll 2
  for (int c = 1; c < num_classes; ++c) sum += exp_of(logits[c * stride] - top);
  return background / sum;
}

// Anchors that get an exact score, in shared memory.
struct ExactList {
  static constexpr int kTile = 4 * kRefineThreads;  // anchors that a block adds at most per step
  int anchors[2 * kTile];
  int num;
};

// Resolves the certain negatives of a tile, four adjacent anchors per thread, and appends the
// undecided candidates to the list. Returns the end of the thread's entries in the list; 0 if there
// are none.
__device__ __forceinline__ int list_undecided(ExactList& list, int* states, const uint32* scores,
                                              int first, int end, const UndecidedRange& undecided) {
  uint32 score[4];
  load_scores(score, scores, first, end);
  int count = 0, position = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (first + i >= end) continue;
    if (undecided.is_certain(score[i])) {
      states[first + i] = kScored + (int)undecided.lowest;
    } else {
      count += score[i] <= undecided.last;
    }
  }
  if (count) {
    position = atomicAdd(&list.num, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i < end && !undecided.is_certain(score[i]) && score[i] <= undecided.last) {
        list.anchors[position++] = first + i;
      }
    }
  }
  return position;
}

// Computes the exact scores of the listed anchors and empties the list.
__device__ __forceinline__ void score_listed(int* states, ExactList& list, const float* logits,
                                             const TargetShape& shape) {
  for (int i = threadIdx.x; i < list.num; i += blockDim.x) {
    const int a = list.anchors[i];
    const float background = background_of(logits + a, shape.num_classes, shape.num_anchors);
    states[a] = kScored + (int)mining_score(background);
  }
  __syncthreads();
  if (threadIdx.x == 0) list.num = 0;
  __syncthreads();
}

// Computes the scores of the anchors [begin, end) of an image that can be negatives.
__device__ __forceinline__ void refine_anchors(int* states, ExactList& list, const uint32* scores,
                                               const float* logits, int begin, int end,
                                               const UndecidedRange& undecided,
                                               const TargetShape& shape) {
  if (threadIdx.x == 0) list.num = 0;
  __syncthreads();
  for (; begin < end; begin += ExactList::kTile) {
    const int first = begin + 4 * (int)threadIdx.x;
    const int position = list_undecided(list, states, scores, first, end, undecided);
    const bool is_last = begin + ExactList::kTile >= end;
    if (__syncthreads_or(position > ExactList::kTile || is_last)) {
      score_listed(states, list, logits, shape);
    }
  }
}

// True in the last of `splits` blocks that call it (threadfence reduction). That block sees all
// writes of the other blocks.
__device__ __forceinline__ bool is_last_split(uint32* finished_blocks, int splits) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(finished_blocks, 1u) == (unsigned)splits - 1;
  __syncthreads();
  return is_last;
}

}  // namespace cvops

// Exact scores of the candidates near the limit. An image has `splits` splits. Each block computes
// the undecided range itself, which is faster than to wait for another block. The last block to
// finish computes the bound: candidates with a lower mining_key are negatives.
extern "C" __global__ void __launch_bounds__(cvops::kRefineThreads)
    multibox_target_refine(const cvops::TargetBuffers buffers, const float* __restrict__ cls_pred,
                           const cvops::TargetShape shape, const int splits) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ uint32 own_bins[kDigitBins];
  __shared__ ExactList list;
  __shared__ UndecidedRange undecided;  // in shared memory to save registers
  const int num = shape.num_anchors, per_split = ((num - 1) / (4 * splits) + 1) * 4;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const int* wanted = buffers.wanted + image;
    if (*wanted == 0) continue;
    const int64 row = image * row_length(num);
    const uint32* scores = buffers.scores + row;
    const float* logits = cls_pred + image * shape.num_classes * num;
    int* states = buffers.states + row;
    const UndecidedRange found = find_undecided(own_bins, buffers.bins + image * kDigitBins, scores,
                                                num, shape.num_classes, (uint32)*wanted);
    if (threadIdx.x == 0) undecided = found;
    for (int split = blockIdx.x; split < splits; split += gridDim.x) {
      const int begin = split * per_split, end = min(begin + per_split, num);
      refine_anchors(states, list, scores, logits, begin, end, undecided, shape);
      if (!is_last_split(&buffers.finished_blocks[image], splits)) continue;
      __threadfence();
      const uint64 bound = radix_select_key(own_bins, states, num, undecided.lowest,
                                            undecided.highest, (uint32)*wanted);
      if (threadIdx.x == 0) buffers.bounds[image] = bound;
    }
  }
}
#endif
