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

// The buffers of one suppression: for each row of the batch `num` boxes in score order.
struct NmsBuffers {
  float *boxes, *areas;  // (B, N, 4), (B, N)
  int* classes;          // (B, N)
  uint32* removed;       // (B, ceil(N / 32)): a bit for each box that is suppressed
  uint64* kept;          // (B, ceil(N / 64)): a bit for each box that is kept
  int* kept_before;      // (B, ceil(N / 64) + 1): the boxes kept before each word of `kept`
  int* counts;           // (B): the boxes that take part
  int* progress;         // (B, 2): the blocks that are done, and the boxes that are undecided

#ifdef __CUDACC__
  // Starts with `count` undecided boxes in row `batch`; thread i of at least num / 32.
  __device__ __forceinline__ void begin(int batch, int num, int i, int count) const {
    if (i < ceil_div(num, 32)) removed[batch * ceil_div(num, 32) + i] = 0;
    if (i < ceil_div(num, 64)) kept[batch * ceil_div(num, 64) + i] = 0;
    if (i == 0) counts[batch] = count, progress[2 * batch] = 0, progress[2 * batch + 1] = count;
  }

  __device__ __forceinline__ void store(int64 at, const SizedBox& b, int of_class) const {
    reinterpret_cast<float4*>(boxes)[at] = make_float4(b.box.x1, b.box.y1, b.box.x2, b.box.y2);
    areas[at] = b.area;
    classes[at] = of_class;
  }
#endif
};

}  // namespace cvops
