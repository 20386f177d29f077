"""What memory of its own a call on the CPU takes: no more than its arrays, and all given back."""

from collections import defaultdict

import pytest
from cases import OPS

from native import core, program, run

BACKWARD = [f"{op}_backward" for op in ("bilinear_upsample", "box_nms", "roi_pooling")]
CALLS = [*OPS, *BACKWARD, "multibox_target_mining"]


@pytest.fixture(scope="module")
def scratch():
    """call -> {size: (bytes of its arrays, the most that it took beside them, what it kept)}"""
    found = defaultdict(dict)
    for line in run(program("scratch", *core())).splitlines():
        call, size, *numbers = line.split()
        found[call][int(size)] = tuple(map(int, numbers))
    return found


def test_every_op_is_measured(scratch):
    assert sorted(scratch) == sorted(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_kept(scratch, call):
    assert [kept for _, _, kept in scratch[call].values()] == [0, 0, 0]


@pytest.mark.parametrize("call", CALLS)
def test_scratch_grows_no_faster_than_the_arrays(scratch, call):
    """A matrix of pairs would grow with the square: 16 times the boxes, 256 times the memory."""
    for arrays, taken, _ in scratch[call].values():
        assert taken <= 1.5 * arrays + 100_000
