// Parts of the rows of planes, for several threads.
#pragma once
#include <algorithm>

#include "common.cuh"
#include "parallel.h"
#include "range.cuh"

namespace cvops::cpu {

// Calls body(group, part) for groups of planes and parts of their `rows`, on several threads if
// that pays. If there are many groups, a part has all rows. `cost_of_row`: estimated time of a row
// in ns.
template <typename Body>
void for_row_parts(int64 groups, int rows, double cost_of_row, const Body& body) {
  const bool small = groups * rows * cost_of_row < 3e4;  // ns
  const int64 parts = small ? 1 : std::min<int64>(rows, ceil_div(4 * num_threads(), groups));
  parallel_for(groups * parts, cost_of_row * rows / parts, [&](int64 i) {
    const int64 part = i % parts;
    body(i / parts, Range{(int)(part * rows / parts), (int)((part + 1) * rows / parts)});
  });
}

}  // namespace cvops::cpu
