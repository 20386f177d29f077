// Runs every op of the CPU on random inputs, for each vector width and several numbers of threads.
// Prints "op width threads hash" with a hash of the results. All hashes of an op must be equal, on
// every machine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <vector>

#include "ops.h"
#include "simd.h"

namespace {

using namespace cvops;

// A random generator with equal numbers on every machine.
class Numbers {
 public:
  explicit Numbers(uint64 seed) : state_(seed) {}

  uint32 integer() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32)(state_ >> 33);
  }

  // A number in [0, 1) from 4096 values, which gives ties.
  float real() { return (float)(integer() % 4096) / 4096; }

  // Writes boxes with sides up to `side` into rows of `width` numbers, from column `first` on. Some
  // boxes are empty, are inverted, or contain NaN.
  void boxes(Floats& rows, int width, int first, float side) {
    for (size_t i = first; i + 4 <= rows.size(); i += width) {
      const float x = real(), y = real();
      const float values[] = {x, y, x + side * real(), y + side * real()};
      std::copy_n(values, 4, &rows[i]);
      if (integer() % 50 == 0) rows[i + integer() % 4] = special();
    }
  }

  // Writes rotated boxes with sides up to 0.5. Some have no area or contain NaN.
  void rotated_boxes(Floats& rows, int width, int first) {
    for (size_t i = first; i + 5 <= rows.size(); i += width) {
      const float x = real(), y = real(), side = 0.5f * real(), other = 0.5f * real();
      const float values[] = {x, y, side, other, 400 * real() - 200};
      std::copy_n(values, 5, &rows[i]);
      if (integer() % 50 == 0) rows[i + integer() % 5] = special();
    }
  }

  float special() {
    const float infinity = std::numeric_limits<float>::infinity();
    const float values[] = {std::nanf(""), infinity, -infinity, -0.0f, -1.0f, 1e-42f, 3e38f};
    return values[integer() % 7];
  }

  Floats reals(int64 num, bool with_special = true) {
    Floats x(num);
    for (float& value : x) {
      value = with_special && integer() % 200 == 0 ? special() : 4 * real() - 2;
    }
    return x;
  }

 private:
  uint64 state_;
};

// A hash of all bits (FNV-1a). All NaN count as equal, because their bits depend on the machine.
class Hash {
 public:
  void add(const Floats& x) {
    for (float value : x) add(value != value ? 0x7fc00000u : bits_of(value));
  }
  template <typename T>
  void add(const std::vector<T>& x) {
    for (T value : x) add((uint64)value);
  }
  void add(uint64 value) { value_ = (value_ ^ value) * 0x100000001b3ull; }
  uint64 value() const { return value_; }

 private:
  uint64 value_ = 0xcbf29ce484222325ull;
};

Hash run_bipartite_matching() {
  Hash hash;
  constexpr int64 kRows = 200;
  for (int64 num : {1, 7, 33, 300}) {
    for (bool is_ascend : {false, true}) {
      const Floats data = Numbers(num).reals(2 * kRows * num);
      Floats columns(2 * kRows), rows(2 * num);
      bipartite_matching(kCpu, columns.data(), rows.data(), data.data(), {2, kRows, num},
                         {0.5f, is_ascend, num > 100 ? 20 : -1});
      hash.add(columns), hash.add(rows);
    }
  }
  return hash;
}

Hash run_box_decode() {
  Hash hash;
  for (int num : {1, 7, 300, 3000}) {
    constexpr int kBatch = 2;
    Numbers numbers(num);
    Floats anchors(4 * num), out(kBatch * 4 * num);
    numbers.boxes(anchors, 4, 0, 0.5f);
    const Floats data = numbers.reals((int64)out.size());
    for (bool corner : {false, true}) {
      box_decode(kCpu, out.data(), data.data(), anchors.data(), kBatch, num,
                 {0.1f, 0.1f, 0.2f, 0.2f, 0.3f, corner});
      hash.add(out);
    }
  }
  return hash;
}

