#pragma once
#include "box_decode.cuh"
#include "gpu.h"

namespace cvops {

// out and data (B, N, 4), anchors (1, N, 4).
template <typename T>
void box_decode(const Cpu&, T* out, const T* data, const T* anchors, int64 batch, int64 num,
                BoxDecode op);
template <typename T>
void box_decode(Gpu&, T* out, const T* data, const T* anchors, int64 batch, int64 num,
                BoxDecode op);

}  // namespace cvops
