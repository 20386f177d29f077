"""The scratch memory of each call on a GPU. It follows from the shapes, so no GPU is needed."""

import json
from pathlib import Path

import pytest
from cases import OPS
from emulator import backends
from workloads import CALLS, WORKLOADS

_FILE = Path(__file__).parents[2] / "benchmarks" / "predictions.json"
PREDICTIONS = json.loads(_FILE.read_text("utf-8"))
#: The most scratch memory: ``SHARE`` of the arrays, and these bytes for each image: a suppression
#: has the bits and the list of a chunk, whose size is fixed.
OF_AN_IMAGE = dict.fromkeys(("box_nms", "multibox_detection", "multiclass_nms"), 600_000)
SHARE = 1.5


@pytest.fixture(autouse=True)
def h200(monkeypatch):
    monkeypatch.setattr(backends, "MULTIPROCESSORS", 132)


def measured(call):
    """The bytes of inputs and results, and the bytes of scratch memory."""
    op, arrays, args, options = call
    results, scratch = op(*arrays, *args, **options, backend="listed")
    inputs = arrays[0] if isinstance(arrays[0], list) else arrays
    return sum(x.nbytes for x in inputs) + results, scratch


def test_every_op_is_measured():
    backward = [f"{op}_backward" for op in ("bilinear_upsample", "box_nms", "roi_pooling")]
    assert sorted(CALLS) == sorted([*OPS, *backward, "multibox_target with mining"])


@pytest.mark.parametrize("name", CALLS)
def test_scratch_grows_no_faster_than_the_arrays(name):
    """A matrix of pairs would grow with the square: 100 times the boxes, 10,000 times the bytes."""
    images = 2 if name.startswith("multibox_") else 1
    for size in (1, 10, 100):
        arrays, scratch = measured(CALLS[name](size))
        assert scratch <= SHARE * arrays + images * OF_AN_IMAGE.get(name, 1000)


@pytest.mark.parametrize("workload", WORKLOADS, ids=", ".join)
def test_a_prediction_has_the_launches_and_the_memory_of_its_workload(workload, monkeypatch):
    launches = []
    monkeypatch.setattr(backends, "on_launch", launches.append)
    arrays, scratch = measured(WORKLOADS[workload]())
    counted = dict(launches=len(launches), array_bytes=arrays, scratch_bytes=scratch)
    [entry] = [x for x in PREDICTIONS if (x["op"], x["workload"]) == workload]
    assert {name: entry[name] for name in counted} == counted


def test_every_prediction_is_counted():
    assert [(x["op"], x["workload"]) for x in PREDICTIONS] == list(WORKLOADS)
