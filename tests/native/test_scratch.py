"""The scratch memory of calls on the CPU: its growth, and its release."""

from collections import defaultdict

import pytest
from cases import OPS

import cvops
from native import core, program, run

BACKWARD = [name for name in cvops.__dict__ if name.endswith("_backward")]
#: Rotated boxes have float64 and axes; matrix_nms has a term of each box; proposal has the boxes of
#: each image; each box may be a cluster of weighted_boxes_fusion.
MAX_RATIOS = {"matrix_nms": 2, "nms_rotated": 2.5, "proposal": 4, "weighted_boxes_fusion": 2.5}
CALLS = [*OPS, *BACKWARD, "multibox_target_mining"]


@pytest.fixture(scope="module")
def scratch():
    """call -> {size: (bytes of the arrays, peak bytes of scratch memory, bytes after the call)}"""
    found = defaultdict(dict)
    for line in run(program("scratch", *core())).splitlines():
        call, size, *numbers = line.split()
        found[call][int(size)] = tuple(map(int, numbers))
    return found


def test_every_op_is_measured(scratch):
    assert sorted(scratch) == sorted(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_call_frees_its_scratch_memory(scratch, call):
    assert [kept for _, _, kept in scratch[call].values()] == [0, 0, 0]


@pytest.mark.parametrize("call", CALLS)
def test_scratch_memory_of_a_call_grows_linearly(scratch, call):
    """A matrix of all pairs of boxes would fail: its size is quadratic."""
    for arrays, peak, _ in scratch[call].values():
        assert peak <= MAX_RATIOS.get(call, 1.5) * arrays + 100_000
