"""torchvision on our operators: its functions replaced, in all of its modules."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any, Callable

import torch
from torch import Tensor

from cvops._imports import optional
from cvops.torch import boxes, build, rois, suppression

#: Our functions for those of ``torchvision.ops`` that :func:`install` replaces.
_OURS: dict[str, Callable[..., Any]] = {
    "nms": suppression.nms,
    "batched_nms": suppression.batched_nms,
    "box_iou": boxes.box_iou,
    "generalized_box_iou": boxes.generalized_box_iou,
    "roi_align": rois.roi_align,
    "roi_pool": rois.roi_pool,
    "ps_roi_align": rois.ps_roi_align,
}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
#: torchvision's functions, by name; empty if they are in place.
_theirs: dict[str, Callable[..., Any]] = {}
#: (module, name, torchvision's function) of each replaced function.
_places: list[tuple[Any, str, Callable[..., Any]]] = []


def _is_ours(x: Any) -> bool:
    """Report if our operators compute an argument; other arguments than tensors are."""
    if isinstance(x, (list, tuple)):
        return all(map(_is_ours, x))
    if not isinstance(x, Tensor):
        return True
    if x.dtype not in _FLOATS or x.layout is not torch.strided:
        return False
    return x.device.type == "cpu" or (x.device.type == "cuda" and build.has_kernels())


def _replacement(name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
    ours = _OURS[name]
    known = inspect.signature(ours).parameters
    names = list(inspect.signature(theirs).parameters)

    @functools.wraps(theirs)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args)), **kwargs}
        # The classes of the boxes may have any dtype.
        ours_take_it = all(
            key in known and _is_ours(x) for key, x in given.items() if key != "idxs"
        )
        return ours(**given) if ours_take_it else theirs(*args, **kwargs)

    return call


def install() -> tuple[str, ...]:
    """Replace functions of ``torchvision.ops``, in all modules of torchvision; return their names.

    torchvision's detection models then run on our operators, and so does other code that calls
    ``torchvision.ops``. Tensors that our operators do not take, such as integers, and other
    functions stay torchvision's. A second call changes nothing. Code that has imported a function
    by its name before, outside of torchvision, keeps it.

    Raises:
        ImportError: torchvision is not installed.
    """
    if not _theirs:
        with optional():
            ops = importlib.import_module("torchvision.ops")
        replacements = {}
        for name in _OURS:
            _theirs[name] = getattr(ops, name)
            replacements[_theirs[name]] = _replacement(name, _theirs[name])
        for key, module in list(sys.modules.items()):
            if key.partition(".")[0] != "torchvision":
                continue
            for name, x in list(vars(module).items()):
                if inspect.isfunction(x) and x in replacements:
                    setattr(module, name, replacements[x])
                    _places.append((module, name, x))
    return tuple(_OURS)


def uninstall() -> None:
    """Put torchvision's functions back. Without :func:`install` it does nothing."""
    for module, name, theirs in _places:
        setattr(module, name, theirs)
    _places.clear()
    _theirs.clear()


@contextlib.contextmanager
def installed() -> Iterator[tuple[str, ...]]:
    """Run a block with :func:`install`; then restore the state before it."""
    before = bool(_theirs)
    try:
        yield install()
    finally:
        if not before:
            uninstall()
