"""Predictions for an H200. As a script, this file prints predictions.json as two tables.

MODEL.md explains the numbers. The number of launches and the bytes of arrays and scratch memory
follow from the shapes: tests/gpu/test_workspace.py counts them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "predictions.json"


@lru_cache(None)
def workloads() -> dict[tuple[str, str], dict[str, Any]]:
    """The entries by op and workload; a workload has the name that the benchmarks give it."""
    return {(x["op"], x["workload"]): x for x in json.loads(FILE.read_text("utf-8"))}


def predicted(op: str, workload: str) -> float | None:
    """Seconds; None for a workload without a prediction."""
    found = workloads().get((op, workload))
    return found and found["predicted_us"] * 1e-6


def amount(num_bytes: int) -> str:
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes} B" if num_bytes else "none"


def tables() -> str:
    """The predictions and the memory as Markdown."""
    times = [["op, workload", "launches", "bytes", "operations", "predicted", "bound"]]
    memory = [["op, workload", "inputs and outputs", "scratch memory"]]
    for x in workloads().values():
        name = f"`{x['op']}`, {x['workload']}"
        time = f"{x['predicted_us']:g} us"
        times.append([name, str(x["launches"]), x["bytes"], x["operations"], time, x["bound"]])
        memory.append([name, amount(x["array_bytes"]), amount(x["scratch_bytes"])])
    return f"{_markdown(times)}\n\n{_markdown(memory)}"


def _markdown(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(tables())
