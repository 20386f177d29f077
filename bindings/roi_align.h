#pragma once
#include "gpu.h"
#include "roi_align.cuh"

namespace cvops {

template <typename T>
void roi_align(const Cpu&, T* pooled, const T* data, const T* rois, int64 num_rois, RoiAlign op);
template <typename T>
void roi_align(Gpu&, T* pooled, const T* data, const T* rois, int64 num_rois, RoiAlign op);
template <typename T>
void roi_align_backward(const Cpu&, T* grad, const T* out_grad, const T* rois, int64 num_rois,
                        RoiAlign op);
template <typename T>
void roi_align_backward(Gpu&, T* grad, const T* out_grad, const T* rois, int64 num_rois,
                        RoiAlign op);

}  // namespace cvops
