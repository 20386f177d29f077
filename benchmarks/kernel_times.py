"""Times the kernels of the largest jobs on a GPU: each launch between two events, or in a profiler.

    python benchmarks/kernel_times.py --json FILE       times each launch, and prints a table
    python benchmarks/kernel_times.py --profile FILE    repeats the slowest launches of that file

The launches are those of the backend "cupy". The file has the longest launch of each of the slowest
kernels. The second command is for ``ncu --profile-from-start off``: it starts the profiler for
these launches only.

The time includes 1 or 2 us of an event, so that short kernels seem longer than they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple

from bench_box_nms import CASES, spread
from bench_multibox_prior import CASES as PRIORS
from tools import gpu_times
from tools.harness import SSD_512, TINY_SSD, Job, job_of
from tools.report import SECONDS, aligned, scaled

from cvops.backends import cuda, extension
from cvops.ops import _op

MAPS = (1, 256, 50, 68)
#: The op and the arguments of its job.
JOBS: tuple[tuple[Any, ...], ...] = (
    ("multibox_prior", TINY_SSD),
    ("multibox_prior", PRIORS["large"]),
    ("box_iou", 24564, 100),
    ("box_iou", 100_000, 1000),
    ("multibox_target", 32, TINY_SSD, 64),
    ("multibox_target", 64, SSD_512, 8, 21, True),
    ("multibox_detection", 32, TINY_SSD, 21, 400),
    ("box_nms", 1, 1000, 1, spread),
    ("box_nms", 1, 5000, 1, spread),
    ("box_nms", 1, 20000, 1, spread),
    ("box_nms", *CASES["large classes"]),
    ("box_nms", *CASES["batch"]),
    ("box_nms", *CASES["huge"]),
    ("multiclass_nms", 32),
    ("roi_pooling", 1000, MAPS),
    ("roi_pooling_backward", 1000, MAPS),
)
ROUNDS = 10
SLOWEST = 5

#: Does one launch: ``around(kernel, launch)``.
Around = Callable[[str, Callable[[], None]], None]


@contextlib.contextmanager
def launches(around: Around) -> Iterator[None]:
    """Let ``around`` do the launches of the "cupy" backend."""
    before, native = cuda.Call, extension.native()

    def call(library: Any, device: Any, native_device: Any, stream: int) -> cuda.Call:
        return before(library, device, native.AroundDevice(native_device, around), stream)

    def replace(make: Any) -> None:
        cuda.Call = make  # type: ignore[misc]
        # An executor keeps its calls.
        _op.BACKENDS["cuda", "cupy"].executor.cache_clear()  # type: ignore[attr-defined]
        _op.clear_caches()

    replace(call)
    try:
        yield
    finally:
        replace(before)


class Launch(NamedTuple):
    kernel: str
    #: The first is number 0.
    number: int
    seconds: float


def prepared(job: Job) -> Callable[[], Any]:
    """A call of it, its kernels loaded."""
    import cupy

    call = partial(job.ours, *map(cupy.asarray, job.arrays), backend="cupy")
    call()
    return call


def timed(call: Callable[[], Any]) -> list[Launch]:
    """The launches of a call in their order, medians of some calls with a cold cache each."""
    import cupy

    stream = cupy.cuda.get_current_stream()
    rounds: list[list[tuple[str, Any, Any]]] = []

    def around(kernel: str, launch: Callable[[], None]) -> None:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        launch()
        end.record(stream)
        rounds[-1].append((kernel, start, end))

    with launches(around):
        for _ in range(ROUNDS):
            # A launch takes the host some 20 us, its events included.
            gpu_times.occupy(stream, 20e-6 * (len(rounds[-1]) if rounds else 100))
            rounds.append([])
            call()
            stream.synchronize()
    return [
        Launch(
            of_rounds[0][0],
            number,
            median(cupy.cuda.get_elapsed_time(start, end) / 1e3 for _, start, end in of_rounds),
        )
        for number, of_rounds in enumerate(zip(*rounds))
    ]


def by_kernel(job: int, found: list[Launch]) -> list[dict[str, Any]]:
    """Each kernel of a job: how often, how long in all, and its longest launch."""
    lines = []
    for kernel in dict.fromkeys(launch.kernel for launch in found):
        of_kernel = [launch for launch in found if launch.kernel == kernel]
        longest = max(of_kernel, key=lambda launch: launch.seconds)
        lines.append(
            dict(
                job=job,
                kernel=kernel,
                launches=len(of_kernel),
                seconds=sum(launch.seconds for launch in of_kernel),
                longest=longest.number,
                longest_seconds=longest.seconds,
            )
        )
    return lines


def slowest(lines: list[dict[str, Any]], num: int = SLOWEST) -> list[dict[str, Any]]:
    """The kernels that take longest in a job, each in the job where it takes longest."""
    lines = sorted(lines, key=lambda line: -line["seconds"])
    first = {line["kernel"]: line for line in reversed(lines)}
    return sorted(first.values(), key=lambda line: -line["seconds"])[:num]


def measured() -> Iterator[dict[str, Any]]:
    """What is known after each job.

    One that cannot run does not keep the others from it: its error stands in its place.
    """
    jobs: list[dict[str, str]] = []
    lines: list[dict[str, Any]] = []
    for number, arguments in enumerate(JOBS):
        about = dict(op=arguments[0], size="")
        try:
            job = job_of(*arguments)
            about["size"] = job.size
            lines += by_kernel(number, timed(prepared(job)))
        except Exception as error:
            about["error"] = f"{type(error).__name__}: {error}"
        jobs.append(about)
        yield dict(jobs=jobs, kernels=lines, slowest=slowest(lines))


def measure(file: Path) -> None:
    """Fill the file, and print the table: of the jobs before a time limit where one ends it."""
    results: dict[str, Any] = dict(jobs=[], kernels=[])
    part = file.with_suffix(".part")
    try:
        for results in measured():
            part.write_text(json.dumps(results, indent=1), "utf-8")
            part.replace(file)  # so that who is killed leaves a whole one
    finally:
        print("\n".join(table(results)))
    if any("error" in job for job in results["jobs"]):
        sys.exit(1)


def table(results: dict[str, Any]) -> list[str]:
    rows = [["op", "size", "kernel", "launches", "in all", "of the op"]]
    for number, job in enumerate(results["jobs"]):
        if "error" in job:
            rows.append([job["op"], job["size"], f"FAILED: {job['error']}", "", "", ""])
        lines = [line for line in results["kernels"] if line["job"] == number]
        whole = sum(line["seconds"] for line in lines)
        for line in lines:
            times = scaled(line["seconds"], SECONDS), f"{100 * line['seconds'] / whole:.0f} %"
            rows.append([job["op"], job["size"], line["kernel"], str(line["launches"]), *times])
    return aligned(rows, left=3)


def profile(results: dict[str, Any]) -> None:
    """Launch each of the slowest once more, with the profiler on."""
    from cupy.cuda import Device, runtime

    for line in results["slowest"]:
        call = prepared(job_of(*JOBS[line["job"]]))
        count = 0

        def around(kernel: str, launch: Callable[[], None], wanted: int = line["longest"]) -> None:
            nonlocal count
            count += 1
            if count != wanted + 1:
                launch()
                return
            Device().synchronize()
            runtime.profilerStart()
            launch()
            Device().synchronize()
            runtime.profilerStop()

        with launches(around):
            call()
        print(f"{line['kernel']}: launch {line['longest']} of {count}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="times the launches")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="launches those to be profiled"
    )
    args = parser.parse_args()
    if args.profile:
        profile(json.loads(args.profile.read_text("utf-8")))
    elif args.json:
        measure(args.json)
    else:
        parser.error("--json or --profile is needed")


if __name__ == "__main__":
    main()
