"""The benchmark of threads: its jobs, its comparison of results, its table."""

import numpy as np
import pytest
import thread_scaling
from cases import OPS
from tools.find_job import find_job
from tools.jobs import Job

import cvops


def test_jobs_have_every_op():
    assert {op.removesuffix("_backward") for op, _ in thread_scaling.JOBS} == set(OPS)


def test_measured_rows_have_times_and_rates(monkeypatch):
    monkeypatch.setattr(thread_scaling, "SECONDS_EACH", 0)
    before = cvops.get_num_threads()
    (row,) = thread_scaling.measure([("box_iou", (100, 100))], 2)
    assert cvops.get_num_threads() == before
    one, several = row["seconds"]
    assert row["gain"] == one / several > 0
    assert row["bytes"] == find_job("box_iou", 100, 100).moved == 4 * (8 * 100 + 100 * 100)
    assert row["bytes_per_second"] == row["bytes"] / several


def test_results_that_depend_on_the_number_of_threads_are_an_error():
    def depends(backend):
        return np.float32([cvops.get_num_threads()])

    before = cvops.get_num_threads()
    with pytest.raises(AssertionError):
        thread_scaling.seconds(Job("op", "", depends, (), work=(1, "items"), written=4), (1, 2))
    cvops.set_num_threads(before)


def test_table_marks_low_gains():
    low = dict(op="a", size="1", seconds=[1.2, 1.0], gain=1.2, bytes_per_second=2e9)
    high = dict(op="b", size="2", seconds=[1.9, 1.0], gain=1.9, bytes_per_second=1e6)
    *_, first, second = thread_scaling.table([low, high], 2).strip().splitlines()
    assert "| 1.20 | 2.00 G B/s | below 1.3 |" in first
    assert "below" not in second
