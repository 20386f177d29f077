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
template <typename T>
CVOPS_HD RoiAlignAxisOf<T> roi_align_axis(T first, T last, int bins, const RoiAlign& op) {
  const T offset = op.aligned ? 0.5f : 0.0f;
  const T begin = first * op.scale - offset, end = last * op.scale - offset;
  T size = end - begin;
  if (!op.aligned && size < 1.0f) size = 1.0f;
  const T bin = size / (T)bins;
  int samples = op.sample_ratio;
  if (samples <= 0) {
    const int adaptive = truncated(rounded_up(bin));
    samples = adaptive > 0 ? adaptive : 0;
  }
  return {begin, bin, samples};
}

// An RoI: its image, or -1 if that does not exist; its axes; the samples of a bin.
template <typename T>
struct AlignedRoiOf {
  int image;
  RoiAlignAxisOf<T> y, x;
  SampleCountOf<T> count;
};
using AlignedRoi = AlignedRoiOf<float>;

template <typename T>
CVOPS_HD AlignedRoiOf<T> aligned_roi(const T* roi, const RoiAlign& op) {
  const int image = truncated(roi[0]);
  const RoiAlignAxisOf<T> y = roi_align_axis(roi[2], roi[4], op.pooled_height, op);
  const RoiAlignAxisOf<T> x = roi_align_axis(roi[1], roi[3], op.pooled_width, op);
  return {image >= 0 && image < op.images ? image : -1, y, x,
          sample_count((T)((int64)y.samples * x.samples))};
}

// Range of samples of bin i that includes all samples in the map.
template <typename T>
CVOPS_HD Range samples_in_map(const RoiAlignAxisOf<T>& axis, int i, int size) {
  if (axis.samples <= kFewSamples) return {0, axis.samples};
  return samples_between(axis, i, T(-1), (T)size);
}

// Range of pixels that includes all pixels that samples of the bins touch.
template <typename T>
CVOPS_HD Range touched_pixels(const RoiAlignAxisOf<T>& axis, Range bins, int size) {
  if (axis.samples == 0) return {0, 0};
  const T first = axis.position(bins.begin, 0);
  const T last = axis.position(bins.end - 1, axis.samples - 1);
  const T low = smaller(first, last), high = larger(first, last);
  if (!(high >= -1.0f && low <= (T)size)) return {0, 0};
  return {low > 0.0f ? clamped((int)low, size - 1) : 0,
          high < (T)size ? clamped((int)larger(high, T(0)) + 2, size) : size};
}

#ifdef __CUDACC__
// Mean of the samples of bin (i, j), for the channels of Pixels. load(p) returns their pixels at
// index p of a plane.
template <typename T, typename Pixels = ValuesOf<T>, typename Load>
__device__ __forceinline__ Pixels mean_of_bin(const AlignedRoiOf<T>& roi, int i, int j,
                                              const RoiAlign& op, const Load& load) {
  Pixels sum = {};
  if (roi.y.samples == 0 || roi.x.samples == 0) return sum;
  const Range rows = samples_in_map(roi.y, i, op.height);
  const Range columns = samples_in_map(roi.x, j, op.width);
  bool outside =
      rows.end - rows.begin < roi.y.samples || columns.end - columns.begin < roi.x.samples;
#pragma unroll 1
  for (int k = rows.begin; k < rows.end; ++k) {
    const AxisSampleOf<T> y = axis_sample(roi.y.position(i, k), op.height);
    outside |= !y.inside();
    if (!y.inside()) continue;
#pragma unroll 1
    for (int l = columns.begin; l < columns.end; ++l) {
      const AxisSampleOf<T> x = axis_sample(roi.x.position(j, l), op.width);
      outside |= !x.inside();
      if (x.inside()) add_sample(sum, y, x, op.width, load);
    }
  }
  return mean_of_samples(sum, outside, roi.count, load);
}

#endif

}  // namespace cvops
