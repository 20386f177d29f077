// Samples of roi_align: their positions and weights, and the mean in a bin.
#pragma once
#include "roi.cuh"

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

// Number of samples of a bin. The product with the reciprocal of a power of two has the bits of the
// quotient, and is much faster.
struct SampleCount {
  float value, reciprocal;  // reciprocal: 0 if it is not exact
};

CVOPS_HD SampleCount sample_count(float value) {
  return {value, bits_of(value) << 9 == 0 ? 1.0f / value : 0.0f};
}

CVOPS_HD float divided(float x, const SampleCount& count) {
  return count.reciprocal > 0.0f ? x * count.reciprocal : x / count.value;
}

// One axis of an RoI, in pixels: its begin, the length of a bin, and the samples of a bin.
struct RoiAlignAxis {
  float begin, bin;
  int samples;

  // Position of sample k of bin i. It rises with i and with k, or falls if `bin` is negative.
  CVOPS_HD float position(int i, int k) const {
    return begin + (float)i * bin + ((float)k + 0.5f) * bin / (float)samples;
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

// Linear interpolation along an axis: two pixels and their weights. The pixels of a position
// outside of the map are -1.
struct AxisSample {
  int low, high;
  float low_weight, high_weight;

  CVOPS_HD bool inside() const { return low >= 0; }
  CVOPS_HD bool touches(int pixel) const { return low == pixel || high == pixel; }
  CVOPS_HD float weight(int pixel) const { return low == pixel ? low_weight : high_weight; }
};

CVOPS_HD AxisSample axis_sample(float position, int size) {
  if (!(position >= -1.0f && position <= (float)size)) return {-1, -1, 0.0f, 0.0f};
  if (position <= 0.0f) position = 0.0f;
  int low = (int)position, high = low + 1;
  if (low >= size - 1) {
    low = high = size - 1;
    position = (float)low;
  }
  const float high_weight = position - (float)low;
  return {low, high, 1.0f - high_weight, high_weight};
}

// Range of samples of bin i that includes all positions in [lower, upper]. Two binary searches find
// them among up to 2^31 samples.
CVOPS_HD Range samples_between(const RoiAlignAxis& axis, int i, float lower, float upper) {
  if (!(axis.bin >= 0.0f)) return {0, axis.samples};
  Range found = {0, axis.samples};
  for (int end = axis.samples; found.begin < end;) {
    const int middle = found.begin + (end - found.begin) / 2;
    if (axis.position(i, middle) < lower) {
      found.begin = middle + 1;
    } else {
      end = middle;
    }
  }
  for (int begin = found.begin; begin < found.end;) {
    const int middle = begin + (found.end - begin) / 2;
    if (axis.position(i, middle) > upper) {
      found.end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return found;
}

// A search does not pay for fewer samples of a bin.
constexpr int kFewSamples = CVOPS_STEP(8, 1);

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

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Mean of the samples of bin (i, j), for some channels. load(p) returns their pixels at index p of
// a plane, as `Values` with one float of[n] per channel.
template <typename Values, typename Load>
__device__ __forceinline__ Values mean_of_bin(const AlignedRoi& roi, int i, int j,
                                              const RoiAlign& op, const Load& load) {
  constexpr int kChannels = sizeof(Values) / sizeof(float);
  Values sum = {};
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
      if (!x.inside()) continue;
      const Values a = load(y.low * op.width + x.low), b = load(y.low * op.width + x.high);
      const Values c = load(y.high * op.width + x.low), d = load(y.high * op.width + x.high);
      const float a_weight = y.low_weight * x.low_weight, b_weight = y.low_weight * x.high_weight;
      const float c_weight = y.high_weight * x.low_weight, d_weight = y.high_weight * x.high_weight;
#pragma unroll
      for (int n = 0; n < kChannels; ++n) {
        sum.of[n] +=
            a_weight * a.of[n] + b_weight * b.of[n] + c_weight * c.of[n] + d_weight * d.of[n];
      }
    }
  }
  if (outside) {
    const Values first = load(0);
#pragma unroll
    for (int n = 0; n < kChannels; ++n) sum.of[n] += 0.0f * first.of[n];
  }
#pragma unroll
  for (int n = 0; n < kChannels; ++n) sum.of[n] = divided(sum.of[n], roi.count);
  return sum;
}

}  // namespace cvops
#endif
