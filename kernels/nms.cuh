// Non-maximum suppression of boxes that come sorted, the best first: a box that is kept suppresses
// every later one of its class that it overlaps too much. Of each row of a batch the first
// counts[b] boxes count (at most `limit`).
//
// By chunks of rows, two launches each. nms_mask finds which later boxes each box of the chunk
// would suppress, a bit for each pair, all pairs in parallel; rows and whole columns of boxes that
// an earlier chunk has suppressed cost nothing. nms_resolve, one block for each row of the batch,
// goes down the chunk 64 boxes at a time: one warp settles those among themselves, then every
// thread gathers for its columns what the kept ones suppress. Chunks bound the memory for the bits,
// whatever N is. Nothing depends on a schedule, and the host waits for nothing.
#pragma once
#include "nms_rule.cuh"

#ifdef __CUDACC__
// mask (B, rows, words): bit k of mask[b, r, w] tells whether box first + r suppresses box 64 w +
// k. Written where the row is not yet removed and w is not before the row's own word. boxes (B, N,
// 4), areas and classes (B, N), removed (B, words). Grid (B, ceil(words / 4), ceil(rows / 64)), 256
// threads: 64 rows by 4 words.
extern "C" __global__ void __launch_bounds__(256)
    nms_mask(unsigned long long* __restrict__ mask, const float* __restrict__ boxes,
             const float* __restrict__ areas, const int* __restrict__ classes,
             const unsigned long long* __restrict__ removed, const int* __restrict__ counts,
             int num, int limit, int first, int rows, const cvops::NmsRule rule) {
  using namespace cvops;
  __shared__ SizedBox columns[256];
  __shared__ int column_classes[256];
  const int batch = blockIdx.x, t = threadIdx.x, words = (int)ceil_div(num, 64);
  const int count = min(counts[batch], limit);
  const int first_row = first + blockIdx.z * 64, first_column = blockIdx.y * 256;
  if (first_row >= count || first_column >= count || first_column + 256 <= first_row) return;
  boxes += 4ll * batch * num;
  areas += (int64)batch * num;
  classes += (int64)batch * num;
  removed += (int64)batch * words;
  if (first_column + t < count) {
    columns[t] = {load_box(boxes, first_column + t), areas[first_column + t]};
    column_classes[t] = classes[first_column + t];
  }
  __syncthreads();
  const int row = first_row + t % 64, word = first_column / 64 + t / 64;
  if (row >= count || row >= first + rows || word < row / 64 || word * 64 >= count) return;
  if (removed[row / 64] >> (row % 64) & 1) return;
  const SizedBox box = {load_box(boxes, row), areas[row]};
  const int box_class = classes[row], before = t / 64 * 64;
  uint64 bits = 0;
  uint64 todo = ~removed[word];
  if (word == row / 64) todo &= ~1ull << (row % 64);
  if (count - word * 64 < 64) todo &= (1ull << (count - word * 64)) - 1;
  if (todo != 0) {
#pragma unroll 4
    for (int k = 0; k < 64; ++k) {
      bool same = !rule.by_class || column_classes[before + k] == box_class;
      if (same && suppresses(box, columns[before + k], rule)) bits |= 1ull << k;
    }
  }
  mask[((int64)batch * rows + row - first) * words + word] = bits & todo;
}

// Settles the boxes first to first + rows. kept (B, words): a bit for each box that is kept;
// removed (B, words): a bit for each that is suppressed; kept_before (B, words + 1): how many are
// kept before each word, and at [words] how many in all. Grid (B), 32 threads or more.
extern "C" __global__ void __launch_bounds__(512)
    nms_resolve(unsigned long long* __restrict__ kept, unsigned long long* __restrict__ removed,
                int* __restrict__ kept_before, const unsigned long long* __restrict__ mask,
                const int* __restrict__ counts, int num, int limit, int first, int rows) {
  using namespace cvops;
  __shared__ uint64 kept_now;
  const int batch = blockIdx.x, t = threadIdx.x, words = (int)ceil_div(num, 64);
  const int count = min(counts[batch], limit), used = (int)ceil_div(count, 64);
  const int end = min(first + rows, words * 64) / 64;
  kept += (int64)batch * words;
  removed += (int64)batch * words;
  kept_before += (int64)batch * (words + 1);
  mask += (int64)batch * rows * words;
  int total = first == 0 ? 0 : kept_before[first / 64];
  __syncthreads();  // all have read it
  for (int word = first / 64; word < end; ++word) {
    const uint64* row = mask + (word * 64ll - first) * words;
    if (t < 32 && word < used) {
      uint64 dead = removed[word];
      if (count - word * 64 < 64) dead |= ~0ull << (count - word * 64);
      uint64 low = dead >> t & 1 ? 0 : row[(int64)t * words + word];
      uint64 high = dead >> (t + 32) & 1 ? 0 : row[(t + 32ll) * words + word];
      for (int k = 0; k < 64; ++k) {
        uint64 suppressed = __shfl_sync(~0u, k < 32 ? low : high, k % 32);
        if (!(dead >> k & 1)) dead |= suppressed;
      }
      if (t == 0) kept_now = ~dead;
    }
    __syncthreads();
    const uint64 now = word < used ? kept_now : 0;
    if (t == 0) kept[word] = now, kept_before[word] = total;
    total += __popcll(now);
    for (int column = word + 1 + t; column < used; column += blockDim.x) {
      uint64 bits = removed[column];
      for (uint64 left = now; left; left &= left - 1) {
        bits |= row[(__ffsll((long long)left) - 1ll) * words + column];
      }
      removed[column] = bits;
    }
    __syncthreads();
  }
  if (t == 0) kept_before[end] = kept_before[words] = total;
}
#endif
