"""Counts the instructions of each op on one thread, by valgrind's callgrind.

    python benchmarks/callgrind.py --table FILE --json FILE

Unlike times they do not vary with what else the machine does. Counted is what the C++ of an op
executes, from its entry in ``cvops::cpu`` on, of a call that follows one like it; Python's share is
not. valgrind has no AVX-512, so the counts are those of the baseline and of AVX2.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SIMD = "baseline", "avx2"
#: Of an op's instructions, from which on a function is in the table.
SHARE = 0.05


def jobs() -> Iterator[Any]:
    """Small ones, for valgrind is slow."""
    import bench_bilinear_upsample as bilinear_upsample
    import bench_box_iou as box_iou
    import bench_box_nms as box_nms
    import bench_confusion_matrix as confusion_matrix
    import bench_label_from_color as label_from_color
    import bench_multibox_detection as multibox_detection
    import bench_multibox_prior as multibox_prior
    import bench_multibox_target as multibox_target
    import bench_roi_pooling as roi_pooling
    from harness import TINY_SSD

    maps, upsampled = (1, 64, 50, 68), (1, 21, 10, 15)
    yield multibox_prior.job(TINY_SSD)
    yield box_iou.job(5444, 64)
    yield multibox_target.job(1, TINY_SSD, 8)
    yield multibox_target.job(1, TINY_SSD, 64)
    yield multibox_target.job(1, TINY_SSD, 8, 21, mining=True)
    yield multibox_detection.job(1, TINY_SSD, 21)
    yield multibox_detection.job(1, TINY_SSD, 21, 400)
    yield box_nms.job(1, 5000, 1, box_nms.spread)
    yield box_nms.job(1, 5000, 1, box_nms.clustered)
    yield box_nms.backward_job(1, 5000, 1, box_nms.spread)
    yield roi_pooling.job(100, maps)
    yield roi_pooling.backward_job(100, maps)
    yield bilinear_upsample.job(upsampled, 32)
    yield bilinear_upsample.backward_job(upsampled, 32)
    yield label_from_color.job(1)
    yield confusion_matrix.job(1)


OPS = (
    "multibox_prior",
    "box_iou",
    "multibox_target",
    "multibox_detection",
    "box_nms",
    "box_nms_backward",
    "roi_pooling",
    "roi_pooling_backward",
    "bilinear_upsample",
    "bilinear_upsample_backward",
    "label_from_color",
    "confusion_matrix",
)


def work(folder: Path) -> None:
    """Inside of valgrind: tells for each job which of its dumps are the job's."""
    for job in jobs():
        pairs = job.inner.pairs(job.expected) if job.inner else None
        job.ours(*job.arrays, backend="native")
        before = set(folder.iterdir())
        job.ours(*job.arrays, backend="native")
        dumps = [str(file) for file in set(folder.iterdir()) - before]
        amount, unit = job.work
        print(
            json.dumps(
                dict(op=job.op, size=job.size, work=amount, unit=unit, pairs=pairs, dumps=dumps)
            ),
            flush=True,
        )


def measure(simd: str) -> list[dict[str, Any]]:
    """All jobs with that instruction set, the counts by function."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={folder}/out"]
        for op in OPS:
            # Of two options with the same pattern valgrind obeys one only.
            command += [
                f"--toggle-collect=cvops::cpu::{op}(*)",
                f"--dump-after=?vops::cpu::{op}(*)",
            ]
        command += [sys.executable, __file__, "--inside", folder]
        environment = {
            **os.environ,
            "CVOPS_SIMD": simd,
            "CVOPS_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"valgrind ended with {run.returncode}:\n{run.stderr}")
        results = []
        for line in run.stdout.splitlines():
            result = json.loads(line)
            functions: Counter[str] = Counter()
            for dump in result.pop("dumps"):
                functions.update(costs(Path(dump).read_text()))
            total = sum(functions.values())
            if not total:
                raise RuntimeError(f"{result['op']}: nothing was counted: is libcvops.so stripped?")
            results.append({**result, "simd": simd, "instructions": total, "functions": functions})
        return results


def costs(dump: str) -> Counter[str]:
    """Each function's own instructions, from a file of callgrind's.

    Names stand there in full once, and later by a number; the line after "calls=" is what a call
    took in all. https://valgrind.org/docs/manual/cl-format.html
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
    """A C++ name without namespaces, types and arguments."""
    name = name.replace("(anonymous namespace)::", "").replace("operator()", "operator")
    while name != (name := re.sub(r"\([^()]*\)", "", name)):
        pass
    if match := re.search(r"as_avx\w+<&([\w:]+)", name):  # of simd.h
        name = match[1]
    if "std::" in name:
        while name != (name := re.sub(r"<[^<>]*>", "", name)):
            pass
        name = name.split()[-1]
    name = re.sub(r"\b(?:cvops|cpu)::| const$| \[clone [^]]*\]|'\d+$", "", name)
    return name.removeprefix("void ")


def table(results: Sequence[dict[str, Any]]) -> str:
    from report import about, aligned, digits

    counts = {(r["op"], r["size"], r["simd"]): r["instructions"] for r in results}
    lines = [["op", "size", "instructions for each", *SIMD]]
    functions = [["op", "size", "function", "instructions", "of all"]]
    for r in results:
        if r["simd"] != SIMD[-1]:
            continue
        units = {r["unit"].removesuffix("es" if r["unit"] == "boxes" else "s"): r["work"]}
        if r["pairs"]:
            units.setdefault("pair", r["pairs"])
        where = [r["op"], r["size"]]
        for unit, work in units.items():
            each = [digits(counts[r["op"], r["size"], simd] / work) for simd in SIMD]
            lines.append([*where, unit, *each])
        for name, count in Counter(r["functions"]).most_common():
            part = count / r["instructions"]
            if part >= SHARE:
                functions.append([*where, name, f"{count:,}", f"{100 * part:.0f} %"])
    return "\n".join(
        [
            about(),
            "",
            "### Instructions on one thread",
            "",
            "The pairs of boxes of a suppression are those of the kept boxes with one another.",
            "",
            *aligned(lines),
            "",
            f"### Functions with {100 * SHARE:.0f} % of the instructions or more, {SIMD[-1]}",
            "",
            *aligned(functions),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path, metavar="FILE", help="the counts as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the counts")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        work(args.inside)
        return
    if not shutil.which("valgrind"):
        sys.exit("instructions: not counted, needs valgrind (on Debian, apt-get install valgrind)")
    results = [result for simd in SIMD for result in measure(simd)]
    text = table(results)
    print(text)
    if args.table:
        args.table.write_text(text, "utf-8")
    if args.json:
        from report import about

        args.json.write_text(json.dumps(dict(about=about(), jobs=results), indent=1), "utf-8")


if __name__ == "__main__":
    main()
