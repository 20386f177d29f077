#pragma once
#include "roi_pooling.cuh"

struct CUstream_st;

namespace cvops {

// The sizes of out_grad (rois, channels, bins) and of grad (images, channels, pixels).
struct RoiPoolingGrad {
  int64 rois;
  int bins, images, channels, pixels;
};

// argmax may be null in roi_pooling: it is not written then.
namespace cpu {
void roi_pooling(float* pooled, int* argmax, const float* data, const float* rois, int64 num_rois,
                 RoiPooling op);
void roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size);
}  // namespace cpu

namespace cuda {
void roi_pooling(float* pooled, int* argmax, const float* data, const float* rois, int64 num_rois,
                 RoiPooling op, CUstream_st* stream);
void roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
