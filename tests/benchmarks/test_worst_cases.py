"""The inputs of the benchmark of worst cases, and the results of the ops on them."""

import numpy as np
import pytest
import worst_cases
from tools.jobs import flat

SMALL = {"box_nms": (700,), "multibox_target": (300, 40)}


@pytest.mark.parametrize("op", worst_cases.SIZES)
def test_first_case_is_the_spread_one_and_names_differ(op):
    names = [case.name for case in worst_cases.cases(op, SMALL[op])]
    assert names[0] == "spread"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("op", worst_cases.SIZES)
def test_results_of_all_cases_equal_the_reference(op):
    for case in worst_cases.cases(op, SMALL[op]):
        out, expected = case.call(), case.call(backend="numpy")
        for x, y in zip(flat(out), flat(expected)):
            np.testing.assert_array_equal(x, y, err_msg=case.name)


def test_strips_are_disjoint_and_reach_across_the_image():
    upright = worst_cases.strips(4, vertical=True)
    np.testing.assert_allclose(upright[1], [0.25, 0, 0.25 + 0.9 / 4, 1], rtol=1e-6)
    np.testing.assert_array_equal(worst_cases.strips(4, vertical=False), upright[:, [1, 0, 3, 2]])


def test_measured_seconds_have_each_case(monkeypatch):
    monkeypatch.setattr(worst_cases, "SECONDS_EACH", 0)
    found = worst_cases.measure("multibox_target", SMALL["multibox_target"])
    assert len(found) == 10
    assert min(found.values()) > 0
