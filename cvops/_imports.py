"""Packages that the caller may have: their import, and the libraries in NVIDIA's wheels."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Callable


def when_imported(name: str, action: Callable[[Any], None]) -> None:
    """Call ``action`` with a module, now or right after the module is first executed."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watch(name, action))


class _Watch(MetaPathFinder):
    """Finds no module itself: it adds an action to the loader that the others find."""

    def __init__(self, name: str, action: Callable[[Any], None]):
        self._name, self._action = name, action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader = spec.loader if spec else None
        if loader is None:
            sys.meta_path.insert(0, self)
            return spec
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            try:
                execute(module)
            except BaseException:
                sys.meta_path.insert(0, self)  # for another try
                raise
            self._action(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def pip_command(*extras: str) -> str:
    """The shell command that installs extras of cvops for the running Python.

    MXNet's metadata asks for a NumPy before 2, which has no wheels for Python 3.13. There the extra
    has MXNet's other requirements, and MXNet itself is installed without its requirements.
    """
    command = f'pip install "cvops[{",".join(extras)}]"'
    if sys.version_info >= (3, 13):
        for extra in extras:
            if extra.startswith("mxnet"):
                command += f" && pip install --no-deps {extra}==1.9.1"
    return command


def wheel_folders(package: str) -> list[Path]:
    """The folders of NVIDIA's wheels with libraries, in the order of ``sys.path``.

    The user's folder of packages is there, and those of the environments below a layered one.

    Args:
        package: a folder below ``nvidia``, such as "cuda_nvrtc", or a pattern.
    """
    roots = [Path(entry, "nvidia") for entry in dict.fromkeys(sys.path)]
    return [folder for root in roots for folder in sorted(root.glob(f"{package}/lib"))]


@functools.lru_cache(None)
def load_nvrtc() -> Any:
    """``cupy.cuda.nvrtc``, after its library is loaded from the nvidia wheels if it lies there.

    CuPy 13 looks for it on the system only. Of several wheels the first on ``sys.path`` counts.
    """
    folders = [*wheel_folders("cuda_nvrtc"), *wheel_folders("cu13")]
    for folder in folders:
        # The compiler is the last, since it loads the built-in headers by their bare name.
        found = sorted(folder.glob("libnvrtc*.so*"), key=lambda file: "builtins" not in file.name)
        for file in found:
            if ".alt." not in file.name:
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    from cupy.cuda import nvrtc

    return nvrtc
