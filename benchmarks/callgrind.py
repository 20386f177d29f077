"""Counts the instructions of each op on one thread, by valgrind's callgrind.

    python benchmarks/callgrind.py --table FILE --json FILE

Unlike times, the counts do not depend on the load of the machine. They are those of the C++ of an
op, from its function for the CPU on, in a second identical call; Python's instructions are not
included. valgrind has no AVX-512, so the counts are those of the baseline and of AVX2.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_box_nms import clustered, spread
from tools.find_job import find_job
from tools.inputs import TINY_SSD
from tools.machine import about
from tools.text import aligned, digits

SIMD = "baseline", "avx2"
#: Minimum share of a function in the instructions of an op, for a row in the table.
MIN_SHARE = 0.05

MAPS, SCORES = (1, 64, 50, 68), (1, 21, 10, 15)
#: Each op and the arguments of its job. The jobs are small because valgrind is slow.
JOBS = (
    ("multibox_prior", (TINY_SSD,)),
    ("bipartite_matching", (1, TINY_SSD, 64)),
    ("box_decode", (1, TINY_SSD)),
    ("box_encode", (1, TINY_SSD)),
    ("box_iou", (5444, 64)),
    ("box_iou_backward", (5444, 64)),
    ("box_iou_rotated", (1000, 300)),
    ("multibox_target", (1, TINY_SSD, 8)),
    ("multibox_target", (1, TINY_SSD, 64)),
    ("multibox_target", (1, TINY_SSD, 8, 21, True)),
    ("multibox_detection", (1, TINY_SSD, 21)),
    ("multibox_detection", (1, TINY_SSD, 21, 400)),
    ("multiclass_nms", (1,)),
    ("box_nms", (1, 5000, 1, spread)),
    ("box_nms", (1, 5000, 1, clustered)),
    ("box_nms_backward", (1, 5000, 1, spread)),
    ("nms_rotated", (2000,)),
    ("matrix_nms", (1, 1000, 1, spread)),
    ("proposal", (1,)),
    ("deformable_psroi_pooling", (100, 8, (1, 392, 25, 34))),
    ("deformable_psroi_pooling_backward", (100, 8, (1, 392, 25, 34))),
    ("psroi_pooling", (100, 8, (1, 392, 25, 34))),
    ("psroi_pooling_backward", (100, 8, (1, 392, 25, 34))),
    ("roi_align", (100, MAPS)),
    ("roi_align_backward", (100, MAPS)),
    ("roi_pooling", (100, MAPS)),
    ("roi_pooling_backward", (100, MAPS)),
    ("adaptive_avg_pooling", ((1, 64, 56, 56), 1)),
    ("adaptive_avg_pooling_backward", ((1, 64, 56, 56), 1)),
    ("bilinear_resize", ((1, 64, 28, 28), (56, 56))),
    ("bilinear_resize_backward", ((1, 64, 28, 28), (56, 56))),
    ("soft_nms", (1, 1000, 1, spread)),
    ("weighted_boxes_fusion", (5, 300)),
    ("rroi_align", (100, MAPS)),
    ("mask_target", (1, 32)),
    ("match_anchors", (TINY_SSD, 64)),
    ("paste_masks", (20, 128, 128)),
    ("rcnn_target", (1, 2000)),
    ("rpn_target", (1, TINY_SSD)),
    ("bilinear_upsample", (SCORES, 32)),
    ("bilinear_upsample_backward", (SCORES, 32)),
    ("label_from_color", (1,)),
    ("confusion_matrix", (1,)),
)


def run_jobs(folder: Path) -> None:
    """Run in valgrind: run each job, and print the names of its dumps."""
    for op, arguments in JOBS:
        job = find_job(op, *arguments)
        pairs = job.inner.pairs(job.expected) if job.inner else None
        job.ours(*job.arrays, backend="native")
        known = set(folder.iterdir())
        job.ours(*job.arrays, backend="native")
        dumps = [str(file) for file in set(folder.iterdir()) - known]
        amount, unit = job.work
        print(
            json.dumps(
                dict(op=job.op, size=job.size, work=amount, unit=unit, pairs=pairs, dumps=dumps)
            ),
            flush=True,
        )


def measure(simd: str) -> list[dict[str, Any]]:
    """Return the instructions of each job by function, with that instruction set."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={folder}/out"]
        for op in dict.fromkeys(op for op, _ in JOBS):
            # An op for several dtypes is a template. The patterns of the two options differ:
            # valgrind uses only one of two options with equal patterns.
            for function in (f"cvops::{op}", f"void cvops::{op}<float>"):
                command += [
                    f"--toggle-collect={function}(cvops::Cpu const&*)",
                    f"--dump-after=?{function[1:]}(cvops::Cpu const&*)",
                ]
        command += [sys.executable, __file__, "--run-jobs", folder]
        environment = {
            **os.environ,
            "CVOPS_SIMD": simd,
            "CVOPS_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(
                f"valgrind: expected exit code 0, got {run.returncode}:\n{run.stderr}"
            )
        results = []
        for line in run.stdout.splitlines():
            result = json.loads(line)
            functions: Counter[str] = Counter()
            for dump in result.pop("dumps"):
                functions.update(costs(Path(dump).read_text()))
            total = sum(functions.values())
            if not total:
                raise RuntimeError(
                    f"{result['op']}: expected instructions, got none; is the C++ stripped?"
                )
            results.append({**result, "simd": simd, "instructions": total, "functions": functions})
        return results


