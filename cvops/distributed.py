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

import ctypes
import functools
import hashlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Callable, NoReturn, TypeVar

import numpy as np

from cvops._mxnet import cuda11, mxnet

#: The kinds of ``KVStore`` for several processes.
KINDS = ("dist_sync", "dist_device_sync")
#: The default seconds between signs of life, and of the silence of a process that is gone.
HEARTBEATS = {"PS_HEARTBEAT_INTERVAL": "2", "PS_HEARTBEAT_TIMEOUT": "20"}
_Json = TypeVar("_Json")
_Own = TypeVar("_Own", bound="Process")
_ROLES = ("scheduler", "server", "worker")
#: MXNet's numbers of the scheduler, of all other processes, and of the first of each kind.
_SCHEDULER, _OTHERS, _FIRST_SERVER, _FIRST_WORKER = 1, 6, 8, 9
#: The first key of :meth:`Worker.sum`. A trainer has the numbers of its parameters as keys.
_FIRST_KEY = 1 << 20
#: A text has a multiple of this number of bytes on its way, since each size has a key.
_CHUNK = 1 << 12
#: The seconds in which a scheduler or a server creates what the watch reads.
_CREATION = 10


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
    seconds, role = _join_timeout(), _prepare()
    if role != "worker":
        raise ValueError(f"DMLC_ROLE: expected worker, got {role!r}")
    mx = mxnet()
    timer = threading.Timer(seconds, _fail, [_not_joined(seconds)])
    timer.daemon = True
    timer.start()
    try:
        store = mx.kv.create(kvstore)
    finally:
        timer.cancel()
    return Worker(store)


def serve() -> None:
    """Be the scheduler or a server, as ``DMLC_ROLE`` says, until the workers end.

    Raises:
        ValueError: an environment variable is missing or wrong, or the port is not free.
    """
    role = _prepare()
    if role == "worker":
        raise ValueError("DMLC_ROLE: expected scheduler or server, got 'worker'")
    if role == "scheduler":
        port = int(os.environ["DMLC_PS_ROOT_PORT"])
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("", port))
            except OSError as error:
                raise ValueError(
                    f"DMLC_PS_ROOT_PORT: expected a free port, got {port}: {error.strerror}"
                ) from error
    library = _load_library()
    store = ctypes.c_void_p()
    _check(library, library.MXKVStoreCreate(b"dist", ctypes.byref(store)))

    @functools.lru_cache(None)
    def controller() -> Any:
        mx = _import_mxnet(role)
        return mx.kvstore.kvstore_server.KVStoreServer(mx.kvstore.KVStore(store))._controller()

    def control(command: int, body: bytes, _: Any) -> None:
        """Obey a worker whose trainer updates on the servers: it sends its optimizer."""
        try:
            controller()(command, body, None)
        except Exception:  # ctypes would ignore it
            traceback.print_exc()
            _exit(1)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(control)
    watch = _Watch(library, store, role)
    watch.start()
    _check(library, library.MXKVStoreRunServer(store, callback, None))
    watch.stop()


def _load_library() -> ctypes.CDLL:
    """Load MXNet's library alone. Its Python package takes seconds, and needs memory."""
    cuda11.preload_for_mxnet()
    path = cuda11.libmxnet()
    if path is None:
        mxnet()  # raises the error of a missing package
    library = ctypes.CDLL(str(path))
    library.MXGetLastError.restype = ctypes.c_char_p
    return library


def _import_mxnet(role: str) -> Any:
    """Import MXNet in a server, where its import does not return with this variable."""
    del os.environ["DMLC_ROLE"]
    try:
        return mxnet()
    finally:
        os.environ["DMLC_ROLE"] = role


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
        self._watch = _Watch(self._library, store.handle, "worker")
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
            _exit(error.code or 0)
        elif isinstance(error, SystemExit):
            self.abort(str(error.code))
        else:
            traceback.print_exception(kind, error, trace)
            _exit(1)

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
        _exit(status)

    def close(self) -> None:
        """Wait for the other workers and leave the training. The store has no use after it."""
        mxnet().nd.waitall()
        self._store._barrier()
        self._watch.stop()
        handle = self._store.handle
        self._store.handle = type(handle)()  # its destructor then frees nothing
        _check(self._library, self._library.MXKVStoreFree(handle))


