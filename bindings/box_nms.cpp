#include "box_nms.h"

#include <algorithm>
#include <numeric>

#include "nms.h"
#include "parallel.h"

namespace cvops {

void cpu::box_nms(float* out, int* index, const float* data, int64 batch, int64 num,
                  NmsOptions options) {
  const NmsColumns columns = options.columns;
  const int64 width = columns.width;
  if (options.limit == 0) {
    std::copy_n(data, batch * num * width, out);
    for (int64 b = 0; index && b < batch; ++b) std::iota(index + b * num, index + (b + 1) * num, 0);
    return;
  }
  std::vector<std::vector<uint64>> keys(batch);
  std::vector<SortedBoxes> sorted(batch);
  parallel_for(batch, 50.0 * num, [&](int64 b) {
    const float* rows = data + b * num * width;
    for (int64 i = 0; i < num; ++i) {
      const float* row = rows + i * width;
      if (nms_is_valid(row, columns, options.valid_thresh, options.background_id)) {
        keys[b].push_back(sort_key(row[columns.score], (uint32)i));
      }
    }
    sort_keys(keys[b]);
    keys[b].resize(std::min<size_t>(keys[b].size(), options.limit));
    for (uint64 key : keys[b]) {
      const float* row = rows + index_of(key) * width;
      sorted[b].boxes.push_back(nms_box(row, columns, options.rule.center));
      sorted[b].classes.push_back(columns.id < 0 ? 0 : truncated(row[columns.id]));
    }
  });
  suppress(sorted, options.rule);
  parallel_for(batch, 5.0 * num, [&](int64 b) {
    float* to = out + b * num * width;
    int* at = index ? index + b * num : nullptr;
    for (size_t i = 0; i < keys[b].size(); ++i) {
      if (!sorted[b].kept[i]) continue;
      const int from = (int)index_of(keys[b][i]);
      const float* row = data + (b * num + from) * width;
      for (int c = 0; c < width; ++c) *to++ = nms_converted(row, columns, options.conversion, c);
      if (index) *at++ = from;
    }
    std::fill(to, out + (b + 1) * num * width, -1.0f);
    if (index) std::fill(at, index + (b + 1) * num, -1);
  });
}

void cpu::box_nms_backward(float* grad, const float* out_grad, const int* index, int64 batch,
                           int64 num, int width) {
  parallel_for(batch, 1.0 * num * width, [&](int64 b) {
    float* rows = grad + b * num * width;
    std::fill_n(rows, num * width, 0.0f);
    for (int64 i = 0; i < num; ++i) {
      const int64 at = index[b * num + i];
      if (at < 0 || at >= num) continue;
      std::copy_n(out_grad + (b * num + i) * width, width, rows + at * width);
    }
  });
}

}  // namespace cvops
