"""``cvops launch``: roles, output, and the end of all processes. The workers are shell scripts."""

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from requirements import skip_without

from cvops import launch
from cvops.cli import main

skip_without("mxnet")

EXAMPLES = Path(__file__).parents[2] / "examples"
#: A child, the process itself, and a line when both run.
SLEEP = "sleep 100 & echo $! $$ > $0; echo ready; wait"
#: One of the workers makes the folder, and the others do not.
FIRST = "mkdir $0.first 2>/dev/null"


@pytest.fixture(autouse=True)
def leave_at_once(monkeypatch):
    """The scheduler and the servers wait for workers that use MXNet."""
    monkeypatch.setattr(launch, "_LEAVING", 0)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_gone(file, seconds=15):
    """Wait for the end of the processes whose numbers are in a file."""
    limit = time.monotonic() + seconds
    pids = file.read_text().split()
    assert len(pids) == 2
    while any(map(is_running, pids)):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_processes_have_roles_and_their_lines_have_names(capsys):
    text = "echo $DMLC_ROLE $DMLC_NUM_WORKER $DMLC_NUM_SERVER; printf 'a\\rb\\n' >&2"
    assert launch.run(["sh", "-c", text], 3) == 0
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == [f"[worker {rank}] worker 3 1" for rank in range(3)]
    assert sorted(err.splitlines()) == [f"[worker {rank}] b" for rank in range(3)]


def test_progress_bar_takes_no_more_memory_than_a_state(capsys):
    """Its states have no end of a line. Parts of the output end anywhere."""

    class Stream(io.BytesIO):
        def read1(self, size):
            return next(chunks, b"")

    states = [b"\r" + b"x" * 40_000, b"y" * 10_000 + b"\r" + b"z" * 50_000]
    end = [b"\rla", b"st\r", b"\nnext\nno end"]
    chunks = itertools.chain(*itertools.repeat(states, 300), end)
    task = launch._Task("worker 0", launch.LOCAL, None)
    tracemalloc.start()
    try:
        launch._Launcher({}, [], [])._print(task, Stream(), sys.stdout)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 30 MB
    finally:
        tracemalloc.stop()
    lines = ["last", "next", "no end"]
    assert capsys.readouterr().out.splitlines() == [f"[worker 0] {line}" for line in lines]


def test_workers_share_the_cores(monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7))
    assert launch.run(["sh", "-c", "echo $OMP_NUM_THREADS"], 2) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["[worker 0] 3", "[worker 1] 3"]


def test_all_processes_end_after_a_failure(tmp_path, capsys):
    file = tmp_path / "pids"
    wait = "until [ -s $0 ]; do sleep 0.05; done; exit 3"
    assert launch.run(["sh", "-c", f"if {FIRST}; then {SLEEP}; else {wait}; fi", str(file)], 2) == 3
    check_gone(file, 0.5)
    assert "ended with status 3; the other processes are ended" in capsys.readouterr().err


def test_killed_process_is_named(capsys):
    assert launch.run(["sh", "-c", "kill -9 $$"], 1) == 128 + 9
    assert "cvops: worker 0 was killed by SIGKILL" in capsys.readouterr().err


def test_command_that_does_not_exist_fails(capsys):
    assert launch.run(["/no/command"], 1) == 127
    assert (
        "[worker 0] cvops: /no/command: cannot be started: No such file" in capsys.readouterr().err
    )


def test_process_that_ignores_signals_ends(tmp_path):
    file = tmp_path / "pids"
    wait = "until [ -s $0 ]; do sleep 0.05; done; exit 1"
    text = f"if {FIRST}; then trap '' TERM INT; {SLEEP}; else {wait}; fi"
    start = time.monotonic()
    assert launch.run(["sh", "-c", text, str(file)], 2) == 1
    check_gone(file, 0.5)
    assert time.monotonic() - start < 60


def start_launcher(file, script):
    command = [sys.executable, "-m", "cvops", "launch", "-n", "1", "--", "sh", "-c", script, file]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_all_processes_end_with_a_killed_launcher(tmp_path):
    file = tmp_path / "pids"
    with start_launcher(file, SLEEP) as launcher:
        assert launcher.stdout.readline() == "[worker 0] ready\n"
        launcher.kill()
    check_gone(file)


def test_signal_while_processes_start_ends_them(monkeypatch, capsys):
    begin = launch._Launcher.start

    def start(self, name, *given, **variables):
        begin(self, name, *given, **variables)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(launch._Launcher, "start", start)
    assert launch.run(["sleep", "100"], 1) == 128 + signal.SIGTERM
    assert "cvops: interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_may_save_after_a_signal(tmp_path, number):
    script = f"trap 'echo saved; exit 130' INT; {SLEEP}"
    with start_launcher(tmp_path / "pids", script) as launcher:
        assert launcher.stdout.readline() == "[worker 0] ready\n"
        launcher.send_signal(number)
        out, err = launcher.communicate(timeout=60)
    assert out == "[worker 0] saved\n"
    assert "cvops: interrupted; workers end within 60 s" in err
    assert launcher.returncode == 128 + number
    check_gone(tmp_path / "pids", 0.5)


