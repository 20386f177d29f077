"""The cache folder: kernels and MXNet's operators, which are compiled on first use.

A file that no process has used for 90 days is removed when another one is written. The time of its
last use is its modification time, to a day. To remove a file that a process has loaded is safe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

_DAY = 24 * 60 * 60
#: The names of the files, for each with the days after which an unused one is removed. The folder
#: may have files of others.
_LIFETIMES = {"*-sm*-*.cubin": 90, "mxnet-operators-*.so": 90, "cvops-temporary-*": 1}
#: The beginning of the name of a file that is not complete.
TEMPORARY = "cvops-temporary-"


def folder() -> Path:
    """``CVOPS_CACHE_DIR``, or ``cvops`` in ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    own, base = os.environ.get("CVOPS_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    if own:
        return Path(own)
    # The XDG specification ignores a relative path.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cvops"


def has(file: Path) -> bool:
    """Report if a file is in the cache, and record that it is used."""
    if not file.exists():
        return False
    with contextlib.suppress(OSError):  # the folder may be read-only
        if time.time() - file.stat().st_mtime > _DAY:
            os.utime(file)
    return True


def put(made: Path, file: Path) -> None:
    """Move a complete file into the cache, so that no process sees half of it, and remove old ones.

    Several processes may make the same file.
    """
    os.replace(made, file)
    now = time.time()
    for pattern, days in _LIFETIMES.items():
        for old in file.parent.glob(pattern):
            with contextlib.suppress(OSError):  # another process may remove it now
                if now - old.stat().st_mtime > days * _DAY:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
