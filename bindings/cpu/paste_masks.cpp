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

// A row of cells at the columns: those of the low cells, then those of the high cells.
struct CellRow {
  int row;  // of the mask
  float *low, *high;

  // Row -1 and rows beyond the mask are 0, and so are cells beyond the row. `cells` is scratch
  // memory for a row with a cell at both ends.
  void load(const float* mask, int of_mask, const Columns& columns, const PasteShape& shape,
            float* __restrict__ cells) {
    row = of_mask;
    const bool is_inside = row >= 0 && row < shape.mask_height;
    for (int i = 0; i < shape.mask_width; ++i) {
      cells[i + 1] = is_inside ? mask[(int64)row * shape.mask_width + i] : 0.0f;
    }
    const int* __restrict__ at = columns.low.data();
    float* __restrict__ to_low = low, * __restrict__ to_high = high;
    const int num = columns.end - columns.begin;
    for (int i = 0; i < num; ++i) to_low[i] = cells[at[i]], to_high[i] = cells[at[i] + 1];
  }
};

// Writes the pixels of a row in the box, between two rows of cells.
void write_row(unsigned char* __restrict__ out, const CellRow& above, const CellRow& below,
               PasteSample y, const Columns& columns, float threshold) {
  const float* __restrict__ above_low = above.low, * __restrict__ above_high = above.high;
  const float* __restrict__ below_low = below.low, * __restrict__ below_high = below.high;
  const float* __restrict__ low_weight = columns.low_weight.data();
  const float* __restrict__ high_weight = columns.high_weight.data();
  const int num = columns.end - columns.begin;
  for (int i = 0; i < num; ++i) {
    const float low = paste_between(above_low[i], below_low[i], y);
    const float high = paste_between(above_high[i], below_high[i], y);
    out[i] = paste_value(low, high, {0, low_weight[i], high_weight[i]}, threshold);
  }
}

// Writes the rows from `begin` to `end` of one mask. Pixels between the same two rows of cells
// share the loads from columns of cells, which take longer than the interpolation.
void write_rows(unsigned char* out, const float* mask, const PasteAxis& down,
                const Columns& columns, int begin, int end, const PasteShape& shape,
                float threshold) {
  constexpr int kNone = -2;
  const std::size_t num = columns.low.size();
  std::vector<float> cells(shape.mask_width + 2), memory(4 * num);
  float* const low = memory.data();
  float* const high = low + 2 * num;
  CellRow rows[2] = {{kNone, low, high}, {kNone, low + num, high + num}};
  for (int y = begin; y < end; ++y) {
    const PasteSample sample = paste_sample(down, y);
    CellRow &above = rows[sample.low & 1], &below = rows[~sample.low & 1];
    if (above.row != sample.low) above.load(mask, sample.low, columns, shape, cells.data());
    if (below.row != sample.low + 1) below.load(mask, sample.low + 1, columns, shape, cells.data());
    write_row(out + (int64)y * shape.width + columns.begin, above, below, sample, columns,
              threshold);
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
