"""Tables of times, rates and ratios, with the machine and the versions."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from typing import Any, NamedTuple, Optional

from tools.gpu_times import GpuTimes
from tools.harness import LIBRARIES, Contender, OneThread, Ours
from tools.limits import MEMORY, Floor, Limits, cores
from tools.predictions import predicted

import cvops
from cvops.ops._op import BACKENDS


class Row(NamedTuple):
    """A contender's time for a job."""

    op: str
    size: str
    contender: Contender
    median: float
    work: tuple[int, str]
    moved: int
    #: None if the limit is unknown.
    floor: Optional[Floor] = None
    #: None on a CPU.
    gpu: Optional[GpuTimes] = None


class Rows:
    """All rows of a run, and comparisons between them."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)

    def of(self, op: str) -> list[Row]:
        return [row for row in self.rows if row.op == op]

    def peers(self, row: Row) -> dict[str, Row]:
        """Return the peers by library: on the same kind of device, else on the CPU."""
        found: dict[str, Row] = {}
        for other in self.rows:
            library = other.contender.library
            if library is None or (other.op, other.size) != (row.op, row.size):
                continue
            if other.contender.device == row.contender.device or library not in found:
                found[library] = other
        return found

    def best_peer(self, row: Row) -> Row | None:
        """Return the fastest peer; None for the row of a peer."""
        if row.contender.library is not None:
            return None
        return min(self.peers(row).values(), key=lambda peer: peer.median, default=None)

    def summary(self) -> list[dict[str, Any]]:
        """Return the best peer, our best time, and ours with one thread, by job and device."""
        lines: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in self.rows:
            peer = self.best_peer(row)
            if type(row.contender) not in (Ours, OneThread) or peer is None:
                continue
            line = lines.setdefault(
                (row.op, row.size, row.contender.device),
                dict(op=row.op, size=row.size, peer=peer.contender.name, peer_s=peer.median),
            )
            key = "one_thread" if isinstance(row.contender, OneThread) else "ours"
            if row.median < line.get(f"{key}_s", float("inf")):
                line[f"{key}_s"] = row.median
                line[f"{key}_ratio"] = peer.median / row.median
        return [line for line in lines.values() if "ours_s" in line]

    def gpu(self) -> list[dict[str, Any]]:
        """Return the times by the GPU's clock, with the lower bound and the prediction."""
        lines = []
        for row in self.rows:
            if row.gpu is None:
                continue
            line = dict(op=row.op, size=row.size, backend=row.contender.name, **row.gpu._asdict())
            if row.contender.library is not None:
                line["library"] = row.contender.library
            else:
                line["predicted"] = predicted(row.op, row.size)
            line["floor"] = row.floor and row.floor.seconds
            lines.append(line)
        return lines


def table(measured: Sequence[Row], limits: Limits, notes: Sequence[str] = ()) -> str:
    """Return the medians, rates and ratios as Markdown."""
    rows = Rows(measured)
    counts = ", ".join(f"{name} {count}" for name, count in threads().items())
    text = [about(), f"Threads: {counts}.", *limit_lines(limits)]
    for op in dict.fromkeys(row.op for row in measured):
        section = rows.of(op)
        libraries = [x for x in LIBRARIES if any(row.contender.library == x for row in section)]
        heads = ["size", "backend", "median", "GB/s", "work per second"]
        heads += [f"x {LIBRARIES[x]}" for x in libraries] + ["x best peer", "of the limit"]
        lines = [heads]
        size = ""
        for row in section:
            peers = rows.peers(row)
            best = rows.best_peer(row)
            lines.append(
                [
                    row.size if row.size != size else "",
                    row.contender.name,
                    scaled(row.median, SECONDS),
                    digits(row.moved / row.median / 1e9),
                    scaled(row.work[0] / row.median, PREFIXES) + row.work[1],
                    *(_ratio(row, peers.get(library)) for library in libraries),
                    _ratio(row, best),
                    share(row),
                ]
            )
            size = row.size
        text += ["", f"### {op}", "", *aligned(lines)]
    if notes:
        text += ["", "Not measured:", "", *(f"- {note}" for note in notes)]
    summary = rows.summary()
    if summary:
        text += ["", "### Summary", "", *summary_table(summary)]
    gpu = rows.gpu()
    if gpu:
        text += ["", "### By the GPU's clock", "", *gpu_table(gpu)]
        text += ["", GPU_SUMMARY, "", *gpu_summary_table(gpu)]
    return "\n".join(text) + "\n"


