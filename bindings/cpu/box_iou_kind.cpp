#include "box_iou_kind.cuh"

#include <algorithm>
#include <vector>

#include "box_iou.h"
#include "parallel.h"
#include "simd.h"
#include "transpose.h"

namespace cvops {
namespace {

// Boxes as a structure of arrays, which the compiler can vectorize.
template <typename T>
struct BoxArrays {
  const T *x1, *y1, *x2, *y2, *area, *x, *y, *angle;

  CVOPS_INLINE IouBoxOf<T> load(int64 i) const {
    return {{x1[i], y1[i], x2[i], y2[i]}, area[i], x[i], y[i], angle[i]};
  }
};

template <typename T>
class Boxes {
 public:
  Boxes(const T* boxes, int64 num, bool center, IouKind kind) : memory_(8 * num), num_(num) {
    for (int64 i = 0; i < num; ++i) {
      const BoxOf<T> b = load_box(boxes, i);
      const bool needs_angle = kind == IouKind::ciou;
      const T angle = needs_angle ? box_angle(width_of(b, center), height_of(b, center)) : T(0);
      const IouBoxOf<T> box = iou_box(b, angle, center);
      const T fields[] = {box.box.x1, box.box.y1, box.box.x2, box.box.y2,
                          box.area,   box.x,      box.y,      box.angle};
      for (int k = 0; k < 8; ++k) memory_[k * num + i] = fields[k];
    }
  }

  BoxArrays<T> arrays(int64 first = 0) const {
    const T* const from = memory_.data() + first;
    return {from,
            from + num_,
            from + 2 * num_,
            from + 3 * num_,
            from + 4 * num_,
            from + 5 * num_,
            from + 6 * num_,
            from + 7 * num_};
  }

