"""Lower bounds of times, from the limits of the machine."""

import numpy as np
import pytest
from tools import limits
from tools.jobs import InnerLoop, Job


def job(**details):
    arrays = (np.zeros(100, np.float32),)
    return Job("nms", "N", lambda x, backend: x, arrays, work=(1, "boxes"), **details)


@pytest.fixture
def machine():
    machine = limits.Limits()
    rates = {"copying": 1e3, "writing": 2e3, "reading": 4e3, "IoU": 10.0}
    machine.rate = lambda kind, size=0: rates[kind]
    return machine


@pytest.mark.parametrize(
    ("read", "written", "bound"),
    [
        (400, 600, (1.0, "copying")),
        (9, 991, (0.5, "writing")),
        (991, 9, (0.25, "reading")),
    ],
    ids=["copying", "writing", "reading"],
)
def test_bound_of_a_job_is_the_time_of_its_bytes(machine, read, written, bound):
    assert machine.lower_bound(job(read=read, written=written)) == bound


@pytest.mark.parametrize(
    ("pairs", "bound"),
    [(5, (1.0, "copying")), (20, (2.0, "IoU pairs"))],
    ids=["few pairs", "many pairs"],
)
def test_bound_of_a_job_with_pairs_is_the_longer_time(machine, pairs, bound):
    inner = InnerLoop("IoU", lambda out: pairs * len(out))
    assert machine.lower_bound(job(written=600, inner=inner)) == bound


def test_rate_is_measured_once_by_concurrent_processes(monkeypatch):
    monkeypatch.setattr(limits, "ROUNDS", 1)
    monkeypatch.setattr(limits, "cores", lambda: 2)
    machine = limits.Limits()
    try:
        rate = machine.rate("writing", 1000)
    finally:
        machine.close()
    assert rate > 1e6
    assert machine.rates == {("writing", 2 * limits.MIN_BYTES): rate}
