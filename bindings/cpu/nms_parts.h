// Boxes in two parts, of which no box suppresses one of the other part.
#pragma once
#include "nms/rule.cuh"

namespace cvops::cpu {

// Minimum number of boxes for a division, and maximum number of divisions of a part. Each one reads
// all boxes.
constexpr int kMinDivided = 512, kMaxDivisions = 8;

// Writes `order` to `parts`, the first part and then the second one, each in its order. The parts
// have a gap between their places, areas or aspects. Returns the size of the first part, or 0 if no
// large gap is found; the result of suppression is the same.
int divide_at_gap(int* parts, const SizedBox* boxes, const int* order, int num, NmsRule rule);

}  // namespace cvops::cpu
