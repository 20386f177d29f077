"""Draws how the time of each op grows with its input: ours and the peers', both axes logarithmic.

    python benchmarks/plots.py --json FILE --plot FILE           measures, writes both
    python benchmarks/plots.py --json FILE --plot FILE --draw    draws what FILE has

The numbers printed, and at the ends of the lines, are the exponents of the growth where inputs are
large: 1 if the time grows as the input, 2 if as its square. A time is that of the fastest of some
calls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_box_nms import clustered, spread
from harness import CONTENDERS, TINY_SSD, Absent, Contender, Job, job_of
from report import about, aligned, threads

RACERS = "native", "mxnet", "torchvision", "onnxruntime"
#: The sizes of a peer end with the first call that takes as long as this.
LONGEST = 1.0
#: Seconds for each point, and calls.
SECONDS, CALLS = 0.3, (2, 100)

SIDES = 16, 32, 64, 128, 181, 256
MAPS = (1, 256, 50, 68)


def maps(side: int) -> tuple[tuple[int, tuple[float, float]], ...]:
    """One feature map, of four anchors to a pixel."""
    return ((side, (0.1, 0.2)),)


class Panel(NamedTuple):
    op: str
    #: What grows, and what stays.
    along: str
    rest: str
    #: The sizes, and the job's arguments at each.
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


def seconds(contender: Contender, job: Job) -> float:
    """Of the fastest of some calls, after one whose results are checked."""
    with contender.settings():
        call, once = contender.begin(job)
        times = []
        for _ in range(max(CALLS[0], min(CALLS[1], int(SECONDS / once)))):
            start = contender.clock()
            contender.wait(call())
            times.append(contender.clock() - start)
        return min(times)


def race(contender: Contender) -> dict[str, Any]:
    """What it is, and its sizes and seconds for each panel; None where it has no such op."""
    series: list[dict[str, list[float]] | None] = []
    for panel in PANELS:
        points: dict[str, list[float]] = dict(sizes=[], seconds=[])
        for size, arguments in panel.jobs.items():
            try:
                taken = seconds(contender, job_of(panel.op, *arguments))
            except Absent:
                break
            points["sizes"].append(size)
            points["seconds"].append(taken)
            if taken >= LONGEST and contender.library is not None:
                break
        series.append(points if points["sizes"] else None)
    return dict(about=about(), threads=threads(), series=series)


def measure() -> dict[str, Any]:
    """Each in a process of its own: their threads would wait for one another's cores."""
    races = {}
    for name in RACERS:
        if CONTENDERS[name].missing() is None:
            command = [sys.executable, __file__, "--race", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            races[CONTENDERS[name].name] = json.loads(done.stdout)
    panels = []
    for i, panel in enumerate(PANELS):
        series = {name: race["series"][i] for name, race in races.items() if race["series"][i]}
        panels.append(dict(op=panel.op, along=panel.along, rest=panel.rest, series=series))
    abouts = {name: race["about"] for name, race in races.items()}
    counts = {key: value for race in races.values() for key, value in race["threads"].items()}
    return dict(about=abouts, threads=counts, panels=panels)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """Of the power of the size that fits the times best from a quarter of the largest size on.

    None if there are fewer than two.
    """
    large = np.asarray(sizes) >= max(sizes) / 4
    if large.sum() < 2:
        return None
    return float(
        np.polyfit(np.log(np.asarray(sizes)[large]), np.log(np.asarray(times)[large]), 1)[0]
    )


def table(results: dict[str, Any]) -> str:
    """The exponents."""
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
    styles = dict(zip(names, zip(("C3", "C0", "C2", "C4"), "osD^")))
    columns = 4
    rows = -(-len(results["panels"]) // columns)
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
    parser.add_argument("--race", choices=RACERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.race:
        print(json.dumps(race(CONTENDERS[args.race])))
        return
    if not args.json or not args.plot:
        parser.error("--json and --plot are needed")
    if not args.draw:
        args.json.write_text(json.dumps(measure(), indent=1), "utf-8")
    results = json.loads(args.json.read_text("utf-8"))
    draw(results, args.plot)
    print(table(results))


if __name__ == "__main__":
    main()
