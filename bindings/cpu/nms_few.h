// Suppression of few boxes without a sort.
#pragma once
#include "box_nms.h"

namespace cvops::cpu {

// Rows of a set: the first ones are kept, and the last ones are undecided.
struct FewRows {
  int kept, left;
};

// Writes the numbers of kept rows, the best first, and then those of the rows that are left, in
// ascending order: the rows that none of the kept ones suppresses. Each step finds the best row
// left, and removes those that it suppresses. The steps end where a sort is faster. Returns false
// if that is so from the beginning.
bool keep_of_few(int* numbers, FewRows& count, const float* rows, int64 num,
                 const NmsOptions& options);

}  // namespace cvops::cpu
