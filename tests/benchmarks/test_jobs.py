"""Counts and comparisons of results."""

import numpy as np
import pytest
from tools.jobs import check_scores, count_kept_pairs


def test_kept_pairs_are_counted_by_class_and_image():
    # The first image keeps 3 and 2 boxes of two classes, the second 2 boxes: 3 + 1 + 1 pairs.
    classes = [[0, 1, 0, 1, 0, -1], [1, 1, -1, -1, -1, -1]]
    out = np.zeros((2, 6, 6), np.float32)
    out[..., 0] = classes
    assert count_kept_pairs([out]) == 5


def test_different_scores_are_refused():
    ours, theirs = np.arange(1000.0), np.arange(3, 1003.0)
    with pytest.raises(AssertionError):
        check_scores(ours, theirs)
    check_scores(ours, theirs, 0.99)
