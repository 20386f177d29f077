"""Files of parameters in MXNet's format, checked before MXNet reads them.

MXNet trusts the sizes in such a file. A broken one ends the process, or takes all memory.

The format, little-endian: uint64 0x112, uint64 0, uint64 number of arrays, the arrays, uint64
number of names, for each name uint64 length and its bytes.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cvops._files import check_regular, replacing
from cvops._mxnet import mxnet

_LIST = 0x112
#: The first uint32 of an array: format 1, format 2 (with a storage type), format 3 (with shapes of
#: NumPy's rules). An array of the first MXNet has its number of axes there.
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_MOST_AXES = 32
#: The bytes of an element, by MXNet's number of its dtype.
_ITEM_SIZES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 8: 2, 9: 2, 10: 4, 11: 8, 12: 2}

#: The dtypes of NumPy, by MXNet's number.
_DTYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")))


def save(net: Any, path: Path) -> None:
    """Write the parameters of ``net`` to ``path``; an error leaves the previous file.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with replacing(path) as part:
            net.save_parameters(str(part))
    except mxnet().MXNetError as error:
        raise OSError(f"{path}: cannot be written: {_last_line(error)}") from error


def load(load_parameters: Callable[..., Any], path: Path, network: str, **options: Any) -> None:
    """Call ``load_parameters`` of a block of Gluon with ``path``, after a check of the file.

    ``network`` describes the block in an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of parameters, or is one of another network. The message
            begins with the path.
    """
    try:
        check(path)
        load_parameters(str(path), **options)
    except (mxnet().MXNetError, AssertionError, ValueError, KeyError) as error:
        text = _last_line(error)
        raise ValueError(f"{path}: not the parameters of {network}: {text}") from error


def check(path: Path) -> None:
    """Raise a ValueError if the sizes in a file of parameters do not fit the file."""
    check_regular(path)
    with open(path, "rb") as file:
        _Reader(file).read()


def names(path: Path) -> list[str]:
    """Return the names of the arrays in a file, which :func:`check` accepts."""
    with open(path, "rb") as file:
        reader = _Reader(file)
        reader.read()
        return reader.names


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by their names, without MXNet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of parameters. The message begins with the path.
    """
    check_regular(path)
    with open(path, "rb") as file:
        try:
            reader = _Reader(file)
            reader.read()
            return {
                name: np.fromfile(path, _DTYPES[dtype], math.prod(shape), offset=at).reshape(shape)
                for name, (at, shape, dtype) in zip(reader.names, reader.arrays)
            }
        except KeyError as error:
            raise ValueError(f"{path}: expected dtypes of NumPy, got number {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: not a file of parameters: {error}") from error


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


class _Reader:
    def __init__(self, file: BinaryIO):
        self.file = file
        self.left = os.fstat(file.fileno()).st_size
        #: The position in the file, the shape, and MXNet's number of the dtype of each array.
        self.arrays: list[tuple[int, tuple[int, ...], int]] = []
        self.names: list[str] = []

    def skip(self, size: int) -> None:
        if size > self.left:
            raise ValueError(f"expected {size} more bytes, got {self.left}")
        self.left -= size
        self.file.seek(size, os.SEEK_CUR)

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """Read numbers; ``kinds`` has a letter of ``struct`` for each."""
        size = struct.calcsize("<" + kinds)
        if size > self.left:
            raise ValueError(f"expected {size} more bytes, got {self.left}")
        self.left -= size
        return struct.unpack("<" + kinds, self.file.read(size))

    def read(self) -> None:
        magic, _, arrays = self.numbers("QQQ")
        if magic != _LIST:
            raise ValueError(f"expected the number {_LIST:#x} at the beginning, got {magic:#x}")
        for _ in range(arrays):
            self.array()
        (names,) = self.numbers("Q")
        if names != arrays:
            raise ValueError(f"expected a name for each of {arrays} arrays, got {names} names")
        for _ in range(names):
            (length,) = self.numbers("Q")
            begin = self.file.tell()
            self.skip(length)
            self.file.seek(begin)
            self.names.append(self.file.read(length).decode("utf-8", "replace"))
        if self.left:
            raise ValueError(f"expected the end of the file, got {self.left} more bytes")

    def array(self) -> None:
        (magic,) = self.numbers("I")
        if magic in (_V2, _V3):
            (storage,) = self.numbers("i")
            if storage != 0:
                raise ValueError(f"expected dense arrays, got one of storage type {storage}")
        is_old = magic not in (_V1, _V2, _V3)
        (rank,) = (magic,) if is_old else self.numbers("i")
        if not (-1 if magic == _V3 else 0) <= rank <= _MOST_AXES:
            raise ValueError(f"expected up to {_MOST_AXES} axes, got {rank}")
        if rank == -1 or (rank == 0 and magic != _V3):
            self.arrays.append((0, (0,), 0))
            return  # an array without a shape has nothing more
        shape = self.numbers(("I" if is_old else "q") * rank)
        _device, _number, dtype = self.numbers("iii")
        if dtype not in _ITEM_SIZES:
            raise ValueError(f"expected the number of a dtype, got {dtype}")
        size = _ITEM_SIZES[dtype]
        for axis in shape:
            if axis < 0:
                raise ValueError(f"expected a shape without negative numbers, got {shape}")
            size *= axis
        self.arrays.append((self.file.tell(), shape, dtype))
        self.skip(size)
