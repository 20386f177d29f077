#include "box_nms.h"

#include <algorithm>

#include "nms_rows.h"
#include "parallel.h"

namespace cvops {

using namespace cpu;

NmsCandidates::NmsCandidates(const float* rows, int64 num, const NmsOptions& options)
    : keys(scratch<uint64>(num)), other(scratch<uint64>(num)) {
  const NmsColumns columns = options.columns;
  int64 valid = 0;
  for (int64 i = 0; i < num; ++i) {
    const float* row = rows + i * columns.width;
    keys[valid] = sort_key(row[columns.score], (uint32)i);
    valid += nms_is_valid(row, columns, options.valid_thresh, options.background_id);
  }
  sorted = sort_keys(keys.get(), other.get(), valid, options.topk);
  count = (int)std::min<int64>(valid, options.topk);
  if (!options.rule.by_class) return;
  classes = scratch<int>(count);
  for (int i = 0; i < count; ++i) classes[i] = truncated(row(rows, i, columns)[columns.id]);
}

void NmsCandidates::take_boxes(const float* rows, const NmsOptions& options) {
  boxes = scratch<SizedBox>(count);
  for (int i = 0; i < count; ++i) {
    boxes[i] = nms_box(row(rows, i, options.columns), options.columns, options.rule.center);
  }
}

void box_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options) {
  nms_rows(out, index, data, batch, num, options,
           [&](uint8_t* kept, const float* rows, NmsCandidates& found, int threads) {
             found.take_boxes(rows, options);
             suppress(kept, found.boxes.get(), found.classes.get(), found.count, options.rule,
                      threads);
           });
}

void box_nms_backward(const Cpu&, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width) {
  if (width == 0 || batch * num == 0) return;
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
