#include "ops.h"

#ifndef CVOPS_MODULE_NAME
#define CVOPS_MODULE_NAME _native
#endif

#define CVOPS_OPS(X)          \
  X(buffer)      /* shared */ \
  X(gpu)         /* shared */ \
  X(half)        /* shared */ \
  X(memo)        /* shared */ \
  X(result_pool) /* shared */ \
  X(run_on_cpu)  /* shared */ \
  X(simd)        /* shared */ \
  X(tensors)     /* shared */ \
  X(threads)     /* shared */ \
  X(adaptive_avg_pooling)     \
  X(bilinear_resize)          \
  X(bilinear_upsample)        \
  X(bipartite_matching)       \
  X(box_decode)               \
  X(box_encode)               \
  X(box_iou)                  \
  X(box_iou_rotated)          \
  X(box_nms)                  \
  X(confusion_matrix)         \
  X(deformable_psroi_pooling) \
  X(label_from_color)         \
  X(mask_target)              \
  X(match_anchors)            \
  X(matrix_nms)               \
  X(multibox_detection)       \
  X(multibox_prior)           \
  X(multibox_target)          \
  X(multiclass_nms)           \
  X(nms_rotated)              \
  X(paste_masks)              \
  X(proposal)                 \
  X(psroi_pooling)            \
  X(rcnn_target)              \
  X(roi_align)                \
  X(roi_pooling)              \
  X(rroi_align)               \
  X(rpn_target)               \
  X(soft_nms)                 \
  X(weighted_boxes_fusion)

#define DECLARE(op) void bind_##op(cvops::Ops&);
CVOPS_OPS(DECLARE)

PYBIND11_MODULE(CVOPS_MODULE_NAME, m) {
  cvops::Ops ops(m);
#define BIND(op) bind_##op(ops);
  CVOPS_OPS(BIND)
}