def costs(dump: str) -> Counter[str]:
    """Return the instructions of each function, without its calls, from a dump of callgrind.

    A dump has a full name once, and then its number. The line after "calls=" is the cost of the
    called function. https://valgrind.org/docs/manual/cl-format.html
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    function, in_call = "", False
    for line in dump.splitlines():
        if match := re.match(r"c?fn=(\(\d+\)) ?(.*)", line):
            number, name = match.groups()
            names.setdefault(number, name)
            if line.startswith("fn="):
                function = names[number]
        elif line.startswith("calls="):
            in_call = True
        elif re.match(r"[\d+*-]", line):
            if not in_call:
                found[short(function)] += int(line.split()[1])
            in_call = False
    return +found


def short(name: str) -> str:
    """Return a C++ name without namespaces, types and arguments."""
    name = name.replace("(anonymous namespace)::", "").replace("::operator()", "")
    # The wrappers of simd.h have the function as an argument, with its type if it is a template.
    if match := re.search(r"as_avx\w+<&\(*(?:[\w:]+ )*([\w:]+)(?:<[^<>]*>)?[(,>]", name):
        name = match[1]
    while name != (name := re.sub(r"\([^()]*\)", "", name)):
        pass
    if "std::" in name:
        while name != (name := re.sub(r"<[^<>]*>", "", name)):
            pass
        name = name.split()[-1]
    name = re.sub(r"\bcvops::| const$| \[clone [^]]*\]|'\d+$", "", name)
    return name.removeprefix("void ").removesuffix("<float>")


def table(results: Sequence[dict[str, Any]]) -> str:
    counts = {(r["op"], r["size"], r["simd"]): r["instructions"] for r in results}
    lines = [["op", "size", "instructions per", *SIMD]]
    functions = [["op", "size", "function", "instructions", "% of op"]]
    for r in results:
        if r["simd"] != SIMD[-1]:
            continue
        units = {r["unit"].removesuffix("es" if r["unit"] == "boxes" else "s"): r["work"]}
        if r["pairs"]:
            units.setdefault("pair", r["pairs"])
        job = [r["op"], r["size"]]
        for unit, work in units.items():
            ratios = [digits(counts[r["op"], r["size"], simd] / work) for simd in SIMD]
            lines.append([*job, unit, *ratios])
        for name, count in Counter(r["functions"]).most_common():
            share = count / r["instructions"]
            if share >= MIN_SHARE:
                functions.append([*job, name, f"{count:,}", f"{100 * share:.0f} %"])
    return "\n".join(
        [
            about(),
            "",
            "### Instructions on one thread",
            "",
            "In NMS a pair is two kept boxes of one class.",
            "",
            *aligned(lines, left=3),
            "",
            f"### Functions with {100 * MIN_SHARE:.0f} % of the instructions or more, {SIMD[-1]}",
            "",
            *aligned(functions, left=3),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the counts as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts")
    parser.add_argument("--run-jobs", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_jobs:
        run_jobs(args.run_jobs)
        return
    if not shutil.which("valgrind"):
        print("valgrind: expected on PATH, got none. On Debian: apt-get install valgrind")
        return
    results = [result for simd in SIMD for result in measure(simd)]
    text = table(results)
    print(text)
    if args.table:
        args.table.write_text(text, "utf-8")
    if args.json:
        args.json.write_text(json.dumps(dict(about=about(), jobs=results), indent=1), "utf-8")


if __name__ == "__main__":
    main()
