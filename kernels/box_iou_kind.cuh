// box_iou of the kinds GIoU, DIoU and CIoU, and the gradient of all kinds.
//
// Forward: the threads of a block cover columns first; the remaining factor covers rows. A thread
// holds one column in registers and iterates over rows.
//
// Backward: the pairs of a box of one side, its own, are added in 128 partial sums: sum l has the
// other boxes l, l + 128, and so on. Pairwise additions of the sums follow. The order is the same
// on every device. A thread has one partial sum, and a block two own boxes.
//
// The angles for CIoU are computed once for each box, by a kernel of its own.
#pragma once
#include "box.cuh"

namespace cvops {

enum class IouKind { iou, giou, diou, ciou };

template <IouKind kKind>
struct IouConstant {
  static constexpr IouKind value = kKind;
};

// Calls body(IouConstant<kind>()).
template <typename Body>
CVOPS_HD void with_kind(IouKind kind, const Body& body) {
  switch (kind) {
    case IouKind::iou:
      return body(IouConstant<IouKind::iou>());
    case IouKind::giou:
      return body(IouConstant<IouKind::giou>());
    case IouKind::diou:
      return body(IouConstant<IouKind::diou>());
    default:
      return body(IouConstant<IouKind::ciou>());
  }
}

template <typename T>
constexpr T kIouEps = (T)1e-7;  // in two divisors, as in torchvision
template <typename T>
constexpr T kFourOverPiSquared = (T)0.40528473456935108578;
constexpr int kIouLanes = 128;  // partial sums of the gradient of a box
constexpr int kOwnBoxes = 2;    // own boxes of a block

// Arc tangent of width / height; 0 if both are 0. Only operations that IEEE 754 rounds identically
// everywhere occur, in double, with one rounding to T at the end. The series is that of Taylor
// up to s^23, for |s| <= tan(pi / 8).
template <typename T>
CVOPS_HD T box_angle(T width, T height) {
  const double a = width < 0 ? -(double)width : (double)width;
  const double b = height < 0 ? -(double)height : (double)height;
  const bool steep = a > b;
  const double ratio = (steep ? b : a) / (steep ? a : b);
  const bool high = ratio > 0.41421356237309503;
  const double s = high ? (ratio - 1.0) / (ratio + 1.0) : ratio, z = s * s;
  double p = -1.0 / 23;
  p = p * z + 1.0 / 21;
  p = p * z - 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z - 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z - 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z - 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z - 1.0 / 3;
  p = p * z + 1.0;
  double angle = s * p;
  if (high) angle = 0.78539816339744828 + angle;
  if (steep) angle = 1.5707963267948966 - angle;
  if (a == 0 && b == 0) angle = 0.0;
  return (T)((width < 0) != (height < 0) ? -angle : angle);
}

// A box, its area and its center. `angle` is used by CIoU only.
template <typename T>
struct IouBoxOf {
  BoxOf<T> box;
  T area, x, y, angle;
};

template <typename T>
CVOPS_HD IouBoxOf<T> iou_box(BoxOf<T> b, T angle, bool center) {
  const SizedBoxOf<T> s = sized(b, center);
  if (center) return {s.box, s.area, b.x1, b.y1, angle};
  return {s.box, s.area, (b.x1 + b.x2) * 0.5f, (b.y1 + b.y2) * 0.5f, angle};
}

// Width and height of a box in either format.
template <typename T>
CVOPS_HD T width_of(BoxOf<T> b, bool center) {
  return center ? b.x2 : b.x2 - b.x1;
}
template <typename T>
CVOPS_HD T height_of(BoxOf<T> b, bool center) {
  return center ? b.y2 : b.y2 - b.y1;
}

// Sides of the smallest box that contains both.
template <typename T>
CVOPS_HD T hull_width(BoxOf<T> a, BoxOf<T> b) {
  return positive_part(larger(a.x2, b.x2) - smaller(a.x1, b.x1));
}
template <typename T>
CVOPS_HD T hull_height(BoxOf<T> a, BoxOf<T> b) {
  return positive_part(larger(a.y2, b.y2) - smaller(a.y1, b.y1));
}

template <IouKind kKind, typename T>
CVOPS_HD T iou_of_kind(const IouBoxOf<T>& lhs, const IouBoxOf<T>& rhs, bool center) {
  const T overlap = intersection(lhs.box, rhs.box, center);
  const T total = lhs.area + rhs.area - overlap;
  const T iou = overlap <= 0 ? 0.0f : overlap / total;
  const T width = hull_width(lhs.box, rhs.box), height = hull_height(lhs.box, rhs.box);
  if (kKind == IouKind::giou) {
    const T hull = width * height;
    // Without an area of the hull, the IoU remains. The product keeps a NaN.
    return iou - (hull > 0 ? (hull - total) / hull : total * 0.0f);
  }
  const T dx = lhs.x - rhs.x, dy = lhs.y - rhs.y;
  const T diou = iou - (dx * dx + dy * dy) / (width * width + height * height + kIouEps<T>);
  if (kKind == IouKind::diou) return diou;
  const T turn = lhs.angle - rhs.angle, v = kFourOverPiSquared<T> * (turn * turn);
  return diou - v / (1.0f - iou + v + kIouEps<T>)*v;
}

// Derivatives of the result with respect to one box: its corners, its area, its angle.
template <typename T>
struct IouGradOf {
  T x1, y1, x2, y2, area, angle;
};

// Share of `a` in the gradient of the maximum of a and b; equal values share it, as in PyTorch.
template <typename T>
CVOPS_HD T share(T a, T b) {
  return a > b ? 1.0f : a == b ? 0.5f : T(0);
}

// Derivatives with respect to `own`. The factor of v in CIoU is a constant, as in torchvision.
template <IouKind kKind, typename T>
CVOPS_HD IouGradOf<T> iou_grad(const IouBoxOf<T>& own, const IouBoxOf<T>& other) {
  const BoxOf<T>&a = own.box, &b = other.box;
  const T width = positive_part(smaller(a.x2, b.x2) - larger(a.x1, b.x1));
  const T height = positive_part(smaller(a.y2, b.y2) - larger(a.y1, b.y1));
  const T overlap = width * height, total = own.area + other.area - overlap;
  const bool overlaps = overlap > 0;
  const T iou = overlaps ? overlap / total : T(0);
  T by_overlap = overlaps ? (1.0f + iou) / total : T(0);
  T by_area = overlaps ? -(iou / total) : T(0);
  T by_hull_width = 0.0f, by_hull_height = 0.0f, by_x = 0.0f, by_y = 0.0f, by_angle = 0.0f;
  if (kKind != IouKind::iou) {
    const T across = hull_width(a, b), down = hull_height(a, b);
    if (kKind == IouKind::giou) {
      const T hull = across * down;
      const bool exists = hull > 0;
      const T inverse = exists ? 1.0f / hull : T(0);
      const T by_hull = exists ? -(total / hull / hull) : T(0);
      by_overlap = overlaps ? by_overlap - inverse : T(0);
      by_area = by_area + inverse;
      by_hull_width = by_hull * down;
      by_hull_height = by_hull * across;
    } else {
      const T diagonal = across * across + down * down + kIouEps<T>;
      const T dx = own.x - other.x, dy = own.y - other.y;
      const T by_diagonal = (dx * dx + dy * dy) / diagonal / diagonal;
      by_x = -(2.0f * dx / diagonal);
      by_y = -(2.0f * dy / diagonal);
      by_hull_width = 2.0f * across * by_diagonal;
      by_hull_height = 2.0f * down * by_diagonal;
    }
    if (kKind == IouKind::ciou) {
      const T turn = own.angle - other.angle, v = kFourOverPiSquared<T> * (turn * turn);
      const T factor = v / (1.0f - iou + v + kIouEps<T>);
      by_angle = -(factor * (2.0f * kFourOverPiSquared<T> * turn));
    }
  }
  const T by_width = by_overlap * height, by_height = by_overlap * width;
  return {0.5f * by_x - by_width * share(a.x1, b.x1) - by_hull_width * share(b.x1, a.x1),
          0.5f * by_y - by_height * share(a.y1, b.y1) - by_hull_height * share(b.y1, a.y1),
          0.5f * by_x + by_width * share(b.x2, a.x2) + by_hull_width * share(a.x2, b.x2),
          0.5f * by_y + by_height * share(b.y2, a.y2) + by_hull_height * share(a.y2, b.y2),
          by_area,
          by_angle};
}

template <typename T>
CVOPS_HD void add_grad(IouGradOf<T>& sum, const IouGradOf<T>& grad, T factor) {
  sum.x1 += factor * grad.x1;
  sum.y1 += factor * grad.y1;
  sum.x2 += factor * grad.x2;
  sum.y2 += factor * grad.y2;
  sum.area += factor * grad.area;
  sum.angle += factor * grad.angle;
}

// Gradient of a box in its format, from that of its corners, its area and its angle.
template <typename T>
CVOPS_HD BoxOf<T> box_grad(const IouGradOf<T>& sum, BoxOf<T> b, bool center) {
  const T width = width_of(b, center), height = height_of(b, center);
  const bool inverted = width < 0 || height < 0;
  const T norm = width * width + height * height;
  const T by_width =
      (inverted ? 0.0f : sum.area * height) + (norm > 0 ? sum.angle * (height / norm) : T(0));
  const T by_height =
      (inverted ? 0.0f : sum.area * width) - (norm > 0 ? sum.angle * (width / norm) : T(0));
  if (!center) {
    return {sum.x1 - by_width, sum.y1 - by_height, sum.x2 + by_width, sum.y2 + by_height};
  }
  return {sum.x1 + sum.x2, sum.y1 + sum.y2, 0.5f * (sum.x2 - sum.x1) + by_width,
          0.5f * (sum.y2 - sum.y1) + by_height};
}

// The boxes of both sides, and the format. The angles are null except for CIoU.
template <typename T>
struct IouSideOf {
  const T *boxes, *angles;

