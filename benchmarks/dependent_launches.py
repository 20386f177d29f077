"""Times ops with and without programmatic dependent launches on a GPU.

    python benchmarks/dependent_launches.py [--json FILE]

Each op has several launches, on a stream and in a graph. Both ways take turns, and the time is the
least of the medians. The results of both ways are compared with those of the CPU; those of many
dependent calls, too, since a kernel that does not wait would rarely give other bits. MODEL.md
explains the launches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_box_nms import CASES, spread
from kernel_times import hooked_launches
from tools.find_job import find_job
from tools.implementations import IMPLEMENTATIONS
from tools.inputs import SSD_512, TINY_SSD
from tools.jobs import Job, check_identical, to_numpy
from tools.text import SECONDS, aligned, scaled

from cvops.backends import registry
from cvops.ops import _op

#: Each op and the arguments of its job.
JOBS: tuple[tuple[Any, ...], ...] = (
    ("box_nms", 1, 20000, 1, spread),
    ("box_nms", *CASES["small"]),
    ("box_nms", *CASES["batch"]),
    ("multibox_target", 32, TINY_SSD, 64),
    ("multibox_target", 64, SSD_512, 8, 21, True),
    ("multiclass_nms", 32),
    ("matrix_nms", 1, 5000, 1, spread),
    ("proposal", 8),
)
#: "stream": calls on a stream; "graph": replays of a graph.
WAYS = {"stream": "cupy-gpu", "graph": "cupy-graph"}
VARIABLE = "CVOPS_DEPENDENT_LAUNCHES"
TURNS, CALLS = 2, 50
#: The time of a measurement, in seconds.
TIME = 0.05


@contextlib.contextmanager
def launches(dependent: bool) -> Iterator[None]:
    """Make the launches of the backend "cupy" dependent or not."""

    def forget() -> None:
        # An executor reads the variable when it is made.
        registry.BACKENDS["cuda", "cupy"].executor.cache_clear()  # type: ignore[attr-defined]
        _op.clear_caches()

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(int(dependent))
    forget()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        forget()


def count_launches(call: Any) -> int:
    """Return the number of launches of a call."""
    names = []
    with hooked_launches(lambda name, launch: (names.append(name), launch())[1]):
        call()
    return len(names)


def measure(job: Job) -> dict[str, Any]:
    """Return the number of launches, and {way: [ordinary, dependent]} seconds of a call."""
    call = IMPLEMENTATIONS[WAYS["stream"]].prepare(job)
    line = dict(op=job.op, size=job.size, launches=count_launches(call))
    for way, name in WAYS.items():
        implementation = IMPLEMENTATIONS[name]
        times = [float("inf")] * 2
        for turn in range(2 * TURNS):
            dependent = turn % 2
            with launches(bool(dependent)):
                call, _ = implementation.first_call(job)
                if turn == 1:
                    for _ in range(CALLS):
                        out = call()
                        implementation.clock()
                        check_identical(job.expected, to_numpy(out))
                found = implementation.gpu_times(call, TIME)
            assert found is not None
            times[dependent] = min(times[dependent], found.warm)
        line[way] = times
    return line


def table(lines: list[dict[str, Any]]) -> list[str]:
    rows = [["op", "size", "launches"]]
    for way in WAYS:
        rows[0] += [f"{way}, ordinary", f"{way}, dependent", "a launch less"]
    for line in lines:
        row = [line["op"], line["size"], str(line.get("launches", line.get("error")))]
        for way in WAYS:
            ordinary, dependent = line.get(way, (0, 0))
            saved = (ordinary - dependent) / max(1, line.get("launches", 0) - 1)
            row += [scaled(x, SECONDS) for x in (ordinary, dependent)]
            row.append(f"{1e6 * saved:.2f} us")
        rows.append(row)
    return aligned(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the times")
    args = parser.parse_args()
    lines: list[dict[str, Any]] = []
    try:
        for op, *arguments in JOBS:
            try:
                lines.append(measure(find_job(op, *arguments)))
            except Exception as error:  # the other jobs still run
                lines.append(dict(op=op, size="", error=f"FAILED: {type(error).__name__}: {error}"))
            if args.json:
                args.json.write_text(json.dumps(lines, indent=1), "utf-8")
    finally:  # also after an interrupt
        print("\n".join(table(lines)))
    if any("error" in line for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
