"""Fast, Faster and Mask R-CNN (Girshick, 2015; Ren et al., 2015; He et al., 2017), in Gluon.

B images, N proposals of an image, C classes without the background, which is class 0 in
predictions. Boxes are (x1, y1, x2, y2), corners, in fractions of the image, unless the unit is
pixels. Offsets from one box to another have the standard deviations ``STDS``.

Blocks that hybridize as a whole, including the detection ops:

- ``FasterRCNN``: images to proposals and the predictions for them; with ``mask=True`` it is a Mask
  R-CNN. ``FastRCNN`` is the same with proposals as an input.
- ``RCNNTraining``: images, labels and masks to losses
- ``RCNNDetector``: images to detections and masks, for export
"""

from __future__ import annotations

from typing import Any

from cvops._mxnet import mxnet
from cvops._networks import rcnn as shared
from cvops._networks.rcnn import Prediction as Prediction
from cvops.models.rcnn_networks import FasterRCNN as FasterRCNN
from cvops.models.rcnn_networks import FastRCNN as FastRCNN
from cvops.models.rcnn_networks import RCNNDetector as RCNNDetector
from cvops.models.rcnn_training import RCNNTraining as RCNNTraining
from cvops.models.rcnn_training import train_step as train_step
from cvops.models.steps import contexts
from cvops.models.steps import freeze as freeze

mx = mxnet()


def predict(
    net: FastRCNN,
    image: Any,
    threshold: float = 0.5,
    nms_threshold: float = 0.3,
    proposals: Any = None,
    detector: Any = None,
) -> Prediction:
    """Return the detections of ``net`` in one image, in descending order of scores.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``, or an array of NumPy or MXNet,
            RGB, uint8 (H, W, 3). It is resized to the size of the training images.
        threshold: the minimum score.
        nms_threshold: see ``RCNNDetector``.
        proposals: boxes (n, 4) in pixels of ``image``, for a ``FastRCNN`` only.
        detector: a hybridized ``RCNNDetector`` of ``net``, which has its own two thresholds.

    Raises:
        ValueError: ``image`` is an array of another shape or dtype, or a Pillow image whose pixels
            have no rule; ``proposals`` are missing, or not for this network.
    """

    def detect(*arrays: Any) -> list[Any]:
        ctx = contexts(net)[0]
        block = RCNNDetector(net, threshold, nms_threshold) if detector is None else detector
        out = block(*(mx.nd.array(x, ctx=ctx) for x in arrays))
        return [x.asnumpy() for x in (out if net.mask else [out])]

    proposes = isinstance(net, FasterRCNN)
    return shared.predict(net, image, threshold, proposals, proposes, detect)
