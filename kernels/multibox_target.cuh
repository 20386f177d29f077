// multibox_target: what each anchor of a detector is to learn. The matrix of IoUs, anchors by
// truths, is never stored: the one pass over all pairs keeps the best of each row and of each
// column.
//
//   multibox_target_begin    counts each image's truths, and clears what the others add to
//   multibox_target_match    all pairs: each anchor's best truth, and each truth's best anchor
//   multibox_target_assign   gives every truth an anchor of its own, the best pair first
//   multibox_target_score    with mining only: how sure each candidate is to be background
//   multibox_target_select   with mining only: where the least sure of them end
//   multibox_target_write    the outputs
//
// Between them, a row of `best` and of `which` is one image: each anchor's best IoU and the truth
// that it is with; ~truth, which is negative, where the anchor was given to that truth.
#pragma once
#include "box.cuh"
#include "math.cuh"

namespace cvops {

struct TargetShape {
  int num_images, num_anchors, num_truths, label_width, num_classes;
};

struct TargetOptions {
  float overlap_threshold, ignore_label, mining_ratio, mining_threshold;
  float variance_x, variance_y, variance_width, variance_height;
};

// A truth is given only an anchor that it overlaps by more.
constexpr float kLeastIou = 1e-6f;
// The score of what is no candidate, and of a candidate whose probability is NaN.
constexpr uint32 kNoCandidate = 0x80000000, kUnordered = 0x7fffffff;
constexpr uint64 kAllCandidates = (uint64)kNoCandidate << 32;

// The length of a row of `best`, `which` and `scores`: every row begins at 16 bytes.
CVOPS_HD int64 row_length(int num_anchors) { return ((int64)num_anchors + 3) / 4 * 4; }

// With the area of an inverted box as it comes: negative, or positive if inverted in both axes.
CVOPS_HD SizedBox signed_size(Box b) { return {b, signed_area(b)}; }

// Row k of an image's label: class, left, top, right, bottom.
CVOPS_HD SizedBox truth_at(const float* label, int64 k, int label_width) {
  const float* row = label + k * label_width;
  return signed_size({row[1], row[2], row[3], row[4]});
}

// What an anchor and a truth share, and what they cover together.
struct TargetPair {
  float overlap, all;
};

CVOPS_HD TargetPair target_pair(SizedBox anchor, SizedBox truth) {
  float overlap = intersection(anchor.box, truth.box);
  return {overlap, anchor.area + truth.area - overlap};
}

// Of what the operator does with an IoU, nothing tells 0 from less than 0 or from NaN: all become
// 0.
CVOPS_HD float target_iou(SizedBox anchor, SizedBox truth) {
  TargetPair pair = target_pair(anchor, truth);
  return pair.overlap > 0 && pair.all > 0 ? pair.overlap / pair.all : 0.0f;
}

// A box around boxes: with itself and one of theirs. One with NaN, which overlaps nothing, is left
// out.
CVOPS_HD Box hull_with(Box hull, Box b) {
  return {smaller(b.x1, hull.x1), smaller(b.y1, hull.y1), larger(b.x2, hull.x2),
          larger(b.y2, hull.y2)};
}

constexpr Box kEmptyHull = {3e38f, 3e38f, -3e38f, -3e38f};

// Whether a box within the hull may overlap b.
CVOPS_HD bool may_overlap(Box hull, Box b) {
  return hull.x1 < b.x2 && b.x1 < hull.x2 && hull.y1 < b.y2 && b.y1 < hull.y2;
}

// An anchor as a truth sees it. The greater key is the greater IoU, or for the same the lower
// anchor; 0 is none.
CVOPS_HD uint64 pair_key(float iou, int anchor) {
  return iou > kLeastIou ? (uint64)bits_of(iou) << 32 | (uint32)~anchor : 0;
}

CVOPS_HD int anchor_of(uint64 key) { return (int)~(uint32)key; }

CVOPS_HD bool is_positive(float best, int which, const TargetOptions& options) {
  return which < 0 || (options.overlap_threshold > 0 && best > options.overlap_threshold);
}

// How many negatives to mine.
CVOPS_HD int mining_count(int num_positive, int num_anchors, float ratio) {
  float wanted = (float)num_positive * ratio;
  int limit = num_anchors - num_positive;
  if (!(wanted >= 1)) return 0;
  return wanted < 2147483648.0f && (int)wanted < limit ? (int)wanted : limit;
}

// The lower score is the better negative.
CVOPS_HD uint32 mining_score(float background) {
  return background == background ? bits_of(background) : kUnordered;
}

// Candidates in the order in which they are taken: for the same score by their place.
CVOPS_HD uint64 mining_key(uint32 score, int anchor) {
  return (uint64)score << 32 | (uint32)anchor;
}

// The four numbers that a detector learns: x, y, width and height of a truth as an anchor sees it.
struct Offsets {
  float x, y, width, height;
};

CVOPS_HD Offsets encode(Box anchor, Box truth, const TargetOptions& options) {
  float width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  float x = (anchor.x1 + anchor.x2) * 0.5f, y = (anchor.y1 + anchor.y2) * 0.5f;
  float truth_width = truth.x2 - truth.x1, truth_height = truth.y2 - truth.y1;
  float truth_x = (truth.x1 + truth.x2) * 0.5f, truth_y = (truth.y1 + truth.y2) * 0.5f;
  return {(truth_x - x) / width / options.variance_x, (truth_y - y) / height / options.variance_y,
          log_of(truth_width / width) / options.variance_width,
          log_of(truth_height / height) / options.variance_height};
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

constexpr unsigned kWarp = 0xffffffff;
constexpr int kTargetThreads = 128;  // of a block of multibox_target_match
constexpr int kTruthChunk = 128;     // the truths that it holds in shared memory at once
constexpr int kSharedKeys = 512;  // multibox_target_assign holds the keys there if they are so few
constexpr int kDigitBins = 2048;  // of multibox_target_select

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }

__device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step; step /= 2) x = larger(x, __shfl_xor_sync(kWarp, x, step));
  return x;
}

