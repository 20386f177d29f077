// rroi_align: mean of bilinear samples in the bins of a rotated RoI.
//
// A small kernel computes the sine and cosine of each angle, in double. A thread of the second
// kernel then computes one bin for four channels. If the planes fit, a block keeps those of four
// channels of an image in shared memory, and processes all RoIs of the image.
#pragma once
#include "roi_samples.cuh"
#include "sin_cos.cuh"

namespace cvops {

// Sizes of data (images, channels, height, width) and of the result (RoIs, channels, pooled_height,
// pooled_width), the factor from RoI coordinates to pixels, and the samples of a bin per axis.
struct RroiAlign {
  int images, channels, height, width, pooled_height, pooled_width;
  float scale;
  int sampling_ratio;

  CVOPS_HD int bins() const { return pooled_height * pooled_width; }
  CVOPS_HD int plane_step() const { return 1; }
  CVOPS_HD int plane(int image, int channel, int) const { return image * channels + channel; }
};

// A rotated RoI: its image, or -1 if that does not exist; its axes, from its center; the center in
// pixels; the angle; the samples of a bin.
struct RotatedRoi {
  int image;
  RoiAlignAxis y, x;
  float center_y, center_x;
  SinCos angle;
  SampleCount count;

  // Position in the map of a position in the axes of the RoI.
  CVOPS_HD float row(float along_y, float along_x) const {
    return along_y * angle.cos - along_x * angle.sin + center_y;
  }
  CVOPS_HD float column(float along_y, float along_x) const {
    return along_x * angle.cos + along_y * angle.sin + center_x;
  }
};

// Sine and cosine of an RoI's angle, which is in degrees. The conversion is MXNet's.
CVOPS_HD SinCos angle_of(const float* roi) {
  return sin_cos_of((float)((double)roi[5] * 3.14159265358979323846 / 180.0));
}

CVOPS_HD RoiAlignAxis rotated_axis(float length, int bins, const RroiAlign& op) {
  float size = length * op.scale;
  if (size < 1.0f) size = 1.0f;
  const float bin = size / (float)bins;
  int samples = op.sampling_ratio;
  if (samples <= 0) {
    const int adaptive = truncated(ceilf(bin));
    samples = adaptive > 0 ? adaptive : 0;
  }
  return {-size / 2.0f, bin, samples};
}

CVOPS_HD RotatedRoi rotated_roi(const float* roi, SinCos angle, const RroiAlign& op) {
  const int image = truncated(roi[0]);
  const RoiAlignAxis y = rotated_axis(roi[4], op.pooled_height, op);
  const RoiAlignAxis x = rotated_axis(roi[3], op.pooled_width, op);
  return {image >= 0 && image < op.images ? image : -1,
          y,
          x,
          roi[2] * op.scale,
          roi[1] * op.scale,
          angle,
          sample_count((float)((int64)y.samples * x.samples))};
}

// Samples of a bin.
struct RotatedBin {
  Range rows, columns;

