#pragma once
#include "box_iou_kind.cuh"
#include "gpu.h"

namespace cvops {

void box_iou(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
             int64 num_rhs, bool center);
void box_iou(Gpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center);

// kind is not iou.
void box_iou_kind(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                  int64 num_rhs, bool center, IouKind kind);
void box_iou_kind(Gpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                  int64 num_rhs, bool center, IouKind kind);

// Gradients with respect to both sides, for any kind.
void box_iou_backward(const Cpu&, float* lhs_grad, float* rhs_grad, const float* out_grad,
                      const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs, bool center,
                      IouKind kind);
void box_iou_backward(Gpu&, float* lhs_grad, float* rhs_grad, const float* out_grad,
                      const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs, bool center,
                      IouKind kind);

}  // namespace cvops
