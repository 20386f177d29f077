#include "box_nms.h"

#include <algorithm>

#include "nms_rows.h"
#include "parallel.h"

namespace cvops {

using namespace cpu;

void box_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options) {
  nms_rows(out, index, data, batch, num, options,
           [&](uint8_t* kept, Candidates candidates, const int* classes, int threads) {
             const auto boxes = scratch<SizedBox>(candidates.count);
             for (int i = 0; i < candidates.count; ++i) {
               boxes[i] = nms_box(candidates[i], options.columns, options.rule.center);
             }
             suppress(kept, boxes.get(), classes, candidates.count, options.rule, threads);
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
