"""Plots the growth of the time of each op and its peers with the input, on logarithmic axes.

    python benchmarks/plots.py --json FILE --plot FILE           measures, writes both
    python benchmarks/plots.py --json FILE --plot FILE --draw    draws the times in FILE
    python benchmarks/plots.py --json FILE                       measures only: needs no Matplotlib

The printed numbers, and those at the ends of the lines, are the exponents of the growth for large
inputs: 1 for linear, 2 for quadratic growth. A time is that of the fastest of several calls. If our
ops can run on a GPU (or with ``--device cuda``), all contenders run there, and a time is the GPU's
own with a warm cache: see ``gpu_times.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_box_nms import clustered, spread
from tools.find_job import find_job
from tools.implementation import Implementation, Unavailable
from tools.implementations import IMPLEMENTATIONS
from tools.inputs import TINY_SSD
from tools.jobs import Job
from tools.machine import about, threads
from tools.text import aligned

#: The contenders of each process, by device. On a CPU, the threads of several libraries in one
#: process would compete for the cores.
RACERS = {
    "cpu": (("native",), ("mxnet",), ("torchvision",), ("onnxruntime",)),
    "cuda": (("native-gpu", "native-graph", "torchvision-gpu", "torch-gpu", "book-gpu"),),
}
#: A peer's first call of at least these seconds is its last size.
LONGEST = {"cpu": 1.0, "cuda": 0.1}
#: Seconds for each point, and the least and the most calls.
SECONDS, CALLS = 0.3, (2, 100)

SIDES = 16, 32, 64, 128, 181, 256
MAPS = (1, 256, 50, 68)


def maps(side: int) -> tuple[tuple[int, tuple[float, float]], ...]:
    """Return one feature map with four anchors per pixel."""
    return ((side, (0.1, 0.2)),)


class Panel(NamedTuple):
    op: str
    #: The axis that grows, and the constant sizes.
    along: str
    rest: str
    #: The arguments of the job, by size.
    jobs: dict[int, tuple[Any, ...]]


PANELS = (
    Panel(
        "multibox_target",
        "anchors",
        "1 image, 32 truths",
        {4 * side**2: (1, maps(side), 32) for side in SIDES},
    ),
    Panel(
        "multibox_target",
        "images",
        "5444 anchors, 8 truths",
        {n: (n, TINY_SSD, 8) for n in (1, 4, 16, 64, 128, 256)},
    ),
    Panel(
        "multibox_detection",
        "anchors",
        "1 image, 21 classes",
        {4 * side**2: (1, maps(side), 21) for side in SIDES},
    ),
    Panel(
        "multibox_prior",
        "anchors",
        "1 map",
        {4 * side**2: (maps(side),) for side in (*SIDES, 362, 512)},
    ),
    *(
        Panel(
            "box_nms",
            "boxes",
            where.__name__,
            {n: (1, n, 1, where) for n in (1000, 3000, 10000, 25000, 50000, 100000, 200000)},
        )
        for where in (spread, clustered)
    ),
    Panel(
        "box_iou",
        "rows",
        "100 columns",
        {n: (n, 100) for n in (100, 1000, 10000, 100000, 200000, 300000)},
    ),
    Panel(
        "roi_pooling",
        "rois",
        "256 x 50 x 68, 7 x 7 bins",
        {n: (n, MAPS) for n in (10, 30, 100, 300, 1000, 2000, 3000)},
    ),
)


def seconds(contender: Implementation, job: Job) -> float:
    """Check one call; return the seconds of the fastest call, or by the GPU's clock."""
    with contender.settings():
        call, once = contender.begin(job)
        gpu = contender.gpu_times(call, SECONDS)
        if gpu is not None:
            return gpu.warm
        times = []
        for _ in range(max(CALLS[0], min(CALLS[1], int(SECONDS / once)))):
            start = contender.clock()
            contender.wait(call())
            times.append(contender.clock() - start)
        return min(times)


def race(contenders: Sequence[Implementation]) -> dict[str, Any]:
    """Return the machine, and the sizes and seconds of each panel by contender.

    After an interrupt it returns the points so far.
    """
    series: list[dict[str, dict[str, list[float]]]] = [{} for _ in PANELS]
    with contextlib.suppress(KeyboardInterrupt):
        for panel, points in zip(PANELS, series):
            _race(panel, list(contenders), points)
    return dict(about=about(), threads=threads(), series=series)


