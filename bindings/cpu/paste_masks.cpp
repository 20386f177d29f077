#include "paste_masks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "parallel.h"
#include "paste_chunks.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kMaxLanes = 16;  // of a vector

// Pixels of [0, size) whose centers are in the box.
Range pixels_in(const PasteAxis& axis, int size) {
  const auto near = [&](float edge, int more) {
    return edge > 0 ? edge < (float)size ? clamped((int)edge + more, size) : size : 0;
  };
  Range pixels = {near(axis.first, -2), near(axis.last, 2)};
  while (pixels.begin < pixels.end && !axis.contains(pixels.begin)) ++pixels.begin;
  while (pixels.begin < pixels.end && !axis.contains(pixels.end - 1)) --pixels.end;
  return pixels;
}

CVOPS_INLINE void find_samples(PasteSamples& samples, const PasteAxis& axis, Range pixels) {
  samples.pixels = pixels;
  const int size = samples.size(), padded = std::max(size, kPasteColumns);
  samples.low.resize(padded);
  samples.low_weight.resize(padded), samples.high_weight.resize(padded);
  int* __restrict__ low = samples.low.data();
  float* __restrict__ low_weight = samples.low_weight.data();
  float* __restrict__ high_weight = samples.high_weight.data();
  for (int i = 0; i < size; ++i) {
    const PasteSample sample = paste_sample(axis, pixels.begin + i);
    low[i] = sample.low, low_weight[i] = sample.low_weight, high_weight[i] = sample.high_weight;
  }
}

// Lists the cells of the columns, and changes `low` to an index in the list.
CVOPS_INLINE void find_cells(PasteColumns& columns) {
  const int size = columns.size();
  int* __restrict__ low = columns.low.data();
  const int first = low[0];
  const int64 num = (int64)low[size - 1] + 2 - first;
  if (num < 2 * (int64)size) {  // adjacent cells
    columns.cells.resize(num);
    for (int i = 0; i < (int)num; ++i) columns.cells[i] = first + i;
    for (int i = 0; i < size; ++i) low[i] -= first;
  } else {  // two cells for each column
    columns.cells.resize(2 * (std::size_t)size);
    for (int i = 0; i < size; ++i) {
      columns.cells[2 * i] = low[i], columns.cells[2 * i + 1] = low[i] + 1;
      low[i] = 2 * i;
    }
  }
  std::fill(columns.low.begin() + size, columns.low.end(), low[size - 1]);
}

// True if both cells of each column are in a vector that begins at the first cell of its window.
CVOPS_INLINE bool find_lanes(PasteColumns& columns, int window, int lanes) {
  columns.window = window;
  int last = 0;
  for (int chunk = 0; chunk < columns.chunks(); ++chunk) {
    for (int begin = 0; begin < kPasteColumns; begin += window) {
      const int* __restrict__ low = columns.low.data() + columns.begin(chunk) + begin;
      int* __restrict__ to = columns.lanes.data() + chunk * kPasteColumns + begin;
      for (int i = 0; i < window; ++i) to[i] = low[i] - low[0];
      last = std::max(last, to[window - 1]);
    }
  }
  return last + 1 < lanes;
}

// `lanes`: of a vector. The windows are four vectors or one.
void find_columns(PasteColumns& columns, const PasteAxis& axis, Range pixels, int lanes) {
  find_samples(columns, axis, pixels);
  find_cells(columns);
  columns.lanes.resize((std::size_t)columns.chunks() * kPasteColumns);
  if (find_lanes(columns, 4 * lanes, lanes) || find_lanes(columns, lanes, lanes)) return;
  columns.window = 0;
}

// A row of the cells of the columns.
struct CellRow {
  int row;                   // of the mask
  std::vector<float> cells;  // and spare ones, which are 0

  // Row -1 and rows beyond the mask are 0, and so are cells beyond the row.
  void load(const float* mask, int of_mask, const PasteColumns& columns, const PasteShape& shape) {
    row = of_mask;
    const bool is_inside = row >= 0 && row < shape.mask_height;
    const float* const from = mask + (int64)row * shape.mask_width;
    for (std::size_t i = 0; i < columns.cells.size(); ++i) {
      const int cell = columns.cells[i];
      cells[i] = is_inside && cell >= 0 && cell < shape.mask_width ? from[cell] : 0.0f;
    }
  }
};

// Results of an interpolation that are certain without it, as bits.
constexpr int kOne = 1, kZero = 2;

// Between two numbers of at least `one`, an interpolation is at least the threshold; between two
// below `zero` it is below. Its weights are not negative, their sum is 1 but for the rounding, and
// rounding keeps the order of numbers. An infinite number times 0 is NaN.
struct Certain {
  float one, zero, max = std::numeric_limits<float>::max();

  Certain(float threshold, const PasteAxis& across) {
    constexpr int kExact = 1 << 22;  // cells up to which a weight is in [0, 1]
    const float slack = across.cells < kExact ? std::abs(threshold) * 0x1p-20f + 0x1p-100f : max;
    one = threshold + slack, zero = threshold - slack;
  }
  CVOPS_INLINE int of(float x) const {
    return (x >= one && x <= max ? kOne : 0) | (x < zero && x >= -max ? kZero : 0);
  }
};

// A mask and its place in the result.
struct Paste {
  unsigned char* plane;
  const float* mask;
  PasteAxis across, down;
  Range rows;
  PasteShape shape;
  float threshold;
};

