"""The checks that the content of a checkpoint fits a network, its trainer and the generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from cvops._mxnet import mxnet

mx = mxnet()

#: The number of 32-bit words of the generators' states.
_WORDS = 624


def check_parameters(saved: dict[str, np.ndarray], parameters: Any) -> None:
    """Raise a ValueError if arrays are not those of a network's parameters."""
    for name in sorted(parameters.keys() ^ saved.keys()):
        lacks = "the network" if name in saved else "the checkpoint"
        raise ValueError(f"{lacks} has no parameter {name}")
    for name, parameter in parameters.items():
        theirs, ours = saved[name].shape, parameter.shape
        if len(theirs) == 0 or theirs[0] == 0:
            raise ValueError(f"parameter {name}: expected values, got shape {theirs}")
        if not _fits(theirs[1:], ours) or saved[name].dtype != np.dtype(parameter.dtype):
            raise ValueError(
                f"parameter {name}: expected {np.dtype(parameter.dtype)} {ours}, "
                f"got {saved[name].dtype} {theirs[1:]}"
            )


def check_optimizer(
    content: dict[str, Any],
    arrays: dict[str, np.ndarray],
    trainer: Any,
    names: list[str],
    saved: dict[str, np.ndarray],
) -> None:
    """Raise a ValueError if the optimizer and the schedule are not those of ``trainer``."""
    optimizer = trainer._optimizer
    schedule = optimizer.lr_scheduler
    for part, owner in (("optimizer", optimizer), ("schedule", schedule)):
        if content[part] != type(owner).__name__:
            raise ValueError(f"{part}: expected {type(owner).__name__}, got {content[part]}")
    known = numbers(optimizer)
    for name in sorted(known.keys() - content["optimizer numbers"].keys()):
        raise ValueError(f"optimizer: expected the number {name}, got none")
    for name, value in content["optimizer numbers"].items():
        if name not in known and hasattr(optimizer, name):
            raise ValueError(f"optimizer: expected numbers, got an attribute {name}")
        if value is not None and not isinstance(value, (int, float)):
            raise ValueError(f"optimizer: {name}: expected a number, got {value!r}")
    for part in ("optimizer counts", "optimizer states"):
        for name in sorted(content[part].keys() - set(names)):
            raise ValueError(f"the trainer has no parameter {name}")
    for name, count in content["optimizer counts"].items():
        if type(count) is not int or not 0 <= count < 2**31:
            raise ValueError(f"optimizer: expected a count of {name}, got {count!r}")
    for name, state in content["optimizer states"].items():
        weight = mx.nd.zeros(saved[name].shape[1:], dtype=saved[name].dtype)
        fresh = optimizer.create_state_multi_precision(names.index(name), weight)
        _check_state(f"optimizer state of {name}", state, fresh, arrays)
    attributes = getattr(schedule, "__dict__", {})
    if content["schedule state"].keys() != attributes.keys():
        expected, got = sorted(attributes), sorted(content["schedule state"])
        raise ValueError(f"schedule: expected {expected}, got {got}")
    for name, value in content["schedule state"].items():
        kinds = {_kind(attributes[name]), _kind(value)}
        if len(kinds) > 1:
            raise ValueError(f"schedule: {name}: expected {attributes[name]!r}, got {value!r}")


def _kind(value: Any) -> type:
    """Return a type that JSON keeps."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float
    return list if isinstance(value, tuple) else type(value)


def _check_state(name: str, value: Any, fresh: Any, arrays: dict[str, np.ndarray]) -> None:
    """Refuse a state that has another structure, or an array of another shape, than a new one."""
    if isinstance(fresh, (tuple, list)):
        if not isinstance(value, list) or len(value) != len(fresh):
            raise ValueError(f"{name}: expected {len(fresh)} states, got {value!r}")
        for i, (part, new) in enumerate(zip(value, fresh)):
            _check_state(f"{name}[{i}]", part, new, arrays)
    elif fresh is None or value is None:
        if fresh is not value:
            raise ValueError(f"{name}: expected {'no' if fresh is None else 'an'} array")
    else:
        array = arrays.get(value) if isinstance(value, str) else None
        if array is None:
            raise ValueError(f"{name}: expected the name of an array, got {value!r}")
        if array.shape != fresh.shape or array.dtype != fresh.dtype:
            raise ValueError(
                f"{name}: expected {np.dtype(fresh.dtype)} {fresh.shape}, "
                f"got {array.dtype} {array.shape}"
            )


def check_generators(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raise a ValueError if the states of the random generators have no use."""
    try:
        version, internal, gauss = content["random"]
        random.Random().setstate((version, tuple(internal), gauss))
        if not (gauss is None or isinstance(gauss, float)):
            raise ValueError(gauss)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"random: expected a state, got one that has no use: {error}") from error
    words = arrays.get("numpy.random")
    if words is None or words.shape != (_WORDS,) or words.dtype != np.uint32:
        raise ValueError(f"numpy.random: expected uint32 ({_WORDS},), got {words!r}")
    algorithm, *rest = content["numpy.random"]
    fits = algorithm == "MT19937" and list(map(type, rest)) == [int, int, float]
    if not (fits and 0 <= rest[0] <= _WORDS and rest[1] in (0, 1)):
        raise ValueError(f"numpy.random: expected a state of MT19937, got {algorithm!r}, {rest}")


def numbers(optimizer: Any) -> dict[str, float | None]:
    """Return the attributes of an optimizer that are numbers."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if value is None or isinstance(value, (int, float))
    }


def _fits(shape: tuple[int, ...], known: tuple[int, ...]) -> bool:
    """Compare ``shape`` with a partly known one, whose unknown sizes are 0 or -1."""
    return len(shape) == len(known) and all(k in (n, 0, -1) for n, k in zip(shape, known))
