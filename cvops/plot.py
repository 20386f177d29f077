"""Drawing detections. Pictures are Pillow's; boxes are in fractions of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

#: Colours of the classes, in turn; each is dark enough for white letters.
COLOURS = ("#c2410c", "#0f766e", "#6d28d9", "#be123c", "#1d4ed8", "#4d7c0f")


def show_bboxes(
    image: Image.Image, rows: np.ndarray, classes: Sequence[str], scale: float = 1
) -> Image.Image:
    """A copy of ``image`` with each detection's box, the name of its class and its score.

    Args:
        image: RGB.
        rows: (n, 6), rows (class, score, x1, y1, x2, y2); those of a class under 0
            are left out, and a better score is drawn over a worse one.
        classes: names of the classes.
        scale: the copy is this much larger, for finer lines.
    """
    width, height = round(image.width * scale), round(image.height * scale)
    picture = image.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(picture)
    thick = max(2, min(width, height) // 128)
    font = ImageFont.load_default(max(10, min(width, height) // 20))
    shown = [row for row in rows[np.argsort(rows[:, 1], kind="stable")] if row[0] >= 0]
    boxes = [np.rint(np.multiply(row[2:6], (width, height) * 2)).tolist() for row in shown]
    for (kind, *_), (x1, y1, x2, y2) in zip(shown, boxes):
        corners = x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle(corners, outline=COLOURS[int(kind) % len(COLOURS)], width=thick)
    for (kind, score, *_), (x1, y1, _, _) in zip(shown, boxes):
        text = f"{classes[int(kind)]} {score:.2f}"
        _, _, right, bottom = draw.textbbox((0, 0), text, font)
        tag_width, tag_height = right + 4 * thick, bottom + 2 * thick
        x = max(0, min(x1, width - tag_width))
        y = y1 - tag_height if y1 >= tag_height else y1  # above the box, where there is room
        colour = COLOURS[int(kind) % len(COLOURS)]
        draw.rectangle((x, y, x + tag_width, y + tag_height), fill=colour)
        draw.text((x + 2 * thick, y + thick), text, "white", font)
    return picture


def grid(pictures: Sequence[Image.Image], columns: int, gap: int = 8) -> Image.Image:
    """``pictures``, all of one size, row by row on white."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    size = columns * (width + gap) - gap, rows * (height + gap) - gap
    sheet = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (width + gap), i // columns * (height + gap)))
    return sheet


def show_segmentation(
    image: np.ndarray, prediction: np.ndarray, label: np.ndarray, palette: np.ndarray
) -> Image.Image:
    """An image, the predicted class of each pixel and the true one, side by side.

    Args:
        image: uint8 (height, width, 3), RGB.
        prediction: whole numbers (height, width), places in ``palette``.
        label: likewise.
        palette: uint8 (n, 3), RGB.
    """
    parts = (image, palette[prediction], palette[label])
    return grid([Image.fromarray(part) for part in parts], columns=3, gap=4)