class _Watch(threading.Thread):
    """A thread that ends the process when another process of the training is gone."""

    def __init__(self, library: ctypes.CDLL, store: ctypes.c_void_p, role: str) -> None:
        super().__init__(name="cvops watch", daemon=True)
        self._library, self._store, self._role = library, store, role
        self._end = threading.Event()
        self._timeout = int(os.environ["PS_HEARTBEAT_TIMEOUT"])
        self._others = {_SCHEDULER: "the scheduler"}
        if role == "scheduler":  # it alone gets the signs of life of the others
            servers, workers = (int(os.environ[f"DMLC_NUM_{n}"]) for n in ("SERVER", "WORKER"))
            self._others = {
                **{_FIRST_SERVER + 2 * i: f"server {i}" for i in range(servers)},
                **{_FIRST_WORKER + 2 * i: f"worker {i}" for i in range(workers)},
            }

    def run(self) -> None:
        if self._role != "worker" and not self._all_have_joined():
            return
        while not self._end.wait(1):
            gone = [name for number, name in self._others.items() if self._silent(number)]
            if gone:
                names = ", ".join(gone)
                _fail(f"{names}: no sign of life for {self._timeout} s; this process ends")

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        self.join()

    def _all_have_joined(self) -> bool:
        """Wait until all processes have joined; return False at the end of the training."""
        limit = _join_timeout()
        waited = _CREATION
        if self._end.wait(_CREATION):
            return False
        # All are silent for a negative time, but MXNet counts none before all have joined.
        group = _OTHERS if self._role == "scheduler" else _SCHEDULER
        while not self._count(group, -(1 << 20)):
            if waited >= limit:
                _fail(_not_joined(limit))
            if self._end.wait(1):
                return False
            waited += 1
        return True

    def _silent(self, number: int) -> bool:
        return self._count(number, self._timeout) > 0

    def _count(self, number: int, seconds: int) -> int:
        """Return the number of processes without a sign of life for this time."""
        count = ctypes.c_int()
        result = self._library.MXKVStoreGetNumDeadNode(
            self._store, number, ctypes.byref(count), seconds
        )
        return 0 if result else count.value  # an error: MXNet has left the training


def address_toward(host: str) -> str:
    """Return the address of this machine on the route to another one. Nothing is sent.

    Raises:
        OSError: the name is unknown, or there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((host, 9))
        address: str = udp.getsockname()[0]
        return address


def _prepare() -> str:
    """Check the environment variables, set those that have a default, and return the role."""
    role = os.environ.get("DMLC_ROLE")
    if role not in _ROLES:
        got = "no such variable; `cvops launch` sets it" if role is None else repr(role)
        raise ValueError(f"DMLC_ROLE: expected one of {', '.join(_ROLES)}, got {got}")
    root = os.environ.get("DMLC_PS_ROOT_URI")
    if not root:
        raise ValueError(f"DMLC_PS_ROOT_URI: expected the scheduler's address, got {root!r}")
    for name, default in HEARTBEATS.items():
        os.environ.setdefault(name, default)
    for name in ("DMLC_NUM_WORKER", "DMLC_NUM_SERVER"):
        _number(name, 1, 10**4)
    _number("DMLC_PS_ROOT_PORT", 1, 2**16 - 1)
    interval = _number("PS_HEARTBEAT_INTERVAL", 1, 10**4)
    _number("PS_HEARTBEAT_TIMEOUT", 2 * interval, 10**6)
    # MXNet's scheduler listens at an address, not at a name.
    os.environ["DMLC_PS_ROOT_URI"] = address = _resolve(root)
    if not (os.environ.get("DMLC_NODE_HOST") or os.environ.get("DMLC_INTERFACE")):
        try:
            os.environ["DMLC_NODE_HOST"] = address_toward(address)
        except OSError as error:
            raise ValueError(
                f"DMLC_PS_ROOT_URI: expected an address with a route to it, got {root!r}: "
                f"{error.strerror}"
            ) from error
    os.environ.pop("DMLC_RANK", None)  # MXNet sets it; with an inherited one it does not join
    return role


def _resolve(name: str) -> str:
    """Return the address of a host, whose name may become known after this process starts."""
    limit = time.monotonic() + _join_timeout()
    while True:
        try:
            return socket.gethostbyname(name)
        except (OSError, UnicodeError) as error:
            if time.monotonic() > limit:
                raise ValueError(
                    f"DMLC_PS_ROOT_URI: expected the scheduler's address, got {name!r}: {error}"
                ) from error
        time.sleep(1)


def _number(name: str, least: int, most: int) -> int:
    text = os.environ.get(name)
    if text is None or not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name}: expected a number from {least} to {most}, got {text!r}")
    return int(text)


def _join_timeout() -> int:
    os.environ.setdefault("CVOPS_JOIN_TIMEOUT", "600")
    return _number("CVOPS_JOIN_TIMEOUT", 1, 10**6)


def _not_joined(seconds: int) -> str:
    servers, workers = (os.environ[f"DMLC_NUM_{kind}"] for kind in ("SERVER", "WORKER"))
    root = f"{os.environ['DMLC_PS_ROOT_URI']}:{os.environ['DMLC_PS_ROOT_PORT']}"
    return (
        f"expected a scheduler at {root}, {servers} server(s) and {workers} worker(s), "
        f"got fewer within {seconds} s"
    )


def _check(library: ctypes.CDLL, result: int) -> None:
    """Raise a RuntimeError with MXNet's message after a call that failed."""
    if result:
        raise RuntimeError(library.MXGetLastError().decode("utf-8", "replace"))


def _fail(message: str) -> NoReturn:
    print(f"cvops: {message}", file=sys.stderr)
    _exit(1)


def _exit(status: int) -> NoReturn:
    """End the process without MXNet's end, which would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> int:
    """Be the scheduler or a server, and return the exit status."""
    try:
        serve()
    except ValueError as error:
        print(f"cvops: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