  CVOPS_HD bool all(const RotatedRoi& roi) const {
    return rows.end - rows.begin == roi.y.samples && columns.end - columns.begin == roi.x.samples;
  }
};

// Range of samples of bin i at positions from `lower` to `upper`; none if these are NaN.
CVOPS_HD Range samples_near(const RoiAlignAxis& axis, int i, float lower, float upper) {
  return lower <= upper ? samples_between(axis, i, lower, upper) : Range{0, 0};
}

// Ranges that include all samples of bin (i, j) in the map. Their sizes are in proportion to the
// map, unlike those of a bin.
CVOPS_HD RotatedBin samples_near_map(const RotatedRoi& roi, int i, int j, const RroiAlign& op) {
  if (roi.y.samples <= kFewSamples && roi.x.samples <= kFewSamples) {
    return {{0, roi.y.samples}, {0, roi.x.samples}};
  }
  // Corners of the map from the center of the RoI.
  const float top = -1.0f - roi.center_y, bottom = (float)op.height - roi.center_y;
  const float left = -1.0f - roi.center_x, right = (float)op.width - roi.center_x;
  // Bounds of the map in the axes of the RoI. The margin is more than the error of a position.
  const float magnitude = fabsf(roi.center_y) + fabsf(roi.center_x) - roi.y.begin - roi.x.begin;
  const float margin = 1.0f + 1e-6f * (magnitude + (float)op.height + (float)op.width);
  const float s = roi.angle.sin, c = roi.angle.cos;
  const float y_low = smaller(top * c, bottom * c) + smaller(left * s, right * s) - margin;
  const float y_high = larger(top * c, bottom * c) + larger(left * s, right * s) + margin;
  const float x_low = smaller(left * c, right * c) + smaller(-top * s, -bottom * s) - margin;
  const float x_high = larger(left * c, right * c) + larger(-top * s, -bottom * s) + margin;
  return {samples_near(roi.y, i, y_low, y_high), samples_near(roi.x, j, x_low, x_high)};
}

}  // namespace cvops

CVOPS_KERNEL rroi_align_angles(cvops::SinCos* angles, const float* rois, cvops::int64 num_rois);
CVOPS_KERNEL rroi_align(float* pooled, const float* data, const float* rois,
                        const cvops::SinCos* angles, cvops::int64 num_rois, cvops::RroiAlign op,
                        int splits, int in_shared);

#ifdef __CUDACC__
namespace cvops {

// Mean of the samples of bin (i, j), for kChannelsAtOnce channels. load(p) returns their pixels at
// index p of a plane.
template <typename Load>
__device__ __forceinline__ Values mean_of_bin(const RotatedRoi& roi, int i, int j,
                                              const RroiAlign& op, const Load& load) {
  Values sum = {};
  if (roi.y.samples == 0 || roi.x.samples == 0) return sum;
  const RotatedBin bin = samples_near_map(roi, i, j, op);
  bool outside = !bin.all(roi);
#pragma unroll 1
  for (int k = bin.rows.begin; k < bin.rows.end; ++k) {
    const float along_y = roi.y.position(i, k);
#pragma unroll 1
    for (int l = bin.columns.begin; l < bin.columns.end; ++l) {
      const float along_x = roi.x.position(j, l);
      const AxisSample y = axis_sample(roi.row(along_y, along_x), op.height);
      const AxisSample x = axis_sample(roi.column(along_y, along_x), op.width);
      if (y.inside() && x.inside()) {
        add_sample(sum, y, x, op.width, load);
      } else {
        outside = true;
      }
    }
  }
  return mean_of_samples(sum, outside, roi.count, load);
}

}  // namespace cvops

// angles (num_rois), rois (num_rois, 6).
extern "C" __global__ void __launch_bounds__(256)
    rroi_align_angles(cvops::SinCos* __restrict__ angles, const float* __restrict__ rois,
                      long long num_rois) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 step = (int64)gridDim.x * blockDim.x;
  for (int64 n = (int64)blockIdx.x * blockDim.x + threadIdx.x; n < num_rois; n += step) {
    angles[n] = angle_of(rois + 6 * n);
  }
}

// pooled (num_rois, channels, pooled_height, pooled_width), data, rois (num_rois, 6), angles
// (num_rois). See align_bins. The planes of data are not empty.
extern "C" __global__ void __launch_bounds__(256, 3)
    rroi_align(float* __restrict__ pooled, const float* __restrict__ data,
               const float* __restrict__ rois, const cvops::SinCos* __restrict__ angles,
               long long num_rois, const cvops::RroiAlign op, int splits, int in_shared) {
  using namespace cvops;
  wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(Values, planes);
  auto find = [&](int64 number) { return rotated_roi(rois + 6 * number, angles[number], op); };
  align_bins(pooled, data, num_rois, op, splits, in_shared, planes, find);
}
#endif
