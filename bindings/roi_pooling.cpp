#include "roi_pooling.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// Channels that are pooled side by side, in the lanes of vectors.
constexpr int kLanes = 32;

#define CVOPS_INLINE inline __attribute__((always_inline))

struct Roi {
  int64 number;
  int image;
  double visits;  // of pixels by bins, in each channel
};

// All rois, with the edges of their bins, found once for all channels.
struct Rois {
  std::vector<Range> rows, columns;  // (num_rois, pooled_height), (num_rois, pooled_width)
  std::vector<Roi> known;            // ordered by image
  std::vector<int64> refused;        // whose image does not exist

  Rois(const float* rois, int64 num_rois, RoiPooling op)
      : rows(num_rois * op.pooled_height), columns(num_rois * op.pooled_width) {
    for (int64 n = 0; n < num_rois; ++n) {
      const float* r = rois + 5 * n;
      int image = truncated(r[0]);
      if (image < 0 || image >= op.images) {
        refused.push_back(n);
        continue;
      }
      double height =
          find_bins(&rows[n * op.pooled_height], roi_axis(r[2], r[4], op.scale, op.pooled_height),
                    op.pooled_height, op.height);
      double width =
          find_bins(&columns[n * op.pooled_width], roi_axis(r[1], r[3], op.scale, op.pooled_width),
                    op.pooled_width, op.width);
      known.push_back({n, image, height * width});
    }
    std::stable_sort(known.begin(), known.end(),
                     [](const Roi& a, const Roi& b) { return a.image < b.image; });
  }

  // Their lengths' sum.
  static double find_bins(Range* out, RoiAxis axis, int bins, int limit) {
    double length = 0;
    for (int i = 0; i < bins; ++i) {
      out[i] = bin_range(axis, i, limit);
      length += std::max(out[i].end - out[i].begin, 0);
    }
    return length;
  }
};

// Where the results of one roi begin, for `channels` channels from one on.
struct Output {
  float* pooled;
  int* argmax;  // may be null
  int channels;
};

// The values of kLanes planes at one pixel, as vectors, so that the running maxima stay in
// registers. On x86 they have AVX2's width: of wider ones the compiler makes scalars where it
// cannot have them whole.
#ifdef __x86_64__
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kVectors = kLanes / kWidth;
typedef float FloatVector __attribute__((vector_size(4 * kWidth)));
typedef int IntVector __attribute__((vector_size(4 * kWidth)));

struct alignas(64) FloatLanes {
  FloatVector of[kVectors];
};
struct alignas(64) IntLanes {
  IntVector of[kVectors];
};

// Some planes, at most kLanes, of data (planes, pixels), side by side. Of the other lanes nothing
// is used.
void interleave(FloatLanes* out, const float* __restrict__ data, int planes, int pixels) {
  float* __restrict__ to = reinterpret_cast<float*>(out);
  for (int i = 0; i < pixels; ++i) {
    for (int k = 0; k < planes; ++k) to[(int64)i * kLanes + k] = data[(int64)k * pixels + i];
  }
}

