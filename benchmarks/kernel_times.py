"""Times the kernels of the largest jobs on a GPU: each launch between two events.

    python benchmarks/kernel_times.py --json FILE       times each launch, and prints a table
    python benchmarks/kernel_times.py --profile FILE    repeats the slowest launches of that file

The launches are those of the backend "cupy". The file has the longest launch of each of the slowest
kernels. The second command is for ``ncu --profile-from-start off``: it starts the profiler for
these launches only.

A time includes 1 or 2 us of an event, which matters for short kernels.
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
from tools.find_job import find_job
from tools.inputs import SSD_512, TINY_SSD
from tools.jobs import Job
from tools.text import SECONDS, aligned, scaled

from cvops.backends import cuda, extension, registry
from cvops.ops import _op

MAPS = (1, 256, 50, 68)
#: Each op and the arguments of its job.
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
    ("matrix_nms", 1, 5000, 1, spread),
    ("proposal", 8),
    ("deformable_psroi_pooling", 300, 21, (1, 1029, 38, 63)),
    ("deformable_psroi_pooling_backward", 300, 21, (1, 1029, 38, 63)),
    ("psroi_pooling", 300, 21, (1, 1029, 38, 63)),
    ("psroi_pooling_backward", 300, 21, (1, 1029, 38, 63)),
    ("roi_align", 1000, MAPS),
    ("roi_align_backward", 1000, MAPS),
    ("roi_pooling", 1000, MAPS),
    ("roi_pooling_backward", 1000, MAPS),
    ("rroi_align", 1000, MAPS),
    ("soft_nms", 1, 5000, 1, spread),
)
ROUNDS = 10
SLOWEST = 5

#: Makes one launch, ``hook(kernel, launch)``, by a call of ``launch``.
Hook = Callable[[str, Callable[[], None]], None]


@contextlib.contextmanager
def hooked_launches(hook: Hook) -> Iterator[None]:
    """Make the launches of the "cupy" backend through ``hook``."""
    original, native = cuda.Call, extension.native()

    def call(library: Any, device: Any, native_device: Any, stream: int) -> cuda.Call:
        return original(library, device, native.AroundDevice(native_device, hook), stream)

    def replace(make: Any) -> None:
        cuda.Call = make  # type: ignore[misc]
        # An executor keeps its calls.
        registry.BACKENDS["cuda", "cupy"].executor.cache_clear()  # type: ignore[attr-defined]
        _op.clear_caches()

    replace(call)
    try:
        yield
    finally:
        replace(original)


class Launch(NamedTuple):
    kernel: str
    #: The position in the call, from 0.
    number: int
    seconds: float


def prepare_call(job: Job) -> Callable[[], Any]:
    """Return a call of the job; its kernels are loaded."""
    import cupy

    call = partial(job.ours, *map(cupy.asarray, job.arrays), backend="cupy")
    call()
    return call


def time_launches(call: Callable[[], Any]) -> list[Launch]:
    """Return the launches of a call in order: medians over several calls, with a cold cache."""
    import cupy

    stream = cupy.cuda.get_current_stream()
    rounds: list[list[tuple[str, Any, Any]]] = []

    def hook(kernel: str, launch: Callable[[], None]) -> None:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        launch()
        end.record(stream)
        rounds[-1].append((kernel, start, end))

    with hooked_launches(hook):
        for _ in range(ROUNDS):
            # The host needs about 20 us for a launch with its events.
            gpu_times.occupy(stream, 20e-6 * (len(rounds[-1]) if rounds else 100))
            rounds.append([])
            call()
            stream.synchronize()
    return [
        Launch(
            same_launch[0][0],
            number,
            median(cupy.cuda.get_elapsed_time(start, end) / 1e3 for _, start, end in same_launch),
        )
        for number, same_launch in enumerate(zip(*rounds))
    ]


def group_by_kernel(job: int, launches: list[Launch]) -> list[dict[str, Any]]:
    """Return number, total time and longest launch of each kernel of a job."""
    lines = []
    for kernel in dict.fromkeys(launch.kernel for launch in launches):
        of_kernel = [launch for launch in launches if launch.kernel == kernel]
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
    """Return the slowest kernels, each once, with its slowest job."""
    lines = sorted(lines, key=lambda line: -line["seconds"])
    first = {line["kernel"]: line for line in reversed(lines)}
    return sorted(first.values(), key=lambda line: -line["seconds"])[:num]


def measure_jobs() -> Iterator[dict[str, Any]]:
    """Yield the results so far after each job.

    A job that cannot run has its error instead of times; the other jobs still run.
    """
    jobs: list[dict[str, str]] = []
    lines: list[dict[str, Any]] = []
    for number, arguments in enumerate(JOBS):
        entry = dict(op=arguments[0], size="")
        try:
            job = find_job(*arguments)
            entry["size"] = job.size
            lines += group_by_kernel(number, time_launches(prepare_call(job)))
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {error}"
        jobs.append(entry)
        yield dict(jobs=jobs, kernels=lines, slowest=slowest(lines))


def measure(file: Path) -> None:
    """Write the file after each job, and print the table, also after an interrupt."""
    results: dict[str, Any] = dict(jobs=[], kernels=[])
    part = file.with_suffix(".part")
    try:
        for results in measure_jobs():
            part.write_text(json.dumps(results, indent=1), "utf-8")
            part.replace(file)  # atomic: a process that is killed leaves a complete file
    finally:
        print("\n".join(table(results)))
    if any("error" in job for job in results["jobs"]):
        sys.exit(1)


def table(results: dict[str, Any]) -> list[str]:
    rows = [["op", "size", "kernel", "launches", "total", "% of op"]]
    for number, job in enumerate(results["jobs"]):
        if "error" in job:
            rows.append([job["op"], job["size"], f"FAILED: {job['error']}", "", "", ""])
        lines = [line for line in results["kernels"] if line["job"] == number]
        total = sum(line["seconds"] for line in lines)
        for line in lines:
            times = scaled(line["seconds"], SECONDS), f"{100 * line['seconds'] / total:.0f} %"
            rows.append([job["op"], job["size"], line["kernel"], str(line["launches"]), *times])
    return aligned(rows, left=3)


def profile(results: dict[str, Any]) -> None:
    """Repeat the longest launch of each of the slowest kernels, with the profiler on."""
    from cupy.cuda import Device, runtime

    for line in results["slowest"]:
        call = prepare_call(find_job(*JOBS[line["job"]]))
        count = 0

        def hook(kernel: str, launch: Callable[[], None], longest: int = line["longest"]) -> None:
            nonlocal count
            count += 1
            if count != longest + 1:
                launch()
                return
            Device().synchronize()
            runtime.profilerStart()
            launch()
            Device().synchronize()
            runtime.profilerStop()

        with hooked_launches(hook):
            call()
        print(f"{line['kernel']}: launch {line['longest']} of {count}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="time the launches")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="repeat the slowest launches of this file"
    )
    args = parser.parse_args()
    if args.profile:
        profile(json.loads(args.profile.read_text("utf-8")))
    elif args.json:
        measure(args.json)
    else:
        parser.error("expected --json or --profile, got neither")


if __name__ == "__main__":
    main()
