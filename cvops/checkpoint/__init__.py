"""Checkpoints: stop a training in Gluon and resume it with the same result.

A checkpoint is one file, a zip of plain arrays (``.npy``) and ``checkpoint.json``. It has no
pickle, so reading one never runs code from the file. It contains

- all parameters, including running means, by their structural names (those of
  ``save_parameters``), which do not depend on Gluon's block numbers in a process;
- the optimizer: its arrays (for example momenta), its update counts, its numbers (including the
  learning rate) and the position of its learning-rate schedule;
- the states of ``random`` and ``numpy.random``;
- the caller's state: counters of epochs and steps, losses.

MXNet does not return the state of ``mx.random``, and iterators do not return their positions.
Therefore save checkpoints between epochs, and begin each epoch with ``seed_all``::

    first = checkpoint.load(path, net, trainer)["epoch"] if path.exists() else 0
    for epoch in range(first, epochs):
        checkpoint.seed_all(seed, epoch)
        ...
        checkpoint.save(path, net, trainer, epoch=epoch + 1)

Then a resumed run has the same bits as an uninterrupted run.

In a training of several processes (``cvops.distributed``) one process saves, and all load the file.
The trainer needs ``update_on_kvstore=False``. MXNet's default keeps the optimizer's states on the
servers, which do not return them.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from cvops._files import check_writable
from cvops._mxnet import mxnet
from cvops.checkpoint import _checks, _file
from cvops.checkpoint._file import CheckpointError as CheckpointError
from cvops.distributed import share_parameters
from cvops.ops._check import integer

mx = mxnet()


def seed_all(seed: int, epoch: int) -> None:
    """Seed ``random``, ``numpy.random`` and ``mx.random`` by ``seed`` and ``epoch`` (0 or more)."""
    seed, epoch = integer("seed", seed, -(2**63), 2**64), integer("epoch", epoch, 0)
    numbers = np.random.SeedSequence((seed % 2**64, epoch)).generate_state(3)
    for generator, number in zip((random.seed, np.random.seed, mx.random.seed), numbers):
        generator(int(number) >> 1)  # MXNet accepts 31 bits


def save(path: str | Path, net: Any, trainer: Any, **state: Any) -> None:
    """Write a checkpoint to the file ``path`` atomically.

    The file is written as ``path`` + ".part", flushed to the disk and renamed. If the process or
    the machine stops at any time, ``path`` is either the previous checkpoint or the new one.

    Args:
        path: file to write.
        net: a Gluon block with initialized parameters of known shapes.
        trainer: the ``gluon.Trainer`` of parameters of ``net``.
        state: the caller's state, as JSON has it: numbers, strings, lists, dicts.

    Raises:
        ValueError: a parameter of the trainer is not in ``net``, or the states of its optimizer are
            on the servers of a distributed kvstore.
        TypeError: ``state``, or an attribute of the learning-rate schedule, is not JSON.
        OSError: the file cannot be written.
    """
    _check_local(trainer)
    mx.nd.waitall()  # a static graph writes running means without the engine's dependencies
    arrays = {}
    for name, parameter in net._collect_params_with_prefix().items():
        # Each device has its own running means. Trained parameters are equal on all devices.
        copies = parameter.list_data()[: None if parameter.grad_req == "null" else 1]
        arrays[f"parameters/{name}"] = np.stack([copy.asnumpy() for copy in copies])

    names = _trained(net, trainer)
    optimizer = trainer._optimizer
    states = {names[i]: value for i, value in _updaters(trainer)[0].states.items()}
    # Each device has its own counts; they are equal.
    counts = max(optimizer._all_index_update_counts.values(), key=len)
    algorithm, arrays["numpy.random"], *rest = np.random.get_state()
    content = {
        "format": _file.FORMAT,
        "state": state,
        "optimizer": type(optimizer).__name__,
        "optimizer numbers": _checks.numbers(optimizer),
        "optimizer counts": {names[i]: count for i, count in counts.items()},
        "optimizer states": _without_arrays(states, "optimizer", arrays),
        "schedule": type(optimizer.lr_scheduler).__name__,
        "schedule state": getattr(optimizer.lr_scheduler, "__dict__", {}),
        "random": random.getstate(),
        "numpy.random": [algorithm, *rest],
    }
    _file.write(Path(path), json.dumps(content), arrays)


def load(path: str | Path, net: Any, trainer: Any) -> dict[str, Any]:
    """Restore ``net``, ``trainer`` and the random generators from the checkpoint ``path``.

    If the checkpoint cannot be read or does not fit, nothing changes.

    Args:
        path: a file of ``save``.
        net: the same network, initialized, on any devices. Running means that differ between
            devices are averaged if the number of devices is another one.
        trainer: a trainer of the same parameters, with the same optimizer and type of schedule.
            Their numbers, including the learning rate, become those of the checkpoint.

    Returns:
        The ``state`` of ``save``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, is not a checkpoint, or is one of another network or
            optimizer. The message begins with the path.
        ValueError: a parameter of the trainer is not in ``net``, or the states of its optimizer are
            on the servers of a distributed kvstore.
    """
    _check_local(trainer)
    path = Path(path)
    content, arrays = _file.read(path)
    parameters = net._collect_params_with_prefix()
    names = _trained(net, trainer)
    optimizer = trainer._optimizer

    prefix = "parameters/"
    saved = {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
    try:
        _checks.check_parameters(saved, parameters)
        _checks.check_optimizer(content, arrays, trainer, names, saved)
        _checks.check_generators(content, arrays)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error

    mx.nd.waitall()  # as in save
    for name, parameter in parameters.items():
        mean = saved[name].mean(axis=0).astype(saved[name].dtype)
        parameter._load_init(_array(mean), None)
    # Initialize the trainer as its first step does. This copies the values of the first device to
    # the others, so their own values are written below.
    share_parameters(trainer)
    for name, parameter in parameters.items():
        if len(saved[name]) == len(parameter.list_data()):
            for own, array in zip(parameter.list_data(), saved[name]):
                own[:] = _array(array)

    index = {name: i for i, name in enumerate(names)}
    for updater in _updaters(trainer):
        states = _with_arrays(content["optimizer states"], arrays)
        updater.states = {index[name]: value for name, value in states.items()}
        # The updater moves them to its device.
        updater.states_synced = dict.fromkeys(updater.states, False)
    vars(optimizer).update(content["optimizer numbers"])
    counts = {index[name]: count for name, count in content["optimizer counts"].items()}
    devices = {0, *(context.device_id for context in trainer._contexts)}
    optimizer._all_index_update_counts = {device: dict(counts) for device in devices}
    optimizer._set_current_context(0)
    if optimizer.lr_scheduler is not None:
        vars(optimizer.lr_scheduler).update(content["schedule state"])

    version, internal, gauss = content["random"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, *rest = content["numpy.random"]
    np.random.set_state((algorithm, arrays["numpy.random"], *rest))
    state: dict[str, Any] = content["state"]
    return state


def check_path(path: str | Path) -> None:
    """Raise an OSError if :func:`save` cannot write to ``path``."""
    check_writable(Path(path))


def _trained(net: Any, trainer: Any) -> list[str]:
    """Return the structural names of the trainer's parameters, in order."""
    names: dict[Any, str] = {}
    for name, parameter in net._collect_params_with_prefix().items():
        names.setdefault(parameter, name)  # a shared parameter has its first name
    for parameter in trainer._params:
        if parameter not in names:
            raise ValueError(f"trainer: expected parameters of the network, got {parameter.name}")
    return [names[parameter] for parameter in trainer._params]


