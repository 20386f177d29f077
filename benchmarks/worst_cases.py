"""Times ops on inputs that could make them slow: ``make bench-worst``.

    python benchmarks/worst_cases.py [--table FILE] [--json FILE] [OP ...]

A time is the CPU time of one thread, which other work on the machine changes less than the wall
time: the fastest of several calls, the cases of a size in turns. The table has each time relative
to that of the input "spread" of the same size, and the exponent of the growth between the two
largest sizes, in boxes or in pairs of anchors and ground truths: 1 is linear, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from tools.machine import about
from tools.text import SECONDS, aligned, scaled
from worst_inputs import SUITES

import cvops

#: Seconds of each case, and the minimum number of its calls.
SECONDS_EACH, CALLS = 0.1, 3


def measure(op: str, size: tuple[int, ...]) -> dict[str, float]:
    """Return the seconds of each case."""
    named = list(SUITES[op].cases(*size))
    times: dict[str, list[float]] = {case.name: [] for case in named}
    for case in named:
        case.call()
    while any(len(of) < CALLS or sum(of) < SECONDS_EACH for of in times.values()):
        for case in named:
            of = times[case.name]
            if len(of) < CALLS or sum(of) < SECONDS_EACH:
                start = time.thread_time()
                case.call()
                of.append(time.thread_time() - start)
    return {name: min(of) for name, of in times.items()}


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
