#include "multibox_target.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace cvops {

// Threads take the anchors by tiles. A tile's blocks are neighbours in the image, so that most
// truths overlap no anchor of most blocks.
constexpr int kBlock = 128, kTile = 8 * kBlock;

// The anchors as arrays of fields, so that the compiler makes a vector of each.
struct AnchorFields {
  std::vector<float> x1, y1, x2, y2, area;
  std::vector<Box> hulls;  // of the blocks

  AnchorFields(const float* anchor, int num)
      : x1(num), y1(num), x2(num), y2(num), area(num), hulls(ceil_div(num, kBlock), kEmptyHull) {
    for (int a = 0; a < num; ++a) {
      SizedBox b = signed_size(load_box(anchor, a));
      x1[a] = b.box.x1, y1[a] = b.box.y1, x2[a] = b.box.x2, y2[a] = b.box.y2, area[a] = b.area;
      hulls[a / kBlock] = hull_with(hulls[a / kBlock], b.box);
    }
  }
};

// The next four are for up to a block of anchors.
static void iou_row(float* __restrict__ iou, const float* __restrict__ x1,
                    const float* __restrict__ y1, const float* __restrict__ x2,
                    const float* __restrict__ y2, const float* __restrict__ area, int num,
                    SizedBox truth) {
  for (int i = 0; i < num; ++i) iou[i] = target_iou({{x1[i], y1[i], x2[i], y2[i]}, area[i]}, truth);
}

static void keep_best(float* __restrict__ best, int* __restrict__ which,
                      const float* __restrict__ iou, int num, int truth) {
  for (int i = 0; i < num; ++i) {
    which[i] = iou[i] > best[i] ? truth : which[i];
    best[i] = larger(iou[i], best[i]);
  }
}

static void leave_out_given(float* __restrict__ iou, const int* __restrict__ which, int num) {
  for (int i = 0; i < num; ++i) iou[i] = which[i] < 0 ? 0.0f : iou[i];
}

// The best pair_key of anchors that begin at `first`, or `known` if that is better. As integers,
// which order IoUs as well: with floats the compiler may not take a maximum out of its order.
static uint64 best_key(const float* iou, int num, int first, uint64 known) {
  int top = 0, at = num;
  for (int i = 0; i < num; ++i) {
    const int bits = (int)bits_of(iou[i]);
    top = bits > top ? bits : top;
  }
  if ((uint64)top << 32 < known) return known;
  for (int i = 0; i < num; ++i) {
    const int place = (int)bits_of(iou[i]) == top ? i : num;
    at = place < at ? place : at;
  }
  return std::max(known, pair_key(iou[at], first + at));
}

// e^x for x <= 0 to a relative error below 1e-4, or to 2^-124; NaN stays.
struct RoughExp {
  float operator()(float x) const {
    float scaled = x * 1.442695f;
    scaled = scaled < -125.0f ? -125.0f : scaled;
    const float shifted = scaled + 12582912.0f;  // leaves no bits for a fraction
    const float f = (scaled - (shifted - 12582912.0f)) * 0.6931472f;
    const uint32 bits = (bits_of(shifted) + 127) << 23;
    float two_to_n;
    __builtin_memcpy(&two_to_n, &bits, sizeof bits);
    return (1.0f + f * (1.0f + f * (0.5f + f * (0.1666667f + f * 0.04166667f)))) * two_to_n;
  }
};

struct Exp {
  float operator()(float x) const { return exp_of(x); }
};

// Of each anchor the probability of class 0; `logits` has the classes `stride` apart, `top` and
// `sum` are scratch.
template <typename AnyExp>
__attribute__((always_inline)) inline void softmax(AnyExp exp, float* __restrict__ background,
                                                   float* __restrict__ top, float* __restrict__ sum,
                                                   const float* __restrict__ logits,
                                                   int num_classes, int64 stride, int num) {
  for (int i = 0; i < num; ++i) top[i] = logits[i];
  for (int c = 1; c < num_classes; ++c) {
    const float* __restrict__ row = logits + c * stride;
    for (int i = 0; i < num; ++i) top[i] = larger(row[i], top[i]);
  }
  for (int i = 0; i < num; ++i) sum[i] = background[i] = exp(logits[i] - top[i]);
  for (int c = 1; c < num_classes; ++c) {
    const float* __restrict__ row = logits + c * stride;
    for (int i = 0; i < num; ++i) sum[i] += exp(row[i] - top[i]);
  }
  for (int i = 0; i < num; ++i) background[i] /= sum[i];
}

static void rough_softmax(float* background, const float* logits, int num_classes, int64 stride,
                          int num) {
  float top[kTile], sum[kTile];
  softmax(RoughExp(), background, top, sum, logits, num_classes, stride, num);
}

