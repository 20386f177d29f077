// RoIs of roi_align: their axes and the mean of the samples in a bin.
#pragma once
#include "roi_samples.cuh"

namespace cvops {

// Sizes of data (images, planes(), height, width) and of the result (RoIs, channels, pooled_height,
// pooled_width), the factor from RoI coordinates to pixels, and the options.
struct RoiAlign {
  int images, channels, height, width, pooled_height, pooled_width;
  float scale;
  int sample_ratio;
  bool position_sensitive, aligned;

  CVOPS_HD int bins() const { return pooled_height * pooled_width; }
  // Distance between the planes of two channels. If position-sensitive, a bin has its own plane.
  CVOPS_HD int plane_step() const { return position_sensitive ? bins() : 1; }
  CVOPS_HD int planes() const { return channels * plane_step(); }
  // Number of the plane of a channel and a bin in data.
  CVOPS_HD int plane(int image, int channel, int bin) const {
    return image * planes() + channel * plane_step() + (position_sensitive ? bin : 0);
  }
};

// Axis from the first and last coordinate. It has no samples if their number does not fit into int.
CVOPS_HD RoiAlignAxis roi_align_axis(float first, float last, int bins, const RoiAlign& op) {
  const float offset = op.aligned ? 0.5f : 0.0f;
  const float begin = first * op.scale - offset, end = last * op.scale - offset;
  float size = end - begin;
  if (!op.aligned && size < 1.0f) size = 1.0f;
  const float bin = size / (float)bins;
  int samples = op.sample_ratio;
  if (samples <= 0) {
    const int adaptive = truncated(ceilf(bin));
    samples = adaptive > 0 ? adaptive : 0;
  }
  return {begin, bin, samples};
}

// An RoI: its image, or -1 if that does not exist; its axes; the samples of a bin.
struct AlignedRoi {
  int image;
  RoiAlignAxis y, x;
  SampleCount count;
};

CVOPS_HD AlignedRoi aligned_roi(const float* roi, const RoiAlign& op) {
  const int image = truncated(roi[0]);
  const RoiAlignAxis y = roi_align_axis(roi[2], roi[4], op.pooled_height, op);
  const RoiAlignAxis x = roi_align_axis(roi[1], roi[3], op.pooled_width, op);
  return {image >= 0 && image < op.images ? image : -1, y, x,
          sample_count((float)((int64)y.samples * x.samples))};
}

// Range of samples of bin i that includes all samples in the map.
CVOPS_HD Range samples_in_map(const RoiAlignAxis& axis, int i, int size) {
  if (axis.samples <= kFewSamples) return {0, axis.samples};
  return samples_between(axis, i, -1.0f, (float)size);
}

// Range of pixels that includes all pixels that samples of the bins touch.
CVOPS_HD Range touched_pixels(const RoiAlignAxis& axis, Range bins, int size) {
  if (axis.samples == 0) return {0, 0};
  const float first = axis.position(bins.begin, 0);
  const float last = axis.position(bins.end - 1, axis.samples - 1);
  const float low = smaller(first, last), high = larger(first, last);
  if (!(high >= -1.0f && low <= (float)size)) return {0, 0};
  return {low > 0.0f ? clamped((int)low, size - 1) : 0,
          high < (float)size ? clamped((int)larger(high, 0.0f) + 2, size) : size};
}

#ifdef __CUDACC__
// Mean of the samples of bin (i, j), for the channels of Pixels. load(p) returns their pixels at
// index p of a plane.
template <typename Pixels = Values, typename Load>
__device__ __forceinline__ Pixels mean_of_bin(const AlignedRoi& roi, int i, int j,
                                              const RoiAlign& op, const Load& load) {
  Pixels sum = {};
  if (roi.y.samples == 0 || roi.x.samples == 0) return sum;
  const Range rows = samples_in_map(roi.y, i, op.height);
  const Range columns = samples_in_map(roi.x, j, op.width);
  bool outside =
      rows.end - rows.begin < roi.y.samples || columns.end - columns.begin < roi.x.samples;
#pragma unroll 1
  for (int k = rows.begin; k < rows.end; ++k) {
    const AxisSample y = axis_sample(roi.y.position(i, k), op.height);
    outside |= !y.inside();
    if (!y.inside()) continue;
#pragma unroll 1
    for (int l = columns.begin; l < columns.end; ++l) {
      const AxisSample x = axis_sample(roi.x.position(j, l), op.width);
      outside |= !x.inside();
      if (x.inside()) add_sample(sum, y, x, op.width, load);
    }
  }
  return mean_of_samples(sum, outside, roi.count, load);
}

#endif

}  // namespace cvops
