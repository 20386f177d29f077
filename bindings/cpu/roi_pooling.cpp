#include "roi_pooling.h"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "interleaved.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Pixels and the indices of values.
template <typename P>
using Indices = Pixel<int, P::kLanes, P::kWidth>;

struct Roi {
  int64 number;
  int image;
  double loads;  // per channel: pixels summed over bins
  Window window;
};

// All RoIs, and the edges of their bins, computed once for all channels.
struct Rois {
  std::vector<Range> rows, columns;  // (num_rois, pooled_height), (num_rois, pooled_width)
  std::vector<Roi> known;            // ordered by image
  std::vector<int64> unknown;        // RoIs whose image does not exist
};

// Appends the bins of an axis to `out` and returns the sum of their lengths.
CVOPS_INLINE double find_bins(Range* out, Range& all, RoiAxisOf<float> axis, int bins, int limit) {
  double length = 0;
  for (int i = 0; i < bins; ++i) {
    out[i] = bin_range(axis, i, limit);
    all = bounds_of(all, out[i]);
    length += std::max(out[i].end - out[i].begin, 0);
  }
  return length;
}

void find_rois(Rois& out, const float* rois, int64 num_rois, const RoiPooling& op) {
  for (int64 n = 0; n < num_rois; ++n) {
    const float* r = rois + 5 * n;
    const int image = truncated(r[0]);
    if (image < 0 || image >= op.images) {
      out.unknown.push_back(n);
      continue;
    }
    Roi roi = {n, image, 0, {}};
    const double height =
        find_bins(&out.rows[n * op.pooled_height], roi.window.rows,
                  roi_axis(r[2], r[4], op.scale, op.pooled_height), op.pooled_height, op.height);
    const double width =
        find_bins(&out.columns[n * op.pooled_width], roi.window.columns,
                  roi_axis(r[1], r[3], op.scale, op.pooled_width), op.pooled_width, op.width);
    roi.loads = height * width;
    if (roi.loads == 0) roi.window = {};
    out.known.push_back(roi);
  }
}

// Interleaves a window of `channels` planes. NaN and values below kLowestFloat become kLowestFloat.
// Returns true if there is a -0.0.
template <typename P>
CVOPS_INLINE bool interleave_clamped(P* out, const float* data, const Window& window, int channels,
                                     const RoiPooling& op) {
  // Integers with a sign for -0.0 alone. A comparison would be split into scalars with AVX-512,
  // where GCC combines the results of several ones.
  Vector<uint32, P::kWidth> zeros = {};
  Vector<uint32, 4> zeros_of_rest = {};
  const auto change = [&](auto& value) __attribute__((always_inline)) {
    using V = std::remove_reference_t<decltype(value)>;
    value = value > kLowestFloat ? value : V{} + kLowestFloat;
    const auto bits = (Vector<uint32, sizeof(V) / 4>)value;
    if constexpr (sizeof bits == sizeof zeros) {
      zeros |= bits & ~(bits - 1);
    } else {
      zeros_of_rest |= bits & ~(bits - 1);
    }
  };
  interleave<P::kWidth>(out, data, (int64)op.height * op.width, op.width, window, channels, change);
  uint32 any = 0;
  for (int i = 0; i < P::kWidth; ++i) any |= zeros[i];
  for (int i = 0; i < 4; ++i) any |= zeros_of_rest[i];
  return any >> 31;
}

template <typename P>
CVOPS_INLINE void keep_larger(P& a, const P& b) {
  for (int v = 0; v < P::kVectors; ++v) a.of[v] = b.of[v] > a.of[v] ? b.of[v] : a.of[v];
}

// Maximum of data[y : y + 2, x : x + 2] at [y, x]; not set in the last row and column.
template <typename P>
CVOPS_INLINE void pool_squares(P* __restrict__ out, const P* __restrict__ data,
                               const Window& window) {
  const int height = window.rows.end - window.rows.begin;
  const int width = window.columns.end - window.columns.begin;
  for (int row = 0; row + 1 < height; ++row, out += width, data += width) {
    P left = data[0];
    keep_larger(left, data[width]);
    for (int x = 0; x + 1 < width; ++x) {
      P right = data[x + 1];
      keep_larger(right, data[width + x + 1]);
      keep_larger(left, right);
      out[x] = left;
      left = right;
    }
  }
}

