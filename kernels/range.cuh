// Ranges of indices.
#pragma once
#include "common.cuh"

namespace cvops {

// Half-open range of indices [begin, end).
struct Range {
  int begin, end;
};

}  // namespace cvops
