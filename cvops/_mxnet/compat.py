"""The import of MXNet, here and in the caller's code.

MXNet 1.9.1, its last release, reads names that NumPy and Python have removed since. NumPy itself
stays unchanged: the modules of MXNet and GluonCV execute with an ``__import__`` of their own, which
returns NumPy with the old names added.

``import cvops`` adds a hook for these two packages to ``sys.meta_path``. The hook does not affect
other packages.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import inspect
import itertools
import re
import sys
import types
import warnings
from typing import Any, NoReturn

import numpy as np

from cvops._imports import Execute, ImportHook, pip_command
from cvops._mxnet import cuda11

#: The old packages. GluonCV reads the same names as MXNet.
_OLD = ("mxnet", "gluoncv")

#: Names that the old packages read, and that NumPy has removed or deprecated.
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
    """NumPy with the names that the old packages read."""

    def __init__(self) -> None:
        super().__init__("numpy")
        vars(self).update(vars(np))
        vars(self).pop("__getattr__", None)  # NumPy's own has priority over the method

    def __getattr__(self, name: str) -> Any:
        with warnings.catch_warnings():  # a deprecated name warns
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
    """A replacement for the classes of distutils.version, which Python 3.12 removed."""

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
    """Replace ``__import__`` in the modules of the old packages."""
    if level == 0 and name in _PROVIDED:
        return _PROVIDED[name]
    return builtins.__import__(name, globals, locals, fromlist, level)


def _execute(module: types.ModuleType, run: Execute) -> None:
    """Execute a module of an old package."""
    if module.__name__ == "mxnet":
        # Submodules remain from an import that failed before the hook was there.
        for name in [name for name in sys.modules if name.startswith("mxnet.")]:
            del sys.modules[name]
        cuda11.preload_for_mxnet()
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
    with warnings.catch_warnings():  # invalid escapes in the sources, among others
        warnings.simplefilter("ignore")
        run(module)
    if module.__name__ == "mxnet":
        _patch(module)


_hook = ImportHook(lambda name: name.partition(".")[0] in _OLD, _execute)


def find_old_packages() -> None:
    """Make the old packages importable from now on, also in the caller's code."""
    if _hook not in sys.meta_path:
        sys.meta_path.insert(0, _hook)


@functools.cache
def _patch(mxnet: Any) -> None:
    """Patch MXNet once."""
    _patch_recordio(mxnet.recordio)
    _patch_sparse(mxnet.ndarray.sparse, mxnet.ndarray.utils)


def _patch_recordio(recordio: types.ModuleType) -> None:
    """Replace ndarray.tostring, which NumPy 2.3 removed, by tobytes."""
    for function in (recordio.pack, recordio.pack_img):
        source = inspect.getsource(function).replace(".tostring()", ".tobytes()")
        exec(compile(source, "<cvops: mxnet.recordio>", "exec"), vars(recordio))


def _patch_sparse(*modules: Any) -> None:
    """Set csr_matrix under the name that MXNet reads; SciPy 1.8 moved it, and warns.

    Each ``nd.array`` reads it, to detect a matrix of SciPy.
    """
    for module in modules:
        if module.spsp is not None:  # None: SciPy is not installed
            names = {name: getattr(module.spsp, name) for name in ("csr_matrix", "coo_matrix")}
            csr = types.SimpleNamespace(csr_matrix=names["csr_matrix"])
            module.spsp = types.SimpleNamespace(csr=csr, **names)


@functools.cache
def mxnet() -> Any:
    """Return the module ``mxnet``; the first call imports it.

    The import has no warnings on Python 3.9 to 3.13 and NumPy 1.22 to 2.x. An MXNet that the caller
    imported before cvops stays as it is, except for the patches. The GPU wheel (mxnet-cu112) finds
    the CUDA libraries of the ``nvidia-*-cu11`` packages without an environment variable.

    Raises:
        ModuleNotFoundError: MXNet is not installed.
        ImportError: the GPU wheel lacks libraries; the message has the packages to install.
    """
    if "mxnet" not in sys.modules:
        if importlib.util.find_spec("mxnet") is None:
            raise ModuleNotFoundError(f"No module named 'mxnet': {pip_command('mxnet')}")
        find_old_packages()
    module = importlib.import_module("mxnet")
    _patch(module)
    return module
