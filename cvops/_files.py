"""Files and folders that are complete or not there, and the refusal of what is not a file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, and rename that file to ``path`` at the end.

    The file is beside ``path`` and is flushed to the disk. If the process or the machine stops at
    any time, or the disk is full, ``path`` is either the previous file or the new one.

    Raises:
        OSError: the file cannot be written. The message begins with ``path``.
    """
    part = path.with_name(path.name + ".part")
    try:
        with _naming(path, part):
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)  # so that the new name is on the disk


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give the path of a new folder to fill, and rename that folder to ``path`` at the end.

    The folder is beside ``path``, with a name that begins with a dot, and is flushed to the disk.
    After an error it is removed. If the process stops between the two renames of a folder that is
    replaced, the previous one is still there, with a name that begins with a dot.

    Raises:
        OSError: the folder cannot be written. The message begins with ``path``.
    """
    given, path = path, path.absolute()
    with _naming(given, Path(path.anchor)):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    part, previous = beside / "new", beside / "old"
    try:
        with _naming(given, beside):
            part.mkdir()
            yield part
            for file in (*part.rglob("*"), part):
                _sync(file)
        try:
            if path.exists():
                os.replace(path, previous)
            os.replace(part, path)
        except BaseException:
            if previous.exists() and not path.exists():
                os.replace(previous, path)
            raise
        _sync(path.parent)
    finally:
        if path.exists() or not previous.exists():
            shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path, own: Path) -> Iterator[None]:
    """Begin the message of an OSError with ``path``, if it is of no file or of one in ``own``.

    The errors of writing and of closing a file have no name, and ``own`` has a temporary name.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        is_own = name is None or (isinstance(name, str) and Path(name).is_relative_to(own))
        if error.strerror is None or not is_own:
            raise
        raise type(error)(f"{path}: cannot be written: {error.strerror}") from error


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def check_writable(path: Path) -> None:
    """Raise an OSError if :func:`replacing` cannot write ``path``."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    part = path.with_name(path.name + ".part")
    try:
        part.open("ab").close()
        part.unlink()
    except OSError as error:
        raise type(error)(f"{path}: cannot be written: {error.strerror}") from error


def check_folder(path: Path) -> None:
    """Raise an OSError if ``path`` is no folder, and none can be made there."""
    above = path.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        of = "" if above == path.absolute() else f", {above}"
        raise NotADirectoryError(f"{path}: expected a folder, got a file{of}")
    if not os.access(above, os.W_OK | os.X_OK):
        read_only = os.statvfs(above).f_flag & os.ST_RDONLY
        reason = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise PermissionError(f"{path}: cannot be written: {reason}")


def check_regular(path: Path) -> None:
    """Raise a ValueError for a folder, a device or a pipe; a FileNotFoundError for nothing.

    A device may have no end, and the read of a pipe may wait forever.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
        raise ValueError(f"expected a file, got a {kind}")
