"""Checkpoints: stop a training in Gluon, and go on as if it had never stopped.

A checkpoint is one file, a zip of plain arrays (``.npy``) and ``checkpoint.json``: it
holds no pickle, so reading one runs no code of whoever wrote it. In it are

- all parameters, running means included, by their structural names (as
  ``save_parameters`` names them), so that it does not matter how Gluon numbered the
  blocks of the process;
- the optimizer: its arrays (momenta and such), its count of updates, its numbers (the
  learning rate among them), and its learning-rate schedule, wherever that is;
- the states of ``random`` and ``numpy.random``;
- what the caller adds: counters of epochs and steps, losses so far.

The state of ``mx.random`` cannot be read back from MXNet, and no iterator says where it
is. So checkpoints belong between epochs, and each epoch begins with ``seed_all``:

    first = checkpoint.load(path, net, trainer)["epoch"] if path.exists() else 0
    for epoch in range(first, epochs):
        checkpoint.seed_all(seed, epoch)
        ...
        checkpoint.save(path, net, trainer, epoch=epoch + 1)

Then a run that was stopped and resumed has the same bits as one that was not.

In a training of several processes (``kvstore="dist_sync"``) each process saves and loads a file of
its own. The trainer must update there, by ``update_on_kvstore=False``: MXNet's default has the
optimizer's states on the servers, which do not give them back.
"""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops.ops._check import integer

mx = mxnet()


class CheckpointError(ValueError):
    """A file is damaged, or no checkpoint, or one of something else."""


_FORMAT = "cvops checkpoint 1"
_JSON = "checkpoint.json"
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError),
    *(RuntimeError, TypeError, ValueError),
)


def seed_all(seed: int, epoch: int) -> None:
    """Seed ``random``, ``numpy.random`` and ``mx.random`` for an epoch (0 or more) of ``seed``."""
    seed, epoch = integer("seed", seed, -(2**63), 2**64), integer("epoch", epoch, 0)
    numbers = np.random.SeedSequence((seed % 2**64, epoch)).generate_state(3)
    for generator, number in zip((random.seed, np.random.seed, mx.random.seed), numbers):
        generator(int(number) >> 1)  # MXNet takes 31 bits


def save(path: str | Path, net: Any, trainer: Any, **state: Any) -> None:
    """Write a checkpoint to the file ``path``, in one motion.

    It is written beside, to ``path`` + ".part", flushed to the disk, and renamed: whenever
    the process or the machine stops, ``path`` is the checkpoint before or this one, whole.

    Args:
        net: a Gluon block whose parameters are initialized, of known shapes.
        trainer: the ``gluon.Trainer`` of parameters of ``net``.
        state: what else to keep, as JSON has it: numbers, strings, lists, dicts.

    Raises:
        ValueError: the trainer has a parameter that ``net`` has not, or its optimizer's states are
            on the servers of a distributed kvstore.
        TypeError: ``state``, or an attribute of the learning-rate schedule, is not JSON.
        OSError: the file cannot be written.
    """
    _refuse_servers(trainer)
    mx.nd.waitall()  # for running means: a static graph writes them behind the engine's back
    arrays = {}
    for name, parameter in net._collect_params_with_prefix().items():
        # Running means are each device's own; trained parameters are the same on all.
        copies = parameter.list_data()[: None if parameter.grad_req == "null" else 1]
        arrays[f"parameters/{name}"] = np.stack([copy.asnumpy() for copy in copies])

    names = _trained(net, trainer)
    optimizer = trainer._optimizer
    states = {names[i]: value for i, value in _updaters(trainer)[0].states.items()}
    # Of several devices each has counts of its own, all alike.
    counts = max(optimizer._all_index_update_counts.values(), key=len)
    algorithm, arrays["numpy.random"], *rest = np.random.get_state()
    about = {
        "format": _FORMAT,
        "state": state,
        "optimizer": type(optimizer).__name__,
        "optimizer numbers": _numbers(optimizer),
        "optimizer counts": {names[i]: count for i, count in counts.items()},
        "optimizer states": _without_arrays(states, "optimizer", arrays),
        "schedule": type(optimizer.lr_scheduler).__name__,
        "schedule state": getattr(optimizer.lr_scheduler, "__dict__", {}),
        "random": random.getstate(),
        "numpy.random": [algorithm, *rest],
    }
    _write(Path(path), json.dumps(about), arrays)