Hash run_box_encode() {
  Hash hash;
  for (int num : {1, 7, 300, 3000}) {
    constexpr int kBatch = 2, kRefs = 5;
    Numbers numbers(num);
    Floats anchors(kBatch * 4 * num), refs(kBatch * 4 * kRefs), matches(kBatch * num);
    Floats targets(anchors.size()), masks(anchors.size());
    numbers.boxes(anchors, 4, 0, 0.5f);
    numbers.boxes(refs, 4, 0, 0.5f);
    for (float& match : matches) match = (float)(numbers.integer() % kRefs);
    const Floats samples = numbers.reals((int64)matches.size());
    const float means[] = {0, 0.1f, -0.2f, 0.3f}, stds[] = {0.1f, 0.1f, 0.2f, 0.2f};
    box_encode(kCpu, targets.data(), masks.data(),
               {samples.data(), matches.data(), anchors.data(), refs.data(), means, stds}, kBatch,
               num, kRefs);
    hash.add(targets), hash.add(masks);
  }
  return hash;
}

Hash run_box_iou() {
  Hash hash;
  for (int num : {1, 7, 33, 300}) {
    Floats lhs(4 * 501), rhs(4 * num), out(501 * num);
    Numbers numbers(num);
    numbers.boxes(lhs, 4, 0, 0.5f);
    numbers.boxes(rhs, 4, 0, 0.5f);
    for (bool center : {false, true}) {
      box_iou(kCpu, out.data(), lhs.data(), rhs.data(), 501, num, center);
      hash.add(out);
      for (IouKind kind : {IouKind::iou, IouKind::giou, IouKind::diou, IouKind::ciou}) {
        Floats lhs_grad(lhs.size()), rhs_grad(rhs.size());
        box_iou_backward(kCpu, lhs_grad.data(), rhs_grad.data(), out.data(), lhs.data(), rhs.data(),
                         501, num, center, kind);
        hash.add(lhs_grad), hash.add(rhs_grad);
        if (kind == IouKind::iou) continue;
        box_iou_kind(kCpu, out.data(), lhs.data(), rhs.data(), 501, num, center, kind);
        hash.add(out);
      }
    }
  }
  return hash;
}

Hash run_box_iou_rotated() {
  Hash hash;
  for (int num : {1, 7, 33, 300}) {
    Floats lhs(5 * 201), rhs(5 * num), out(201 * num);
    Numbers numbers(num);
    numbers.rotated_boxes(lhs, 5, 0);
    numbers.rotated_boxes(rhs, 5, 0);
    for (bool radians : {false, true}) {
      box_iou_rotated(kCpu, out.data(), lhs.data(), rhs.data(), 201, num, {radians, radians});
      hash.add(out);
    }
  }
  return hash;
}

Hash run_box_nms() {
  Hash hash;
  constexpr int kBatch = 2, kWidth = 6;
  for (int num : {1, 31, 257, 3000}) {
    for (float threshold : {0.5f, 0.0f, -1.0f}) {
      for (bool by_class : {false, true}) {
        Floats data(kBatch * num * kWidth), out(data.size());
        std::vector<int> index(kBatch * num);
        Numbers numbers(num);
        numbers.boxes(data, kWidth, 2, 0.2f);
        for (size_t i = 0; i < data.size(); i += kWidth) {
          data[i] = (float)(numbers.integer() % 4) - 1;
          data[i + 1] = numbers.real() - 0.1f;
        }
        NmsOptions options = {
            {kWidth, 1, 2, 0}, {threshold, false, by_class, by_class}, 0, -1, 0, num};
        box_nms(kCpu, out.data(), index.data(), data.data(), kBatch, num, options);
        hash.add(out), hash.add(index);
        Floats grad(data.size());
        box_nms_backward(kCpu, grad.data(), data.data(), index.data(), kBatch, num, kWidth);
        hash.add(grad);
      }
    }
  }
  return hash;
}

Hash run_multibox_prior() {
  Hash hash;
  const float sizes[] = {0.2f, 0.3f, 0.5f, 0.7f, 0.1f}, ratios[] = {1, 1, 1, 2, 0.5f};
  for (bool clip : {false, true}) {
    std::vector<PriorMap> maps;
    std::vector<HalfSize> half;
    int64 anchors = 0;
    for (int side : {1, 5, 37}) {
      for (int num : {1, 4, 5}) {
        maps.push_back({side, side + 3, num, 1.0f / side, 1.0f / (side + 3), 0.5f, 0.4f});
        anchors += maps.back().anchors();
        for (int s = 0; s < num; ++s) {
          half.push_back(prior_half_size(maps.back(), sizes[s], ratios[s]));
        }
      }
    }
    Floats out(4 * anchors);
    multibox_prior(kCpu, out.data(), {maps.data(), (int)maps.size(), half.data()}, clip);
    hash.add(out);
  }
  return hash;
}

