"""Training in several processes, on MXNet's parameter server (the KVStore ``dist_sync``).

A training has one scheduler, servers and workers. Each process gets its role and the address of the
scheduler from environment variables, which ``cvops launch`` or a cluster's scheduler sets:
``DMLC_ROLE`` ("scheduler", "server" or "worker"), ``DMLC_PS_ROOT_URI``, ``DMLC_PS_ROOT_PORT``,
``DMLC_NUM_WORKER`` and ``DMLC_NUM_SERVER``.

A worker joins the training, and gives MXNet's store to its trainer::

    with distributed.join("dist_sync") as worker:
        trainer = gluon.Trainer(net.collect_params(), "sgd", options, **worker.trainer_options)
        distributed.share_parameters(trainer)
        ...

``python -m cvops.distributed`` is the scheduler or a server.

MXNet itself waits without a limit for a process that is gone. Here every process sends a sign of
life to the scheduler each ``PS_HEARTBEAT_INTERVAL`` seconds (by default 2). If one sends none for
``PS_HEARTBEAT_TIMEOUT`` seconds (20), the scheduler names it and ends. The others end when the
scheduler has been silent for the same time. If not all processes have joined after
``CVOPS_JOIN_TIMEOUT`` seconds (600), those that have end. The exit status is then 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Callable, TypeVar

import numpy as np

from cvops._mxnet import mxnet
from cvops.distributed.environment import join_timeout, not_joined, prepare
from cvops.distributed.service import main as main
from cvops.distributed.service import serve as serve
from cvops.distributed.watch import Watch, check, fail, leave

#: The kinds of ``KVStore`` for several processes.
KINDS = ("dist_sync", "dist_device_sync")
_Json = TypeVar("_Json")
_Own = TypeVar("_Own", bound="Process")
#: The first key of :meth:`Worker.sum`. A trainer has the numbers of its parameters as keys.
_FIRST_KEY = 1 << 20
#: A text has a multiple of this number of bytes on its way, since each size has a key.
_CHUNK = 1 << 12


def is_service() -> bool:
    """Return whether this process has to be the scheduler or a server of a training."""
    return os.environ.get("DMLC_ROLE") in ("scheduler", "server")


def is_worker() -> bool:
    """Return whether this process has to be a worker of a training in several processes."""
    return os.environ.get("DMLC_ROLE") == "worker"


def join(kvstore: str = "dist_sync") -> Worker:
    """Join a training as a worker, and wait for all other processes.

    Args:
        kvstore: "dist_sync", or "dist_device_sync", which adds the gradients of a worker's GPUs on
            a GPU.

    Raises:
        ValueError: ``kvstore`` is another one, or an environment variable is missing or wrong.
    """
    if kvstore not in KINDS:
        raise ValueError(f"kvstore: expected one of {', '.join(KINDS)}, got {kvstore!r}")
    seconds, role = join_timeout(), prepare()
    if role != "worker":
        raise ValueError(f"DMLC_ROLE: expected worker, got {role!r}")
    mx = mxnet()
    timer = threading.Timer(seconds, fail, [not_joined(seconds)])
    timer.daemon = True
    timer.start()
    try:
        store = mx.kv.create(kvstore)
    finally:
        timer.cancel()
    return Worker(store)


def share_parameters(trainer: Any) -> None:
    """Give the parameters of the first worker to all, before the first step of a trainer.

    MXNet's servers put the first gradients in the place of the parameters, so all workers must have
    these before. The other devices of a process get them too.
    """
    # The backward of a static graph writes running means, and MXNet does not wait for them.
    mxnet().nd.waitall()
    if not trainer._kv_initialized:
        trainer._init_kvstore()
    trainer._init_params()
    mxnet().nd.waitall()


class Process:
    """A process that trains alone. A :class:`Worker` has the same methods.

    Attributes:
        rank: number of the process among those that train, from 0.
        num_workers: number of these processes.
        trainer_options: arguments for ``gluon.Trainer``.
    """

    rank = 0
    num_workers = 1

    def __init__(self) -> None:
        self.trainer_options: dict[str, Any] = {"kvstore": "device"}

    def __enter__(self: _Own) -> _Own:
        return self

    def __exit__(self, *exception: Any) -> None:
        """Do nothing."""

    @property
    def writes(self) -> bool:
        """True in the process that writes files and messages."""
        return self.rank == 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each value over the workers. They all call it, in the same order."""
        return list(values)

    def first(self, call: Callable[[], _Json]) -> _Json:
        """Return the result of ``call``, which runs in the first worker. All workers call it.

        The result has only what JSON has.
        """
        return call()

    def check_equal(self, name: str, value: str) -> None:
        """Raise a ValueError with ``name`` if the workers do not all have the same text."""

    def abort(self, message: str, status: int = 1) -> None:
        """Print a message and end this process. A process that trains alone does nothing."""