// max_of_bin. `plane` is the index of each plane's first pixel, which is added to the result.
template <bool kWithArgmax>
CVOPS_INLINE void max_of_bin(FloatLanes& best_out, IntLanes& at_out, const FloatLanes* data,
                             const IntLanes& plane, Range rows, Range columns, int width) {
  bool empty = rows.begin >= rows.end || columns.begin >= columns.end;
  FloatVector best[kVectors];
  IntVector at[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    best[v] = FloatVector{} + (empty ? 0.0f : kLowestFloat);
    at[v] = IntVector{} - 1;
  }
  for (int row = rows.begin; row < rows.end; ++row) {
    for (int i = row * width + columns.begin; i < row * width + columns.end; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        FloatVector value = data[i].of[v];
        if (kWithArgmax) at[v] = value > best[v] ? IntVector{} + i : at[v];
        best[v] = value > best[v] ? value : best[v];
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    best_out.of[v] = best[v];
    if (kWithArgmax) at_out.of[v] = at[v] < 0 ? at[v] : at[v] + plane.of[v];
  }
}

// out[k, b] = tile[b, k] for some k and b. The rows of out are `bins` apart.
template <typename T>
CVOPS_INLINE void transpose(T* __restrict__ out, const T* __restrict__ tile, int channels, int num,
                            int64 bins) {
  for (int k = 0; k < channels; ++k) {
    for (int b = 0; b < num; ++b) out[k * bins + b] = tile[b * kLanes + k];
  }
}

template <bool kWithArgmax>
CVOPS_INLINE void pool_lanes_of(Output out, const FloatLanes* data, int plane, const Range* rows,
                                const Range* columns, RoiPooling op) {
  constexpr int kTile = 64;  // bins
  FloatLanes best[kTile];
  IntLanes at[kTile], planes = {};
  const int bins = op.pooled_height * op.pooled_width, pixels = op.height * op.width;
  for (int k = 0; k < out.channels; ++k) planes.of[k / kWidth][k % kWidth] = plane + k * pixels;
  int row = 0, column = 0;
  for (int begin = 0; begin < bins; begin += kTile) {
    int num = std::min(kTile, bins - begin);
    for (int b = 0; b < num; ++b) {
      max_of_bin<kWithArgmax>(best[b], at[b], data, planes, rows[row], columns[column], op.width);
      if (++column == op.pooled_width) column = 0, ++row;
    }
    transpose(out.pooled + begin, (const float*)best, out.channels, num, bins);
    if (kWithArgmax) transpose(out.argmax + begin, (const int*)at, out.channels, num, bins);
  }
}

// Pools one roi from interleaved planes; `plane` is the index of the first pixel of the first.
void pool_lanes(Output out, const FloatLanes* data, int plane, const Range* rows,
                const Range* columns, RoiPooling op) {
  if (out.argmax) {
    pool_lanes_of<true>(out, data, plane, rows, columns, op);
  } else {
    pool_lanes_of<false>(out, data, plane, rows, columns, op);
  }
}

// The same from planes as they are.
void pool_planes(Output out, const float* data, int plane, const Range* rows, const Range* columns,
                 RoiPooling op) {
  const int bins = op.pooled_height * op.pooled_width, pixels = op.height * op.width;
  for (int k = 0; k < out.channels; ++k) {
    const float* const planes[1] = {data + (int64)k * pixels};
    for (int b = 0; b < bins; ++b) {
      float best[1];
      int at[1];
      max_of_bin(planes, rows[b / op.pooled_width], columns[b % op.pooled_width], op.width, best,
                 at);
      out.pooled[(int64)k * bins + b] = best[0];
      if (out.argmax) {
        out.argmax[(int64)k * bins + b] = at[0] < 0 ? -1 : plane + k * pixels + at[0];
      }
    }
  }
}

// Some rois of one image and kLanes channels, or those that remain, for one thread.
struct Work {
  const Roi *begin, *end;
  int channel;
  bool interleaved;
};

// Divides the rois of one image; their cost in nanoseconds. To interleave planes costs as much as
// to visit them a few times, and makes visits cheap.
double divide(std::vector<Work>& works, const Roi* begin, const Roi* end, RoiPooling op) {
  const double pixels = (double)op.height * op.width;
  const int64 blocks = ceil_div(op.channels, kLanes);
  double visits = 0;
  for (const Roi* roi = begin; roi < end; ++roi) visits += roi->visits;
  double stores = 2.0 * op.pooled_height * op.pooled_width * (end - begin);
  double interleaving = 0.5 * kLanes * pixels, pooling = kLanes * (0.15 * visits + stores);
  double direct = std::min(kLanes, op.channels) * (visits + stores);
  bool interleaved = interleaving + pooling < direct;
  // Each part interleaves for itself, so that there are no more of them than keep the threads busy.
  int64 parts = end - begin;
  if (interleaved) {
    double worth = std::min(4.0 * num_threads() / blocks, pooling / (4 * interleaving));
    parts = std::clamp<int64>((int64)worth, 1, parts);
  }
  for (int channel = 0; channel < op.channels; channel += kLanes) {
    for (int64 p = 0; p < parts; ++p) {
      works.push_back({begin + (end - begin) * p / parts, begin + (end - begin) * (p + 1) / parts,
                       channel, interleaved});
    }
  }
  return blocks * (interleaved ? parts * interleaving + pooling : direct);
}

}  // namespace

