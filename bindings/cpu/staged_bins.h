// Results of position-sensitive pooling, before their transposition.
#pragma once
#include "interleaved.h"
#include "result_pool.h"

namespace cvops::cpu {

// Results of the bins of RoIs in groups of channels: (groups, bins, RoIs, lanes). In the result
// itself, a cache line has bins of adjacent cells, which threads would take from one another.
class StagedBins {
 public:
  StagedBins(int64 groups, int bins, int64 num_rois, int lanes)
      : bins_(bins),
        num_rois_(num_rois),
        lanes_(lanes),
        memory_(pooled_scratch<PixelMemory>(ceil_div(groups * bins * num_rois * lanes, 16))) {}

  template <typename P>
  CVOPS_INLINE P& at(int64 group, int bin, int64 roi) const {
    return ((P*)memory_.get())[(group * bins_ + bin) * num_rois_ + roi];
  }

  CVOPS_INLINE float* lanes_of(int64 group, int bin, int64 roi) const {
    return (float*)memory_.get() + lanes_ * ((group * bins_ + bin) * num_rois_ + roi);
  }

  // Copies the results of an RoI to out (channels, bins).
  void write(float* out, int64 group, int64 roi, int channels) const {
    transpose(out, bins_, lanes_of(group, 0, roi), num_rois_ * lanes_, bins_, channels);
  }

 private:
  const int bins_;
  const int64 num_rois_;
  const int lanes_;
  const PooledScratch<PixelMemory> memory_;
};

}  // namespace cvops::cpu
