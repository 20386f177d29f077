// Suppression of few boxes without a sort.
#pragma once
#include "box_nms.h"

namespace cvops::cpu {

// Writes the numbers of the kept rows, the best first, and returns how many these are. Each step
// finds the best row left, and removes those that it suppresses. Returns -1 where another way is
// faster: many kept rows.
int keep_of_few(int* kept, const float* rows, int64 num, const NmsOptions& options);

}  // namespace cvops::cpu
