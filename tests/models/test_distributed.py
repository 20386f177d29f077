"""Training in several processes: environment variables, lost processes, sums over workers."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
from requirements import skip_without

skip_without("mxnet")

from cvops import distributed
from cvops.distributed.environment import HEARTBEATS


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def variables(role, port, **more):
    """The environment variables of a process of a training on this machine."""
    about = {
        **{"DMLC_ROLE": role, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(port)},
        **{"DMLC_NUM_WORKER": "1", "DMLC_NUM_SERVER": "1", "OMP_NUM_THREADS": "1"},
    }
    return {**about, **more}


@pytest.fixture
def environment(monkeypatch):
    """set_variables(**variables) sets them for the test, and None removes one."""
    names = ("DMLC_NODE_HOST", "DMLC_INTERFACE", "DMLC_RANK", "CVOPS_JOIN_TIMEOUT")
    for name in (*names, *HEARTBEATS):
        monkeypatch.delenv(name, raising=False)

    def set_variables(**given):
        for name, value in given.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    yield set_variables
    # The code under test has set these.
    for name in (*names, *HEARTBEATS):
        os.environ.pop(name, None)


# --- environment variables ------------------------------------------------------------------------

WRONG = [
    ({"DMLC_ROLE": None}, "DMLC_ROLE: expected one of .*no such variable; `cvops launch` sets it"),
    ({"DMLC_ROLE": "boss"}, "DMLC_ROLE: expected one of scheduler, server, worker, got 'boss'"),
    ({"DMLC_PS_ROOT_URI": None}, "DMLC_PS_ROOT_URI: expected the scheduler's address, got None"),
    ({"DMLC_PS_ROOT_URI": "no.host.invalid"}, "DMLC_PS_ROOT_URI: expected the scheduler's addr"),
    ({"DMLC_PS_ROOT_PORT": "66000"}, "DMLC_PS_ROOT_PORT: expected a number from 1 to 65535, got"),
    ({"DMLC_NUM_WORKER": None}, "DMLC_NUM_WORKER: expected a number from 1 to 10000, got None"),
    ({"DMLC_NUM_SERVER": "two"}, "DMLC_NUM_SERVER: expected a number from 1 to 10000, got 'two'"),
    ({"PS_HEARTBEAT_INTERVAL": "0"}, "PS_HEARTBEAT_INTERVAL: expected a number from 1 to"),
    ({"PS_HEARTBEAT_TIMEOUT": "3"}, "PS_HEARTBEAT_TIMEOUT: expected a number from 4 to"),
    ({"CVOPS_JOIN_TIMEOUT": "-1"}, "CVOPS_JOIN_TIMEOUT: expected a number from 1 to"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_wrong_variable_is_rejected(environment, wrong, message):
    environment(**{**variables("worker", 9), "CVOPS_JOIN_TIMEOUT": "1", **wrong})
    with pytest.raises(ValueError, match=message):
        distributed.join()


@pytest.mark.parametrize("kvstore", ["device", "dist_async", "dist", None])
def test_other_kvstores_are_rejected(environment, kvstore):
    environment(**variables("worker", 9))
    with pytest.raises(ValueError, match="kvstore: expected one of dist_sync, dist_device_sync"):
        distributed.join(kvstore)


def test_role_of_another_function_is_rejected(environment):
    environment(**variables("server", 9))
    with pytest.raises(ValueError, match="DMLC_ROLE: expected worker, got 'server'"):
        distributed.join()
    environment(DMLC_ROLE="worker")
    with pytest.raises(ValueError, match="DMLC_ROLE: expected scheduler or server, got 'worker'"):
        distributed.serve()


def test_used_port_is_rejected(environment, capsys):
    with socket.socket() as used:
        used.bind(("", 0))
        used.listen()
        port = used.getsockname()[1]
        environment(**variables("scheduler", port))
        assert distributed.main() == 2
    err = capsys.readouterr().err
    assert (
        err
        == f"cvops: DMLC_PS_ROOT_PORT: expected a free port, got {port}: Address already in use\n"
    )


def test_server_without_mxnet_prints_the_command_that_installs_it(environment, monkeypatch, capsys):
    def mxnet():
        raise ModuleNotFoundError("No module named 'mxnet': pip install ...")

    monkeypatch.setattr("cvops.distributed.service.cuda11.libmxnet", lambda: None)
    monkeypatch.setattr("cvops.distributed.service.mxnet", mxnet)
    environment(**variables("server", free_port()))
    assert distributed.main() == 2
    assert capsys.readouterr().err == "cvops: No module named 'mxnet': pip install ...\n"


def test_scheduler_without_a_route_is_rejected(environment, monkeypatch):
    def address_toward(host):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("cvops.distributed.environment.address_toward", address_toward)
    environment(**variables("worker", 9))
    with pytest.raises(ValueError, match=r"DMLC_PS_ROOT_URI: .* '127\.0\.0\.1': Network is"):
        distributed.join()


def test_store_that_cannot_be_made_leaves_the_process(environment, monkeypatch):
    def create(kvstore):
        raise RuntimeError("no store")

    mx = types.SimpleNamespace(kv=types.SimpleNamespace(create=create))
    monkeypatch.setattr(distributed, "mxnet", lambda: mx)
    environment(**variables("worker", 9))
    with pytest.raises(RuntimeError, match="no store"):
        distributed.join()
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(5)
    assert not any(timer.is_alive() for timer in timers)


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [(None, 0, ""), (0, 0, ""), (3, 3, ""), ("no data", 1, "no data\n")],
)
def test_exit_of_a_worker_has_its_status(monkeypatch, capsys, code, status, text):
    class Ended(Exception):
        pass

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)
    worker = object.__new__(distributed.Worker)
    with pytest.raises(Ended) as ended, worker:
        sys.exit(code)
    assert ended.value.args == (status,)
    assert capsys.readouterr().err == text


# --- lost processes -------------------------------------------------------------------------------


def start(role, port, command=("-m", "cvops.distributed"), **more):
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **variables(role, port, **more)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_scheduler_without_the_others_ends():
    with start("scheduler", port := free_port(), CVOPS_JOIN_TIMEOUT="1") as scheduler:
        _, err = scheduler.communicate(timeout=60)
    assert scheduler.returncode == 1
    assert err == (
        f"cvops: expected a scheduler at 127.0.0.1:{port}, 1 server(s) and 1 worker(s), got fewer "
        "within 1 s\n"
    )


WORKER = """
import cvops
from cvops import distributed

with distributed.join() as workers:
    assert workers.sum([[1, 2.5]]).tolist() == [[1, 2.5]]
    print("joined", flush=True)
    while True:
        workers.sum([1])
"""


def test_processes_end_after_a_lost_server():
    port, heart = free_port(), {"PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5"}
    scheduler, server = (start(role, port, **heart) for role in ("scheduler", "server"))
    with scheduler, server, start("worker", port, ["-c", WORKER], **heart) as worker:
        assert worker.stdout.readline() == "joined\n"
        server.kill()
        begin = time.monotonic()
        _, scheduler_error = scheduler.communicate(timeout=60)
        _, worker_error = worker.communicate(timeout=60)
        # The server is silent for 5 s, then the scheduler.
        assert time.monotonic() - begin < 60
    assert (scheduler.returncode, worker.returncode) == (1, 1)
    lost = "no sign of life for 5 s; this process ends\n"
    assert scheduler_error == f"cvops: server 0: {lost}"
    assert worker_error == f"cvops: the scheduler: {lost}"
