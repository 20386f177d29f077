"""An evaluation as tables, as JSON and as a picture of the worst images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops import plot
from cvops._files import replacing
from cvops._pillow import Image, ImageOps
from cvops.datasets.voc_labels import VOC_PALETTE
from cvops.recipes.detectors import CONFUSED
from cvops.recipes.recipe import Evaluation, Recipe
from cvops.recipes.splits import Split

#: Height and width of an image in the picture of the worst images, and their number.
_TILE, _WORST = 320, 8


def text(evaluation: Evaluation) -> str:
    """Return the tables of an evaluation: metrics, metrics of each class, confusion matrix."""
    lines = [f"{name:16} {_number(value):>6}" for name, value in evaluation.values.items()]
    columns = list(next(iter(evaluation.classes.values())))
    width = max(map(len, ("class", *evaluation.names)))
    lines += ["", " ".join([f"{'class':{width}}", *(f"{column:>10}" for column in columns)])]
    for name, row in evaluation.classes.items():
        lines.append(" ".join([f"{name:{width}}", *(f"{_number(x):>10}" for x in row.values())]))
    counts = evaluation.confusion
    cell = max(6, len(str(counts.max(initial=0))) + 1)
    lines += ["", "confusion: a row is a true class, a column a predicted one, in this order"]
    for name, numbers in zip(evaluation.names, counts.tolist()):
        lines.append(f"{name:{width}} " + "".join(f"{number:{cell}}" for number in numbers))
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def as_json(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Return an evaluation as JSON has it; NaN is null. ``names`` are those of the images."""
    return {
        "metrics": _without_nan(evaluation.values),
        "classes": {name: _without_nan(row) for name, row in evaluation.classes.items()},
        "confusion": {"names": list(evaluation.names), "counts": evaluation.confusion.tolist()},
        "errors": [
            {"image": name, "errors": count} for name, count in zip(names, evaluation.errors)
        ],
    }


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def json_text(content: Any, **options: Any) -> str:
    """Return JSON in UTF-8. The bytes of a name of a file that are no UTF-8 are escaped."""
    text = json.dumps(content, ensure_ascii=False, **options)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: Path, evaluation: Evaluation, names: Sequence[str]) -> None:
    """Write an evaluation; an error leaves the previous file."""
    content = json_text(as_json(evaluation, names), indent=2)
    with replacing(path) as part:
        part.write_text(content + "\n", "utf-8")


def worst(evaluation: Evaluation, count: int = _WORST) -> list[int]:
    """Return the indices of the images with errors, the most errors first; at most ``count``."""
    order = np.argsort(-np.array(evaluation.errors), kind="stable").tolist()
    return [index for index in order if evaluation.errors[index]][:count]


def picture_of_errors(
    recipe: Recipe, net: Any, split: Split, evaluation: Evaluation
) -> Image.Image | None:
    """Draw the images with most errors: labels at the left, detections at the right.

    Returns:
        The picture; None if no image has an error.
    """
    predict, tiles = recipe.predictor(net, CONFUSED), []
    for index in worst(evaluation):
        if recipe.segments:
            pixels, label = split.pixels(index)
            found = predict([pixels])[0]
            pair = [colored(pixels, classes) for classes in (label, found.pixels)]
        else:
            pixels, labels, masks = split.scene(index)
            scene, found = (pixels, labels, masks if masks.size else None), predict([pixels])[0]
            drawn = found.masks()
            image, scale = Image.fromarray(pixels), _TILE / max(pixels.shape[:2])
            pair = [
                plot.contact_sheet([scene], split.classes, 1, _TILE),
                plot.draw_detections(image, found.rows, split.classes, scale, drawn),
            ]
        tiles += [ImageOps.pad(tile, (_TILE, _TILE), color="white") for tile in pair]
    return plot.grid(tiles, columns=4) if tiles else None


def colored(image: np.ndarray, classes: Any) -> Image.Image:
    """Blend the color of each pixel's class, VOC's, into an image; the background stays."""
    colors = VOC_PALETTE[classes]
    blended = np.where(classes[..., None] > 0, image // 2 + colors // 2, image)
    return Image.fromarray(blended.astype(np.uint8))
