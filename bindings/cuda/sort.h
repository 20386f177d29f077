// Launches of the kernels of sort.cuh.
#pragma once
#include "gpu.h"

namespace cvops::cuda {

// True if the number of merge passes for `max_keys` keys is odd.
bool merges_oddly(int64 max_keys);

// Sorts the first counts[b] keys, at most `max_keys`, of each row of `from` (batch, num) to `to`.
// `spare` is overwritten. `from` may be `spare`, or `to` if the number of merge passes is odd.
void sort(Gpu& gpu, uint64* to, uint64* spare, const uint64* from, const int* counts, int64 batch,
          int64 num, int64 max_keys);

}  // namespace cvops::cuda
