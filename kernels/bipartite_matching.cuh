// bipartite_matching: greedy matching of the rows and the columns of score matrices.
//
// - bipartite_matching_clear sets all results to -1.
// - bipartite_matching_collect reads the scores once and lists the keys of those beyond the
//   threshold, in any order.
// - sort_* sort the keys of each matrix, from the best score to the worst.
// - bipartite_matching_assign has one block per matrix, which takes the sorted pairs in steps. In a
//   round of a step, each pair with a free row and a free column claims both; the first pair gets
//   the claim. A pair with both claims is matched: no earlier pair can take its row or its column.
#pragma once
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

// Pairs of a matrix that a block of bipartite_matching_collect reads.
constexpr int kMatchingTile = CVOPS_STEP(4096, 512);
// Threads of bipartite_matching_assign, and pairs per thread and step.
constexpr int kMatchingThreads = CVOPS_STEP(1024, 64), kMatchingEach = 4;

// True if a pair may be matched: its score is above the threshold, or below it with `is_ascend`.
CVOPS_HD bool is_matchable(float score, float threshold, bool is_ascend) {
  return is_ascend ? score < threshold : score > threshold;
}

// Ascending keys are from the best score to the worst. Equal scores have ascending indices.
CVOPS_HD uint64 matching_key(float score, uint32 index, bool is_ascend) {
  return sort_key(is_ascend ? -score : score, index);
}

}  // namespace cvops

CVOPS_KERNEL bipartite_matching_clear(float* columns, float* rows, int* counts,
                                      cvops::int64 num_columns, cvops::int64 num_rows,
                                      cvops::int64 num_counts);
CVOPS_KERNEL bipartite_matching_collect(cvops::uint64* keys, int* counts, const float* data,
                                        int num, int tiles, float threshold, int is_ascend);
CVOPS_KERNEL bipartite_matching_assign(float* columns, float* rows, int* claims,
                                       const cvops::uint64* keys, const int* counts, int num_rows,
                                       int num_columns, int limit);

#ifdef __CUDACC__
// columns and rows: -1; counts: 0.
extern "C" __global__ void __launch_bounds__(256)
    bipartite_matching_clear(float* __restrict__ columns, float* __restrict__ rows,
                             int* __restrict__ counts, long long num_columns, long long num_rows,
                             long long num_counts) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  const int64 me = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64 i = me; i < num_columns; i += threads) columns[i] = -1;
  for (int64 i = me; i < num_rows; i += threads) rows[i] = -1;
  for (int64 i = me; i < num_counts; i += threads) counts[i] = 0;
}

// keys (B, N): the keys of the matchable pairs of data (B, N), in any order; counts (B), 0 before:
// their number. Grid (B * tiles), 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    bipartite_matching_collect(unsigned long long* __restrict__ keys, int* __restrict__ counts,
                               const float* __restrict__ data, int num, int tiles, float threshold,
                               int is_ascend) {
  using namespace cvops;
  wait_for_earlier_launches();
  constexpr int kThreads = 256, kEach = kMatchingTile / kThreads;
  __shared__ int num_listed, begin_of_block;
  const int batch = blockIdx.x / tiles, t = threadIdx.x;
  const int first = blockIdx.x % tiles * kMatchingTile + t;
  data += (int64)batch * num;
  keys += (int64)batch * num;
  float scores[kEach];
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int i = first + kThreads * k;
    scores[k] = i < num ? data[i] : threshold;  // the threshold itself is not matchable
  }
  unsigned mine = 0;  // one bit per matchable score
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    mine |= (unsigned)is_matchable(scores[k], threshold, is_ascend) << k;
  }
  if (t == 0) num_listed = 0;
  __syncthreads();
  const int own = __popc(mine), up_to = warp_prefix_sum(own);
  int before = lane_id() == 31 && up_to ? atomicAdd(&num_listed, up_to) : 0;
  before = __shfl_sync(kWarp, before, 31);
  __syncthreads();
  if (t == 0 && num_listed) begin_of_block = atomicAdd(&counts[batch], num_listed);
  __syncthreads();
  int position = begin_of_block + before + up_to - own;
  // A second load needs fewer registers than an array with dynamic indices.
  for (unsigned rest = mine; rest; rest &= rest - 1, ++position) {
    const int i = first + kThreads * (__ffs(rest) - 1);
    keys[position] = matching_key(data[i], (uint32)i, is_ascend);
  }
}

