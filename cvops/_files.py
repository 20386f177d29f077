"""Files that are complete or not there, and the refusal of what is not a file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, and rename that file to ``path`` at the end.

    The file is beside ``path`` and is flushed to the disk. If the process or the machine stops at
    any time, or the disk is full, ``path`` is either the previous file or the new one.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the new name is on the disk
    finally:
        os.close(folder)


def check_writable(path: Path) -> None:
    """Raise an OSError if :func:`replacing` cannot write ``path``."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    part = path.with_name(path.name + ".part")
    try:
        part.open("ab").close()
        part.unlink()
    except OSError as error:
        raise type(error)(error.errno, f"{path}: cannot be written: {error.strerror}") from error


def check_regular(path: Path) -> None:
    """Raise a ValueError for a folder, a device or a pipe; a FileNotFoundError for nothing.

    A device may have no end, and the read of a pipe may wait forever.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
        raise ValueError(f"expected a file, got a {kind}")
