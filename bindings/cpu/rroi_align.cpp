#include "rroi_align.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "interleaved.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kTile = 64;  // bins whose values are transposed at once

// Samples for which tables are made at once. A table takes 16 bytes for each.
constexpr double kSamplesAtOnce = 1 << 17;

// A sample in the map: its upper left pixel, and the weights of the lower and the right pixels.
struct Sample {
  int row, column;
  float low_weight, right_weight;
};

// Samples of a bin: those in the map.
struct BinSamples {
  int begin, count;
  bool outside;  // true if the bin has other samples too
};

// Tables of an RoI.
struct Roi {
  int64 number;
  int image;
  Window window;  // of the pixels that the samples touch
  SampleCount count;
  std::vector<BinSamples> bins;
  std::vector<Sample> samples;
};

void find_samples(Roi& out, const RotatedRoi& roi, const RroiAlign& op) {
  for (int i = 0; i < op.pooled_height; ++i) {
    for (int j = 0; j < op.pooled_width; ++j) {
      const RotatedBin bin = samples_near_map(roi, i, j, op);
      const int begin = (int)out.samples.size();
      bool outside = !bin.all(roi);
      for (int k = bin.rows.begin; k < bin.rows.end; ++k) {
        const float along_y = roi.y.position(i, k);
        for (int l = bin.columns.begin; l < bin.columns.end; ++l) {
          const float along_x = roi.x.position(j, l);
          const AxisSample y = axis_sample(roi.row(along_y, along_x), op.height);
          const AxisSample x = axis_sample(roi.column(along_y, along_x), op.width);
          if (!y.inside() || !x.inside()) {
            outside = true;
            continue;
          }
          out.samples.push_back({y.low, x.low, y.high_weight, x.high_weight});
          out.window = bounds_of(out.window, {{y.low, y.high + 1}, {x.low, x.high + 1}});
        }
      }
      out.bins.push_back({begin, (int)out.samples.size() - begin, outside});
    }
  }
}

// Upper limit of the samples of an RoI in the map.
double max_samples(const RotatedRoi& roi, const RroiAlign& op) {
  return (double)op.bins() * roi.y.samples * roi.x.samples;
}

struct Call {
  const float* data;
  float* pooled;
  RroiAlign op;
  bool streams;
};

// Interleaved planes of some channels in a window.
template <typename P>
struct Planes {
  Window window;
  P* pixels;
};

// Mean of the samples of a bin. `first` has the products of 0 and the first pixel of each plane.
template <typename P>
CVOPS_INLINE void mean_of_bin(P& mean, const Planes<P>& planes, const P& first, const Roi& roi,
                              const BinSamples& bin, const RroiAlign& op) {
  const int64 pitch = planes.window.columns.end - planes.window.columns.begin;
  P sum = {};
  const Sample* const end = roi.samples.data() + bin.begin + bin.count;
  for (const Sample* s = end - bin.count; s < end; ++s) {
    const P* const a = planes.pixels + planes.window.index(s->row, s->column);
    const P* const c = s->row + 1 < op.height ? a + pitch : a;
    const int right = s->column + 1 < op.width;
    const float high_weight = 1.0f - s->low_weight, left_weight = 1.0f - s->right_weight;
    typename P::V weights[4] = {};
    fill(weights[0], high_weight * left_weight);
    fill(weights[1], high_weight * s->right_weight);
    fill(weights[2], s->low_weight * left_weight);
    fill(weights[3], s->low_weight * s->right_weight);
    for (int v = 0; v < P::kVectors; ++v) {
      sum.of[v] += weights[0] * a->of[v] + weights[1] * a[right].of[v] + weights[2] * c->of[v] +
                   weights[3] * c[right].of[v];
    }
  }
  if (roi.count.value == 0.0f) return (void)(mean = {});
  if (bin.outside) {
    for (int v = 0; v < P::kVectors; ++v) sum.of[v] += first.of[v];
  }
  typename P::V reciprocal, count;
  fill(reciprocal, roi.count.reciprocal);
  fill(count, roi.count.value);
  for (int v = 0; v < P::kVectors; ++v) {
    mean.of[v] = roi.count.reciprocal > 0.0f ? sum.of[v] * reciprocal : sum.of[v] / count;
  }
}

// Pools an RoI; the results of the work item begin at `to`. `staged` is a buffer for non-temporal
// stores, or null.
template <typename P>
CVOPS_INLINE void pool(const Call& call, float* to, const Roi& roi, const Planes<P>& planes,
                       const P& first, int channels, float* staged) {
  const int num_bins = call.op.bins();
  float* const pooled = staged ? staged : to;
  P means[kTile];
  for (int begin = 0; begin < num_bins; begin += kTile) {
    const int num = std::min(kTile, num_bins - begin);
    for (int i = 0; i < num; ++i) {
      mean_of_bin(means[i], planes, first, roi, roi.bins[begin + i], call.op);
    }
    transpose<P::kWidth>(pooled + begin, num_bins, (const float*)means, P::kLanes, num, channels);
  }
  if (staged) stream<P::kWidth>(to, staged, (int64)channels * num_bins);
}

template <typename P>
CVOPS_INLINE void copy_planes(const Planes<P>& planes, const float* first, int64 pitch, int width,
                              int channels) {
  interleave<P::kWidth>(planes.pixels, first, pitch, width, planes.window, channels);
}