__device__ __forceinline__ uint64 warp_max(uint64 x) {
  for (int step = 16; step; step /= 2) {
    uint64 other = __shfl_xor_sync(kWarp, x, step);
    if (other > x) x = other;
  }
  return x;
}

__device__ __forceinline__ uint32 warp_sum(uint32 x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kWarp, x, step);
  return x;
}

// Whether a better pair has the anchor that truth k wants. For equal pairs the lower truth is
// better.
__device__ __forceinline__ bool is_beaten(const uint64* keys, int num, int k) {
  const uint64 own = keys[k];
  for (int other = 0; other < num; ++other) {
    const uint64 key = keys[other];
    if ((uint32)key == (uint32)own && (key > own || (key == own && other < k))) return true;
  }
  return false;
}

// The key of the best anchor that is not given away, by one warp.
__device__ __forceinline__ uint64 best_free_anchor(const float* anchor, const int* which,
                                                   int num_anchors, SizedBox truth) {
  uint64 best = 0;
  for (int a = lane_id(); a < num_anchors; a += 32) {
    float iou = which[a] < 0 ? 0.0f : target_iou(signed_size(load_box(anchor, a)), truth);
    uint64 key = pair_key(iou, a);
    if (key > best) best = key;
  }
  return warp_max(best);
}

// Softmax of class 0 of an anchor whose logits lie `stride` apart. The order is MXNet's.
__device__ __forceinline__ float background_of(const float* logits, int num_classes, int64 stride) {
  float top = logits[0];
#pragma unroll 4
  for (int c = 1; c < num_classes; ++c) top = larger(logits[c * stride], top);
  const float background = exp_of(logits[0] - top);
  float sum = background;
#pragma unroll 2
  for (int c = 1; c < num_classes; ++c) sum += exp_of(logits[c * stride] - top);
  return background / sum;
}

// Adds to the bins of a whole warp's digits. Most scores share a few leading digits, so that the
// lanes that share the first one's bin add to it once.
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

// The first i with counts[0] + ... + counts[i] >= rank, by one warp; what comes before i is taken
// off `rank`. -1 if all do not reach it. `num` is a multiple of 32.
__device__ __forceinline__ int find_rank(const uint32* counts, int num, uint32& rank) {
  for (int first = 0; first < num; first += 32) {
    const uint32 own = counts[first + lane_id()];
    uint32 sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const uint32 before = __shfl_up_sync(kWarp, sum, step);
      if (lane_id() >= step) sum += before;
    }
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

}  // namespace cvops

