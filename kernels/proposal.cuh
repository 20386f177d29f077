// proposal: boxes of a region proposal network (RPN). Sorting: sort.cuh; suppression: nms.cuh.
// Order: proposal_keys -> sort_* -> proposal_gather -> nms_* -> proposal_write.
//
// A candidate is an anchor at a cell of the feature map. Its index is cell * anchors + anchor. A
// box has no memory before proposal_gather: that kernel decodes the best candidates again, which
// are few.
#pragma once
#include "exp_log.cuh"
#include "nms/rule.cuh"
#include "sort_key.cuh"

namespace cvops {

// Maximum number of anchors of a cell. The parameters of a kernel are limited to 4 KiB.
constexpr int kProposalAnchors = 128;

// Anchors of the cell at the origin, in pixels.
struct ProposalAnchors {
  Box box[kProposalAnchors];
};

// cls_prob (B, 2 A, H, W): the scores are channels A to 2 A - 1. bbox_pred (B, 4 A, H, W). im_info
// (B, 3).
struct ProposalInputs {
  const float *cls_prob, *bbox_pred, *im_info;
  int batch, anchors, height, width;

  CVOPS_HD int cells() const { return height * width; }
  CVOPS_HD int candidates() const { return anchors * cells(); }
};

// Pixels between two cells; minimum side of a box, in pixels of the unscaled image. At most `topk`
// candidates take part. The result has `rows` rows per image. With `corners`, offsets are added to
// the corners of an anchor.
struct ProposalOptions {
  int stride, min_size, corners, topk, rows;
};

// An image: its size in pixels, the minimum side of a box, and the cells within the image.
struct ProposalImage {
  float height, width, min_size;
  int rows, columns;
};

CVOPS_HD ProposalImage proposal_image(const float* info, ProposalOptions op) {
  return {info[0], info[1], (float)op.min_size * info[2], truncated(info[0] / (float)op.stride),
          truncated(info[1] / (float)op.stride)};
}

// A candidate's box and score.
struct Proposal {
  Box box;
  float score;
};

// x limited to [0, high]. NaN stays.
CVOPS_HD float proposal_clip(float x, float high) {
  const float limited = high < x ? high : x;
  return limited < 0.0f ? 0.0f : limited;
}

// Side of a box along one axis: the pixels from `low` to `high`, both included.
CVOPS_HD float pixel_side(float low, float high) { return high - low + 1.0f; }

CVOPS_HD SizedBox pixel_sized(Box b) {
  return {b, pixel_side(b.x1, b.x2) * pixel_side(b.y1, b.y2)};
}

struct Span {
  float low, high;
};

// Corners along one axis of the box that an offset and a logarithm of a ratio describe relative to
// an anchor. The order of operations and the intermediate doubles are MXNet's.
CVOPS_HD Span proposal_span(float low, float high, float offset, float log_ratio) {
  const float anchor = pixel_side(low, high);
  const float anchor_center = (float)((double)low + 0.5 * ((double)anchor - 1.0));
  const float center = offset * anchor + anchor_center;
  const float side = exp_of(log_ratio) * anchor;
  const double half = 0.5 * ((double)side - 1.0);
  return {(float)((double)center - half), (float)((double)center + half)};
}

// `anchor` is at the candidate's cell; `is_inside`: the cell is within the image.
CVOPS_HD Proposal proposal_of(Box anchor, Box offsets, float score, bool is_inside,
                              const ProposalImage& image, bool corners) {
  Box b;
  if (corners) {
    b = {anchor.x1 + offsets.x1, anchor.y1 + offsets.y1, anchor.x2 + offsets.x2,
         anchor.y2 + offsets.y2};
  } else {
    const Span x = proposal_span(anchor.x1, anchor.x2, offsets.x1, offsets.x2);
    const Span y = proposal_span(anchor.y1, anchor.y2, offsets.y1, offsets.y2);
    b = {x.low, y.low, x.high, y.high};
  }
  const float right = image.width - 1.0f, bottom = image.height - 1.0f;
  b = {proposal_clip(b.x1, right), proposal_clip(b.y1, bottom), proposal_clip(b.x2, right),
       proposal_clip(b.y2, bottom)};
  const float width = pixel_side(b.x1, b.x2), height = pixel_side(b.y1, b.y2);
  const bool is_small = (width < image.min_size) | (height < image.min_size);
  const float more = is_small ? image.min_size / 2 : 0.0f;
  // MXNet keeps a small box, with a larger size and the lowest score.
  return {{b.x1 - more, b.y1 - more, b.x2 + more, b.y2 + more},
          (is_small | !is_inside) ? -1.0f : score};
}

// A NaN is the lowest score.
CVOPS_HD uint64 proposal_key(float score, uint32 index) {
  return sort_key(score == score ? score : float_of(0xff800000u), index);
}

CVOPS_HD Box proposal_anchor(Box anchor, int row, int column, int stride) {
  const float x = (float)(column * stride), y = (float)(row * stride);
  return {anchor.x1 + x, anchor.y1 + y, anchor.x2 + x, anchor.y2 + y};
}

// Score of a candidate in the input.
CVOPS_HD float proposal_score(const ProposalInputs& in, int image, int anchor, int cell) {
  return in.cls_prob[((int64)image * 2 * in.anchors + in.anchors + anchor) * in.cells() + cell];
}

CVOPS_HD Proposal proposal_at(const ProposalInputs& in, const ProposalAnchors& anchors,
                              ProposalOptions op, int image, int anchor, int cell) {
  const float* offsets =
      in.bbox_pred + ((int64)image * 4 * in.anchors + 4 * anchor) * in.cells() + cell;
  const int plane = in.cells(), row = cell / in.width, column = cell - row * in.width;
  const ProposalImage info = proposal_image(in.im_info + 3 * image, op);
  return proposal_of(proposal_anchor(anchors.box[anchor], row, column, op.stride),
                     {offsets[0], offsets[plane], offsets[2 * plane], offsets[3 * plane]},
                     proposal_score(in, image, anchor, cell),
                     row < info.rows && column < info.columns, info, op.corners);
}

}  // namespace cvops

