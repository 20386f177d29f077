// matrix_nms: the IoUs of all pairs lower the scores in parallel. Candidates: box_nms.cuh; sorting:
// sort.cuh. Order: candidates -> matrix_nms_clear -> matrix_nms_overlap -> matrix_nms_decay ->
// matrix_nms_key -> sort_* -> matrix_nms_write.
//
// Candidates are in descending order of scores. A candidate i has an IoU with each candidate j
// before it, and each j has a greatest IoU with the candidates before j. The factor of i's score
// is the least of f(iou(i, j)) / f(greatest IoU of j), at most 1. Only pairs that overlap can lower
// it, so all other pairs cost a comparison.
//
// The two passes over the pairs take the maximum of integers that have the order of floats. Such
// atomic operations have one result in any order.
#pragma once
#include "exp_log.cuh"
#include "nms/rule.cuh"
#include "nms/spatial_order.cuh"
#include "sort_key.cuh"

namespace cvops {

// f(iou) = exp(-sigma iou^2) if `gaussian`, else 1 - iou.
struct MatrixNms {
  float sigma;
  int gaussian, by_class, center;
};

// Candidates per block and pass.
constexpr int kMatrixTile = 256;

// A monotone function of f(iou) / f(greatest): the logarithm, divided by sigma, if `gaussian`. The
// small number avoids a division by zero.
CVOPS_HD float matrix_nms_term(float iou, float greatest, bool gaussian) {
  return gaussian ? greatest * greatest - iou * iou : (1.0f - iou) / (1.0f - greatest + 1e-10f);
}

// The term of a factor of 1.
CVOPS_HD float matrix_nms_neutral(bool gaussian) { return gaussian ? 0.0f : 1.0f; }

// Factor of a score from its least term.
CVOPS_HD float matrix_nms_factor(float term, MatrixNms op) {
  return op.gaussian ? exp_of(term * op.sigma) : term;
}

}  // namespace cvops

CVOPS_KERNEL matrix_nms_clear(cvops::uint32* numbers, cvops::int64 num);
CVOPS_KERNEL matrix_nms_overlap(cvops::uint32* greatest, cvops::NmsBuffers nms, int num,
                                cvops::MatrixNms op);
CVOPS_KERNEL matrix_nms_decay(cvops::uint32* terms, const cvops::uint32* greatest,
                              cvops::NmsBuffers nms, int num, cvops::MatrixNms op);
CVOPS_KERNEL matrix_nms_key(cvops::uint64* keys, int* tile_counts, const cvops::uint64* sorted,
                            const cvops::uint32* terms, const int* counts, int num,
                            cvops::MatrixNms op, float post_thresh);
CVOPS_KERNEL matrix_nms_write(float* out, int* index, const float* data, const cvops::uint64* keys,
                              const int* counts, int num, int rows, int width, int score,
                              int with_index);

#ifdef __CUDACC__
namespace cvops {

// Calls use(i, j, iou) for each pair of candidates i and j < i of one class that overlap. A block
// takes kMatrixTile candidates i and as many candidates j at a time; a thread has one i. blockIdx.y
// is the index of such a pair of tiles.
template <typename Begin, typename Use, typename End>
__device__ __forceinline__ void matrix_nms_pairs(const NmsBuffers& nms, int num, MatrixNms op,
                                                 const Begin& begin, const Use& use,
                                                 const End& end) {
  __shared__ SizedBox boxes[kMatrixTile];
  __shared__ int classes[kMatrixTile];
  const int batch = blockIdx.x, t = threadIdx.x, count = nms.counts[batch];
  const int64 first = (int64)batch * num;
  const int64 tiles = ceil_div(count, kMatrixTile);
  for (int64 pair = blockIdx.y; pair < tiles * (tiles + 1) / 2; pair += gridDim.y) {
    int column = (int)((sqrt(8.0 * (double)pair + 1) - 1) / 2);
    while ((int64)column * (column + 1) / 2 > pair) --column;
    while ((int64)(column + 1) * (column + 2) / 2 <= pair) ++column;
    const int before = (int)(pair - (int64)column * (column + 1) / 2) * kMatrixTile;
    const int i = column * kMatrixTile + t;
    __syncthreads();
    if (before + t < count) {
      boxes[t] = {load_box(nms.boxes, first + before + t), nms.areas[first + before + t]};
      classes[t] = nms.classes[first + before + t];
      begin(first, before);
    }
    __syncthreads();
    if (i >= count) continue;
    const SizedBox own = {load_box(nms.boxes, first + i), nms.areas[first + i]};
    const int of_class = nms.classes[first + i];
    for (int k = 0; k < min(kMatrixTile, i - before); ++k) {
      const float overlap = intersection(boxes[k].box, own.box, op.center);
      if (!(overlap > 0) || (op.by_class && classes[k] != of_class)) continue;
      use(k, overlap / (boxes[k].area + own.area - overlap));
    }
    end(first + i);
  }
}

}  // namespace cvops

