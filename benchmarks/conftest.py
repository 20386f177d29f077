"""Runs the benchmarks.

    pytest benchmarks                                runs all; prints a table at the end
    pytest benchmarks --table FILE                   also writes the table as Markdown
    pytest benchmarks --benchmark-json FILE          writes all numbers
    pytest benchmarks -k "box_nms and (native or mxnet)"
    pytest benchmarks --benchmark-disable            only checks the results

``-k`` accepts an op, the id of a size, and an implementation: mxnet, torchvision, onnxruntime,
openvino, opencv, powerboxes, torch (dense PyTorch; also matches torchvision), book (the book's code
in PyTorch), numpy, native, one-thread, cupy, gpu or graph. The table has a row for each op, size
and implementation:

- the median time and the rate
- the speed relative to each peer and to the best peer of this run; a peer's time is that on the
  same kind of device if the peer runs there, else that on the CPU
- the lower bound on this machine (``limits.py``) in percent of the time

A summary of cvops and the best peers follows. On a GPU a last table has times by CUDA's events: see
``gpu_times.py``. The benchmarks check results, and never times.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from tools.implementations import IMPLEMENTATIONS
from tools.interface import Unavailable
from tools.limits import Limits, LowerBound, gpu_copying
from tools.machine import gpu_name, threads, versions
from tools.report import Row, Rows, table
from tools.text import aligned

#: Benchmarks of whole models have their own conftest.py.
collect_ignore = ["gluon"]

#: Minimum seconds of a round, which repeats short calls.
MIN_ROUND = 200e-6
#: Minimum and maximum number of rounds.
ROUNDS = 3, 200
#: A first call of at least these seconds is not repeated: its one-time work is negligible.
LONG = 0.3

_rows = pytest.StashKey[list]()
_notes = pytest.StashKey[dict]()
_bounds = pytest.StashKey[dict]()
_limits = pytest.StashKey[Limits]()
_tables = pytest.StashKey[dict]()


def pytest_addoption(parser):
    group = parser.getgroup("cvops")
    group.addoption("--table", metavar="FILE", help="write the table as Markdown")
    group.addoption(
        "--seconds", type=float, default=0.5, help="for each benchmark (default: %(default)s)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench")
    config.option.benchmark_quiet = True  # the table below replaces pytest-benchmark's
    config.stash[_rows], config.stash[_notes], config.stash[_bounds] = [], {}, {}
    config.stash[_limits], config.stash[_tables] = Limits(), {}


def pytest_unconfigure(config):
    config.stash[_limits].close()


def pytest_collection_modifyitems(items):
    """Group the benchmarks by size: all implementations at one size, then at the next."""
    groups = {}
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        size = item.nodeid.replace(f"[{params.get('time_job')}-", "[")
        groups.setdefault(size, []).append(item)
    items[:] = [item for group in groups.values() for item in group]


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock of the file CVOPS_BENCHMARK_LOCK: one process at a time runs a job."""
    path = os.environ.get("CVOPS_BENCHMARK_LOCK")
    with open(path, "a") if path else contextlib.nullcontext() as file:
        if file is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases it
        yield


