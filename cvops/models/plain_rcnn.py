"""R-CNN (Girshick, Donahue, Darrell and Malik, 2014): features of crops, and linear SVMs.

Boxes are (x1, y1, x2, y2), corners, in pixels of their image. scikit-learn fits the SVMs and the
regressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops._imports import optional
from cvops._mxnet import mxnet
from cvops._networks import class_names
from cvops._networks.rcnn import STDS
from cvops._pillow import Image
from cvops.models.rcnn_blocks import Backbone
from cvops.models.steps import contexts
from cvops.ops._check import integer, number
from cvops.ops.box_decode import box_decode
from cvops.ops.box_iou import box_iou
from cvops.ops.box_nms import box_nms

mx = mxnet()

#: IoU of a proposal and its object from which on the proposal is positive.
_POSITIVE = 0.6
#: IoU of a proposal with all objects below which it is background.
_NEGATIVE = 0.3
#: Proposals of each kind that an image gives for fitting, at most.
_MOST_POSITIVE, _MOST_NEGATIVE = 8, 24
#: Crops that the network processes together.
_BATCH = 64


def require_sklearn() -> tuple[Any, Any]:
    """Return scikit-learn's modules of linear models and of support vector machines.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    with optional():
        from sklearn import linear_model, svm
    return linear_model, svm


def crops_of(image: np.ndarray, boxes: np.ndarray, side: int = 64) -> np.ndarray:
    """Cut boxes from an image and resize them to squares, as R-CNN warps its proposals.

    Args:
        image: RGB, uint8 (height, width, 3).
        boxes: (n, 4), rounded to whole pixels, at least one pixel each.
        side: height and width of the crops.

    Returns:
        uint8 (n, 3, side, side).
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    crops = np.empty((len(boxes), side, side, 3), np.uint8)
    for crop, (x1, y1, x2, y2) in zip(crops, np.rint(boxes).astype(int).tolist()):
        x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
        x2, y2 = max(min(x2, width), x1 + 1), max(min(y2, height), y1 + 1)
        crop[:] = np.asarray(
            picture.resize((side, side), Image.Resampling.BILINEAR, (x1, y1, x2, y2))
        )
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))


class Samples:
    """Crops of proposals, and what they are, to fit an ``RCNN``.

    Attributes:
        crops: uint8 (n, 3, side, side).
        kinds: class of each crop, int (n,); -1 for the background.
        offsets: float32 (n, 4), from each crop to its object; 0 for the background.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        proposals: Sequence[np.ndarray],
        side: int = 64,
        seed: int = 0,
    ) -> None:
        """Take the objects, proposals close to them, and proposals of the background.

        Args:
            images: RGB, uint8 (height, width, 3) each.
            labels: for each image rows (class, x1, y1, x2, y2, ...) in pixels; rows of a class
                below 0 are padding.
            proposals: for each image boxes (n, 4).
            side: height and width of the crops.
            seed: seed of the choice among many proposals.
        """
        if not len(images) == len(labels) == len(proposals):
            raise ValueError(
                "images, labels, proposals: expected equal lengths, got "
                f"{len(images)}, {len(labels)}, {len(proposals)}"
            )
        rng = np.random.default_rng(seed)
        parts = [self._image(*given, side, rng) for given in zip(images, labels, proposals)]
        if not parts:
            raise ValueError("images: expected one image or more, got none")
        self.crops, self.kinds, self.offsets = (np.concatenate(column) for column in zip(*parts))

    @staticmethod
    def _image(
        image: np.ndarray, rows: np.ndarray, boxes: np.ndarray, side: int, rng: Any
    ) -> tuple[np.ndarray, ...]:
        rows = np.asarray(rows, np.float32)
        rows = rows[rows[:, 0] >= 0]
        truths = np.ascontiguousarray(rows[:, 1:5])
        boxes = np.concatenate([truths, np.asarray(boxes, np.float32).reshape(-1, 4)])
        overlaps = box_iou(boxes, truths) if len(truths) else np.zeros((len(boxes), 0), np.float32)
        best = overlaps.max(axis=1, initial=0)
        objects = np.arange(len(truths))
        near = len(truths) + np.flatnonzero(best[len(truths) :] >= _POSITIVE)
        far = np.flatnonzero(best < _NEGATIVE)
        near, far = (
            np.sort(rng.permutation(found)[:most])
            for found, most in ((near, _MOST_POSITIVE), (far, _MOST_NEGATIVE))
        )
        positive = np.concatenate([objects, near])
        kinds = np.full(len(positive) + len(far), -1)
        offsets = np.zeros((len(kinds), 4), np.float32)
        if len(positive):
            match = overlaps[positive].argmax(axis=1)
            kinds[: len(positive)] = rows[match, 0]
            offsets[: len(positive)] = _encode(boxes[positive], truths[match])
        return crops_of(image, boxes[np.concatenate([positive, far])], side), kinds, offsets