 private:
  std::vector<T> memory_;
  int64 num_;
};

template <IouKind kKind, bool kCenter, typename T>
void kind_row(T* __restrict__ out, IouBoxOf<T> box, BoxArrays<T> columns, int64 num) {
  const T *__restrict__ x1 = columns.x1, *__restrict__ y1 = columns.y1,
                           *__restrict__ x2 = columns.x2, *__restrict__ y2 = columns.y2,
                           *__restrict__ area = columns.area, *__restrict__ x = columns.x,
                           *__restrict__ y = columns.y, *__restrict__ angle = columns.angle;
  for (int64 j = 0; j < num; ++j) {
    const IouBoxOf<T> column = {{x1[j], y1[j], x2[j], y2[j]}, area[j], x[j], y[j], angle[j]};
    out[j] = iou_of_kind<kKind, T>(box, column, kCenter);
  }
}

// Partial sums of the derivatives of one box.
template <typename T>
struct Sums {
  T x1[kIouLanes], y1[kIouLanes], x2[kIouLanes], y2[kIouLanes], area[kIouLanes], angle[kIouLanes];
};

// Adds the pairs with `num` other boxes, at most kIouLanes.
template <IouKind kKind, typename T>
CVOPS_INLINE void add_lanes(Sums<T>& sums, const IouBoxOf<T>& own, const BoxArrays<T>& others,
                            const T* __restrict__ grads, int num) {
  const T *__restrict__ x1 = others.x1, *__restrict__ y1 = others.y1,
                           *__restrict__ x2 = others.x2, *__restrict__ y2 = others.y2,
                           *__restrict__ area = others.area, *__restrict__ x = others.x,
                           *__restrict__ y = others.y, *__restrict__ angle = others.angle;
  T* __restrict__ sum_x1 = sums.x1, * __restrict__ sum_y1 = sums.y1, * __restrict__ sum_x2 = sums.x2, * __restrict__ sum_y2 = sums.y2, * __restrict__ sum_area = sums.area, * __restrict__ sum_angle = sums.angle;
  for (int l = 0; l < num; ++l) {
    const IouBoxOf<T> other = {{x1[l], y1[l], x2[l], y2[l]}, area[l], x[l], y[l], angle[l]};
    const IouGradOf<T> grad = iou_grad<kKind, T>(own, other);
    sum_x1[l] += grads[l] * grad.x1;
    sum_y1[l] += grads[l] * grad.y1;
    sum_x2[l] += grads[l] * grad.x2;
    sum_y2[l] += grads[l] * grad.y2;
    sum_area[l] += grads[l] * grad.area;
    sum_angle[l] += grads[l] * grad.angle;
  }
}

// Sum of the first `used` partial sums; the others are 0, and the additions of them are skipped.
template <typename T>
CVOPS_INLINE T total(T (&lanes)[kIouLanes], int64 used) {
  for (int step = kIouLanes / 2; step > 0; step /= 2) {
    if (step >= used) continue;
    for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  return lanes[0];
}

constexpr int kOwn = 16;  // own boxes of a work item

// Gradients of the own boxes [first, first + num), kOwn at most.
template <IouKind kKind, typename T>
void add_pairs(T* grad, const T* out_grad, const T* own_boxes, const BoxArrays<T>& own,
               const BoxArrays<T>& other, int64 first, int num, int64 num_own, int64 num_other,
               bool by_rows, bool center) {
  std::vector<Sums<T>> sums(num, Sums<T>{});
  T tile[kOwn * kIouLanes];
  for (int64 begin = 0; begin < num_other; begin += kIouLanes) {
    const int width = (int)std::min<int64>(kIouLanes, num_other - begin);
    const BoxArrays<T> others = {other.x1 + begin, other.y1 + begin,   other.x2 + begin,
                                 other.y2 + begin, other.area + begin, other.x + begin,
                                 other.y + begin,  other.angle + begin};
    const T* grads = out_grad + first * num_other + begin;
    int64 pitch = num_other;
    if (!by_rows) {
      cpu::transpose(tile, kIouLanes, out_grad + begin * num_own + first, num_own, width, num);
      grads = tile, pitch = kIouLanes;
    }
    for (int i = 0; i < num; ++i) {
      const IouBoxOf<T> box = own.load(first + i);
      if (width == kIouLanes) {
        add_lanes<kKind, T>(sums[i], box, others, grads + i * pitch, kIouLanes);
      } else {
        add_lanes<kKind, T>(sums[i], box, others, grads + i * pitch, width);
      }
    }
  }
  for (int i = 0; i < num; ++i) {
    Sums<T>& s = sums[i];
    const IouGradOf<T> sum = {total(s.x1, num_other),   total(s.y1, num_other),
                              total(s.x2, num_other),   total(s.y2, num_other),
                              total(s.area, num_other), total(s.angle, num_other)};
    store_box(grad, first + i, box_grad(sum, load_box(own_boxes, first + i), center));
  }
}

template <typename T>
void add_side(T* grad, const T* out_grad, const T* own_boxes, const Boxes<T>& own,
              const Boxes<T>& other, int64 num_own, int64 num_other, bool by_rows, bool center,
              IouKind kind) {
  with_kind(kind, [&](auto constant) {
    constexpr IouKind kKind = decltype(constant)::value;
    parallel_for(ceil_div(num_own, kOwn), 3.0 * kOwn * num_other, [&](int64 i) {
      const int64 first = i * kOwn;
      simd<add_pairs<kKind, T>>(grad, out_grad, own_boxes, own.arrays(), other.arrays(), first,
                                (int)std::min<int64>(kOwn, num_own - first), num_own, num_other,
                                by_rows, center);
    });
  });
}

}  // namespace

template <typename T>
void box_iou_kind(const Cpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
                  bool center, IouKind kind) {
  if (num_lhs == 0 || num_rhs == 0) return;
  const Boxes<T> rows(lhs, num_lhs, center, kind), columns(rhs, num_rhs, center, kind);
  const int64 of_item = std::max<int64>(ceil_div(1 << 13, num_rhs), 1);
  with_kind(kind, [&](auto constant) {
    constexpr IouKind kKind = decltype(constant)::value;
    parallel_for(ceil_div(num_lhs, of_item), 1.0 * of_item * num_rhs, [&](int64 item) {
      const int64 end = std::min(num_lhs, (item + 1) * of_item);
      for (int64 i = item * of_item; i < end; ++i) {
        const IouBoxOf<T> box = rows.arrays().load(i);
        if (center) {
          simd<kind_row<kKind, true, T>>(out + i * num_rhs, box, columns.arrays(), num_rhs);
        } else {
          simd<kind_row<kKind, false, T>>(out + i * num_rhs, box, columns.arrays(), num_rhs);
        }
      }
    });
  });
}

template <typename T>
void box_iou_backward(const Cpu&, T* lhs_grad, T* rhs_grad, const T* out_grad, const T* lhs,
                      const T* rhs, int64 num_lhs, int64 num_rhs, bool center, IouKind kind) {
  const Boxes<T> rows(lhs, num_lhs, center, kind), columns(rhs, num_rhs, center, kind);
  add_side(lhs_grad, out_grad, lhs, rows, columns, num_lhs, num_rhs, true, center, kind);
  add_side(rhs_grad, out_grad, rhs, columns, rows, num_rhs, num_lhs, false, center, kind);
}

#define CVOPS_INSTANTIATE(T)                                                                     \
  template void box_iou_kind(const Cpu&, T*, const T*, const T*, int64, int64, bool, IouKind);   \
  template void box_iou_backward(const Cpu&, T*, T*, const T*, const T*, const T*, int64, int64, \
                                 bool, IouKind);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