def summary_table(summary: Sequence[dict[str, Any]]) -> list[str]:
    lines = [["op", "size", "best peer", "its time", "cvops", "ratio", "one thread", "ratio"]]
    for line in summary:
        cells = [line["op"], line["size"], line["peer"], scaled(line["peer_s"], SECONDS)]
        for key in ("ours", "one_thread"):
            if f"{key}_s" in line:
                cells += [scaled(line[f"{key}_s"], SECONDS), digits(line[f"{key}_ratio"])]
            else:
                cells += ["", ""]
        lines.append(cells)
    return aligned(lines, left=3)


def _of_job(gpu: Sequence[dict[str, Any]], line: dict[str, Any]) -> list[dict[str, Any]]:
    return [x for x in gpu if (x["op"], x["size"]) == (line["op"], line["size"])]


def best_of(lines: Sequence[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """Return the fastest line; ``kind`` is "warm" or "cold"."""
    return min(lines, key=lambda line: line[kind], default=None)


def gpu_table(gpu: Sequence[dict[str, Any]]) -> list[str]:
    heads = ["op", "size", "backend", "warm", "cold", "host", "memory beside", "predicted"]
    lines = [[*heads, "x best peer", "x cold", "of the floor"]]
    for line in gpu:
        ratios = []
        for kind in ("warm", "cold"):
            peer = best_of([x for x in _of_job(gpu, line) if "library" in x], kind)
            alone = peer is None or "library" in line
            ratios.append("" if alone else digits(peer[kind] / line[kind]))
        memory, model, floor = line["memory"], line.get("predicted"), line["floor"]
        lines.append(
            [
                *(line["op"], line["size"], line["backend"]),
                *(scaled(line[kind], SECONDS) for kind in ("warm", "cold", "host")),
                scaled(memory, BINARY) + "B" if memory else "" if memory is None else "none",
                scaled(model, SECONDS) if model else "",
                *ratios,
                f"{100 * floor / line['cold']:.0f} %" if floor else "",
            ]
        )
    return aligned(lines, left=3)


#: The heading of the table that ``gpu_check.sh`` prints.
GPU_SUMMARY = "### The GPU in short"


def gpu_summary_table(gpu: Sequence[dict[str, Any]]) -> list[str]:
    """Return the best peer, call and graph of each job by their cold times, with ratios."""
    groups = {
        "peer": lambda line: "library" in line,
        "call": lambda line: "library" not in line and "graph" not in line["backend"],
        "graph": lambda line: "library" not in line and "graph" in line["backend"],
    }
    heads = [f"{group} {kind}" for group in groups for kind in ("warm", "cold")]
    lines = [["op", "size", "best peer", *heads, "x call", "x graph", "predicted"]]
    for op, size in dict.fromkeys((line["op"], line["size"]) for line in gpu):
        of_job = _of_job(gpu, dict(op=op, size=size))
        peer, *ours = best = [best_of(list(filter(x, of_job)), "cold") for x in groups.values()]
        if not any(ours):
            continue
        cells = [op, size, peer["backend"].replace(", GPU", "") if peer else ""]
        cells += [scaled(x[kind], SECONDS) if x else "" for x in best for kind in ("warm", "cold")]
        cells += [digits(peer["cold"] / x["cold"]) if peer and x else "" for x in ours]
        model = next(line["predicted"] for line in ours if line)
        lines.append([*cells, scaled(model, SECONDS) if model else ""])
    return aligned(lines, left=3)


def _ratio(row: Row, peer: Row | None) -> str:
    return "" if peer is None or peer is row else digits(peer.median / row.median)


def share(row: Row) -> str:
    """Return the lower bound as a share of the time, and its kind; above 100 % after pruning."""
    if row.floor is None:
        return ""
    part = row.floor.seconds / row.median
    return f"{100 * part:.0f} % {row.floor.what}" if part >= 0.01 else f"< 1 % {row.floor.what}"


def limit_lines(limits: Limits) -> list[str]:
    """Return the measured limits of the machine."""
    kinds: dict[str, list[str]] = {}
    for (kind, size), rate in sorted(limits.rates.items()):
        if kind in MEMORY:
            text = f"{scaled(rate, PREFIXES)}B/s of {scaled(size, BINARY)}"
        else:
            text = f"{scaled(rate, PREFIXES)}pairs/s"
        kinds.setdefault(kind, []).append(text)
    if not kinds:
        return []
    return [
        "",
        f"Limits of this machine, of {limits.processes} processes at once:",
        "",
        *(f"- {kind}: {', '.join(texts)}" for kind, texts in kinds.items()),
    ]


def aligned(lines: list[list[str]], left: int = 2) -> list[str]:
    """Return a Markdown table; the first ``left`` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    rows = [
        " | ".join(
            x.ljust(w) if i < left else x.rjust(w) for i, (x, w) in enumerate(zip(line, widths))
        )
        for line in (lines[0], rule, *lines[1:])
    ]
    return [f"| {row} |" for row in rows]


def digits(x: float) -> str:
    """Return three digits, without a power of ten."""
    places = next((p for p, least in enumerate((100, 10, 1, 0.1)) if x >= least), 4)
    return f"{x:.{places}f}"


def scaled(x: float, units: dict[float, str]) -> str:
    """Return ``x`` in the largest unit that is not above it, or in the smallest unit."""
    unit = next((unit for unit in units if x >= unit), min(units))
    return f"{digits(x / unit)} {units[unit]}"


SECONDS = {1: "s", 1e-3: "ms", 1e-6: "us"}
PREFIXES = {1e12: "T ", 1e9: "G ", 1e6: "M ", 1e3: "k ", 1: ""}
BINARY = {1 << 30: "Gi", 1 << 20: "Mi", 1 << 10: "Ki", 1: ""}


def gpu_name() -> str | None:
    cupy = sys.modules.get("cupy")
    if cupy is None or BACKENDS["cuda", "cupy"].missing() is not None:
        return None
    with contextlib.suppress(Exception):  # an error may have made it unusable
        return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return "a GPU"


def cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def os_name() -> str:
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    return platform.platform()


def versions() -> dict[str, str]:
    """Return the versions of Python, cvops and the imported libraries."""
    try:
        own = metadata.version("cvops")
    except metadata.PackageNotFoundError:
        own = "from a checkout"
    names = "numpy", "mxnet", "cupy", "torch", "torchvision", "onnxruntime"
    modules = {name: sys.modules.get(name) for name in names}
    found = {n: str(m.__version__) for n, m in modules.items() if hasattr(m, "__version__")}
    return {"python": platform.python_version(), **found, "cvops": own}


def threads() -> dict[str, str]:
    """Return the number of threads of each imported library."""
    found = {"cvops": str(cvops.get_num_threads())}
    if "mxnet" in sys.modules:
        found["mxnet"] = os.environ.get("OMP_NUM_THREADS", "its default (OMP_NUM_THREADS not set)")
    if "torch" in sys.modules:
        found["torch"] = str(sys.modules["torch"].get_num_threads())
    if "onnxruntime" in sys.modules:
        found["onnxruntime"] = "its default, one for each core"
    return found


def about() -> str:
    """Return the machine, its software and the date in a line."""
    machine = f"{cpu_name()}, {cores()} cores; {gpu_name() or 'no GPU'}"
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine}; {os_name()}; {software}; {date.today()}."
