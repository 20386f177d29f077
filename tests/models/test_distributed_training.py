"""``cvops train`` in several processes: the losses of one process, lost workers, networks."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import contextlib
import csv
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "pycocotools", "PIL", "tqdm")

from PIL import Image

from cvops import cli, distributed, training
from cvops._mxnet import mxnet
from cvops.datasets.set_writer import Example, write_set
from cvops.recipes import run

mx = mxnet()
SIDE = 64


def examples(count):
    """Images with one rectangle each, in one of two colors."""
    for number in range(count):
        kind, offset = number % 2, 3 * number
        image = np.full((SIDE, SIDE, 3), 40, np.uint8)
        image[offset : offset + 24, 10:40] = (200, 30, 30) if kind else (30, 30, 200)
        box = np.array([[kind, 10, offset, 40, offset + 24, 0]], np.float32)
        box[:, 1:5] /= SIDE
        yield Example(Image.fromarray(image), box, None, f"{number}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    splits = {"train": examples(8), "val": examples(2)}
    write_set(folder / "set", "boxes", ("blue", "red"), splits)
    return folder


def training_command(folder, output):
    """The arguments of a training, two steps an epoch."""
    options = {"--output": output, "--side": SIDE, "--epochs": 2, "--batch": 4, "--workers": 0}
    return ["train", str(folder / "set"), *map(str, itertools.chain(*options.items()))]


@pytest.fixture(scope="module")
def alone(folder):
    """The folder of a run in one process. Each of two devices has the batch of a worker."""
    output = folder / "alone"
    assert cli.main([*training_command(folder, output), "--devices", "cpu:0,1"]) == 0
    return output


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def launch(arguments, prefix=()):
    command = [*prefix, sys.executable, "-m", "cvops", "launch", "-n", "2", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)


class NoNamespaces(Exception):
    """This process cannot make network namespaces. The message has the reason."""


def ip(*arguments):
    if shutil.which("ip") is None:
        raise NoNamespaces("no command ip")
    found = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if found.returncode:
        raise NoNamespaces(f"ip {' '.join(arguments)}: {found.stderr.strip()}")


@contextlib.contextmanager
def namespaces():
    """Give the names of three network namespaces: one with a bridge to the two others."""
    middle, *ends = (f"cvops{os.getpid()}{letter}" for letter in "abc")
    with contextlib.ExitStack() as made:
        for name in (middle, *ends):
            ip("netns", "add", name)
            made.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", middle, "link", "add", "bridge", "type", "bridge")
        ip("-n", middle, "addr", "add", "10.77.0.1/24", "dev", "bridge")
        ip("-n", middle, "link", "set", "bridge", "up")
        for number, name in enumerate(ends, 2):
            port, peer = f"port{number}", ["peer", "name", "eth0", "netns", name]
            ip("-n", middle, "link", "add", port, "type", "veth", *peer)
            ip("-n", middle, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield middle, *ends


def launch_in_namespaces(folder, arguments):
    """Launch workers in two namespaces; a script in the place of ssh enters them."""
    hosts, ssh = folder / "hosts", folder / "ssh"
    ssh.write_text('#!/bin/sh\necho "$1" >> "$0.log"\nexec ip netns exec "$1" sh -c "$2"\n')
    ssh.chmod(0o755)
    with namespaces() as (middle, *ends):
        lines = [f"{name} 10.77.0.{number}\n" for number, name in enumerate(ends, 2)]
        hosts.write_text("".join(lines))
        prefix = ["ip", "netns", "exec", middle]
        return launch(["--hosts", str(hosts), "--ssh", str(ssh), "--", *arguments], prefix)


@pytest.fixture(scope="module")
def together(operators, folder):
    """The folder of a run of two workers, and the reason if they had no namespaces."""
    reason, output = None, folder / "together"
    command = ["cvops", *training_command(folder, output), "--kvstore", "dist_sync"]
    try:
        done = launch_in_namespaces(folder, command)
    except NoNamespaces as error:
        reason, done = str(error), launch(["--", *command])
    assert done.returncode == 0, done.stderr
    return output, reason


def read_log(output):
    with (output / "log.csv").open() as file:
        return list(csv.DictReader(file))


def parameters(output):
    """The parameters of a run, without running means, which each device and worker has."""
    arrays = mx.nd.load(str(output / "last.params"))
    return {name: x.asnumpy() for name, x in arrays.items() if "running" not in name}


def test_two_workers_train_as_one_process(alone, together):
    output, _ = together
    own, other = read_log(output), read_log(alone)
    assert [row["epoch"] for row in own] == ["1", "2"]
    for row, expected in zip(own, other):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert row["learning rate"] == expected["learning rate"]
    own, other = parameters(output), parameters(alone)
    assert own.keys() == other.keys()
    for name, array in own.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-5, atol=1e-5)


def test_workers_ran_on_two_machines(folder, together):
    _, reason = together
    if reason:
        pytest.skip(f"no network namespaces here: {reason}")
    first, second = (line.split()[0] for line in (folder / "hosts").read_text().splitlines())
    # The server and a worker, and the other worker.
    assert sorted((folder / "ssh.log").read_text().split()) == [first, first, second]


#: Worker 1 kills a process of the role in the first argument in the fourth step.
LOST = """
import contextlib
import os
import signal
import sys
from pathlib import Path
from cvops import cli, distributed, training

