#include "weighted_boxes_fusion.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "min_overlap.h"
#include "nms.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Clusters per vector step.
constexpr int kLanes = 16;

// The clusters of a set. The slots after them match nothing.
struct Clusters {
  const BoxFusion op;
  const MinOverlap min_overlap_of;
  const std::unique_ptr<float[]> floats;
  const std::unique_ptr<int[]> classes;
  float *const x1, *const y1, *const x2, *const y2, *const area, *const min_overlap;
  const std::unique_ptr<FusionSums[]> sums;
  const std::unique_ptr<const float*[]> first_rows;
  int num = 0;

  Clusters(const BoxFusion& op, int64 most) : Clusters(op, most, most + kLanes) {}

  // Begins a cluster with the box of a row.
  void add(const float* row, Box b, const FusionSums& own, int of_class) {
    sums[num] = own, first_rows[num] = row;
    set_box(num++, b, of_class);
  }

  void set_box(int i, Box b, int of_class) {
    const SizedBox fused = sized(b, op.center);
    x1[i] = fused.box.x1, y1[i] = fused.box.y1, x2[i] = fused.box.x2, y2[i] = fused.box.y2;
    area[i] = fused.area, min_overlap[i] = min_overlap_of(fused.area), classes[i] = of_class;
  }

 private:
  Clusters(const BoxFusion& op, int64 most, int64 capacity)
      : op(op),
        min_overlap_of(op.threshold),
        floats(scratch<float>(6 * capacity)),
        classes(scratch<int>(capacity)),
        x1(floats.get()),
        y1(x1 + capacity),
        x2(y1 + capacity),
        y2(x2 + capacity),
        area(y2 + capacity),
        min_overlap(area + capacity),
        sums(scratch<FusionSums>(most)),
        first_rows(scratch<const float*>(most)) {
    std::fill_n(floats.get(), 5 * capacity, 0.0f);
    std::fill_n(min_overlap, capacity, std::numeric_limits<float>::infinity());
    std::fill_n(classes.get(), capacity, 0);
  }
};

// The cluster with the highest IoU above the threshold, the first of equal ones, or -1.
template <bool kCenter>
int best_cluster(const Clusters& clusters, const SizedBox& own, int of_class) {
  const float least = clusters.min_overlap_of(own.area);
  float most = clusters.op.threshold;
  int best = -1;
  for (int first = 0; first < clusters.num; first += kLanes) {
    float overlaps[kLanes];
    int passes[kLanes], any = 0;
    for (int k = 0; k < kLanes; ++k) {
      const int i = first + k;
      const Box box = {clusters.x1[i], clusters.y1[i], clusters.x2[i], clusters.y2[i]};
      overlaps[k] = intersection(box, own.box, kCenter);
      passes[k] =
          (overlaps[k] > least + clusters.min_overlap[i]) & (clusters.classes[i] == of_class);
      any |= passes[k];
    }
    if (!any) continue;
    for (int k = 0; k < kLanes; ++k) {
      if (!passes[k]) continue;
      const float iou = overlaps[k] / (clusters.area[first + k] + own.area - overlaps[k]);
      if (iou > most) most = iou, best = first + k;
    }
  }
  return best;
}

void fuse(Clusters& clusters, const NmsCandidates& found, const float* rows,
          const NmsColumns& columns) {
  for (int i = 0; i < found.count; ++i) {
    const float* row = found.row(rows, i, columns);
    const int of_class = clusters.op.by_class ? found.classes[i] : 0;
    const Box box = row_box(row, columns);
    const FusionSums own = fusion_sums(box, row[columns.score]);
    const int to = clusters.op.center
                       ? simd<best_cluster<true>>(clusters, found.boxes[i], of_class)
                       : simd<best_cluster<false>>(clusters, found.boxes[i], of_class);
    if (to < 0) {
      clusters.add(row, box, own, of_class);
    } else {
      clusters.sums[to] = clusters.sums[to] + own;
      clusters.set_box(to, fused_box(clusters.sums[to]), of_class);
    }
  }
}

}  // namespace

void weighted_boxes_fusion(const Cpu&, float* out, const float* data, int64 batch, int64 num,
                           const BoxFusionOptions& options) {
  if (batch * num * options.rows == 0) return;
  const NmsColumns columns = options.candidates.columns;
  const int64 width = columns.width, rows = options.rows;
  parallel_for(batch, 200.0 * num, [&](int64 b) {
    const float* const from = data + b * num * width;
    NmsCandidates found(from, num, options.candidates);
    found.take_boxes(from, options.candidates);
    Clusters clusters(options.op, found.count);
    fuse(clusters, found, from, columns);
    std::vector<uint64> keys(clusters.num);
    for (int i = 0; i < clusters.num; ++i) {
      const float best = clusters.first_rows[i][columns.score];
      keys[i] = sort_key(fusion_score(clusters.sums[i], best, options.op), (uint32)i);
    }
    std::sort(keys.begin(), keys.end());
    keys.resize(std::min<size_t>(keys.size(), rows));
    float *to = out + b * rows * width, *const end = to + rows * width;
    for (uint64 key : keys) {
      const int i = (int)index_of(key);
      std::copy_n(clusters.first_rows[i], width, to);
      to[columns.score] = score_of(key);
      if (clusters.sums[i].count > 1) {
        const Box box = fused_box(clusters.sums[i]);
        float* c = to + columns.coord;
        c[0] = box.x1, c[1] = box.y1, c[2] = box.x2, c[3] = box.y2;
      }
      to += width;
    }
    std::fill(to, end, -1.0f);
  });
}

}  // namespace cvops
