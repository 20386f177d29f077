"""Counts the instructions of each op on one thread, by valgrind's callgrind.

    python benchmarks/callgrind.py --table FILE --json FILE

Unlike times they do not vary with what else the machine does. Counted is what the C++ of an op
executes, from its entry for the CPU on, of a call that follows one like it; Python's share is
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_box_nms import clustered, spread
from tools.find_job import find_job
from tools.inputs import TINY_SSD
from tools.machine import about
from tools.text import aligned, digits

SIMD = "baseline", "avx2"
#: Of an op's instructions, from which on a function is in the table.
SHARE = 0.05


MAPS, SCORES = (1, 64, 50, 68), (1, 21, 10, 15)
#: Op and arguments of its job: small ones, for valgrind is slow.
JOBS = (
    ("multibox_prior", (TINY_SSD,)),
    ("box_iou", (5444, 64)),
    ("multibox_target", (1, TINY_SSD, 8)),
    ("multibox_target", (1, TINY_SSD, 64)),
    ("multibox_target", (1, TINY_SSD, 8, 21, True)),
    ("multibox_detection", (1, TINY_SSD, 21)),
    ("multibox_detection", (1, TINY_SSD, 21, 400)),
    ("multiclass_nms", (1,)),
    ("box_nms", (1, 5000, 1, spread)),
    ("box_nms", (1, 5000, 1, clustered)),
    ("box_nms_backward", (1, 5000, 1, spread)),
    ("roi_pooling", (100, MAPS)),
    ("roi_pooling_backward", (100, MAPS)),
    ("bilinear_upsample", (SCORES, 32)),
    ("bilinear_upsample_backward", (SCORES, 32)),
    ("label_from_color", (1,)),
    ("confusion_matrix", (1,)),
)


def work(folder: Path) -> None:
    """Inside of valgrind: tells for each job which of its dumps are the job's."""
    for op, arguments in JOBS:
        job = find_job(op, *arguments)
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
        for op in dict.fromkeys(op for op, _ in JOBS):
            # Of two options with the same pattern valgrind obeys one only.
            command += [
                f"--toggle-collect=cvops::{op}(cvops::Cpu const&*)",
                f"--dump-after=?vops::{op}(cvops::Cpu const&*)",
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
    name = name.replace("(anonymous namespace)::", "").replace("::operator()", "")
    # Of simd.h; a template's name comes with its type.
    if match := re.search(r"as_avx\w+<&\(*(?:[\w:]+ )*([\w:]+)(?:<[^<>]*>)?[(,>]", name):
        name = match[1]
    while name != (name := re.sub(r"\([^()]*\)", "", name)):
        pass
    if "std::" in name:
        while name != (name := re.sub(r"<[^<>]*>", "", name)):
            pass
        name = name.split()[-1]
    name = re.sub(r"\bcvops::| const$| \[clone [^]]*\]|'\d+$", "", name)
    return name.removeprefix("void ")


def table(results: Sequence[dict[str, Any]]) -> str:
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
            *aligned(lines, left=3),
            "",
            f"### Functions with {100 * SHARE:.0f} % of the instructions or more, {SIMD[-1]}",
            "",
            *aligned(functions, left=3),
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
        print("Instructions are not counted: needs valgrind (on Debian, apt-get install valgrind).")
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