static void exact_softmax(float* background, const float* logits, int num_classes, int64 stride,
                          int num) {
  float top[kTile], sum[kTile];
  softmax(Exp(), background, top, sum, logits, num_classes, stride, num);
}

// One image. The steps are those of the kernels, and so are the names.
class ImageTarget {
 public:
  ImageTarget(const AnchorFields& anchors, TargetInputs in, TargetShape shape,
              TargetOptions options, int image)
      : anchors_(anchors),
        shape_(shape),
        options_(options),
        image_(image),
        num_(shape.num_anchors),
        label_(in.label + (int64)image * shape.num_truths * shape.label_width),
        logits_(in.cls_pred + (int64)image * shape.num_classes * shape.num_anchors) {
    while ((int)truths_.size() < shape.num_truths && *row(truths_.size()) != -1) {
      truths_.push_back(truth_at(label_, truths_.size(), shape.label_width));
    }
  }

  // Not parallel where other threads are busy with other images: then each cost below is 0.
  void run(TargetOutputs out, bool parallel) {
    const int64 tiles = ceil_div(num_, kTile);
    const double pairs = parallel ? 0.5 * kTile * truths_.size() : 0;
    if (!truths_.empty()) {
      best_.assign(num_, 0.0f);
      which_.assign(num_, 0);
      keys_.assign(tiles * truths_.size(), 0);
      parallel_for(tiles, pairs, [&](int64 tile) { match((int)tile * kTile); });
      assign();
      if (options_.mining_ratio > 0) {
        scores_.assign(num_, kNoCandidate);
        const double logits = parallel ? 0.5 * kTile * shape_.num_classes : 0;
        const int wanted = mining_count(count_positive(), num_, options_.mining_ratio);
        if (wanted > 0) {
          rough_.resize(num_);
          parallel_for(tiles, logits, [&](int64 tile) { score_roughly((int)tile * kTile); });
          mine(wanted);
        }
      }
    }
    parallel_for(tiles, parallel ? 5.0 * kTile : 0,
                 [&](int64 tile) { write(out, (int)tile * kTile); });
  }

 private:
  const float* row(int64 k) const { return label_ + k * shape_.label_width; }
  int end_of(int first) const { return std::min(num_, first + kTile); }

  // Calls body(first, num, iou) for each block from `first` to `end` that the truth may overlap.
  template <typename Body>
  void each_block(int first, int end, SizedBox truth, const Body& body) const {
    float iou[kBlock];
    const AnchorFields& a = anchors_;
    for (; first < end; first += kBlock) {
      if (!may_overlap(a.hulls[first / kBlock], truth.box)) continue;
      const int num = std::min(kBlock, end - first);
      simd<iou_row>(iou, &a.x1[first], &a.y1[first], &a.x2[first], &a.y2[first], &a.area[first],
                    num, truth);
      body(first, num, iou);
    }
  }

  void match(int begin) {
    const int num_truths = (int)truths_.size();
    uint64* keys = &keys_[(size_t)(begin / kTile) * num_truths];
    for (int k = 0; k < num_truths; ++k) {
      each_block(begin, end_of(begin), truths_[k], [&](int first, int num, const float* iou) {
        simd<keep_best>(&best_[first], &which_[first], iou, num, k);
        keys[k] = simd<best_key>(iou, num, first, keys[k]);
      });
    }
  }

  // A truth looks for another anchor only when its turn comes and its best is taken. What it finds
  // is worse, so that until then its turn does not come too late.
  void assign() {
    const size_t num = truths_.size();
    for (size_t i = num; i < keys_.size(); ++i) keys_[i % num] = std::max(keys_[i % num], keys_[i]);
    for (;;) {
      int k = (int)(std::max_element(keys_.begin(), keys_.begin() + num) - keys_.begin());
      if (keys_[k] == 0) return;
      int& given = which_[anchor_of(keys_[k])];
      if (given < 0) {
        keys_[k] = best_free_anchor(truths_[k]);
      } else {
        given = ~k;
        keys_[k] = 0;
      }
    }
  }

  uint64 best_free_anchor(SizedBox truth) const {
    uint64 best = 0;
    each_block(0, num_, truth, [&](int first, int num, float* iou) {
      simd<leave_out_given>(iou, &which_[first], num);
      best = simd<best_key>(iou, num, first, best);
    });
    return best;
  }

  int count_positive() const {
    int count = 0;
    for (int a = 0; a < num_; ++a) count += is_positive(best_[a], which_[a], options_);
    return count;
  }

  // Only a few anchors are mined, and the exact exponential is slow: a rough one leaves out most.
  void score_roughly(int first) {
    const int num = end_of(first) - first;
    simd<rough_softmax>(&rough_[first], logits_ + first, shape_.num_classes, num_, num);
  }

