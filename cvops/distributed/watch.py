"""The watch of the other processes of a training, and the end of this one."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import NoReturn

from cvops.distributed.environment import join_timeout, not_joined

#: MXNet's numbers of the scheduler, of all other processes, and of the first of each kind.
_SCHEDULER, _OTHERS, _FIRST_SERVER, _FIRST_WORKER = 1, 6, 8, 9
#: The seconds in which a scheduler or a server creates what the watch reads.
_CREATION = 10


class Watch(threading.Thread):
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
                fail(f"{names}: no sign of life for {self._timeout} s; this process ends")

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        self.join()

    def _all_have_joined(self) -> bool:
        """Wait until all processes have joined; return False at the end of the training."""
        limit = join_timeout()
        waited = _CREATION
        if self._end.wait(_CREATION):
            return False
        # All are silent for a negative time, but MXNet counts none before all have joined.
        group = _OTHERS if self._role == "scheduler" else _SCHEDULER
        while not self._count(group, -(1 << 20)):
            if waited >= limit:
                fail(not_joined(limit))
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


def check(library: ctypes.CDLL, result: int) -> None:
    """Raise a RuntimeError with MXNet's message after a call that failed."""
    if result:
        raise RuntimeError(library.MXGetLastError().decode("utf-8", "replace"))


def fail(message: str) -> NoReturn:
    """Print a message and end the process."""
    print(f"cvops: {message}", file=sys.stderr)
    leave(1)


def leave(status: int) -> NoReturn:
    """End the process without MXNet's end, which would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
