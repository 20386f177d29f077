"""The ops as operators of PyTorch, and as the functions of ``torchvision.ops``.

``import cvops.torch`` builds the operators once, and loads them. The build needs a C++ compiler;
its result is in ``CVOPS_CACHE_DIR``. Each op is then ``torch.ops.cvops.<name>``, with the arguments
of ``cvops.<name>`` and all of its results. The operators take part in autograd, autocast,
``torch.compile``, ``torch.export``, ``torch.func.grad`` and ``torch.func.vmap``. A compiled
function may also call ``cvops.<name>``.

The functions here have the names, the arguments and the rules of ``torchvision.ops`` 0.28.
:func:`install` puts them in the place of torchvision's own. ``match_anchors``,
``soft_nms`` and ``weighted_boxes_fusion`` are further ones for PyTorch's detectors.

Differences: a box whose score is NaN or -inf is not kept; the IoU of two boxes without area is 0,
and not NaN. float16 and bfloat16 tensors are computed in float32, and rounded once. Each function
has the same result on each device. The functions that torchvision has, and that are on operators
with float64, take float64 tensors too. An option such as a threshold is rounded to float32.
"""

from cvops._imports import optional as _optional

with _optional():
    from cvops.torch import operators as _operators
from cvops.torch.boxes import box_area as box_area
from cvops.torch.boxes import box_iou as box_iou
from cvops.torch.boxes import clip_boxes_to_image as clip_boxes_to_image
from cvops.torch.boxes import complete_box_iou as complete_box_iou
from cvops.torch.boxes import distance_box_iou as distance_box_iou
from cvops.torch.boxes import generalized_box_iou as generalized_box_iou
from cvops.torch.boxes import masks_to_boxes as masks_to_boxes
from cvops.torch.boxes import match_anchors as match_anchors
from cvops.torch.boxes import remove_small_boxes as remove_small_boxes
from cvops.torch.install import install as install
from cvops.torch.install import installed as installed
from cvops.torch.install import uninstall as uninstall
from cvops.torch.rois import ps_roi_align as ps_roi_align
from cvops.torch.rois import roi_align as roi_align
from cvops.torch.rois import roi_pool as roi_pool
from cvops.torch.suppression import batched_nms as batched_nms
from cvops.torch.suppression import nms as nms
from cvops.torch.suppression import soft_nms as soft_nms
from cvops.torch.suppression import weighted_boxes_fusion as weighted_boxes_fusion

_operators.define()
