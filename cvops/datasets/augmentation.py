"""Image augmentation: the transforms of Gluon, and the pipelines of "Dive into Deep Learning".

Images are uint8 (height, width, 3), RGB, arrays of MXNet. ``mx.random.seed`` and ``random.seed``
repeat the random numbers: the crops use ``random``, all other transforms use MXNet's generator.

A fault of MXNet 1.9.1: its RandomSaturation scales all channels, as its RandomBrightness does. It
mixes no gray into them.
"""

from __future__ import annotations

from typing import Any

from cvops._mxnet import mxnet
from cvops.datasets.transforms import MEAN, STD
from cvops.ops._check import integer, numbers

mx = mxnet()
transforms = mx.gluon.data.vision.transforms

#: One example of each transform of Gluon. Normalize takes the result of ToTensor.
TRANSFORMS = {
    "Compose": transforms.Compose([transforms.Resize(48), transforms.ToTensor()]),
    "Cast": transforms.Cast("float32"),
    "ToTensor": transforms.ToTensor(),
    "Normalize": transforms.Normalize(MEAN.tolist(), STD.tolist()),
    "RandomResizedCrop": transforms.RandomResizedCrop((64, 48), scale=(0.1, 1), ratio=(0.5, 2)),
    "CenterCrop": transforms.CenterCrop((64, 48)),
    "Resize": transforms.Resize((64, 48)),
    "RandomFlipLeftRight": transforms.RandomFlipLeftRight(),
    "RandomFlipTopBottom": transforms.RandomFlipTopBottom(),
    "RandomBrightness": transforms.RandomBrightness(0.5),
    "RandomContrast": transforms.RandomContrast(0.5),
    "RandomSaturation": transforms.RandomSaturation(0.5),
    "RandomHue": transforms.RandomHue(0.5),
    "RandomColorJitter": transforms.RandomColorJitter(
        brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5
    ),
    "RandomLighting": transforms.RandomLighting(0.5),
}

#: The book's transforms of an image: colors, and a crop that becomes 200 x 200 pixels.
color_aug = TRANSFORMS["RandomColorJitter"]
shape_aug = transforms.RandomResizedCrop((200, 200), scale=(0.1, 1), ratio=(0.5, 2))

#: The book's pipelines for training, from an image to float32 (3, height, width) of 0 to 1.
no_aug = transforms.Compose([transforms.ToTensor()])
flip_aug = transforms.Compose([transforms.RandomFlipLeftRight(), transforms.ToTensor()])
flip_hue_aug = transforms.Compose(
    [transforms.RandomFlipLeftRight(), transforms.RandomHue(0.5), transforms.ToTensor()]
)


def pipelines(side: int = 32) -> dict[str, Any]:
    """Return pipelines for training, from an image to float32 (3, side, side) of 0 to 1.

    The images are ``side`` x ``side``.
    """
    side = integer("side", side, 1)
    crop = transforms.RandomResizedCrop(side, scale=(0.5, 1))
    return {
        "none": no_aug,
        "flip": flip_aug,
        "flip and hue": flip_hue_aug,
        "flip and color jitter": transforms.Compose(
            [transforms.RandomFlipLeftRight(), color_aug, transforms.ToTensor()]
        ),
        "flip and resized crop": transforms.Compose(
            [transforms.RandomFlipLeftRight(), crop, transforms.ToTensor()]
        ),
    }


def finetune_augs(side: int = 224, scale: tuple[float, float] = (0.08, 1)) -> tuple[Any, Any]:
    """Return the book's pipelines of fine-tuning, for training and for tests.

    Training: a crop of random area and shape, a flip. Tests: a resize to ``side`` * 8 / 7 and the
    crop of the center. Both normalize the colors for networks of ImageNet.

    Args:
        side: height and width of the results, float32 (3, side, side).
        scale: the minimum and maximum area of a crop, in fractions of the image.
    """
    side = integer("side", side, 1)
    least, most = numbers("scale", scale, 2)
    if not 0 < least <= most <= 1:
        raise ValueError(f"scale: expected 0 < minimum <= maximum <= 1, got {scale!r}")
    last = [transforms.ToTensor(), transforms.Normalize(MEAN.tolist(), STD.tolist())]
    crop = transforms.RandomResizedCrop(side, scale=(least, most))
    train = [crop, transforms.RandomFlipLeftRight(), *last]
    test = [transforms.Resize(round(side * 8 / 7)), transforms.CenterCrop(side), *last]
    return transforms.Compose(train), transforms.Compose(test)