// Pools the RoIs [begin, end) of one image in some channels.
template <typename P>
CVOPS_INLINE void pool_item(const Call& call, const Roi* begin, const Roi* end, int channel) {
  const RroiAlign& op = call.op;
  const int channels = std::min(P::kLanes, op.channels - channel);
  const int64 num_bins = op.bins(), pitch = (int64)op.height * op.width;
  const float* const data = call.data + op.plane(begin->image, channel, 0) * pitch;
  Planes<P> planes = {{}, nullptr};
  for (const Roi* roi = begin; roi < end; ++roi) {
    planes.window = bounds_of(planes.window, roi->window);
  }
  const int64 area = planes.window.pixels();
  const std::unique_ptr<P[]> memory(new P[area + (call.streams ? num_bins : 0)]);
  planes.pixels = memory.get();
  copy_planes(planes, data, pitch, op.width, channels);
  P first = {};
  for (int k = 0; k < channels; ++k)
    first.of[k / P::kWidth][k % P::kWidth] = 0.0f * data[k * pitch];
  float* const staged = call.streams ? (float*)(memory.get() + area) : nullptr;
  for (const Roi* roi = begin; roi < end; ++roi) {
    float* const to = call.pooled + (roi->number * op.channels + channel) * num_bins;
    pool(call, to, *roi, planes, first, channels, staged);
  }
  if (call.streams) streamed();
}

// Pools RoIs of one image.
void pool_rois(const Call& call, const std::vector<Roi>& rois) {
  const RroiAlign& op = call.op;
  const int64 num = (int64)rois.size(), blocks = ceil_div(op.channels, kMaxLanes);
  Window window = {};
  double separate = 0, samples = 0;
  for (const Roi& roi : rois) {
    window = bounds_of(window, roi.window);
    separate += roi.window.pixels();
    samples += roi.samples.size();
  }
  const double together = window.pixels();
  const double pooling = kMaxLanes * (0.2 * samples + 0.2 * op.bins() * num);
  // Each work item interleaves its planes itself, so there are only enough of them to occupy the
  // threads; or an item is one RoI, if the RoIs have few pixels.
  int64 parts = num;
  double interleaving = 0.2 * kMaxLanes * separate;
  if (separate > together) {
    interleaving = 0.2 * kMaxLanes * together;
    const double worth = std::min(4.0 * num_threads() / blocks, pooling / (4 * interleaving));
    parts = std::clamp<int64>((int64)worth, 1, num);
    interleaving *= parts;
  }
  parallel_for(blocks * parts, (interleaving + pooling) / parts, [&](int64 item) {
    const int channel = (int)(item / parts) * kMaxLanes;
    const int64 part = item % parts;
    const Roi* const begin = rois.data() + num * part / parts;
    const Roi* const end = rois.data() + num * (part + 1) / parts;
    // With 16, RoIs of many samples are slower: 1.1 times.
    with_pixel<float, 8>(lanes_for(op.channels - channel),
                         [&](auto type) __attribute__((always_inline)) {
                           pool_item<typename decltype(type)::Of>(call, begin, end, channel);
                         });
  });
}

}  // namespace

void rroi_align(const Cpu&, float* pooled, const float* data, const float* boxes, int64 num_rois,
                RroiAlign op) {
  const int64 of_roi = (int64)op.channels * op.bins();
  if (num_rois * of_roi == 0) return;
  if ((int64)op.images * op.height * op.width == 0) {
    return (void)std::fill_n(pooled, num_rois * of_roi, 0.0f);
  }
  const bool streams =
      op.bins() <= kMaxStaged && worth_streaming_parts((int64)sizeof(float) * num_rois * of_roi);
  const Call call = {data, pooled, op, streams};
  std::vector<std::pair<int64, RotatedRoi>> known;
  known.reserve(num_rois);
  for (int64 n = 0; n < num_rois; ++n) {
    const RotatedRoi roi = rotated_roi(boxes + 6 * n, angle_of(boxes + 6 * n), op);
    if (roi.image < 0) {
      std::fill_n(pooled + n * of_roi, of_roi, 0.0f);
    } else {
      known.push_back({n, roi});
    }
  }
  std::stable_sort(known.begin(), known.end(),
                   [](const auto& a, const auto& b) { return a.second.image < b.second.image; });
  std::vector<Roi> tables;
  for (auto begin = known.begin(), end = begin; begin < known.end(); begin = end) {
    double samples = 0;
    do {
      samples += max_samples(end->second, op);
      ++end;
    } while (end < known.end() && end->second.image == begin->second.image &&
             samples + max_samples(end->second, op) <= kSamplesAtOnce);
    tables.clear();
    tables.resize(end - begin);
    parallel_for(end - begin, 10 * samples / (double)(end - begin), [&](int64 i) {
      const RotatedRoi& roi = begin[i].second;
      Roi& table = tables[i];
      table = {begin[i].first, roi.image, {}, roi.count, {}, {}};
      table.bins.reserve(op.bins());
      table.samples.reserve((size_t)std::min(max_samples(roi, op), kSamplesAtOnce));
      simd<find_samples>(table, roi, op);
    });
    pool_rois(call, tables);
  }
}

}  // namespace cvops