  CVOPS_HD BoxOf<T> box(int64 i) const { return load_box(boxes, i); }
  CVOPS_HD IouBoxOf<T> load(int64 i, bool center) const {
    return iou_box(box(i), angles ? angles[i] : T(0), center);
  }
};

}  // namespace cvops

CVOPS_KERNEL box_angles(float* angles, const float* boxes, int num, int center);
CVOPS_KERNEL box_angles_f64(double* angles, const double* boxes, int num, int center);
CVOPS_KERNEL box_iou_kind(float* out, cvops::IouSideOf<float> lhs, cvops::IouSideOf<float> rhs,
                          int num_lhs, int num_rhs, int center, int kind);
CVOPS_KERNEL box_iou_kind_f64(double* out, cvops::IouSideOf<double> lhs,
                              cvops::IouSideOf<double> rhs, int num_lhs, int num_rhs, int center,
                              int kind);
CVOPS_KERNEL box_iou_backward(float* grad, const float* out_grad, cvops::IouSideOf<float> own,
                              cvops::IouSideOf<float> other, int num_own, int num_other,
                              int by_rows, int center, int kind);
CVOPS_KERNEL box_iou_backward_f64(double* grad, const double* out_grad,
                                  cvops::IouSideOf<double> own, cvops::IouSideOf<double> other,
                                  int num_own, int num_other, int by_rows, int center, int kind);

