#include "bilinear_upsample.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "bilinear_upsample.cuh"
#include "nontemporal.h"
#include "row_parts.h"
#include "simd.h"

namespace cvops {
namespace {

template <typename T>
struct Weights {
  std::vector<BilinearPair<T>> pairs;  // weights of the outputs of a band
  std::vector<T> near, far, tap;       // the same weights as arrays; all taps

  explicit Weights(int scale) {
    pairs.reserve(scale);
    for (auto* weights : {&near, &far, &tap}) weights->reserve(2 * scale);
    for (int of = 0; of < scale; ++of) {
      pairs.push_back(bilinear_pair<T>(of, scale));
      near.push_back(pairs[of].near);
      far.push_back(pairs[of].far);
    }
    for (int t = 0; t < bilinear_taps(scale); ++t) tap.push_back(bilinear_weight<T>(t, scale));
  }
};

// Calls body(c) with c = scale as a constant if it is in [2, 8], else with c = 0.
template <typename Body>
CVOPS_INLINE void with_constant(int scale, const Body& body) {
  switch (scale) {
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 5:
      return body(std::integral_constant<int, 5>());
    case 6:
      return body(std::integral_constant<int, 6>());
    case 7:
      return body(std::integral_constant<int, 7>());
    case 8:
      return body(std::integral_constant<int, 8>());
    default:
      return body(std::integral_constant<int, 0>());
  }
}

// The bands of a row of pixels, each at its full length. With a constant scale, the compiler
// vectorizes across bands.
template <int kScale, typename T>
inline void blend_along_x_by(T* __restrict__ out, const T* __restrict__ row,
                             const T* __restrict__ near, const T* __restrict__ far, int width,
                             int any_scale) {
  const int scale = kScale ? kScale : any_scale;
  const int both = scale - scale % 2;  // outputs that lie between two pixels
  for (int64 i = 0; i <= width; ++i) {
    const T right = i < width ? row[i] : T(0), left = i > 0 ? row[i - 1] : T(0);
    for (int of = 0; of < both; ++of) {
      out[i * scale + of] = blended<T>(right, left, {near[of], far[of]});
    }
    if (both < scale) out[i * scale + both] = blended<T>(right, 0, {near[both], far[both]});
  }
}

template <typename T>
void blend_along_x(T* out, const T* row, const Weights<T>& weights, int width, int scale) {
  with_constant(scale, [&](auto constant) {
    blend_along_x_by<constant>(out, row, weights.near.data(), weights.far.data(), width, scale);
  });
}

template <typename T>
void blend(T* __restrict__ out, const T* __restrict__ near, const T* __restrict__ far,
           BilinearPair<T> weight, int num) {
  for (int x = 0; x < num; ++x) out[x] = blended(near[x], far[x], weight);
}

// Rows of a sum: row t begins at row(t).
template <typename T>
struct RowsOfMap {
  const T* begin;
  int64 pitch;
  const T* operator()(int t) const { return begin + t * pitch; }
};

// Row r holds each scale-th sum from r on: `pitch` elements.
template <typename T>
struct RowsOfPhases {
  const T* begin;
  int64 pitch;
  int scale;
  const T* operator()(int t) const { return begin + t % scale * pitch + t / scale; }
};

template <bool kFirst, int kRows, typename T, typename Rows>
inline void add_some(T* __restrict__ sums, const Rows& rows, const T* weights, int t, int num) {
  const T* row[kRows];
  T weight[kRows];
  for (int n = 0; n < kRows; ++n) row[n] = rows(t + n), weight[n] = weights[t + n];
  CVOPS_INDEPENDENT
  for (int64 x = 0; x < num; ++x) {
    T sum = kFirst ? T(0) : sums[x];
    for (int n = 0; n < kRows; ++n) sum += row[n][x] * weight[n];
    sums[x] = sum;
  }
}

// Weighted sum of rows, beginning with row 0. Several rows per pass keep the sums in registers.
template <typename T, typename Rows>
void add_rows(T* sums, const Rows& rows, const T* weights, int count, int num) {
  constexpr int kAtOnce = 4;
  int t = 0;
  if (count >= kAtOnce) {
    add_some<true, kAtOnce>(sums, rows, weights, 0, num);
    for (t = kAtOnce; t + kAtOnce <= count; t += kAtOnce) {
      add_some<false, kAtOnce>(sums, rows, weights, t, num);
    }
  } else {
    add_some<true, 1>(sums, rows, weights, t++, num);
  }
  for (; t < count; ++t) add_some<false, 1>(sums, rows, weights, t, num);
}

// phase[r, x] = sums[x * scale + r]; rows of `phase` are `pitch` apart.
template <int kScale, typename T>
inline void find_phases_by(T* __restrict__ phase, const T* __restrict__ sums, int64 pitch,
                           int any_scale) {
  const int64 scale = kScale ? kScale : any_scale;
  for (int64 x = 0; x < pitch; ++x) {
    for (int64 r = 0; r < scale; ++r) phase[r * pitch + x] = sums[x * scale + r];
  }
}

template <typename T>
void find_phases(T* phase, const T* sums, int64 pitch, int scale) {
  with_constant(scale, [&](auto constant) { find_phases_by<constant>(phase, sums, pitch, scale); });
}

}  // namespace

template <typename T>
void bilinear_upsample(const Cpu&, T* out, const T* data, int64 planes, int height, int width,
                       int scale) {
  if (planes * height * width == 0) return;
  const Weights<T> weights(scale);
  const int out_width = width * scale, edge = scale / 2;
  const bool streams = worth_streaming(out, (int64)sizeof(T) * planes * height * scale * out_width);
  cpu::for_row_parts(planes, height + 1, 0.3 * scale * out_width, [&](int64 plane, Range bands) {
    // Rows are aligned to cache lines. A store across two lines cannot be forwarded to a load that
    // follows soon.
    struct alignas(64) Line {
      T of[64 / sizeof(T)];
    };
    constexpr int64 kOfLine = 64 / sizeof(T);
    const int64 lines = ceil_div(out_width + scale, kOfLine), pitch = kOfLine * lines;
    std::vector<Line> memory(4 * lines);
    T *near = memory[0].of, *far = near + pitch;
    const T* const zeros = far + pitch + edge;
    T* const staged = far + 2 * pitch;
    auto fill = [&](T* to, int row) {
      if (row < 0 || row == height) return (void)std::fill_n(to, pitch, T(0));
      simd<blend_along_x<T>>(to, data + (plane * height + row) * width, weights, width, scale);
    };
    fill(near, bands.begin - 1);
    for (int band = bands.begin; band < bands.end; ++band) {
      std::swap(near, far);
      fill(near, band);
      for (int of = 0; of < scale; ++of) {
        const int y = band * scale + of - edge;
        if (y < 0 || y >= height * scale) continue;
        const BilinearPair<T> weight = weights.pairs[of];
        T* const to = out + (plane * height * scale + y) * out_width;
        simd<blend<T>>(streams ? staged : to, near + edge, weight.far > 0 ? far + edge : zeros,
                       weight, out_width);
        if (streams) stream(to, staged, out_width);
      }
    }
    if (streams) streamed();
  });
}

template <typename T>
void bilinear_upsample_backward(const Cpu&, T* grad, const T* out_grad, int64 planes, int height,
                                int width, int scale) {
  if (planes * height * width == 0) return;
  const Weights<T> weights(scale);
  const int out_height = height * scale, out_width = width * scale, edge = scale / 2;
  const int taps = bilinear_taps(scale);
  cpu::for_row_parts(planes, height, 0.3 * taps * out_width, [&](int64 plane, Range part) {
    // The sums begin and end with zeros for positions without outputs.
    const int64 pitch = width + 1;
    std::vector<T> memory(2 * scale * pitch);
    T *const sums = memory.data(), *const phases = sums + scale * pitch;
    for (int row = part.begin; row < part.end; ++row) {
      const int top = row * scale - edge;
      const int first = std::max(-top, 0), last = std::min(out_height - top, taps);
      const T* const rows = out_grad + (plane * out_height + top + first) * out_width;
      simd<add_rows<T, RowsOfMap<T>>>(sums + edge, RowsOfMap<T>{rows, out_width},
                                      &weights.tap[first], last - first, out_width);
      simd<find_phases<T>>(phases, sums, pitch, scale);
      simd<add_rows<T, RowsOfPhases<T>>>(grad + (plane * height + row) * width,
                                         RowsOfPhases<T>{phases, pitch, scale}, weights.tap.data(),
                                         taps, width);
    }
  });
}

#define CVOPS_INSTANTIATE(T)                                                       \
  template void bilinear_upsample(const Cpu&, T*, const T*, int64, int, int, int); \
  template void bilinear_upsample_backward(const Cpu&, T*, const T*, int64, int, int, int);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