// Sets the columns of a chunk in some rows.
CVOPS_INLINE void set_chunk(unsigned char* out, int64 pitch, int rows, int width) {
  for (int y = 0; y < rows; ++y) {
    if (width == kPasteColumns) {
      std::memset(out + y * pitch, 1, kPasteColumns);
    } else {
      std::memset(out + y * pitch, 1, width);
    }
  }
}

// Writes one plane by bands of rows. A band is first cleared, which brings it into a near cache:
// a clear of some kB does not read it from memory. The rows of cells are interpolated for a whole
// band, so that no load of several cells waits for their stores.
template <auto kPasteChunk>
void write_plane(const Paste& job, const PasteColumns& columns) {
  constexpr int kNone = -2;
  const PasteShape& shape = job.shape;
  const int64 pitch = shape.width;
  const int64 cells = ceil_div((int64)columns.cells.size(), kMaxLanes) * kMaxLanes;
  const Certain certain(job.threshold, job.across);
  PasteSamples rows;
  find_samples(rows, job.down, job.rows);
  CellRow loaded[2] = {{kNone, std::vector<float>(cells)}, {kNone, std::vector<float>(cells)}};
  std::vector<float> lines(kPasteRows * cells + kMaxLanes);
  std::vector<int> results(cells);
  unsigned char* cleared = job.plane;
  for (int begin = 0; begin < rows.size(); begin += kPasteRows) {
    const int count = std::min(rows.size() - begin, kPasteRows);
    int* __restrict__ known = results.data();
    std::fill_n(known, cells, kOne | kZero);
    for (int y = 0; y < count; ++y) {
      const int row = rows.low[begin + y];
      const PasteSample sample = {row, rows.low_weight[begin + y], rows.high_weight[begin + y]};
      CellRow &above = loaded[row & 1], &below = loaded[~row & 1];
      if (above.row != row) above.load(job.mask, row, columns, shape);
      if (below.row != row + 1) below.load(job.mask, row + 1, columns, shape);
      const float* __restrict__ low = above.cells.data(), * __restrict__ high = below.cells.data();
      float* __restrict__ line = lines.data() + y * cells;
      for (int i = 0; i < (int)cells; ++i) {
        line[i] = paste_between(low[i], high[i], sample);
        known[i] &= certain.of(line[i]);
      }
    }
    unsigned char* const first = job.plane + (job.rows.begin + begin) * pitch;
    unsigned char* const end = first + count * pitch;
    std::memset(cleared, 0, end - cleared);
    cleared = end;
    for (int chunk = 0; chunk < columns.chunks(); ++chunk) {
      const int column = columns.begin(chunk), width = columns.width();
      unsigned char* const to = first + columns.pixels.begin + column;
      int result = kOne | kZero;
      const int last = columns.low[column + width - 1] + 1;
      for (int i = columns.low[column]; i <= last; ++i) result &= known[i];
      if (result == 0) {
        kPasteChunk(to, pitch, {lines.data(), cells, count}, columns, chunk, job.threshold);
      } else if (result == kOne) {
        set_chunk(to, pitch, count, width);
      }
    }
  }
  std::memset(cleared, 0, job.plane + shape.height * pitch - cleared);
}

void write_plane_by_width(const Paste& job, const PasteColumns& columns) {
#ifdef CVOPS_AVX2
  if (columns.window > 0 && current_simd == Simd::avx512) {
    if (columns.window == 16) return as_avx512<write_plane<paste_chunk_avx512<16>>>(job, columns);
    return as_avx512<write_plane<paste_chunk_avx512<64>>>(job, columns);
  }
  if (columns.window > 0 && current_simd == Simd::avx2) {
    if (columns.window == 8) return as_avx2<write_plane<paste_chunk_avx2<8>>>(job, columns);
    return as_avx2<write_plane<paste_chunk_avx2<32>>>(job, columns);
  }
#endif
  simd<write_plane<paste_chunk>>(job, columns);
}

}  // namespace

void paste_masks(const Cpu&, unsigned char* out, const float* masks, const float* boxes,
                 PasteShape shape, float threshold) {
  const int64 pixels = (int64)shape.height * shape.width;
  const int64 cells = (int64)shape.mask_height * shape.mask_width;
  if (shape.num * pixels == 0) return;
  const int lanes = current_simd == Simd::avx512 ? 16 : 8;
  parallel_for(shape.num, 300 + 0.2 * (double)pixels, [&](int64 n) {
    unsigned char* const plane = out + n * pixels;
    const Box box = load_box(boxes, n);
    const PasteAxis across = {box.x1, box.x2, shape.mask_width};
    const PasteAxis down = {box.y1, box.y2, shape.mask_height};
    const Range columns_in = pixels_in(across, shape.width), rows = pixels_in(down, shape.height);
    const bool is_empty = columns_in.begin >= columns_in.end || rows.begin >= rows.end;
    if (is_empty || cells == 0 || !across.valid() || !down.valid()) {
      std::memset(plane, 0, (std::size_t)pixels);
      return;
    }
    PasteColumns columns;
    simd<find_columns>(columns, across, columns_in, lanes);
    const float* const mask = masks + n * cells;
    write_plane_by_width({plane, mask, across, down, rows, shape, threshold}, columns);
  });
}

}  // namespace cvops
