"""RecordIO, the format of MXNet's record files.

A record is one part or several. A part is the number ``_MAGIC``, then 3 bits of its place in the
record and 29 bits of its length, its bytes, and zeros up to a multiple of 4 bytes. A record that
has ``_MAGIC`` at a multiple of 4 bytes is split there, and the number is omitted. MXNet's reader
joins parts of any places, so that a damaged header joins records; this reader refuses them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import reprlib
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops._mxnet import mxnet

mx = mxnet()

_MAGIC = struct.pack("<I", 0xCED7230A)
#: Offsets in a file are below this one.
_MAX_OFFSET = 2**62
#: Places of a part: the record has no other part; it is the first, a middle, or the last one.
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_NAMES = {
    _WHOLE: "a whole one",
    _FIRST: "a first part",
    _MIDDLE: "a later part",
    _LAST: "a last part",
}


class RecordFile:
    """The records of a file, of which threads and processes may read any.

    Args:
        path: the record file.
        index: its index, or None. The keys are those of the index, or 0, 1, ... in the order of
            the file.

    Raises:
        FileNotFoundError: a file is missing.
        OSError: a file cannot be opened.
        ValueError: the index is not one; or, without an index, a record is damaged.
    """

    def __init__(self, path: Path, index: Path | None) -> None:
        for file in filter(None, (path, index)):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file")
        self._path = path
        self._open()
        self._offsets = dict(enumerate(self._scan())) if index is None else _read_index(index)
        self.keys = list(self._offsets)

    def _open(self) -> None:
        self._file = os.open(str(self._path), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def name(self, key: int) -> str:
        """Return the name of a record, for messages."""
        return f"{self._path}: record {key}"

    def read(self, key: int) -> tuple[Any, bytes]:
        """Return the header, as of ``mx.recordio.unpack``, and the content of a record.

        Raises:
            ValueError: the record is damaged. The message names the file, the record and the byte.
        """
        offset = self._offsets[key]
        parts = [self._bytes(part, key) for part in self._parts(offset, key)]
        try:
            header, content = mx.recordio.unpack(_MAGIC.join(parts))
        except (struct.error, ValueError) as error:
            raise self._damaged(key, f"the label at byte {offset + 8} is cut off") from error
        return header, content

    def _bytes(self, part: tuple[int, int], key: int) -> bytes:
        start, length = part
        padded = os.pread(self._file, _padded(length), start)
        if len(padded) < _padded(length):
            raise self._damaged(key, f"the file ends in the part at byte {start - 8}")
        others = np.flatnonzero(np.frombuffer(padded, "<u4") == int.from_bytes(_MAGIC, "little"))
        if len(others):
            raise self._damaged(key, f"another record begins at byte {start + 4 * others[0]}")
        return padded[:length]

    def _parts(self, offset: int, key: int) -> list[tuple[int, int]]:
        """Return the offset of the first byte and the length of each part of a record."""
        parts: list[tuple[int, int]] = []
        expected: tuple[int, ...] = (_WHOLE, _FIRST)
        while expected:
            header = os.pread(self._file, 8, offset)
            if len(header) < 8 or header[:4] != _MAGIC:
                raise self._damaged(key, f"no header at byte {offset}")
            (bits,) = struct.unpack("<I", header[4:])
            place, length = bits >> 29, bits & (1 << 29) - 1
            if place not in expected:
                want = "the next part" if parts else "the beginning"
                got = _NAMES.get(place, f"the flag {place}")
                raise self._damaged(key, f"expected {want} of a record at byte {offset}, got {got}")
            parts.append((offset + 8, length))
            offset += 8 + _padded(length)
            expected = (_MIDDLE, _LAST) if place in (_FIRST, _MIDDLE) else ()
        return parts

    def _scan(self) -> Iterator[int]:
        """Yield the offset of each record."""
        offset, end = 0, os.fstat(self._file).st_size
        number = 0
        while offset < end:
            yield offset
            start, length = self._parts(offset, number)[-1]
            offset, number = start + _padded(length), number + 1

    def _damaged(self, key: int, reason: str) -> ValueError:
        return ValueError(f"{self.name(key)}: damaged, or not a record: {reason}")


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


def _read_index(path: Path) -> dict[int, int]:
    """Return the offset of each key, from lines of both."""
    refused = f"{path}: not the index of a record file"
    try:
        lines = path.read_text("utf-8").splitlines()
    except ValueError as error:
        raise ValueError(f"{refused}: {error}") from error
    offsets: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        try:
            key, offset, *_ = map(int, line.split("\t"))
        except ValueError:
            key, offset = 0, -1
        if not 0 <= offset < _MAX_OFFSET:
            got = reprlib.repr(line)
            raise ValueError(f"{refused}: line {number}: expected a key and an offset, got {got}")
        if key in offsets:
            raise ValueError(f"{refused}: line {number}: expected each key once, got {key} again")
        offsets[key] = offset
    return offsets


@contextlib.contextmanager
def record_writer(path: Path) -> Iterator[Callable[[int, list[float], bytes], None]]:
    """Write a record file, and its index next to it (``.idx``).

    Yields:
        A function that writes a record: its key, label and content.

    Raises:
        OSError: the file cannot be written.
    """
    with open(path, "wb"):  # MXNet's error has many lines
        pass
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")

    def write(key: int, label: list[float], content: bytes) -> None:
        header = mx.recordio.IRHeader(0, label, key, 0)
        record.write_idx(key, mx.recordio.pack(header, content))

    try:
        yield write
        end = record.tell()
    except mx.MXNetError as error:
        raise OSError(errno.EIO, f"{path.name}: {error}", str(path)) from error
    finally:
        record.close()
    if path.stat().st_size != end:  # MXNet ignores an error when it closes the file
        raise OSError(errno.EIO, f"{path.name}: expected {end} bytes, got fewer", str(path))