Hash run_multibox_target() {
  Hash hash;
  for (int anchors : {1, 130, 2500}) {
    for (int num_gt : {1, 9}) {
      for (float ratio : {-1.0f, 3.0f}) {
        constexpr int kImages = 3, kClasses = 5, kWidth = 6;
        Numbers numbers(anchors + num_gt);
        Floats anchor(4 * anchors), label(kImages * num_gt * kWidth);
        numbers.boxes(anchor, 4, 0, 0.4f);
        numbers.boxes(label, kWidth, 1, 0.4f);
        for (size_t i = 0; i < label.size(); i += kWidth) {
          const bool ends = numbers.integer() % 8 == 0;
          label[i] = ends ? -1.0f : (float)(numbers.integer() % kClasses);
          if (ends) std::fill_n(&label[i + 1], 4, -1.0f);
        }
        const Floats cls_pred = numbers.reals((int64)kImages * kClasses * anchors);
        Floats loc(kImages * anchors * 4), mask(loc.size()), cls(kImages * anchors);
        multibox_target(kCpu, {loc.data(), mask.data(), cls.data()},
                        {anchor.data(), label.data(), cls_pred.data()},
                        {kImages, anchors, num_gt, kWidth, kClasses},
                        {0.5f, -1, ratio, 0.5f, 0.1f, 0.1f, 0.2f, 0.2f});
        hash.add(loc), hash.add(mask), hash.add(cls);
      }
    }
  }
  return hash;
}

Hash run_multibox_detection() {
  Hash hash;
  for (int num : {1, 130, 2500}) {
    for (int classes : {2, 8}) {
      for (int topk : {100, num}) {
        constexpr int kBatch = 3;
        Numbers numbers(num + classes);
        Floats anchors(4 * num);
        numbers.boxes(anchors, 4, 0, 0.4f);
        const Floats prob = numbers.reals((int64)kBatch * classes * num);
        const Floats loc = numbers.reals((int64)kBatch * 4 * num);
        Floats out((int64)kBatch * num * 6);
        const NmsRule rule = {0.5f, true, classes > 2, false};
        multibox_detection(
            kCpu, out.data(), {prob.data(), loc.data(), anchors.data(), kBatch, classes, num},
            {topk < num, 0.01f, {0.1f, 0.1f, 0.2f, 0.2f}, rule, true, std::min(topk, num)});
        hash.add(out);
      }
    }
  }
  return hash;
}

// Rows of a class, a score and a box, and the options of their candidates.
template <typename Run>
Hash run_on_rows(const Run& run) {
  Hash hash;
  for (int num : {1, 130, 1500}) {
    for (bool by_class : {false, true}) {
      constexpr int kBatch = 2;
      Numbers numbers(num);
      Floats data = numbers.reals((int64)kBatch * num * 6);
      numbers.boxes(data, 6, 2, 0.3f);
      for (int i = 0; i < kBatch * num; ++i) data[6 * i] = (float)(i % 3);
      const int rows = num - num / 10;
      Floats out((int64)kBatch * rows * 6);
      std::vector<int> index(kBatch * rows);
      const NmsOptions candidates = {
          {6, 1, 2, 0}, {0, false, by_class, by_class}, 0.01f, -1, kNmsAsIs, num};
      for (bool gaussian : {false, true}) {
        run(out.data(), index.data(), data.data(), kBatch, num, candidates, gaussian, rows);
        hash.add(out), hash.add(index);
      }
    }
  }
  return hash;
}

Hash run_matrix_nms() {
  return run_on_rows([](float* out, int* index, const float* data, int64 batch, int64 num,
                        const NmsOptions& candidates, bool gaussian, int rows) {
    const NmsRule rule = candidates.rule;
    matrix_nms(kCpu, out, index, data, batch, num,
               {candidates, {2, gaussian, rule.by_class, rule.center}, 0.1f, rows});
  });
}