// Interleaved planes of some channels in a window.
template <typename P>
struct Planes {
  Window window;
  const P* pixels;
  const P* squares;  // or null
  Indices<P> first;  // index in data of the first pixel of each plane
};

// max_of_bin of all lanes, for a nonempty bin.
template <typename P>
CVOPS_INLINE void max_of_bin(P& best_out, const Planes<P>& planes, Range rows, Range columns) {
  const int height = rows.end - rows.begin, width = columns.end - columns.begin;
  const int step = planes.squares && height > 1 && width > 1 ? 2 : 1;
  const P* const from = step == 2 ? planes.squares : planes.pixels;
  // The last squares overlap the previous ones, so that they stay within the bin.
  const int last_row = rows.end - step, last = width - step;
  const P* value = from + planes.window.index(rows.begin, columns.begin);
  if (step == 2 && height <= 4 && width <= 4) {  // without branches, which are mispredicted
    const P* const below = from + planes.window.index(last_row, columns.begin);
    P upper = value[0], lower = below[0];
    keep_larger(upper, value[last]);
    keep_larger(lower, below[last]);
    keep_larger(upper, lower);
    best_out = upper;
    return;
  }
  P best;
  for (int v = 0; v < P::kVectors; ++v) best.of[v] = typename P::V{} + kLowestFloat;
  for (int row = rows.begin;; row = std::min(row + step, last_row)) {
    value = from + planes.window.index(row, columns.begin);
    for (int i = 0; i < last; i += step) keep_larger(best, value[i]);
    keep_larger(best, value[last]);
    if (row == last_row) break;
  }
  best_out = best;
}

// Maximum and argmax.
template <typename P>
CVOPS_INLINE void max_of_bin(P& best_out, Indices<P>& at_out, const Planes<P>& planes, Range rows,
                             Range columns, int image_width) {
  using V = typename P::V;
  using Ints = typename Indices<P>::V;
  P best;
  Indices<P> at;  // in the plane; 1 is the first pixel, 0 is none
  for (int v = 0; v < P::kVectors; ++v) {
    best.of[v] = V{} + kLowestFloat;
    at.of[v] = Ints{};
  }
  for (int row = rows.begin; row < rows.end; ++row) {
    const P* const value = planes.pixels + planes.window.index(row, columns.begin);
    Ints index = Ints{} + (row * image_width + columns.begin + 1);
    for (int i = 0; i < columns.end - columns.begin; ++i, index += 1) {
      for (int v = 0; v < P::kVectors; ++v) {
        // Nonzero if above the maximum so far.
        const Ints here = value[i].of[v] > best.of[v] ? index : Ints{};
        at.of[v] = here > at.of[v] ? here : at.of[v];
        best.of[v] = value[i].of[v] > best.of[v] ? value[i].of[v] : best.of[v];
      }
    }
  }
  best_out = best;
  for (int v = 0; v < P::kVectors; ++v) {
    at_out.of[v] = at.of[v] > 0 ? at.of[v] - 1 + planes.first.of[v] : Ints{} - 1;
  }
}

struct Call {
  float* pooled;
  int* argmax;  // may be null
  const float* data;
  RoiPooling op;
  Rois rois;
  bool streams;
};

// Pools an RoI; its results begin at `to`. `staged` is a buffer for non-temporal stores, or null.
template <bool kWithArgmax, typename P>
CVOPS_INLINE void pool(const Call& call, int64 to, const Roi& roi, const Planes<P>& planes,
                       int channels, float* staged) {
  constexpr int kTile = 64, kPitch = P::kLanes;
  P best[kTile];
  Indices<P> at[kTile];
  const int height = call.op.pooled_height, width = call.op.pooled_width, bins = height * width;
  const Range* const rows = &call.rois.rows[roi.number * height];
  const Range* const columns = &call.rois.columns[roi.number * width];
  float* const pooled = staged ? staged : call.pooled + to;
  int* argmax = nullptr;
  if (kWithArgmax) argmax = staged ? (int*)(staged + kPitch * bins) : call.argmax + to;
  int num = 0, begin = 0;
  for (int i = 0; i < height; ++i) {
    for (int j = 0; j < width; ++j) {
      if (rows[i].begin >= rows[i].end || columns[j].begin >= columns[j].end) {
        best[num] = {};
        for (int v = 0; v < P::kVectors; ++v) at[num].of[v] = typename Indices<P>::V{} - 1;
      } else if (kWithArgmax) {
        max_of_bin(best[num], at[num], planes, rows[i], columns[j], call.op.width);
      } else {
        max_of_bin(best[num], planes, rows[i], columns[j]);
      }
      if (++num < kTile && begin + num < bins) continue;
      constexpr int kWidth = P::kWidth;
      transpose<kWidth>(pooled + begin, bins, (const float*)best, kPitch, num, channels);
      if (kWithArgmax) {
        transpose<kWidth>(argmax + begin, bins, (const int*)at, kPitch, num, channels);
      }
      begin += num, num = 0;
    }
  }
  if (staged) {
    stream<P::kWidth>(call.pooled + to, staged, (int64)channels * bins);
    if (kWithArgmax) stream<P::kWidth>(call.argmax + to, argmax, (int64)channels * bins);
  }
}