class Worker(Process):
    """One of the workers of a training; :func:`join` makes it.

    At the end of its context a worker waits for the others. After an exception it ends the process
    at once, because MXNet's normal end waits for the others without a limit.

    With its ``trainer_options`` each worker keeps the states of the optimizer, so that
    ``checkpoint.save`` can write them.
    """

    def __init__(self, store: Any) -> None:
        self.rank: int = store.rank
        self.num_workers: int = store.num_workers
        self.trainer_options = {"kvstore": store, "update_on_kvstore": False}
        self._store, self._library = store, mxnet().base._LIB
        self._keys: dict[int, int] = {}
        self._watch = Watch(self._library, store.handle, "worker")
        self._watch.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, SystemExit) and isinstance(error.code, (int, type(None))):
            leave(error.code or 0)
        elif isinstance(error, SystemExit):
            self.abort(str(error.code))
        else:
            traceback.print_exception(kind, error, trace)
            leave(1)

    def sum(self, values: Any) -> np.ndarray:
        """Add up the values of the workers, which all call this function in the same order.

        Args:
            values: float32 array, or what NumPy converts to it, of the same shape in all workers.

        Returns:
            The sums, float32 of this shape. They are the same bits in all workers.
        """
        mx = mxnet()
        own = np.asarray(values, np.float32)
        key = self._keys.get(own.size)
        if key is None:
            key = self._keys[own.size] = _FIRST_KEY + len(self._keys)
            self._store.init(key, mx.nd.zeros(own.size))
        sums = mx.nd.zeros(own.size)
        self._store.pushpull(key, mx.nd.array(own.ravel()), out=sums)
        result: np.ndarray = sums.asnumpy().reshape(own.shape)
        return result

    def mean(self, values: Sequence[float]) -> list[float]:
        means: list[float] = (self.sum(values).astype(np.float64) / self.num_workers).tolist()
        return means

    def first(self, call: Callable[[], _Json]) -> _Json:
        text = json.dumps(call()).encode() if self.writes else b""
        size = int(self.sum([len(text)])[0])
        padded = np.zeros(-(-size // _CHUNK) * _CHUNK, np.float32)
        padded[: len(text)] = np.frombuffer(text, np.uint8)
        result: _Json = json.loads(self.sum(padded)[:size].astype(np.uint8).tobytes())
        return result

    def check_equal(self, name: str, value: str) -> None:
        # 16 bits are exact in the sums of 256 workers.
        own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint16).astype(np.float32)
        if not np.array_equal(self.sum(own), own * np.float32(self.num_workers)):
            raise ValueError(f"{name}: expected the same in all workers, got different ones")

    def abort(self, message: str, status: int = 1) -> None:
        print(message, file=sys.stderr)
        leave(status)

    def close(self) -> None:
        """Wait for the other workers and leave the training. The store has no use after it."""
        mxnet().nd.waitall()
        self._store._barrier()
        self._watch.stop()
        handle = self._store.handle
        self._store.handle = type(handle)()  # its destructor then frees nothing
        check(self._library, self._library.MXKVStoreFree(handle))
