// NMS of rows with scores, shared by box_nms and nms_rotated.
#pragma once
#include <algorithm>
#include <cstring>
#include <numeric>

#include "box_nms.h"
#include "fill.h"
#include "nms.h"
#include "simd.h"

namespace cvops::cpu {

// Copies the rows of these numbers. The common widths need no call of a function for a row.
template <int kWidth, typename T>
CVOPS_INLINE T* copy_rows_of(T* to, const T* rows, const int* numbers, int64 num, int64 width) {
  for (int64 i = 0; i < num; ++i, to += width) {
    std::memcpy(to, rows + numbers[i] * width, (kWidth ? kWidth : width) * sizeof(T));
  }
  return to;
}

// Returns the end of the copies.
template <typename T>
T* copy_rows(T* to, const T* rows, const int* numbers, int64 num, int64 width) {
  return width == 6   ? copy_rows_of<6>(to, rows, numbers, num, 6)
         : width == 5 ? copy_rows_of<5>(to, rows, numbers, num, 5)
                      : copy_rows_of<0>(to, rows, numbers, num, width);
}

// Computes out and index: see box_nms. select(kept, rows, threads) writes the numbers of the kept
// rows, the best first, and returns how many these are; `kept` has num + 1 elements. `rows`
// (num, width) is the set.
template <typename T, typename Select>
void nms_rows(T* out, int* index, const T* data, int64 batch, int64 num, NmsOptions options,
              const Select& select) {
  const NmsColumns columns = options.columns;
  const int64 width = columns.width;
  if (batch * num == 0) return;
  if (options.topk == 0) {
    std::copy_n(data, batch * num * width, out);
    for (int64 b = 0; index && b < batch; ++b) std::iota(index + b * num, index + (b + 1) * num, 0);
    return;
  }
  for_each_image(batch, 100.0 * num, [&](int64 b, int threads) {
    const T* rows = data + b * num * width;
    const auto kept = pooled_scratch<int>(num + 1);
    const int64 count = select(kept.get(), rows, threads);
    T* to = out + b * num * width;
    if (options.conversion == kNmsAsIs) {
      to = copy_rows(to, rows, kept.get(), count, width);
    } else {
      for (int64 i = 0; i < count; ++i, to += width) {
        const T* row = rows + kept[i] * width;
        for (int c = 0; c < width; ++c) to[c] = nms_converted(row, columns, options.conversion, c);
      }
    }
    fill_rows(to, (num - count) * width, T(-1));
    if (!index) return;
    std::copy_n(kept.get(), count, index + b * num);
    fill_rows(index + b * num + count, num - count, -1);
  });
}

// Selects of the candidates: see nms_rows. suppress(is_kept, rows, candidates, threads) sets
// is_kept[i] for each of the candidates, which are without boxes. With `some`, `num` valid rows of
// these numbers take part; `kept` may be the same array.
template <typename T, typename Suppress>
int keep_candidates(int* kept, const T* rows, int64 num, const NmsOptions& options, int threads,
                    const Suppress& suppress, const int* some = nullptr) {
  NmsCandidatesOf<T> found(rows, num, options, some);
  const auto is_kept = pooled_scratch<uint8_t>(found.count);
  suppress(is_kept.get(), rows, found, threads);
  int count = 0;
  for (int i = 0; i < found.count; ++i) {
    kept[count] = (int)index_of(found.sorted[i]);
    count += is_kept[i];
  }
  return count;
}

}  // namespace cvops::cpu