def load(path: str | Path, net: Any, trainer: Any) -> dict[str, Any]:
    """Put ``net``, ``trainer`` and the generators where they were when ``path`` was saved.

    Nothing is changed if the checkpoint cannot be read or does not fit.

    Args:
        path: what ``save`` wrote.
        net: the same network as then, initialized, on any devices. (Running means that
            differed between devices are averaged for another number of them.)
        trainer: of the same parameters, with the same optimizer and kind of schedule. The
            numbers of both, the learning rate among them, become the checkpoint's.

    Returns:
        The ``state`` given to ``save``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or no checkpoint, or is one of another network
            or of another optimizer; the message begins with the path.
        ValueError: the trainer has a parameter that ``net`` has not, or its optimizer's states are
            on the servers of a distributed kvstore.
    """
    _refuse_servers(trainer)
    path = Path(path)
    about, arrays = _read(path)
    parameters = net._collect_params_with_prefix()
    names = _trained(net, trainer)
    optimizer = trainer._optimizer

    prefix = "parameters/"
    saved = {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
    for name in sorted(parameters.keys() ^ saved.keys()):
        lacks = "the network" if name in saved else "the checkpoint"
        raise CheckpointError(f"{path}: {lacks} has no parameter {name}")
    for name, parameter in parameters.items():
        theirs, ours = saved[name].shape[1:], parameter.shape
        if not _fits(theirs, ours) or saved[name].dtype != np.dtype(parameter.dtype):
            raise CheckpointError(
                f"{path}: parameter {name} is {saved[name].dtype} {theirs}, "
                f"that of the network {np.dtype(parameter.dtype)} {ours}"
            )
    for what, owner in (("optimizer", optimizer), ("schedule", optimizer.lr_scheduler)):
        if about[what] != type(owner).__name__:
            raise CheckpointError(
                f"{path}: the {what} is {about[what]}, not {type(owner).__name__}"
            )
    for name in sorted(about["optimizer counts"].keys() - set(names)):
        raise CheckpointError(f"{path}: the trainer has no parameter {name}")

    mx.nd.waitall()  # as in save
    for name, parameter in parameters.items():
        mean = saved[name].mean(axis=0).astype(saved[name].dtype)
        parameter._load_init(_array(mean), None)
    # As a first step would: then it is known who updates, and each device has the values
    # of the first, over which its own are written here.
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    trainer._init_params()
    mx.nd.waitall()  # a distributed store keeps the first gradients where it has these values
    for name, parameter in parameters.items():
        if len(saved[name]) == len(parameter.list_data()):
            for own, array in zip(parameter.list_data(), saved[name]):
                own[:] = _array(array)

    index = {name: i for i, name in enumerate(names)}
    for updater in _updaters(trainer):
        states = _with_arrays(about["optimizer states"], arrays)
        updater.states = {index[name]: value for name, value in states.items()}
        updater.states_synced = dict.fromkeys(updater.states, False)  # it moves them itself
    vars(optimizer).update(about["optimizer numbers"])
    counts = {index[name]: count for name, count in about["optimizer counts"].items()}
    devices = {0, *(context.device_id for context in trainer._contexts)}
    optimizer._all_index_update_counts = {device: dict(counts) for device in devices}
    optimizer._set_current_context(0)
    if optimizer.lr_scheduler is not None:
        vars(optimizer.lr_scheduler).update(about["schedule state"])

    version, internal, gauss = about["random"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, *rest = about["numpy.random"]
    np.random.set_state((algorithm, arrays["numpy.random"], *rest))
    return about["state"]


# --- what is in them ------------------------------------------------------------------------------


def _trained(net: Any, trainer: Any) -> list[str]:
    """Of each parameter of the trainer, in order, its structural name."""
    names: dict[Any, str] = {}
    for name, parameter in net._collect_params_with_prefix().items():
        names.setdefault(parameter, name)  # of a shared one the first
    for parameter in trainer._params:
        if parameter not in names:
            raise ValueError(f"the trainer's parameter {parameter.name} is not of the network")
    return [names[parameter] for parameter in trainer._params]


def _refuse_servers(trainer: Any) -> None:
    """Refuse a trainer whose optimizer runs in other processes."""
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
            f"{kind!r}, whose servers keep the states and the counts of the optimizer "
            f"{type(trainer._optimizer).__name__}: make it by gluon.Trainer(..., "
            "update_on_kvstore=False)"
        )


def _updaters(trainer: Any) -> list[Any]:
    """Who holds the optimizer's states: one for each device, or one for all."""
    return [trainer._kvstore._updater] if trainer._update_on_kvstore else trainer._updaters


def _numbers(optimizer: Any) -> dict[str, float | None]:
    return {
        name: value
        for name, value in vars(optimizer).items()
        if value is None or isinstance(value, (int, float))
    }


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """``value`` with the arrays anywhere in it moved to ``arrays``, and their names instead."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: _without_arrays(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_without_arrays(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    arrays[name] = value.asnumpy()
    return name


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What ``_without_arrays`` was given."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_with_arrays(v, arrays) for v in value)
    return _array(arrays[value])


def _array(array: np.ndarray) -> Any:
    return mx.nd.array(array, dtype=array.dtype)


def _fits(shape: tuple[int, ...], known: tuple[int, ...]) -> bool:
    """Whether ``shape`` may be one of which ``known`` is known; 0 or -1 is not yet known."""
    return len(shape) == len(known) and all(k in (n, 0, -1) for n, k in zip(shape, known))


# --- the file -------------------------------------------------------------------------------------


def _write(path: Path, about: str, arrays: dict[str, np.ndarray]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_JSON, about)
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too
    finally:
        os.close(folder)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                about = json.loads(archive.read(_JSON))
                if about["format"] != _FORMAT:
                    raise ValueError(f"its format is {about['format']!r}")
                arrays = {}
                for name in archive.namelist():
                    if name != _JSON:  # read whole, so that its checksum is compared
                        entry = io.BytesIO(archive.read(name))
                        array = np.lib.format.read_array(entry, allow_pickle=False)
                        arrays[name[: -len(".npy")]] = array
        except _DAMAGE as error:
            raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}") from error
    return about, arrays
