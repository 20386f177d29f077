"""Our operators under the names of MXNet's."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from cvops._mxnet import graphs, register, replacements, switch
from cvops._mxnet.register import mx
from cvops._mxnet.switch import is_installed
from cvops.backends.operators import OPERATORS, Operator


class _Patch(NamedTuple):
    """A name in a module of MXNet, with MXNet's function and ours."""

    module: Any
    name: str
    #: None if this build of MXNet lacks the operator.
    theirs: Any
    ours: Any


#: The modules that get an operator of which this build of MXNet has no version.
_CONTRIB = (
    "mxnet.ndarray.contrib",
    "mxnet.symbol.contrib",
    "mxnet.contrib.ndarray",
    "mxnet.contrib.symbol",
)
#: The modules with functions of operators. Functions of other modules may have the same names, such
#: as the converters of ONNX.
_MODULES = (
    "mxnet.ndarray",
    "mxnet.symbol",
    "mxnet.numpy_extension",
    "mxnet.contrib.ndarray",
    "mxnet.contrib.symbol",
)

_lock = threading.RLock()
_patches: list[_Patch] = []


def install() -> None:
    """Replace MXNet's operators by ours under all of their names, until :func:`uninstall`.

    The names are in ``mx.nd.contrib``, ``mx.sym.contrib``, the older modules of ``mx.contrib``, and
    ``mx.npx``; ``ROIPooling`` is in ``mx.nd`` and ``mx.sym``. Blocks see them as ``F.contrib`` and
    ``F.npx``. Symbols that are loaded meanwhile, as by ``SymbolBlock.imports``, get our operators.
    ``mrcnn_mask_target`` is added to ``contrib`` of an MXNet for CPUs, which lacks it.

    MXNet's operators still compute arrays that are not dense, or not of float32 or float64, where
    few operators take float64 (:mod:`cvops.backends.operators`), hybridized blocks with inputs of
    another type, calls with numbers that only MXNet accepts (NaN), and arrays on a GPU if
    our operators have no kernels. A block keeps the operators of its first hybridized call as long
    as its inputs have the same types. A second call of this function has no effect. All threads see
    the change.
    """
    _change(wanted=True)


def uninstall() -> None:
    """Restore MXNet's operators. The call has no effect within :func:`installed`."""
    _change(wanted=False)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Install the operators for a block of code; such blocks may overlap, also in threads."""
    _change(opened=1)
    try:
        yield
    finally:
        _change(opened=-1)


def _change(wanted: bool | None = None, opened: int = 0) -> None:
    with _lock:
        before = is_installed()
        switch.change(wanted, opened)
        if is_installed() and not before:
            _patch()
        elif before and not is_installed():
            _restore()


def _patch() -> None:
    _patches[:] = _find()
    for patch in _patches:
        setattr(patch.module, patch.name, patch.ours)


def _restore() -> None:
    for patch in _patches:
        # A later wrapper of our function, such as AMP's, stays; our function then calls MXNet's.
        if getattr(patch.module, patch.name, None) is not patch.ours:
            continue
        if patch.theirs is None:
            delattr(patch.module, patch.name)
        else:
            setattr(patch.module, patch.name, patch.theirs)


def _loading_library(theirs: Any) -> Callable[..., Any]:
    """Wrap ``mx.library.load``, which makes all functions again: add ours again after it."""

    @functools.wraps(theirs)
    def load(*args: Any, **kwargs: Any) -> None:
        with _lock:
            try:
                theirs(*args, **kwargs)
            finally:
                register.register()
                if is_installed():
                    _restore()
                    _patch()

    return load


def _find() -> list[_Patch]:
    """Find each name in MXNet's modules of an operator that we have."""
    patches = []
    keep_graphs = replacements.only_on_the_cpu()
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(_MODULES) or ".gen_" in name:
            continue
        symbolic = ".symbol" in name
        if symbolic and keep_graphs:
            continue  # a new graph does not have a device yet
        make = replacements.for_symbols if symbolic else replacements.for_arrays
        for operator in OPERATORS:
            for key in _names(operator):
                theirs = vars(module).get(key)
                if callable(theirs):
                    patches.append(_Patch(module, key, theirs, make(name, operator, theirs)))
                elif key == operator.gpu_name and name in _CONTRIB:
                    patches.append(_Patch(module, key, None, replacements.added(name, operator)))
    for module in (mx.sym, mx.sym.symbol, mx.sym.numpy, mx.sym.numpy._symbol):
        for key in ("load", "load_json"):
            theirs = vars(module).get(key)
            if callable(theirs):
                patches.append(_Patch(module, key, theirs, graphs.loading(theirs)))
    block = mx.gluon.HybridBlock
    patches.append(
        _Patch(block, "_get_graph", block._get_graph, replacements.tracing_types(block._get_graph))
    )
    return patches


def _names(operator: Operator) -> list[str]:
    names = [name.replace("_contrib_", "") for name in operator.replaces]
    names += [operator.gpu_name] if operator.gpu_name else []
    return [*names, operator.npx_name] if operator.npx_name not in names else names


mx.library.load = _loading_library(mx.library.load)