Hash run_soft_nms() {
  return run_on_rows([](float* out, int* index, const float* data, int64 batch, int64 num,
                        const NmsOptions& candidates, bool gaussian, int rows) {
    const NmsRule rule = candidates.rule;
    soft_nms(kCpu, out, index, data, batch, num,
             {candidates, {0.3f, 0.5f, gaussian, rule.by_class, rule.center}, rows});
  });
}

Hash run_weighted_boxes_fusion() {
  return run_on_rows([](float* out, int* index, const float* data, int64 batch, int64 num,
                        const NmsOptions& candidates, bool best_score, int rows) {
    const NmsRule rule = candidates.rule;
    weighted_boxes_fusion(kCpu, out, data, batch, num,
                          {candidates, {0.2f, 3, best_score, rule.by_class, rule.center}, rows});
    std::fill_n(index, batch * rows, 0);
  });
}

Hash run_multiclass_nms() {
  Hash hash;
  for (int num : {1, 130, 25000}) {
    for (int topk : {1, 40, 900}) {
      for (bool by_class : {false, true}) {
        constexpr int kBatch = 2, kClasses = 5;
        Numbers numbers(num + topk);
        Floats boxes(kBatch * num * 4);
        numbers.boxes(boxes, 4, 0, 0.3f);
        const Floats scores = numbers.reals((int64)kBatch * kClasses * num);
        const int rows = std::min(topk, kClasses * num);
        Floats out((int64)kBatch * rows * 6);
        std::vector<int> counts(kBatch);
        multiclass_nms(kCpu, out.data(), counts.data(),
                       {boxes.data(), scores.data(), kBatch, kClasses, num},
                       {{0.2f, num, 2 * num}, {0.5f, false, by_class, by_class}, rows, rows});
        hash.add(out), hash.add(counts);
      }
    }
  }
  return hash;
}

Hash run_nms_rotated() {
  Hash hash;
  constexpr int kBatch = 2, kWidth = 7;
  for (int num : {1, 31, 257, 2000}) {
    for (float threshold : {0.5f, 0.0f, -1.0f}) {
      for (bool by_class : {false, true}) {
        Floats data(kBatch * num * kWidth), out(data.size());
        std::vector<int> index(kBatch * num);
        Numbers numbers(num);
        numbers.rotated_boxes(data, kWidth, 2);
        for (size_t i = 0; i < data.size(); i += kWidth) {
          data[i] = (float)(numbers.integer() % 4) - 1;
          data[i + 1] = numbers.real() - 0.1f;
        }
        NmsOptions options = {
            {kWidth, 1, 2, 0}, {threshold, false, by_class, false}, 0, -1, 0, num};
        nms_rotated(kCpu, out.data(), index.data(), data.data(), kBatch, num, options,
                    {by_class, by_class});
        hash.add(out), hash.add(index);
      }
    }
  }
  return hash;
}

Hash run_proposal() {
  Hash hash;
  const float scales[] = {2, 4}, ratios[] = {0.5f, 1, 2};
  const ProposalAnchors anchors = proposal_anchors(scales, 2, ratios, 3, 16);
  for (int width : {1, 9, 70}) {
    for (bool corners : {false, true}) {
      constexpr int kBatch = 2, kAnchors = 6, kHeight = 20, kRows = 200;
      const int64 cells = kHeight * width;
      Numbers numbers(width);
      const Floats prob = numbers.reals(kBatch * 2 * kAnchors * cells);
      const Floats offsets = numbers.reals(kBatch * 4 * kAnchors * cells);
      const Floats info = {300, 16.0f * width, 1, 320, 12.0f * width, 2};
      Floats out(kBatch * kRows * 5), scores(kBatch * kRows);
      proposal(kCpu, out.data(), scores.data(),
               {prob.data(), offsets.data(), info.data(), kBatch, kAnchors, kHeight, width},
               anchors, {16, 10, corners, 6000, kRows}, 0.7f);
      hash.add(out), hash.add(scores);
    }
  }
  return hash;
}

