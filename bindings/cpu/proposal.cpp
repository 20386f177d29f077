#include "proposal.h"

#include <algorithm>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Cells per step of a row.
constexpr int kStep = 64;

// Coordinates of all candidates of an image, in the order of the planes of the input.
struct Planes {
  float *x1, *y1, *x2, *y2;
};

// Keys and boxes of one anchor in one row of cells. `anchor` is at the first cell of the row.
template <bool kCorners>
void decode_row(uint64* keys, Planes to, const ProposalInputs& in, Box anchor, const float* offsets,
                const float* score, int row, uint32 first_index, const ProposalImage& image,
                int stride) {
  const int plane = in.cells();
  for (int first = 0; first < in.width; first += kStep) {
    const int num = std::min(kStep, in.width - first);
    float scores[kStep];
    for (int k = 0; k < num; ++k) {
      const int column = first + k;
      const float x = (float)(column * stride);
      const Proposal p = proposal_of({anchor.x1 + x, anchor.y1, anchor.x2 + x, anchor.y2},
                                     {offsets[column], offsets[plane + column],
                                      offsets[2 * plane + column], offsets[3 * plane + column]},
                                     score[column], (row < image.rows) & (column < image.columns),
                                     image, kCorners);
      to.x1[column] = p.box.x1, to.y1[column] = p.box.y1;
      to.x2[column] = p.box.x2, to.y2[column] = p.box.y2;
      scores[k] = p.score;
    }
    for (int k = 0; k < num; ++k) {
      const uint32 index = first_index + (uint32)((first + k) * in.anchors);
      keys[index] = proposal_key(scores[k], index);
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
    const auto corners = scratch<float>(4 * num);
    const Planes planes = {corners.get(), corners.get() + num, corners.get() + 2 * num,
                           corners.get() + 3 * num};
    const ProposalImage image = proposal_image(in.im_info + 3 * b, options);
    const auto decode_rows = [&](int64 part) {
      const int a = (int)(part / in.height), row = (int)(part % in.height);
      const int64 at = a * cells + (int64)row * in.width;
      const Planes to = {planes.x1 + at, planes.y1 + at, planes.x2 + at, planes.y2 + at};
      const auto run = [&](auto decode) {
        decode(keys.get(), to, in, proposal_anchor(anchors.box[a], row, 0, options.stride),
               in.bbox_pred + (b * 4 * in.anchors + 4 * a) * cells + (int64)row * in.width,
               in.cls_prob + (b * 2 * in.anchors + in.anchors) * cells + at, row,
               (uint32)(row * in.width * in.anchors + a), image, options.stride);
      };
      if (options.corners) {
        run([](auto&&... args) { simd<decode_row<true>>(args...); });
      } else {
        run([](auto&&... args) { simd<decode_row<false>>(args...); });
      }
    };
    const int64 parts = (int64)in.anchors * in.height;
    if (threads > 1) {
      parallel_for(parts, 15.0 * in.width, decode_rows);
    } else {
      for (int64 part = 0; part < parts; ++part) decode_rows(part);
    }
    const int count = (int)std::min<int64>(num, options.topk);
    const uint64* sorted = sort_keys(keys.get(), other.get(), num, count);
    const auto boxes = scratch<SizedBox>(count);
    for (int i = 0; i < count; ++i) {
      const int64 index = index_of(sorted[i]), cell = index / in.anchors;
      const int64 at = (index - cell * in.anchors) * cells + cell;
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
    for (int64 row = num_kept; row < options.rows; ++row) {
      std::copy_n(rows + 5 * (row - num_kept), 5, rows + 5 * row);
      if (scores) row_scores[row] = row_scores[row - num_kept];
    }
  });
}

}  // namespace cvops