steps = 0
mean = distributed.Worker.mean
role = sys.argv.pop(1)

def lost_process():
    if role == "worker":
        return os.getpid()
    port = f"DMLC_PS_ROOT_PORT={os.environ['DMLC_PS_ROOT_PORT']}"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_text().split("\\0")
            is_guard = "_guard" in (folder / "cmdline").read_text()
            if port in variables and f"DMLC_ROLE={role}" in variables and not is_guard:
                return int(folder.name)

def lose(worker, values):
    global steps
    steps += len(values) > 1
    if worker.rank == 1 and steps == 4:
        os.kill(lost_process(), signal.SIGKILL)
    return mean(worker, values)

distributed.Worker.mean = lose
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("role", "name"), [("worker", "worker 1"), ("server", "server 0")])
def test_training_resumes_after_a_lost_process(folder, together, role, name):
    output = folder / f"lost {role}"
    command = [*training_command(folder, output), "--kvstore", "dist_sync"]
    lost = launch(["--", "python", "-c", LOST, role, *command])
    assert lost.returncode == 128 + 9, lost.stderr
    assert f"cvops: {name} was killed by SIGKILL; the other processes are ended" in lost.stderr
    assert [row["epoch"] for row in read_log(output)] == ["1"]

    resumed = launch(["--", "cvops", *command, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    lines = resumed.stdout.splitlines()
    assert [line[:20] for line in lines] == ["[worker 0] epoch  2:", "[worker 0] best epoc"]
    uninterrupted, _ = together
    assert read_log(output) == read_log(uninterrupted)
    own, other = parameters(output), parameters(uninterrupted)
    for name, array in own.items():
        np.testing.assert_array_equal(array, other[name])


# --- one process ----------------------------------------------------------------------------------


class Second(distributed.Process):
    """A second worker without a first one, which asks for the end after the third step."""

    rank, num_workers = 1, 2
    calls = 0

    def mean(self, values):
        self.calls += 1
        *losses, stopped = values
        return [*losses, (stopped + (self.calls == 3)) / 2]


def fit(process, saved):
    """Train a layer for two epochs of two steps; return the number of steps."""
    net = mx.gluon.nn.Dense(1, in_units=2)
    net.initialize()
    steps = []

    def step(trainer, batch):
        steps.append(batch)
        return [0.5]

    task = training.Task(2, lambda epoch, first: range(first, 2), step, training.mean_losses(["x"]))
    settings = {"epochs": 2, "rate": 0.1, "seed": 0}
    with contextlib.suppress(training.Interrupted):
        training.fit(task, net, "sgd", {}, settings, saved, process=process)
        return "complete"
    return len(steps)


def test_stop_of_another_worker_stops_this_one(tmp_path, capsys):
    assert fit(Second(), tmp_path / "checkpoint") == 3
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")
    assert fit(distributed.Process(), tmp_path / "checkpoint") == "complete"


def test_batch_that_workers_cannot_share_is_rejected(folder, tmp_path):
    options = run.Options(str(folder / "set"), str(tmp_path / "run"), side=SIDE, batch=3)
    with pytest.raises(ValueError, match="batch: expected a multiple of the number of workers, 2"):
        run.train(options, process=Second())


def test_training_needs_a_store_for_its_processes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DMLC_ROLE", raising=False)
    command = training_command(folder, tmp_path / "run")
    assert cli.main([*command, "--kvstore", "dist_sync"]) == 2
    assert "cvops: DMLC_ROLE: expected one of" in capsys.readouterr().err
    monkeypatch.setenv("DMLC_ROLE", "worker")
    assert cli.main(command) == 2
    assert "cvops: kvstore: expected one of ['dist_sync'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
