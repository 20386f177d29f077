"""The results of an op by their shapes: for frameworks that trace calls."""

from __future__ import annotations

import inspect
from typing import Any, Callable

from cvops.arrays.shapes import Shaped

#: The arguments that ask for all results of an op, as the operators of frameworks return them.
ALL_RESULTS = ("return_index", "return_argmax", "output_score")


def shapes_of(op: Callable[..., Any], arguments: dict[str, Any]) -> list[Shaped]:
    """Return the shape and the dtype of each result of a public function.

    Args:
        op: the function, such as ``cvops.box_iou``.
        arguments: its arguments by name, with :class:`Shaped` for arrays, and None for an argument
            that is not given.

    Raises:
        TypeError: as the function.
        ValueError: as the function.
    """
    parameters = inspect.signature(op).parameters
    given = {key: x for key, x in arguments.items() if x is not None}
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty:
            given.setdefault(key, None)  # an array that the options omit
    found = op(**given, **{key: True for key in ALL_RESULTS if key in parameters})
    return list(found) if isinstance(found, (list, tuple)) else [found]