  void mine(int wanted) {
    std::vector<int> candidates;
    std::vector<float> roughs;
    for (int a = 0; a < num_; ++a) {
      if (is_positive(best_[a], which_[a], options_)) continue;
      if (!(best_[a] < options_.mining_threshold)) continue;
      if (rough_[a] != rough_[a]) rough_[a] = std::numeric_limits<float>::infinity();
      candidates.push_back(a);
      roughs.push_back(rough_[a]);
    }
    bound_ = kAllCandidates;
    if ((int)candidates.size() <= wanted) {
      for (int a : candidates) scores_[a] = 0;
      return;
    }
    // Of the sum's roundings, up to half a last bit a class, the rough and the exact have others.
    const float error = 1e-3f + 2.5e-7f * shape_.num_classes;
    std::nth_element(roughs.begin(), roughs.begin() + (wanted - 1), roughs.end());
    const float limit = roughs[wanted - 1] * (1 + error) + 1e-36f;
    auto beyond = [&](int a) { return rough_[a] > limit; };
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), beyond),
                     candidates.end());
    score(candidates);
    if ((int)candidates.size() == wanted) return;
    std::vector<uint64> keys;
    for (int a : candidates) keys.push_back(mining_key(scores_[a], a));
    std::nth_element(keys.begin(), keys.begin() + wanted, keys.end());
    bound_ = keys[wanted];
  }

  void score(const std::vector<int>& anchors) {
    std::vector<float> logits((size_t)kBlock * shape_.num_classes);
    float background[kBlock];
    for (size_t first = 0; first < anchors.size(); first += kBlock) {
      const int num = std::min(kBlock, (int)(anchors.size() - first));
      for (int c = 0; c < shape_.num_classes; ++c) {
        const float* row = logits_ + (int64)c * num_;
        for (int i = 0; i < num; ++i) logits[(size_t)c * kBlock + i] = row[anchors[first + i]];
      }
      simd<exact_softmax>(background, logits.data(), shape_.num_classes, kBlock, num);
      for (int i = 0; i < num; ++i) scores_[anchors[first + i]] = mining_score(background[i]);
    }
  }

  void write(TargetOutputs out, int first) const {
    const int64 begin = (int64)image_ * num_;
    const int end = end_of(first);
    std::fill(out.loc_target + 4 * (begin + first), out.loc_target + 4 * (begin + end), 0.0f);
    std::fill(out.loc_mask + 4 * (begin + first), out.loc_mask + 4 * (begin + end), 0.0f);
    const bool mining = options_.mining_ratio > 0;
    for (int a = first; a < end; ++a) {
      float cls = options_.ignore_label;
      if (!truths_.empty() && is_positive(best_[a], which_[a], options_)) {
        const int truth = which_[a] < 0 ? ~which_[a] : which_[a];
        const Box box = {anchors_.x1[a], anchors_.y1[a], anchors_.x2[a], anchors_.y2[a]};
        const Offsets offsets = encode(box, truths_[truth].box, options_);
        float* target = out.loc_target + 4 * (begin + a);
        target[0] = offsets.x, target[1] = offsets.y;
        target[2] = offsets.width, target[3] = offsets.height;
        std::fill_n(out.loc_mask + 4 * (begin + a), 4, 1.0f);
        cls = *row(truth) + 1;
      } else if (!truths_.empty() && (!mining || mining_key(scores_[a], a) < bound_)) {
        cls = 0;
      }
      out.cls_target[begin + a] = cls;
    }
  }

  const AnchorFields& anchors_;
  const TargetShape shape_;
  const TargetOptions options_;
  const int image_, num_;
  const float *label_, *logits_;
  std::vector<SizedBox> truths_;
  std::vector<float> best_;
  std::vector<int> which_;
  std::vector<uint64> keys_;  // of each tile those of each truth
  std::vector<float> rough_;
  std::vector<uint32> scores_;
  uint64 bound_ = 0;
};

void cpu::multibox_target(TargetOutputs out, TargetInputs in, TargetShape shape,
                          TargetOptions options) {
  const AnchorFields anchors(in.anchor, shape.num_anchors);
  // Threads share the images, or where these are few the anchors of each.
  const bool many = shape.num_images >= num_threads();
  const double mining = options.mining_ratio > 0 ? 0.5 * shape.num_classes : 0;
  const double cost = shape.num_anchors * (0.5 * shape.num_truths + mining + 5);
  parallel_for(shape.num_images, many ? cost : 0, [&](int64 image) {
    ImageTarget(anchors, in, shape, options, (int)image).run(out, !many);
  });
}

}  // namespace cvops
