"""Pickles of plain values and NumPy arrays, read without running code of the file."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from cvops._files import check_regular

#: The dtypes of arrays, without their byte order.
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def load(path: Path) -> Any:
    """Return the object of a file, as :func:`loads`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`loads`. The message begins with the path.
    """
    try:
        check_regular(path)
        return loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def loads(content: bytes) -> Any:
    """Return the object of a pickle: numbers, texts, bytes, and containers and arrays of them.

    The texts of a pickle of Python 2 are bytes. Arrays are read-only, in dictionaries, lists and
    tuples; their dtypes are floats and integers.

    Raises:
        ValueError: it is not a pickle, or it has other objects.
    """
    try:
        # The scan checks all lengths. The unpickler would allocate a memo of any size.
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name.endswith("PUT") and int(argument) > len(content):  # type: ignore[arg-type]
                raise pickle.UnpicklingError(f"expected a small memo, got the index {argument}")
        return _with_arrays(_Unpickler(io.BytesIO(content), encoding="bytes").load())
    except Exception as error:  # a damaged pickle raises many types
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"not a pickle of plain values and arrays: {text}") from error


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


class _Dtype:
    """The pickled state of a ``numpy.dtype``."""

    def __init__(self, code: Any):
        self.code, self.order = _text(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])

    def dtype(self) -> np.dtype:
        if self.code not in _DTYPES or self.order not in ("<", ">", "|"):
            raise ValueError(f"expected one of the dtypes {', '.join(_DTYPES)}, got {self.code!r}")
        return np.dtype(self.order + self.code)


class _Array:
    """The pickled state of a ``numpy.ndarray``. NumPy itself would trust its dtype and size."""

    def __init__(self, *state: Any):
        self.state: Any = state

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.state = data, dtype, shape, "F" if is_fortran else "C"

    def array(self) -> np.ndarray:
        data, dtype, shape, order = self.state
        return np.frombuffer(data, dtype.dtype()).reshape(shape, order=_text(order))


def _with_arrays(value: Any) -> Any:
    """Return ``value`` with NumPy arrays for the states of arrays in its containers."""
    done: dict[int, Any] = {}  # a container may be in many places

    def convert(part: Any) -> Any:
        if id(part) not in done:
            done[id(part)] = fresh(part)
        return done[id(part)]

    def fresh(part: Any) -> Any:
        if isinstance(part, _Array):
            return part.array()
        if type(part) is dict:
            return {key: convert(item) for key, item in part.items()}
        if type(part) in (list, tuple):
            return type(part)(map(convert, part))
        return part

    return convert(value)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes, which Python 3 writes as a text of Latin-1 in the protocols 0 to 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected the encoding latin1, got {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # New functions: a pickle can set attributes of what it gets.
        package = module.replace("numpy._core.", "numpy.core.")
        if (package, name) == ("numpy", "ndarray"):
            return None  # only an argument of _reconstruct
        if (package, name) == ("numpy", "dtype"):
            return lambda code, *_: _Dtype(code)
        if (package, name) == ("numpy.core.multiarray", "_reconstruct"):
            return lambda *_: _Array()
        if (package, name) == ("numpy.core.numeric", "_frombuffer"):
            return lambda data, dtype, shape, order: _Array(data, dtype, shape, order)
        if (package, name) == ("_codecs", "encode"):
            return lambda text, encoding: _encode(text, encoding)
        if (package, name) == ("__builtin__", "bytes"):
            return lambda: b""  # how Python 3 writes no bytes in the protocols 0 to 2
        raise pickle.UnpicklingError(f"expected plain values and arrays, got {module}.{name}")
