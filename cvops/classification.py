"""Data for image classification: CIFAR-10, folders of images, made sets, and augmentation.

Functions have the names of "Dive into Deep Learning". Images are uint8 (height, width, 3), RGB,
arrays of MXNet. Images in folders are read by the rules of ``cvops.images``.
"""

from cvops.datasets.augmentation import (
    TRANSFORMS,
    color_aug,
    finetune_augs,
    flip_aug,
    flip_hue_aug,
    no_aug,
    pipelines,
    shape_aug,
)
from cvops.datasets.cifar import (
    CIFAR10,
    CIFAR10_CLASSES,
    load_cifar10,
    make_cifar10,
    read_cifar10,
)
from cvops.datasets.figures import FIGURES, figure_image
from cvops.datasets.image_folders import (
    ImageFolderDataset,
    load_image_folders,
    make_image_folders,
    read_image_folders,
)

__all__ = [
    "CIFAR10",
    "CIFAR10_CLASSES",
    "FIGURES",
    "TRANSFORMS",
    "ImageFolderDataset",
    "color_aug",
    "figure_image",
    "finetune_augs",
    "flip_aug",
    "flip_hue_aug",
    "load_cifar10",
    "load_image_folders",
    "make_cifar10",
    "make_image_folders",
    "no_aug",
    "pipelines",
    "read_cifar10",
    "read_image_folders",
    "shape_aug",
]
