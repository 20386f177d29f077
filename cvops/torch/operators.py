"""The operators as ``torch.ops.cvops.<name>``: their definitions, shapes, and rule for vmap."""

from __future__ import annotations

import ctypes
import inspect
from typing import Any

import numpy as np
import torch

import cvops
from cvops.arrays.shapes import Shaped
from cvops.backends.operators import OPERATORS, Operator
from cvops.torch import build

#: The arguments that ask for all results of an op, as the operators return them.
_ALL_RESULTS = ("return_index", "return_argmax", "output_score")


def define() -> None:
    """Define the operators.

    Raises:
        ImportError: the adapter cannot be built, or does not know an operator.
    """
    function = build.library().cvops_define
    function.restype = ctypes.c_char_p
    for operator in OPERATORS:
        options = [name for name in operator.options if name not in _ALL_RESULTS]
        names = (operator.name, operator.npx_name, ",".join(options))
        error = function(*(name.encode() for name in names), len(operator.optional))
        if error is not None:
            raise ImportError(f"cvops.torch cannot define {operator.npx_name}: {error.decode()}")
        _add_shapes(operator)


def _add_shapes(operator: Operator) -> None:
    name = operator.npx_name
    packet = getattr(torch.ops.cvops, name).default
    public = getattr(cvops, name)
    extra = {key: True for key in _ALL_RESULTS if key in inspect.signature(public).parameters}
    arguments = packet._schema.arguments

    def shapes(*args: Any, **kwargs: Any) -> Any:
        given = {argument.name: x for argument, x in zip(arguments, args)} | kwargs
        tensors = [x for x in given.values() if isinstance(x, torch.Tensor)]
        shaped = {
            key: Shaped(tuple(x.shape), x.dtype) if isinstance(x, torch.Tensor) else x
            for key, x in given.items()
            if x is not None
        }
        found = public(**shaped, **extra)
        made = [_empty(x, tensors[0].device) for x in _as_list(found)]
        return made[0] if len(made) == 1 else tuple(made)

    torch.library.register_fake(packet, shapes)
    torch.library.register_vmap(packet, _vmap(packet))
    backward = getattr(torch.ops.cvops, f"_{name}_backward", None)
    if backward is not None:
        gradients = backward.default
        names = [argument.name for argument in gradients._schema.arguments]
        places = [names.index(x.name[: -len("_grad")]) for x in gradients._schema.returns]

        def shapes_of_gradients(*args: Any) -> Any:
            made = [torch.empty_like(args[i], memory_format=torch.contiguous_format) for i in places]
            return made[0] if len(made) == 1 else tuple(made)

        torch.library.register_fake(gradients, shapes_of_gradients)
        torch.library.register_vmap(gradients, _vmap(gradients))


def _as_list(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _empty(x: Shaped, device: torch.device) -> torch.Tensor:
    return torch.empty(x.shape, dtype=getattr(torch, np.dtype(x.dtype).name), device=device)


def _vmap(packet: Any) -> Any:
    """Return a rule that calls the operator once for each entry of the batch."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        def entry(i: int) -> list[Any]:
            return [x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims)]

        rows = [_as_list(packet(*entry(i))) for i in range(info.batch_size)]
        made = [torch.stack(parts) for parts in zip(*rows)]
        return (made[0], 0) if len(made) == 1 else (tuple(made), (0,) * len(made))

    return rule
