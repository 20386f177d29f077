"""Runs the benchmarks of whole Gluon models with the operators of MXNet and of cvops.

    make bench-gluon                                 all; writes the table and all numbers
    pytest benchmarks/gluon --table FILE             writes the table as Markdown
    pytest benchmarks/gluon --benchmark-json FILE    writes all numbers
    pytest benchmarks/gluon --benchmark-disable      only compares the results

The peers run alternately in each round, so that other load on the machine affects all of them.
``pytest benchmarks`` does not include these benchmarks.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from tools.machine import about
from tools.text import SECONDS, aligned, digits, scaled

from cvops._mxnet import mxnet

SETTINGS = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"

_rows = pytest.StashKey[list]()
_done = pytest.StashKey[dict]()


class Row(NamedTuple):
    """The time of a peer in a case; ``columns`` are the additional columns of the benchmark."""

    title: str
    case: str
    peer: str
    median: float
    columns: dict[str, str]


def pytest_configure(config):
    config.stash[_rows], config.stash[_done] = [], {}


def alternate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each call, which include a wait for MXNet's threads."""
    mx = mxnet()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            mx.nd.waitall()
            start = time.perf_counter()
            call()
            mx.nd.waitall()
            times[name].append(time.perf_counter() - start)
    return times


@pytest.fixture
def time_case(request):
    """Return time_case(case, peer, prepare, ...), which times all peers and reports one of them.

    ``prepare()`` returns the calls by name, checked and warm: one for each peer, and others for the
    columns. It runs once for a case; the benchmarks of the other peers use the same times. A call
    may have ``repeats`` equal steps; the report has the time of one step. The table has the speed
    of each peer relative to ``base``, and the additional columns of ``columns(medians, peer)``.
    """
    config, title = request.config, request.node.function.__doc__
    disabled = config.option.benchmark_disable

    def run(case, peer, prepare, *, base, rounds, repeats=1, columns=lambda medians, peer: {}):
        done = config.stash[_done]
        if (title, case) not in done:
            calls = prepare()
            done[title, case] = alternate(calls, 0 if disabled else rounds)
            calls.clear()
            gc.collect()  # blocks have reference cycles; the next case needs their memory
        if disabled:
            return
        times = done[title, case]
        medians = {name: statistics.median(taken) / repeats for name, taken in times.items()}
        ratio = "" if peer == base else digits(medians[base] / medians[peer])
        extra = {f"x {base}": ratio, **columns(medians, peer)}
        heading = title.partition("\n")[0].rstrip(".")
        info = {"peer": peer, "medians": medians}
        taken = [seconds / repeats for seconds in times[peer]]
        _report_times(request, f"{heading}: {case}", taken, info)
        config.stash[_rows].append(Row(title, case, peer, medians[peer], extra))

    return run


def _report_times(request, group, times, info):
    """Report measured times to pytest-benchmark, with a clock that they advance."""
    now, left = 0.0, iter(times)

    def step():
        nonlocal now
        now += next(left)

    request.node.add_marker(pytest.mark.benchmark(group=group, timer=lambda: now))
    benchmark = request.getfixturevalue("benchmark")
    benchmark.extra_info.update(info)
    benchmark.pedantic(step, rounds=len(times))


def table(rows):
    settings = ", ".join(f"{name}={os.environ.get(name, '(not set)')}" for name in SETTINGS)
    text = [about(), f"{settings}. Medians; the peers ran alternately in each round."]
    for title in dict.fromkeys(row.title for row in rows):
        section = [row for row in rows if row.title == title]
        lines = [["case", "operators", "median", *section[0].columns]]
        case = ""
        for row in section:
            shown = row.case if row.case != case else ""
            lines.append([shown, row.peer, scaled(row.median, SECONDS), *row.columns.values()])
            case = row.case
        heading, _, rest = title.partition("\n")
        paragraph = " ".join(rest.split())
        text += ["", f"### {heading.rstrip('.')}", ""]
        text += [paragraph, ""] if paragraph else []
        text += aligned(lines)
    return "\n".join(text) + "\n"


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_rows]
    if not rows:
        return
    text = table(rows)
    terminalreporter.write_sep("=", "Gluon models")
    terminalreporter.write(text)
    if config.option.table:
        Path(config.option.table).write_text(text, "utf-8")


def pytest_benchmark_update_machine_info(machine_info):
    machine_info["environment"] = {name: os.environ.get(name) for name in SETTINGS}
