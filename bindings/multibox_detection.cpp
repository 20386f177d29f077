#include "multibox_detection.h"

#include <algorithm>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

constexpr int kTile = 1024;

// The best class of `count` anchors from `prob` on (that of class 1), the first of equals; -1 where
// none is above -1.
void best_classes(float* __restrict__ score, int* __restrict__ id, const float* __restrict__ prob,
                  int64 classes, int64 num, int count) {
  std::fill(score, score + count, -1.0f);
  std::fill(id, id + count, -1);
  for (int64 c = 1; c < classes; ++c, prob += num) {
    for (int i = 0; i < count; ++i) {
      bool better = prob[i] > score[i];
      score[i] = better ? prob[i] : score[i];
      id[i] = better ? (int)c - 1 : id[i];
    }
  }
}

// The anchors of an image whose score counts, in their order.
struct Candidates {
  std::unique_ptr<float[]> score;
  std::unique_ptr<int[]> id, anchor;
  std::unique_ptr<Box[]> box;
  int64 num = 0;
};

// Some anchors and offsets as arrays of fields, so that the compiler makes a vector of each.
struct Block {
  static constexpr int kMost = 256;
  float x1[kMost], y1[kMost], x2[kMost], y2[kMost], x[kMost], y[kMost], w[kMost], h[kMost];
};

void decode(Box* boxes, const int* anchor_of, int64 count, const float* anchors,
            const float* offsets, Variances variances, bool clip) {
  Block k;
  for (; count > 0; boxes += Block::kMost, anchor_of += Block::kMost, count -= Block::kMost) {
    const int num = (int)std::min<int64>(count, Block::kMost);
    for (int i = 0; i < num; ++i) {
      const Box a = load_box(anchors, anchor_of[i]), o = load_box(offsets, anchor_of[i]);
      k.x1[i] = a.x1, k.y1[i] = a.y1, k.x2[i] = a.x2, k.y2[i] = a.y2;
      k.x[i] = o.x1, k.y[i] = o.y1, k.w[i] = o.x2, k.h[i] = o.y2;
    }
    for (int i = 0; i < num; ++i) {
      const float four[] = {k.x[i], k.y[i], k.w[i], k.h[i]};
      const Box b = detection_box({k.x1[i], k.y1[i], k.x2[i], k.y2[i]}, four, variances, clip);
      k.x1[i] = b.x1, k.y1[i] = b.y1, k.x2[i] = b.x2, k.y2[i] = b.y2;
    }
    for (int i = 0; i < num; ++i) boxes[i] = {k.x1[i], k.y1[i], k.x2[i], k.y2[i]};
  }
}

Candidates candidates(Predictions in, int64 image, const DetectionOptions& options, int threads) {
  Candidates c = {cpu::scratch<float>(in.num), cpu::scratch<int>(in.num), cpu::scratch<int>(in.num),
                  nullptr};
  auto score_tile = [&](int64 tile) {
    const int64 first = tile * kTile;
    const float* prob = in.cls_prob + (image * in.classes + 1) * in.num + first;
    simd<best_classes>(&c.score[first], &c.id[first], prob, in.classes, in.num,
                       (int)std::min<int64>(kTile, in.num - first));
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
  c.box = cpu::scratch<Box>(c.num);
  simd<decode>(c.box.get(), c.anchor.get(), c.num, in.anchors, in.loc_pred + image * 4 * in.num,
               options.variances, options.clip);
  return c;
}

// A row of the output.
struct Row {
  float id, score;
  Box box;
};

}  // namespace

void cpu::multibox_detection(float* out, Predictions in, DetectionOptions options) {
  for_each_image(in.batch, (100.0 + in.classes) * in.num, [&](int64 b, int threads) {
    const Candidates c = candidates(in, b, options, threads);
    Row* to = reinterpret_cast<Row*>(out) + b * in.num;
    int64 sorted_num = 0;
    if (options.suppresses) {
      const auto keys = scratch<uint64>(c.num), other = scratch<uint64>(c.num);
      for (int64 i = 0; i < c.num; ++i) keys[i] = sort_key(c.score[i], (uint32)i);
      const uint64* sorted = sort_keys(keys.get(), other.get(), c.num, options.limit);
      sorted_num = std::min<int64>(c.num, options.limit);
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
    // What stood there before the sort.
    for (int64 i = sorted_num; i < c.num; ++i) {
      to[i] = {options.suppresses ? -1.0f : (float)c.id[i], c.score[i], c.box[i]};
    }
    std::fill(out + (b * in.num + c.num) * 6, out + (b + 1) * in.num * 6, -1.0f);
  });
}

}  // namespace cvops