// One block takes one image. A row of class -1 ends an image's truths.
extern "C" __global__ void __launch_bounds__(128)
    multibox_target_begin(int* __restrict__ num_valid, int* __restrict__ num_positive,
                          unsigned long long* __restrict__ keys, const float* __restrict__ label,
                          const cvops::TargetShape shape) {
  using namespace cvops;
  __shared__ int end;
  for (int64 image = blockIdx.x; image < shape.num_images; image += gridDim.x) {
    if (threadIdx.x == 0) end = shape.num_truths;
    __syncthreads();
    for (int k = threadIdx.x; k < shape.num_truths; k += blockDim.x) {
      const int64 truth = image * shape.num_truths + k;
      keys[truth] = 0;
      if (label[truth * shape.label_width] == -1) atomicMin(&end, k);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      num_valid[image] = end;
      num_positive[image] = 0;
    }
  }
}

// A thread takes four neighbouring anchors, so that in a warp the lower lane has the lower anchors.
extern "C" __global__ void __launch_bounds__(cvops::kTargetThreads)
    multibox_target_match(float* __restrict__ best, int* __restrict__ which,
                          unsigned long long* __restrict__ keys, const float* __restrict__ anchor,
                          const float* __restrict__ label, const int* __restrict__ num_valid,
                          const cvops::TargetShape shape) {
  using namespace cvops;
  __shared__ float4 boxes[kTruthChunk];
  __shared__ float areas[kTruthChunk];
  __shared__ uint64 tops[kTruthChunk];
  const int64 row = row_length(shape.num_anchors);
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const int num = num_valid[image];
    const float* truths = label + image * shape.num_truths * shape.label_width;
    for (int64 tile = blockIdx.x; 4 * tile * blockDim.x < row; tile += gridDim.x) {
      const int64 first = 4 * (tile * blockDim.x + threadIdx.x);
      SizedBox mine[4];
      Box hull = kEmptyHull;  // of the whole warp's anchors, most of which lie side by side
      float most[4] = {0, 0, 0, 0};
      int with[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool exists = first + i < shape.num_anchors;
        mine[i] = exists ? signed_size(load_box(anchor, first + i)) : SizedBox{};
        if (exists) hull = hull_with(hull, mine[i].box);
      }
      hull = {-warp_max(-hull.x1), -warp_max(-hull.y1), warp_max(hull.x2), warp_max(hull.y2)};
      for (int begin = 0; begin < num; begin += kTruthChunk) {
        const int count = num - begin < kTruthChunk ? num - begin : kTruthChunk;
        for (int k = threadIdx.x; k < count; k += blockDim.x) {
          SizedBox truth = truth_at(truths, begin + k, shape.label_width);
          boxes[k] = make_float4(truth.box.x1, truth.box.y1, truth.box.x2, truth.box.y2);
          areas[k] = truth.area;
          tops[k] = 0;
        }
        __syncthreads();
        for (int k = 0; k < count; ++k) {
          const float4 b = boxes[k];
          const SizedBox truth = {{b.x, b.y, b.z, b.w}, areas[k]};
          if (!may_overlap(hull, truth.box)) continue;  // of the whole warp
          float top = kLeastIou;
          int at = 0;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float iou = target_iou(mine[i], truth);
            if (iou > most[i]) {
              most[i] = iou;
              with[i] = begin + k;
            }
            if (iou > top) {
              top = iou;
              at = i;
            }
          }
          if (__any_sync(kWarp, top > kLeastIou)) {
            const float most_of_warp = warp_max(top);
            const unsigned lanes = __ballot_sync(kWarp, top == most_of_warp);
            if (lane_id() == __ffs(lanes) - 1) {
              atomicMax(&tops[k], pair_key(top, (int)first + at));
            }
          }
        }
        __syncthreads();
        for (int k = threadIdx.x; k < count; k += blockDim.x) {
          if (tops[k]) atomicMax(&keys[image * shape.num_truths + begin + k], tops[k]);
        }
      }
      if (first < row) {
        *reinterpret_cast<float4*>(best + image * row + first) =
            make_float4(most[0], most[1], most[2], most[3]);
        *reinterpret_cast<int4*>(which + image * row + first) =
            make_int4(with[0], with[1], with[2], with[3]);
      }
    }
  }
}

