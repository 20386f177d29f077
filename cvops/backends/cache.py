"""The cache folder: kernels and the operators of the frameworks, which are compiled on first use.

The process runs the files of this folder. A file of another user, or one that others can write, is
therefore not loaded. The name of a file has the hash of its content: a broken file is compiled
again.

A file that no process has used for 90 days is removed when another one is written. The time of its
last use is its modification time, to a day. To remove a file that a process has loaded is safe.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

_DAY = 24 * 60 * 60
#: The names of the files, for each with the days after which an unused one is removed. The folder
#: may have files of others.
_LIFETIMES = {
    "*-sm*-*.cubin": 90,
    "mxnet-operators-*.so": 90,
    "torch-operators-*.so": 90,
    "jax-operators-*.so": 90,
    "cvops-temporary-*": 1,
}
#: The beginning of the name of a file that is not complete.
_TEMPORARY = "cvops-temporary-"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
#: The free space in bytes that a compilation needs.
_SPACE = 64 << 20


def folder() -> Path:
    """``CVOPS_CACHE_DIR``, or ``cvops`` in ``XDG_CACHE_HOME``, by default ``~/.cache``.

    It is a folder for temporary files, with a warning, if the user has no home folder.
    """
    own, base = os.environ.get("CVOPS_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own)
    if os.path.isabs(base):  # the XDG specification ignores a relative path
        return Path(base) / "cvops"
    home = os.path.expanduser("~")
    if os.path.isabs(home) and home != "/":
        return Path(home) / ".cache" / "cvops"
    temporary = Path(tempfile.gettempdir()) / f"cvops-{os.geteuid()}"
    warnings.warn(
        f"the user has no home folder: cvops keeps its compiled files in {temporary}. The "
        "environment variable CVOPS_CACHE_DIR names another folder",
        RuntimeWarning,
        stacklevel=2,
    )
    return temporary


def _is_foreign(info: os.stat_result) -> bool:
    """Report if the owner is neither this user nor root."""
    return info.st_uid not in (os.geteuid(), 0)


def _check_folder(path: Path) -> None:
    """Refuse a folder that other users can write; take the right to write from them if we can."""
    info = path.stat()
    if not _is_foreign(info):
        if not info.st_mode & _OTHERS_WRITE:
            return
        if info.st_uid == os.geteuid() and not info.st_mode & stat.S_ISVTX:
            path.chmod(stat.S_IMODE(info.st_mode) & ~_OTHERS_WRITE)
            return
    raise PermissionError(errno.EACCES, "another user owns it or can write to it")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the cache folder in errors of the operating system."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"the cache folder {path} cannot be used ({reason}): name another folder in the "
        raise type(error)(error.errno, text + "environment variable CVOPS_CACHE_DIR") from error


class Entry:
    """A compiled file in the cache folder.

    ``key`` has everything that determines the content, such as the text of the sources.
    """

    def __init__(self, name: str, key: Iterable[str], suffix: str):
        digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
        self.folder = folder()
        self._stem, self._suffix = f"{name}-{digest}", suffix

    def find(self) -> Path | None:
        """Return the file, and record that it is used; None if there is no whole file of ours.

        Raises:
            PermissionError: other users can write to the folder.
        """
        with _named(self.folder):
            if not self.folder.is_dir():
                return None
            _check_folder(self.folder)
        for file in sorted(self.folder.glob(f"{self._stem}-*{self._suffix}")):
            with contextlib.suppress(OSError):  # another process may remove it now
                info = file.lstat()
                if not stat.S_ISREG(info.st_mode) or _is_foreign(info):
                    continue
                if info.st_mode & _OTHERS_WRITE:
                    continue
                if file.name != self._name(file.read_bytes()):
                    file.unlink()
                    continue
                with contextlib.suppress(OSError):  # the folder may be read-only
                    if time.time() - info.st_mtime > _DAY:
                        os.utime(file)
                return file
        return None

    def _name(self, content: bytes) -> str:
        return f"{self._stem}-{hashlib.sha256(content).hexdigest()[:24]}{self._suffix}"

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        """Make a folder for the compilation, on the disk of the cache, and remove it at the end.

        Raises:
            OSError: the cache folder cannot be written, or its disk is full.
        """
        with _named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_folder(self.folder)
            free = shutil.disk_usage(self.folder).free
            if free < _SPACE:
                text = f"expected {_SPACE >> 20} MiB of free space, got {free >> 20}"
                raise OSError(errno.ENOSPC, text)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=_TEMPORARY) as made:
                yield Path(made)

    def add(self, made: Path) -> Path:
        """Move a complete file into the cache, and remove old files; return its path.

        No process sees half of the file. Several processes may make the same file.
        """
        file = self.folder / self._name(made.read_bytes())
        made.chmod(stat.S_IMODE(made.stat().st_mode) & ~_OTHERS_WRITE)
        os.replace(made, file)
        now = time.time()
        for pattern, days in _LIFETIMES.items():
            for old in self.folder.glob(pattern):
                with contextlib.suppress(OSError):  # another process may remove it now
                    if now - old.stat().st_mtime > days * _DAY:
                        shutil.rmtree(old) if old.is_dir() else old.unlink()
        return file
