// Non-maximum suppression of boxes that come sorted, the best first: a box that is kept suppresses
// every later one of its class that it overlaps too much. Of each row of a batch the first
// counts[b] boxes take part.
//
// Where classes count, the boxes are sorted once more, by class: those that can suppress each other
// are then neighbours, and what lies between classes is passed over whole. The order of the classes
// among themselves does not matter. `order` holds that sort's keys, whose indices are places among
// the sorted boxes; it is null where all are of one class.
//
// By chunks of boxes, three launches each. nms_mask finds which boxes of the chunk would suppress
// each other, a bit for each pair. nms_settle, one block for each row of the batch, decides the
// whole chunk at once, in rounds: a box whose suppressors are all gone is kept, and one that a kept
// box suppresses is gone; most are decided in a few rounds, and in every round the first open one
// is. nms_suppress compares the kept ones with every later box. So memory is for the bits of one
// chunk whatever N is, only what is kept costs pairs with later boxes, and no matrix of all pairs
// is read or written. Nothing depends on a schedule, and the host waits for nothing.
#pragma once
#include "nms_rule.cuh"
#include "order.cuh"

namespace cvops {

constexpr int kNmsChunk = 2048;  // boxes at most

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// A box of the contest. Two boxes whose overlap is below the sum of their shares do not suppress
// each other.
struct alignas(16) Contestant {
  Box box;
  float area, share;
  int of_class;
};

// Of a box that nothing can suppress any more.
constexpr float kNoShare = 3e38f;

// iou > t means overlap > t / (1 + t) of both areas. The last factor leaves room for all roundings,
// and what is taken off for those of numbers near 0. NaN, which every comparison lets pass, where
// boxes that do not touch may suppress each other.
__device__ __forceinline__ float nms_share(float area, const NmsRule& rule) {
  const float t = rule.threshold;
  return t > 1e-30f ? t / (1 + t) * 0.9999f * area - 1e-36f : __uint_as_float(0x7fffffff);
}

__device__ __forceinline__ Contestant contestant(const float* boxes, const float* areas,
                                                 const int* classes, const uint64* order, int i,
                                                 const NmsRule& rule) {
  const int at = order ? (int)index_of(order[i]) : i;
  const float area = areas[at];
  return {load_box(boxes, at), area, nms_share(area, rule), rule.by_class ? classes[at] : 0};
}

// Whether suppresses() has to be asked. What a minimum or a maximum gives for NaN makes the overlap
// larger than it is, if anything.
__device__ __forceinline__ bool may_suppress(const Contestant& kept, const Contestant& other) {
  const float width = fminf(kept.box.x2, other.box.x2) - fmaxf(kept.box.x1, other.box.x1);
  const float height = fminf(kept.box.y2, other.box.y2) - fmaxf(kept.box.y1, other.box.y1);
  return !(width * fmaxf(height, 0.0f) < kept.share + other.share);
}

__device__ __forceinline__ bool suppresses(const Contestant& kept, const Contestant& other,
                                           const NmsRule& rule) {
  return kept.of_class == other.of_class &&
         suppresses(SizedBox{kept.box, kept.area}, SizedBox{other.box, other.area}, rule);
}

}  // namespace cvops

// What a sort by class goes by: keys (B, N), of which the first counts[b] count, from classes (B,
// N). Grid (B, tiles of 256).
extern "C" __global__ void __launch_bounds__(256)
    nms_class_keys(unsigned long long* __restrict__ keys, const int* __restrict__ classes,
                   const int* __restrict__ counts, int num) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= counts[batch]) return;
  const int64 at = (int64)batch * num + i;
  keys[at] = (uint64)((uint32)classes[at] ^ 0x80000000u) << 32 | (uint32)i;
}

