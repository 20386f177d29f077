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

// The anchors of an image whose score counts, in their order, as rows of the output.
struct Row {
  float id, score;
  Box box;
};

void decode(Row* rows, const int* anchor_of, int64 count, const float* anchors,
            const float* offsets, Variances variances, bool clip) {
  for (int64 i = 0; i < count; ++i) {
    int anchor = anchor_of[i];
    rows[i].box = detection_box(load_box(anchors, anchor), offsets + 4 * anchor, variances, clip);
  }
}

std::vector<Row> candidates(Predictions in, int64 image, const DetectionOptions& options) {
  std::vector<Row> rows;
  std::vector<int> anchor_of;
  float score[kTile];
  int id[kTile];
  for (int64 first = 0; first < in.num; first += kTile) {
    int count = (int)std::min<int64>(kTile, in.num - first);
    const float* prob = in.cls_prob + (image * in.classes + 1) * in.num + first;
    simd<best_classes>(score, id, prob, in.classes, in.num, count);
    for (int i = 0; i < count; ++i) {
      if (id[i] < 0 || score[i] < options.threshold) continue;
      rows.push_back({(float)id[i], score[i], {}});
      anchor_of.push_back((int)first + i);
    }
  }
  simd<decode>(rows.data(), anchor_of.data(), (int64)rows.size(), in.anchors,
               in.loc_pred + image * 4 * in.num, options.variances, options.clip);
  return rows;
}

}  // namespace

void cpu::multibox_detection(float* out, Predictions in, DetectionOptions options) {
  std::vector<std::vector<Row>> rows(in.batch);
  std::vector<std::vector<uint64>> keys(in.batch);
  std::vector<SortedBoxes> sorted(in.batch);
  parallel_for(in.batch, (20.0 + in.classes) * in.num, [&](int64 b) {
    rows[b] = candidates(in, b, options);
    if (!options.suppresses) return;
    for (size_t i = 0; i < rows[b].size(); ++i) {
      keys[b].push_back(sort_key(rows[b][i].score, (uint32)i));
    }
    sort_keys(keys[b]);
    keys[b].resize(std::min<size_t>(keys[b].size(), options.limit));
    for (uint64 key : keys[b]) {
      const Row& row = rows[b][index_of(key)];
      sorted[b].boxes.push_back({row.box, signed_area(row.box)});
      sorted[b].classes.push_back((int)row.id);
    }
  });
  if (options.suppresses) suppress(sorted, options.rule);
  parallel_for(in.batch, 5.0 * in.num, [&](int64 b) {
    Row* to = reinterpret_cast<Row*>(out) + b * in.num;
    for (size_t i = 0; i < rows[b].size(); ++i) {
      if (i < keys[b].size()) {
        *to = rows[b][index_of(keys[b][i])];
        if (!sorted[b].kept[i]) to->id = -1;
      } else {
        *to = rows[b][i];  // what stood there before the sort
        if (options.suppresses) to->id = -1;
      }
      ++to;
    }
    std::fill(reinterpret_cast<float*>(to), out + (b + 1) * in.num * 6, -1.0f);
  });
}

}  // namespace cvops
