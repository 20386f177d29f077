"""Options of the ops on rows of a score, a class and a box; ``NmsRows`` of the operators."""

from __future__ import annotations

import math
from typing import Any, Callable, TypeVar

from cvops.ops import _check
from cvops.ops._op import Signature

#: ``NmsColumns``: the width of a row, the columns of score, first coordinate and class.
Columns = tuple[int, int, int, int]
_Options = TypeVar("_Options", bound=tuple[Any, ...])


def fitted_limit(limit: int, num: int) -> int:
    """Return the maximum number of rows of a set of ``num`` rows; a negative limit is none."""
    return num if limit < 0 else min(limit, num)


def columns_of(coord_start: Any, score_index: Any, id_index: Any) -> Columns:
    """Return ``NmsColumns`` of the extension for rows of an unknown width, which is 0."""
    score = _check.integer("score_index", score_index)
    coord = _check.integer("coord_start", coord_start)
    return 0, score, coord, max(_check.integer("id_index", id_index), -1)


def check_columns(shape: tuple[int, ...], columns: Columns, numbers: int = 4) -> Columns:
    """Return the columns for ``data`` of a shape.

    ``numbers`` is the number of coordinates of a box.
    """
    num, width = shape[-2:]
    _, score, coord, id_ = columns
    if width < 1 + numbers + (id_ > 0):
        want = f"a score, a class and {numbers}" if id_ > 0 else f"a score and {numbers}"
        raise ValueError(f"data: expected rows of {want} coordinates or more, got shape {shape}")
    if not 0 <= coord <= width - numbers:
        word = {4: "four", 5: "five"}[numbers]
        raise ValueError(f"coord_start: expected {word} columns of {width}, got {coord}")
    if not 0 <= score < width or coord <= score < coord + numbers:
        raise ValueError(
            "score_index: expected a column outside of the coordinates, whose columns are "
            f"coord_start = {coord} to {coord + numbers - 1}, got {score}"
        )
    if id_ >= width or coord <= id_ < coord + numbers or id_ == score:
        raise ValueError(f"id_index: expected a column of its own or -1, got {id_}")
    if num >= _check.MAX_BOXES or width >= 2**31:
        raise ValueError(
            f"data: expected fewer than {_check.MAX_BOXES} rows of fewer than 2**31 numbers, "
            f"got shape {shape}"
        )
    return width, score, coord, id_


def fitted(options: _Options, shape: tuple[int, ...]) -> _Options:
    """Return the options for ``data`` of a shape.

    The fields are the columns, two of the candidates, the maximum number of candidates, others, and
    the maximum number of rows of a set in the result.
    """
    columns, valid_thresh, background_id, topk, *op, rows = options
    make: Callable[..., _Options] = type(options)
    return make(
        check_columns(shape, columns),
        valid_thresh,
        background_id,
        fitted_limit(topk, shape[-2]),
        *op,
        fitted_limit(rows, shape[-2]),
    )


def decay(
    method: Any, sigma: Any, force_suppress: Any, in_format: Any, columns: Columns
) -> tuple[float, bool, bool, bool]:
    """Return sigma, gaussian, by_class and center of an op that lowers scores."""
    gaussian = _check.choice("method", method, ("linear", "gaussian")) == "gaussian"
    center = _check.choice("in_format", in_format, ("corner", "center")) == "center"
    by_class = not _check.flag("force_suppress", force_suppress) and columns[3] >= 0
    single = _check.single("sigma", sigma)
    if single <= 0:
        raise ValueError(f"sigma: expected a positive number, got {sigma!r}")
    return single, gaussian, by_class, center


def check_sets(signature: Signature) -> None:
    """Refuse too many sets of rows."""
    shape = signature.shapes["data"]
    _check.sizes_fit("data", shape, math.prod(shape[:-2]))