// numbers (num) = 0.
extern "C" __global__ void __launch_bounds__(256)
    matrix_nms_clear(unsigned* __restrict__ numbers, long long num) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  for (int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x; i < num; i += threads) {
    numbers[i] = 0;
  }
}

// greatest (B, N), 0 before: the bits of the greatest IoU of each candidate with those before it.
// Grid (B, pairs of tiles).
extern "C" __global__ void __launch_bounds__(256)
    matrix_nms_overlap(unsigned* __restrict__ greatest, const cvops::NmsBuffers nms, int num,
                       const cvops::MatrixNms op) {
  using namespace cvops;
  wait_for_earlier_launches();
  float most = 0;
  matrix_nms_pairs(
      nms, num, op, [&](int64, int) { most = 0; },
      [&](int, float iou) { most = iou > most ? iou : most; },
      [&](int64 at) {
        if (most > 0) atomicMax(greatest + at, bits_of(most));
        most = 0;
      });
}

// terms (B, N), 0 before: the bits of the least term of each candidate in descending order, or 0 if
// it is neutral. Grid (B, pairs of tiles).
extern "C" __global__ void __launch_bounds__(256)
    matrix_nms_decay(unsigned* __restrict__ terms, const unsigned* __restrict__ greatest,
                     const cvops::NmsBuffers nms, int num, const cvops::MatrixNms op) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ float most[kMatrixTile];
  const float neutral = matrix_nms_neutral(op.gaussian);
  float least = neutral;
  matrix_nms_pairs(
      nms, num, op,
      [&](int64 first, int before) {
        most[threadIdx.x] = float_of(greatest[first + before + threadIdx.x]);
      },
      [&](int k, float iou) {
        const float term = matrix_nms_term(iou, most[k], op.gaussian);
        least = term < least ? term : least;
      },
      [&](int64 at) {
        if (least < neutral) atomicMax(terms + at, ~ascending_bits(least));
        least = neutral;
      });
}

// keys (B, N) of the candidates with their lower scores, and kNoKey for those at the threshold or
// below; tile_counts: candidates per tile that stay. sorted (B, N): the keys of the counts[b]
// candidates. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    matrix_nms_key(unsigned long long* __restrict__ keys, int* __restrict__ tile_counts,
                   const unsigned long long* __restrict__ sorted,
                   const unsigned* __restrict__ terms, const int* __restrict__ counts, int num,
                   const cvops::MatrixNms op, float post_thresh) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  const int64 at = (int64)batch * num + i;
  uint64 key = kNoKey;
  if (i < counts[batch]) {
    const uint32 bits = ~terms[at];
    const float term = bits == ~0u  ? matrix_nms_neutral(op.gaussian)
                       : bits >> 31 ? float_of(bits & 0x7fffffffu)
                                    : float_of(~bits);
    const float score = score_of(sorted[at]) * matrix_nms_factor(term, op);
    if (score > post_thresh) key = sort_key(score, index_of(sorted[at]));
  }
  if (i < num) keys[at] = key;
  const int count = __syncthreads_count(key != kNoKey);
  if (threadIdx.x == 0) tile_counts[(int64)batch * gridDim.y + blockIdx.y] = count;
}

// out (B, rows, width): the rows of the first counts[b] keys with the scores of the keys, then rows
// of -1. index (B, rows): their rows in data, or -1; not written unless `with_index`. Grid (B,
// tiles).
extern "C" __global__ void __launch_bounds__(256)
    matrix_nms_write(float* __restrict__ out, int* __restrict__ index,
                     const float* __restrict__ data, const unsigned long long* __restrict__ keys,
                     const int* __restrict__ counts, int num, int rows, int width, int score,
                     int with_index) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int batch = blockIdx.x, count = counts[batch];
  keys += (int64)batch * num;
  data += (int64)batch * num * width;
  out += (int64)batch * rows * width;
  const int64 threads = (int64)gridDim.y * blockDim.x;
  for (int64 k = blockIdx.y * (int64)blockDim.x + threadIdx.x; k < (int64)rows * width;
       k += threads) {
    const int row = (int)(k / width), c = (int)(k - (int64)row * width);
    const int from = row < count ? (int)index_of(keys[row]) : -1;
    out[k] = from < 0 ? -1.0f : c == score ? score_of(keys[row]) : data[(int64)from * width + c];
    if (with_index && c == 0) index[(int64)batch * rows + row] = from;
  }
}
#endif
