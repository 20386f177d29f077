"""The scratch memory and the launches of calls on a GPU, which follow from the shapes alone."""

import json
from pathlib import Path

import pytest
from cases import OPS
from emulator import backends
from workloads import CALLS, WORKLOADS

import cvops

_FILE = Path(__file__).parents[2] / "benchmarks" / "predictions.json"
PREDICTIONS = json.loads(_FILE.read_text("utf-8"))
#: The limit of the scratch memory: this ratio to the bytes of the arrays, and fixed bytes for each
#: image. A suppression has masks and a list for one chunk, whose size is fixed.
MAX_RATIO = 1.5
#: The sort of a matching has two keys of 8 bytes for each score.
MAX_RATIOS = {"bipartite_matching": 4}
FIXED_BYTES = dict.fromkeys(
    (
        "box_nms",
        "matrix_nms",
        "multibox_detection",
        "multiclass_nms",
        "nms_rotated",
        "proposal",
        "soft_nms",
        "weighted_boxes_fusion",
    ),
    600_000,
)


@pytest.fixture(autouse=True)
def h200(monkeypatch):
    monkeypatch.setattr(backends, "MULTIPROCESSORS", 132)


def measured(call):
    """Return the bytes of inputs and results, and the bytes of scratch memory."""
    op, arrays, args, options = call
    results, scratch = op(*arrays, *args, **options, backend="listed")
    inputs = arrays[0] if isinstance(arrays[0], list) else arrays
    return sum(x.nbytes for x in inputs) + results, scratch


def test_every_op_has_a_call_of_growing_sizes():
    backward = [name for name in cvops.__dict__ if name.endswith("_backward")]
    assert sorted(CALLS) == sorted([*OPS, *backward, "multibox_target with mining"])


@pytest.mark.parametrize("name", CALLS)
def test_scratch_memory_grows_linearly(name):
    """A matrix of all pairs of boxes would fail: its size is quadratic."""
    images = 2 if name.startswith("multibox_") else 1
    for size in (1, 10, 100):
        arrays, scratch = measured(CALLS[name](size))
        assert scratch <= MAX_RATIOS.get(name, MAX_RATIO) * arrays + images * FIXED_BYTES.get(
            name, 1000
        )


@pytest.mark.parametrize("workload", WORKLOADS, ids=", ".join)
def test_prediction_has_the_counted_launches_and_bytes(workload, monkeypatch):
    launches = []
    monkeypatch.setattr(backends, "on_launch", launches.append)
    arrays, scratch = measured(WORKLOADS[workload]())
    counted = dict(launches=len(launches), array_bytes=arrays, scratch_bytes=scratch)
    [entry] = [x for x in PREDICTIONS if (x["op"], x["workload"]) == workload]
    assert {name: entry[name] for name in counted} == counted


def test_every_prediction_has_a_workload():
    assert [(x["op"], x["workload"]) for x in PREDICTIONS] == list(WORKLOADS)
