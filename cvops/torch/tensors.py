"""The checks of the tensors of the functions of torchvision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def tensor(name: str, x: Any) -> Tensor:
    """Return a tensor; refuse anything else."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    return x


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