void cpu::roi_pooling(float* pooled, int* argmax, const float* data, const float* boxes,
                      int64 num_rois, RoiPooling op) {
  if (num_rois == 0 || op.channels == 0) return;
  const Rois rois(boxes, num_rois, op);
  const int64 bins = (int64)op.pooled_height * op.pooled_width;
  const int pixels = op.height * op.width;
  for (int64 n : rois.refused) {
    std::fill_n(pooled + n * op.channels * bins, op.channels * bins, 0.0f);
    if (argmax) std::fill_n(argmax + n * op.channels * bins, op.channels * bins, -1);
  }

  std::vector<Work> works;
  double cost = 0;
  const Roi* const last = rois.known.data() + rois.known.size();
  for (const Roi *begin = rois.known.data(), *end = begin; begin < last; begin = end) {
    while (end < last && end->image == begin->image) ++end;
    cost += divide(works, begin, end, op);
  }

  auto pool = [&](int64 w) {
    const Work work = works[w];
    const int channels = std::min(kLanes, op.channels - work.channel);
    const int plane = (work.begin->image * op.channels + work.channel) * pixels;
    std::vector<FloatLanes> lanes(work.interleaved ? pixels : 0);
    if (work.interleaved) simd<interleave>(lanes.data(), data + plane, channels, pixels);
    for (const Roi* roi = work.begin; roi < work.end; ++roi) {
      const int64 first = (roi->number * op.channels + work.channel) * bins;
      Output out = {pooled + first, argmax ? argmax + first : nullptr, channels};
      const Range* rows = &rois.rows[roi->number * op.pooled_height];
      const Range* columns = &rois.columns[roi->number * op.pooled_width];
      if (work.interleaved) {
        simd<pool_lanes>(out, lanes.data(), plane, rows, columns, op);
      } else {
        pool_planes(out, data + plane, plane, rows, columns, op);
      }
    }
  };
  if (!works.empty()) parallel_for((int64)works.size(), cost / (double)works.size(), pool);
}

void cpu::roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                               RoiPoolingGrad size) {
  if ((int64)size.images * size.channels * size.pixels == 0) return;
  // Several channels at a time: their outputs for one roi lie side by side.
  constexpr int kGroup = 8;
  double cost = kGroup * (1.5 * size.rois * size.bins + 0.2 * size.images * size.pixels);
  parallel_for(ceil_div(size.channels, kGroup), cost, [&](int64 group) {
    const int first = (int)group * kGroup, last = std::min(size.channels, first + kGroup);
    for (int image = 0; image < size.images; ++image) {
      std::fill_n(grad + ((int64)image * size.channels + first) * size.pixels,
                  (int64)(last - first) * size.pixels, 0.0f);
    }
    int image = 0;  // where the channel before was found
    for (int64 roi = 0; roi < size.rois; ++roi) {
      for (int channel = first; channel < last; ++channel) {
        const ChannelPlanes own = {size.channels, size.pixels, channel, 0, size.images};
        int plane = (image * size.channels + channel) * size.pixels;
        const int64 from = (roi * size.channels + channel) * size.bins;
        // The next roi's outputs are too far off for the processor to see them coming.
        const int64 ahead = roi + 1 < size.rois ? (int64)size.channels * size.bins : 0;
        for (int64 i = from; i < from + size.bins; i += 16) {
          __builtin_prefetch(argmax + i + ahead);
          __builtin_prefetch(out_grad + i + ahead);
        }
        for (int64 i = from; i < from + size.bins; ++i) {
          if (lies_in(own, argmax[i], plane)) grad[argmax[i]] += out_grad[i];
        }
        image = plane / size.pixels / size.channels;
      }
    }
  });
}

}  // namespace cvops
