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

// Thread i of all of row `batch`, of `num` boxes: `count` take part, none of them decided. See
// nms.cuh.
__device__ __forceinline__ void nms_begin(uint32* removed, uint64* kept, int* counts, int* progress,
                                          int batch, int num, int i, int count) {
  if (i < ceil_div(num, 32)) removed[batch * ceil_div(num, 32) + i] = 0;
  if (i < ceil_div(num, 64)) kept[batch * ceil_div(num, 64) + i] = 0;
  if (i == 0) counts[batch] = count, progress[2 * batch] = 0, progress[2 * batch + 1] = count;
}

}  // namespace cvops
#endif