Hash run_roi_pooling() {
  Hash hash;
  for (int channels : {1, 5, 40}) {
    for (int num : {1, 60}) {
      constexpr int kImages = 2, kHeight = 19, kWidth = 23, kPooled = 5;
      const RoiPooling op = {kImages, channels, kHeight, kWidth, kPooled, kPooled + 2, 0.5f};
      Numbers numbers(channels + num);
      const Floats data = numbers.reals((int64)kImages * channels * kHeight * kWidth);
      Floats rois(5 * num);
      for (int n = 0; n < num; ++n) {
        const float x = 40 * numbers.real(), y = 30 * numbers.real();
        const float roi[] = {(float)(numbers.integer() % 5) - 1, x, y, x + 30 * numbers.real() - 2,
                             y + 30 * numbers.real() - 2};
        std::copy_n(roi, 5, &rois[5 * n]);
      }
      const int bins = kPooled * (kPooled + 2);
      Floats pooled((int64)num * channels * bins), without_argmax(pooled.size()), grad(data.size());
      std::vector<int> argmax(pooled.size());
      roi_pooling(kCpu, pooled.data(), argmax.data(), data.data(), rois.data(), num, op);
      roi_pooling(kCpu, without_argmax.data(), nullptr, data.data(), rois.data(), num, op);
      const Floats out_grad = numbers.reals((int64)pooled.size(), false);
      roi_pooling_backward(kCpu, grad.data(), out_grad.data(), argmax.data(),
                           {num, bins, kImages, channels, kHeight * kWidth});
      hash.add(pooled), hash.add(without_argmax), hash.add(argmax), hash.add(grad);
    }
  }
  return hash;
}

Hash run_roi_align() {
  Hash hash;
  for (int channels : {1, 5, 40}) {
    for (int sample_ratio : {-1, 2, 3}) {
      constexpr int kImages = 2, kHeight = 19, kWidth = 23, kPooled = 5, kRois = 30;
      const RoiAlign op = {kImages,     channels, kHeight,      kWidth, kPooled,
                           kPooled + 2, 0.5f,     sample_ratio, false,  sample_ratio < 0};
      Numbers numbers(channels + sample_ratio);
      const Floats data = numbers.reals((int64)kImages * channels * kHeight * kWidth, false);
      Floats rois(5 * kRois);
      for (int n = 0; n < kRois; ++n) {
        const float x = 40 * numbers.real(), y = 30 * numbers.real();
        const float roi[] = {(float)(numbers.integer() % 5) - 1, x, y, x + 30 * numbers.real() - 2,
                             y + 30 * numbers.real() - 2};
        std::copy_n(roi, 5, &rois[5 * n]);
      }
      Floats pooled((int64)kRois * channels * op.bins()), grad(data.size());
      roi_align(kCpu, pooled.data(), data.data(), rois.data(), kRois, op);
      roi_align_backward(kCpu, grad.data(), pooled.data(), rois.data(), kRois, op);
      hash.add(pooled), hash.add(grad);
    }
  }
  return hash;
}

Hash run_adaptive_avg_pooling() {
  Hash hash;
  for (int planes : {1, 5, 40}) {
    for (int bins : {1, 3, 9}) {
      const AdaptivePooling op = {19, 23, 5, bins};
      Numbers numbers(planes + bins);
      const Floats data = numbers.reals((int64)planes * 19 * 23);
      Floats out((int64)planes * 5 * bins), grad(data.size());
      adaptive_avg_pooling(kCpu, out.data(), data.data(), planes, op);
      adaptive_avg_pooling_backward(kCpu, grad.data(), out.data(), planes, op);
      hash.add(out), hash.add(grad);
    }
  }
  return hash;
}

Hash run_bilinear_resize() {
  Hash hash;
  for (int planes : {1, 5, 40}) {
    for (int side : {7, 18, 70}) {
      const BilinearResize op = {19, 23, side, side + 5, side == 18};
      Numbers numbers(planes + side);
      const Floats data = numbers.reals((int64)planes * 19 * 23);
      const Floats out_grad = numbers.reals((int64)planes * side * (side + 5));
      Floats out(out_grad.size()), grad(data.size());
      bilinear_resize(kCpu, out.data(), data.data(), planes, op);
      bilinear_resize_backward(kCpu, grad.data(), out_grad.data(), planes, op);
      hash.add(out), hash.add(grad);
    }
  }
  return hash;
}

