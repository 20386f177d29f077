// When a box suppresses another, and how a contest of boxes begins: what box_nms,
// multibox_detection and multiclass_nms share beside nms.cuh.
#pragma once
#include "box.cuh"

namespace cvops {

// When a box suppresses another.
struct NmsRule {
  float threshold;
  int at_least;  // whether an IoU equal to the threshold suppresses; the union must then be
                 // positive
  int by_class;  // whether only boxes of its own class
  int center;  // whether the boxes came in center format: which side of a NaN an intersection takes
};

CVOPS_HD bool suppresses(SizedBox kept, SizedBox other, NmsRule rule) {
  float overlap = intersection(kept.box, other.box, rule.center);
  float all = kept.area + other.area - overlap;
  float iou = overlap / all;
  return rule.at_least ? all > 0 && iou >= rule.threshold : iou > rule.threshold;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// A contest, as nms.cuh takes it: for each row of the batch num boxes, the best first, with their
// areas and classes; what becomes of them; how many take part; and how far it is.
struct NmsContest {
  float *boxes, *areas;
  int* classes;
  uint32* removed;
  uint64* kept;
  int *counts, *progress;

  // `count` boxes take part, and none is decided: thread i of all of row `batch`.
  __device__ __forceinline__ void begin(int batch, int num, int i, int count) const {
    if (i < ceil_div(num, 32)) removed[batch * ceil_div(num, 32) + i] = 0;
    if (i < ceil_div(num, 64)) kept[batch * ceil_div(num, 64) + i] = 0;
    if (i == 0) counts[batch] = count, progress[2 * batch] = 0, progress[2 * batch + 1] = count;
  }

  __device__ __forceinline__ void enter(int64 at, const SizedBox& b, int of_class) const {
    reinterpret_cast<float4*>(boxes)[at] = make_float4(b.box.x1, b.box.y1, b.box.x2, b.box.y2);
    areas[at] = b.area;
    classes[at] = of_class;
  }
};

}  // namespace cvops
#endif
