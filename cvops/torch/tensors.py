"""The checks of the arguments of the functions of torchvision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: The expected value of each type in a schema of PyTorch, for messages.
_EXPECTED = {
    "bool": "True or False",
    "float": "a number",
    "int": "an integer",
    "str": "a word",
    "List[int]": "integers",
    "Optional[float]": "a number or None",
}
_WRONG_TYPE = re.compile(r"Expected a value of type '([^']*)' for argument '(\w+)'")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def tensor(name: str, x: Any) -> Tensor:
    """Return a tensor; refuse anything else."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    return x


def is_number(x: Any) -> bool:
    """Report if ``x`` is a number of Python, NumPy or PyTorch. A traced one has no attributes."""
    return torch.compiler.is_compiling() or hasattr(x, "__float__")


def floats(name: str, x: Any, doubles: bool = False) -> Tensor:
    """Return a tensor of floats as float32; one of float64 as it is, if ``doubles``."""
    tensor(name, x)
    if doubles and x.dtype == torch.float64:
        return x
    if x.dtype not in FLOATS:
        known = "float32, float64, float16" if doubles else "float32, float16"
        raise TypeError(
            f"{name}: expected {known} or bfloat16, got {x.dtype}: convert it by .to(torch.float32)"
        )
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def check(name: str, x: Any, shape: str, *sizes: int | None, doubles: bool = True) -> Tensor:
    """Return a tensor of that shape, as :func:`floats`; a size of None is any size."""
    y = floats(name, x, doubles)
    got = x.shape
    if len(got) == len(sizes):
        for want, size in zip(sizes, got):
            if want is not None and want != size:
                break
        else:
            return y
    raise ValueError(f"{name}: expected shape {shape}, got {tuple(got)}")


def call(operator: Any, names: Mapping[str, str], *args: Any, **kwargs: Any) -> Any:
    """Call an operator; its errors name the arguments of the caller.

    Args:
        operator: ``torch.ops.cvops.<name>``.
        names: the names of the caller's arguments, by those of the operator if they differ.
        args: the arguments of the operator.
        kwargs: its options.
    """
    try:
        return operator(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        message = str(error)
        wrong_type = _WRONG_TYPE.search(message)
        if wrong_type:
            kind, name = wrong_type.groups()
            declared = [x.name for x in operator.default._schema.arguments]
            value = {**dict(zip(declared, args)), **kwargs}[name]
            want = _EXPECTED.get(kind, kind)
            message = f"{names.get(name, name)}: expected {want}, got {value!r}"
            raise TypeError(message) from None
        if isinstance(error, RuntimeError):
            raise
        for name, given in names.items():
            message = re.sub(rf"\b{name}\b", given, message)
        raise type(error)(re.sub(r"^cvops::\w+: ", "", message)) from None
