// When a box suppresses another: the rules of box_nms and multibox_detection.
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
