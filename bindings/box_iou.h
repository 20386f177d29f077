#pragma once
#include "box_iou_kind.cuh"
#include "gpu.h"

namespace cvops {

template <typename T>
void box_iou(const Cpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
             bool center);
template <typename T>
void box_iou(Gpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs, bool center);

// kind is not iou.
template <typename T>
void box_iou_kind(const Cpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
                  bool center, IouKind kind);
template <typename T>
void box_iou_kind(Gpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
                  bool center, IouKind kind);

// Gradients with respect to both sides, for any kind.
template <typename T>
void box_iou_backward(const Cpu&, T* lhs_grad, T* rhs_grad, const T* out_grad, const T* lhs,
                      const T* rhs, int64 num_lhs, int64 num_rhs, bool center, IouKind kind);
template <typename T>
void box_iou_backward(Gpu&, T* lhs_grad, T* rhs_grad, const T* out_grad, const T* lhs, const T* rhs,
                      int64 num_lhs, int64 num_rhs, bool center, IouKind kind);

}  // namespace cvops