#ifdef __CUDACC__
namespace cvops {

template <IouKind kKind, typename T>
__device__ __forceinline__ void kind_tile(T* __restrict__ out, const IouSideOf<T>& lhs,
                                          const IouSideOf<T>& rhs, int num_lhs, int num_rhs,
                                          bool center) {
  const int threads = (int)blockDim.x, across = num_rhs < threads ? num_rhs : threads;
  const int rows = threads / across, down = (int)threadIdx.x / across;
  const int me = (int)threadIdx.x - down * across;
  if (down >= rows) return;
  for (int64 j = (int64)blockIdx.y * across + me; j < num_rhs; j += (int64)gridDim.y * across) {
    const IouBoxOf<T> column = rhs.load(j, center);
    for (int64 i = (int64)blockIdx.x * rows + down; i < num_lhs; i += (int64)gridDim.x * rows) {
      out[i * num_rhs + j] = iou_of_kind<kKind>(lhs.load(i, center), column, center);
    }
  }
}

// Adds the pairs of the own boxes [first, first + kOwnBoxes) and writes their gradients. out_grad
// has a row for each own box with by_rows, else a column.
template <IouKind kKind, typename T>
__device__ __forceinline__ void add_pairs(IouGradOf<T>* sums, T* __restrict__ grad,
                                          const T* __restrict__ out_grad, const IouSideOf<T>& own,
                                          const IouSideOf<T>& other, int64 first, int num_own,
                                          int num_other, bool by_rows, bool center) {
  const int me = (int)threadIdx.x, lane = me % kIouLanes;
  const int64 i = first + me / kIouLanes;
  IouGradOf<T> sum = {};
  if (i < num_own) {
    const IouBoxOf<T> box = own.load(i, center);
    for (int64 j = lane; j < num_other; j += kIouLanes) {
      const T factor = out_grad[by_rows ? i * num_other + j : j * num_own + i];
      add_grad(sum, iou_grad<kKind>(box, other.load(j, center)), factor);
    }
  }
  sums[me] = sum;
  for (int step = kIouLanes / 2; step > 0; step /= 2) {
    __syncthreads();
    if (lane < step) add_grad(sums[me], sums[me + step], T(1));
  }
  if (lane == 0 && i < num_own) store_box(grad, i, box_grad(sums[me], own.box(i), center));
}

template <typename T>
__device__ __forceinline__ void find_angles(T* __restrict__ angles, const T* __restrict__ boxes,
                                            int num, bool center) {
  for (int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x; i < num;
       i += (int64)gridDim.x * blockDim.x) {
    const BoxOf<T> b = load_box(boxes, i);
    angles[i] = box_angle(width_of(b, center), height_of(b, center));
  }
}

template <typename T>
__device__ __forceinline__ void kind_matrix(T* __restrict__ out, const IouSideOf<T>& lhs,
                                            const IouSideOf<T>& rhs, int num_lhs, int num_rhs,
                                            bool center, int kind) {
  if (kind == (int)IouKind::giou) {
    kind_tile<IouKind::giou>(out, lhs, rhs, num_lhs, num_rhs, center);
  } else if (kind == (int)IouKind::diou) {
    kind_tile<IouKind::diou>(out, lhs, rhs, num_lhs, num_rhs, center);
  } else {
    kind_tile<IouKind::ciou>(out, lhs, rhs, num_lhs, num_rhs, center);
  }
}

template <typename T>
__device__ __forceinline__ void add_all_pairs(T* __restrict__ grad, const T* __restrict__ out_grad,
                                              const IouSideOf<T>& own, const IouSideOf<T>& other,
                                              int num_own, int num_other, bool by_rows, bool center,
                                              int kind) {
  __shared__ IouGradOf<T> sums[kOwnBoxes * kIouLanes];
  for (int64 first = (int64)blockIdx.x * kOwnBoxes; first < num_own;
       first += (int64)gridDim.x * kOwnBoxes) {
    with_kind((IouKind)kind, [&](auto constant) {
      add_pairs<decltype(constant)::value>(sums, grad, out_grad, own, other, first, num_own,
                                           num_other, by_rows, center);
    });
    __syncthreads();
  }
}

}  // namespace cvops

