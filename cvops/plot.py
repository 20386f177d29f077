"""Drawings of boxes, detections and segmentations. Boxes are (x1, y1, x2, y2), corners, in pixels.

``draw_detections``, ``grid`` and ``show_segmentation`` make pictures with Pillow. ``curves``,
``draw_panels`` and the helpers of "Dive into Deep Learning" use Matplotlib, which is imported at
the first call.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import numpy as np

from cvops._imports import optional
from cvops._pillow import Image, ImageDraw, ImageFont
from cvops.arrays import as_numbers, as_rows
from cvops.images import as_numpy, to_rgb
from cvops.ops._check import integer, number, numbers
from cvops.ops.multibox_prior import multibox_prior

#: Colors of the classes in turn, dark enough for white text.
COLORS = ("#c2410c", "#0f766e", "#6d28d9", "#be123c", "#1d4ed8", "#4d7c0f")


def draw_detections(
    image: Image.Image,
    rows: np.ndarray,
    classes: Sequence[str],
    scale: float = 1,
    masks: np.ndarray | None = None,
    texts: Sequence[str] | None = None,
) -> Image.Image:
    """Return a copy of ``image`` with each detection's box, class name and score, and its mask.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``.
        rows: (n, 6), rows (class, score, x1, y1, x2, y2) in pixels of ``image``. Rows of a class
            below 0 are omitted. A better score is drawn over a worse one.
        classes: names of the classes.
        scale: ratio of the sizes of the copy and ``image``; above 1 for finer lines.
        masks: (n, height, width) of ``image``; pixels that are not 0 get the color of the class.
        texts: n texts at the boxes, instead of class name and score.

    Raises:
        TypeError: ``rows`` is not an array of numbers, or ``scale`` is not a number.
        ValueError: ``rows`` is not (n, 6), a class has no name, a score or a box is not finite,
            ``scale`` is not above 0, ``masks`` have another shape, or ``texts`` another length.
    """
    image, rows = to_rgb(image), as_rows("rows", rows, 6)
    if not number("scale", scale, 0) > 0:
        raise ValueError(f"scale: expected a number above 0, got {scale!r}")
    shapes = None if masks is None else _shapes(masks, (len(rows), image.height, image.width))
    if texts is not None and len(texts) != len(rows):
        raise ValueError(f"texts: expected {len(rows)} texts, got {len(texts)}")
    valid = ~(rows[:, 0] < 0)
    chosen = None if texts is None else [text for text, own in zip(texts, valid) if own]
    rows = rows[valid]
    wrong = ~(np.isin(rows[:, 0], range(len(classes))) & np.isfinite(rows).all(axis=1))
    if wrong.any():
        raise ValueError(
            f"rows: expected classes 0 to {len(classes) - 1} and finite numbers, "
            f"got {rows[wrong][0].tolist()}"
        )
    width, height = (max(1, round(length * scale)) for length in image.size)
    picture = image.resize((width, height), Image.Resampling.BICUBIC)
    order = np.argsort(rows[:, 1], kind="stable")
    if shapes is not None:
        for row, shape in zip(rows[order], shapes[valid][order]):
            _tint(picture, shape, COLORS[int(row[0]) % len(COLORS)])
    draw = ImageDraw.Draw(picture)
    line = max(2, min(width, height) // 128)
    font = ImageFont.load_default(max(10, min(width, height) // 20))
    shown = rows[order]
    boxes = [np.rint(np.multiply(row[2:6], scale)).tolist() for row in shown]
    for (kind, *_), (x1, y1, x2, y2) in zip(shown, boxes):
        corners = x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle(corners, outline=COLORS[int(kind) % len(COLORS)], width=line)
    for place, (kind, score, *_), (x1, y1, _, _) in zip(order, shown, boxes):
        text = f"{classes[int(kind)]} {score:.2f}" if chosen is None else chosen[place]
        _, _, right, bottom = draw.textbbox((0, 0), text, font)
        tag_width, tag_height = right + 4 * line, bottom + 2 * line
        x = max(0, min(x1, width - tag_width))
        y = y1 - tag_height if y1 >= tag_height else y1  # above the box if it fits
        color = COLORS[int(kind) % len(COLORS)]
        draw.rectangle((x, y, x + tag_width, y + tag_height), fill=color)
        draw.text((x + 2 * line, y + line), text, "white", font)
    return picture


def _shapes(masks: Any, shape: tuple[int, int, int]) -> np.ndarray:
    pixels = as_numbers("masks", masks)
    if pixels.shape != shape:
        raise ValueError(f"masks: expected shape {shape}, got {pixels.shape}")
    return pixels != 0


def _tint(picture: Image.Image, shape: np.ndarray, color: str) -> None:
    """Blend ``color`` into the pixels of a mask, which is enlarged to ``picture``."""
    mask = Image.fromarray(shape.astype(np.uint8) * 120)
    picture.paste(color, mask=mask.resize(picture.size, Image.Resampling.BILINEAR))


def contact_sheet(
    scenes: Sequence[Any], classes: Sequence[str], columns: int = 4, side: int = 256
) -> Image.Image:
    """Draw images with their true boxes, class names and masks, row by row on white.

    Args:
        scenes: one or more of (image, labels, masks), such as ``cvops.sets.Scene``: RGB; (n, 6),
            rows (class, x1, y1, x2, y2, difficult), corners in fractions; (n, height, width) or
            None.
        classes: names of the classes. The text of a difficult object ends with "?".
        columns: number of columns, 1 or more.
        side: longer side of each image in the result, in pixels, 32 or more.

    Raises:
        As :func:`draw_detections`; and ValueError if there is no image.
    """
    columns, side = integer("columns", columns, 1), integer("side", side, 32)
    pictures = []
    for pixels, labels, masks in scenes:
        image, labels = to_rgb(Image.fromarray(as_numpy(pixels))), as_rows("labels", labels, 6)
        boxes = labels[:, 1:5] * ((*image.size,) * 2)
        rows = np.column_stack([labels[:, 0], np.ones(len(labels)), boxes])
        texts = [classes[int(row[0])] + ("?" if row[5] else "") for row in labels]
        scale = side / max(image.size)
        drawn = draw_detections(image, rows, classes, scale, masks, texts)
        picture = Image.new("RGB", (side, side), "white")
        picture.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        pictures.append(picture)
    return grid(pictures, min(columns, max(1, len(pictures))))


def bbox_to_rect(bbox: Any, color: str) -> Any:
    """Return the outline of the box (x1, y1, x2, y2), a ``matplotlib.patches.Rectangle``."""
    x1, y1, x2, y2 = as_rows("bbox", [as_numpy(bbox)], 4)[0].tolist()
    return _matplotlib("patches").Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=2
    )


def show_bboxes(axes: Any, bboxes: Any, labels: Any = None, colors: Any = None) -> None:
    """Draw boxes, (n, 4), on Matplotlib's ``axes``.

    Args:
        axes: axes to draw on, in pixels of their image.
        bboxes: any array (n, 4), or n arrays of (4,).
        labels: a text or a list of texts for the first boxes, in order.
        colors: a color name or a list of color names, which the boxes have in turn; blue, green,
            red, magenta and cyan by default. The text is white, or black on white boxes.
    """
    texts = _listed(labels, [])
    names = _listed(colors, ["b", "g", "r", "m", "c"])
    for i, bbox in enumerate(bboxes):
        color = names[i % len(names)]
        rect = bbox_to_rect(bbox, color)
        axes.add_patch(rect)
        if i < len(texts):
            axes.text(
                *rect.get_xy(),
                texts[i],
                va="center",
                ha="center",
                fontsize=9,
                color="k" if color == "w" else "w",
                bbox={"facecolor": color, "linewidth": 0},
            )


def show_images(imgs: Any, num_rows: int, num_cols: int, scale: float = 2) -> np.ndarray:
    """Show the first ``num_rows`` * ``num_cols`` images, row by row.

    Args:
        imgs: Pillow images or arrays (H, W, 3), RGB.
        num_rows, num_cols: number of rows and columns, 1 or more each.
        scale: height and width of each image in inches.

    Returns:
        Matplotlib's axes, (num_rows, num_cols).

    Raises:
        ValueError: there are fewer images.
    """
    num_rows, num_cols = integer("num_rows", num_rows, 1), integer("num_cols", num_cols, 1)
    scale = number("scale", scale)
    if len(imgs) < num_rows * num_cols:
        raise ValueError(
            f"imgs: expected {num_rows} x {num_cols} images or more, got {len(imgs)} images"
        )
    size = num_cols * scale, num_rows * scale
    _, axes = _matplotlib("pyplot").subplots(num_rows, num_cols, figsize=size, squeeze=False)
    for ax, image in zip(axes.flat, imgs):
        ax.imshow(as_numpy(image))
        ax.axes.get_xaxis().set_visible(False)
        ax.axes.get_yaxis().set_visible(False)
    return axes


def apply(
    img: Any, aug: Callable[[Any], Any], num_rows: int = 2, num_cols: int = 4, scale: float = 1.5
) -> np.ndarray:
    """Show ``num_rows`` * ``num_cols`` results of a random transform of one image, row by row.

    Args:
        img: image (H, W, 3), RGB, an array for ``aug``.
        aug: function from an image to an image (h, w, 3), such as a transform of Gluon.
        num_rows, num_cols: number of rows and columns, 1 or more each.
        scale: height and width of each image in inches.

    Returns:
        Matplotlib's axes, (num_rows, num_cols).
    """
    num_rows, num_cols = integer("num_rows", num_rows, 1), integer("num_cols", num_cols, 1)
    return show_images([aug(img) for _ in range(num_rows * num_cols)], num_rows, num_cols, scale)


def display_anchors(image: Any, fmap_w: int, fmap_h: int, s: Sequence[float]) -> Any:
    """Show the anchors of a feature map of ``fmap_w`` x ``fmap_h`` cells on ``image``.

    The sizes are ``s``, fractions of the image. The ratios are 1, 2 and 1/2, as in the book.
    Returns Matplotlib's axes.
    """
    fmap_w, fmap_h = integer("fmap_w", fmap_w, 1), integer("fmap_h", fmap_h, 1)
    pixels = as_numpy(image)
    height, width = pixels.shape[:2]
    anchors = multibox_prior((fmap_h, fmap_w), numbers("s", s), (1, 2, 0.5))
    axes = _matplotlib("pyplot").figure().add_subplot()
    axes.imshow(pixels)
    show_bboxes(axes, anchors[0] * (width, height, width, height))
    return axes


def display(image: Any, rows: np.ndarray, threshold: float) -> Any:
    """Show ``image`` with the boxes of scores of ``threshold`` or more, and with these scores.

    ``rows`` are (n, 6), rows (class, score, x1, y1, x2, y2) in pixels, as from ``predict``. Returns
    Matplotlib's axes.
    """
    rows, threshold = as_rows("rows", rows, 6), number("threshold", threshold)
    axes = _matplotlib("pyplot").figure(figsize=(5, 5)).add_subplot()
    axes.imshow(as_numpy(image))
    shown = [row for row in rows if row[0] >= 0 and row[1] >= threshold]
    show_bboxes(axes, [row[2:] for row in shown], [f"{row[1]:.2f}" for row in shown], "w")
    return axes


def curves(history: np.ndarray, names: Sequence[str]) -> Any:
    """Plot losses by step on a logarithmic axis.

    Args:
        history: (n, m), m losses at each of n steps. Losses of 0 are not shown.
        names: m names.

    Returns:
        Matplotlib's axes. Their ``figure`` has ``savefig``.

    Raises:
        ValueError: ``history`` has not one column for each name.
    """
    rows = as_rows("history", history, len(names))
    axes = _matplotlib("figure").Figure(figsize=(6, 4), layout="tight").add_subplot()
    for column, name in zip(rows.T, names):
        axes.plot(np.where(column > 0, column, np.nan), label=name)
    _finish(axes, xlabel="step", ylabel="loss", yscale="log")
    return axes


def draw_panels(panels: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> Any:
    """Draw curves in panels from left to right and return a ``matplotlib.figure.Figure``.

    Args:
        panels: for each panel, by its title, the values of each curve, by its label. The values are
            at 1, 2, ...
        xlabel: label of the horizontal axes.
    """
    figure = _matplotlib("figure").Figure(figsize=(4.5 * len(panels), 3.5), layout="tight")
    for column, (title, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), column)
        for label, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, label=label)
        _finish(axes, title=title, xlabel=xlabel)
    return figure


def _finish(axes: Any, **texts: str) -> None:
    """Add texts, a grid and a legend."""
    axes.set(**texts)
    axes.grid(alpha=0.3)
    axes.legend()


def _matplotlib(module: str) -> Any:
    with optional():
        return importlib.import_module(f"matplotlib.{module}")


def _listed(given: Any, default: list[str]) -> list[str]:
    if given is None:
        return default
    return list(given) if isinstance(given, (list, tuple)) else [given]


def grid(pictures: Sequence[Image.Image], columns: int, gap: int = 8) -> Image.Image:
    """Arrange pictures of equal size row by row, ``gap`` pixels apart, on white."""
    columns, gap = integer("columns", columns, 1), integer("gap", gap, 0)
    if not pictures:
        raise ValueError("pictures: expected one picture or more, got none")
    width, height = pictures[0].size
    rows = math.ceil(len(pictures) / columns)
    size = columns * (width + gap) - gap, rows * (height + gap) - gap
    sheet = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def show_segmentation(
    image: np.ndarray, prediction: np.ndarray, label: np.ndarray, palette: np.ndarray
) -> Image.Image:
    """Draw an image, its predicted classes and its true classes, from left to right.

    Args:
        image: RGB, uint8 (height, width, 3), or a Pillow image.
        prediction: integers (height, width), indices into ``palette``.
        label: integers (height, width), indices into ``palette``.
        palette: uint8 (n, 3), RGB.

    Raises:
        TypeError: ``prediction`` or ``label`` is not an array of numbers.
        ValueError: an index is not in ``palette``.
    """
    predicted = _colored("prediction", prediction, palette)
    parts = as_numpy(image), predicted, _colored("label", label, palette)
    return grid([Image.fromarray(part) for part in parts], columns=3, gap=4)


def _colored(name: str, indices: Any, palette: np.ndarray) -> np.ndarray:
    indices = as_numbers(name, indices)
    wrong = ~np.isin(indices, range(len(palette)))
    if wrong.any():
        raise ValueError(
            f"{name}: expected palette indices 0 to {len(palette) - 1}, got {indices[wrong][0]}"
        )
    return palette[indices.astype(np.intp)]
