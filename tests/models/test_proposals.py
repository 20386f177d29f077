"""Selective search: regions of drawn images, the order of the boxes, bad input."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("skimage", "PIL")

from PIL import Image

from cvops import box_iou, proposals


def picture(*boxes, size=(60, 80)):
    """Rectangles of different colors on gray: boxes are (color, x1, y1, x2, y2)."""
    image = np.full((*size, 3), 128, np.uint8)
    for color, x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = color
    return image


RED, LIGHT_RED, BLUE = (220, 20, 20), (235, 20, 20), (20, 20, 120)


def has(boxes, *box, iou=0.8):
    return box_iou(boxes, np.array([box], np.float32)).max() >= iou


def test_search_finds_single_rectangles():
    image = picture((RED, 5, 5, 30, 30), (BLUE, 45, 20, 75, 50))
    boxes = proposals.selective_search(image)
    assert boxes.dtype == np.float32
    assert has(boxes, 5, 5, 30, 30)
    assert has(boxes, 45, 20, 75, 50)
    assert boxes[0].tolist() == [0, 0, 80, 60]  # all regions together


def test_most_similar_neighbors_are_merged_first():
    """Both reds differ in the bin of one channel of three, blue from them in the bins of two.

    Regions 0 to 2 are the rectangles, 3 is gray. The first merge is of both reds.
    """
    image = picture((RED, 0, 0, 20, 20), (LIGHT_RED, 20, 0, 40, 20), (BLUE, 0, 20, 20, 40))
    labels = np.full((60, 80), 3)
    labels[:20, :20], labels[:20, 20:40], labels[20:40, :20] = 0, 1, 2
    boxes = proposals._merged_boxes(labels, proposals._bins(image))
    assert boxes[:4] == [(0, 0, 20, 20), (20, 0, 40, 20), (0, 20, 20, 40), (0, 0, 80, 60)]
    assert boxes[4] == (0, 0, 40, 20)
    assert len(boxes) == 4 + 3
    assert boxes[-1] == (0, 0, 80, 60)


def test_boxes_are_different_and_inside_the_image():
    rng = np.random.default_rng(0)
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8)).resize((80, 60)))
    boxes = proposals.selective_search(image, min_side=6)
    assert len(boxes) > 20
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (80, 60)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 6).all()
    first = proposals.selective_search(image, min_side=6, most=7)
    np.testing.assert_array_equal(first, boxes[:7])
    same = proposals.selective_search(Image.fromarray(image), min_side=6)
    np.testing.assert_array_equal(same, boxes)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 2)], ids=str)
def test_search_in_a_tiny_image_gives_the_image(size):
    boxes = proposals.selective_search(picture(size=size), min_side=1)
    assert boxes.tolist() == [[0, 0, size[1], size[0]]]
    assert proposals.selective_search(picture(size=size), min_side=60).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((5, 5, 3))}, "image: expected uint8 (height, width, 3), got float64"),
        ({"image": np.zeros((5, 5), np.uint8)}, "image: expected uint8 (height, width, 3), got"),
        ({"scales": ()}, "scales: expected one number or more, got ()"),
        ({"scales": (100, 0)}, "scales: expected numbers above 0, got (100.0, 0.0)"),
        ({"sigma": -1}, "sigma: expected a number in [0, inf], got -1"),
        ({"min_size": 1.5}, "min_size: expected an integer, got 1.5"),
        ({"most": -1}, "most: expected an integer in [0, 2147483647], got -1"),
    ],
    ids=["float", "gray", "no scale", "scale 0", "sigma", "min_size", "most"],
)
def test_bad_argument_of_the_search_is_rejected(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        proposals.selective_search(**{"image": picture(), **arguments})
