"""Text of tables: numbers in units, aligned columns."""

from __future__ import annotations

SECONDS = {1: "s", 1e-3: "ms", 1e-6: "us"}
PREFIXES = {1e12: "T ", 1e9: "G ", 1e6: "M ", 1e3: "k ", 1: ""}
BINARY = {1 << 30: "Gi", 1 << 20: "Mi", 1 << 10: "Ki", 1: ""}


def digits(x: float) -> str:
    """Return three digits, without a power of ten."""
    places = next((p for p, limit in enumerate((100, 10, 1, 0.1)) if x >= limit), 4)
    return f"{x:.{places}f}"


def scaled(x: float, units: dict[float, str]) -> str:
    """Return ``x`` in the largest unit that is not above it, or in the smallest unit."""
    unit = next((unit for unit in units if x >= unit), min(units))
    return f"{digits(x / unit)} {units[unit]}"


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
