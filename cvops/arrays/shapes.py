"""Shapes without values, in the place of arrays: the results' shapes come from the same code."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops.arrays.base import Description, Device, Library


class Shaped:
    """The shape and the dtype of an array. An axis may be a symbol of a tracer."""

    def __init__(self, shape: tuple[Any, ...], dtype: Any):
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Shapes(Library):
    """Arrays without values. An op returns the shapes and the dtypes of its results."""

    name = "a shape"
    # A symbol has no hash.
    is_hashable = False

    def to_float32(self, x: Any) -> Any:
        return Shaped(x.shape, np.dtype("float32"))

    def to_half(self, y: Any, dtype: Any) -> Any:
        return Shaped(y.shape, dtype) if y.dtype == np.float32 else y

    def describe(self, x: Any) -> Description:
        return Device("shapes"), x.dtype, x.shape