// Some RoIs of one image, and kMaxLanes channels or the rest.
struct WorkItem {
  const Roi *begin, *end;
  int channel;
};

template <typename P>
CVOPS_INLINE void pool_item(const Call& call, WorkItem item) {
  const RoiPooling& op = call.op;
  const int channels = std::min(P::kLanes, op.channels - item.channel);
  const int64 bins = (int64)op.pooled_height * op.pooled_width;
  const int plane = op.height * op.width;
  const int first = (item.begin->image * op.channels + item.channel) * plane;
  Planes<P> planes = {};
  double loads = 0;
  for (const Roi* roi = item.begin; roi < item.end; ++roi) {
    planes.window = bounds_of(planes.window, roi->window);
    loads += roi->loads;
  }
  for (int k = 0; k < channels; ++k)
    planes.first.of[k / P::kWidth][k % P::kWidth] = first + k * plane;

  // Squares cost time too. They lose the order of 0.0 and -0.0.
  const int64 area = planes.window.pixels();
  const bool many = !call.argmax && loads > 4.0 * area;
  const int64 staged = call.streams ? (call.argmax ? 2 : 1) * bins : 0;  // in units of Pixel
  const std::unique_ptr<P[]> memory(new P[(many ? 2 : 1) * area + staged]);
  planes.pixels = memory.get();
  const bool negative_zero =
      interleave_clamped(memory.get(), call.data + first, planes.window, channels, op);
  if (many && !negative_zero) {
    planes.squares = memory.get() + area;
    pool_squares(memory.get() + area, memory.get(), planes.window);
  }
  float* const staging = staged ? (float*)(memory.get() + (many ? 2 : 1) * area) : nullptr;
  for (const Roi* roi = item.begin; roi < item.end; ++roi) {
    const int64 to = (roi->number * op.channels + item.channel) * bins;
    if (call.argmax) {
      pool<true>(call, to, *roi, planes, channels, staging);
    } else {
      pool<false>(call, to, *roi, planes, channels, staging);
    }
  }
  if (call.streams) streamed();
}

// Appends the work items of one image and returns their cost in ns.
double add_items(std::vector<WorkItem>& items, const Roi* begin, const Roi* end,
                 const RoiPooling& op) {
  const int64 blocks = ceil_div(op.channels, kMaxLanes);
  Window all = {};
  double loads = 0, separate = 0;  // pixels that are interleaved for each RoI separately
  for (const Roi* roi = begin; roi < end; ++roi) {
    loads += roi->loads;
    separate += roi->window.pixels();
    all = bounds_of(all, roi->window);
  }
  const double together = all.pixels();  // for all RoIs at once
  double interleaving = 0.2 * kMaxLanes * together;
  double pooling =
      kMaxLanes * (0.05 * loads + 0.2 * op.pooled_height * op.pooled_width * (end - begin));
  int64 parts = end - begin;
  if (separate > together) {
    // Each work item interleaves its planes itself, so there are only enough of them to occupy the
    // threads.
    double worth = std::min(4.0 * num_threads() / blocks, pooling / (4 * interleaving));
    parts = std::clamp<int64>((int64)worth, 1, parts);
    interleaving *= parts;
  } else {
    interleaving = 0.2 * kMaxLanes * separate;
  }
  for (int channel = 0; channel < op.channels; channel += kMaxLanes) {
    for (int64 p = 0; p < parts; ++p) {
      items.push_back(
          {begin + (end - begin) * p / parts, begin + (end - begin) * (p + 1) / parts, channel});
    }
  }
  return blocks * (interleaving + pooling);
}

