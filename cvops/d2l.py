"""The helpers of chapter 9 of "Dive into Deep Learning" under the names of its package ``d2lzh``.

With ``from cvops import d2l`` in the place of ``import d2lzh as d2l``, and ``from cvops import
contrib`` in the place of MXNet's, the code of the chapter runs. Most names are those of other
modules of cvops, which have their documentation. Only :func:`download_voc_pascal` downloads.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from cvops import data
from cvops._imports import install_command
from cvops.classification import (
    CIFAR10,
    ImageFolderDataset,
    color_aug,
    flip_aug,
    load_cifar10,
    no_aug,
    shape_aug,
)
from cvops.models.classification import (
    evaluate_accuracy,
    train,
    train_with_data_aug,
    try_all_gpus,
    try_gpu,
)
from cvops.models.fcn import bilinear_kernel
from cvops.models.losses import bbox_eval, calc_loss, cls_eval
from cvops.models.resnet import Residual, resnet18
from cvops.models.style import GeneratedImage, content_loss, gram, style_loss, tv_loss
from cvops.ops._check import integer
from cvops.plot import apply, bbox_to_rect, display, display_anchors, show_bboxes, show_images
from cvops.voc import (
    VOC_CLASSES,
    VOC_COLORMAP,
    VOCSegDataset,
    download_voc_pascal,
    label2image,
    normalize_image,
    read_voc_images,
    voc_label_indices,
    voc_rand_crop,
)

__all__ = [
    "CIFAR10",
    "VOC_CLASSES",
    "VOC_COLORMAP",
    "GeneratedImage",
    "ImageFolderDataset",
    "Residual",
    "VOCSegDataset",
    "apply",
    "bbox_eval",
    "bbox_to_rect",
    "bilinear_kernel",
    "calc_loss",
    "cls_eval",
    "color_aug",
    "content_loss",
    "display",
    "display_anchors",
    "download_voc_pascal",
    "evaluate_accuracy",
    "flip_aug",
    "gram",
    "label2image",
    "load_cifar10",
    "load_data_pikachu",
    "no_aug",
    "normalize_image",
    "plt",
    "read_voc_images",
    "resnet18",
    "set_figsize",
    "shape_aug",
    "show_bboxes",
    "show_images",
    "style_loss",
    "train",
    "train_with_data_aug",
    "try_all_gpus",
    "try_gpu",
    "tv_loss",
    "use_svg_display",
    "voc_label_indices",
    "voc_rand_crop",
]

#: ``matplotlib.pyplot``, imported at its first use, because that selects a backend.
plt: Any


def __getattr__(name: str) -> Any:
    if name == "plt":
        try:
            return importlib.import_module("matplotlib.pyplot")
        except ModuleNotFoundError as error:
            raise AttributeError(
                f"d2l.plt needs matplotlib: {install_command('matplotlib')}"
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def use_svg_display() -> None:
    """Show figures as SVG in a notebook; elsewhere nothing changes."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        importlib.import_module("matplotlib_inline.backend_inline").set_matplotlib_formats("svg")


def set_figsize(figsize: tuple[float, float] = (3.5, 2.5)) -> None:
    """Set the default width and height of Matplotlib's figures, in inches."""
    use_svg_display()
    __getattr__("plt").rcParams["figure.figsize"] = figsize


def load_data_pikachu(
    batch_size: int, edge_size: int = 256, data_dir: str | Path = "../data/pikachu"
) -> tuple[Any, Any]:
    """Return iterators over the Pikachu set of the book, for training and for tests.

    They are those of ``data.iterator``; a batch has data (B, 3, edge_size, edge_size) and label
    (B, 1, 5). If ``data_dir`` has neither train.rec nor val.rec, a drawn set of the same form is
    written there: 900 and 100 photographs of 256 x 256 pixels, each with one drawn bee, class 0.

    Args:
        batch_size: images per batch, 1 or more.
        edge_size: height and width of the images in pixels, 1 or more.
        data_dir: folder of train.rec, train.idx and val.rec.

    Raises:
        As ``data.iterator``.
    """
    batch_size, edge_size = integer("batch_size", batch_size, 1), integer("edge_size", edge_size, 1)
    folder = Path(data_dir)
    files = folder / "train.rec", folder / "val.rec"
    if not any(file.exists() for file in files):
        print(f"{folder}: no train.rec and val.rec, so a drawn set is written there")
        folder.mkdir(parents=True, exist_ok=True)
        for seed, (file, photos, count) in enumerate(
            zip(files, (data.TRAIN_PHOTOS, data.TEST_PHOTOS), (900, 100))
        ):
            data.write_record(file, photos, count, seed, most=1, classes=("bee",))
    train_iter, val_iter = (
        data.iterator(file, batch_size, edge_size, augment=file is files[0]) for file in files
    )
    return train_iter, val_iter
