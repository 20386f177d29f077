"""The operators as ``torch.ops.cvops.<name>``: their definitions, shapes, and rule for vmap."""

from __future__ import annotations

import ctypes
import functools
import inspect
from typing import Any

import numpy as np
import torch

import cvops
from cvops._imports import when_imported
from cvops.arrays.shapes import Shaped
from cvops.backends.operators import OPERATORS, Operator
from cvops.ops._results import ALL_RESULTS, shapes_of
from cvops.torch import build


def define() -> None:
    """Define the operators.

    Raises:
        ImportError: the adapter cannot be built, or does not know an operator.
    """
    function = build.library().cvops_define
    function.restype = ctypes.c_char_p
    for operator in OPERATORS:
        options = [name for name in operator.options if name not in ALL_RESULTS]
        names = (operator.name, operator.npx_name, ",".join(options))
        error = function(*(name.encode() for name in names), len(operator.optional))
        if error is not None:
            raise ImportError(f"cvops.torch cannot define {operator.npx_name}: {error.decode()}")
        _add_shapes(operator)
    build.library().cvops_define_nms()
    when_imported("torch._dynamo", lambda _: _substitute())


def _add_shapes(operator: Operator) -> None:
    name = operator.npx_name
    packet = getattr(torch.ops.cvops, name).default
    arguments = packet._schema.arguments

    # Anchors are computed from the height and the width as numbers.
    axes = functools.partial(map, int) if name == "multibox_prior" else iter

    def shapes(*args: Any, **kwargs: Any) -> Any:
        given = {argument.name: x for argument, x in zip(arguments, args)} | kwargs
        tensors = [x for x in given.values() if isinstance(x, torch.Tensor)]
        shaped = {
            key: Shaped(tuple(axes(x.shape)), x.dtype) if isinstance(x, torch.Tensor) else x
            for key, x in given.items()
        }
        found = shapes_of(getattr(cvops, name), shaped)
        made = [_empty(x, tensors[0].device) for x in found]
        return made[0] if len(made) == 1 else tuple(made)

    torch.library.register_fake(packet, shapes)
    torch.library.register_vmap(packet, _vmap(packet))
    backward = getattr(torch.ops.cvops, f"_{name}_backward", None)
    if backward is not None:
        gradients = backward.default
        names = [argument.name for argument in gradients._schema.arguments]
        places = [names.index(x.name[: -len("_grad")]) for x in gradients._schema.returns]

        def shapes_of_gradients(*args: Any) -> Any:
            made = [
                # An input that the options omit has a gradient without elements.
                args[0].new_empty(0)
                if args[i] is None
                else torch.empty_like(args[i], memory_format=torch.contiguous_format)
                for i in places
            ]
            return made[0] if len(made) == 1 else tuple(made)

        torch.library.register_fake(gradients, shapes_of_gradients)
        torch.library.register_vmap(gradients, _vmap(gradients))


def _substitute() -> None:
    """Let ``torch.compile`` put the operators into its graphs, in the place of our functions."""
    for operator in OPERATORS:
        public = getattr(cvops, operator.npx_name)
        for mark in ("_torchdynamo_disable", "_torchdynamo_disable_msg"):
            vars(public).pop(mark, None)
        substitute = torch.compiler.substitute_in_graph(public, skip_signature_check=True)
        substitute(_in_graph(operator, public))


def _in_graph(operator: Operator, public: Any) -> Any:
    """Return the function that the tracer inlines for a call of ``public``."""
    packet = getattr(torch.ops.cvops, operator.npx_name)
    parameters = list(inspect.signature(public).parameters)
    extra = next((key for key in ALL_RESULTS if key in parameters), "")
    place = parameters.index(extra) if extra else len(parameters)

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("backend", None)  # all backends give the same bits
        wants_all = kwargs.pop(extra, False) or args[place : place + 1] == (True,)
        out = packet(*args[:place], *args[place + 1 :], **kwargs)
        return out[0] if extra and not wants_all else out

    return call


def _as_list(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _empty(x: Shaped, device: torch.device) -> torch.Tensor:
    dtype = x.dtype  # of PyTorch if it is that of an argument
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(torch, np.dtype(dtype).name)
    return torch.empty(x.shape, dtype=dtype, device=device)


def _vmap(packet: Any) -> Any:
    """Return a rule that calls the operator once for each entry of the batch."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
        def entry(i: int) -> list[Any]:
            # The batch axis of an option is None, or a list of None.
            return [x.select(dim, i) if type(dim) is int else x for x, dim in zip(args, in_dims)]

        rows = [_as_list(packet(*entry(i), **kwargs)) for i in range(info.batch_size)]
        made = [torch.stack(parts) for parts in zip(*rows)]
        return (made[0], 0) if len(made) == 1 else (tuple(made), (0,) * len(made))

    return rule