// Pools an RoI of doubles, bin by bin.
void pool_plainly(double* pooled, int* argmax, const double* data, const double* roi,
                  const RoiPooling& op) {
  constexpr int kAtOnce = 4;  // channels
  const int pixels = op.height * op.width;
  const int64 bins = (int64)op.pooled_height * op.pooled_width;
  const int image = truncated(roi[0]);
  const bool known = image >= 0 && image < op.images;
  const auto y = roi_axis(roi[2], roi[4], op.scale, op.pooled_height);
  const auto x = roi_axis(roi[1], roi[3], op.scale, op.pooled_width);
  for (int64 bin = 0; bin < bins; ++bin) {
    Range rows = bin_range(y, (int)(bin / op.pooled_width), op.height);
    const Range columns = bin_range(x, (int)(bin % op.pooled_width), op.width);
    if (!known) rows.end = rows.begin;
    for (int channel = 0; channel < op.channels; channel += kAtOnce) {
      const double* planes[kAtOnce];
      double best[kAtOnce];
      int at[kAtOnce];
      for (int k = 0; k < kAtOnce; ++k) {
        // Beyond the last channel: that one again.
        const int c = std::min(channel + k, op.channels - 1);
        planes[k] = data + (known ? (image * op.channels + c) * pixels : 0);
      }
      max_of_bin(planes, rows, columns, op.width, best, at);
      for (int k = 0; k < std::min(kAtOnce, op.channels - channel); ++k) {
        const int64 to = (channel + k) * bins + bin;
        pooled[to] = best[k];
        if (argmax) argmax[to] = at[k] < 0 ? -1 : (int)(planes[k] - data) + at[k];
      }
    }
  }
}

}  // namespace

template <>
void roi_pooling(const Cpu&, double* pooled, int* argmax, const double* data, const double* rois,
                 int64 num_rois, RoiPooling op) {
  if (op.channels == 0) return;
  const int64 outputs = (int64)op.channels * op.pooled_height * op.pooled_width;
  parallel_for(num_rois, 20.0 * outputs, [&](int64 n) {
    simd<pool_plainly>(pooled + n * outputs, argmax ? argmax + n * outputs : nullptr, data,
                       rois + 5 * n, op);
  });
}

template <>
void roi_pooling(const Cpu&, float* pooled, int* argmax, const float* data, const float* boxes,
                 int64 num_rois, RoiPooling op) {
  if (num_rois == 0 || op.channels == 0) return;
  const int64 bins = (int64)op.pooled_height * op.pooled_width;
  const int64 bytes = 4 * num_rois * op.channels * bins;
  Call call = {pooled, argmax, data, op, {}, bins <= kMaxStaged && worth_streaming_parts(bytes)};
  Rois& rois = call.rois;
  rois.rows.resize(num_rois * op.pooled_height);
  rois.columns.resize(num_rois * op.pooled_width);
  rois.known.reserve(num_rois);
  simd<find_rois>(rois, boxes, num_rois, op);
  auto before = [](const Roi& a, const Roi& b) { return a.image < b.image; };
  if (!std::is_sorted(rois.known.begin(), rois.known.end(), before)) {
    std::stable_sort(rois.known.begin(), rois.known.end(), before);
  }
  for (int64 n : rois.unknown) {
    std::fill_n(pooled + n * op.channels * bins, op.channels * bins, 0.0f);
    if (argmax) std::fill_n(argmax + n * op.channels * bins, op.channels * bins, -1);
  }

  std::vector<WorkItem> items;
  double cost = 0;
  const Roi* const last = rois.known.data() + rois.known.size();
  for (const Roi *begin = rois.known.data(), *end = begin; begin < last; begin = end) {
    while (end < last && end->image == begin->image) ++end;
    cost += add_items(items, begin, end, op);
  }
  if (items.empty()) return;
  parallel_for((int64)items.size(), cost / (double)items.size(), [&](int64 w) {
    const int lanes = lanes_for(op.channels - items[w].channel);
    with_pixel(lanes, [&](auto type) __attribute__((always_inline)) {
      pool_item<typename decltype(type)::Of>(call, items[w]);
    });
  });
}

}  // namespace cvops
