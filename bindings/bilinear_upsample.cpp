#include "bilinear_upsample.h"

#include <algorithm>
#include <vector>

#include "bilinear_upsample.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

struct Weights {
  std::vector<BilinearPair> pairs;    // of the outputs of a band
  std::vector<float> near, far, tap;  // the same one by one, and all taps in a row

  explicit Weights(int scale) {
    for (int of = 0; of < scale; ++of) {
      pairs.push_back(bilinear_pair(of, scale));
      near.push_back(pairs[of].near);
      far.push_back(pairs[of].far);
    }
    for (int t = 0; t < bilinear_taps(scale); ++t) tap.push_back(bilinear_weight(t, scale));
  }
};

// The bands of a row of pixels, at their whole length. With its scale known, the compiler makes
// vectors of several bands.
template <int kScale>
inline void blend_along_x_by(float* __restrict__ out, const float* __restrict__ row,
                             const float* __restrict__ near, const float* __restrict__ far,
                             int width, int any_scale) {
  const int scale = kScale ? kScale : any_scale;
  const int both = scale - scale % 2;  // outputs that lie between two pixels
  for (int64 i = 0; i <= width; ++i) {
    const float right = i < width ? row[i] : 0.0f, left = i > 0 ? row[i - 1] : 0.0f;
    for (int of = 0; of < both; ++of) {
      out[i * scale + of] = blended(right, left, {near[of], far[of]});
    }
    if (both < scale) out[i * scale + both] = blended(right, 0.0f, {near[both], far[both]});
  }
}

void blend_along_x(float* out, const float* row, const Weights& weights, int width, int scale) {
  const float *near = weights.near.data(), *far = weights.far.data();
  switch (scale) {
    case 2:
      return blend_along_x_by<2>(out, row, near, far, width, scale);
    case 4:
      return blend_along_x_by<4>(out, row, near, far, width, scale);
    case 8:
      return blend_along_x_by<8>(out, row, near, far, width, scale);
    default:
      return blend_along_x_by<0>(out, row, near, far, width, scale);
  }
}

void blend(float* __restrict__ out, const float* __restrict__ near, const float* __restrict__ far,
           BilinearPair weight, int num) {
  for (int x = 0; x < num; ++x) out[x] = blended(near[x], far[x], weight);
}

// sums += the rows, times their weights, one row after another. Several at a time, so that the sums
// stay in registers for them.
void add_rows(float* __restrict__ sums, const float* __restrict__ rows,
              const float* __restrict__ weights, int count, int num) {
  const int64 pitch = num;
  int t = 0;
  for (; t + 4 <= count; t += 4, rows += 4 * pitch) {
    for (int64 x = 0; x < num; ++x) {
      float sum = sums[x] + rows[x] * weights[t];
      sum += rows[pitch + x] * weights[t + 1];
      sum += rows[2 * pitch + x] * weights[t + 2];
      sums[x] = sum + rows[3 * pitch + x] * weights[t + 3];
    }
  }
  for (; t < count; ++t, rows += pitch) {
    for (int64 x = 0; x < num; ++x) sums[x] += rows[x] * weights[t];
  }
}

// Each pixel's sum along x. Of several pixels at a time, since an addition waits for the one
// before it.
void gather_along_x(float* __restrict__ grad, const float* __restrict__ sums,
                    const float* __restrict__ weights, int width, int scale, int taps) {
  constexpr int kPixels = 8;
  int x = 0;
  for (; x + kPixels <= width; x += kPixels) {
    float sum[kPixels] = {};
    for (int t = 0; t < taps; ++t) {
      for (int k = 0; k < kPixels; ++k) sum[k] += sums[(int64)(x + k) * scale + t] * weights[t];
    }
    std::copy_n(sum, kPixels, grad + x);
  }
  for (; x < width; ++x) {
    float sum = 0.0f;
    for (int t = 0; t < taps; ++t) sum += sums[(int64)x * scale + t] * weights[t];
    grad[x] = sum;
  }
}

// Calls body(plane, begin, end) for parts of each plane's `rows`: whole planes if they are many.
template <typename Body>
void for_parts(int64 planes, int rows, double cost_of_row, const Body& body) {
  int64 parts = std::min<int64>(rows, ceil_div(4 * num_threads(), planes));
  parallel_for(planes * parts, cost_of_row * rows / parts, [&](int64 i) {
    int64 part = i % parts;
    body(i / parts, (int)(part * rows / parts), (int)((part + 1) * rows / parts));
  });
}

}  // namespace

void cpu::bilinear_upsample(float* out, const float* data, int64 planes, int height, int width,
                            int scale) {
  if (planes * height * width == 0) return;
  const Weights weights(scale);
  const int out_width = width * scale, edge = scale / 2;
  for_parts(planes, height + 1, 0.3 * scale * out_width, [&](int64 plane, int begin, int end) {
    const int64 pitch = out_width + scale;
    std::vector<float> memory(3 * pitch);
    float *near = memory.data(), *far = near + pitch;
    const float* const zeros = far + pitch + edge;
    auto fill = [&](float* to, int row) {
      if (row < 0 || row == height) return (void)std::fill_n(to, pitch, 0.0f);
      simd<blend_along_x>(to, data + (plane * height + row) * width, weights, width, scale);
    };
    fill(near, begin - 1);
    for (int band = begin; band < end; ++band) {
      std::swap(near, far);
      fill(near, band);
      for (int of = 0; of < scale; ++of) {
        const int y = band * scale + of - edge;
        if (y < 0 || y >= height * scale) continue;
        const BilinearPair weight = weights.pairs[of];
        simd<blend>(out + (plane * height * scale + y) * out_width, near + edge,
                    weight.far > 0 ? far + edge : zeros, weight, out_width);
      }
    }
  });
}

void cpu::bilinear_upsample_backward(float* grad, const float* out_grad, int64 planes, int height,
                                     int width, int scale) {
  if (planes * height * width == 0) return;
  const Weights weights(scale);
  const int out_height = height * scale, out_width = width * scale, edge = scale / 2;
  const int taps = bilinear_taps(scale);
  for_parts(planes, height, 0.3 * taps * out_width, [&](int64 plane, int begin, int end) {
    std::vector<float> sums(out_width + scale);
    for (int row = begin; row < end; ++row) {
      const int top = row * scale - edge;
      const int first = std::max(-top, 0), last = std::min(out_height - top, taps);
      std::fill(sums.begin(), sums.end(), 0.0f);
      simd<add_rows>(&sums[edge], out_grad + (plane * out_height + top + first) * out_width,
                     &weights.tap[first], last - first, out_width);
      simd<gather_along_x>(grad + (plane * height + row) * width, sums.data(), weights.tap.data(),
                           width, scale, taps);
    }
  });
}

}  // namespace cvops
