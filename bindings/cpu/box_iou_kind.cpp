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
struct BoxArrays {
  const float *x1, *y1, *x2, *y2, *area, *x, *y, *angle;

  CVOPS_INLINE IouBox load(int64 i) const {
    return {{x1[i], y1[i], x2[i], y2[i]}, area[i], x[i], y[i], angle[i]};
  }
};

class Boxes {
 public:
  Boxes(const float* boxes, int64 num, bool center, IouKind kind) : memory_(8 * num), num_(num) {
    for (int64 i = 0; i < num; ++i) {
      const Box b = load_box(boxes, i);
      const bool needs_angle = kind == IouKind::ciou;
      const float angle = needs_angle ? box_angle(width_of(b, center), height_of(b, center)) : 0.0f;
      const IouBox box = iou_box(b, angle, center);
      const float fields[] = {box.box.x1, box.box.y1, box.box.x2, box.box.y2,
                              box.area,   box.x,      box.y,      box.angle};
      for (int k = 0; k < 8; ++k) memory_[k * num + i] = fields[k];
    }
  }

  BoxArrays arrays(int64 first = 0) const {
    const float* const from = memory_.data() + first;
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
  std::vector<float> memory_;
  int64 num_;
};

template <IouKind kKind, bool kCenter>
void kind_row(float* __restrict__ out, IouBox box, BoxArrays columns, int64 num) {
  const float *__restrict__ x1 = columns.x1, *__restrict__ y1 = columns.y1,
                           *__restrict__ x2 = columns.x2, *__restrict__ y2 = columns.y2,
                           *__restrict__ area = columns.area, *__restrict__ x = columns.x,
                           *__restrict__ y = columns.y, *__restrict__ angle = columns.angle;
  for (int64 j = 0; j < num; ++j) {
    const IouBox column = {{x1[j], y1[j], x2[j], y2[j]}, area[j], x[j], y[j], angle[j]};
    out[j] = iou_of_kind<kKind>(box, column, kCenter);
  }
}

// Partial sums of the derivatives of one box.
struct Sums {
  float x1[kIouLanes], y1[kIouLanes], x2[kIouLanes], y2[kIouLanes], area[kIouLanes],
      angle[kIouLanes];
};

// Adds the pairs with `num` other boxes, at most kIouLanes.
template <IouKind kKind>
CVOPS_INLINE void add_lanes(Sums& sums, const IouBox& own, const BoxArrays& others,
                            const float* __restrict__ grads, int num) {
  const float *__restrict__ x1 = others.x1, *__restrict__ y1 = others.y1,
                           *__restrict__ x2 = others.x2, *__restrict__ y2 = others.y2,
                           *__restrict__ area = others.area, *__restrict__ x = others.x,
                           *__restrict__ y = others.y, *__restrict__ angle = others.angle;
  float* __restrict__ sum_x1 = sums.x1, * __restrict__ sum_y1 = sums.y1, * __restrict__ sum_x2 = sums.x2, * __restrict__ sum_y2 = sums.y2, * __restrict__ sum_area = sums.area, * __restrict__ sum_angle = sums.angle;
  for (int l = 0; l < num; ++l) {
    const IouBox other = {{x1[l], y1[l], x2[l], y2[l]}, area[l], x[l], y[l], angle[l]};
    const IouGrad grad = iou_grad<kKind>(own, other);
    sum_x1[l] += grads[l] * grad.x1;
    sum_y1[l] += grads[l] * grad.y1;
    sum_x2[l] += grads[l] * grad.x2;
    sum_y2[l] += grads[l] * grad.y2;
    sum_area[l] += grads[l] * grad.area;
    sum_angle[l] += grads[l] * grad.angle;
  }
}

// Sum of the first `used` partial sums; the others are 0, and the additions of them are skipped.
CVOPS_INLINE float total(float (&lanes)[kIouLanes], int64 used) {
  for (int step = kIouLanes / 2; step > 0; step /= 2) {
    if (step >= used) continue;
    for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  return lanes[0];
}

constexpr int kOwn = 16;  // own boxes of a work item

// Gradients of the own boxes [first, first + num), kOwn at most.
template <IouKind kKind>
void add_pairs(float* grad, const float* out_grad, const float* own_boxes, const BoxArrays& own,
               const BoxArrays& other, int64 first, int num, int64 num_own, int64 num_other,
               bool by_rows, bool center) {
  std::vector<Sums> sums(num, Sums{});
  float tile[kOwn * kIouLanes];
  for (int64 begin = 0; begin < num_other; begin += kIouLanes) {
    const int width = (int)std::min<int64>(kIouLanes, num_other - begin);
    const BoxArrays others = {other.x1 + begin, other.y1 + begin,   other.x2 + begin,
                              other.y2 + begin, other.area + begin, other.x + begin,
                              other.y + begin,  other.angle + begin};
    const float* grads = out_grad + first * num_other + begin;
    int64 pitch = num_other;
    if (!by_rows) {
      cpu::transpose(tile, kIouLanes, out_grad + begin * num_own + first, num_own, width, num,
                     [](cpu::Quad quad) { return quad; });
      grads = tile, pitch = kIouLanes;
    }
    for (int i = 0; i < num; ++i) {
      const IouBox box = own.load(first + i);
      if (width == kIouLanes) {
        add_lanes<kKind>(sums[i], box, others, grads + i * pitch, kIouLanes);
      } else {
        add_lanes<kKind>(sums[i], box, others, grads + i * pitch, width);
      }
    }
  }
  for (int i = 0; i < num; ++i) {
    Sums& s = sums[i];
    const IouGrad sum = {total(s.x1, num_other),   total(s.y1, num_other),
                         total(s.x2, num_other),   total(s.y2, num_other),
                         total(s.area, num_other), total(s.angle, num_other)};
    store_box(grad, first + i, box_grad(sum, load_box(own_boxes, first + i), center));
  }
}

void add_side(float* grad, const float* out_grad, const float* own_boxes, const Boxes& own,
              const Boxes& other, int64 num_own, int64 num_other, bool by_rows, bool center,
              IouKind kind) {
  with_kind(kind, [&](auto constant) {
    constexpr IouKind kKind = decltype(constant)::value;
    parallel_for(ceil_div(num_own, kOwn), 3.0 * kOwn * num_other, [&](int64 i) {
      const int64 first = i * kOwn;
      simd<add_pairs<kKind>>(grad, out_grad, own_boxes, own.arrays(), other.arrays(), first,
                             (int)std::min<int64>(kOwn, num_own - first), num_own, num_other,
                             by_rows, center);
    });
  });
}

}  // namespace

void box_iou_kind(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                  int64 num_rhs, bool center, IouKind kind) {
  if (num_lhs == 0 || num_rhs == 0) return;
  const Boxes rows(lhs, num_lhs, center, kind), columns(rhs, num_rhs, center, kind);
  const int64 of_item = std::max<int64>(ceil_div(1 << 13, num_rhs), 1);
  with_kind(kind, [&](auto constant) {
    constexpr IouKind kKind = decltype(constant)::value;
    parallel_for(ceil_div(num_lhs, of_item), 1.0 * of_item * num_rhs, [&](int64 item) {
      const int64 end = std::min(num_lhs, (item + 1) * of_item);
      for (int64 i = item * of_item; i < end; ++i) {
        const IouBox box = rows.arrays().load(i);
        if (center) {
          simd<kind_row<kKind, true>>(out + i * num_rhs, box, columns.arrays(), num_rhs);
        } else {
          simd<kind_row<kKind, false>>(out + i * num_rhs, box, columns.arrays(), num_rhs);
        }
      }
    });
  });
}

void box_iou_backward(const Cpu&, float* lhs_grad, float* rhs_grad, const float* out_grad,
                      const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs, bool center,
                      IouKind kind) {
  const Boxes rows(lhs, num_lhs, center, kind), columns(rhs, num_rhs, center, kind);
  add_side(lhs_grad, out_grad, lhs, rows, columns, num_lhs, num_rhs, true, center, kind);
  add_side(rhs_grad, out_grad, rhs, columns, rows, num_rhs, num_lhs, false, center, kind);
}

}  // namespace cvops