@pytest.fixture(params=IMPLEMENTATIONS)
def time_job(request):
    """Return time_job(job), which checks and times one implementation of a ``Job``.

    With several jobs of one size, each call takes the next one, on a CPU only.
    """
    config = request.config
    implementation = IMPLEMENTATIONS[request.param]

    def skip(reason, *jobs):
        reason = f"{implementation.name}: {reason}"
        config.stash[_notes].setdefault(reason, {}).update(dict.fromkeys(jobs))
        pytest.skip(reason)

    missing = implementation.missing()
    if missing is not None:
        skip(missing)

    @exclusive()
    def run(job, *others):
        name = f"{job.op}, {job.size}"
        if request.param in job.too_slow:
            skip("takes too long", name)
        if others and implementation.device != "cpu":
            skip("new inputs are for branches on a CPU", name)
        with implementation.settings():
            try:
                call, once = implementation.first_call(job)
                all_calls = [call, *(implementation.first_call(other)[0] for other in others)]
            except Unavailable as error:
                skip(str(error), job.op)
            turn = cycle(all_calls)

            def finished_call():
                implementation.wait(next(turn)())

            # The fixture reads its options from a marker.
            request.node.add_marker(pytest.mark.benchmark(group=name, timer=implementation.clock))
            benchmark = request.getfixturevalue("benchmark")
            if once < LONG:
                start = implementation.clock()
                finished_call()
                once = implementation.clock() - start
            calls = max(1, min(1000, round(MIN_ROUND / once)))
            rounds = int(config.option.seconds / (once * calls))
            rounds = max(ROUNDS[0], min(ROUNDS[1], rounds))
            benchmark.pedantic(finished_call, rounds=rounds, iterations=calls)
        if benchmark.stats is None:  # timing is disabled
            return
        median = benchmark.stats["median"]
        gpu = implementation.gpu_times(call, config.option.seconds)
        bound = lower_bound(job)
        row = Row(job.op, job.size, implementation, median, job.work, job.moved, bound, gpu)
        config.stash[_rows].append(row)
        benchmark.extra_info.update(
            op=job.op,
            size=job.size,
            implementation=implementation.name,
            bytes=job.moved,
            **{job.work[1]: job.work[0]},
        )
        if bound is not None:
            benchmark.extra_info.update(bound_seconds=bound.seconds, bound_work=bound.work)
        if gpu is not None:
            benchmark.extra_info.update(gpu=gpu._asdict())

    def lower_bound(job):
        """Return the bound of a job; None if an error made the GPU unusable."""
        bounds = config.stash[_bounds]
        key = job.op, job.size, implementation.device
        if key not in bounds:
            bounds[key] = None
            if implementation.device == "cpu":
                bounds[key] = config.stash[_limits].lower_bound(job)
            else:
                with contextlib.suppress(Exception):
                    bounds[key] = LowerBound(job.moved / gpu_copying(), "copying")
        return bounds[key]

    return run


@pytest.fixture(scope="session")
def tables(request):
    """Return tables(title): the lines of that table, for benchmarks to append; the head first."""
    return lambda title: request.config.stash[_tables].setdefault(title, [])


def pytest_terminal_summary(terminalreporter, config):
    rows, tables = config.stash[_rows], config.stash[_tables]
    if not rows and not any(tables.values()):
        return
    notes = config.stash[_notes].items()
    notes = [reason + (f" ({'; '.join(jobs)})" if jobs else "") for reason, jobs in notes]
    text = table(rows, config.stash[_limits], notes)
    for title, lines in tables.items():
        if not lines:  # its benchmarks were skipped
            continue
        text += "\n".join(["", f"### {title}", "", *aligned(lines, left=1), ""])
    terminalreporter.write_sep("=", "benchmarks")
    terminalreporter.write(text)
    if config.option.table:
        Path(config.option.table).write_text(text, "utf-8")


# The JSON has no names of the machine and no single rounds.


def pytest_benchmark_update_machine_info(config, machine_info):
    for name in ("node", "release", "python_build"):
        machine_info.pop(name, None)
    limits = config.stash[_limits].rates.items()
    machine_info.update(
        gpu=gpu_name(),
        versions=versions(),
        threads=threads(),
        limits=[dict(kind=kind, size=size, rate=rate) for (kind, size), rate in limits],
    )


def pytest_benchmark_update_commit_info(config, commit_info):
    for name in set(commit_info) - {"id", "time", "dirty"}:
        del commit_info[name]


def pytest_benchmark_update_json(config, benchmarks, output_json):
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
    output_json["summary"] = Rows(config.stash[_rows]).summary()
    output_json["gpu"] = Rows(config.stash[_rows]).gpu()
    output_json["tables"] = config.stash[_tables]