Hash run_psroi_pooling() {
  Hash hash;
  for (int dim : {1, 5, 40}) {
    for (int group : {1, 2, 5}) {
      constexpr int kImages = 2, kHeight = 19, kWidth = 23, kPooled = 5, kRois = 30;
      const Psroi op = {kImages, dim * group * group, kHeight, kWidth, dim, kPooled, group, 0.5f};
      Numbers numbers(dim + group);
      const Floats data = numbers.reals((int64)kImages * op.channels * kHeight * kWidth, false);
      Floats rois(5 * kRois);
      for (int n = 0; n < kRois; ++n) {
        const float x = 40 * numbers.real(), y = 30 * numbers.real();
        const float roi[] = {(float)(numbers.integer() % 5) - 1, x, y, x + 30 * numbers.real() - 2,
                             y + 30 * numbers.real() - 2};
        std::copy_n(roi, 5, &rois[5 * n]);
      }
      Floats pooled((int64)kRois * dim * op.bins()), grad(data.size());
      psroi_pooling(kCpu, pooled.data(), data.data(), rois.data(), kRois, op);
      psroi_pooling_backward(kCpu, grad.data(), pooled.data(), rois.data(), kRois, op);
      hash.add(pooled), hash.add(grad);
    }
  }
  return hash;
}

Hash run_deformable_psroi_pooling() {
  Hash hash;
  for (int dim : {2, 10, 80}) {
    for (int part : {2, 5}) {
      constexpr int kImages = 2, kHeight = 19, kWidth = 23, kPooled = 5, kGroup = 2, kRois = 30;
      const Psroi psroi = {kImages, dim * 4, kHeight, kWidth, dim, kPooled, kGroup, 0.5f};
      const DeformablePsroi op = {psroi, part, 3, 0.1f, 2};
      Numbers numbers(dim + part);
      const Floats data = numbers.reals((int64)kImages * dim * 4 * kHeight * kWidth, false);
      const Floats trans = numbers.reals(kRois * 4 * op.parts(), false);
      Floats rois(5 * kRois);
      for (int n = 0; n < kRois; ++n) {
        const float x = 40 * numbers.real(), y = 30 * numbers.real();
        const float roi[] = {(float)(numbers.integer() % 5) - 1, x, y, x + 30 * numbers.real() - 2,
                             y + 30 * numbers.real() - 2};
        std::copy_n(roi, 5, &rois[5 * n]);
      }
      Floats pooled((int64)kRois * dim * psroi.bins()), grad(data.size()), trans_grad(trans.size());
      deformable_psroi_pooling(kCpu, pooled.data(), data.data(), rois.data(), trans.data(), kRois,
                               op);
      deformable_psroi_pooling_backward(kCpu, grad.data(), trans_grad.data(), pooled.data(),
                                        data.data(), rois.data(), trans.data(), kRois, op);
      hash.add(pooled), hash.add(grad), hash.add(trans_grad);
    }
  }
  return hash;
}

Hash run_rroi_align() {
  Hash hash;
  for (int channels : {1, 5, 40}) {
    for (int ratio : {-1, 2, 3}) {
      constexpr int kImages = 2, kHeight = 19, kWidth = 23, kPooled = 5, kRois = 30;
      const RroiAlign op = {kImages, channels, kHeight, kWidth, kPooled, kPooled + 2, 0.5f, ratio};
      Numbers numbers(channels + ratio);
      const Floats data = numbers.reals((int64)kImages * channels * kHeight * kWidth, false);
      Floats rois(6 * kRois);
      for (int n = 0; n < kRois; ++n) {
        const float roi[] = {(float)(numbers.integer() % 5) - 1,
                             40 * numbers.real(),
                             30 * numbers.real(),
                             30 * numbers.real(),
                             30 * numbers.real(),
                             360 * numbers.real()};
        std::copy_n(roi, 6, &rois[6 * n]);
      }
      Floats pooled((int64)kRois * channels * op.bins());
      rroi_align(kCpu, pooled.data(), data.data(), rois.data(), kRois, op);
      hash.add(pooled);
    }
  }
  return hash;
}

