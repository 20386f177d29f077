"""Tables of times, rates and ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from peers.libraries import LIBRARIES
from tools.cvops_backends import Cvops, OneThread
from tools.gpu_times import GpuTimes
from tools.interface import Implementation
from tools.limits import MEMORY, Limits, LowerBound
from tools.machine import about, threads
from tools.predictions import predicted
from tools.text import BINARY, PREFIXES, SECONDS, aligned, digits, scaled


class Row(NamedTuple):
    """The time of an implementation for a job."""

    op: str
    size: str
    implementation: Implementation
    median: float
    work: tuple[int, str]
    #: Bytes that must be read or written.
    moved: int
    #: None if it is unknown.
    bound: Optional[LowerBound] = None
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
            library = other.implementation.library
            if library is None or (other.op, other.size) != (row.op, row.size):
                continue
            if other.implementation.device == row.implementation.device or library not in found:
                found[library] = other
        return found

    def best_peer(self, row: Row) -> Row | None:
        """Return the fastest peer; None for the row of a peer."""
        if row.implementation.library is not None:
            return None
        return min(self.peers(row).values(), key=lambda peer: peer.median, default=None)

    def summary(self) -> list[dict[str, Any]]:
        """Return the best peer, our best time, and ours with one thread, by job and device."""
        lines: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in self.rows:
            peer = self.best_peer(row)
            if type(row.implementation) not in (Cvops, OneThread) or peer is None:
                continue
            line = lines.setdefault(
                (row.op, row.size, row.implementation.device),
                dict(op=row.op, size=row.size, peer=peer.implementation.name, peer_s=peer.median),
            )
            key = "one_thread" if isinstance(row.implementation, OneThread) else "ours"
            if row.median < line.get(f"{key}_s", float("inf")):
                line[f"{key}_s"] = row.median
                line[f"{key}_ratio"] = peer.median / row.median
        return [line for line in lines.values() if "ours_s" in line]

    def gpu(self) -> list[dict[str, Any]]:
        """Return the times by CUDA's events, with the lower bound and the prediction."""
        lines = []
        for row in self.rows:
            if row.gpu is None:
                continue
            line = dict(
                op=row.op,
                size=row.size,
                implementation=row.implementation.name,
                **row.gpu._asdict(),
            )
            if row.implementation.library is not None:
                line["library"] = row.implementation.library
            else:
                line["predicted"] = predicted(row.op, row.size)
            line["bound"] = row.bound and row.bound.seconds
            lines.append(line)
        return lines


def table(measured: Sequence[Row], limits: Limits, notes: Sequence[str] = ()) -> str:
    """Return the medians, rates and ratios as Markdown."""
    rows = Rows(measured)
    counts = ", ".join(f"{name} {count}" for name, count in threads().items())
    text = [about(), f"Threads: {counts}.", *limit_lines(limits)]
    for op in dict.fromkeys(row.op for row in measured):
        text += ["", f"### {op}", "", *op_table(rows, op)]
    if notes:
        text += ["", "Not measured:", "", *(f"- {note}" for note in notes)]
    summary = rows.summary()
    if summary:
        text += ["", "### Summary", "", *summary_table(summary)]
    gpu = rows.gpu()
    if gpu:
        text += ["", "### Times by CUDA events", "", *gpu_table(gpu)]
        text += ["", GPU_SUMMARY, "", *gpu_summary_table(gpu)]
    return "\n".join(text) + "\n"


def op_table(rows: Rows, op: str) -> list[str]:
    """Return the table of an op: a row for each size and implementation."""
    section = rows.of(op)
    libraries = [x for x in LIBRARIES if any(row.implementation.library == x for row in section)]
    heads = ["size", "implementation", "median", "GB/s", "work per second"]
    lines = [[*heads, *(f"x {LIBRARIES[x]}" for x in libraries), "x best peer", "% of bound"]]
    size = ""
    for row in section:
        peers = rows.peers(row)
        lines.append(
            [
                row.size if row.size != size else "",
                row.implementation.name,
                scaled(row.median, SECONDS),
                digits(row.moved / row.median / 1e9),
                scaled(row.work[0] / row.median, PREFIXES) + row.work[1],
                *(_ratio(row, peers.get(library)) for library in libraries),
                _ratio(row, rows.best_peer(row)),
                percent_of_bound(row),
            ]
        )
        size = row.size
    return aligned(lines)


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


