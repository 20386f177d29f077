#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "roi_pooling.h"
#include "simd.h"

namespace cvops {
namespace {

// True if all of `count` indices are in the plane that begins at `plane`.
CVOPS_INLINE bool all_inside(const int* argmax, int count, int plane, int pixels) {
  int outside = 0;
  for (int i = 0; i < count; ++i) {
    outside |= (uint32)argmax[i] - (uint32)plane >= (uint32)pixels;
  }
  return !outside;
}

// Adds the outputs of kChannels channels, `bins` each, to valid pixels. An addition depends on the
// previous one if both have the same pixel, as adjacent bins often do. Those of different channels
// are independent. Loads and stores limit the speed, so one load takes two indices.
template <int kChannels, typename T>
CVOPS_INLINE void add_channels(T* grad, const T* value, const int* at, int64 bins) {
  int64 i = 0;
  for (; i + 2 <= bins; i += 2) {
    uint64 pair[kChannels];
    for (int k = 0; k < kChannels; ++k) std::memcpy(pair + k, at + k * bins + i, sizeof(uint64));
    for (int k = 0; k < kChannels; ++k) grad[pair[k] & 0xffffffff] += value[k * bins + i];
    for (int k = 0; k < kChannels; ++k) grad[pair[k] >> 32] += value[k * bins + i + 1];
  }
  for (int k = 0; k < kChannels && i < bins; ++k) grad[at[k * bins + i]] += value[k * bins + i];
}

// Adds all outputs of the channels [first, last) to their pixels, RoI by RoI.
template <typename T>
void add_gradients(T* grad, const T* out_grad, const int* argmax, int first, int last,
                   const RoiPoolingGrad& size) {
  constexpr int kAhead = 2;  // RoIs; the hardware prefetcher does not follow this stride
  constexpr int kAtOnce = 2;
  const int64 of_roi = (int64)size.channels * size.bins;
  int image = 0;  // image of the previous channel's argmax
  for (int64 roi = 0; roi < size.rois; ++roi) {
    const int64 ahead = std::min<int64>(kAhead, size.rois - 1 - roi) * of_roi;
    for (int channel = first, next; channel < last; channel = next) {
      next = channel + kAtOnce <= last ? channel + kAtOnce : channel + 1;
      const int64 from = roi * of_roi + (int64)channel * size.bins;
      const int* const at = argmax + from;
      const T* const value = out_grad + from;
      for (int64 i = 0; i < (int64)(next - channel) * size.bins; i += 16) {
        __builtin_prefetch(at + ahead + i);
        __builtin_prefetch(value + ahead + i);
      }
      bool inside = true;
      for (int k = channel; k < next; ++k) {
        const int64 begin = (int64)(k - channel) * size.bins;
        int plane = (image * size.channels + k) * size.pixels;
        inside = inside && all_inside(at + begin, size.bins, plane, size.pixels);
      }
      if (inside) {
        next > channel + 1 ? add_channels<kAtOnce>(grad, value, at, size.bins)
                           : add_channels<1>(grad, value, at, size.bins);
        continue;
      }
      for (int k = channel; k < next; ++k) {
        const ChannelPlanes own = {size.channels, size.pixels, k, 0, size.images};
        int plane = (image * size.channels + k) * size.pixels;
        const int64 begin = (int64)(k - channel) * size.bins;
        for (int64 i = begin; i < begin + size.bins; ++i) {
          if (lies_in(own, at[i], plane)) grad[at[i]] += value[i];
        }
        image = plane / size.pixels / size.channels;
      }
    }
  }
}

}  // namespace

template <typename T>
void roi_pooling_backward(const Cpu&, T* grad, const T* out_grad, const int* argmax,
                          RoiPoolingGrad size) {
  if ((int64)size.images * size.channels * size.pixels == 0) return;
  // A group of channels per work item: their outputs for one RoI are adjacent. The planes of a
  // group fit into a near cache, and there are groups for all threads.
  const int64 max = std::min<int64>(32, ceil_div(size.channels, 2 * num_threads()));
  const int group = (int)std::clamp<int64>(65536 / (int64)sizeof(T) / size.pixels, 1, max);
  const double cost = group * (0.8 * size.rois * size.bins + 0.1 * size.images * size.pixels);
  parallel_for(ceil_div(size.channels, group), cost, [&](int64 part) {
    const int first = (int)part * group, last = std::min(size.channels, first + group);
    for (int image = 0; image < size.images; ++image) {
      std::fill_n(grad + ((int64)image * size.channels + first) * size.pixels,
                  (int64)(last - first) * size.pixels, T(0));
    }
    simd<add_gradients<T>>(grad, out_grad, argmax, first, last, size);
  });
}

template void roi_pooling_backward(const Cpu&, float*, const float*, const int*, RoiPoolingGrad);
template void roi_pooling_backward(const Cpu&, double*, const double*, const int*, RoiPoolingGrad);

}  // namespace cvops
