#include "proposal.h"

#include <algorithm>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Cells per step.
constexpr int kStep = 64;

// Coordinates of all candidates of an image: a plane of `pitch` numbers per anchor, with the cells
// in order.
struct Planes {
  float *x1, *y1, *x2, *y2;
  int64 pitch;
};

// The numbers of `num` cells in a plane of an input that ends at `end`, up to a whole vector. The
// numbers after them have no meaning. `memory` receives a copy if the input has no whole vector.
CVOPS_INLINE const float* whole(const float* plane, int num, const float* end,
                                float (&memory)[kStep]) {
  if (end - plane >= whole_vectors(num)) return plane;
  std::copy_n(plane, num, memory);
  return memory;
}

// Keys and boxes of all anchors in the cells from `first` on. The planes of the input are those of
// the image.
template <bool kCorners>
void decode_cells(uint64* keys, Planes to, const ProposalInputs& in, const float* scores,
                  const float* offsets, const ProposalAnchors& anchors, int first,
                  const ProposalImage& image, int stride) {
  const int cells = in.cells(), num = std::min(kStep, cells - first);
  const int lanes = whole_vectors(num);
  const float* const end_of_scores = in.cls_prob + (int64)2 * in.batch * in.anchors * cells;
  const float* const end_of_offsets = in.bbox_pred + (int64)4 * in.batch * in.anchors * cells;
  float x[kStep], y[kStep], found[kStep], copies[5][kStep] = {};
  int is_inside[kStep];
  for (int k = 0, row = first / in.width, column = first % in.width; k < lanes; ++k) {
    x[k] = (float)(column * stride), y[k] = (float)(row * stride);
    is_inside[k] = (row < image.rows) & (column < image.columns);
    if (++column == in.width) column = 0, ++row;
  }
  for (int a = 0; a < in.anchors; ++a) {
    const Box anchor = anchors.box[a];
    const float* from = offsets + (int64)4 * a * cells + first;
    const float* const of_x1 = whole(from, num, end_of_offsets, copies[0]);
    const float* const of_y1 = whole(from += cells, num, end_of_offsets, copies[1]);
    const float* const of_x2 = whole(from += cells, num, end_of_offsets, copies[2]);
    const float* const of_y2 = whole(from += cells, num, end_of_offsets, copies[3]);
    const float* const score =
        whole(scores + (int64)a * cells + first, num, end_of_scores, copies[4]);
    const int64 at = a * to.pitch + first;
    CVOPS_INDEPENDENT
    for (int k = 0; k < lanes; ++k) {
      const Proposal p = proposal_of(
          {anchor.x1 + x[k], anchor.y1 + y[k], anchor.x2 + x[k], anchor.y2 + y[k]},
          {of_x1[k], of_y1[k], of_x2[k], of_y2[k]}, score[k], is_inside[k], image, kCorners);
      to.x1[at + k] = p.box.x1, to.y1[at + k] = p.box.y1;
      to.x2[at + k] = p.box.x2, to.y2[at + k] = p.box.y2;
      found[k] = p.score;
    }
    for (int k = 0; k < num; ++k) {
      const uint32 index = (uint32)((first + k) * in.anchors + a);
      keys[index] = proposal_key(found[k], index);
    }
  }
}

}  // namespace

void proposal(const Cpu&, float* out, float* scores, ProposalInputs in,
              const ProposalAnchors& anchors, ProposalOptions options, float threshold) {
  if (in.batch == 0 || options.rows == 0) return;
  const int64 num = in.candidates(), cells = in.cells();
  for_each_image(in.batch, 20.0 * num, [&](int64 b, int threads) {
    const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
    const int64 pitch = whole_vectors((int)cells), size = in.anchors * pitch;
    const auto corners = scratch<float>(4 * size);
    const Planes planes = {corners.get(), corners.get() + size, corners.get() + 2 * size,
                           corners.get() + 3 * size, pitch};
    const ProposalImage image = proposal_image(in.im_info + 3 * b, options);
    const float* const scores_of_image = in.cls_prob + (b * 2 * in.anchors + in.anchors) * cells;
    const float* const offsets = in.bbox_pred + b * 4 * in.anchors * cells;
    const auto decode_step = [&](int64 step) {
      const auto run = [&](auto decode) {
        decode(keys.get(), planes, in, scores_of_image, offsets, anchors, (int)step * kStep, image,
               options.stride);
      };
      if (options.corners) {
        run([](auto&&... args) { simd<decode_cells<true>>(args...); });
      } else {
        run([](auto&&... args) { simd<decode_cells<false>>(args...); });
      }
    };
    const int64 steps = ceil_div(cells, kStep);
    if (threads > 1) {
      parallel_for(steps, 15.0 * kStep * in.anchors, decode_step);
    } else {
      for (int64 step = 0; step < steps; ++step) decode_step(step);
    }
    const int count = (int)std::min<int64>(num, options.topk);
    const uint64* sorted = sort_keys(keys.get(), other.get(), num, count);
    const auto boxes = scratch<SizedBox>(count);
    for (int i = 0; i < count; ++i) {
      const int64 index = index_of(sorted[i]), cell = index / in.anchors;
      const int64 at = (index - cell * in.anchors) * pitch + cell;
      boxes[i] = pixel_sized({planes.x1[at], planes.y1[at], planes.x2[at], planes.y2[at]});
    }
    const auto kept = scratch<uint8_t>(count);
    suppress(kept.get(), boxes.get(), nullptr, count, proposal_rule(threshold), threads,
             options.rows);

    float* const rows = out + b * 5 * options.rows;
    float* const row_scores = scores ? scores + b * options.rows : nullptr;
    int64 num_kept = 0;
    for (int i = 0; i < count; ++i) {
      if (!kept[i]) continue;
      const Box& box = boxes[i].box;
      float* const row = rows + 5 * num_kept;
      row[0] = (float)b, row[1] = box.x1, row[2] = box.y1, row[3] = box.x2, row[4] = box.y2;
      if (scores) {
        const int cell = (int)index_of(sorted[i]) / in.anchors;
        const int anchor = (int)index_of(sorted[i]) - cell * in.anchors;
        const bool is_small = sorted[i] >> 32 == proposal_key(-1.0f, 0) >> 32;
        row_scores[num_kept] = is_small ? -1.0f : proposal_score(in, (int)b, anchor, cell);
      }
      ++num_kept;
    }
    // The kept rows repeat; `row` is a multiple of their number.
    for (int64 row = num_kept; row < options.rows; row *= 2) {
      const int64 count_here = std::min(row, options.rows - row);
      std::copy_n(rows, 5 * count_here, rows + 5 * row);
      if (scores) std::copy_n(row_scores, count_here, row_scores + row);
    }
  });
}

}  // namespace cvops
