"""The ops under the names that they have in ``mx.nd.contrib``: ``from cvops import contrib``."""

from cvops.ops.box_iou import box_iou
from cvops.ops.box_nms import box_nms
from cvops.ops.multibox_detection import multibox_detection as MultiBoxDetection
from cvops.ops.multibox_prior import multibox_prior as MultiBoxPrior
from cvops.ops.multibox_target import multibox_target as MultiBoxTarget
from cvops.ops.roi_pooling import roi_pooling as ROIPooling

__all__ = [
    "MultiBoxDetection",
    "MultiBoxPrior",
    "MultiBoxTarget",
    "ROIPooling",
    "box_iou",
    "box_nms",
]
