"""Optional packages: hooks into their import, and the libraries in the wheels of NVIDIA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

#: The extra of cvops that has an optional package; None for a package in no extra.
EXTRAS = {
    "PIL": "demo",
    "h5py": "pretrained",
    "imageio": "video",
    "jax": None,
    "matplotlib": "demo",
    "onnx": "onnx",
    "pyarrow": "ray",
    "pycocotools": "demo",
    "ray": "ray",
    "safetensors": "pretrained",
    "scipy": "demo",
    "skimage": "demo",
    "sklearn": "rcnn",
    "tensorboardX": "log",
    "tomli": "log",
    "torch": None,
    "torchvision": None,
    "tqdm": "demo",
}

#: Executes a module, which the import system has made.
Execute = Callable[[ModuleType], None]


class ImportHook(MetaPathFinder):
    """A finder that lets the finders after it find some modules, and controls their execution.

    Args:
        matches: selects modules by their full name.
        execute: gets the module, and the function that executes it.
    """

    def __init__(
        self, matches: Callable[[str], bool], execute: Callable[[ModuleType, Execute], None]
    ):
        self._matches, self._execute = matches, execute

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self._matches(name):
            return None
        later = itertools.dropwhile(lambda finder: finder is not self, list(sys.meta_path))
        next(later, None)
        specs = (finder.find_spec(name, path, target) for finder in later)
        spec = next(filter(None, specs), None)
        if spec and spec.loader:
            spec.loader = _HookedLoader(spec.loader, self._execute)
        return spec


class _HookedLoader(Loader):
    """A loader for one execution of a module, which then has its own loader again."""

    def __init__(self, loader: Any, execute: Callable[[ModuleType, Execute], None]):
        self._loader, self._execute = loader, execute

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._execute(module, self._loader.exec_module)


def when_imported(name: str, action: Callable[[Any], None]) -> None:
    """Call ``action`` with a module: now, or right after its first complete execution."""
    if name in sys.modules:
        action(sys.modules[name])
        return

    def execute(module: ModuleType, run: Execute) -> None:
        run(module)
        if hook in sys.meta_path:
            sys.meta_path.remove(hook)
        action(module)

    hook = ImportHook(name.__eq__, execute)
    sys.meta_path.insert(0, hook)


def pip_command(*extras: str) -> str:
    """Return the shell command that installs extras of cvops for the running Python.

    MXNet requires a NumPy before 2, which has no wheels for Python 3.13. There the extra has the
    other requirements of MXNet, and a second command installs MXNet without its requirements.
    """
    command = f'pip install "cvops[{",".join(extras)}]"'
    if sys.version_info >= (3, 13):
        for extra in extras:
            if extra.startswith("mxnet"):
                command += f" && pip install --no-deps {extra}==1.9.1"
    return command


def install_command(package: str) -> str:
    """Return the shell command that installs a package of ``EXTRAS``."""
    extra = EXTRAS[package]
    return f"pip install {package}" if extra is None else pip_command(extra)


@contextlib.contextmanager
def optional(purpose: str = "") -> Iterator[None]:
    """Import packages of ``EXTRAS``; the error of a missing one has the command that installs it.

    Args:
        purpose: the use of the package, for the message: "for videos".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        reason = f", {purpose}" if purpose else ""
        raise ModuleNotFoundError(
            f"No module named {error.name!r}{reason}: {install_command(package)}", name=error.name
        ) from error


def wheel_folders(package: str) -> list[Path]:
    """List the folders of libraries in NVIDIA's wheels, in the order of ``sys.path``.

    ``sys.path`` has the user's packages too, and the environments below a layered one.

    Args:
        package: a folder below ``nvidia``, such as "cuda_nvrtc", or a pattern.
    """
    roots = [Path(entry, "nvidia") for entry in dict.fromkeys(sys.path)]
    return [folder for root in roots for folder in sorted(root.glob(f"{package}/lib"))]


@functools.lru_cache(None)
def load_nvrtc() -> Any:
    """Return ``cupy.cuda.nvrtc``, after a load of its library from NVIDIA's wheels if they have it.

    CuPy 13 finds a library of the system only. The first wheel on ``sys.path`` has priority.
    """
    folders = [*wheel_folders("cuda_nvrtc"), *wheel_folders("cu13")]
    for folder in folders:
        # The compiler comes last: it loads the library of built-in headers by its bare name.
        found = sorted(folder.glob("libnvrtc*.so*"), key=lambda file: "builtins" not in file.name)
        for file in found:
            if ".alt." not in file.name:
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    from cupy.cuda import nvrtc

    return nvrtc