// mask (B, chunk / 32, chunk): bit k of mask[b, w, j] tells whether box 32 w + k of the chunk,
// which begins at `first`, comes before box j and would suppress it. Written where box j is not
// removed and w is not beyond its own word. boxes (B, N, 4), areas and classes (B, N), removed (B,
// ceil(N / 32)). Grid (B, ceil(chunk / 128), ceil(chunk / 64)), 256 threads: 4 words by 64 boxes.
extern "C" __global__ void __launch_bounds__(256)
    nms_mask(unsigned int* __restrict__ mask, const float* __restrict__ boxes,
             const float* __restrict__ areas, const int* __restrict__ classes,
             const unsigned long long* __restrict__ order, const unsigned int* __restrict__ removed,
             const int* __restrict__ counts, int num, int first, int chunk,
             const cvops::NmsRule rule) {
  using namespace cvops;
  __shared__ Contestant before[128];
  const int batch = blockIdx.x, t = threadIdx.x, count = min(counts[batch] - first, chunk);
  const int first_before = blockIdx.y * 128, first_box = blockIdx.z * 64;
  if (first_box >= count || first_before >= first_box + 64) return;
  boxes += 4ll * batch * num;
  areas += (int64)batch * num;
  classes += (int64)batch * num;
  if (order) order += (int64)batch * num;
  removed += batch * ceil_div(num, 32);
  if (t < 128 && first_before + t < count) {
    before[t] = contestant(boxes, areas, classes, order, first + first_before + t, rule);
  }
  __syncthreads();
  const int j = first_box + t % 64, own = t / 64 * 32, word = first_before / 32 + t / 64;
  if (j >= count || word > j / 32) return;
  if (removed[(first + j) / 32] >> ((first + j) % 32) & 1) return;
  const Contestant box = contestant(boxes, areas, classes, order, first + j, rule);
  const int most = min(32, j - 32 * word);
  unsigned bits = 0;
  // In the order of classes the last of a word has the highest: if it is too low, all are.
  if (most > 0 && before[own + most - 1].of_class >= box.of_class) {
#pragma unroll 4
    for (int k = 0; k < most; ++k) {
      const Contestant& other = before[own + k];
      if (may_suppress(other, box) && suppresses(other, box, rule)) bits |= 1u << k;
    }
  }
  mask[((int64)batch * (chunk / 32) + word) * chunk + j] = bits;
}

// Decides the chunk that begins at `first`. kept (B, ceil(N / 64)): a bit for each sorted box that
// is kept, all 0 before the first chunk; list (B, chunk) and list_counts (B): those of the chunk,
// in their order. After the `last` chunk, kept_before (B, ceil(N / 64) + 1): how many are kept
// before each word, and at its end in all. Grid (B), min(chunk, 1024) threads.
extern "C" __global__ void __launch_bounds__(1024)
    nms_settle(unsigned long long* __restrict__ kept, int* __restrict__ kept_before,
               int* __restrict__ list, int* __restrict__ list_counts,
               const unsigned long long* __restrict__ order,
               const unsigned int* __restrict__ removed, const unsigned int* __restrict__ mask,
               const int* __restrict__ counts, int num, int first, int chunk, int last) {
  using namespace cvops;
  constexpr int kWords = kNmsChunk / 32, kMine = kNmsChunk / 1024;  // of a thread, at most
  __shared__ unsigned open[kWords], taken[kWords];
  __shared__ int taken_before[kWords];
  const int batch = blockIdx.x, t = threadIdx.x, threads = blockDim.x, lane = t % 32;
  const int count = min(counts[batch] - first, chunk), words = (int)ceil_div(num, 64);
  kept += (int64)batch * words;
  kept_before += (int64)batch * (words + 1);
  if (order) order += (int64)batch * num;
  removed += batch * ceil_div(num, 32);
  mask += (int64)batch * (chunk / 32) * chunk;
  for (int w = t; w < kWords; w += threads) {
    const int here = 32 * w < count ? min(32, count - 32 * w) : 0;
    open[w] = here ? ~removed[first / 32 + w] & ~0u >> (32 - here) : 0;
    taken[w] = 0;
  }
  __syncthreads();
  int from[kMine] = {};  // the words before it hold nothing open that would suppress the box
  bool waits = true;
  while (__syncthreads_or(waits)) {
    bool is_gone[kMine], is_kept[kMine];
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int j = t + threads * i;
      is_gone[i] = false;
      is_kept[i] = open[j / 32] >> lane & 1;
      if (!is_kept[i]) continue;
      for (int w = from[i]; w <= j / 32; ++w) {
        const unsigned suppressors = mask[w * chunk + j];
        if (suppressors & taken[w]) {
          is_gone[i] = true;
          break;
        }
        if (is_kept[i] && suppressors & open[w]) {
          is_kept[i] = false;
          from[i] = w;
        }
      }
      is_kept[i] = is_kept[i] && !is_gone[i];
    }
    __syncthreads();  // all have read
    waits = false;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int w = (t + threads * i) / 32;
      const unsigned now_kept = __ballot_sync(~0u, is_kept[i]);
      const unsigned now_gone = __ballot_sync(~0u, is_gone[i]);
      const unsigned left = open[w] & ~(now_kept | now_gone);
      __syncwarp();
      if (lane == 0) {
        open[w] = left;
        taken[w] |= now_kept;
      }
      waits = waits || left;
    }
  }
  if (t < chunk / 32) {
    int before = 0;
    for (int w = 0; w < t; ++w) before += __popc(taken[w]);
    taken_before[t] = before;
    if (t == chunk / 32 - 1) list_counts[batch] = before + __popc(taken[t]);
  }
  if (!order && t < chunk / 64 && first / 64 + t < words) {
    kept[first / 64 + t] = (uint64)taken[2 * t + 1] << 32 | taken[2 * t];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int j = t + threads * i;
    if (!(taken[j / 32] >> lane & 1)) continue;
    const int rank = taken_before[j / 32] + __popc(taken[j / 32] & ((1u << lane) - 1));
    list[(int64)batch * chunk + rank] = first + j;
    if (order) {
      const int at = (int)index_of(order[first + j]);
      atomicOr(&kept[at / 64], 1ull << (at % 64));
    }
  }
  if (!last) return;
  __syncthreads();
  // Each warp has a part of the words, and sums it twice: for those after it, and its own places.
  const int part = (int)ceil_div(words, threads / 32), begin = min(t / 32 * part, words);
  const int end = min(begin + part, words);
  int before = 0;
  for (int w = lane; w < begin; w += 32) before += __popcll(kept[w]);
  for (int d = 16; d > 0; d /= 2) before += __shfl_xor_sync(~0u, before, d);
  for (int w = begin; w < end; w += 32) {
    const int own = w + lane < end ? __popcll(kept[w + lane]) : 0;
    int sum = own;
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(~0u, sum, d);
      if (lane >= d) sum += other;
    }
    if (w + lane < end) kept_before[w + lane] = before + sum - own;
    before += __shfl_sync(~0u, sum, 31);
  }
  if (t == threads - 1) kept_before[words] = before;
}