def fastest(lines: Sequence[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """Return the fastest line; ``kind`` is "warm" or "cold"."""
    return min(lines, key=lambda line: line[kind], default=None)


def gpu_table(gpu: Sequence[dict[str, Any]]) -> list[str]:
    heads = ["op", "size", "implementation", "warm", "cold", "host", "peak extra memory"]
    lines = [[*heads, "predicted", "x best peer", "x cold", "% of bound"]]
    for line in gpu:
        ratios = []
        for kind in ("warm", "cold"):
            peer = fastest([x for x in _of_job(gpu, line) if "library" in x], kind)
            empty = peer is None or "library" in line
            ratios.append("" if empty else digits(peer[kind] / line[kind]))
        memory, prediction, bound = line["memory"], line.get("predicted"), line["bound"]
        lines.append(
            [
                line["op"],
                line["size"],
                line["implementation"],
                *(scaled(line[kind], SECONDS) for kind in ("warm", "cold", "host")),
                scaled(memory, BINARY) + "B" if memory else "" if memory is None else "none",
                scaled(prediction, SECONDS) if prediction else "",
                *ratios,
                f"{100 * bound / line['cold']:.0f} %" if bound else "",
            ]
        )
    return aligned(lines, left=3)


#: The heading of the table that ``gpu_check.sh`` prints.
GPU_SUMMARY = "### GPU summary"


def gpu_summary_table(gpu: Sequence[dict[str, Any]]) -> list[str]:
    """Return the best peer, call and graph of each job by their cold times, with ratios."""
    groups = {
        "peer": lambda line: "library" in line,
        "call": lambda line: "library" not in line and "graph" not in line["implementation"],
        "graph": lambda line: "library" not in line and "graph" in line["implementation"],
    }
    heads = [f"{group} {kind}" for group in groups for kind in ("warm", "cold")]
    lines = [["op", "size", "best peer", *heads, "x call", "x graph", "predicted"]]
    for op, size in dict.fromkeys((line["op"], line["size"]) for line in gpu):
        of_job = _of_job(gpu, dict(op=op, size=size))
        peer, *ours = best = [fastest(list(filter(x, of_job)), "cold") for x in groups.values()]
        if not any(ours):
            continue
        cells = [op, size, peer["implementation"].replace(", GPU", "") if peer else ""]
        cells += [scaled(x[kind], SECONDS) if x else "" for x in best for kind in ("warm", "cold")]
        cells += [digits(peer["cold"] / x["cold"]) if peer and x else "" for x in ours]
        prediction = next(line["predicted"] for line in ours if line)
        lines.append([*cells, scaled(prediction, SECONDS) if prediction else ""])
    return aligned(lines, left=3)


def _ratio(row: Row, peer: Row | None) -> str:
    return "" if peer is None or peer is row else digits(peer.median / row.median)


def percent_of_bound(row: Row) -> str:
    """Return the lower bound in percent of the time, and its work; above 100 % after pruning."""
    if row.bound is None:
        return ""
    share = row.bound.seconds / row.median
    percent = f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"
    return f"{percent} {row.bound.work}"


def limit_lines(limits: Limits) -> list[str]:
    """Return the measured limits of the machine."""
    kinds: dict[str, list[str]] = {}
    for (kind, size), rate in sorted(limits.rates.items()):
        if kind in MEMORY:
            text = f"{scaled(rate, PREFIXES)}B/s for {scaled(size, BINARY)}B"
        else:
            text = f"{scaled(rate, PREFIXES)}pairs/s"
        kinds.setdefault(kind, []).append(text)
    if not kinds:
        return []
    return [
        "",
        f"Limits of this machine, the sum of {limits.processes} concurrent processes:",
        "",
        *(f"- {kind}: {', '.join(texts)}" for kind, texts in kinds.items()),
    ]
