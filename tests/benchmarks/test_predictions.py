"""The predictions for a GPU, and their tables."""

import bench_box_nms
import pytest
from tools import predictions


def test_prediction_is_found_by_op_and_workload():
    assert predictions.predicted("box_nms", "20000, spread") == pytest.approx(108e-6)
    assert predictions.predicted("box_nms", "20000, clustered") is None
    assert predictions.predicted("box_iou", "20000, spread") is None


def test_tables_have_each_workload():
    assert "| `box_iou`, 24564 x 100 | 1 | 9.8 MB: 2.3 us |" in predictions.tables()
    assert "| `box_iou`, 100000 x 1000 | 402 MB | none |" in predictions.tables()


def test_each_prediction_of_box_nms_has_a_benchmark():
    timed = {bench_box_nms.make_rows(*case)[1] for case in bench_box_nms.CASES.values()}
    predicted = {workload for op, workload in predictions.workloads() if op == "box_nms"}
    assert predicted
    assert predicted <= timed
