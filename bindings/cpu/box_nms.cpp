#include "box_nms.h"

#include <algorithm>
#include <type_traits>

#include "nms_few.h"
#include "nms_groups.h"
#include "nms_rows.h"
#include "nms_strips.h"
#include "parallel.h"

namespace cvops {

using namespace cpu;

namespace {

// Sorts the keys of candidates, whose indices ascend, by scores of doubles.
const uint64* sort_by_scores(uint64* keys, int64 num, int64 topk, DoubleScores scores) {
  const int64 most = std::min(num, topk);
  std::partial_sort(keys, keys + most, keys + num, [&](uint64 a, uint64 b) {
    const double first = scores.at(0, index_of(a)), second = scores.at(0, index_of(b));
    return first != second ? first > second : a < b;
  });
  return keys;
}

// True if all rows that take part have the same class. Rows of several classes nearly always differ
// in the first few of these.
template <typename T>
bool have_one_class(const T* rows, int64 num, const NmsOptions& options) {
  const NmsColumns columns = options.columns;
  const T* first = nullptr;
  for (int64 i = 0; i < num; ++i) {
    const T* const row = rows + i * columns.width;
    if (!nms_is_valid(row, columns, options.valid_thresh, options.background_id)) continue;
    if (!first) first = row;
    if (truncated(row[columns.id]) != truncated(first[columns.id])) return false;
  }
  return true;
}

}  // namespace

template <typename T>
NmsCandidatesOf<T>::NmsCandidatesOf(const T* rows, int64 num, const NmsOptions& options,
                                    const int* some)
    : keys(pooled_scratch<uint64>(num)), other(pooled_scratch<uint64>(num)) {
  const NmsColumns columns = options.columns;
  int64 valid = 0;
  auto add = [&](int64 i, const T* row) {
    if constexpr (std::is_same_v<T, double>) {
      keys[valid] = (uint64)i;
    } else {
      keys[valid] = sort_key(row[columns.score], (uint32)i);
    }
  };
  for (int64 i = 0; some && i < num; ++i, ++valid)
    add(some[i], rows + (int64)some[i] * columns.width);
  for (int64 i = 0; !some && i < num; ++i) {
    const T* row = rows + i * columns.width;
    add(i, row);
    valid += nms_is_valid(row, columns, options.valid_thresh, options.background_id);
  }
  if constexpr (std::is_same_v<T, double>) {
    const DoubleScores scores = {rows + columns.score, 0, columns.width};
    sorted = sort_by_scores(keys.get(), valid, options.topk, scores);
  } else {
    sorted = sort_keys(keys.get(), other.get(), valid, options.topk);
  }
  (sorted == keys.get() ? other : keys).reset();
  count = (int)std::min<int64>(valid, options.topk);
  if (!options.rule.by_class) return;
  classes = scratch<int>(count);
  for (int i = 0; i < count; ++i) classes[i] = truncated(row(rows, i, columns)[columns.id]);
}

template <typename T>
void NmsCandidatesOf<T>::take_boxes(const T* rows, const NmsOptions& options, int threads) {
  boxes = pooled_scratch<SizedBoxOf<T>>(count);
  constexpr int kPart = 4096;
  const int part = threads < 2 ? std::max(count, 1) : kPart;
  parallel_for(ceil_div(count, part), 4.0 * part, [&](int64 p) {
    const int end = std::min<int64>(count, (p + 1) * part);
    for (int i = (int)p * part; i < end; ++i) {
      boxes[i] = nms_box(row(rows, i, options.columns), options.columns, options.rule.center);
    }
  });
}

template struct cpu::NmsCandidatesOf<float>;
template struct cpu::NmsCandidatesOf<double>;

namespace {

// Writes the numbers of the kept rows, the best first. Returns how many these are.
template <typename T>
int64 select_rows(int* kept, const T* rows, int64 num, const NmsOptions& options, int threads) {
  auto suppress_found = [&](uint8_t* is_kept, const T* rows, NmsCandidatesOf<T>& found,
                            int threads) {
    found.take_boxes(rows, options, threads);
    const int* const classes = found.classes.get();
    if constexpr (std::is_same_v<T, double>) {
      const auto bounds = scratch<SizedBox>(found.count);
      for (int i = 0; i < found.count; ++i) bounds[i] = nms_bounds(found.boxes[i]);
      suppress_exactly(is_kept, bounds.get(), found.boxes.get(), classes, found.count, options.rule,
                       threads);
    } else {
      suppress(is_kept, found.boxes.get(), classes, found.count, options.rule, threads);
    }
  };
  if constexpr (std::is_same_v<T, float>) {
    FewRows count;
    auto keep_some = [&](int* of_some, const int* some, int number) {
      return keep_candidates(of_some, rows, number, options, threads, suppress_found, some);
    };
    if (keep_in_groups(kept, count, rows, num, options, threads, keep_some) ||
        keep_of_few(kept, count, rows, num, options)) {
      int* const left = kept + count.kept;
      return count.kept + (count.left ? keep_some(left, left, count.left) : 0);
    }
    const int spread = keep_of_spread(kept, rows, num, options, threads);
    if (spread >= 0) return spread;
  }
  return keep_candidates(kept, rows, num, options, threads, suppress_found);
}

}  // namespace

template <typename T>
void box_nms(const Cpu&, T* out, int* index, const T* data, int64 batch, int64 num,
             NmsOptions options) {
  auto select = [&](int* kept, const T* rows, int threads) {
    NmsOptions of_rows = options;
    // The fastest searches take boxes of one class.
    if (options.rule.by_class && options.topk >= num && have_one_class(rows, num, options)) {
      of_rows.rule.by_class = 0;
    }
    return select_rows(kept, rows, num, of_rows, threads);
  };
  nms_rows(out, index, data, batch, num, options, select);
}

template <typename T>
void box_nms_backward(const Cpu&, T* grad, const T* out_grad, const int* index, int64 batch,
                      int64 num, int width) {
  if (width == 0 || batch * num == 0) return;
  parallel_for(batch, 1.0 * num * width, [&](int64 b) {
    T* rows = grad + b * num * width;
    std::fill_n(rows, num * width, T(0));
    for (int64 i = 0; i < num; ++i) {
      const int64 at = index[b * num + i];
      if (at < 0 || at >= num) continue;
      std::copy_n(out_grad + (b * num + i) * width, width, rows + at * width);
    }
  });
}

#define CVOPS_INSTANTIATE(T)                                                       \
  template void box_nms(const Cpu&, T*, int*, const T*, int64, int64, NmsOptions); \
  template void box_nms_backward(const Cpu&, T*, const T*, const int*, int64, int64, int);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