Hash run_bilinear_upsample() {
  Hash hash;
  for (int scale : {1, 2, 3, 4, 8, 16}) {
    constexpr int kPlanes = 5, kHeight = 7, kWidth = 18;
    Numbers numbers(scale);
    const Floats data = numbers.reals(kPlanes * kHeight * kWidth);
    const Floats out_grad = numbers.reals((int64)kPlanes * kHeight * kWidth * scale * scale);
    Floats out(out_grad.size()), grad(data.size());
    bilinear_upsample(kCpu, out.data(), data.data(), kPlanes, kHeight, kWidth, scale);
    bilinear_upsample_backward(kCpu, grad.data(), out_grad.data(), kPlanes, kHeight, kWidth, scale);
    hash.add(out), hash.add(grad);
  }
  return hash;
}

Hash run_confusion_matrix() {
  Hash hash;
  for (int num_classes : {1, 21, 100}) {
    Numbers numbers(num_classes);
    std::vector<int> prediction(100000), label(prediction.size());
    for (int& x : prediction) x = (int)(numbers.integer() % num_classes);
    for (int& x : label) x = (int)(numbers.integer() % (num_classes + 1)) - 1;
    std::vector<int64> matrix((int64)num_classes * num_classes);
    confusion_matrix(kCpu, matrix.data(), prediction.data(), label.data(), (int64)prediction.size(),
                     num_classes, -1);
    hash.add(matrix);
  }
  return hash;
}

Hash run_label_from_color() {
  Hash hash;
  Numbers numbers(1);
  std::vector<unsigned char> colormap(3 * 21), image(3 * 50001);
  for (unsigned char& x : colormap) x = (unsigned char)(numbers.integer() % 3 * 64);
  for (unsigned char& x : image) x = (unsigned char)(numbers.integer() % 3 * 64);
  std::vector<int> out(image.size() / 3);
  label_from_color(kCpu, out.data(), image.data(), colormap.data(), (int64)out.size(), 21, 255);
  hash.add(out);
  return hash;
}

Hash run_mask_target() {
  Hash hash;
  constexpr int kImages = 2, kRois = 9, kMasks = 3, kHeight = 20, kWidth = 23, kClasses = 3;
  for (int side : {1, 5, 8, 28}) {
    Numbers numbers(side);
    Floats rois(4 * kImages * kRois), matches(kImages * kRois), classes(matches.size());
    numbers.boxes(rois, 4, 0, 0.7f);
    for (float& x : rois) x *= 20;
    for (float& match : matches) match = (float)(numbers.integer() % kMasks);
    for (float& x : classes) x = (float)(numbers.integer() % kClasses);
    const Floats masks = numbers.reals(kImages * kMasks * kHeight * kWidth);
    Floats targets(kImages * kRois * kClasses * side * side), weights(targets.size());
    for (int samples : {2, 0}) {
      mask_target(kCpu, targets.data(), weights.data(),
                  {rois.data(), masks.data(), matches.data(), classes.data()},
                  {kImages, kRois, kMasks, kHeight, kWidth},
                  {kClasses, side, side, samples, samples == 0});
      hash.add(targets), hash.add(weights);
    }
  }
  return hash;
}

Hash run_match_anchors() {
  Hash hash;
  constexpr int kImages = 2, kTruths = 9;
  for (int num : {1, 7, 300, 3000}) {
    Numbers numbers(num);
    Floats anchors(4 * num), truths(4 * kImages * kTruths);
    numbers.boxes(anchors, 4, 0, 0.5f);
    numbers.boxes(truths, 4, 0, 0.5f);
    for (int options = 0; options < 4; ++options) {
      std::vector<int> out(kImages * num);
      match_anchors(kCpu, out.data(), anchors.data(), truths.data(), {kImages, num, kTruths, 1},
                    {0.5f, 0.2f, options % 2 == 1, options / 2 == 1});
      hash.add(out);
    }
  }
  return hash;
}

Hash run_paste_masks() {
  Hash hash;
  constexpr int kNum = 20;
  for (int side : {1, 7, 28}) {
    Numbers numbers(side);
    Floats boxes(4 * kNum);
    numbers.boxes(boxes, 4, 0, 0.7f);
    for (float& x : boxes) x *= 100;
    const Floats masks = numbers.reals(kNum * side * side);
    std::vector<unsigned char> out(kNum * 90 * 123);
    paste_masks(kCpu, out.data(), masks.data(), boxes.data(), {kNum, side, side, 90, 123}, 0.3f);
    hash.add(out);
  }
  return hash;
}

