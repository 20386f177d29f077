#pragma once
#include "adaptive_avg_pooling.cuh"
#include "gpu.h"

// A plane is one channel of one image. The maps and the grids of bins have at least one element.
namespace cvops {

void adaptive_avg_pooling(const Cpu&, float* out, const float* data, int64 planes,
                          AdaptivePooling op);
void adaptive_avg_pooling(Gpu&, float* out, const float* data, int64 planes, AdaptivePooling op);
void adaptive_avg_pooling_backward(const Cpu&, float* grad, const float* out_grad, int64 planes,
                                   AdaptivePooling op);
void adaptive_avg_pooling_backward(Gpu&, float* grad, const float* out_grad, int64 planes,
                                   AdaptivePooling op);

}  // namespace cvops
