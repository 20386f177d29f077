"""Runs the benchmarks.

    pytest benchmarks                                runs all; prints a table at the end
    pytest benchmarks --table FILE                   also writes the table as Markdown
    pytest benchmarks --benchmark-json FILE          writes all numbers
    pytest benchmarks -k "box_nms and (native or mxnet)"
    pytest benchmarks --benchmark-disable            only checks the results

``-k`` accepts an op, the id of a size, and a contender: mxnet, torchvision, onnxruntime, torch
(dense PyTorch; also matches torchvision), book (the book's code in PyTorch), numpy, native,
one-thread, cupy, gpu or graph. For each op and size the table has each contender's median time, its
rate, its speed relative to each peer and to the best peer of this run (on the same kind of device,
if the peer runs there), and its share of this machine's limit (``limits.py``). A summary of cvops
and the best peers follows. On a GPU a last table has times by its own clock: see ``gpu_times.py``.
The benchmarks check results, and never times.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tools.harness import CONTENDERS, Absent
from tools.limits import Floor, Limits, gpu_copying
from tools.report import Row, Rows, aligned, gpu_name, table, threads, versions

#: Benchmarks of whole models have their own conftest.py.
collect_ignore = ["gluon"]

#: The least seconds of a round, which repeats short calls.
SHORTEST_ROUND = 200e-6
ROUNDS = 3, 200
#: A first call of at least these seconds is not repeated: its one-time work is negligible.
LONG = 0.3

_rows = pytest.StashKey[list]()
_notes = pytest.StashKey[dict]()
_floors = pytest.StashKey[dict]()
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
    config.stash[_rows], config.stash[_notes], config.stash[_floors] = [], {}, {}
    config.stash[_limits], config.stash[_tables] = Limits(), {}


def pytest_unconfigure(config):
    config.stash[_limits].close()


def pytest_collection_modifyitems(items):
    """Group the benchmarks by size: all contenders at one size, then at the next."""
    groups = {}
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        size = item.nodeid.replace(f"[{params.get('race')}-", "[")
        groups.setdefault(size, []).append(item)
    items[:] = [item for group in groups.values() for item in group]


@pytest.fixture(params=CONTENDERS)
def race(request):
    """Return race(job), which checks and times one contender on a ``Job``."""
    config = request.config
    contender = CONTENDERS[request.param]

    def absent(why, *where):
        why = f"{contender.name}: {why}"
        config.stash[_notes].setdefault(why, {}).update(dict.fromkeys(where))
        pytest.skip(why)

    missing = contender.missing()
    if missing is not None:
        absent(missing)

    def run(job):
        name = f"{job.op}, {job.size}"
        if request.param in job.too_slow:
            absent("takes too long", name)
        with contender.settings():
            try:
                call, once = contender.begin(job)
            except Absent as error:
                absent(str(error), job.op)

            def done():
                contender.wait(call())

            # The fixture reads its options from a marker.
            request.node.add_marker(pytest.mark.benchmark(group=name, timer=contender.clock))
            benchmark = request.getfixturevalue("benchmark")
            if once < LONG:
                start = contender.clock()
                done()
                once = contender.clock() - start
            calls = max(1, min(1000, round(SHORTEST_ROUND / once)))
            rounds = int(config.option.seconds / (once * calls))
            rounds = max(ROUNDS[0], min(ROUNDS[1], rounds))
            benchmark.pedantic(done, rounds=rounds, iterations=calls)
        if benchmark.stats is None:  # timing is disabled
            return
        median = benchmark.stats["median"]
        gpu = contender.gpu_times(call, config.option.seconds)
        row = Row(job.op, job.size, contender, median, job.work, job.moved, floor(job), gpu)
        config.stash[_rows].append(row)
        benchmark.extra_info.update(
            {"op": job.op, "size": job.size, "backend": contender.name, "bytes": job.moved},
            **{job.work[1]: job.work[0]},
        )
        if row.floor is not None:
            benchmark.extra_info.update(limit_seconds=row.floor.seconds, limit=row.floor.what)
        if gpu is not None:
            benchmark.extra_info.update(gpu=gpu._asdict())

    def floor(job):
        """Return the bound of a job; None if an error made the GPU unusable."""
        floors = config.stash[_floors]
        key = job.op, job.size, contender.device
        if key not in floors:
            floors[key] = None
            if contender.device == "cpu":
                floors[key] = config.stash[_limits].floor(job)
            else:
                with contextlib.suppress(Exception):
                    floors[key] = Floor(job.moved / gpu_copying(), "copying")
        return floors[key]

    return run


@pytest.fixture(scope="session")
def tables(request):
    """Return tables(title): the lines of that table, for benchmarks to append; the head first."""
    return lambda title: request.config.stash[_tables].setdefault(title, [])


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_rows]
    if not rows:
        return
    notes = config.stash[_notes].items()
    notes = [why + (f" ({'; '.join(where)})" if where else "") for why, where in notes]
    text = table(rows, config.stash[_limits], notes)
    for title, lines in config.stash[_tables].items():
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
