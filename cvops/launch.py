"""The launcher of a training in several processes: ``cvops launch``.

MXNet's parameter server has three kinds of processes: one scheduler, servers and workers. They get
their roles and the address of the scheduler from the environment variables ``DMLC_*``. The launcher
starts all of them, on this machine or through ssh. It prints their output, and ends all of them
when one fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from cvops import _guard
from cvops.distributed.environment import HEARTBEATS, address_toward

#: The command that runs a shell command on a machine; the name of the machine and the text follow.
SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=4"
#: The prefixes of the environment variables that processes on other machines get.
_FORWARDED = ("CVOPS_", "DMLC_", "MXNET_", "OMP_", "PS_")
#: The seconds in which interrupted workers may save their state.
_SAVING = 60
#: The seconds in which the scheduler and the servers end after the workers.
_LEAVING = 15


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine: its name for ssh, and the address that MXNet's processes on it listen at."""

    name: str
    address: str


LOCAL = Host("", "127.0.0.1")


def read_hosts(path: Path) -> list[Host]:
    """Read the machines in a file.

    Args:
        path: text file with a machine in each line: its name for ssh, such as ``user@gpu1``, and
            optionally its address, which otherwise comes from its name. Text after "#" is ignored.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line has another form or an unknown name, or there is no machine.
    """
    hosts = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if len(words) > 2 or (words and words[0].startswith("-")):
            raise ValueError(f"{path}: line {number}: expected a name and an address, got {line!r}")
        if words:
            name = words[-1].rpartition("@")[2]
            try:
                hosts.append(Host(words[0], socket.gethostbyname(name)))
            except (OSError, UnicodeError) as error:
                raise ValueError(f"{path}: line {number}: unknown host {name!r}: {error}") from None
    if not hosts:
        raise ValueError(f"{path}: expected a machine in each line, got none")
    return hosts


