// Samples of bins of RoIs by bilinear interpolation, and the kernel of their means.
#pragma once
#include "roi.cuh"

namespace cvops {

// Number of samples of a bin. The product with the reciprocal of a power of two has the bits of the
// quotient, and is much faster.
template <typename T>
struct SampleCountOf {
  T value, reciprocal;  // reciprocal: 0 if it is not exact
};
using SampleCount = SampleCountOf<float>;

CVOPS_HD SampleCount sample_count(float value) {
  return {value, bits_of(value) << 9 == 0 ? 1.0f / value : 0.0f};
}
CVOPS_HD SampleCountOf<double> sample_count(double value) {
  return {value, (uint64)bits_of(value) << 12 == 0 ? 1.0 / value : 0.0};
}

template <typename T>
CVOPS_HD T divided(T x, const SampleCountOf<T>& count) {
  return count.reciprocal > 0.0f ? x * count.reciprocal : x / count.value;
}

// One axis of an RoI, in pixels: its begin, the length of a bin, and the samples of a bin.
template <typename T>
struct RoiAlignAxisOf {
  T begin, bin;
  int samples;

  // Position of sample k of bin i. It rises with i and with k, or falls if `bin` is negative.
  CVOPS_HD T position(int i, int k) const {
    return begin + (T)i * bin + ((T)k + 0.5f) * bin / (T)samples;
  }
};
using RoiAlignAxis = RoiAlignAxisOf<float>;

// Linear interpolation along an axis: two pixels and their weights. The pixels of a position
// outside of the map are -1.
template <typename T>
struct AxisSampleOf {
  int low, high;
  T low_weight, high_weight;