// Compares what is kept of the chunk before `first` with the boxes from there on. removed (B,
// ceil(N / 32)): a bit for each that is suppressed. Grid (B, tiles of 256), 128 threads, two boxes
// each.
extern "C" __global__ void __launch_bounds__(128)
    nms_suppress(unsigned int* __restrict__ removed, const float* __restrict__ boxes,
                 const float* __restrict__ areas, const int* __restrict__ classes,
                 const unsigned long long* __restrict__ order, const int* __restrict__ list,
                 const int* __restrict__ list_counts, const int* __restrict__ counts, int num,
                 int first, int chunk, const cvops::NmsRule rule) {
  using namespace cvops;
  __shared__ Contestant kept[128];
  const int batch = blockIdx.x, t = threadIdx.x, count = counts[batch];
  const int begin = first + blockIdx.y * 256, num_kept = list_counts[batch];
  if (begin >= count) return;
  boxes += 4ll * batch * num;
  areas += (int64)batch * num;
  classes += (int64)batch * num;
  if (order) order += (int64)batch * num;
  removed += batch * ceil_div(num, 32);
  list += (int64)batch * chunk;
  Contestant mine[2] = {};
  bool lives[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int j = begin + 128 * i + t;
    lives[i] = j < count && !(removed[j / 32] >> (j % 32) & 1);
    if (lives[i]) mine[i] = contestant(boxes, areas, classes, order, j, rule);
    if (!lives[i]) mine[i].share = kNoShare;
  }
  int lowest = 0;  // class here, if the boxes are in the order of classes
  if (order) lowest = classes[index_of(order[begin])];
  for (int k = 0; k < num_kept; k += 128) {
    if (!__syncthreads_or(lives[0] || lives[1])) break;
    const int here = min(128, num_kept - k);
    if (t < here) kept[t] = contestant(boxes, areas, classes, order, list[k + t], rule);
    __syncthreads();
    if (order && kept[here - 1].of_class < lowest) continue;
#pragma unroll 2
    for (int n = 0; n < here; ++n) {
      const Contestant& box = kept[n];
      if (!may_suppress(box, mine[0]) && !may_suppress(box, mine[1])) continue;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (!lives[i] || !suppresses(box, mine[i], rule)) continue;
        lives[i] = false;
        mine[i].share = kNoShare;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int j = begin + 128 * i + t;
    const unsigned gone = __ballot_sync(~0u, !lives[i]);
    if (j % 32 == 0 && j < count) removed[j / 32] = gone;
  }
}
#endif
