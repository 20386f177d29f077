"""Times ops on inputs that could make them slow: ``make bench-worst``.

    python benchmarks/worst_cases.py [--table FILE] [--json FILE] [OP ...]

A time is the CPU time of one thread, which other work on the machine changes less than the wall
time: the first decile of several samples, the cases of a size in turns. A sample has calls for
0.2 ms or one call: the clock of a thread can go wrong by the time of a short call. The table has
each time relative to that of the input "spread" of the same size, and the exponent of the growth
between the two largest sizes, in boxes or in pairs of anchors and ground truths: 1 is linear, 2 is
quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from tools.machine import about
from tools.text import SECONDS, aligned, scaled
from worst_inputs import SUITES

import cvops

#: Seconds of each case, minimum number of its samples, and minimum seconds of several calls.
SECONDS_EACH, SAMPLES, SECONDS_OF_SAMPLE = 0.1, 3, 2e-4


def sample(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the thread for one call, and for all calls of the sample."""
    calls, seconds = 0, 0.0
    start = time.thread_time()
    while seconds < SECONDS_OF_SAMPLE:
        call()
        calls += 1
        seconds = time.thread_time() - start
    return seconds / calls, seconds


def measure(op: str, size: tuple[int, ...]) -> dict[str, float]:
    """Return the seconds of each case."""
    named = list(SUITES[op].cases(*size))
    times: dict[str, list[float]] = {case.name: [] for case in named}
    left = {case.name: SECONDS_EACH for case in named}
    for case in named:
        case.call()
    while unfinished := [x for x in named if left[x.name] > 0 or len(times[x.name]) < SAMPLES]:
        for case in unfinished:
            seconds, spent = sample(case.call)
            times[case.name].append(seconds)
            left[case.name] -= spent
    return {name: sorted(of)[len(of) // 10] for name, of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("op", nargs="*", choices=[[], *SUITES], help="all by default")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cvops.set_num_threads(1)
    text, rows = [about(), ""], []
    for op in options.op or SUITES:
        sizes = SUITES[op].sizes
        found = [measure(op, size) for size in sizes]
        names = [" x ".join(map(str, size)) for size in sizes]
        heads = [head for name in names for head in (name, "of spread")]
        lines = [[op, *heads, "exponent"]]
        for name in found[0]:
            seconds = [of[name] for of in found]
            ratios = [of[name] / of["spread"] for of in found]
            larger = math.prod(sizes[-1]) / math.prod(sizes[-2])
            growth = math.log(seconds[-1] / seconds[-2]) / math.log(larger)
            cells = [(scaled(x, SECONDS), f"{r:.2f}") for x, r in zip(seconds, ratios)]
            lines.append([name, *(cell for pair in cells for cell in pair), f"{growth:.2f}"])
            rows.append(dict(op=op, case=name, sizes=sizes, seconds=seconds, exponent=growth))
        text += [*aligned(lines, left=1), ""]
    print("\n".join(text))
    if options.table:
        options.table.write_text("\n".join(text), "utf-8")
    if options.json:
        options.json.write_text(json.dumps(dict(machine=about(), cases=rows), indent=1), "utf-8")


if __name__ == "__main__":
    main()
