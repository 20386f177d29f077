// mask_target: the matched mask of each RoI in a grid of bins, for each class.
//
// A thread computes one bin of an RoI, as roi_align does, and writes it for a part of the classes.
// Adjacent threads have adjacent bins, so that their stores coalesce.
#pragma once
#include "aligned_roi.cuh"
#include "box.cuh"

namespace cvops {

// Sizes of gt_masks (images, masks, height, width), and RoIs per image.
struct MaskTargetShape {
  int images, rois, masks, height, width;
};

// Number of classes, bins, samples of a bin along an axis, and roi_align's `aligned`.
struct MaskTargetOptions {
  int classes, pooled_height, pooled_width, sample_ratio;
  bool aligned;

  CVOPS_HD int64 bins() const { return (int64)pooled_height * pooled_width; }
};

// rois (B, N, 4), gt_masks (B, M, H, W), matches and cls_targets (B, N).
struct MaskTargetInputs {
  const float *rois, *gt_masks, *matches, *cls_targets;
};

// The masks are planes of one channel at scale 1.
CVOPS_HD RoiAlign mask_planes(const MaskTargetShape& shape, const MaskTargetOptions& options) {
  return {1,
          1,
          shape.height,
          shape.width,
          options.pooled_height,
          options.pooled_width,
          1.0f,
          options.sample_ratio,
          false,
          options.aligned};
}

CVOPS_HD AlignedRoi roi_of_mask(Box box, const RoiAlign& op) {
  const RoiAlignAxis y = roi_align_axis(box.y1, box.y2, op.pooled_height, op);
  const RoiAlignAxis x = roi_align_axis(box.x1, box.x2, op.pooled_width, op);
  return {0, y, x, sample_count((float)((int64)y.samples * x.samples))};
}

// True if a class target is one of the classes.
CVOPS_HD bool is_class(float target, int classes) {
  return target >= 0 && target < (float)classes && (float)(int)target == target;
}

// Index of a matched mask. A match out of range becomes the first or the last mask.
CVOPS_HD int mask_of_match(float match, int masks) { return clamped(truncated(match), masks - 1); }

}  // namespace cvops

CVOPS_KERNEL mask_target(float* targets, float* weights, cvops::MaskTargetInputs in,
                         cvops::MaskTargetShape shape, cvops::MaskTargetOptions options, int parts);

#ifdef __CUDACC__
// targets and weights (B, N, C, pooled_height, pooled_width). The classes are divided into `parts`.
// Grid (blocks, parts).
extern "C" __global__ void __launch_bounds__(256)
    mask_target(float* __restrict__ targets, float* __restrict__ weights,
                const cvops::MaskTargetInputs in, const cvops::MaskTargetShape shape,
                const cvops::MaskTargetOptions options, int parts) {
  using namespace cvops;
  wait_for_earlier_launches();
  struct Value {
    float of[1];
  };
  const RoiAlign op = mask_planes(shape, options);
  const int64 pixels = (int64)shape.height * shape.width;
  const uint32 bins = (uint32)options.bins();
  const int first_class = (int)((int64)options.classes * blockIdx.y / parts);
  const int end_class = (int)((int64)options.classes * (blockIdx.y + 1) / parts);
  // The RoI and the bin of the first thread of the block. A thread then divides 32-bit numbers.
  const int64 first = (int64)blockIdx.x * blockDim.x;
  const int64 first_roi = first / bins, first_image = first_roi / shape.rois;
  const uint32 along = (uint32)(first - first_roi * bins) + threadIdx.x;
  const uint32 more_rois = along / bins;
  const int64 roi = first_roi + more_rois;
  if (roi >= (int64)shape.images * shape.rois) return;
  const int bin = (int)(along - more_rois * bins), i = bin / op.pooled_width;
  Value mean = {};
  if (shape.masks * pixels > 0) {
    const uint32 in_image = (uint32)(first_roi - first_image * shape.rois) + more_rois;
    const int64 image = first_image + in_image / shape.rois;
    const int mask = mask_of_match(in.matches[roi], shape.masks);
    const float* const plane = in.gt_masks + (image * shape.masks + mask) * pixels;
    mean = mean_of_bin<float, Value>(roi_of_mask(load_box(in.rois, roi), op), i,
                                     bin - i * op.pooled_width, op,
                                     [&](int p) { return Value{{plane[p]}}; });
  }
  const float target = in.cls_targets[roi];
  int64 to = (roi * options.classes + first_class) * bins + bin;
  for (int c = first_class; c < end_class; ++c, to += bins) {
    targets[to] = mean.of[0];
    weights[to] = target == (float)c ? 1.0f : 0.0f;
  }
}
#endif
