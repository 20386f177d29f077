#include "adaptive_avg_pooling.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "interleaved.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kColumns = 64;  // pixels that are interleaved at once
constexpr int kTile = 64;     // bins whose means are transposed at once
constexpr int kWideBin = 16;  // columns of a bin that is not interleaved first
// Planes that are read at once for wide bins. The processor cannot prefetch more. If the loop
// itself prefetches, half as many are faster.
constexpr int kWideLanes = kMaxLanes / 2;
// Minimum size of an input in bytes that is in no cache. A prefetch then pays: the processor would
// lose the streams of the planes at the end of each page.
constexpr int64 kUncached = 24 << 20;
// Maximum size in bytes of the planes that are prefetched at once. More would leave the L2 cache
// before they are read.
constexpr int64 kMaxFetched = 512 << 10;
constexpr int kLine = 16;  // pixels of a cache line

// Minimum size in bytes of a gradient for non-temporal stores: a core writes 44 GB/s with them, 33
// GB/s without them, and 90 GB/s to the L3 cache.
constexpr int64 kMinStreamed = 64 << 20;
// Pixels of a map that is then staged in a near cache.
constexpr int64 kMinStagedPixels = 1 << 10, kMaxStagedPixels = 1 << 13;

bool has_wide_bins(const AdaptivePooling& op) { return op.columns() / op.bins() >= kWideBin; }

// The bins of a row: their columns, computed once for all planes.
std::unique_ptr<Range[]> find_columns(const AdaptivePooling& op) {
  std::unique_ptr<Range[]> columns(new Range[op.bins()]);
  for (int i = 0; i < op.bins(); ++i) columns[i] = op.columns_of_bin(i);
  return columns;
}

// Adds the pixels [begin, end) of a row to the sums of the bins from *bin on. *bin is then the
// first bin of the next pixels.
template <typename P>
CVOPS_INLINE void add_pixels(P* sums, const P* pixels, int begin, int end, const Range* columns,
                             int bins, int* bin) {
  for (int i = *bin; i < bins && columns[i].begin < end; ++i) {
    P sum = sums[i];
    const int last = std::min(columns[i].end, end);
    for (int x = std::max(columns[i].begin, begin); x < last; ++x) {
      for (int v = 0; v < P::kVectors; ++v) sum.of[v] += pixels[x - begin].of[v];
    }
    sums[i] = sum;
    if (columns[i].end <= end && i == *bin) ++*bin;
  }
}

// Adds the pixels of a wide bin in one row of the planes, which are `map` apart. Four planes and
// four pixels at once stay in registers. kFetch: the loop prefetches the planes from `next` on at
// the rate at which it reads, in the order of addresses.
template <bool kFetch, typename P>
CVOPS_INLINE void add_wide_bin(P* sum, const float* row, int64 map, int planes, Range columns,
                               const float* next) {
  constexpr int kQuads = P::kLanes / 4;
  Quad sums[kQuads];
  std::memcpy(sums, sum, sizeof sums);
  // Lanes beyond `planes` have the last plane.
  const float* from[4 * kQuads];
  for (int p = 0; p < 4 * kQuads; ++p) from[p] = row + std::min(p, planes - 1) * map;
  int x = columns.begin;
  for (; x + 4 <= columns.end; x += 4) {
    for (int q = 0; q < kQuads; ++q) {
      if (kFetch) __builtin_prefetch(next + (int64)x * P::kLanes + kLine * q);
      Quad quad[4];
      for (int n = 0; n < 4; ++n) load<4>(quad[n], from[4 * q + n] + x);
      transpose_groups<4>(quad);
      for (int n = 0; n < 4; ++n) sums[q] += quad[n];
    }
  }
  for (; x < columns.end; ++x) {
    for (int q = 0; q < kQuads; ++q) {
      sums[q] += Quad{from[4 * q][x], from[4 * q + 1][x], from[4 * q + 2][x], from[4 * q + 3][x]};
    }
  }
  std::memcpy(sum, sums, sizeof sums);
}

// Writes the means of one band of `planes` planes.
template <typename P>
CVOPS_INLINE void write_means(float* out, int64 grid, P* sums, Range rows, const Range* columns,
                              int planes, const AdaptivePooling& op) {
  for (int i = 0; i < op.bins(); ++i) {
    const BinSize size = bin_size(op, rows, columns[i]);
    typename P::V width, height;
    fill(width, size.width), fill(height, size.height);
    for (int v = 0; v < P::kVectors; ++v) sums[i].of[v] = sums[i].of[v] / width / height;
  }
  for (int i = 0; i < op.bins(); i += kTile) {
    transpose<P::kWidth>(out + i, grid, reinterpret_cast<const float*>(sums + i), P::kLanes,
                         std::min(kTile, op.bins() - i), planes);
  }
}

