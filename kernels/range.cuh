// Ranges of indices.
#pragma once
#include "common.cuh"

namespace cvops {

// Half-open range of indices [begin, end).
struct Range {
  int begin, end;
};

CVOPS_HD bool contains(Range range, int i) { return range.begin <= i && i < range.end; }
CVOPS_HD bool intersect(Range a, Range b) { return a.begin < b.end && b.begin < a.end; }

}  // namespace cvops