def run(
    command: Sequence[str],
    workers: int,
    servers: int = 1,
    hosts: Sequence[Host] = (),
    ssh: str = SSH,
    address: str | None = None,
    forward: Sequence[str] = (),
) -> int:
    """Run a command in all workers, until they end or a process fails.

    Args:
        command: the command of a worker. ``cvops`` and ``python`` are those of this environment.
        workers: number of workers, 1 or more.
        servers: number of servers, 1 or more.
        hosts: machines of the workers and servers, which take turns; by default this machine. This
            environment and the current folder have the same paths on each. The scheduler is a
            process of this machine.
        ssh: command that runs a shell command on a machine.
        address: address of this machine for the others, by default that on the route to the first.
        forward: names of further environment variables that processes on other machines get.

    Returns:
        0 if all workers ended with 0, and 128 plus the signal after a signal. Otherwise the status
        of the process that failed first, which is 128 plus the signal if a signal killed it.

    Raises:
        OSError: there is no route to the first machine, or ``ssh`` cannot be started.
    """
    address = address or (address_toward(hosts[0].address) if hosts else LOCAL.address)
    port, *ports = _free_ports(1 + workers)
    about = {
        **{"DMLC_PS_ROOT_URI": address, "DMLC_PS_ROOT_PORT": str(port)},
        **{"DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers)},
    }
    serve = [sys.executable, "-m", "cvops.distributed"]
    if command[0] in ("cvops", "python"):
        module = ["-m", "cvops"] if command[0] == "cvops" else []
        command = [sys.executable, *module, *command[1:]]
    places = list(hosts) or [LOCAL]
    if not hosts:
        about["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", _fair_share(workers))
    with _Launcher(about, shlex.split(ssh), forward) as launcher:
        try:
            launcher.start("scheduler", Host("", address), serve)
            for number in range(servers):
                launcher.start(f"server {number}", places[number % len(places)], serve)
            for rank, (host, own) in enumerate(_ranked(places, ports)):
                launcher.start(f"worker {rank}", host, command, PORT=str(own))
            return launcher.watch()
        except _Interrupted as error:
            launcher.interrupt()
            return 128 + error.number


def _ranked(places: Sequence[Host], ports: Sequence[int]) -> list[tuple[Host, int]]:
    """Return the place and the port of each worker, in the order of MXNet's ranks.

    MXNet ranks workers by their addresses, in descending order of the texts, then by their ports.
    """
    workers = [(places[i % len(places)], port) for i, port in enumerate(ports)]
    workers.sort(key=lambda worker: worker[1])
    return sorted(workers, key=lambda worker: worker[0].address, reverse=True)


def _fair_share(workers: int) -> str:
    """Return the number of threads of each worker of this machine."""
    return str(max(1, len(os.sched_getaffinity(0)) // workers))


def _free_ports(count: int) -> list[int]:
    """Return different ports that are free on this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("", 0))
        return [free.getsockname()[1] for free in sockets]


def _shell_command(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the text for the shell of another machine."""
    assignments = [f"{name}={value}" for name, value in environ.items()]
    words = " ".join(shlex.quote(word) for word in ["env", *assignments, *command])
    return f"cd {shlex.quote(os.getcwd())} && exec {words}"


class _Interrupted(Exception):
    """The launcher got a signal to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclasses.dataclass(eq=False)
class _Task:
    """A process, or the ssh that leads to it, and its guard."""

    name: str
    host: Host
    process: subprocess.Popen[bytes]
    status: int | None = None
    readers: list[threading.Thread] = dataclasses.field(default_factory=list)

    def interrupt(self) -> None:
        """Let the guard send SIGINT."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # the guard has ended
            self.process.stdin.write(b"i")
            self.process.stdin.flush()

    def end(self) -> None:
        """Let the guard end the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def describe_end(self) -> str:
        """Return a clause about the end of the process."""
        assert self.status is not None
        where = f"{self.name} on {self.host.name}" if self.host.name else self.name
        with contextlib.suppress(ValueError):
            return f"{where} was killed by {signal.Signals(self.status - 128).name}"
        return f"{where} ended with status {self.status}"


class _Launcher:
    """The processes of a training. They end at the end of the context."""

    def __init__(
        self, about: Mapping[str, str], ssh: Sequence[str], forward: Sequence[str]
    ) -> None:
        self._about, self._ssh, self._forward = about, ssh, forward
        # The variables of an outer training have no use here.
        environ = {k: v for k, v in os.environ.items() if not k.startswith("DMLC_")}
        self._environ = {**HEARTBEATS, **environ}
        self._tasks: list[_Task] = []
        self._ends: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._output = threading.Lock()
        self._ending = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> _Launcher:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending = True  # later signals have no effect
        for task in self._tasks:
            task.end()
        self._wait(self._tasks, _guard.GRACE + 3)
        for task in self._tasks:
            if task.status is None:  # a guard that does not answer, or a lost machine
                task.process.kill()
        self._wait(self._tasks, 1)
        for task in self._tasks:
            for reader in task.readers:
                reader.join(2)  # a process that left its group may hold the pipe
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if not self._ending:
            raise _Interrupted(number)

    def start(self, name: str, host: Host, command: Sequence[str], **variables: str) -> None:
        """Start a process. The first word of its name is its role."""
        own = {
            **self._about,
            **{"DMLC_ROLE": name.split()[0], "DMLC_NODE_HOST": host.address},
            **variables,
        }
        guarded = [sys.executable, "-I", _guard.__file__, *command]
        if host.name:
            shared = {
                variable: value
                for variable, value in self._environ.items()
                if variable.startswith(_FORWARDED) or variable in self._forward
            }
            guarded = [*self._ssh, host.name, _shell_command(guarded, {**shared, **own})]
        process = subprocess.Popen(
            guarded,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self._environ, **own},
            start_new_session=True,  # a terminal sends Ctrl-C to the launcher only
        )
        task = _Task(name, host, process)
        self._tasks.append(task)
        assert process.stdout is not None
        assert process.stderr is not None
        for stream, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            reader = threading.Thread(target=self._print, args=(task, stream, target), daemon=True)
            reader.start()
            task.readers.append(reader)
        threading.Thread(target=self._await, args=(task,), daemon=True).start()

    def watch(self) -> int:
        """Wait for the end of the workers and return the exit status of the launcher."""
        while any(task.status is None for task in self._workers()):
            task = self._ends.get()
            if task.status:
                self._say(f"{task.describe_end()}; the other processes are ended")
                return task.status
        self._wait(self._tasks, _LEAVING)
        return 0

    def _workers(self) -> list[_Task]:
        return [task for task in self._tasks if task.name.startswith("worker")]

    def interrupt(self) -> None:
        """Interrupt the workers and wait until they have saved their states, or a second signal."""
        with contextlib.suppress(_Interrupted):
            self._say(f"interrupted; workers end within {_SAVING} s, a second signal ends them now")
            workers = self._workers()
            for task in workers:
                task.interrupt()
            self._wait(workers, _SAVING)

    def _wait(self, tasks: Sequence[_Task], seconds: float) -> None:
        """Wait for the ends of processes, at most this time."""
        limit = time.monotonic() + seconds
        while any(task.status is None for task in tasks):
            try:
                self._ends.get(timeout=max(0, limit - time.monotonic()))
            except queue.Empty:
                return

    def _await(self, task: _Task) -> None:
        status = task.process.wait()
        task.status = status if status >= 0 else 128 - status
        self._ends.put(task)

    def _say(self, text: str) -> None:
        with self._output:
            print(f"cvops: {text}", file=sys.stderr, flush=True)

    def _print(self, task: _Task, stream: io.BufferedReader, target: IO[str]) -> None:
        """Print the lines of a stream after the name of its process."""

        def say(line: bytes | bytearray) -> None:
            text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
            with self._output:
                print(f"[{task.name}] {text}", file=target, flush=True)

        line = bytearray()
        with stream:
            while chunk := stream.read1(1 << 16):
                first, *others = chunk.split(b"\n")
                line += first
                for other in others:
                    say(line)
                    line = bytearray(other)
                if b"\r" in chunk:
                    # A progress bar writes its states over one another. The last one is visible.
                    del line[: max(0, line.rstrip(b"\r").rfind(b"\r"))]
        if line:
            say(line)