// Means of the bands [begin, end) of `planes` planes, P::kLanes at most.
template <typename P, bool kFetch>
CVOPS_INLINE void pool_by(float* out, const float* data, const float* next, int planes, Range bands,
                          const Range* columns, const AdaptivePooling& op, PixelMemory* memory) {
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const int bins = op.bins(), width = op.columns();
  // The lanes beyond `planes` stay 0.
  P pixels[kColumns] = {};
  auto* const sums = reinterpret_cast<P*>(memory);
  for (int band = bands.begin; band < bands.end; ++band) {
    const Range rows = op.rows_of_band(band);
    std::fill_n(sums, bins, P{});
    for (int row = rows.begin; row < rows.end; ++row) {
      int bin = 0;
      for (int begin = 0; begin < width; begin += kColumns) {
        const int end = std::min(begin + kColumns, width);
        if (kFetch) {
          const float* const from = next + ((int64)row * width + begin) * P::kLanes;
          const int num = (end - begin) * P::kLanes;
          for (int i = 0; i < num; i += kLine) __builtin_prefetch(from + i);
        }
        transpose(reinterpret_cast<float*>(pixels), P::kLanes, data + (int64)row * width + begin,
                  map, planes, end - begin);
        add_pixels(sums, pixels, begin, end, columns, bins, &bin);
      }
    }
    write_means(out + (int64)band * bins, grid, sums, rows, columns, planes, op);
  }
}

// The same for wide bins. `next`: the planes that are read next.
template <typename P, bool kFetch>
CVOPS_INLINE void pool_wide_by(float* out, const float* data, const float* next, int planes,
                               Range bands, const Range* columns, const AdaptivePooling& op,
                               PixelMemory* memory) {
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const int bins = op.bins(), width = op.columns();
  auto* const sums = reinterpret_cast<P*>(memory);
  for (int band = bands.begin; band < bands.end; ++band) {
    const Range rows = op.rows_of_band(band);
    for (int bin = 0; bin < bins; ++bin) {
      sums[bin] = {};
      for (int row = rows.begin; row < rows.end; ++row) {
        const int64 first = (int64)row * width;
        add_wide_bin<kFetch>(sums + bin, data + first, map, planes, columns[bin],
                             next + first * P::kLanes);
      }
    }
    write_means(out + (int64)band * bins, grid, sums, rows, columns, planes, op);
  }
}

// The same for any number of planes, by kLanes.
template <int kLanes, bool kFetch, int kWidth>
CVOPS_INLINE void pool_wide(float* out, const float* data, int planes, Range bands,
                            const Range* columns, const AdaptivePooling& op, PixelMemory* memory) {
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  for (; planes > kMinLanes; planes -= kLanes, out += kLanes * grid, data += kLanes * map) {
    const float* const next = planes > kLanes ? data + kLanes * map : data;
    pool_wide_by<Pixel<float, kLanes, kWidth>, kFetch>(out, data, next, std::min(planes, kLanes),
                                                       bands, columns, op, memory);
  }
  if (planes > 0) {
    pool_wide_by<Pixel<float, kMinLanes, kWidth>, false>(out, data, data, planes, bands, columns,
                                                         op, memory);
  }
}

// The same without wide bins.
template <bool kFetch, int kWidth>
CVOPS_INLINE void pool_narrow(float* out, const float* data, int planes, Range bands,
                              const Range* columns, const AdaptivePooling& op,
                              PixelMemory* memory) {
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  constexpr int kLanes = kMaxLanes;
  for (; planes > kLanes / 2; planes -= kLanes, out += kLanes * grid, data += kLanes * map) {
    const float* const next = planes > kLanes ? data + kLanes * map : data;
    pool_by<Pixel<float, kLanes, kWidth>, kFetch>(out, data, next, std::min(planes, kLanes), bands,
                                                  columns, op, memory);
  }
  if (planes > kMinLanes) {
    pool_by<Pixel<float, kLanes / 2, kWidth>, false>(out, data, data, planes, bands, columns, op,
                                                     memory);
  } else if (planes > 0) {
    pool_by<Pixel<float, kMinLanes, kWidth>, false>(out, data, data, planes, bands, columns, op,
                                                    memory);
  }
}

// Each case is a function of its own: in a larger one, the compiler would keep fewer pointers in
// registers.
void pool(float* out, const float* data, int planes, Range bands, const Range* columns,
          const AdaptivePooling& op, bool fetch, PixelMemory* memory) {
  if (has_wide_bins(op) && fetch) {
    by_width([&](auto width) __attribute__((always_inline)) {
      pool_wide<kMinLanes, true, width>(out, data, planes, bands, columns, op, memory);
    });
  } else if (has_wide_bins(op)) {
    by_width([&](auto width) __attribute__((always_inline)) {
      pool_wide<kWideLanes, false, width>(out, data, planes, bands, columns, op, memory);
    });
  } else if (fetch) {
    by_width([&](auto width) __attribute__((always_inline)) {
      pool_narrow<true, width>(out, data, planes, bands, columns, op, memory);
    });
  } else {
    by_width([&](auto width) __attribute__((always_inline)) {
      pool_narrow<false, width>(out, data, planes, bands, columns, op, memory);
    });
  }
}

