// Parts of the adapter that its files share.
#pragma once
#include <torch/library.h>

namespace cvops::pytorch {

// If true, tensors on the CPU are computed as on GPU 0, for tests with an emulated GPU.
extern bool through_gpu;

// The operators of the namespace cvops.
torch::Library& library();

// Defines torch.ops.cvops._nms.
void define_nms();

}  // namespace cvops::pytorch
