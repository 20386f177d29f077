"""Detection primitives: MXNet 1.9.1's operators for any array, with one answer on every device."""

from cvops import contrib as contrib
from cvops._mxnet import find_old_packages
from cvops.arrays import torch_autograd
from cvops.backends import threads
from cvops.backends.threads import get_num_threads as get_num_threads
from cvops.backends.threads import set_num_threads as set_num_threads
from cvops.ops.adaptive_avg_pooling import adaptive_avg_pooling as adaptive_avg_pooling
from cvops.ops.adaptive_avg_pooling import (
    adaptive_avg_pooling_backward as adaptive_avg_pooling_backward,
)
from cvops.ops.bilinear_resize import bilinear_resize as bilinear_resize
from cvops.ops.bilinear_resize import bilinear_resize_backward as bilinear_resize_backward
from cvops.ops.bilinear_upsample import bilinear_upsample as bilinear_upsample
from cvops.ops.bilinear_upsample import bilinear_upsample_backward as bilinear_upsample_backward
from cvops.ops.bipartite_matching import bipartite_matching as bipartite_matching
from cvops.ops.box_decode import box_decode as box_decode
from cvops.ops.box_encode import box_encode as box_encode
from cvops.ops.box_iou import box_iou as box_iou
from cvops.ops.box_iou import box_iou_backward as box_iou_backward
from cvops.ops.box_iou_rotated import box_iou_rotated as box_iou_rotated
from cvops.ops.box_nms import box_nms as box_nms
from cvops.ops.box_nms import box_nms_backward as box_nms_backward
from cvops.ops.confusion_matrix import confusion_matrix as confusion_matrix
from cvops.ops.deformable_psroi_pooling import deformable_psroi_pooling as deformable_psroi_pooling
from cvops.ops.deformable_psroi_pooling import (
    deformable_psroi_pooling_backward as deformable_psroi_pooling_backward,
)
from cvops.ops.label_from_color import label_from_color as label_from_color
from cvops.ops.mask_target import mask_target as mask_target
from cvops.ops.match_anchors import match_anchors as match_anchors
from cvops.ops.matrix_nms import matrix_nms as matrix_nms
from cvops.ops.multibox_detection import multibox_detection as multibox_detection
from cvops.ops.multibox_prior import multibox_prior as multibox_prior
from cvops.ops.multibox_prior import multibox_priors as multibox_priors
from cvops.ops.multibox_target import multibox_target as multibox_target
from cvops.ops.multiclass_nms import multiclass_nms as multiclass_nms
from cvops.ops.nms_rotated import nms_rotated as nms_rotated
from cvops.ops.paste_masks import paste_masks as paste_masks
from cvops.ops.proposal import multi_proposal as multi_proposal
from cvops.ops.proposal import proposal as proposal
from cvops.ops.psroi_pooling import psroi_pooling as psroi_pooling
from cvops.ops.psroi_pooling import psroi_pooling_backward as psroi_pooling_backward
from cvops.ops.rcnn_target import rcnn_target as rcnn_target
from cvops.ops.roi_align import roi_align as roi_align
from cvops.ops.roi_align import roi_align_backward as roi_align_backward
from cvops.ops.roi_pooling import roi_pooling as roi_pooling
from cvops.ops.roi_pooling import roi_pooling_backward as roi_pooling_backward
from cvops.ops.rpn_target import rpn_target as rpn_target
from cvops.ops.rroi_align import rroi_align as rroi_align
from cvops.ops.soft_nms import soft_nms as soft_nms
from cvops.ops.weighted_boxes_fusion import weighted_boxes_fusion as weighted_boxes_fusion

__version__ = "0.1.0"

find_old_packages()
threads.limit_spawned_workers()
torch_autograd.exclude_from_dynamo()
