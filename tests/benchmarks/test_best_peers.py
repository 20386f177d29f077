"""The best peer of each job in a folder of results."""

import json

import pytest
from tools import best_peers

TEXT = """[1 of 1 jobs](page.md)

| op | size | best peer | its time | cvops | times faster | date |
|---|---|---|---:|---:|---:|---|
| `box_iou` | 2 x 2 | MXNet | 9 s | 9 s | 9 | 2020-01-01 |
| `other` | 2 x 2 | MXNet | 9 s |
"""


def line(op, peer, peer_s, ours_s):
    return {"op": op, "size": "2 x 2", "peer": peer, "peer_s": peer_s, "ours_s": ours_s}


@pytest.fixture
def jobs(tmp_path):
    for name, lines in {
        # A newer run with the same peers replaces it.
        "2026-01-01-cpu-2-cores": [line("box_iou", "MXNet", 1e-6, 1e-6)],
        "2026-01-02-cpu-2-cores": [
            line("box_iou", "MXNet", 3e-3, 1e-3),
            line("box_nms", "MXNet", 1e-3, 2e-3),
        ],
        "2026-01-02-others-cpu-2-cores": [
            line("box_iou", "PyTorch", 4e-3, 1e-6),
            line("box_nms", "PyTorch", 2e-3, 1e-3),
        ],
        "2026-01-02-peers-cpu-2-cores": [line("box_iou", "OpenVINO", 5e-3, 1e-3)],
        "2026-01-03-gpu": [line("box_iou", "PyTorch", 1e-9, 1e-9)],
        "2026-01-03-scaling-cpu-2-cores": None,
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"summary": lines}))
    return best_peers.jobs(tmp_path)


def test_job_has_the_fastest_peer_of_the_newest_runs(jobs):
    assert [(job.op, job.peer, job.peer_time, job.time) for job in jobs] == [
        ("box_iou", "MXNet", 3e-3, 1e-3),
        ("box_nms", "MXNet", 1e-3, 2e-3),
    ]


def test_text_gets_the_numbers_of_the_jobs(jobs):
    lines = best_peers.update(TEXT, jobs).splitlines()
    assert lines[0] == "[1 of 2 jobs](page.md)"
    assert lines[4] == "| `box_iou` | 2 x 2 | MXNet | 3.00 ms | 1.00 ms | 3.00 | 2026-01-02 |"
    assert lines[1:4] + lines[5:] == TEXT.splitlines()[1:4] + TEXT.splitlines()[5:]