def _encode(boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return the offsets (n, 4) from boxes to truths, as ``box_encode``."""
    size, wanted = boxes[:, 2:] - boxes[:, :2], truths[:, 2:] - truths[:, :2]
    shift = (truths[:, :2] + truths[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return np.concatenate([shift / size, np.log(wanted / size)], axis=1) / np.array(
        STDS, np.float32
    )


class CropFeatures(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from crops (n, 3, side, side), RGB of 0 to 255, to features (n, length).

    It is the small backbone of the R-CNN family and a dense layer. It learns as the lower part of a
    classifier of crops.

    Args:
        side: height and width of the crops, a multiple of 8.
        length: number of features.
    """

    def __init__(self, side: int = 32, length: int = 128, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side, self.length = integer("side", side, 8), integer("length", length, 1)
        if side % 8:
            raise ValueError(f"side: expected a multiple of 8, got {side}")
        with self.name_scope():
            self.backbone = Backbone("small")
            (channels,), (stride,) = self.backbone.channels, self.backbone.strides
            self.dense = mx.gluon.nn.Dense(
                length, "relu", in_units=channels * (side // stride) ** 2
            )

    def hybrid_forward(self, F: Any, crops: Any) -> Any:
        (features,) = self.backbone(F.cast(crops, "float32"))
        return self.dense(features)


class RCNN:
    """R-CNN: a network runs once for each proposal, and linear SVMs classify its features.

    Args:
        features: block from crops (n, 3, side, side), RGB of 0 to 255, to features (n, ...).
        classes: names of the classes, without the background.
        side: height and width of the crops.

    Raises:
        ValueError: ``classes`` are not names, or ``side`` is not above 0.
    """

    def __init__(self, features: Any, classes: Sequence[str], side: int = 64) -> None:
        self.features, self.classes = features, class_names(classes)
        self.side = integer("side", side, 1)
        self._weights: np.ndarray | None = None  # (features, classes), then the biases
        self._offsets: list[Any] = []

    def features_of(self, crops: np.ndarray) -> np.ndarray:
        """Return the features of crops, float32 (n, length)."""
        ctx = contexts(self.features)[0]
        parts = []
        for start in range(0, len(crops), _BATCH):
            batch = mx.nd.array(crops[start : start + _BATCH], ctx=ctx)
            parts.append(self.features(batch).flatten().asnumpy())
        return np.concatenate(parts)

    def fit(self, samples: Samples, c: float = 1e-3, alpha: float = 1000) -> RCNN:
        """Fit a linear SVM and a ridge regression of the offsets for each class.

        The positive samples of the SVM of a class are its objects and the proposals close to them.
        All others are negative.

        Args:
            samples: from the training images.
            c: scikit-learn's ``C`` of the SVMs, above 0: smaller means more regularization.
            alpha: regularization of the regressions.

        Raises:
            ModuleNotFoundError: scikit-learn is not installed.
        ValueError: a class has no sample, or all samples are of one class.
        """
        linear, svms = require_sklearn()
        c, alpha = number("c", c, 0), number("alpha", alpha, 0)
        counts = [int((samples.kinds == kind).sum()) for kind in range(len(self.classes))]
        for name, count in zip(self.classes, counts):
            if not 0 < count < len(samples.kinds):
                raise ValueError(
                    f"samples: expected samples of {name!r} and others, got {count} of "
                    f"{len(samples.kinds)}"
                )
        values = self.features_of(samples.crops)
        weights = []
        self._offsets = []
        for kind in range(len(self.classes)):
            mine = samples.kinds == kind
            svm = svms.LinearSVC(
                C=c, class_weight="balanced", dual=True, random_state=0, max_iter=10000
            )
            svm.fit(values, mine)
            weights.append(np.append(svm.coef_[0], svm.intercept_))
            self._offsets.append(linear.Ridge(alpha).fit(values[mine], samples.offsets[mine]))
        self._weights = np.stack(weights, axis=1)
        return self

    def predict(
        self,
        image: np.ndarray,
        proposals: np.ndarray,
        threshold: float = 0.5,
        nms_threshold: float = 0.3,
    ) -> np.ndarray:
        """Return the detections in one image, in descending order of scores.

        Args:
            image: RGB, uint8 (height, width, 3).
            proposals: boxes (n, 4).
            threshold: the minimum score. The score is the logistic function of the SVM's distance
                from its plane: 0.5 on the plane.
            nms_threshold: a better detection of its class suppresses a box if their IoU is larger.

        Returns:
            float32 (n, 6), rows (class, score, x1, y1, x2, y2).

        Raises:
            RuntimeError: ``fit`` was not called.
        """
        if self._weights is None:
            raise RuntimeError("predict: expected a call of fit before it, got none")
        boxes = np.asarray(proposals, np.float32).reshape(-1, 4)
        if not len(boxes):
            return np.zeros((0, 6), np.float32)
        height, width = image.shape[:2]
        values = self.features_of(crops_of(image, boxes, self.side))
        distances = values @ self._weights[:-1] + self._weights[-1]
        scores = 1 / (1 + np.exp(-distances.clip(-50, 50)))
        rows = []
        for kind, regression in enumerate(self._offsets):
            offsets = np.asarray(regression.predict(values), np.float32).clip(-10, 10)
            moved = box_decode(offsets[None], boxes[None], *STDS, format="corner")[0]
            moved = moved.clip(0, (width, height, width, height))
            rows.append(np.column_stack([np.full(len(boxes), kind), scores[:, kind], moved]))
        found = np.ascontiguousarray(np.concatenate(rows), np.float32)
        kept = box_nms(found, nms_threshold, threshold, coord_start=2, score_index=1, id_index=0)
        return np.asarray(kept[kept[:, 0] >= 0])
