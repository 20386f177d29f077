#include "paste_masks.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// Columns of the image whose centers are in a box, and their samples.
struct Columns {
  int begin, end;
  std::vector<int> low;  // index of the low cell in a row of cells that begins with cell -1
  std::vector<float> low_weight, high_weight;
};

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

void find_columns(Columns& columns, const PasteAxis& axis, int width) {
  const Range pixels = pixels_in(axis, width);
  const int num = pixels.end - pixels.begin;
  columns.begin = pixels.begin, columns.end = pixels.end;
  columns.low.resize(num), columns.low_weight.resize(num), columns.high_weight.resize(num);
  for (int i = 0; i < num; ++i) {
    const PasteSample sample = paste_sample(axis, pixels.begin + i);
    columns.low[i] = sample.low + 1;
    columns.low_weight[i] = sample.low_weight, columns.high_weight[i] = sample.high_weight;
  }
}

// Writes the pixels of a row in the box. `cells` has the interpolated cells, from cell -1 on.
void write_row(unsigned char* __restrict__ out, const float* __restrict__ cells,
               const Columns& columns, float threshold) {
  const int* __restrict__ low = columns.low.data();
  const float* __restrict__ low_weight = columns.low_weight.data();
  const float* __restrict__ high_weight = columns.high_weight.data();
  const int num = columns.end - columns.begin;
  for (int i = 0; i < num; ++i) {
    out[i] = paste_value(cells[low[i]], cells[low[i] + 1], {0, low_weight[i], high_weight[i]},
                         threshold);
  }
}

// Writes the rows from `begin` to `end` of one mask.
void write_rows(unsigned char* out, const float* mask, const PasteAxis& down,
                const Columns& columns, int begin, int end, const PasteShape& shape,
                float threshold) {
  std::vector<float> cells(shape.mask_width + 2);
  for (int y = begin; y < end; ++y) {
    const PasteSample sample = paste_sample(down, y);
    for (int i = 0; i < shape.mask_width; ++i) {
      cells[i + 1] = paste_column(mask, sample, i, shape);
    }
    write_row(out + (int64)y * shape.width + columns.begin, cells.data(), columns, threshold);
  }
}

}  // namespace

void paste_masks(const Cpu&, unsigned char* out, const float* masks, const float* boxes,
                 PasteShape shape, float threshold) {
  const int64 pixels = (int64)shape.height * shape.width;
  const int64 cells = (int64)shape.mask_height * shape.mask_width;
  if (shape.num * pixels == 0) return;
  parallel_for(shape.num, 300 + 0.2 * (double)pixels, [&](int64 n) {
    unsigned char* const plane = out + n * pixels;
    std::memset(plane, 0, (std::size_t)pixels);
    const Box box = load_box(boxes, n);
    const PasteAxis across = {box.x1, box.x2, shape.mask_width};
    const PasteAxis down = {box.y1, box.y2, shape.mask_height};
    if (cells == 0 || !across.valid() || !down.valid()) return;
    Columns columns;
    simd<find_columns>(columns, across, shape.width);
    const Range rows = pixels_in(down, shape.height);
    if (columns.begin >= columns.end) return;
    simd<write_rows>(plane, masks + n * cells, down, columns, rows.begin, rows.end, shape,
                     threshold);
  });
}

}  // namespace cvops
