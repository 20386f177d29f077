"""What MODEL.md predicts, for the tables: a row of it begins with an op and words of its size."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("MODEL.md")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
#: What a size may say beside the words of its row: the inputs that the model is about.
IMPLIED = {"spread"}


def predictions(text: str) -> dict[tuple[str, frozenset[str]], float]:
    """From the op and the words of the size to seconds."""
    found = {}
    column = None
    for line in text.splitlines():
        if not line.startswith("|"):
            column = None  # the table has ended
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "predicted" in cells:
            column = cells.index("predicted")
        row = re.fullmatch(r"`(\w+)`, (.+)", cells[0])
        if column is None or row is None:
            continue
        time = re.fullmatch(r"([\d.]+) (us|ms|s)", cells[column])
        if time:
            found[row[1], _words(row[2])] = float(time[1]) * UNITS[time[2]]
    return found


def predicted(op: str, size: str) -> float | None:
    """Seconds; None where the model says nothing."""
    words = _words(size)
    for (name, row), seconds in _predictions().items():
        if name == op and row <= words <= row | IMPLIED:
            return seconds
    return None


@lru_cache(maxsize=1)
def _predictions() -> dict[tuple[str, frozenset[str]], float]:
    return predictions(FILE.read_text("utf-8"))


def _words(size: str) -> frozenset[str]:
    return frozenset(re.sub(r"(?<=\d),(?=\d{3})", "", size).split(", "))