// Gradient of one row of pixels in the bands `down`. `shares`: space for one number per bin.
void row_grad(float* __restrict__ row, const float* __restrict__ out_grad, Range down,
              const Range* __restrict__ columns, float* __restrict__ shares,
              const AdaptivePooling& op) {
  const int bins = op.bins();
  int end = 0;  // of the pixels that have a sum
  for (int band = down.begin; band < down.end; ++band) {
    const Range rows = op.rows_of_band(band);
    const float* const from = out_grad + (int64)band * bins;
    for (int i = 0; i < bins; ++i) {
      shares[i] = pixel_grad(from[i], bin_size(op, rows, columns[i]));
    }
    for (int i = 0; i < bins; ++i) {
      int x = columns[i].begin;
      for (; x < std::min(columns[i].end, end); ++x) row[x] += shares[i];
      CVOPS_VECTORIZED
      for (; x < columns[i].end; ++x) row[x] = 0.0f + shares[i];
      end = std::max(end, x);
    }
  }
}

// Gradient of the rows [begin, end) of one plane.
void plane_grad(float* grad, const float* out_grad, int begin, int end, const Range* columns,
                float* shares, const AdaptivePooling& op) {
  const int64 width = op.columns();
  Range known = {-1, -1};
  for (int row = begin; row < end; ++row) {
    const Range down = op.bands_of_row(row);
    if (down.begin == known.begin && down.end == known.end) {
      std::copy_n(grad + (row - 1) * width, width, grad + row * width);
    } else {
      row_grad(grad + row * width, out_grad, down, columns, shares, op);
    }
    known = down;
  }
}

}  // namespace

void adaptive_avg_pooling(const Cpu&, float* out, const float* data, int64 planes,
                          AdaptivePooling op) {
  if (planes == 0) return;
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const auto columns = find_columns(op);
  const bool is_wide = has_wide_bins(op);
  const int64 at_once = (is_wide ? kMinLanes : kMaxLanes) * map * (int64)sizeof(float);
  const bool may_fetch = planes * map * (int64)sizeof(float) >= kUncached && at_once <= kMaxFetched;
  // Minimum number of pixels of a part. A part prefetches its own planes only.
  int64 pixels = is_wide ? 1 << 16 : 0;
  if (may_fetch) pixels = std::max(pixels, planes * map / (8 * num_threads()));
  const int64 each = is_wide ? kWideLanes : kMaxLanes;
  const int64 lanes = std::max<int64>(1, ceil_div(pixels, each * map)) * each;
  const int64 groups = ceil_div(planes, lanes);
  const double cost = 0.15 * std::min<int64>(planes, lanes) * map;  // ns
  const int64 parts = std::min<int64>(op.bands(), ceil_div(4 * num_threads(), groups));
  const bool fetch = may_fetch && parts == 1;
  parallel_for(groups * parts, cost / parts, [&](int64 i) {
    const int64 first = i / parts * lanes, part = i % parts;
    const Range bands = {(int)(part * op.bands() / parts), (int)((part + 1) * op.bands() / parts)};
    const std::unique_ptr<PixelMemory[]> sums(new PixelMemory[op.bins() * ceil_div(kMaxLanes, 16)]);
    pool(out + first * grid, data + first * map, (int)std::min<int64>(lanes, planes - first), bands,
         columns.get(), op, fetch, sums.get());
  });
}

void adaptive_avg_pooling_backward(const Cpu&, float* grad, const float* out_grad, int64 planes,
                                   AdaptivePooling op) {
  if (planes == 0) return;
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const auto columns = find_columns(op);
  const int64 bytes = planes * map * (int64)sizeof(float);
  const bool streams = op.one_row() && bytes >= kMinStreamed && map >= kMinStagedPixels &&
                       map <= kMaxStagedPixels && worth_streaming(grad, bytes);
  // Planes of a call. After non-temporal stores, a call ends with a fence, which waits for the
  // memory.
  const int64 num = ceil_div(streams ? 1 << 18 : 1 << 12, map), groups = ceil_div(planes, num);
  const int64 parts = std::min<int64>(op.rows(), ceil_div(4 * num_threads(), groups));
  const double cost = num * (0.15 * map + 3.0 * op.bands() * op.bins());  // ns
  parallel_for(groups * parts, cost / parts, [&](int64 i) {
    const int64 part = i % parts, first = i / parts * num, end = std::min(planes, first + num);
    const int begin_row = (int)(part * op.rows() / parts);
    const int end_row = (int)((part + 1) * op.rows() / parts);
    std::unique_ptr<float[]> shares(new float[op.bins()]), staged;
    if (streams) staged.reset(new float[map]);
    for (int64 plane = first; plane < end; ++plane) {
      float* const to = grad + plane * map;
      simd<plane_grad>(streams ? staged.get() : to, out_grad + plane * grid, begin_row, end_row,
                       columns.get(), shares.get(), op);
      if (streams) stream(to, staged.get(), map);
    }
    if (streams) streamed();
  });
}

}  // namespace cvops
