"""The executor of ops on shapes: the native implementations without their calls of the C++."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from cvops.arrays import ArrayType, Device, Library
from cvops.arrays.shapes import Shaped


class _NoOps:
    """The ops of the extension, which compute nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


class Shapes:
    """A device without memory. A ``native`` implementation gets it as ``DeviceOps``."""

    ops = _NoOps()

    def __init__(self, library: Library, device: Device):
        pass

    @staticmethod
    def empty(shape: tuple[Any, ...], dtype: Any) -> Shaped:
        return Shaped(shape, dtype)

    @staticmethod
    def empty_all(*types: ArrayType) -> tuple[Shaped, ...]:
        return tuple(Shaped(shape, dtype) for shape, dtype in types)

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        """Return the shapes and the dtypes of the results."""
        shaped = [Shaped(x.shape, dtype) for x, (_, dtype) in zip(arrays, types)]
        return implementation(self, *shaped, *options)