// columns (B, N): the column of each row, or -1; rows (B, M): the row of each column, or -1; both
// -1 before. keys (B, N * M): the first counts[b] keys are sorted. At most `limit` pairs are
// matched. claims (B, N + M): scratch memory. Grid (B), kMatchingThreads threads.
extern "C" __global__ void __launch_bounds__(cvops::kMatchingThreads, 1)
    bipartite_matching_assign(float* __restrict__ columns, float* __restrict__ rows,
                              int* __restrict__ claims, const unsigned long long* __restrict__ keys,
                              const int* __restrict__ counts, int num_rows, int num_columns,
                              int limit) {
  using namespace cvops;
  wait_for_earlier_launches();
  constexpr int kUnclaimed = 0x7fffffff, kThreads = kMatchingThreads, kWarps = kThreads / 32;
  __shared__ int found_before[kMatchingEach * kWarps];
  const int64 batch = blockIdx.x;
  const int count = counts[batch], t = threadIdx.x, lane = t % 32, warp = t / 32;
  keys += batch * num_rows * num_columns;
  columns += batch * num_rows;
  rows += batch * num_columns;
  int* const row_claims = claims + batch * (num_rows + num_columns);
  int* const column_claims = row_claims + num_rows;
  int matched = 0;
  for (int begin = 0; begin < count && matched < limit; begin += kMatchingEach * kThreads) {
    // Pair k of a thread is at position begin + k * kThreads + t.
    int row[kMatchingEach], column[kMatchingEach];
    bool is_open[kMatchingEach], is_matched[kMatchingEach], any_open = false;
#pragma unroll
    for (int k = 0; k < kMatchingEach; ++k) {
      const int at = begin + k * kThreads + t;
      is_open[k] = at < count, is_matched[k] = false;
      const int index = is_open[k] ? (int)index_of(keys[at]) : 0;
      row[k] = index / num_columns, column[k] = index - row[k] * num_columns;
    }
#pragma unroll
    for (int k = 0; k < kMatchingEach; ++k) {
      is_open[k] &= (columns[row[k]] < 0) & (rows[column[k]] < 0);
      any_open |= is_open[k];
    }
    while (__syncthreads_or(any_open)) {
#pragma unroll
      for (int k = 0; k < kMatchingEach; ++k) {
        if (!is_open[k]) continue;
        atomicExch(&row_claims[row[k]], kUnclaimed);
        atomicExch(&column_claims[column[k]], kUnclaimed);
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kMatchingEach; ++k) {
        if (!is_open[k]) continue;
        atomicMin(&row_claims[row[k]], k * kThreads + t);
        atomicMin(&column_claims[column[k]], k * kThreads + t);
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kMatchingEach; ++k) {
        const int at = k * kThreads + t;
        if (!is_open[k] || row_claims[row[k]] != at || column_claims[column[k]] != at) continue;
        is_matched[k] = true;
        columns[row[k]] = (float)column[k], rows[column[k]] = (float)row[k];
      }
      __syncthreads();
      any_open = false;
#pragma unroll
      for (int k = 0; k < kMatchingEach; ++k) {
        is_open[k] &= (columns[row[k]] < 0) & (rows[column[k]] < 0);
        any_open |= is_open[k];
      }
    }
    // The positions of the matched pairs in their order. Pairs beyond the limit are undone.
    int before[kMatchingEach];
#pragma unroll
    for (int k = 0; k < kMatchingEach; ++k) {
      const unsigned lanes = __ballot_sync(kWarp, is_matched[k]);
      before[k] = lanes_before(lanes, lane);
      if (lane == 0) found_before[k * kWarps + warp] = __popc(lanes);
    }
    __syncthreads();
    int found = 0;
    for (int i = 0; i < kMatchingEach * kWarps; ++i) found += found_before[i];
    if (found > limit - matched) {
#pragma unroll
      for (int k = 0; k < kMatchingEach; ++k) {
        for (int i = 0; i < k * kWarps + warp; ++i) before[k] += found_before[i];
        if (is_matched[k] && matched + before[k] >= limit) columns[row[k]] = rows[column[k]] = -1;
      }
    }
    matched += found;
  }
}
#endif