// One block takes one image. MXNet picks the best pair of a truth and an anchor that are both free,
// and again, until none is left. Here a round picks at once all those that MXNet would pick before
// it comes to a truth whose best anchor was taken by a better pair; then those truths look for
// another anchor. There are few such truths, and few rounds, unless many truths are the same.
extern "C" __global__ void __launch_bounds__(512, 1)
    multibox_target_assign(int* __restrict__ which, unsigned long long* __restrict__ keys,
                           const float* __restrict__ anchor, const float* __restrict__ label,
                           const int* __restrict__ num_valid, const cvops::TargetShape shape) {
  using namespace cvops;
  __shared__ uint64 shared_keys[kSharedKeys];
  __shared__ uint64 best_beaten;
  for (int64 image = blockIdx.x; image < shape.num_images; image += gridDim.x) {
    const int num = num_valid[image];
    const float* truths = label + image * shape.num_truths * shape.label_width;
    int* given = which + image * row_length(shape.num_anchors);
    uint64* wanted = keys + image * shape.num_truths;
    bool open = false;
    for (int k = threadIdx.x; k < num; k += blockDim.x) {
      if (num <= kSharedKeys) shared_keys[k] = wanted[k];
      open |= wanted[k] != 0;
    }
    if (num <= kSharedKeys) wanted = shared_keys;
    if (threadIdx.x == 0) best_beaten = 0;
    while (__syncthreads_or(open)) {
      for (int k = threadIdx.x; k < num; k += blockDim.x) {
        if (wanted[k] && is_beaten(wanted, num, k)) atomicMax(&best_beaten, wanted[k]);
      }
      __syncthreads();
      for (int k = threadIdx.x; k < num; k += blockDim.x) {
        const uint64 key = wanted[k];
        if (key && key >= best_beaten && !is_beaten(wanted, num, k)) given[anchor_of(key)] = ~k;
      }
      __syncthreads();
      if (threadIdx.x == 0) best_beaten = 0;
      open = false;
      for (int k = threadIdx.x / 32; k < num; k += blockDim.x / 32) {
        uint64 key = wanted[k];
        if (key == 0) continue;
        const int owner = given[anchor_of(key)];
        if (owner < 0) {
          key = owner == ~k ? 0
                            : best_free_anchor(anchor, given, shape.num_anchors,
                                               truth_at(truths, k, shape.label_width));
          __syncwarp();
          if (lane_id() == 0) wanted[k] = key;
        }
        open |= key != 0;
      }
    }
  }
}

// cls_pred (images, classes, anchors).
extern "C" __global__ void __launch_bounds__(256)
    multibox_target_score(unsigned int* __restrict__ scores, int* __restrict__ num_positive,
                          const float* __restrict__ best, const int* __restrict__ which,
                          const float* __restrict__ cls_pred, const int* __restrict__ num_valid,
                          const cvops::TargetShape shape, const cvops::TargetOptions options) {
  using namespace cvops;
  const int num = shape.num_anchors;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    if (num_valid[image] == 0) continue;
    const int64 row = image * row_length(num);
    const float* logits = cls_pred + image * shape.num_classes * num;
    for (int64 begin = (int64)blockIdx.x * blockDim.x; begin < num;
         begin += (int64)gridDim.x * blockDim.x) {
      const int64 a = begin + threadIdx.x;
      bool positive = false;
      if (a < num) {
        uint32 score = kNoCandidate;
        positive = is_positive(best[row + a], which[row + a], options);
        if (!positive && best[row + a] < options.mining_threshold) {
          score = mining_score(background_of(logits + a, shape.num_classes, num));
        }
        scores[row + a] = score;
      }
      const int count = __syncthreads_count(positive);
      if (threadIdx.x == 0 && count) atomicAdd(&num_positive[image], count);
    }
  }
}

