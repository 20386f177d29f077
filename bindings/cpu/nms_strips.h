// A search for the pairs of near boxes of which one can suppress the other.
#pragma once
#include "box_nms.h"

namespace cvops::cpu {

// Writes the numbers of the kept rows, the best first, and returns how many these are. Returns -1
// if that is slow: then the rows have many pairs, or sizes of boxes that differ a lot.
int keep_of_spread(int* kept, const float* rows, int64 num, const NmsOptions& options, int threads);

}  // namespace cvops::cpu
