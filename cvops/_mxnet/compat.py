"""The import of MXNet, here and in the caller's code.

MXNet 1.9.1, its last release, was written against NumPy 1.16 and Python 3.8, and
reads at import names that both have since dropped. Nothing of that needs to touch
NumPy itself: the modules of MXNet, and of GluonCV when it comes after, are loaded
with an ``import`` of their own, which hands them NumPy with the old names added.

``import cvops`` adds a finder for these two packages to ``sys.meta_path``. It costs
nothing until one of them is imported, and leaves all other packages alone.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import itertools
import re
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from cvops._imports import pip_command
from cvops._mxnet import cuda11

#: The packages that are imported so: GluonCV is of the same time, and reads the same names.
_OLD = ("mxnet", "gluoncv")

#: What they read from NumPy and NumPy no longer has, or will not for long.
_CONSTANTS = {
    "bool": np.bool_,
    "int": int,
    "float": float,
    "object": object,
    "Inf": np.inf,
    "PINF": np.inf,
    "NINF": -np.inf,
    "PZERO": 0.0,
    "NZERO": -0.0,
    "NAN": np.nan,
    "NaN": np.nan,
    "compat": types.SimpleNamespace(basestring=str),
}
_RENAMED = {
    "alltrue": "all",
    "cumproduct": "cumprod",
    "in1d": "isin",
    "product": "prod",
    "round_": "round",
    "row_stack": "vstack",
    "sometrue": "any",
    "trapz": "trapezoid",
}
_GONE = {"mirr", "msort", "npv", "pmt", "ppmt", "pv", "rate"}


class _OldNumPy(types.ModuleType):
    """NumPy, with the names that code of MXNet's time expects of it."""

    def __init__(self) -> None:
        super().__init__("numpy")
        vars(self).update(vars(np))
        vars(self).pop("__getattr__", None)  # NumPy's own would come before the one below

    def __getattr__(self, name: str) -> Any:
        with warnings.catch_warnings():  # a name on its way out warns
            warnings.simplefilter("ignore")
            if hasattr(np, name):
                value = getattr(np, name)
            elif name in _CONSTANTS:
                value = _CONSTANTS[name]
            elif name in _RENAMED:
                value = getattr(np, _RENAMED[name])
            elif name in _GONE:
                value = functools.partial(_gone, name)
            else:
                raise AttributeError(f"module 'numpy' has no attribute {name!r}")
        setattr(self, name, value)
        return value


def _gone(name: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(f"NumPy {np.__version__} has no numpy.{name}")


@functools.total_ordering
class _Version:
    """Stands in for the two classes of distutils.version, which Python 3.12 dropped."""

    def __init__(self, text: str) -> None:
        leading = itertools.takewhile(str.isdigit, re.split(r"[.+-]", text))
        self.numbers = [int(part) for part in leading]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Version) and self.numbers == other.numbers

    def __lt__(self, other: _Version) -> bool:
        return self.numbers < other.numbers


_PROVIDED: dict[str, Any] = {
    "numpy": _OldNumPy(),
    "distutils.version": types.SimpleNamespace(LooseVersion=_Version, StrictVersion=_Version),
}


def _import(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> Any:
    """``__import__`` as those modules see it."""
    if level == 0 and name in _PROVIDED:
        return _PROVIDED[name]
    return builtins.__import__(name, globals, locals, fromlist, level)


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "mxnet":
            # Submodules may remain from an import that failed before this loader was there.
            for name in [name for name in sys.modules if name.startswith("mxnet.")]:
                del sys.modules[name]
            cuda11.preload_for_mxnet()
        self._execute(module)
        if module.__name__ == "mxnet":
            _cure(module)

    def _execute(self, module: types.ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        with warnings.catch_warnings():  # of invalid escapes in its source, among others
            warnings.simplefilter("ignore")
            super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in _OLD:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def find_old_packages() -> None:
    """Let the packages of MXNet's time import from now on, whoever imports them."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _cure(mxnet: Any) -> None:
    _cure_recordio(mxnet.recordio)
    _cure_sparse(mxnet.ndarray.sparse, mxnet.ndarray.utils)


def _cure_recordio(recordio: types.ModuleType) -> None:
    """Replace ndarray.tostring, gone from NumPy 2.3 and a warning before, by tobytes."""
    for function in (recordio.pack, recordio.pack_img):
        source = inspect.getsource(function).replace(".tostring()", ".tobytes()")
        exec(compile(source, "<cvops: mxnet.recordio>", "exec"), vars(recordio))


def _cure_sparse(*modules: Any) -> None:
    """Give them csr_matrix where they look for it; SciPy 1.8 moved it, and warns since.

    They look on every ``nd.array``, to see whether a SciPy matrix was given.
    """
    for module in modules:
        if module.spsp is not None:  # None: no SciPy here
            names = {name: getattr(module.spsp, name) for name in ("csr_matrix", "coo_matrix")}
            csr = types.SimpleNamespace(csr_matrix=names["csr_matrix"])
            module.spsp = types.SimpleNamespace(csr=csr, **names)


@functools.cache
def mxnet() -> Any:
    """The module ``mxnet``, imported when first asked for.

    It imports without a warning on Python 3.9 to 3.13 and NumPy 1.22 to 2.x. An
    MXNet that was imported before cvops is taken as it is. The GPU wheel
    (mxnet-cu112) finds the CUDA libraries of the ``nvidia-*-cu11`` packages without
    an environment variable.

    Raises:
        ModuleNotFoundError: MXNet is not installed.
        ImportError: it is the GPU wheel, and libraries that it needs are missing: which,
            and the packages that have them.
    """
    if "mxnet" not in sys.modules:
        if importlib.util.find_spec("mxnet") is None:
            raise ModuleNotFoundError(f"No module named 'mxnet': {pip_command('mxnet')}")
        find_old_packages()
    module = importlib.import_module("mxnet")
    if not isinstance(module.__loader__, _Loader):
        _cure(module)
    return module
