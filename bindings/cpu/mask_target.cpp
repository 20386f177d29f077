#include "mask_target.h"

#include <algorithm>
#include <iomanip>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

namespace {

void refuse_unknown_matches(MaskTargetInputs in, const MaskTargetShape& shape, int classes) {
  for (int64 n = 0; n < (int64)shape.images * shape.rois; ++n) {
    const int match = truncated(in.matches[n]);
    if ((match >= 0 && match < shape.masks) || !is_class(in.cls_targets[n], classes)) continue;
    std::ostringstream message;
    message.imbue(std::locale::classic());
    message << std::setprecision(9) << "matches: expected an index of " << shape.masks
            << " gt_masks where cls_targets is a class, got " << in.matches[n] << " in image "
            << n / shape.rois << ", roi " << n % shape.rois;
    throw std::invalid_argument(message.str());
  }
}

// The samples of the columns of bins: sample k of bin j is element k * bins + j. Bins with fewer
// samples in the mask have elements that are not inside.
struct Columns {
  int bins, most;   // most: samples of a bin
  int first, last;  // pixels of the samples
  std::vector<int> low, high, inside;
  std::vector<float> low_weight, high_weight;
  std::vector<int> outside;  // per bin: true if it has samples outside of the mask

  void find(const RoiAlignAxis& axis, int num_bins, int size) {
    bins = num_bins, most = 0;
    outside.assign(bins, 0);
    for (int j = 0; j < bins; ++j) {
      const Range range = samples_in_map(axis, j, size);
      most = std::max(most, range.end - range.begin);
      outside[j] = range.end - range.begin < axis.samples;
    }
    const std::size_t num = (std::size_t)most * bins;
    low.assign(num, 0), high.assign(num, 0), inside.assign(num, 0);
    low_weight.assign(num, 0.0f), high_weight.assign(num, 0.0f);
    first = size - 1, last = 0;
    for (int j = 0; j < bins; ++j) {
      const Range range = samples_in_map(axis, j, size);
      for (int k = range.begin; k < range.end; ++k) {
        const AxisSample sample = axis_sample(axis.position(j, k), size);
        outside[j] |= !sample.inside();
        if (!sample.inside()) continue;
        const int at = (k - range.begin) * bins + j;
        low[at] = sample.low, high[at] = sample.high, inside[at] = -1;
        low_weight[at] = sample.low_weight, high_weight[at] = sample.high_weight;
        first = std::min(first, sample.low), last = std::max(last, sample.high);
      }
    }
  }
};

// Adds a sample of each bin of a row of bins. `low` and `high` are rows of the mask.
void add_samples(float* __restrict__ sums, const Columns& columns, int k, const float* low,
                 const float* high, AxisSample y) {
  const int* __restrict__ left = columns.low.data() + k * columns.bins;
  const int* __restrict__ right = columns.high.data() + k * columns.bins;
  const int* __restrict__ inside = columns.inside.data() + k * columns.bins;
  const float* __restrict__ left_weight = columns.low_weight.data() + k * columns.bins;
  const float* __restrict__ right_weight = columns.high_weight.data() + k * columns.bins;
  for (int j = 0; j < columns.bins; ++j) {
    const float a = y.low_weight * left_weight[j], b = y.low_weight * right_weight[j];
    const float c = y.high_weight * left_weight[j], d = y.high_weight * right_weight[j];
    const float sum =
        sums[j] + (a * low[left[j]] + b * low[right[j]] + c * high[left[j]] + d * high[right[j]]);
    sums[j] = inside[j] ? sum : sums[j];
  }
}

// Loads the pixels of a row of bins into the L1 cache. A mask is larger than the near caches, and
// the hardware prefetcher does not follow the distance between rows.
void prefetch_bins(const Columns& columns, const RoiAlignAxis& axis, int bin, const float* mask,
                   const RoiAlign& op) {
  constexpr int kLine = 16;  // floats of a cache line
  const Range rows = samples_in_map(axis, bin, op.height);
  for (int k = rows.begin; k < std::min(rows.end, rows.begin + kFewSamples); ++k) {
    const AxisSample y = axis_sample(axis.position(bin, k), op.height);
    if (!y.inside()) continue;
    for (int row : {y.low, y.high}) {
      const float* const from = mask + (int64)row * op.width;
      for (int at = columns.first; at <= columns.last; at += kLine) __builtin_prefetch(from + at);
      __builtin_prefetch(from + columns.last);
    }
  }
}

// Means of the bins of an RoI: the values of mean_of_bin.
void find_means(float* means, Columns& columns, const AlignedRoi& roi, const float* mask,
                const RoiAlign& op) {
  if (roi.y.samples == 0 || roi.x.samples == 0) return (void)std::fill_n(means, op.bins(), 0.0f);
  columns.find(roi.x, op.pooled_width, op.width);
  constexpr int kAhead = 2;  // rows of bins
  for (int i = 0; i < op.pooled_height; ++i) {
    if (i + kAhead < op.pooled_height) prefetch_bins(columns, roi.y, i + kAhead, mask, op);
    float* const sums = means + (int64)i * op.pooled_width;
    std::fill_n(sums, op.pooled_width, 0.0f);
    const Range rows = samples_in_map(roi.y, i, op.height);
    bool outside = rows.end - rows.begin < roi.y.samples;
    for (int k = rows.begin; k < rows.end; ++k) {
      const AxisSample y = axis_sample(roi.y.position(i, k), op.height);
      outside |= !y.inside();
      if (!y.inside()) continue;
      for (int l = 0; l < columns.most; ++l) {
        add_samples(sums, columns, l, mask + (int64)y.low * op.width,
                    mask + (int64)y.high * op.width, y);
      }
    }
    for (int j = 0; j < op.pooled_width; ++j) {
      if (outside || columns.outside[j]) sums[j] += 0.0f * mask[0];
      sums[j] = divided(sums[j], roi.count);
    }
  }
}

}  // namespace

void mask_target(const Cpu&, float* targets, float* weights, MaskTargetInputs in,
                 MaskTargetShape shape, MaskTargetOptions options) {
  const int64 rois = (int64)shape.images * shape.rois, bins = options.bins();
  const int64 outputs = rois * options.classes * bins;
  if (outputs == 0) return;
  refuse_unknown_matches(in, shape, options.classes);
  const RoiAlign op = mask_planes(shape, options);
  const int64 pixels = (int64)shape.height * shape.width;
  const bool streams = worth_streaming_parts(8 * outputs);
  const std::vector<float> zeros(bins), ones(bins, 1.0f);
  const auto write = [&](float* to, const float* from) {
    streams ? stream(to, from, bins) : (void)std::copy_n(from, bins, to);
  };
  const double samples = options.sample_ratio > 0 ? options.sample_ratio : 4;
  const double cost = bins * (2 * samples * samples + 0.5 * options.classes);
  parallel_for(rois, cost, [&](int64 n) {
    Columns columns;
    std::vector<float> means(bins);
    if (shape.masks * pixels > 0) {
      const int mask = mask_of_match(in.matches[n], shape.masks);
      const float* const plane = in.gt_masks + (n / shape.rois * shape.masks + mask) * pixels;
      const AlignedRoi roi = roi_of_mask(load_box(in.rois, n), op);
      simd<find_means>(means.data(), columns, roi, plane, op);
    }
    for (int c = 0; c < options.classes; ++c) {
      const int64 at = (n * options.classes + c) * bins;
      write(targets + at, means.data());
      write(weights + at, in.cls_targets[n] == (float)c ? ones.data() : zeros.data());
    }
    if (streams) streamed();
  });
}

}  // namespace cvops
