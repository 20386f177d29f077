"""Fully convolutional networks for semantic segmentation, in Gluon.

FCN-32s, 16s and 8s of Long, Shelhamer and Darrell (2015) on a ResNet-18, as in "Dive into Deep
Learning". B images, C classes. Pixels are RGB, normalized (``normalize_image``).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvops import weights
from cvops._mxnet import mxnet
from cvops._networks import class_names
from cvops.datasets.transforms import MEAN as MEAN
from cvops.datasets.transforms import STD as STD
from cvops.datasets.transforms import as_pixels
from cvops.datasets.transforms import normalize_image as normalize_image
from cvops.models import saved
from cvops.models.losses import check_classes, nan_if_unknown, on_cpu, weighted, weights_of
from cvops.ops._check import choice, flag, integer, integers

mx = mxnet()
nd, nn = mx.nd, mx.gluon.nn


class _Skip(NamedTuple):
    stride: int  #: stride of the feature map in pixels
    depth: int  #: number of layers of ResNet-18 before the feature map
    channels: int


_BACKBONE = "resnet18_v2"
_SKIPS = (_Skip(16, 8, 256), _Skip(8, 7, 128))

# --- upsampling -----------------------------------------------------------------------------------


def _tent(F: Any, size: int) -> Any:
    """Return (size,) weights of linear interpolation. ``F`` is NumPy, ``mx.nd`` or ``mx.sym``."""
    return 1 - F.abs(F.arange(size) - (size - 1) / 2) / ((size + 1) // 2)


def bilinear_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Any:
    """Return the weight of a transposed convolution that interpolates each channel bilinearly.

    With a stride of s and a kernel size of 2s - s % 2 the convolution enlarges s times.

    Args:
        in_channels, out_channels: number of channels, equal, 1 or more.
        kernel_size: height and width of the kernel, 1 or more.

    Returns:
        float32 (in_channels, out_channels, kernel_size, kernel_size), as for Conv2DTranspose: a
        tent from each channel to itself, 0 between different channels.

    Raises:
        ValueError: ``in_channels`` and ``out_channels`` are not equal.
    """
    channels = integer("in_channels", in_channels, 1)
    size = integer("kernel_size", kernel_size, 1)
    if integer("out_channels", out_channels) != channels:
        raise ValueError(f"out_channels: expected in_channels, {channels}, got {out_channels!r}")
    line = _tent(np, size)
    weight = np.zeros((channels, channels, size, size), np.float32)
    weight[range(channels), range(channels)] = np.outer(line, line)
    return nd.array(weight)


@mx.init.register
class BilinearKernel(mx.init.Initializer):  # type: ignore[misc, name-defined]
    """``bilinear_kernel`` as an initializer.

    MXNet's ``Bilinear`` also has tents between different channels: it is only for grouped
    convolutions.
    """

    def _init_weight(self, _: str, weight: Any) -> None:
        weight[:] = bilinear_kernel(*weight.shape[:3])


class BilinearUpsample(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Bilinear upsampling of (B, channels, h, w) to (B, channels, h * scale, w * scale).

    It has no parameters. It equals a transposed convolution by ``bilinear_kernel`` with a kernel
    size of 2 ``scale`` - ``scale`` % 2, a stride of ``scale`` and a padding of ``scale`` // 2.
    Pixels outside the map are 0.
    """

    def __init__(self, channels: int, scale: int, ops: str = "cvops", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = integer("channels", channels, 1)
        self.scale = integer("scale", scale, 1, 1024)
        self.ops = choice("ops", ops, ("cvops", "mxnet"))
        if ops == "cvops":
            import cvops.mxnet  # noqa: F401 (registers the op)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        if self.ops == "cvops":
            return F.contrib.cvops_bilinear_upsample(x, scale=self.scale)
        size = 2 * self.scale - self.scale % 2
        line = _tent(F, size)
        tent = F.broadcast_mul(line.reshape((1, 1, -1, 1)), line.reshape((1, 1, 1, -1)))
        return F.Deconvolution(
            x,
            F.broadcast_axis(tent, axis=0, size=self.channels),
            kernel=(size, size),
            stride=(self.scale, self.scale),
            pad=(self.scale // 2, self.scale // 2),
            num_filter=self.channels,
            num_group=self.channels,
            no_bias=True,
        )


# --- the network ----------------------------------------------------------------------------------


class FCN(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Network from images (B, 3, H, W) of any size to scores (B, num_classes, H, W).

    It is ResNet-18 without its last two layers, a 1 x 1 convolution to the classes, and upsampling.
    If H or W is not a multiple of 32, the scores are cropped to the image.

    Args:
        num_classes: number of classes, including the background.
        upsample: "bilinear" (fixed) or "transposed" (transposed convolutions that are trained, as
            in the book).
        stride: stride of the finest feature map in use: 32, 16 or 8. Each map finer than 32 has its
            own 1 x 1 convolution to scores, zero at first. Its scores are added to the upsampled
            scores of the coarser map.
        pretrained: initial weights of ResNet-18 (``resnet18_v2``): a source of ``cvops.weights``.
            ``initialize`` then loads it and initializes the other layers.
        init: initialization of "transposed": "bilinear" or "xavier".
        ops: library of the fixed upsampling: "cvops" or "mxnet".
        classes: names of the classes, the background first, for ``save``.

    Raises:
        FileNotFoundError: there are no pretrained weights.
        ValueError: an argument is not one of these values.
    """

    def __init__(
        self,
        num_classes: int = 21,
        upsample: str = "bilinear",
        stride: int = 32,
        pretrained: bool | str | Path = False,
        init: str = "bilinear",
        ops: str = "cvops",
        classes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes = integer("num_classes", num_classes, 1)
        self.classes = None if classes is None else class_names(classes)
        if self.classes is not None and len(self.classes) != num_classes:
            raise ValueError(f"classes: expected {num_classes} names, got {classes!r}")
        choice("upsample", upsample, ("bilinear", "transposed"))
        choice("init", init, ("bilinear", "xavier"))
        choice("ops", ops, ("cvops", "mxnet"))
        stride = integer("stride", stride)
        if stride not in (32, 16, 8):
            raise ValueError(f"stride: expected 32, 16 or 8, got {stride!r}")
        by_path = isinstance(pretrained, (str, Path))
        wanted = by_path or flag("pretrained", pretrained)
        self.options = {"upsample": upsample, "stride": stride}
        self._weights = weights.find(_BACKBONE, pretrained) if wanted else None
        skips = [skip for skip in _SKIPS if skip.stride >= stride]
        self._skip_depths = [skip.depth for skip in skips]

        def upsampling(scale: int) -> Any:
            if upsample == "bilinear":
                return BilinearUpsample(num_classes, scale, ops)
            return nn.Conv2DTranspose(
                *(num_classes, 2 * scale, scale, scale // 2),
                in_channels=num_classes,
                weight_initializer=BilinearKernel() if init == "bilinear" else mx.init.Xavier(),
            )

        with self.name_scope():
            backbone = mx.gluon.model_zoo.vision.get_model(_BACKBONE)
            # A function: as an attribute the network would be a child block.
            self._load_backbone = functools.partial(weights.load, backbone, _BACKBONE)
            self.features = nn.HybridSequential()
            self.features.add(*list(backbone.features)[:-2])
            self.score = nn.Conv2D(num_classes, 1, in_channels=512)
            self.skip_scores, self.doublings = nn.HybridSequential(), nn.HybridSequential()
            for skip in skips:
                score = nn.Conv2D(
                    num_classes, 1, in_channels=skip.channels, weight_initializer="zeros"
                )
                self.skip_scores.add(score)
                self.doublings.add(upsampling(2))
            self.upsample = upsampling(stride)
        # With known shapes ``initialize`` is not deferred to the first batch.
        self.infer_shape(nd.zeros((1, 3, 32, 32)))
        self._clear_cached_op()

    def initialize(self, init: Any = None, ctx: Any = None, **kwargs: Any) -> None:
        """Initialize all layers, as in Gluon; pretrained weights are loaded into ResNet-18.

        ``init`` is Xavier's initializer by default.
        """
        if init is None:
            init = mx.init.Xavier()
        if self._weights is None:
            super().initialize(init, ctx, **kwargs)
            return
        self._load_backbone(self._weights, ctx)
        for child in self._children.values():
            if child is not self.features:
                child.initialize(init, ctx, **kwargs)

    def save(self, path: str | Path) -> None:
        """Write the parameters to ``path``, and the arguments of the network next to it."""
        about = {"model": "FCN", "num_classes": self.num_classes, "classes": self.classes}
        saved.save(self, path, {**about, "options": self.options})

    @classmethod
    def load(cls, path: str | Path) -> FCN:
        """Return the network that ``save`` wrote to ``path``, on the CPU.

        Raises:
            FileNotFoundError: ``path`` or its JSON file is missing.
            ValueError: one of the two is not a file of ``save``.
        """

        def make(about: dict[str, Any]) -> Any:
            if about["model"] != "FCN":
                raise ValueError(about["model"])
            return cls(about["num_classes"], classes=about["classes"], **about["options"])

        net: FCN = saved.load(path, "an FCN", make)
        return net

    def hybrid_forward(self, F: Any, images: Any) -> Any:
        # Strided layers round up, so each map covers the image from its first pixel on.
        maps = list(itertools.accumulate(self.features, lambda x, layer: layer(x), initial=images))
        scores = self.score(maps[-1])
        for depth, score, double in zip(self._skip_depths, self.skip_scores, self.doublings):
            finer = score(maps[depth])
            scores = F.slice_like(double(scores), finer, axes=(2, 3)) + finer
        return F.slice_like(self.upsample(scores), images, axes=(2, 3))


class SegmentationLoss(mx.gluon.loss.SoftmaxCrossEntropyLoss):  # type: ignore[misc, name-defined]
    """Cross entropy of scores (B, C, H, W) and class indices (B, H, W), (B,).

    The loss is the mean over the pixels of an image; pixels of ``ignore_label`` count as 0. All
    other labels must be 0 to C - 1. On the CPU an invalid label raises a ValueError that names the
    label and its position (image, row, column). In a graph (hybridized) and on a GPU the loss of
    its image is NaN.

    ``class_weights`` are factors of the loss of the classes, C numbers of 0 or more. ``initialize``
    puts them on devices.
    """

    def __init__(
        self,
        ignore_label: int | None = None,
        class_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(axis=1, **kwargs)
        self.class_weights = weights_of(self, class_weights)
        if ignore_label is not None:
            ignore_label = integer("ignore_label", ignore_label)
        self._ignore_label = ignore_label

    def _is_ignored(self, label: Any) -> Any:
        # No label equals NaN: without an ignored label the mask is 0.
        return label == (math.nan if self._ignore_label is None else self._ignore_label)

    def hybrid_forward(self, F: Any, pred: Any, label: Any, class_weights: Any = None) -> Any:
        ignored = "" if self._ignore_label is None else f" or {self._ignore_label}"
        if on_cpu(label):
            check_classes("label", label, pred.shape[1], ignored, self._is_ignored)
        weight = nan_if_unknown(F, label, pred, 1, 3, self._is_ignored).expand_dims(axis=1)
        if self._ignore_label is not None:
            weight = weight * F.cast(label != self._ignore_label, "float32").expand_dims(axis=1)
        weight = weighted(F, weight, label.expand_dims(axis=1), class_weights)
        return super().hybrid_forward(F, pred, label, weight)


# --- prediction -----------------------------------------------------------------------------------


def _starts(length: int, tile: int) -> list[int]:
    """Return the starts of tiles that cover ``length``. The last tile ends at ``length``."""
    return [*range(0, length - tile, tile), length - tile]


def predict(net: Any, image: Any, tile: tuple[int, int] | None = None) -> np.ndarray:
    """Predict the class of each pixel of an image of any size.

    With ``tile`` the network processes tiles of this size, which cover the image. They overlap if
    they do not fit evenly; scores add up in the overlap. A smaller image is one tile. The class of
    a pixel is that of the maximum score, the first one of equal scores.

    Args:
        net: an ``FCN``, or another block from images to scores of the same height and width.
        image: RGB of 0 to 255, (H, W, 3), an array of NumPy or MXNet, or a Pillow image. A Pillow
            image is read by the rules of ``cvops.images``: H and W are those of the upright image.
        tile: height and width of a tile; the whole image by default.

    Returns:
        int32 (H, W).

    Raises:
        ValueError: ``image`` is not (H, W, 3), or ``tile`` is not two sizes.
    """
    image = as_pixels("image", image)
    shape = image.shape
    wanted = shape[:2] if tile is None else integers("tile", tile, "(height, width)", 1)
    height, width = (min(side, length) for side, length in zip(wanted, shape))
    pixels = normalize_image(image).transpose(2, 0, 1)
    parameters = list(net.collect_params().values())
    ctx = parameters[0].list_ctx()[0] if parameters else None
    total: Any = None
    for y, x in itertools.product(_starts(shape[0], height), _starts(shape[1], width)):
        part = np.s_[:, y : y + height, x : x + width]
        with mx.autograd.pause():
            scores = net(nd.array(pixels[part][None], ctx=ctx))[0].asnumpy()
        if total is None:
            total = np.zeros((len(scores), *shape[:2]), np.float32)
        total[part] += scores
    return total.argmax(axis=0).astype(np.int32)
