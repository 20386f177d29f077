"""The inputs of the benchmark of worst cases, and the results of the ops on them."""

import numpy as np
import pytest
import worst_cases
import worst_inputs
from tools.jobs import flat
from worst_inputs import SUITES

#: Small sizes of some ops. The others have a tenth of their smallest size.
SMALL = {"box_nms": (700,), "multibox_target": (300, 40), "bipartite_matching": (60, 60)}


def small_cases(op):
    size = SMALL.get(op, tuple(max(n // 10, 2) for n in SUITES[op].sizes[0]))
    return SUITES[op].cases(*size)


@pytest.mark.parametrize("op", SUITES)
def test_first_case_is_the_spread_one_and_names_differ(op):
    names = [case.name for case in small_cases(op)]
    assert names[0] == "spread"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("op", SUITES)
def test_results_of_all_cases_equal_the_reference(op):
    for case in small_cases(op):
        out, expected = case.call(), case.call(backend="numpy")
        for x, y in zip(flat(out), flat(expected)):
            np.testing.assert_array_equal(x, y, err_msg=case.name)


def test_strips_are_disjoint_and_reach_across_the_image():
    upright = worst_inputs.strips(4, vertical=True)
    np.testing.assert_allclose(upright[1], [0.25, 0, 0.25 + 0.9 / 4, 1], rtol=1e-6)
    np.testing.assert_array_equal(worst_inputs.strips(4, vertical=False), upright[:, [1, 0, 3, 2]])


def test_measured_seconds_have_each_case(monkeypatch):
    monkeypatch.setattr(worst_cases, "SECONDS_EACH", 0)
    found = worst_cases.measure("match_anchors", (50, 4))
    assert list(found) == [case.name for case in SUITES["match_anchors"].cases(50, 4)]
    assert min(found.values()) > 0