def _check_local(trainer: Any) -> None:
    """Raise a ValueError for a trainer whose optimizer runs in other processes."""
    if trainer._kv_initialized:
        store, on_store = trainer._kvstore, trainer._update_on_kvstore
    else:
        store, on_store = (trainer._kvstore_params[k] for k in ("kvstore", "update_on_kvstore"))
        if on_store is None:
            on_store = os.environ.get("MXNET_UPDATE_ON_KVSTORE", "1") != "0"
    kind = store if isinstance(store, str) else getattr(store, "type", "")
    if on_store and "dist" in kind:
        raise ValueError(
            "trainer: expected one that updates in its own process, got one of the kvstore "
            f"{kind!r}, whose servers keep the states and counts of the optimizer "
            f"{type(trainer._optimizer).__name__}. Use gluon.Trainer(..., update_on_kvstore=False)"
        )


def _updaters(trainer: Any) -> list[Any]:
    """Return the owners of the optimizer's states: one per device, or one for all devices."""
    return [trainer._kvstore._updater] if trainer._update_on_kvstore else trainer._updaters


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return ``value`` with its arrays moved to ``arrays`` and replaced by their names."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: _without_arrays(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_without_arrays(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    arrays[name] = value.asnumpy()
    return name


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the argument of ``_without_arrays``."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_with_arrays(v, arrays) for v in value)
    return _array(arrays[value])


def _array(array: np.ndarray) -> Any:
    return mx.nd.array(array, dtype=array.dtype)
