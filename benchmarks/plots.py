"""Plots the time of each op and its peers against the size of the input, on logarithmic axes.

    python benchmarks/plots.py --json FILE --plot FILE           measures, writes both
    python benchmarks/plots.py --json FILE --plot FILE --draw    draws the times in FILE
    python benchmarks/plots.py --json FILE                       measures only: needs no Matplotlib

The printed numbers, and those at the ends of the lines, are the exponents of the growth for large
inputs: 1 for linear, 2 for quadratic growth. A time is that of the fastest of several calls. If our
ops can run on a GPU (or with ``--device cuda``), all implementations run there. A time is then that
between CUDA's events with a warm cache: see ``gpu_times.py``.
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
from tools.implementations import IMPLEMENTATIONS
from tools.inputs import TINY_SSD
from tools.interface import Implementation, Unavailable
from tools.jobs import Job
from tools.machine import about, threads
from tools.text import aligned

#: The implementations of each process, by device. On a CPU, the threads of several libraries in one
#: process would compete for the cores.
GROUPS = {
    "cpu": (("native",), ("mxnet",), ("torchvision",), ("onnxruntime",)),
    "cuda": (("native-gpu", "native-graph", "torchvision-gpu", "torch-gpu", "book-gpu"),),
}
#: A peer whose call takes these seconds gets no larger sizes.
LONG = {"cpu": 1.0, "cuda": 0.1}
#: Seconds for each point, and the minimum and maximum number of calls.
SECONDS, CALLS = 0.3, (2, 100)

SIDES = 16, 32, 64, 128, 181, 256
MAPS = (1, 256, 50, 68)


def maps(side: int) -> tuple[tuple[int, tuple[float, float]], ...]:
    """Return one feature map of ``side`` x ``side`` pixels with four anchors per pixel."""
    return ((side, (0.1, 0.2)),)


class Panel(NamedTuple):
    op: str
    #: The size that grows, and the constant sizes.
    along: str
    rest: str
    #: The arguments of the job, by the growing size.
    jobs: dict[int, tuple[Any, ...]]


PANELS = (
    Panel(
        "multibox_target",
        "anchors",
        "1 image, 32 ground truths",
        {4 * side**2: (1, maps(side), 32) for side in SIDES},
    ),
    Panel(
        "multibox_target",
        "images",
        "5444 anchors, 8 ground truths",
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
            make_boxes.__name__,
            {n: (1, n, 1, make_boxes) for n in (1000, 3000, 10000, 25000, 50000, 100000, 200000)},
        )
        for make_boxes in (spread, clustered)
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


def seconds(implementation: Implementation, job: Job) -> float:
    """Check one call; return the seconds of the fastest call, or those between CUDA's events."""
    with implementation.settings():
        call, once = implementation.first_call(job)
        gpu = implementation.gpu_times(call, SECONDS)
        if gpu is not None:
            return gpu.warm
        times = []
        for _ in range(max(CALLS[0], min(CALLS[1], int(SECONDS / once)))):
            start = implementation.clock()
            implementation.wait(call())
            times.append(implementation.clock() - start)
        return min(times)


def measure_group(implementations: Sequence[Implementation]) -> dict[str, Any]:
    """Return the machine, and the sizes and seconds of each panel by implementation.

    After an interrupt it returns the points so far.
    """
    series: list[dict[str, dict[str, list[float]]]] = [{} for _ in PANELS]
    with contextlib.suppress(KeyboardInterrupt):
        for panel, points in zip(PANELS, series):
            _measure_panel(panel, list(implementations), points)
    return dict(about=about(), threads=threads(), series=series)


def _measure_panel(
    panel: Panel, running: list[Implementation], points: dict[str, dict[str, list[float]]]
) -> None:
    for size, arguments in panel.jobs.items():
        for implementation in list(running):
            try:
                taken = seconds(implementation, find_job(panel.op, *arguments))
            except Unavailable:
                running.remove(implementation)
                continue
            except Exception as error:
                if implementation.device == "cpu":
                    raise
                print(
                    f"{implementation.name}, {panel.op}, {size} {panel.along}: {error}",
                    file=sys.stderr,
                )
                running.remove(implementation)
                continue
            series = points.setdefault(implementation.name, dict(sizes=[], seconds=[]))
            series["sizes"].append(size)
            series["seconds"].append(taken)
            if taken >= LONG[implementation.device] and implementation.library is not None:
                running.remove(implementation)


def measure(device: str) -> dict[str, Any]:
    """Measure each group of implementations, each in its own process if there are several."""
    groups = [
        [x for x in group if IMPLEMENTATIONS[x].missing() is None] for group in GROUPS[device]
    ]
    groups = [group for group in groups if group]
    results = {}
    for group in groups:
        if len(groups) == 1:
            found = measure_group([IMPLEMENTATIONS[name] for name in group])
        else:
            command = [sys.executable, __file__, "--group", *group]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
        results[", ".join(IMPLEMENTATIONS[name].name for name in group)] = found
    panels = []
    for i, panel in enumerate(PANELS):
        series = {name: x for found in results.values() for name, x in found["series"][i].items()}
        panels.append(dict(op=panel.op, along=panel.along, rest=panel.rest, series=series))
    abouts = {name: found["about"] for name, found in results.items()}
    counts = {key: value for found in results.values() for key, value in found["threads"].items()}
    return dict(about=abouts, threads=counts, panels=panels)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float | None:
    """Return the exponent of the best fit, for sizes from a quarter of the largest size on.

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
    lines = [["op", "growing size", "constant sizes", "implementation", "sizes", "exponent"]]
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
    """Draw one panel for each op and growing size."""
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="the file of all times")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the times as a PNG")
    parser.add_argument(
        "--draw", action="store_true", help="draw the times of --json without measuring"
    )
    parser.add_argument(
        "--device", choices=GROUPS, help="default: cuda if cvops can run there, else cpu"
    )
    parser.add_argument("--group", nargs="+", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.group:
        print(json.dumps(measure_group([IMPLEMENTATIONS[name] for name in args.group])))
        return
    if not args.json or (args.draw and not args.plot):
        parser.error("expected --json, and --plot with --draw")
    if not args.draw:
        has_gpu = IMPLEMENTATIONS["native-gpu"].missing() is None
        device = args.device or ("cuda" if has_gpu else "cpu")
        args.json.write_text(json.dumps(measure(device), indent=1), "utf-8")
    results = json.loads(args.json.read_text("utf-8"))
    if args.plot:
        draw(results, args.plot)
    print(table(results))


if __name__ == "__main__":
    main()
