// NMS of rows with scores, shared by box_nms and nms_rotated.
#pragma once
#include <algorithm>
#include <numeric>

#include "box_nms.h"
#include "nms.h"

namespace cvops::cpu {

// Candidates of a set in score order.
struct Candidates {
  const float* rows;
  const uint64* keys;
  int64 width;
  int count;

  const float* operator[](int i) const { return rows + index_of(keys[i]) * width; }
};

// Computes out and index: see box_nms. suppress(kept, candidates, classes, threads) sets kept[i]
// for each candidate. The classes are null unless options.rule.by_class.
template <typename Suppress>
void nms_rows(float* out, int* index, const float* data, int64 batch, int64 num, NmsOptions options,
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
    const float* rows = data + b * num * width;
    const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
    int64 count = 0;
    for (int64 i = 0; i < num; ++i) {
      const float* row = rows + i * width;
      keys[count] = sort_key(row[columns.score], (uint32)i);
      count += nms_is_valid(row, columns, options.valid_thresh, options.background_id);
    }
    const uint64* sorted = sort_keys(keys.get(), other.get(), count, options.topk);
    count = std::min<int64>(count, options.topk);
    const Candidates candidates = {rows, sorted, width, (int)count};
    const auto classes = scratch<int>(options.rule.by_class ? count : 0);
    for (int i = 0; options.rule.by_class && i < count; ++i) {
      classes[i] = truncated(candidates[i][columns.id]);
    }
    const auto kept = scratch<uint8_t>(count);
    suppress(kept.get(), candidates, classes.get(), threads);

    float* to = out + b * num * width;
    int* at = index ? index + b * num : nullptr;
    for (int i = 0; i < count; ++i) {
      if (!kept[i]) continue;
      const float* row = candidates[i];
      if (options.conversion == kNmsAsIs) {
        std::copy_n(row, width, to);
      } else {
        for (int c = 0; c < width; ++c) to[c] = nms_converted(row, columns, options.conversion, c);
      }
      to += width;
      if (index) *at++ = (int)index_of(sorted[i]);
    }
    std::fill(to, out + (b + 1) * num * width, -1.0f);
    if (index) std::fill(at, index + (b + 1) * num, -1);
  });
}

}  // namespace cvops::cpu
