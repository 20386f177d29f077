#include "bipartite_matching.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Rows that a thread scans per task.
constexpr int64 kRowsAtOnce = 64;
// Rows of a block, of which each column has its best pair; a multiple of 64.
constexpr int kBlock = 128;
// From that number of rows per column on, the heap is not used.
constexpr int kManyRows = 2;
// The heap is given up after more searches than matches and one per that number of rows.
constexpr int kRowsPerSearch = 8;

// Floats of a vector for fewer columns than a vector of AVX-512 has.
constexpr int kFew = 8;

// A row's best pair with a free column. Column -1: it has none.
struct Best {
  float score;
  int column;
};

// Adds 0 to a score, or NaN, which is never matchable.
constexpr float kFree = 0, kTaken = std::numeric_limits<float>::quiet_NaN();

// Best pair of a row of `num` scores; of equal ones the first. states (num): kFree or kTaken.
template <bool kAscend, int kWidth>
CVOPS_INLINE Best best_pair(const float* row, const float* states, int num, float threshold) {
  if constexpr (kWidth > kFew) {
    if (num < kWidth) return best_pair<kAscend, kFew>(row, states, num, threshold);
  }
  const auto is_better = [](float a, float b)
                             __attribute__((always_inline)) { return kAscend ? a < b : a > b; };
  Best best = {threshold, -1};
  int i = 0;
  if (num >= kWidth) {
    using Floats = Vector<float, kWidth>;
    using Ints = Vector<int, kWidth>;
    Floats scores = Floats{} + threshold;
    Ints columns = Ints{} - 1, column = {};
    for (int k = 0; k < kWidth; ++k) column[k] = k;
    for (; i + kWidth <= num; i += kWidth, column += kWidth) {
      Floats score, state;
      load<kWidth>(score, row + i);
      load<kWidth>(state, states + i);
      score += state;
      columns = (kAscend ? score < scores : score > scores) ? column : columns;
      scores = (kAscend ? score < scores : score > scores) ? score : scores;
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

// A matrix, its free rows, one bit per row, and the states of its columns.
struct Scores {
  const float* data;
  const uint64* free_rows;
  const float* column_states;
  int num_rows, num_columns;
  float threshold;

  bool is_free(int row) const { return free_rows[row / 64] >> row % 64 & 1; }

  // Calls body(row) for each free row of a block.
  template <typename Body>
  CVOPS_INLINE void for_each_free(int block, const Body& body) const {
    const int first = block * kBlock, end = std::min(first + kBlock, num_rows);
    for (int word = first / 64; word * 64 < end; ++word) {
      for (uint64 bits = free_rows[word]; bits; bits &= bits - 1) {
        body(word * 64 + __builtin_ctzll(bits));
      }
    }
  }
};

template <bool kAscend, int kWidth>
CVOPS_INLINE Best best_of_row(const Scores& scores, int64 row) {
  return best_pair<kAscend, kWidth>(scores.data + row * scores.num_columns, scores.column_states,
                                    scores.num_columns, scores.threshold);
}

// Key of the best pair of a row, or kNoKey; `column` is its column.
template <bool kAscend, int kWidth>
CVOPS_INLINE uint64 best_key(int& column, const Scores& scores, int64 row) {
  const Best best = best_of_row<kAscend, kWidth>(scores, row);
  column = best.column;
  return best.column < 0 ? kNoKey : matching_key(best.score, (uint32)row, kAscend);
}

template <bool kAscend, int kWidth>
CVOPS_INLINE void best_keys(uint64* keys, int* columns, const Scores& scores, int64 begin,
                            int64 end) {
  for (int64 row = begin; row < end; ++row) {
    keys[row] = best_key<kAscend, kWidth>(columns[row], scores, row);
  }
}

// The best pair of each column in each block of rows, (blocks, columns). Row -1: it has none.
struct BlockBests {
  const int num_columns, num;
  const std::unique_ptr<float[]> scores = scratch<float>((int64)num * num_columns);
  const std::unique_ptr<int[]> rows = scratch<int>((int64)num * num_columns);

  explicit BlockBests(const Scores& of)
      : num_columns(of.num_columns), num((int)ceil_div(of.num_rows, kBlock)) {}
};

// Finds the best pairs of kVectors * kWidth columns in a block.
template <bool kAscend, int kVectors, int kWidth>
CVOPS_INLINE void find_some(const BlockBests& to, const Scores& scores, int block, int column) {
  using Floats = Vector<float, kWidth>;
  using Ints = Vector<int, kWidth>;
  Floats best[kVectors];
  Ints rows[kVectors];
  for (int v = 0; v < kVectors; ++v) best[v] = Floats{} + scores.threshold, rows[v] = Ints{} - 1;
  scores.for_each_free(block, [&](int row) __attribute__((always_inline)) {
    const float* const from = scores.data + (int64)row * scores.num_columns + column;
    for (int v = 0; v < kVectors; ++v) {
      Floats score;
      load<kWidth>(score, from + v * kWidth);
      rows[v] = (kAscend ? score < best[v] : score > best[v]) ? Ints{} + row : rows[v];
      best[v] = (kAscend ? score < best[v] : score > best[v]) ? score : best[v];
    }
  });
  const int64 at = (int64)block * to.num_columns + column;
  std::memcpy(&to.scores[at], best, sizeof best);
  std::memcpy(&to.rows[at], rows, sizeof rows);
}

// Finds the best pair of a column in a block.
template <bool kAscend>
CVOPS_INLINE void find_one(const BlockBests& to, const Scores& scores, int block, int column) {
  float best = scores.threshold;
  int of_best = -1;
  scores.for_each_free(block, [&](int row) __attribute__((always_inline)) {
    const float score = scores.data[(int64)row * scores.num_columns + column];
    const bool better = kAscend ? score < best : score > best;
    of_best = better ? row : of_best;
    best = better ? score : best;
  });
  const int64 at = (int64)block * to.num_columns + column;
  to.scores[at] = best, to.rows[at] = of_best;
}

// The last vector of columns overlaps the one before it.
template <bool kAscend, int kWidth>
CVOPS_INLINE void find_block(const BlockBests& to, const Scores& scores, int block) {
  const int num = scores.num_columns;
  if constexpr (kWidth > kFew) {
    if (num < kWidth) return find_block<kAscend, kFew>(to, scores, block);
  }
  int column = 0;
  for (; column + 4 * kWidth <= num; column += 4 * kWidth) {
    find_some<kAscend, 4, kWidth>(to, scores, block, column);
  }
  for (; column + 2 * kWidth <= num; column += 2 * kWidth) {
    find_some<kAscend, 2, kWidth>(to, scores, block, column);
  }
  for (; num >= kWidth && column < num; column += kWidth) {
    find_some<kAscend, 1, kWidth>(to, scores, block, std::min(column, num - kWidth));
  }
  for (; column < num; ++column) find_one<kAscend>(to, scores, block, column);
}

// Row of the best pair of a column, or -1. Where a row is taken, the block is searched again.
template <bool kAscend>
int best_row(const BlockBests& bests, const Scores& scores, int column) {
  float best = scores.threshold;
  int row = -1;
  for (int block = 0; block < bests.num; ++block) {
    const int64 at = (int64)block * bests.num_columns + column;
    const auto may_be_best = [&] {
      return bests.rows[at] >= 0 && (kAscend ? bests.scores[at] < best : bests.scores[at] > best);
    };
    if (!may_be_best()) continue;
    if (!scores.is_free(bests.rows[at])) {
      find_one<kAscend>(bests, scores, block, column);
      if (!may_be_best()) continue;
    }
    best = bests.scores[at], row = bests.rows[at];
  }
  return row;
}

// The matching of one matrix.
template <bool kAscend>
class Matching {
 public:
  Matching(float* columns, float* rows, const float* data, MatchingShape shape, float threshold,
           int64 limit, int threads)
      : columns_(columns),
        rows_(rows),
        free_rows_(scratch<uint64>(ceil_div(shape.rows, 64))),
        column_states_(scratch<float>(shape.columns)),
        scores_{
            data,     free_rows_.get(), column_states_.get(), (int)shape.rows, (int)shape.columns,
            threshold},
        left_(limit),
        threads_(threads) {
    std::fill_n(free_rows_.get(), shape.rows / 64, ~0ull);
    if (const int rest = (int)(shape.rows % 64)) free_rows_[shape.rows / 64] = (1ull << rest) - 1;
    std::fill_n(column_states_.get(), shape.columns, kFree);
  }

  void run() {
    const bool has_many_rows = scores_.num_rows >= (int64)kManyRows * scores_.num_columns;
    if (has_many_rows || !match_in_order()) match_chains();
  }

 private:
  // Calls body(i) for i in [0, num), which take `cost` ns.
  template <typename Body>
  void for_each(int64 num, double cost, const Body& body) const {
    if (threads_ > 1) return parallel_for(num, cost, body);
    for (int64 i = 0; i < num; ++i) body(i);
  }

  void take(int row, int column) {
    free_rows_[row / 64] &= ~(1ull << row % 64);
    column_states_[column] = kTaken;
    columns_[row] = (float)column, rows_[column] = (float)row;
  }

  // Matches the best pair first. A heap has the key of the best free pair of each row. If another
  // row has taken its column, the row gets the key of its next pair. False: that was too often.
  bool match_in_order() {
    const int64 num_rows = scores_.num_rows;
    const auto keys = scratch<uint64>(num_rows);
    const auto column_of = scratch<int>(num_rows);
    for_each(ceil_div(num_rows, kRowsAtOnce), kRowsAtOnce * (10 + 0.3 * scores_.num_columns),
             [&](int64 part) {
               const int64 end = std::min(num_rows, (part + 1) * kRowsAtOnce);
               by_width([&](auto width) __attribute__((always_inline)) {
                 best_keys<kAscend, width>(keys.get(), column_of.get(), scores_, part * kRowsAtOnce,
                                           end);
               });
             });
    uint64* const heap = keys.get();
    uint64* end = std::remove(heap, heap + num_rows, kNoKey);
    const std::greater<uint64> later;
    std::make_heap(heap, end, later);
    for (int64 spare = num_rows / kRowsPerSearch; left_ > 0 && end > heap;) {
      const int64 row = index_of(heap[0]);
      const int column = column_of[row];
      std::pop_heap(heap, end, later);
      --end;
      if (column_states_[column] == kFree) {
        take((int)row, column);
        --left_, ++spare;
        continue;
      }
      if (--spare < 0) return false;
      const uint64 key = by_width([&](auto width) __attribute__((always_inline)) {
        return best_key<kAscend, width>(column_of[row], scores_, row);
      });
      if (key == kNoKey) continue;
      *end++ = key;
      std::push_heap(heap, end, later);
    }
    return true;
  }

  // Matches pairs that are the best of their row and of their column, in any order: no other pair
  // can take their row or column before. A path goes from a column to the row of its best pair, to
  // the column of that row's best pair, and so on, to better and better pairs. Its last pair is
  // such a pair. Each search adds to the path or matches, so there are at most three per match.
  void match_chains() {
    const BlockBests bests(scores_);
    for_each(bests.num, 0.3 * kBlock * scores_.num_columns, [&](int64 block) {
      by_width([&](auto width) __attribute__((always_inline)) {
        find_block<kAscend, width>(bests, scores_, (int)block);
      });
    });
    std::vector<int> path;  // columns at even positions, rows at odd ones
    std::vector<std::pair<int, int>> matched;
    for (int first = 0; first < scores_.num_columns; ++first) {
      if (column_states_[first] == kFree) path.push_back(first);
      while (!path.empty()) {
        const int last = path.back();
        const bool is_column = path.size() % 2 == 1;
        const int next =
            is_column ? simd<best_row<kAscend>>(bests, scores_, last) : best_column(last);
        if (next < 0) {
          path.pop_back();
        } else if (path.size() == 1 || path[path.size() - 2] != next) {
          path.push_back(next);
        } else {
          matched.emplace_back(is_column ? next : last, is_column ? last : next);
          take(matched.back().first, matched.back().second);
          path.resize(path.size() - 2);
        }
      }
    }
    undo_worse(matched);
  }

  int best_column(int row) const {
    return by_width([&](auto width) __attribute__((always_inline)) {
      return best_of_row<kAscend, width>(scores_, row).column;
    });
  }

  // Undoes the matches beyond the limit.
  void undo_worse(std::vector<std::pair<int, int>>& matched) {
    if ((int64)matched.size() <= left_) return;
    const auto key = [&](const std::pair<int, int>& pair) {
      const auto [row, column] = pair;
      const float score = scores_.data[(int64)row * scores_.num_columns + column];
      return matching_key(score, (uint32)row, kAscend);
    };
    const auto worse = matched.begin() + left_;
    std::nth_element(matched.begin(), worse, matched.end(),
                     [&](const auto& a, const auto& b) { return key(a) < key(b); });
    for (auto pair = worse; pair != matched.end(); ++pair) {
      columns_[pair->first] = rows_[pair->second] = -1;
    }
  }

  float *const columns_, *const rows_;
  const std::unique_ptr<uint64[]> free_rows_;
  const std::unique_ptr<float[]> column_states_;
  const Scores scores_;
  int64 left_;  // pairs to match
  const int threads_;
};

template <bool kAscend>
void match(float* columns, float* rows, const float* data, MatchingShape shape,
           MatchingOptions options, int threads) {
  Matching<kAscend>(columns, rows, data, shape, options.threshold, options.limit(shape), threads)
      .run();
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