// One block takes one image. bounds[image]: the candidates with a lower mining_key are negatives.
// The bound is found digit by digit from the highest; each takes one pass over the candidates, and
// most often the digits of the score are enough.
extern "C" __global__ void __launch_bounds__(1024)
    multibox_target_select(unsigned long long* __restrict__ bounds,
                           const unsigned int* __restrict__ scores,
                           const int* __restrict__ num_valid, const int* __restrict__ num_positive,
                           const cvops::TargetShape shape, const cvops::TargetOptions options) {
  using namespace cvops;
  __shared__ uint32 bins[kDigitBins];
  __shared__ uint32 sums[kDigitBins / 32];
  __shared__ int found_digit;
  __shared__ uint32 found_rank;
  __shared__ bool found_end;
  const int num = shape.num_anchors, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int64 image = blockIdx.x; image < shape.num_images; image += gridDim.x) {
    const uint32* row = scores + image * row_length(num);
    uint32 rank =
        num_valid[image] ? mining_count(num_positive[image], num, options.mining_ratio) : 0;
    uint64 bound = rank ? kAllCandidates : 0, prefix = 0;
    for (int above = 64, digits; rank && above; above -= digits) {
      digits = above == 42 || above == 10 ? 10 : 11;  // 11 + 11 + 10 of the score, and of the place
      for (int i = threadIdx.x; i < kDigitBins; i += blockDim.x) bins[i] = 0;
      __syncthreads();
      for (int64 begin = 0; begin < num; begin += 4ll * blockDim.x) {
        const int64 first = begin + 4 * threadIdx.x;
        uint4 four = make_uint4(0, 0, 0, 0);
        if (first < num) four = *reinterpret_cast<const uint4*>(row + first);
        const uint32 score[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint64 key = mining_key(score[i], (int)first + i);
          const bool counted =
              first + i < num && score[i] != kNoCandidate && key >> 1 >> (above - 1) == prefix;
          count_digit(bins, (uint32)(key >> (above - digits)) & ((1u << digits) - 1), counted);
        }
      }
      __syncthreads();
      for (int i = warp; i < kDigitBins / 32; i += warps) {
        const uint32 sum = warp_sum(bins[32 * i + lane_id()]);
        if (lane_id() == 0) sums[i] = sum;
      }
      __syncthreads();
      if (warp == 0) {
        const int group = find_rank(sums, kDigitBins / 32, rank);
        const int digit = group < 0 ? -1 : 32 * group + find_rank(bins + 32 * group, 32, rank);
        if (lane_id() == 0) {
          found_digit = digit;
          found_rank = rank;
          found_end = digit >= 0 && bins[digit] == rank;
        }
      }
      __syncthreads();
      if (found_digit < 0) break;  // there are fewer candidates than wanted
      rank = found_rank;
      prefix = prefix << digits | found_digit;
      if (found_end) {
        bound = (prefix + 1) << (above - digits);
        break;
      }
    }
    if (threadIdx.x == 0) bounds[image] = bound;
  }
}

// loc_target and loc_mask (images, anchors, 4), cls_target (images, anchors). `scores` and `bounds`
// are read with mining only.
extern "C" __global__ void __launch_bounds__(256)
    multibox_target_write(float* __restrict__ loc_target, float* __restrict__ loc_mask,
                          float* __restrict__ cls_target, const float* __restrict__ anchor,
                          const float* __restrict__ label, const float* __restrict__ best,
                          const int* __restrict__ which, const int* __restrict__ num_valid,
                          const unsigned int* __restrict__ scores,
                          const unsigned long long* __restrict__ bounds,
                          const cvops::TargetShape shape, const cvops::TargetOptions options) {
  using namespace cvops;
  const int num = shape.num_anchors;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const int64 row = image * row_length(num);
    const float* truths = label + image * shape.num_truths * shape.label_width;
    const bool any = num_valid[image] > 0;
    for (int64 a = blockIdx.x * (int64)blockDim.x + threadIdx.x; a < num;
         a += (int64)gridDim.x * blockDim.x) {
      float4 target = make_float4(0, 0, 0, 0), mask = target;
      float cls = options.ignore_label;
      if (any && is_positive(best[row + a], which[row + a], options)) {
        const int truth = which[row + a] < 0 ? ~which[row + a] : which[row + a];
        const Offsets offsets =
            encode(load_box(anchor, a), truth_at(truths, truth, shape.label_width).box, options);
        target = make_float4(offsets.x, offsets.y, offsets.width, offsets.height);
        mask = make_float4(1, 1, 1, 1);
        cls = truths[(int64)truth * shape.label_width] + 1;
      } else if (any && (!(options.mining_ratio > 0) ||
                         mining_key(scores[row + a], (int)a) < bounds[image])) {
        cls = 0;
      }
      reinterpret_cast<float4*>(loc_target)[image * num + a] = target;
      reinterpret_cast<float4*>(loc_mask)[image * num + a] = mask;
      cls_target[image * num + a] = cls;
    }
  }
}
#endif
