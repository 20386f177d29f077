// Suppression of boxes in groups: the boxes with the highest scores are decided first. Most other
// boxes are then removed without a sort.
#pragma once
#include <functional>

#include "nms_few.h"

namespace cvops::cpu {

// Decides `num` rows `some`, which ascend. Writes the numbers of the kept ones, the best first, and
// returns how many these are.
using KeepSome = std::function<int(int* kept, const int* some, int num)>;

// Writes the numbers of rows as keep_of_few() does: those of kept rows, and of the rows that none
// of these suppresses. Returns false if boxes suppress few others, or if that takes long.
bool keep_in_groups(int* numbers, FewRows& count, const float* rows, int64 num,
                    const NmsOptions& options, int threads, const KeepSome& keep_some);

}  // namespace cvops::cpu
