"""The best peer of each job, from the results of all runs on a CPU.

``python -m tools.best_peers`` prints the table. With the path of README.md it updates the rows of
that file and its number of jobs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from tools.text import SECONDS, aligned, digits, scaled

RESULTS = Path(__file__).parents[1] / "results"
HEADS = ["op", "size", "best peer", "its time", "cvops", "times faster", "date"]


class Job(NamedTuple):
    """A job with the fastest peer of all runs, and the time of cvops in the run of that peer."""

    op: str
    size: str
    peer: str
    #: Medians in seconds.
    peer_time: float
    time: float
    #: The name of the run's files, without a suffix.
    run: str

    @property
    def ratio(self) -> float:
        return self.peer_time / self.time

    def cells(self) -> list[str]:
        times = scaled(self.peer_time, SECONDS), scaled(self.time, SECONDS)
        return [f"`{self.op}`", self.size, self.peer, *times, digits(self.ratio), self.run[:10]]


def jobs(folder: Path = RESULTS) -> list[Job]:
    """Return the jobs that have a peer. The newest of several runs with the same peers counts."""
    newest: dict[tuple[str, str, str], Job] = {}
    for file in sorted(folder.glob("*-cpu-*.json")):
        # The peers run in three processes.
        peers = next((x for x in ("others", "peers") if f"-{x}-" in file.stem), "mxnet")
        for x in json.loads(file.read_text("utf-8")).get("summary") or []:
            job = Job(x["op"], x["size"], x["peer"], x["peer_s"], x["ours_s"], file.stem)
            newest[job.op, job.size, peers] = job
    best: dict[tuple[str, str], Job] = {}
    for job in newest.values():
        known = best.setdefault((job.op, job.size), job)
        if job.peer_time < known.peer_time:
            best[job.op, job.size] = job
    return sorted(best.values())


def table(found: list[Job]) -> str:
    """Return the jobs as a table of Markdown."""
    return "\n".join(aligned([HEADS, *(job.cells() for job in found)], left=3)) + "\n"


def update(text: str, found: list[Job]) -> str:
    """Return the text with new numbers: in the rows of a job, and in "[109 of 111 jobs]"."""
    rows = {tuple(job.cells()[:2]): job.cells() for job in found}

    def row(match: re.Match[str]) -> str:
        cells = rows.get((match[1], match[2]))
        return f"| {' | '.join(cells)} |" if cells else match[0]

    text = re.sub(r"^\| (`\w+`) \| ([^|]+) \|.*\|$", row, text, flags=re.MULTILINE)
    faster = sum(job.ratio > 1 for job in found)
    return re.sub(r"\[\d+ of \d+ jobs\]", f"[{faster} of {len(found)} jobs]", text)


if __name__ == "__main__":
    if sys.argv[1:]:
        readme = Path(sys.argv[1])
        readme.write_text(update(readme.read_text("utf-8"), jobs()), "utf-8")
    else:
        print(table(jobs()), end="")
