#include "bipartite_matching.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Rows that a thread scans per task.
constexpr int64 kRowsAtOnce = 64;

// A row's best pair with a free column. Column -1: it has none.
struct Best {
  float score;
  int column;
};

// Adds 0 to a score, or NaN, which is never matchable.
constexpr float kFree = 0, kTaken = std::numeric_limits<float>::quiet_NaN();

// Best pair of a row of `num` scores; of equal ones the first. states (num): kFree or kTaken.
template <bool kAscend>
CVOPS_INLINE Best best_pair(const float* row, const float* states, int num, float threshold) {
  const auto is_better = [](float a, float b)
                             __attribute__((always_inline)) { return kAscend ? a < b : a > b; };
  Best best = {threshold, -1};
  int i = 0;
  if (num >= kWidth) {
    FloatVector scores = FloatVector{} + threshold;
    IntVector columns = IntVector{} - 1, column = {};
    for (int k = 0; k < kWidth; ++k) column[k] = k;
    for (; i + kWidth <= num; i += kWidth, column += kWidth) {
      FloatVector score, state;
      std::memcpy(&score, row + i, sizeof score);
      std::memcpy(&state, states + i, sizeof state);
      score += state;
      const IntVector better = kAscend ? score < scores : score > scores;
      columns = better ? column : columns;
      scores = better ? score : scores;
    }
    for (int k = 0; k < kWidth; ++k) {
      const bool is_first = scores[k] == best.score && columns[k] < best.column;
      if (columns[k] >= 0 && (is_better(scores[k], best.score) || is_first)) {
        best = {scores[k], columns[k]};
      }
    }
  }
  for (; i < num; ++i) {
    if (is_better(row[i] + states[i], best.score)) best = {row[i], i};
  }
  return best;
}

// The rows of a matrix, and the states of its columns.
struct Scores {
  const float *data, *states;
  int num_columns;
  float threshold;
};

// Key of the best pair of a row, or kNoKey; `column` is its column.
template <bool kAscend>
CVOPS_INLINE uint64 best_key(int& column, const Scores& scores, int64 row) {
  const Best best = best_pair<kAscend>(scores.data + row * scores.num_columns, scores.states,
                                       scores.num_columns, scores.threshold);
  column = best.column;
  return best.column < 0 ? kNoKey : matching_key(best.score, (uint32)row, kAscend);
}

template <bool kAscend>
void best_keys(uint64* keys, int* columns, const Scores& scores, int64 begin, int64 end) {
  for (int64 row = begin; row < end; ++row) {
    keys[row] = best_key<kAscend>(columns[row], scores, row);
  }
}

// Matches the pairs of one matrix. A heap has the key of the best free pair of each row. If another
// row has taken its column, the row gets the key of its next pair.
template <bool kAscend>
void match(float* columns, float* rows, const float* data, MatchingShape shape,
           MatchingOptions options, int threads) {
  const int num_columns = (int)shape.columns;
  const auto states = scratch<float>(num_columns);
  const auto keys = scratch<uint64>(shape.rows);
  const auto column_of = scratch<int>(shape.rows);
  std::fill_n(states.get(), num_columns, kFree);
  const Scores scores = {data, states.get(), num_columns, options.threshold};
  const auto scan = [&](int64 part) {
    simd<best_keys<kAscend>>(keys.get(), column_of.get(), scores, part * kRowsAtOnce,
                             std::min(shape.rows, (part + 1) * kRowsAtOnce));
  };
  const int64 parts = ceil_div(shape.rows, kRowsAtOnce);
  if (threads > 1) {
    parallel_for(parts, kRowsAtOnce * (10 + 0.3 * num_columns), scan);
  } else {
    for (int64 part = 0; part < parts; ++part) scan(part);
  }
  uint64* const heap = keys.get();
  uint64* end = std::remove(heap, heap + shape.rows, kNoKey);
  const std::greater<uint64> later;
  std::make_heap(heap, end, later);
  for (int64 left = options.limit(shape); left > 0 && end > heap;) {
    const int64 row = index_of(heap[0]);
    const int column = column_of[row];
    std::pop_heap(heap, end, later);
    --end;
    if (states[column] == kFree) {
      states[column] = kTaken;
      columns[row] = (float)column, rows[column] = (float)row;
      --left;
      continue;
    }
    const uint64 key = simd<best_key<kAscend>>(column_of[row], scores, row);
    if (key == kNoKey) continue;
    *end++ = key;
    std::push_heap(heap, end, later);
  }
}

}  // namespace

void bipartite_matching(const Cpu&, float* columns, float* rows, const float* data,
                        MatchingShape shape, MatchingOptions options) {
  const int64 batch = shape.batch, num_rows = shape.rows, num_columns = shape.columns;
  std::fill_n(columns, batch * num_rows, -1.0f);
  std::fill_n(rows, batch * num_columns, -1.0f);
  if (batch == 0 || num_rows * num_columns == 0) return;
  const int64 num = num_rows * num_columns;
  for_each_image(batch, 20.0 * num_rows + 0.3 * num, [&](int64 b, int threads) {
    const auto run = options.is_ascend ? match<true> : match<false>;
    run(columns + b * num_rows, rows + b * num_columns, data + b * num, shape, options, threads);
  });
}

}  // namespace cvops