def _race(
    panel: Panel, running: list[Implementation], points: dict[str, dict[str, list[float]]]
) -> None:
    for size, arguments in panel.jobs.items():
        for contender in list(running):
            try:
                taken = seconds(contender, find_job(panel.op, *arguments))
            except Unavailable:
                running.remove(contender)
                continue
            except Exception as error:
                if contender.device == "cpu":
                    raise
                print(f"{contender.name}, {panel.op} of {size}: {error}", file=sys.stderr)
                running.remove(contender)
                continue
            of_it = points.setdefault(contender.name, dict(sizes=[], seconds=[]))
            of_it["sizes"].append(size)
            of_it["seconds"].append(taken)
            if taken >= LONGEST[contender.device] and contender.library is not None:
                running.remove(contender)


def measure(device: str) -> dict[str, Any]:
    """Measure each group of contenders, in separate processes if there are several groups."""
    groups = [
        [x for x in group if IMPLEMENTATIONS[x].missing() is None] for group in RACERS[device]
    ]
    groups = [group for group in groups if group]
    races = {}
    for group in groups:
        if len(groups) == 1:
            found = race([IMPLEMENTATIONS[name] for name in group])
        else:
            command = [sys.executable, __file__, "--race", *group]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
        races[", ".join(IMPLEMENTATIONS[name].name for name in group)] = found
    panels = []
    for i, panel in enumerate(PANELS):
        series = {name: x for found in races.values() for name, x in found["series"][i].items()}
        panels.append(dict(op=panel.op, along=panel.along, rest=panel.rest, series=series))
    abouts = {name: found["about"] for name, found in races.items()}
    counts = {key: value for found in races.values() for key, value in found["threads"].items()}
    return dict(about=abouts, threads=counts, panels=panels)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """Return the exponent that fits the times best, for sizes from a quarter of the largest on.

    None if there are fewer than two such sizes.
    """
    large = np.asarray(sizes) >= max(sizes) / 4
    if large.sum() < 2:
        return None
    return float(
        np.polyfit(np.log(np.asarray(sizes)[large]), np.log(np.asarray(times)[large]), 1)[0]
    )


def table(results: dict[str, Any]) -> str:
    """Return the table of exponents."""
    lines = [["op", "along", "the rest", "backend", "sizes", "exponent"]]
    for panel in results["panels"]:
        for name, points in panel["series"].items():
            slope = exponent(points["sizes"], points["seconds"])
            sizes = f"{points['sizes'][0]} to {points['sizes'][-1]}"
            text = "" if slope is None else f"{slope:.2f}"
            lines.append([panel["op"], panel["along"], panel["rest"], name, sizes, text])
    counts = ", ".join(f"{name} {count}" for name, count in results["threads"].items())
    abouts = [f"{name}: {text}" for name, text in results["about"].items()]
    return "\n".join([*abouts, f"Threads: {counts}.", "", *aligned(lines, left=5)])


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for panel in results["panels"] for name in panel["series"]))
    styles = dict(zip(names, zip(("C3", "C0", "C2", "C4", "C1"), "osD^v")))
    columns = 4
    rows = math.ceil(len(results["panels"]) / columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(14, 3.5 * rows), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(results["panels"]) :]:
        axes.axis("off")
    for axes, panel in zip(grid.flat, results["panels"]):
        for name, points in panel["series"].items():
            slope = exponent(points["sizes"], points["seconds"])
            color, marker = styles[name]
            axes.loglog(points["sizes"], points["seconds"], color=color, marker=marker, ms=4)
            end = points["sizes"][-1], points["seconds"][-1]
            if slope is not None:
                axes.annotate(
                    f"{slope:.1f}", end, (5, 0), textcoords="offset points", color=color, size=9
                )
        axes.set_title(f"{panel['op']}: {panel['rest']}", size=10)
        axes.set_xlabel(panel["along"])
        axes.grid(which="major", alpha=0.3)
        axes.margins(x=0.12)
    for axes in grid[:, 0]:
        axes.set_ylabel("seconds")
    handles = [
        pyplot.Line2D([], [], color=color, marker=marker, label=name)
        for name, (color, marker) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG of them")
    parser.add_argument("--draw", action="store_true", help="of the JSON, without measuring")
    parser.add_argument("--device", choices=RACERS, help="cuda where ours can run there")
    parser.add_argument("--race", nargs="+", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.race:
        print(json.dumps(race([IMPLEMENTATIONS[name] for name in args.race])))
        return
    if not args.json or (args.draw and not args.plot):
        parser.error("--json is needed, and --plot to draw")
    if not args.draw:
        ours_there = IMPLEMENTATIONS["native-gpu"].missing() is None
        device = args.device or ("cuda" if ours_there else "cpu")
        args.json.write_text(json.dumps(measure(device), indent=1), "utf-8")
    results = json.loads(args.json.read_text("utf-8"))
    if args.plot:
        draw(results, args.plot)
    print(table(results))


if __name__ == "__main__":
    main()
