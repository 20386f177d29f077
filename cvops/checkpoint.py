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

import io
import json
import math
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cvops._files import check_regular, check_writable, replacing
from cvops._mxnet import mxnet
from cvops.distributed import share_parameters
from cvops.ops._check import integer

mx = mxnet()


class CheckpointError(ValueError):
    """A file is damaged, is not a checkpoint, or does not fit the network or the trainer."""


_FORMAT = "cvops checkpoint 1"
_JSON = "checkpoint.json"
#: The number of 32-bit words of the generators' states.
_WORDS = 624


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
    _write(Path(path), json.dumps(content), arrays)


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
    content, arrays = _read(path)
    parameters = net._collect_params_with_prefix()
    names = _trained(net, trainer)
    optimizer = trainer._optimizer

    prefix = "parameters/"
    saved = {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}
    try:
        _check_parameters(saved, parameters)
        _check_optimizer(content, arrays, trainer, names, saved)
        _check_generators(content, arrays)
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


# --- checks of the content, before anything changes -----------------------------------------------


def _check_parameters(saved: dict[str, np.ndarray], parameters: Any) -> None:
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


def _check_optimizer(
    content: dict[str, Any],
    arrays: dict[str, np.ndarray],
    trainer: Any,
    names: list[str],
    saved: dict[str, np.ndarray],
) -> None:
    optimizer = trainer._optimizer
    schedule = optimizer.lr_scheduler
    for part, owner in (("optimizer", optimizer), ("schedule", schedule)):
        if content[part] != type(owner).__name__:
            raise ValueError(f"{part}: expected {type(owner).__name__}, got {content[part]}")
    known = _numbers(optimizer)
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


def _check_generators(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
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


# --- content --------------------------------------------------------------------------------------


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


def _numbers(optimizer: Any) -> dict[str, float | None]:
    return {
        name: value
        for name, value in vars(optimizer).items()
        if value is None or isinstance(value, (int, float))
    }


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


def _fits(shape: tuple[int, ...], known: tuple[int, ...]) -> bool:
    """Compare ``shape`` with a partly known one, whose unknown sizes are 0 or -1."""
    return len(shape) == len(known) and all(k in (n, 0, -1) for n, k in zip(shape, known))


# --- the file -------------------------------------------------------------------------------------


def _write(path: Path, content: str, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(_JSON, content)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


#: The entries of the JSON object, and their types.
_TYPES = {
    "state": dict,
    "optimizer": str,
    "optimizer numbers": dict,
    "optimizer counts": dict,
    "optimizer states": dict,
    "schedule": str,
    "schedule state": dict,
    "random": list,
    "numpy.random": list,
}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # ``save`` does not compress, so the content is not larger than the file.
                if info.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{info.filename}: expected no compression")
            content = _content(archive.read(_JSON))
            names = [name for name in archive.namelist() if name != _JSON]
            # A complete read compares the checksum.
            arrays = {name[: -len(".npy")]: _plain_array(archive.read(name)) for name in names}
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # the readers raise many kinds for damaged files
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {error}") from error
    return content, arrays


def _content(text: bytes) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{_JSON}: expected an object")
    if content.get("format") != _FORMAT:
        raise ValueError(f"format: expected {_FORMAT!r}, got {content.get('format')!r}")
    for name, kind in _TYPES.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{name}: expected a {kind.__name__}, got {content.get(name)!r}")
    return content


def _plain_array(data: bytes) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` file, whose header cannot ask for more memory."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"expected .npy of version (1, 0), got {version}")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size != len(data) - file.tell():
        raise ValueError(f"expected {len(data) - file.tell()} bytes, got {dtype} {shape}")
    array = np.frombuffer(data, dtype, offset=file.tell())
    return array.reshape(shape[::-1]).T if in_columns else array.reshape(shape)
