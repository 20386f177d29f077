#include "nms_rotated.h"

#include "nms_rotated.cuh"
#include "nms_rows.h"

namespace cvops {

using namespace cpu;

void nms_rotated(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                 NmsOptions options, RotatedFormat format) {
  auto suppress = [&](uint8_t* kept, const float* rows, const NmsCandidates& found, int threads) {
    const int count = found.count;
    const auto rotated = scratch<RotatedBox>(count);
    const auto bounds = scratch<SizedBox>(count);
    for (int i = 0; i < count; ++i) {
      rotated[i] = nms_rotated_box(found.row(rows, i, options.columns), options.columns, format);
      bounds[i] = nms_bounds(rotated[i]);
    }
    suppress_exactly(kept, bounds.get(), rotated.get(), found.classes.get(), count, options.rule,
                     threads);
  };
  nms_rows(out, index, data, batch, num, options, [&](int* kept, const float* rows, int threads) {
    return keep_candidates(kept, rows, num, options, threads, suppress);
  });
}

}  // namespace cvops
