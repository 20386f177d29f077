#include "box_nms.h"

#include <algorithm>

#include "nms.h"
#include "parallel.h"

namespace cvops {

void cpu::box_nms(float* out, const float* data, int64 batch, int64 num, NmsOptions options) {
  const NmsColumns columns = options.columns;
  const int64 width = columns.width;
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
    for (size_t i = 0; i < keys[b].size(); ++i) {
      if (!sorted[b].kept[i]) continue;
      const float* row = data + (b * num + index_of(keys[b][i])) * width;
      for (int c = 0; c < width; ++c) *to++ = nms_converted(row, columns, options.conversion, c);
    }
    std::fill(to, out + (b + 1) * num * width, -1.0f);
  });
}

}  // namespace cvops
