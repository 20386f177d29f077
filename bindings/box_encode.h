#pragma once
#include "box_encode.cuh"
#include "gpu.h"

namespace cvops {

// targets and masks (B, N, 4). On the CPU a match out of range of a positive sample is an error.
template <typename T>
void box_encode(const Cpu&, T* targets, T* masks, EncodeInputsOf<T> in, int64 batch, int64 num,
                int64 num_refs);
template <typename T>
void box_encode(Gpu&, T* targets, T* masks, EncodeInputsOf<T> in, int64 batch, int64 num,
                int64 num_refs);

}  // namespace cvops
