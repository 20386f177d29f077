"""The scheduler and the servers of a training."""

from __future__ import annotations

import ctypes
import functools
import os
import socket
import sys
import traceback
from typing import Any

from cvops._mxnet import cuda11, mxnet
from cvops.distributed.environment import prepare
from cvops.distributed.watch import Watch, check, leave


def serve() -> None:
    """Be the scheduler or a server, as ``DMLC_ROLE`` says, until the workers end.

    Raises:
        ValueError: an environment variable is missing or wrong, or the port is not free.
    """
    role = prepare()
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
    check(library, library.MXKVStoreCreate(b"dist", ctypes.byref(store)))

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
            leave(1)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(control)
    watch = Watch(library, store, role)
    watch.start()
    check(library, library.MXKVStoreRunServer(store, callback, None))
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


def main() -> int:
    """Be the scheduler or a server, and return the exit status."""
    try:
        serve()
    except (ImportError, ValueError) as error:  # no MXNet; a wrong variable
        print(f"cvops: {error}", file=sys.stderr)
        return 2
    return 0