  CVOPS_HD bool inside() const { return low >= 0; }
  CVOPS_HD bool touches(int pixel) const { return low == pixel || high == pixel; }
  CVOPS_HD T weight(int pixel) const { return low == pixel ? low_weight : high_weight; }
};
using AxisSample = AxisSampleOf<float>;

template <typename T>
CVOPS_HD AxisSampleOf<T> axis_sample(T position, int size) {
  if (!(position >= -1.0f && position <= (T)size)) return {-1, -1, 0.0f, 0.0f};
  if (position <= 0.0f) position = 0.0f;
  int low = (int)position, high = low + 1;
  if (low >= size - 1) {
    low = high = size - 1;
    position = (T)low;
  }
  const T high_weight = position - (T)low;
  return {low, high, 1.0f - high_weight, high_weight};
}

// Range of samples of bin i that includes all positions in [lower, upper]. Two binary searches find
// them among up to 2^31 samples.
template <typename T>
CVOPS_HD Range samples_between(const RoiAlignAxisOf<T>& axis, int i, T lower, T upper) {
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

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Adds a sample at (y, x) for the channels of Pixels, a struct of T of[]. load(p) returns
// their pixels at index p of a plane.
template <typename Pixels, typename T, typename Load>
__device__ __forceinline__ void add_sample(Pixels& sum, const AxisSampleOf<T>& y,
                                           const AxisSampleOf<T>& x, int width, const Load& load) {
  constexpr int kChannels = sizeof(Pixels) / sizeof(T);
  const Pixels a = load(y.low * width + x.low), b = load(y.low * width + x.high);
  const Pixels c = load(y.high * width + x.low), d = load(y.high * width + x.high);
  const T a_weight = y.low_weight * x.low_weight, b_weight = y.low_weight * x.high_weight;
  const T c_weight = y.high_weight * x.low_weight, d_weight = y.high_weight * x.high_weight;
#pragma unroll
  for (int n = 0; n < kChannels; ++n) {
    sum.of[n] += a_weight * a.of[n] + b_weight * b.of[n] + c_weight * c.of[n] + d_weight * d.of[n];
  }
}

// Mean from the sum of the samples in the map. `outside`: true if the bin has others, of which each
// is 0 times the first pixel.
template <typename Pixels, typename T, typename Load>
__device__ __forceinline__ Pixels mean_of_samples(Pixels sum, bool outside,
                                                  const SampleCountOf<T>& count, const Load& load) {
  constexpr int kChannels = sizeof(Pixels) / sizeof(T);
  if (outside) {
    const Pixels first = load(0);
#pragma unroll
    for (int n = 0; n < kChannels; ++n) sum.of[n] += 0.0f * first.of[n];
  }
#pragma unroll
  for (int n = 0; n < kChannels; ++n) sum.of[n] = divided(sum.of[n], count);
  return sum;
}

// Writes the means of all bins. A work item is kChannelsAtOnce channels and each `splits`-th set of
// blockDim.x bins. With `in_shared` it has the RoIs of one image, whose planes are in shared
// memory: a ValuesOf<T> per pixel. RoIs of an unknown image then belong to image 0. find(number)
// returns an RoI, and mean_of_bin(RoI, i, j, op, load) the mean.
template <typename T, typename Op, typename Find>
__device__ __forceinline__ void align_bins(T* __restrict__ pooled, const T* __restrict__ data,
                                           int64 num_rois, const Op& op, int splits, int in_shared,
                                           ValuesOf<T>* planes, const Find& find) {
  const int pixels = op.height * op.width, bins = op.bins();
  const int groups = (op.channels - 1) / kChannelsAtOnce + 1;
  const int64 items = (int64)(in_shared ? op.images : 1) * groups * splits;
  const int64 step = (int64)splits * blockDim.x;
  const int64 roi_step = step / bins;
  const int bin_step = (int)(step - roi_step * bins);
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    const int planes_of_item = (int)(item / splits), own_image = planes_of_item / groups;
    const int channel = (planes_of_item - own_image * groups) * kChannelsAtOnce;
    const int channels = min(op.channels - channel, kChannelsAtOnce);
    if (in_shared) {
      const T* const first = data + op.plane(own_image, channel, 0) * pixels;
      for (int p = (int)threadIdx.x; p < pixels; p += (int)blockDim.x) {
        ValuesOf<T> values;
#pragma unroll
        for (int n = 0; n < kChannelsAtOnce; ++n) {
          values.of[n] = first[(n < channels ? n : 0) * pixels + p];
        }
        planes[p] = values;
      }
      __syncthreads();
    }
    const int64 begin = (item % splits) * blockDim.x + threadIdx.x;
    int64 number = begin / bins;
    for (int bin = (int)(begin - number * bins); number < num_rois;) {
      const auto roi = find(number);
      if (!in_shared || (roi.image < 0 ? 0 : roi.image) == own_image) {
        const int i = bin / op.pooled_width, j = bin - i * op.pooled_width;
        ValuesOf<T> mean = {};
        if (roi.image >= 0 && in_shared) {
          mean = mean_of_bin(roi, i, j, op, [&](int p) { return planes[p]; });
        } else if (roi.image >= 0) {
          const T* const first = data + op.plane(roi.image, channel, bin) * pixels;
          const int plane = op.plane_step() * pixels;
          mean = mean_of_bin(roi, i, j, op, [&](int p) {
            ValuesOf<T> values;
#pragma unroll
            for (int n = 0; n < kChannelsAtOnce; ++n) {
              values.of[n] = first[(n < channels ? n : 0) * plane + p];
            }
            return values;
          });
        }
        T* to = pooled + (number * op.channels + channel) * bins + bin;
#pragma unroll
        for (int n = 0; n < kChannelsAtOnce; ++n) {
          if (n >= channels) break;
          *to = mean.of[n];
          to += bins;
        }
      }
      number += roi_step;
      bin += bin_step;
      if (bin >= bins) {
        bin -= bins;
        ++number;
      }
    }
    if (in_shared) __syncthreads();
  }
}

}  // namespace cvops
#endif
