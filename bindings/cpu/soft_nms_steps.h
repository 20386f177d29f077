// Soft-NMS step by step: each kept box lowers the scores of all candidates that are left. A step
// has few operations for each of these, and needs no queue.
#pragma once
#include "nms.h"
#include "soft_nms.h"

namespace cvops::cpu {

// True if many candidates overlap: then steps are faster than a queue of candidates.
bool suits_steps(const NmsCandidates& found, const SoftNms& op);

// Writes the rows and scores of the kept candidates, in order, and returns how many these are.
int keep_by_steps(int* rows, float* scores, const NmsCandidates& found,
                  const SoftNmsOptions& options);

}  // namespace cvops::cpu