// angles (num), boxes (num, 4).
extern "C" __global__ void __launch_bounds__(256)
    box_angles(float* __restrict__ angles, const float* __restrict__ boxes, int num, int center) {
  cvops::wait_for_earlier_launches();
  cvops::find_angles(angles, boxes, num, center);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_angles_f64(double* __restrict__ angles, const double* __restrict__ boxes, int num,
                   int center) {
  cvops::wait_for_earlier_launches();
  cvops::find_angles(angles, boxes, num, center);
}

// out (num_lhs, num_rhs). Grid (row tiles, column tiles).
extern "C" __global__ void __launch_bounds__(256, 3)
    box_iou_kind(float* __restrict__ out, const cvops::IouSideOf<float> lhs,
                 const cvops::IouSideOf<float> rhs, int num_lhs, int num_rhs, int center,
                 int kind) {
  cvops::wait_for_earlier_launches();
  cvops::kind_matrix(out, lhs, rhs, num_lhs, num_rhs, center, kind);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_iou_kind_f64(double* __restrict__ out, const cvops::IouSideOf<double> lhs,
                     const cvops::IouSideOf<double> rhs, int num_lhs, int num_rhs, int center,
                     int kind) {
  cvops::wait_for_earlier_launches();
  cvops::kind_matrix(out, lhs, rhs, num_lhs, num_rhs, center, kind);
}

// grad (num_own, 4); out_grad (num_own, num_other) with by_rows, else (num_other, num_own). Blocks
// have 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    box_iou_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                     const cvops::IouSideOf<float> own, const cvops::IouSideOf<float> other,
                     int num_own, int num_other, int by_rows, int center, int kind) {
  cvops::wait_for_earlier_launches();
  cvops::add_all_pairs(grad, out_grad, own, other, num_own, num_other, by_rows, center, kind);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_iou_backward_f64(double* __restrict__ grad, const double* __restrict__ out_grad,
                         const cvops::IouSideOf<double> own, const cvops::IouSideOf<double> other,
                         int num_own, int num_other, int by_rows, int center, int kind) {
  cvops::wait_for_earlier_launches();
  cvops::add_all_pairs(grad, out_grad, own, other, num_own, num_other, by_rows, center, kind);
}
#endif
