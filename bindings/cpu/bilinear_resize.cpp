#include "bilinear_resize.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "interleaved.h"
#include "nontemporal.h"
#include "row_parts.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kColumns = 64;  // gradients that are interleaved at once

// The samples of an axis as a structure of arrays, computed once for all planes.
struct Samples {
  std::vector<int> low, high;
  std::vector<float> low_weight, high_weight;

  explicit Samples(const ResizeAxis& axis) {
    low.reserve(axis.out_size), high.reserve(axis.out_size);
    low_weight.reserve(axis.out_size), high_weight.reserve(axis.out_size);
    for (int i = 0; i < axis.out_size; ++i) {
      const ResizeSample sample = resize_sample(axis, i);
      low.push_back(sample.low), high.push_back(sample.high);
      low_weight.push_back(sample.low_weight), high_weight.push_back(sample.high_weight);
    }
  }
};

void blend_along_x(float* __restrict__ out, const float* __restrict__ row,
                   const int* __restrict__ low, const int* __restrict__ high,
                   const float* __restrict__ low_weight, const float* __restrict__ high_weight,
                   int num) {
  for (int x = 0; x < num; ++x) {
    out[x] = between(row[low[x]], row[high[x]], low_weight[x], high_weight[x]);
  }
}

void blend(float* __restrict__ out, const float* __restrict__ low, const float* __restrict__ high,
           float low_weight, float high_weight, int num) {
  for (int x = 0; x < num; ++x) out[x] = between(low[x], high[x], low_weight, high_weight);
}

// Two rows of a map, interpolated along x.
class Rows {
 public:
  Rows(const Samples& columns, int out_width)
      : columns_(columns), memory_(2 * (int64)out_width), width_(out_width) {}

  const float* low() const { return rows_[0]; }
  const float* high() const { return rows_[1]; }

  // Selects rows of pixels. A row that was there before is not interpolated again.
  void select(const float* map, int width, int low, int high) {
    if (numbers_[1] == low && numbers_[0] != low) {
      std::swap(rows_[0], rows_[1]);
      std::swap(numbers_[0], numbers_[1]);
    }
    put(0, map, width, low);
    put(1, map, width, high);
  }

 private:
  void put(int i, const float* map, int width, int number) {
    if (numbers_[i] == number) return;
    numbers_[i] = number;
    simd<blend_along_x>(rows_[i], map + (int64)number * width, columns_.low.data(),
                        columns_.high.data(), columns_.low_weight.data(),
                        columns_.high_weight.data(), width_);
  }

  const Samples& columns_;
  std::vector<float> memory_;
  int width_;
  float* rows_[2] = {memory_.data(), memory_.data() + width_};
  int numbers_[2] = {-1, -1};
};

// Pixels of the interleaved planes, and the weights of a sample.
template <typename P>
CVOPS_INLINE void add_product(P& sum, float weight, const P& values) {
  typename P::V weights;
  fill(weights, weight);
  for (int v = 0; v < P::kVectors; ++v) sum.of[v] += weights * values.of[v];
}

// Adds the gradients of one output row to two rows of sums, which are the same row at the end of
// the map. The lanes beyond `planes` are undefined.
template <typename P>
CVOPS_INLINE void add_row(P* low, P* high, const float* out_grad, int64 plane, int planes,
                          float low_weight, float high_weight, const Samples& columns,
                          int out_width) {
  P grads[kColumns] = {};
  for (int begin = 0; begin < out_width; begin += kColumns) {
    const int num = std::min(kColumns, out_width - begin);
    transpose(reinterpret_cast<float*>(grads), P::kLanes, out_grad + begin, plane, planes, num);
    for (int i = 0; i < num; ++i) {
      const int left = columns.low[begin + i], right = columns.high[begin + i];
      const float left_weight = columns.low_weight[begin + i];
      const float right_weight = columns.high_weight[begin + i];
      add_product(low[left], low_weight * left_weight, grads[i]);
      add_product(low[right], low_weight * right_weight, grads[i]);
      add_product(high[left], high_weight * left_weight, grads[i]);
      add_product(high[right], high_weight * right_weight, grads[i]);
    }
  }
}

