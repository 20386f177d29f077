// NMS of rows with scores, shared by box_nms and nms_rotated.
#pragma once
#include <algorithm>
#include <numeric>

#include "box_nms.h"
#include "nms.h"

namespace cvops::cpu {

// Computes out and index: see box_nms. suppress(kept, rows, candidates, threads) sets kept[i] for
// each of the candidates, which are without boxes. `rows` (num, width) is the set.
template <typename T, typename Suppress>
void nms_rows(T* out, int* index, const T* data, int64 batch, int64 num, NmsOptions options,
              const Suppress& suppress) {
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
    NmsCandidatesOf<T> found(rows, num, options);
    const auto kept = scratch<uint8_t>(found.count);
    suppress(kept.get(), rows, found, threads);

    T* to = out + b * num * width;
    int* at = index ? index + b * num : nullptr;
    for (int i = 0; i < found.count; ++i) {
      if (!kept[i]) continue;
      const T* row = found.row(rows, i, columns);
      if (options.conversion == kNmsAsIs) {
        std::copy_n(row, width, to);
      } else {
        for (int c = 0; c < width; ++c) to[c] = nms_converted(row, columns, options.conversion, c);
      }
      to += width;
      if (index) *at++ = (int)index_of(found.sorted[i]);
    }
    std::fill(to, out + (b + 1) * num * width, T(-1));
    if (index) std::fill(at, index + (b + 1) * num, -1);
  });
}

}  // namespace cvops::cpu
