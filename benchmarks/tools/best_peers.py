"""The best peer of each job, from the results of all runs on a CPU. As a script: its table."""

from __future__ import annotations

import json
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
    """Return the jobs that have a peer. Of several runs with the same peers the newest counts."""
    newest: dict[tuple[str, str, bool], Job] = {}
    for file in sorted(folder.glob("*-cpu-*.json")):
        # MXNet and the other peers run in two processes.
        others = "-others" in file.stem
        for x in json.loads(file.read_text("utf-8")).get("summary") or []:
            job = Job(x["op"], x["size"], x["peer"], x["peer_s"], x["ours_s"], file.stem)
            newest[job.op, job.size, others] = job
    best: dict[tuple[str, str], Job] = {}
    for job in newest.values():
        known = best.setdefault((job.op, job.size), job)
        if job.peer_time < known.peer_time:
            best[job.op, job.size] = job
    return sorted(best.values())


def table(found: list[Job]) -> str:
    """Return the jobs as a table of Markdown."""
    return "\n".join(aligned([HEADS, *(job.cells() for job in found)], left=3)) + "\n"


if __name__ == "__main__":
    print(table(jobs()), end="")