// Gradient of the rows of pixels in `part`, for `planes` planes: P::kLanes at most.
template <typename P>
CVOPS_INLINE void grad_by(float* grad, const float* out_grad, int planes, Range part,
                          const Samples& rows, const Samples& columns, const BilinearResize& op) {
  const int64 map = (int64)op.height * op.width, out_map = (int64)op.out_height * op.out_width;
  const std::unique_ptr<P[]> memory(new P[2 * (int64)op.width]());
  P *low = memory.get(), *high = low + op.width;
  int top = std::max(part.begin - 1, 0);  // number of the row `low`
  auto flush = [&]() __attribute__((always_inline)) {
    if (top >= part.begin) {
      for (int x = 0; x < op.width; x += kColumns) {
        transpose<P::kWidth>(grad + (int64)top * op.width + x, map,
                             reinterpret_cast<const float*>(low + x), P::kLanes,
                             std::min(kColumns, op.width - x), planes);
      }
    }
    std::fill_n(low, op.width, P{});
    std::swap(low, high);
    ++top;
  };
  int i = (int)(std::lower_bound(rows.low.begin(), rows.low.end(), top) - rows.low.begin());
  for (; i < op.out_height && rows.low[i] < part.end; ++i) {
    while (top < rows.low[i]) flush();
    add_row(low, rows.high[i] > rows.low[i] ? high : low, out_grad + (int64)i * op.out_width,
            out_map, planes, rows.low_weight[i], rows.high_weight[i], columns, op.out_width);
  }
  while (top < part.end) flush();
}

void add_to_zero(float* __restrict__ out, const float* __restrict__ from, int num) {
  for (int i = 0; i < num; ++i) out[i] = 0.0f + from[i];
}

}  // namespace

void bilinear_resize(const Cpu&, float* out, const float* data, int64 planes, BilinearResize op) {
  if (planes == 0) return;
  const int64 map = (int64)op.height * op.width, out_map = (int64)op.out_height * op.out_width;
  if (op.is_copy()) {
    return for_row_parts(planes, op.height, 0.3 * op.width, [&](int64 plane, Range part) {
      const int64 first = plane * map + (int64)part.begin * op.width;
      std::copy_n(data + first, (int64)(part.end - part.begin) * op.width, out + first);
    });
  }
  const Samples rows(op.rows()), columns(op.columns());
  const bool streams = worth_streaming(out, 4 * planes * out_map);
  for_row_parts(planes, op.out_height, 0.8 * op.out_width, [&](int64 plane, Range part) {
    Rows blended(columns, op.out_width);
    std::vector<float> staged(streams ? op.out_width : 0);
    for (int y = part.begin; y < part.end; ++y) {
      blended.select(data + plane * map, op.width, rows.low[y], rows.high[y]);
      float* const to = out + plane * out_map + (int64)y * op.out_width;
      simd<blend>(streams ? staged.data() : to, blended.low(), blended.high(), rows.low_weight[y],
                  rows.high_weight[y], op.out_width);
      if (streams) stream(to, staged.data(), op.out_width);
    }
    if (streams) streamed();
  });
}

void bilinear_resize_backward(const Cpu&, float* grad, const float* out_grad, int64 planes,
                              BilinearResize op) {
  if (planes == 0) return;
  const int64 map = (int64)op.height * op.width, out_map = (int64)op.out_height * op.out_width;
  if (op.is_copy()) {
    return for_row_parts(planes, op.height, 0.3 * op.width, [&](int64 plane, Range part) {
      for (int row = part.begin; row < part.end; ++row) {
        const int64 first = plane * map + (int64)row * op.width;
        simd<add_to_zero>(grad + first, out_grad + first, op.width);
      }
    });
  }
  const Samples rows(op.rows()), columns(op.columns());
  const int64 most = std::min<int64>(planes, kMaxLanes);
  const double cost = most * (0.3 * op.width + 0.8 * out_map / op.height);  // ns
  for_row_parts(ceil_div(planes, kMaxLanes), op.height, cost, [&](int64 group, Range part) {
    const int64 first = group * kMaxLanes;
    const int num = (int)std::min<int64>(kMaxLanes, planes - first);
    with_pixel<float, kMaxWidthOfSums>(
        lanes_for(num), [&](auto type) __attribute__((always_inline)) {
          grad_by<typename decltype(type)::Of>(grad + first * map, out_grad + first * out_map, num,
                                               part, rows, columns, op);
        });
  });
}

}  // namespace cvops
