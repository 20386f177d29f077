"""The ways in which the CPU suppresses boxes: each has the bits of the reference."""

from functools import partial

import numpy as np
import pytest

from cvops import box_nms


@pytest.fixture
def check(cpu_variants):
    """check(data, **options) compares each variant on the CPU with the reference.

    It returns the numbers of the kept rows.
    """

    def check(data, **options):
        expected = box_nms(data, **options, return_index=True, backend="numpy")
        native = partial(box_nms, data, **options, return_index=True, backend="native")
        for out, index in cpu_variants(native):
            np.testing.assert_array_equal(index, expected[1])
            np.testing.assert_array_equal(out, expected[0])
        return expected[1][expected[1] >= 0]

    return check


def rows(scores, boxes):
    """Rows (class, score, box) of class 0."""
    return np.column_stack([np.zeros(len(boxes)), scores, boxes]).astype(np.float32)


def squares(rng, num, extent):
    """Squares of side 1 in an image of that extent."""
    low = rng.uniform(0, extent, (num, 2))
    return np.hstack([low, low + 1])


def groups(rng, num, members, noise=0.05):
    """Groups of similar squares."""
    centers = squares(rng, -(-num // members), 40)
    return np.repeat(centers, members, axis=0)[:num] + rng.normal(0, noise, (num, 4))


def pairs_near(rng, threshold, num):
    """Pairs of squares of side 1, whose IoU is almost the threshold. The pairs are disjoint."""
    iou = threshold * (1 + rng.choice([-1, 1], num) * 10 ** rng.uniform(-7.5, -2, num))
    y = np.stack([np.zeros(num), (1 - iou) / (1 + iou)], axis=1)  # near 0, for many digits
    x = 3 * np.arange(num)[:, None] + 0 * y
    return np.stack([x, y, x + 1, y + 1], axis=2).reshape(2 * num, 4)


def heaps_above(pairs, members=6):
    """Heaps of equal squares, so that there are more pairs than boxes."""
    heaps = np.repeat(pairs[::2], members, axis=0)
    return heaps + np.float32([0, 9, 0, 9])


def apart(num):
    """Disjoint squares of side 1 in a row, apart from the others."""
    x = 2 * np.arange(num)
    return np.stack([x, 0 * x + 20, x + 1, 0 * x + 21], axis=1)


#: Boxes for each way, from pairs. A box with the area 1e-32 permits no bounds of the rule.
WAYS = {
    "few": lambda pairs: np.vstack([pairs, np.tile([0, 9, 1, 10], (len(pairs), 1))]),
    "pairs": lambda pairs: pairs,
    "marks": lambda pairs: np.vstack([pairs, heaps_above(pairs)]),
    "groups": lambda pairs: np.vstack([pairs, heaps_above(pairs[:100], 24)]),
    "lists": lambda pairs: np.vstack([pairs, apart(1400), heaps_above(pairs[:100], 120)]),
    "search": lambda pairs: np.vstack([pairs, [[0, 9, 1e-16, 9 + 1e-16], [0, 0, 1e-16, 1e-16]]]),
}


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("way", WAYS)
def test_pairs_near_the_threshold(check, way, threshold):
    rng = np.random.default_rng(14)
    boxes = WAYS[way](pairs_near(rng, threshold, 200))
    data = rows(rng.permutation(np.linspace(1, 0.1, len(boxes))), boxes)
    alone = len(check(rows(data[:400, 1], boxes[:400]), overlap_thresh=threshold))
    others = {"few": 1, "pairs": 0, "marks": 200, "groups": 50, "lists": 1450, "search": 2}[way]
    assert 250 < alone < 350
    assert len(check(data, overlap_thresh=threshold)) == alone + others


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7])
def test_pairs_of_a_small_class_near_the_threshold(check, threshold):
    """The CPU compares a kept box with all later ones of its class."""
    rng = np.random.default_rng(15)
    boxes = np.vstack([pairs_near(rng, threshold, 140), [[0, 50, 1, 51]]])
    data = rows(rng.permutation(np.linspace(1, 0.1, len(boxes))), boxes)
    data[-1, 0] = 1
    kept = check(data, overlap_thresh=threshold, id_index=0)
    assert len(kept) == len(check(data, overlap_thresh=threshold))
    assert 150 < len(kept) < 270
    data[::2, 0] = 1  # no pair is of one class
    assert len(check(data, overlap_thresh=threshold, id_index=0)) == len(boxes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("members", [1, 30])
@pytest.mark.parametrize("num", [100, 1000])
def test_rows_of_one_class(check, num, members, dtype):
    """The classes of rows that take no part do not matter, and the last row's class does."""
    rng = np.random.default_rng(num)
    data = rows(rng.permutation(np.linspace(1, 0.1, num)), groups(rng, num, members)).astype(dtype)
    data[:, 0] = 3
    data[1::2, 0] += 0.5  # the class is truncated
    data[:50:5, 0], data[1:50:5, 1] = -1, 0
    data[1:50:5, 0] = 4
    options = dict(overlap_thresh=0.3, valid_thresh=0.05, id_index=0)
    kept = check(data, **options)
    assert len(kept) == len(check(data, **options, force_suppress=True)) < num - 20
    data[-1] = [5, 0.01, *data[kept[kept < num - 1][0], 2:]]
    assert num - 1 in check(data, **{**options, "valid_thresh": 0})


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("classes", [1, 2, 50])
def test_pairs_of_classes(check, in_format, classes):
    """Only the overlapping boxes of one class are pairs."""
    rng = np.random.default_rng(classes)
    boxes = squares(rng, 4000, 60)
    if in_format == "center":
        boxes = np.hstack([boxes[:, :2] + 0.5, np.ones((4000, 2))])
    data = rows(rng.permutation(np.linspace(1, 0.1, 4000)), boxes)
    data[:, 0] = rng.integers(0, classes, 4000) * 64
    kept = check(data, overlap_thresh=0.3, in_format=in_format, id_index=0)
    assert {1: 0.6, 2: 0.75, 50: 0.97}[classes] < len(kept) / 4000 < 1


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("dropped", [0, 1])
def test_boxes_of_many_sizes(check, in_format, dropped):
    """Pairs of tall boxes in distant rows of cells, and of wide boxes with many ones between."""
    rng = np.random.default_rng(1)
    num = 3000
    center, sides = rng.random((num, 2)), 0.08 * 10 ** rng.uniform(-0.5, 0, (num, 2))
    tall, wide = [0.004, 0.4], [0.4, 0.004]
    x, y = np.arange(0, 1, 0.02), np.arange(0, 1, 0.02)
    for center_of_pair, of_pair, offset in [
        (np.stack([x, 0 * x + 0.3], axis=1), tall, [0, 0.15]),
        (np.stack([0 * y + 0.3, y], axis=1), wide, [0.15, 0]),
    ]:
        center = np.vstack([center, center_of_pair, center_of_pair + offset])
        sides = np.vstack([sides, np.tile(of_pair, (2 * len(center_of_pair), 1))])
    boxes = np.hstack([center - sides / 2, center + sides / 2])
    if in_format == "center":
        boxes = np.hstack([center, sides])
    kept = check(
        rows(rng.permutation(np.linspace(1, 0.1, len(boxes))), boxes),
        overlap_thresh=0.4,
        in_format=in_format,
        topk=len(boxes) - dropped,
    )
    assert (kept >= num).sum() == 100  # one of each pair


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("num", [128, 1000, 5000])
def test_spread_boxes(check, num, in_format):
    """Chains of equal scores across strips; some rows are no candidates, some boxes are empty."""
    rng = np.random.default_rng(num)
    boxes = squares(rng, num, 1.5 * num**0.5)
    boxes[: num // 2, 2:] += rng.uniform(0, 2, (num // 2, 2))
    later = boxes[num // 3 : num // 2]
    later[:] = boxes[: len(later)] + np.tile(rng.uniform(-0.3, 0.3, (len(later), 2)), 2)
    boxes[5::70, 2] = boxes[5::70, 0]
    if in_format == "center":
        boxes = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
    data = rows(np.round(rng.uniform(-0.1, 1, num), 2), boxes)
    data[:, 0] = rng.integers(-1, 2, num)
    for options in ({}, {"id_index": 0, "force_suppress": True}):
        kept = check(data, in_format=in_format, **options)
        assert num / 3 < len(kept) < 0.9 * num
    # Areas of two and three times the smallest number, which do not suit the bounds of the rule.
    sides = np.float32([[5.3e-23, 5.3e-23], [5.3e-23, 7.9e-23]])
    data[:2, 2:] = np.hstack([sides / 2 if in_format == "center" else 0 * sides, sides])
    data[:2, 1] = 3, 2
    assert not np.isin(1, check(data, overlap_thresh=0.66, in_format=in_format))


def test_pairs_of_wide_boxes_among_spread_ones(check):
    rng = np.random.default_rng(0)
    boxes = squares(rng, 5000, 100)
    y = np.arange(5, 95, 10)
    boxes[:9] = np.stack([0 * y + 10, y, 0 * y + 60, y + 0.1], axis=1)
    boxes[9:18] = boxes[:9] + np.array([20, 0, 20, 0])
    kept = check(rows(rng.permutation(np.linspace(1, 0.1, 5000)), boxes), overlap_thresh=0.4)
    assert (kept < 18).sum() == 9  # one of each pair


@pytest.mark.parametrize("num", [128, 150, 200])
def test_wide_boxes_in_short_strips(check, num):
    """The search in a strip reaches the next one, where some boxes are a second time."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        center = rng.random((num, 2))
        half = np.stack([rng.uniform(0.005, 0.2, num), rng.uniform(0.0025, 0.02, num)], axis=1)
        scores = rng.permutation(np.linspace(1, 0.1, num))
        check(rows(scores, np.hstack([center - half, center + half])))


def test_pairs_far_from_the_origin(check):
    """The positions of the boxes are rounded to a tenth of their sides."""
    rng = np.random.default_rng(0)
    low = np.float32(2.0**20) + np.round(rng.uniform(0, 400, (2000, 2)) * 8) / 8
    boxes = np.hstack([low, low + rng.integers(8, 17, (2000, 2)) / 8 * 5])
    assert 1000 < len(check(rows(rng.random(2000), boxes))) < 2000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [6, 7])
def test_rows_after_the_kept_ones(check, width, dtype):
    """Rows of -1, from less than a vector of numbers to several, after 0 to 2 kept ones."""
    for num in range(1, 15):
        data = np.zeros((3, num, width), dtype)
        data[..., 2:6] = 0, 0, 1, 1
        data[1:, 0, 1] = data[2, -1, 1] = 0.5
        data[2, -1, 2:6] += 9
        assert len(check(data)) == 1 + min(num, 2)


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("num", [1, 7, 63, 300, 400, 500, 2048])
def test_few_boxes_in_groups(check, num, in_format):
    """Some scores are equal, and some rows are no candidates."""
    rng = np.random.default_rng(num)
    scores = np.round(rng.uniform(-0.2, 1, num), 1)
    check(rows(scores, groups(rng, num, 60)), in_format=in_format)


@pytest.mark.parametrize("num", [260, 280])
def test_few_boxes_in_groups_and_alone(check, num):
    """The first steps suppress groups; a sort takes the boxes that are left.

    From 400 boxes on, the best boxes of groups are decided first.
    """
    rng = np.random.default_rng(0)
    boxes = np.vstack([groups(rng, num, 100), squares(rng, 120, 1000)])
    order = rng.permutation(len(boxes))
    scores = np.round(rng.random(len(boxes)), 2)
    assert len(check(rows(scores, boxes[order]))) > 120


@pytest.mark.parametrize("num", [160, 4000])
@pytest.mark.parametrize("extent", [4, 200], ids=["dense", "sparse"])
def test_groups_of_boxes(check, num, extent):
    rng = np.random.default_rng(num)
    centers = squares(rng, num // 20, extent)
    boxes = np.repeat(centers, 20, axis=0) + rng.normal(0, 0.07, (num, 4))
    check(rows(rng.random(num), boxes))


def test_dense_groups_of_the_best_boxes(check):
    """The CPU sorts boxes for a topk, and removes the marked ones of dense groups."""
    rng = np.random.default_rng(4000)
    boxes = np.repeat(squares(rng, 201, 2), 20, axis=0)[:4000] + rng.normal(0, 0.03, (4000, 4))
    kept = check(rows(rng.random(4000), boxes), overlap_thresh=0.8, topk=3999)
    assert 201 < len(kept) < 400


def test_groups_that_are_far_from_each_other(check):
    """A cell of the grid has a group, and a long box is in the gap: a search takes over."""
    rng = np.random.default_rng(0)
    boxes = squares(rng, 5000, 200)
    boxes[::2] += 1e6
    boxes[77] = [0, 0, 1e6, 1e6]
    assert len(check(rows(rng.random(len(boxes)), boxes))) > 4000


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("num", [1200, 5000])
def test_groups_whose_best_boxes_come_first(check, num, in_format):
    """Some scores are equal, some rows are no candidates, and some boxes are empty or alone."""
    rng = np.random.default_rng(num)
    boxes = groups(rng, num, 60)
    boxes[::10] = squares(rng, num, 1000)[::10]
    boxes[5::70, 2] = boxes[5::70, 0]
    if in_format == "center":
        boxes = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
    scores = np.round(rng.uniform(-0.1, 1, num), 2)
    kept = check(rows(scores, boxes), in_format=in_format)
    assert num / 10 < len(kept) < num / 4
    # A box far from 0 in center format, or one with a tiny area, does not suit the lists.
    boxes[77] = [1e9, 1e9, 10, 10] if in_format == "center" else [0, 0, 1e-16, 1e-16]
    check(rows(scores, boxes), in_format=in_format)


def in_parts(rng, kind, num):
    """Overlapping boxes in parts with a gap along an axis, or between the areas or aspects.

    More than 2048 boxes are not few.
    """
    boxes = squares(rng, num, 50)
    if kind == "area":
        # Up to 1 / 78 of the area of squares around them, which is 1.21.
        large = boxes[num // 2 :]
        large[:, 2:] += 0.1
        sides = rng.uniform(0.05, 0.124, (len(boxes) - len(large), 1))
        low = large[: len(sides), :2] + 0.4
        boxes[: num // 2] = np.hstack([low, low + sides])
    elif kind == "aspect":
        # Wide boxes in rows, and tall ones in columns.
        boxes[:, 2] = boxes[:, 0] + rng.uniform(10, 12, num)
        boxes[::2] = boxes[::2, [1, 0, 3, 2]]
    elif kind == "chain":
        boxes += np.repeat(10.0 ** rng.integers(0, 12, num), 4).reshape(num, 4)
    else:
        boxes[::3, [0, 2] if kind == "x" else [1, 3]] -= 1000
    return boxes


@pytest.mark.parametrize("between", [False, True], ids=["gap", "boxes in the gap"])
@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("kind", ["x", "y", "area", "aspect", "chain"])
def test_parts_with_a_gap(check, kind, in_format, between):
    rng = np.random.default_rng(3)
    boxes, scores = in_parts(rng, kind, 2400), rng.random(2400)
    if between:
        # The sample of the boxes has the best one, but not the next three.
        scores[1800], scores[:3] = 3, 2
        if kind == "area":  # 1 / 34 of the area of the square around it
            boxes[:3, :2] = boxes[1500:1503, :2] + 0.3
            boxes[:3, 2:] = boxes[:3, :2] + 0.19
        elif kind == "aspect":  # squares that wide boxes suppress
            boxes[:3] = boxes[1501:1507:2]
            boxes[:3, 3] = boxes[:3, 1] + 10
            boxes[:3, 2] = boxes[:3, 0] + 10
        else:  # boxes from one part into the gap, and boxes of that part that overlap them
            boxes[:3], boxes[3:9] = [-990, -990, 0, 0], [-1000, -1000, 0, 0]
            across = [0, 2] if kind == "x" else [1, 3]
            boxes[:3, across], boxes[3:9, across] = [-990, -100], [-1000, -700]
    data = rows(scores, boxes)
    if in_format == "center":
        data[:, 4:] -= data[:, 2:4]
        data[:, 2:4] += data[:, 4:] / 2
    check(data, in_format=in_format, overlap_thresh=0.02)
    check(data, in_format=in_format, overlap_thresh=0.5)


@pytest.mark.parametrize("in_format", ["corner", "center"])
@pytest.mark.parametrize("copies", [1, 2], ids=["pairs", "marks"])
@pytest.mark.parametrize("shapes", ["areas", "aspects"])
@pytest.mark.parametrize("classes", [1, 2])
def test_many_shapes_at_one_place(check, shapes, copies, in_format, classes):
    """Pairs of boxes whose areas, or aspects, differ as far as their IoU permits."""
    rng = np.random.default_rng(5)
    powers = np.stack(np.meshgrid(np.arange(-30, 31, 3), np.arange(-30, 31, 3)), axis=-1)
    scales = 2.0 ** np.repeat(powers.reshape(-1, 2), 2 * copies, axis=0)
    num = len(scales)
    more = {"areas": [[1, 1], [1, 1.999]], "aspects": [[1, 1.499], [1.499, 1]]}[shapes]
    sides = scales * np.tile(more, (num // 2, 1)) * rng.uniform(0.7, 1, (num // 2, 1)).repeat(2, 0)
    boxes = np.hstack([sides / 2 if in_format == "center" else 0 * sides, sides])
    data = rows(rng.permutation(np.linspace(1, 0.1, num)), boxes)
    data[:, 0] = np.arange(num) // (2 * copies) % classes
    options = dict(in_format=in_format, id_index=0 if classes > 1 else -1)
    if copies == 1:
        assert len(check(data, overlap_thresh=0.5, **options)) == num / 2
        assert len(check(data, overlap_thresh=0.501, **options)) == num
    check(data, overlap_thresh=0.3, **options)
    check(data, overlap_thresh=0.9, **options)


def test_parts_with_boxes_that_overlap_nothing(check):
    rng = np.random.default_rng(4)
    boxes = in_parts(rng, "x", 2400)
    boxes[rng.random(len(boxes)) < 0.05, 2] = np.nan
    boxes[::50, 2] = boxes[::50, 0] - 1
    check(rows(rng.random(len(boxes)), boxes))


@pytest.mark.parametrize("num", [63, 64, 500, 4097, 8192])
def test_scores_of_which_some_are_near(check, num):
    """Equal scores; and as many different ones as a bucket of the sort has, or more; and signs."""
    rng = np.random.default_rng(num)
    boxes = squares(rng, num, 1) + 2 * np.arange(num)[:, None]
    for of_value in (1, 5, 40):
        scores = 0.5 + np.round(rng.uniform(0, num / of_value, num)) * of_value / num / 2
        near = rng.integers(0, num, 12)
        scores[near] = 0.75 * (1 + rng.permutation(12) * 2.0**-22)
        assert len(check(rows(scores, boxes))) == num
    scores = rng.choice([-1, 1], num) * 2.0 ** rng.uniform(-60, 60, num)
    scores[:3] = 0.0, -0.0, 0.0
    assert len(check(rows(scores, boxes), valid_thresh=-np.inf)) == num


@pytest.mark.parametrize("levels", [1, 3, 50, 200])
@pytest.mark.parametrize("num", [128, 1000, 5000])
def test_scores_of_few_levels(check, num, levels):
    """Buckets of the sort have many equal scores; with an extreme one, also different ones."""
    rng = np.random.default_rng(num)
    scores = 0.5 + rng.integers(0, levels, num) / 512
    boxes = squares(rng, num, 1) + 2 * np.arange(num)[:, None]
    for extreme in (0.5, 1e-30):
        scores[num // 2] = extreme
        assert len(check(rows(scores, boxes))) == num


@pytest.mark.parametrize("num", [64, 300, 3000])
def test_scores_with_equal_high_digits(check, num):
    """Two extreme scores; all others have almost the same one."""
    rng = np.random.default_rng(num)
    scores = 0.5 + rng.integers(0, 2 * num, num) * 2.0**-24
    scores[[3, num // 2]] = 1e30, 1e-30
    boxes = squares(rng, num, 1) + 2 * np.arange(num)[:, None]
    assert len(check(rows(scores, boxes))) == num