CVOPS_KERNEL proposal_keys(cvops::uint64* keys, int* counts, cvops::ProposalInputs in,
                           cvops::ProposalAnchors anchors, cvops::ProposalOptions op);
CVOPS_KERNEL proposal_gather(cvops::NmsBuffers nms, const cvops::uint64* keys,
                             cvops::ProposalInputs in, cvops::ProposalAnchors anchors,
                             cvops::ProposalOptions op);
CVOPS_KERNEL proposal_write(float* out, float* scores, const float* boxes,
                            const cvops::uint64* keys, const cvops::uint64* kept,
                            const int* kept_before, cvops::ProposalInputs in,
                            cvops::ProposalOptions op);

#ifdef __CUDACC__
// keys (B, A H W) of all candidates, in the order of the input's planes; counts (B): A H W. Grid
// (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    proposal_keys(unsigned long long* __restrict__ keys, int* __restrict__ counts,
                  const cvops::ProposalInputs in, const cvops::ProposalAnchors anchors,
                  const cvops::ProposalOptions op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, image = blockIdx.x, num = in.candidates();
  if (i == 0) counts[image] = num;
  if (i >= num) return;
  const int anchor = i / in.cells(), cell = i - anchor * in.cells();
  const Proposal p = proposal_at(in, anchors, op, image, anchor, cell);
  keys[(int64)image * num + i] = proposal_key(p.score, (uint32)(cell * in.anchors + anchor));
}

// Boxes and areas of the best min(A H W, topk) candidates. It also initializes the other buffers of
// nms.cuh. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    proposal_gather(const cvops::NmsBuffers nms, const unsigned long long* __restrict__ keys,
                    const cvops::ProposalInputs in, const cvops::ProposalAnchors anchors,
                    const cvops::ProposalOptions op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, image = blockIdx.x, num = in.candidates();
  const int count = min(num, op.topk);
  nms.begin(image, num, i, count);
  if (i >= count) return;
  const int64 at = (int64)image * num + i;
  const int index = (int)index_of(keys[at]), cell = index / in.anchors;
  const Proposal p = proposal_at(in, anchors, op, image, index - cell * in.anchors, cell);
  nms.store(at, pixel_sized(p.box), 0);
}

// out (B, rows, 5): image and corners of the first kept candidates, again and again until all rows
// are full. scores (B, rows): their scores; not written if null. boxes (B, A H W, 4) in key order.
// Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    proposal_write(float* __restrict__ out, float* __restrict__ scores,
                   const float* __restrict__ boxes, const unsigned long long* __restrict__ keys,
                   const unsigned long long* __restrict__ kept, const int* __restrict__ kept_before,
                   const cvops::ProposalInputs in, const cvops::ProposalOptions op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, image = blockIdx.x, num = in.candidates();
  const int words = (int)ceil_div(num, 64);
  kept += (int64)image * words;
  kept_before += (int64)image * (words + 1);
  const int all_kept = kept_before[words], each = min(all_kept, op.rows);
  const auto [to, is_kept] = output_row(kept, kept_before, i, min(num, op.topk), all_kept);
  if (!is_kept || to >= each) return;
  const int64 at = (int64)image * num + i;
  const Box b = load_box(boxes, at);
  const int index = (int)index_of(keys[at]), cell = index / in.anchors;
  // The key has the score -1 of a small box. It has not the sign of zero, and not NaN.
  const bool is_small = keys[at] >> 32 == proposal_key(-1.0f, 0) >> 32;
  const float score = is_small ? -1.0f : proposal_score(in, image, index - cell * in.anchors, cell);
  for (int64 row = to; row < op.rows; row += each) {
    float* const own = out + 5 * (image * (int64)op.rows + row);
    own[0] = (float)image;
    own[1] = b.x1, own[2] = b.y1, own[3] = b.x2, own[4] = b.y2;
    if (scores) scores[image * (int64)op.rows + row] = score;
  }
}
#endif
