#include "weighted_boxes_fusion.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "nms.h"
#include "nms_lanes.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Clusters per vector step.
constexpr int kLanes = 16;

// The clusters of a set. The slots after them have NaN boxes, which match nothing.
struct Clusters {
  const BoxFusion op;
  const std::unique_ptr<float[]> floats;
  const std::unique_ptr<int[]> classes;
  float *const x1, *const y1, *const x2, *const y2, *const area;
  const std::unique_ptr<FusionSums[]> sums;
  const std::unique_ptr<const float*[]> first_rows;
  int num = 0;

  Clusters(const BoxFusion& op, int64 most) : Clusters(op, most, most + kLanes) {}

  // Begins a cluster with the box of a row.
  void add(const float* row, Box b, const FusionSums& own, int of_class) {
    sums[num] = own, first_rows[num] = row;
    set_box(num++, b, of_class);
  }

  CVOPS_INLINE Box box(int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }

  void set_box(int i, Box b, int of_class) {
    const SizedBox fused = sized(b, op.center);
    x1[i] = fused.box.x1, y1[i] = fused.box.y1, x2[i] = fused.box.x2, y2[i] = fused.box.y2;
    area[i] = fused.area, classes[i] = of_class;
  }

 private:
  Clusters(const BoxFusion& op, int64 most, int64 capacity)
      : op(op),
        floats(scratch<float>(5 * capacity)),
        classes(scratch<int>(capacity)),
        x1(floats.get()),
        y1(x1 + capacity),
        x2(y1 + capacity),
        y2(x2 + capacity),
        area(y2 + capacity),
        sums(scratch<FusionSums>(most)),
        first_rows(scratch<const float*>(most)) {
    std::fill_n(floats.get(), 5 * capacity, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(classes.get(), capacity, 0);
  }
};

// The cluster with the highest IoU above the threshold, the first of equal ones, or -1.
template <bool kCenter>
int best_cluster(const Clusters& clusters, const SizedBox& own, int of_class) {
  BoxFusion op = clusters.op;
  op.center = kCenter;
  float most[kLanes];
  int best[kLanes];
  for (int k = 0; k < kLanes; ++k) most[k] = op.threshold, best[k] = -1;
  for (int first = 0; first < clusters.num; first += kLanes) {
    // The threshold is 0 or more, so an IoU above it needs an overlap.
    int overlaps[kLanes];
    CVOPS_INDEPENDENT
    for (int k = 0; k < kLanes; ++k) {
      const int i = first + k;
      const float overlap = intersection(clusters.box(i), own.box, kCenter);
      overlaps[k] = (overlap > 0) & (clusters.classes[i] == of_class);
    }
    if (!any(overlaps)) continue;
    CVOPS_INDEPENDENT
    for (int k = 0; k < kLanes; ++k) {
      const int i = first + k;
      const float iou = fusion_iou({clusters.box(i), clusters.area[i]}, own, op);
      const bool more = (iou > most[k]) & (clusters.classes[i] == of_class);
      best[k] = more ? i : best[k];
      most[k] = more ? iou : most[k];
    }
  }
  int found = -1;
  float highest = op.threshold;
  for (int k = 0; k < kLanes; ++k) {
    const bool earlier = most[k] == highest && best[k] >= 0 && best[k] < found;
    if (most[k] > highest || earlier) highest = most[k], found = best[k];
  }
  return found;
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