def test_second_signal_ends_the_workers_at_once(tmp_path):
    with start_launcher(tmp_path / "pids", f"trap 'echo later' INT; {SLEEP}; wait") as launcher:
        assert launcher.stdout.readline() == "[worker 0] ready\n"
        launcher.send_signal(signal.SIGINT)
        assert launcher.stdout.readline() == "[worker 0] later\n"
        launcher.send_signal(signal.SIGINT)
        launcher.communicate(timeout=30)
    assert launcher.returncode == 130
    check_gone(tmp_path / "pids", 0.5)


@pytest.fixture
def ssh(tmp_path):
    """A command that writes the name of its machine and runs the shell command here."""
    file = tmp_path / "ssh"
    file.write_text('#!/bin/sh\necho "to $2"\nexec sh -c "$3"\n')
    file.chmod(0o755)
    return f"{file} -x"


def test_processes_run_on_hosts(tmp_path, ssh, monkeypatch, capsys):
    hosts = tmp_path / "hosts"
    hosts.write_text("# two\na 127.0.0.1\n\nuser@b 127.0.0.2 # the second\n")
    for name in ("MXNET_X", "CVOPS_X", "TOKEN", "OTHER"):
        monkeypatch.setenv(name, "it's a")
    text = 'echo "$1" $(pwd) $DMLC_NODE_HOST $DMLC_PS_ROOT_URI'
    # ssh passes the environment of the test on, and a real one does not.
    monkeypatch.setattr(subprocess, "Popen", without_environment(subprocess.Popen))
    found = []
    monkeypatch.setattr(launch, "_shell_command", remember(launch._shell_command, found))
    monkeypatch.chdir(tmp_path)
    status = launch.run(
        ["sh", "-c", text, "sh", "a 'b' $c"],
        3,
        hosts=launch.read_hosts(hosts),
        ssh=ssh,
        address="127.0.0.9",
        forward=["TOKEN"],
    )
    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    # MXNet ranks by address, the greatest text first.
    for rank, (name, address) in enumerate([("user@b", "127.0.0.2"), *[("a", "127.0.0.1")] * 2]):
        assert f"[worker {rank}] to {name}" in lines
        assert f"[worker {rank}] a 'b' $c {tmp_path} {address} 127.0.0.9" in lines
    assert "[server 0] to a" in lines
    variables = found[-1]
    assert {variables.get(name) for name in ("MXNET_X", "CVOPS_X", "TOKEN")} == {"it's a"}
    assert "OTHER" not in variables


def without_environment(popen):
    def start(command, *, env=None, **options):
        return popen(command, env={"PATH": os.environ["PATH"]}, **options)

    return start


def remember(function, found):
    def call(command, environ):
        found.append(environ)
        return function(command, environ)

    return call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a machine in each line, got none"),
        ("# only\n", "expected a machine in each line, got none"),
        ("a b c\n", "line 1: expected a name and an address, got 'a b c'"),
        ("a 127.0.0.1\n-oProxyCommand=x 127.0.0.1\n", "line 2: expected a name"),
        ("a no.such.host.invalid\n", "line 1: unknown host 'no.such.host.invalid'"),
    ],
)
def test_hosts_of_another_form_are_rejected(tmp_path, text, message, capsys):
    file = tmp_path / "hosts"
    file.write_text(text)
    assert main(["launch", "-n", "2", "--hosts", str(file), "--", "true"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"cvops: {file}: ")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "2"], "command: expected the command of a worker after --, got none"),
        (["-n", "2", "--"], "command: expected the command of a worker after --, got none"),
        (["-n", "1", "--hosts", "/no/hosts", "--", "true"], "/no/hosts"),
    ],
)
def test_launch_without_a_command_or_hosts_is_rejected(arguments, message, capsys):
    assert main(["launch", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_launch_without_ssh_is_rejected(tmp_path, capsys):
    file = tmp_path / "hosts"
    file.write_text("a 127.0.0.1\n")
    command = ["launch", "-n", "1", "--hosts", str(file), "--ssh", "/no/ssh", "--", "true"]
    assert main(command) == 2
    assert "/no/ssh" in capsys.readouterr().err


def check_shell(script):
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in re.findall(r"DMLC_\w+", script):
        assert name in DMLC


#: The variables of MXNet's processes.
DMLC = {"DMLC_ROLE", *(f"DMLC_NUM_{kind}" for kind in ("WORKER", "SERVER"))}
DMLC |= {f"DMLC_PS_ROOT_{part}" for part in ("URI", "PORT")}


def test_example_for_slurm_is_a_shell_script():
    script = (EXAMPLES / "slurm.sh").read_text()
    check_shell(script)
    assert set(re.findall(r"DMLC_\w+", script)) == DMLC


def test_example_for_kubernetes_starts_all_processes():
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_shell(container["args"][0])
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert {*variables, "DMLC_ROLE"} == DMLC
    servers, workers = (int(variables[f"DMLC_NUM_{kind}"]) for kind in ("SERVER", "WORKER"))
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 1 + servers + workers
    name, domain = job["metadata"]["name"], service["metadata"]["name"]
    assert variables["DMLC_PS_ROOT_URI"] == f"{name}-0.{domain}"
    assert pod["subdomain"] == domain
    assert service["spec"]["selector"] == {"job-name": name}
