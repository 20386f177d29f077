"""Times each op on one thread and on several: ``make bench-threads``.

    python benchmarks/thread_scaling.py [--threads N] [--ops NAME...] [--table FILE] [--json FILE]

A time is the wall time of the fastest of several calls; the calls take turns. The results must have
the same bits. The table has the gain, the time on one thread relative to that on several, and the
bytes that the op must move per second. An op that moves more than the memory allows cannot gain.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_box_nms import clustered, spread
from tools.find_job import find_job
from tools.inputs import SSD_512, TINY_SSD
from tools.jobs import Job, check_identical, flat
from tools.machine import about, cores
from tools.text import PREFIXES, SECONDS, aligned, scaled

import cvops

#: Seconds of each job on each number of threads, and the minimum number of its calls.
SECONDS_EACH, CALLS = 0.3, 3
#: Gain below which the table has a mark.
LOW_GAIN = 1.3

MAPS, SCORES = (1, 256, 50, 68), (1, 1029, 38, 63)
#: Each op and the arguments of its job: large inputs.
JOBS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("multibox_prior", (((512, (0.1, 0.2)),),)),
    ("bipartite_matching", (32, TINY_SSD, 64)),
    ("box_decode", (64, SSD_512)),
    ("box_encode", (64, SSD_512)),
    ("box_iou", (24564, 1000)),
    ("box_iou_backward", (5444, 64)),
    ("box_iou_rotated", (1000, 1000)),
    ("multibox_target", (1, SSD_512, 64)),
    ("multibox_target", (32, TINY_SSD, 64)),
    ("multibox_target", (16, SSD_512, 8, 21, True)),
    ("multibox_detection", (1, SSD_512, 21)),
    ("multibox_detection", (32, TINY_SSD, 21, 400)),
    ("multiclass_nms", (1,)),
    ("multiclass_nms", (32,)),
    ("box_nms", (1, 20000, 1, spread)),
    ("box_nms", (1, 20000, 1, clustered)),
    ("box_nms", (32, 5000, 1, spread)),
    ("box_nms_backward", (32, 5000, 1, spread)),
    ("nms_rotated", (20_000,)),
    ("matrix_nms", (1, 5000, 1, spread)),
    ("soft_nms", (1, 5000, 1, spread)),
    ("soft_nms", (32, 1000, 1, spread)),
    ("weighted_boxes_fusion", (5, 1000)),
    ("proposal", (1,)),
    ("proposal", (8,)),
    ("deformable_psroi_pooling", (300, 21, SCORES)),
    ("deformable_psroi_pooling_backward", (300, 21, SCORES)),
    ("psroi_pooling", (300, 21, SCORES)),
    ("psroi_pooling_backward", (300, 21, SCORES)),
    ("roi_align", (1000, MAPS)),
    ("roi_align_backward", (1000, MAPS)),
    ("roi_pooling", (1000, MAPS)),
    ("roi_pooling_backward", (1000, MAPS)),
    ("rroi_align", (300, MAPS)),
    ("adaptive_avg_pooling", ((32, 256, 56, 56), 1)),
    ("adaptive_avg_pooling_backward", ((32, 256, 56, 56), 1)),
    ("bilinear_resize", ((8, 21, 60, 60), (480, 480))),
    ("bilinear_resize_backward", ((8, 21, 60, 60), (480, 480))),
    ("bilinear_upsample", ((8, 21, 40, 60), 8)),
    ("bilinear_upsample_backward", ((8, 21, 40, 60), 8)),
    ("mask_target", (4, 128)),
    ("match_anchors", (SSD_512, 500, 5)),
    ("paste_masks", (100, 800, 1333)),
    ("rcnn_target", (8, 2000)),
    ("rpn_target", (8, SSD_512)),
    ("label_from_color", (32,)),
    ("confusion_matrix", (32,)),
)


def seconds(job: Job, counts: Sequence[int]) -> dict[int, float]:
    """Compare the results; return the seconds of the fastest call by number of threads."""
    results: list[list[Any]] = []
    for count in counts:
        cvops.set_num_threads(count)
        results.append(flat(job.ours(*job.arrays, backend="native")))
        check_identical(results[0], results[-1])
    del results
    spent, calls = dict.fromkeys(counts, 0.0), 0
    times = dict.fromkeys(counts, math.inf)
    while calls < CALLS or min(spent.values()) < SECONDS_EACH:
        for count in counts:
            cvops.set_num_threads(count)
            start = time.perf_counter()
            job.ours(*job.arrays, backend="native")
            taken = time.perf_counter() - start
            times[count] = min(times[count], taken)
            spent[count] += taken
        calls += 1
    return times


def measure(jobs: Sequence[tuple[str, tuple[Any, ...]]], threads: int) -> list[dict[str, Any]]:
    before = cvops.get_num_threads()
    rows = []
    try:
        for op, arguments in jobs:
            job = find_job(op, *arguments)
            one, several = seconds(job, (1, threads)).values()
            rows.append(
                dict(op=op, size=job.size, seconds=[one, several], gain=one / several)
                | dict(bytes=job.moved, bytes_per_second=job.moved / several)
            )
    finally:
        cvops.set_num_threads(before)
    return rows


def table(rows: Sequence[dict[str, Any]], threads: int) -> str:
    lines = [["op", "size", "1 thread", f"{threads} threads", "gain", "moved", ""]]
    for row in rows:
        times = (scaled(x, SECONDS) for x in row["seconds"])
        rate = f"{scaled(row['bytes_per_second'], PREFIXES)}B/s"
        mark = f"below {LOW_GAIN}" if row["gain"] < LOW_GAIN else ""
        lines.append([row["op"], row["size"], *times, f"{row['gain']:.2f}", rate, mark])
    return "\n".join([about(), "", *aligned(lines, left=2), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--ops", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs = [(op, arguments) for op, arguments in JOBS if op in (options.ops or [op])]
    rows = measure(jobs, options.threads)
    text = table(rows, options.threads)
    print(text)
    if options.table:
        options.table.write_text(text, "utf-8")
    if options.json:
        found = dict(machine=about(), threads=options.threads, jobs=rows)
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
