#include "multibox_detection.h"

#include <algorithm>
#include <cstring>

#include "boxes.h"
#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Anchors that one thread scores per work item.
constexpr int kTile = 1024;

// Vectors of anchors that are scored at once, so that their best scores stay in registers.
constexpr int kVectors = 4;

// Best class of each of `count` anchors, the first of equal ones; -1 if no score is above -1. The
// scores of the first class begin at `prob`; those of the next classes follow at distance `stride`.
template <int kWidth>
CVOPS_INLINE void best_classes(float* score, int* id, const float* prob, int classes, int64 stride,
                               int count) {
  constexpr int kLanes = kVectors * kWidth;
  using Floats = Vector<float, kWidth>;
  using Ints = Vector<int, kWidth>;
  int first = 0;
  for (; first + kLanes <= count; first += kLanes) {
    Floats best[kVectors];
    Ints at[kVectors];
    for (int v = 0; v < kVectors; ++v) best[v] = Floats{} - 1, at[v] = Ints{} - 1;
    for (int c = 0; c < classes; ++c) {
      for (int v = 0; v < kVectors; ++v) {
        Floats p;
        load<kWidth>(p, prob + c * stride + first + v * kWidth);
        at[v] = p > best[v] ? Ints{} + c : at[v];
        best[v] = p > best[v] ? p : best[v];
      }
    }
    std::memcpy(score + first, best, sizeof best);
    std::memcpy(id + first, at, sizeof at);
  }
  for (; first < count; ++first) {
    score[first] = -1, id[first] = -1;
    for (int c = 0; c < classes; ++c) {
      const float p = prob[c * stride + first];
      if (p > score[first]) score[first] = p, id[first] = c;
    }
  }
}

// Anchors of an image above the threshold, in index order.
struct Candidates {
  std::unique_ptr<float[]> score;
  std::unique_ptr<int[]> id, anchor;
  std::unique_ptr<Box[]> box;
  int64 num = 0;
};

template <bool kClip>
void decode(Box* boxes, const int* anchor_of, int64 count, const float* anchors,
            const float* offsets, Variances variances) {
  Boxes<float> from, by, to;
  for (int64 first = 0; first < count; first += kMostBoxes) {
    const int num = (int)std::min<int64>(count - first, kMostBoxes);
    for (int i = 0; i < num; ++i) {
      from.set(i, load_box(anchors, anchor_of[first + i]));
      by.set(i, load_box(offsets, anchor_of[first + i]));
    }
    for (int i = 0; i < num; ++i) to.set(i, detection_box(from[i], by[i], variances, kClip));
    for (int i = 0; i < num; ++i) boxes[first + i] = to[i];
  }
}

Candidates candidates(Predictions in, int64 image, const DetectionOptions& options, int threads) {
  Candidates c = {scratch<float>(in.num), scratch<int>(in.num), scratch<int>(in.num), nullptr};
  auto score_tile = [&](int64 tile) {
    const int64 first = tile * kTile;
    const float* prob = in.cls_prob + (image * in.classes + 1) * in.num + first;
    const int count = (int)std::min<int64>(kTile, in.num - first);
    by_width([&](auto width) __attribute__((always_inline)) {
      best_classes<width>(&c.score[first], &c.id[first], prob, (int)in.classes - 1, in.num, count);
    });
  };
  const int64 tiles = ceil_div(in.num, kTile);
  if (threads > 1) {
    parallel_for(tiles, 0.3 * kTile * in.classes, score_tile);
  } else {
    for (int64 tile = 0; tile < tiles; ++tile) score_tile(tile);
  }
  for (int64 i = 0; i < in.num; ++i) {
    const float score = c.score[i];
    const int id = c.id[i];
    c.score[c.num] = score, c.id[c.num] = id, c.anchor[c.num] = (int)i;
    c.num += id >= 0 && !(score < options.threshold);
  }
  c.box = scratch<Box>(c.num);
  const float* offsets = in.loc_pred + image * 4 * in.num;
  if (options.clip) {
    simd<decode<true>>(c.box.get(), c.anchor.get(), c.num, in.anchors, offsets, options.variances);
  } else {
    simd<decode<false>>(c.box.get(), c.anchor.get(), c.num, in.anchors, offsets, options.variances);
  }
  return c;
}

// One row of the output.
struct Row {
  float id, score;
  Box box;
};

}  // namespace

void multibox_detection(const Cpu&, float* out, Predictions in, DetectionOptions options) {
  if (in.batch * in.num == 0) return;
  for_each_image(in.batch, (100.0 + in.classes) * in.num, [&](int64 b, int threads) {
    const Candidates c = candidates(in, b, options, threads);
    Row* to = reinterpret_cast<Row*>(out) + b * in.num;
    int64 sorted_num = 0;
    if (options.suppresses) {
      const auto keys = scratch<uint64>(c.num), other = scratch<uint64>(c.num);
      for (int64 i = 0; i < c.num; ++i) keys[i] = sort_key(c.score[i], (uint32)i);
      const uint64* sorted = sort_keys(keys.get(), other.get(), c.num, options.topk);
      sorted_num = std::min<int64>(c.num, options.topk);
      const auto boxes = scratch<SizedBox>(sorted_num);
      const auto classes = scratch<int>(sorted_num);
      const auto kept = scratch<uint8_t>(sorted_num);
      for (int64 i = 0; i < sorted_num; ++i) {
        const uint32 at = index_of(sorted[i]);
        boxes[i] = {c.box[at], signed_area(c.box[at])};
        classes[i] = c.id[at];
      }
      suppress(kept.get(), boxes.get(), classes.get(), (int)sorted_num, options.rule, threads);
      for (int64 i = 0; i < sorted_num; ++i) {
        const uint32 at = index_of(sorted[i]);
        to[i] = {kept[i] ? (float)classes[i] : -1.0f, c.score[at], boxes[i].box};
      }
    }
    // Rows in the order before the sort.
    for (int64 i = sorted_num; i < c.num; ++i) {
      to[i] = {options.suppresses ? -1.0f : (float)c.id[i], c.score[i], c.box[i]};
    }
    std::fill(out + (b * in.num + c.num) * 6, out + (b + 1) * in.num * 6, -1.0f);
  });
}

}  // namespace cvops