Hash run_rcnn_target() {
  Hash hash;
  constexpr int kImages = 6, kTruths = 9, kSamples = 50;
  for (int num : {1, 7, 300, 1000}) {
    Numbers numbers(num);
    Floats proposals(4 * kImages * num), labels(5 * kImages * kTruths);
    numbers.boxes(proposals, 4, 0, 0.5f);
    numbers.boxes(labels, 5, 1, 0.5f);
    const Floats noise = numbers.reals(kImages * (num + kTruths));
    Floats rois(4 * kImages * kSamples), classes(kImages * kSamples), matches(classes.size());
    Floats boxes(rois.size()), masks(rois.size());
    rcnn_target(kCpu, {rois.data(), classes.data(), matches.data(), boxes.data(), masks.data()},
                {proposals.data(), labels.data(), noise.data()}, {kImages, num, kTruths, 5},
                {kSamples, 12, 0.4f, 0, {{0, 0.1f, 0, 0}, {0.1f, 0.1f, 0.2f, 0.2f}}});
    hash.add(rois), hash.add(classes), hash.add(matches), hash.add(boxes), hash.add(masks);
  }
  return hash;
}

Hash run_rpn_target() {
  Hash hash;
  constexpr int kImages = 2, kTruths = 9;
  for (int num : {1, 7, 300, 3000}) {
    Numbers numbers(num);
    Floats anchors(4 * num), labels(5 * kImages * kTruths);
    numbers.boxes(anchors, 4, 0, 0.5f);
    numbers.boxes(labels, 5, 1, 0.5f);
    const Floats noise = numbers.reals(kImages * num);
    Floats classes(noise.size()), boxes(4 * noise.size()), masks(boxes.size());
    rpn_target(kCpu, {classes.data(), boxes.data(), masks.data()},
               {anchors.data(), labels.data(), noise.data()}, {kImages, num, kTruths, 5},
               {60, 20, 0.6f, 0.3f, {{0, 0.1f, 0, 0}, {0.1f, 0.1f, 0.2f, 0.2f}}});
    hash.add(classes), hash.add(boxes), hash.add(masks);
  }
  return hash;
}

}  // namespace

int main() {
  const struct {
    const char* name;
    Hash (*run)();
  } ops[] = {
      {"adaptive_avg_pooling", run_adaptive_avg_pooling},
      {"bilinear_resize", run_bilinear_resize},
      {"bilinear_upsample", run_bilinear_upsample},
      {"bipartite_matching", run_bipartite_matching},
      {"box_decode", run_box_decode},
      {"box_encode", run_box_encode},
      {"box_iou", run_box_iou},
      {"box_iou_rotated", run_box_iou_rotated},
      {"box_nms", run_box_nms},
      {"confusion_matrix", run_confusion_matrix},
      {"deformable_psroi_pooling", run_deformable_psroi_pooling},
      {"label_from_color", run_label_from_color},
      {"mask_target", run_mask_target},
      {"matrix_nms", run_matrix_nms},
      {"multibox_detection", run_multibox_detection},
      {"multibox_prior", run_multibox_prior},
      {"multibox_target", run_multibox_target},
      {"multiclass_nms", run_multiclass_nms},
      {"nms_rotated", run_nms_rotated},
      {"proposal", run_proposal},
      {"psroi_pooling", run_psroi_pooling},
      {"match_anchors", run_match_anchors},
      {"paste_masks", run_paste_masks},
      {"rcnn_target", run_rcnn_target},
      {"roi_align", run_roi_align},
      {"roi_pooling", run_roi_pooling},
      {"rroi_align", run_rroi_align},
      {"soft_nms", run_soft_nms},
      {"rpn_target", run_rpn_target},
      {"weighted_boxes_fusion", run_weighted_boxes_fusion},
  };
  for (const auto& op : ops) {
    for (int simd = 0; simd <= (int)widest_simd(); ++simd) {
      set_simd((Simd)simd);
      for (int threads : {1, 2, 5}) {
        set_num_threads(threads);
        std::printf("%s %s %d %016llx\n", op.name, kSimdNames[simd], threads, op.run().value());
      }
    }
  }
}
