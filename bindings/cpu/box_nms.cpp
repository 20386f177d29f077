#include "box_nms.h"

#include <algorithm>
#include <numeric>

#include "nms.h"
#include "parallel.h"

namespace cvops {

using namespace cpu;

NmsCandidates cpu::nms_candidates(const float* rows, int64 num, const NmsOptions& options) {
  const NmsColumns columns = options.columns;
  NmsCandidates found = {scratch<uint64>(num), scratch<uint64>(num), nullptr, 0, nullptr, nullptr};
  int64 count = 0;
  for (int64 i = 0; i < num; ++i) {
    const float* row = rows + i * columns.width;
    found.keys[count] = sort_key(row[columns.score], (uint32)i);
    count += nms_is_valid(row, columns, options.valid_thresh, options.background_id);
  }
  found.sorted = sort_keys(found.keys.get(), found.other.get(), count, options.topk);
  found.count = (int)std::min<int64>(count, options.topk);
  found.boxes = scratch<SizedBox>(found.count);
  found.classes = scratch<int>(found.count);
  for (int i = 0; i < found.count; ++i) {
    const float* row = rows + (int64)index_of(found.sorted[i]) * columns.width;
    found.boxes[i] = nms_box(row, columns, options.rule.center);
    if (options.rule.by_class) found.classes[i] = truncated(row[columns.id]);
  }
  return found;
}

void box_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options) {
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
    const NmsCandidates found = nms_candidates(rows, num, options);
    const auto kept = scratch<uint8_t>(found.count);
    suppress(kept.get(), found.boxes.get(), found.classes.get(), found.count, options.rule,
             threads);

    float* to = out + b * num * width;
    int* at = index ? index + b * num : nullptr;
    for (int i = 0; i < found.count; ++i) {
      if (!kept[i]) continue;
      const int from = (int)index_of(found.sorted[i]);
      const float* row = rows + from * width;
      if (options.conversion == kNmsAsIs) {
        std::copy_n(row, width, to);
      } else {
        for (int c = 0; c < width; ++c) to[c] = nms_converted(row, columns, options.conversion, c);
      }
      to += width;
      if (index) *at++ = from;
    }
    std::fill(to, out + (b + 1) * num * width, -1.0f);
    if (index) std::fill(at, index + (b + 1) * num, -1);
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
