from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_nms, box_nms_backward

#: Every option takes part in some row.
OPTIONS = [
    {},
    dict(id_index=0),
    dict(id_index=0, topk=30),
    dict(id_index=0, background_id=0, valid_thresh=0.2),
    dict(id_index=0, force_suppress=True, overlap_thresh=0.3),
    dict(in_format="center"),
    dict(in_format="center", out_format="center", topk=50),
    dict(out_format="center", id_index=0),
    dict(overlap_thresh=-1, topk=7),
    dict(overlap_thresh=0, valid_thresh=-0.5),
    dict(topk=0, out_format="center"),
    dict(coord_start=0, score_index=5, id_index=4),
]


def rows(rng, *shape, ties=False, special=False):
    """Rows (class, score, x1, y1, x2, y2), some of a class of -1, some inverted."""
    low, size = rng.random((*shape, 2)) * 4, rng.random((*shape, 2)) * 3 - 0.3
    id_, score = rng.integers(-1, 4, (*shape, 1)), rng.random((*shape, 1)) * 1.5 - 0.5
    x = np.concatenate([id_, score, low, low + size], axis=-1).astype(np.float32)
    if ties:
        x[..., 1] = np.round(x[..., 1] * 10) / 10
        x[..., 2:] = np.round(x[..., 2:])
    if special:
        odd = [np.nan, np.inf, -np.inf, -0.0, 1.7, 3e9]
        x[rng.random(x.shape) < 0.05] = rng.choice(odd)
    return x


def as_run(x, options):
    """The columns where the options say that they are."""
    return x[..., [2, 3, 4, 5, 0, 1]] if options.get("coord_start") == 0 else x


def test_by_hand(run):
    data = np.float32(
        [
            [0, 0.5, 0, 0, 4, 4],
            [1, 0.9, 0, 0, 4, 4],  # the best; of class 1
            [0, 0.8, 0, 0, 4, 3],  # suppresses the first: their IoU is 12 / 16
            [0, 0.0, 9, 9, 10, 10],  # no score above 0
            [0, 0.5, 4, 0, 8, 4],  # touches, so it stays, after the first in the order
        ]
    )
    out = run(box_nms, data, id_index=0)
    np.testing.assert_array_equal(out[:3], data[[1, 2, 4]])
    np.testing.assert_array_equal(out[3:], np.full((2, 6), -1))
    out = run(box_nms, data, id_index=0, force_suppress=True)
    np.testing.assert_array_equal(out[:2], data[[1, 4]])
    # An IoU equal to the threshold does not suppress.
    out = run(box_nms, data, id_index=0, overlap_thresh=0.75)
    np.testing.assert_array_equal(out[:4], data[[1, 2, 0, 4]])
    # The cut comes before the suppression.
    out = run(box_nms, data, id_index=0, topk=3)
    np.testing.assert_array_equal(out[:2], data[[1, 2]])
    np.testing.assert_array_equal(out[2:], np.full((3, 6), -1))
    # Where the rows came from.
    _, index = run(box_nms, data, id_index=0, return_index=True)
    assert index.tolist() == [1, 2, 4, -1, -1]
    assert index.dtype == np.int32


def test_none_takes_part(run):
    data = rows(np.random.default_rng(0), 2, 300)
    out, index = run(box_nms, data, topk=0, out_format="center", return_index=True)
    np.testing.assert_array_equal(out, data)
    np.testing.assert_array_equal(index, [np.arange(300)] * 2)


def test_gradient_by_hand(run):
    out_grad = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    grad = run(box_nms_backward, out_grad, np.int32([2, 0, -1]))
    np.testing.assert_array_equal(grad, [[6, 7, 8, 9, 10], [0] * 5, [1, 2, 3, 4, 5]])


def test_gradient_of_rows_that_are_not_there(run):
    out_grad = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    index = np.int32([[-1, 6, 1, -(2**31), 2**31 - 1, -6], [7, 0, -2, 12, 5, 6]])
    expected = np.zeros((2, 6, 2), np.float32)
    expected[0, 1], expected[1, 0], expected[1, 5] = [4, 5], [14, 15], [20, 21]
    np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


def test_of_gradients_for_one_row_the_last_counts(run):
    out_grad = np.arange(600, dtype=np.float32).reshape(600, 1)
    grad = run(box_nms_backward, out_grad, np.arange(600, dtype=np.int32) % 7)
    # 600 is 85 * 7 + 5.
    np.testing.assert_array_equal(grad[:7, 0], [595, 596, 597, 598, 599, 593, 594])
    assert not grad[7:].any()


def test_ties_keep_their_order(run):
    data = np.float32([[0, 0.5, i, 0, i + 1, 1] for i in range(200)])
    data[::2, 1] = -0.0 + 0.5
    np.testing.assert_array_equal(run(box_nms, data), data)


def test_a_negative_left_is_not_converted(run):
    data = np.float32([[0, 0.9, -0.2, 0, 1, 1], [0, 0.8, 5, 5, 7, 9]])
    out = run(box_nms, data, out_format="center")
    np.testing.assert_array_equal(out[:, 2:], np.float32([[-0.2, 0, 1, 1], [6, 7, 2, 4]]))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "defaults")
@pytest.mark.parametrize("num", [1, 64, 65, 300])
def test_against_the_reference(run, num, options):
    rng = np.random.default_rng(num)
    for ties, special in ((False, False), (True, False), (True, True)):
        data = as_run(rows(rng, 2, num, ties=ties, special=special), options)
        expected, expected_index = box_nms(data, **options, return_index=True, backend="numpy")
        out, index = run(box_nms, data, **options, return_index=True)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(index, expected_index)
        np.testing.assert_array_equal(run(box_nms, data, **options), expected)
        out_grad = rng.normal(size=data.shape).astype(np.float32)
        expected = box_nms_backward(out_grad, index, backend="numpy")
        np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


@pytest.mark.parametrize("width", [7, 128, 255, 256, 257, 700])
def test_rows_of_many_numbers(run, width):
    rng = np.random.default_rng(width)
    data = rng.random((2, 90, width)).astype(np.float32)
    data[..., -6:] = rows(rng, 2, 90)
    columns = dict(id_index=width - 6, score_index=width - 5, coord_start=width - 4)
    for out_format in ("corner", "center"):
        options = dict(columns, out_format=out_format)
        expected = box_nms(data, **options, return_index=True, backend="numpy")
        for got, want in zip(run(box_nms, data, **options, return_index=True), expected):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(1, 1), (257, 3), (3, 300, 7), (2, 2, 511, 1), (1, 20, 300)])
def test_gradient_against_the_reference(run, shape):
    rng = np.random.default_rng(9)
    out_grad = rng.normal(size=shape).astype(np.float32)
    index = rng.integers(-3, shape[-2] + 3, shape[:-1]).astype(np.int32)
    expected = box_nms_backward(out_grad, index, backend="numpy")
    np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


def test_index_names_the_rows(run):
    data = rows(np.random.default_rng(10), 2, 3, 200)
    out, index = run(box_nms, data, id_index=0, return_index=True)
    kept = index >= 0
    named = np.take_along_axis(data, index[..., None].astype(int), axis=-2)
    np.testing.assert_array_equal(out[kept], named[kept])
    assert (out[~kept] == -1).all()
    # The gradient of the kept numbers' sum is 1 in each kept row of data.
    grad = run(box_nms_backward, np.where(kept[..., None], np.ones_like(out), 5), index)
    assert set(np.unique(grad)) == {0, 1}
    assert grad.sum() == 6 * kept.sum()


@pytest.mark.parametrize("num", [1, 97, 128, 129, 300])
def test_numbers_of_rows(run_any_steps, num):
    """With small steps, 96 rows are ranked, more are sorted in tiles of 128."""
    data = rows(np.random.default_rng(num), 2, num, ties=True, special=True)
    for options in ({}, {"id_index": 0, "topk": 30}, {"valid_thresh": 0.2, "in_format": "center"}):
        expected = box_nms(data, **options, backend="numpy")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


@pytest.mark.parametrize("num", [2048, 2049, 4500])
def test_more_than_a_tile_of_the_sort(run_any_steps, num):
    """The GPU ranks these rows; with small steps it sorts tiles and merges them."""
    rng = np.random.default_rng(num)
    data = rows(rng, num)
    data[:, 2:] *= 10  # so that many are kept
    data[: num // 2, 1] = data[num // 2 :, 1][: num // 2]
    expected = box_nms(data, valid_thresh=-1, id_index=0, topk=num - 5, backend="native")
    out = run_any_steps(box_nms, data, valid_thresh=-1, id_index=0, topk=num - 5)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size", [1, 40], ids=["dense", "sparse"])
def test_several_chunks(run_any_steps, size):
    data = rows(np.random.default_rng(5), 3, 400, ties=True)
    data[..., 2:] *= size
    for options in (
        {},
        {"topk": 200},  # boxes are not put in order for two chunks
        {"id_index": 0},
        {"id_index": 0, "topk": 200},
        {"overlap_thresh": 0},
        {"overlap_thresh": -1, "id_index": 0},  # touching or not
        {"in_format": "center"},
    ):
        expected = box_nms(data, **options, backend="numpy")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


def test_several_chunks_of_odd_boxes(run_any_steps):
    """NaN, infinite, inverted, empty and negative boxes."""
    rng = np.random.default_rng(11)
    data = rows(rng, 600)
    data[:, 2:] *= rng.choice([-20, 1, 20, 1e-30, 1e30], (600, 1))
    odd = rng.random((600, 4)) < 0.05
    data[:, 2:][odd] = rng.choice([np.nan, np.inf, -np.inf, 0], odd.sum())
    data[:, 2:] = np.where(rng.random((600, 1)) < 0.1, data[:, [4, 5, 2, 3]], data[:, 2:])
    for options in ({}, {"id_index": 0}, {"overlap_thresh": 1e-3}, {"in_format": "center"}):
        expected = box_nms(data, **options, backend="native")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


#: How many boxes each class has. Classes that are 4096 apart may be of one group.
CLASSES = {
    "small ones": dict.fromkeys(range(40), 60),
    "one box each": dict.fromkeys(range(-300, 300), 1),
    "up to a block's threads": {0: 255, 1: 256, 2: 257, 3: 512},
    "some beyond": {0: 5, 1: 513, 2: 3, 3: 512, 4: 600, 5: 1},
    "in groups": {7: 300, 7 + 4096: 300, 8: 200, 8 - 4096: 200, 8 + 3 * 4096: 100, 9: 10},
}


@pytest.mark.parametrize("sizes", CLASSES.values(), ids=CLASSES)
def test_classes_of_many_sizes(run_any_steps, sizes):
    """One launch decides the boxes of small classes, chunks decide the others."""
    rng = np.random.default_rng(13)
    data = rows(rng, 2, sum(sizes.values()))
    data[..., 2:] *= 3
    data[..., 1] += 0.5  # all scores are above 0
    data[0, :, 0] = rng.permutation(np.repeat(*map(list, (sizes, sizes.values()))))
    data[1, :, 1] *= -1  # none takes part
    expected = box_nms(data, id_index=0, topk=-1, backend="numpy", background_id=5000)
    assert (expected[0, :, 1] > 0).sum() > 0
    assert (expected[0, -1, 1] < 0) == (max(sizes.values()) > 1)  # where any could be suppressed
    out = run_any_steps(box_nms, data, id_index=0, background_id=5000)
    np.testing.assert_array_equal(out, expected)
    limited = box_nms(data, id_index=0, topk=333, backend="numpy")
    np.testing.assert_array_equal(run_any_steps(box_nms, data, id_index=0, topk=333), limited)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"id_index": 0}, 15000),
        ({"in_format": "center"}, 5000),
        ({"id_index": 0, "overlap_thresh": -1}, 5),
    ],
    ids=["classes", "center", "touching or not"],
)
def test_many_boxes(run, request, options, least):
    """The kernels put them in the order of their places. A sort of all keys takes two passes."""
    if "numpy" in request.node.name:
        pytest.skip("takes long")
    rng = np.random.default_rng(12)
    data = rows(rng, 33000)
    data[:, :2] += [1, 0.51]  # all take part, more than one pass sorts: 32768
    assert (data[:, :2].min(axis=0) >= [0, 1e-3]).all()
    data[::3, 0] = rng.integers(4, 100, len(data[::3]))  # smaller classes, which end sooner
    sizes = data[:, 4:] - data[:, 2:4]
    data[:, 2:4] *= 60
    if "in_format" in options:
        data[:, 4:] = sizes
        data[::50, 2] = np.nan  # as MXNet compares, that overlaps boxes wherever they are
    else:
        data[:, 4:] = data[:, 2:4] + sizes
    expected = box_nms(data, **options, backend="native")
    assert (expected[:, 1] > 0).sum() >= least
    np.testing.assert_array_equal(run(box_nms, data, **options), expected)


def test_a_chain(run):
    """Each suppresses the next one, if it is kept itself: every second one is."""
    num = 150
    left = np.arange(num, dtype=np.float32) * np.float32(0.5)  # an IoU of 0.5 / 1.5 with the next
    score = np.linspace(1, 0.5, num, dtype=np.float32)
    zeros, ones = np.zeros(num, np.float32), np.ones(num, np.float32)
    data = np.stack([zeros, score, left, zeros, left + 1, ones], axis=1)
    out = run(box_nms, data, overlap_thresh=0.3)
    np.testing.assert_array_equal(out[: num // 2], data[::2])
    assert (out[num // 2 :] == -1).all()


def test_sets_are_independent(run):
    data = rows(np.random.default_rng(6), 2, 3, 50)
    out = run(box_nms, data, id_index=0)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(out[i], run(box_nms, data[i], id_index=0))


@pytest.mark.parametrize("shape", [(0, 6), (0, 5, 6), (3, 0, 6)])
def test_empty(run, shape):
    out, index = run(box_nms, np.zeros(shape, np.float32), return_index=True)
    assert (out.shape, index.shape) == (shape, shape[:-1])
    assert run(box_nms, out).shape == shape
    assert run(box_nms, out, topk=0).shape == shape
    assert run(box_nms_backward, out, index).shape == shape


def test_gradient_of_rows_without_numbers(run):
    out_grad = np.zeros((2, 3, 0), np.float32)
    assert run(box_nms_backward, out_grad, np.zeros((2, 3), np.int32)).shape == (2, 3, 0)


def test_what_it_promises(run):
    """No two kept boxes overlap too much, and each other one is overlapped by a better kept one."""
    data = rows(np.random.default_rng(7), 500)
    data[:, 1] = np.abs(data[:, 1]) + 0.01
    out = run(box_nms, data)
    kept = out[out[:, 1] > 0]
    assert 10 < len(kept) < 490
    assert (np.diff(kept[:, 1]) <= 0).all()
    iou = box_iou(kept[:, 2:], kept[:, 2:])
    np.fill_diagonal(iou, 0)
    assert iou.max() <= 0.5
    iou = box_iou(data[:, 2:], kept[:, 2:])
    best_overlapping = np.where(iou > 0.5, kept[:, 1], 0).max(axis=1)
    is_kept = (data[:, None] == kept).all(axis=2).any(axis=1)
    assert (best_overlapping >= data[:, 1])[~is_kept].all()


@pytest.fixture
def kept_cpu_variants(cpu_variants):
    """kept_cpu_variants(data, **options): what box_nms gives, with the index."""
    options_of_all = dict(return_index=True, backend="native")
    return lambda data, **options: cpu_variants(partial(box_nms, data, **options, **options_of_all))


def small(rng, num):
    low = rng.random((num, 2))
    return np.hstack([low, low + rng.uniform(0.01, 0.06, (num, 2))])


def heaps(rng, num):
    """25 boxes around each place."""
    return np.repeat(small(rng, -(-num // 25)), 25, axis=0)[:num] + rng.normal(0, 0.004, (num, 4))


def all_equal(rng, num):
    return np.tile([0.1, 0.2, 0.4, 0.7], (num, 1))


def chain(rng, num):
    """Each of height 1 and moved on by a third: 2/3 of it in the next one, an IoU of 1/2."""
    left = np.arange(num) / 3
    return np.stack([left, 0 * left, left + 1, 0 * left + 1], axis=1)


def shingles(rng, num):
    """All over each other, by IoUs around 0.9."""
    return rng.normal([0, 0, 1, 1], 0.02, (num, 4))


def of_all_sizes(rng, num):
    """Sides of 1e-9 to 1e3, within about their length of the middle."""
    half = 10.0 ** rng.uniform(-9, 3, (num, 1)) * rng.uniform(0.5, 1, (num, 2))
    center = half * rng.normal(0, 1, (num, 2))
    return np.hstack([center - half, center + half])


def with_outliers(rng, num):
    boxes = small(rng, num)
    boxes[:: num // 20] *= 1e20
    boxes[1 :: num // 20] += 1e7
    boxes[2 :: num // 20, 2:] += 1e30
    return boxes


def in_a_point(rng, num):
    """All of one center, in eight sizes."""
    half = 2.0 ** rng.integers(-3, 4, (num, 2))
    return np.hstack([-half, half])


def inverted(rng, num):
    boxes = small(rng, num)
    for axis in (0, 1):
        some = rng.random(num) < 0.3
        boxes[some, axis], boxes[some, axis + 2] = boxes[some, axis + 2], boxes[some, axis]
    boxes[rng.random(num) < 0.1, 2:] = boxes[rng.random(num) < 0.1, 2:].mean()
    return boxes


def special(rng, num):
    """As they come in either format, some numbers are strange."""
    return small(rng, num)


def tiny(rng, num):
    """Areas around the smallest floats, most of which have lost bits."""
    return small(rng, num) * 10.0 ** rng.integers(-23, -18)


def huge(rng, num):
    """Areas around the largest floats."""
    return small(rng, num) * 1e21


def far_away(rng, num):
    """Where floats are about as far apart as the boxes' sides are long."""
    return small(rng, num) * 64 + 2.0**24


SCENES = [small, heaps, all_equal, chain, shingles, of_all_sizes, with_outliers, in_a_point]
SCENES += [inverted, special, tiny, huge, far_away]


def scene(where, num, classes, center):
    """Rows (class, score, box), the boxes from a function of SCENES."""
    rng = np.random.default_rng(num + classes)
    data = np.empty((num, 6))
    data[:, 0] = rng.integers(0, classes, num)
    data[:, 1] = np.round(rng.random(num) * num) / num + 0.01  # with ties
    data[:, 2:] = where(rng, num)
    if center:
        low, high = data[:, 2:4].copy(), data[:, 4:].copy()
        with np.errstate(all="ignore"):
            data[:, 2:4], data[:, 4:] = (low + high) / 2, high - low
    if where is special:
        strange = rng.random((num, 4)) < 0.05
        data[:, 2:][strange] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -0.0], strange.sum())
    with np.errstate(over="ignore"):
        return data.astype(np.float32)


@pytest.mark.parametrize("threshold", [-0.5, 0, 1e-4, 0.3, 0.5, 0.9, 1, 1e38])
@pytest.mark.parametrize("center", [False, True], ids=["corner", "center"])
@pytest.mark.parametrize("where", SCENES, ids=lambda where: where.__name__)
def test_no_shortcut_changes_a_bit(kept_cpu_variants, where, center, threshold):
    """Boxes that are not compared are those that could not suppress each other."""
    data = scene(where, 600, 1, center)
    options = dict(overlap_thresh=threshold, in_format="center" if center else "corner")
    expected = box_nms(data, **options, return_index=True, backend="numpy")
    for out, index in kept_cpu_variants(data, **options):
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(out, expected[0])


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_as_far_apart_as_can_be(kept_cpu_variants, threshold):
    """Boxes of side 1, each with the least part of it that it suppresses at one of its corners."""
    num = 800
    rng = np.random.default_rng(0)
    data = np.zeros((2 * num, 6))
    low = np.stack(np.divmod(np.arange(num), 28), axis=1) * 1.5 + rng.random((num, 2)) * 0.4
    # Of sides 1 and threshold: along one axis only, where the centers are furthest apart.
    side = np.ones((num, 2))
    side[np.arange(num), rng.integers(0, 2, num)] = threshold + 1e-3
    at = low + (1 - side) * rng.integers(0, 2, (num, 2))
    data[:num, 2:], data[num:, 2:] = np.hstack([low, low + 1]), np.hstack([at, at + side])
    data[:num, 1], data[num:, 1] = 0.9, 0.8
    for _, index in kept_cpu_variants(data.astype(np.float32), overlap_thresh=threshold):
        np.testing.assert_array_equal(index[:num], np.arange(num))
        assert (index[num:] == -1).all()


@pytest.mark.parametrize("where", [small, heaps, special], ids=lambda where: where.__name__)
@pytest.mark.parametrize("classes", [2, 40, 3000])
def test_classes_are_apart(kept_cpu_variants, where, classes):
    data = scene(where, 1500, classes, False)
    data[0, 0] = -7  # and the others after it
    expected = box_nms(data, id_index=0, return_index=True, backend="numpy")
    for out, index in kept_cpu_variants(data, id_index=0):
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(out, expected[0])


@pytest.mark.parametrize("num", [1023, 1024, 1025, 4096, 4097])
def test_many_that_are_compared_with_many(kept_cpu_variants, num):
    """So many that threads share one contest, and about as many as they settle at a time."""
    data = scene(shingles, num, 1, False)
    options = dict(overlap_thresh=0.985, return_index=True)
    expected, expected_index = box_nms(data, **options, backend="numpy")
    assert num // 3 < (expected_index >= 0).sum() < num
    for out, index in kept_cpu_variants(data, overlap_thresh=0.985):
        np.testing.assert_array_equal(index, expected_index)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("scores", ["equal", "two", "ascending", "descending", "all floats"])
@pytest.mark.parametrize("num", [63, 64, 65, 2047, 2049, 5000])
def test_the_order(kept_cpu_variants, num, scores):
    """Boxes apart from each other, of which all come back, sorted, or the best of them."""
    rng = np.random.default_rng(num)
    data = np.zeros((num, 6), np.float32)
    data[:, 2] = np.arange(num)
    data[:, 4:] = data[:, 2:4] + np.float32(0.5)
    data[:, 1] = {
        "equal": np.full(num, 0.3),
        "two": rng.choice([0.3, np.nextafter(np.float32(0.3), 1)], num),
        "ascending": np.arange(num),
        "descending": -np.arange(num),
        "all floats": rng.integers(0, 2**32, num, np.uint32).view(np.float32),
    }[scores]
    counts = data[:, 1] > -np.inf
    order = np.flatnonzero(counts)
    order = order[np.argsort(-data[order, 1], kind="stable")]
    for topk in (-1, 1, num // 3, num - 1):
        best = order[: topk if topk > 0 else None]
        for out, index in kept_cpu_variants(data, valid_thresh=-np.inf, topk=topk):
            np.testing.assert_array_equal(index[: len(best)], best)
            np.testing.assert_array_equal(out[: len(best)], data[best])
            assert (out[len(best) :] == -1).all()
            assert (index[len(best) :] == -1).all()


def test_boxes_without_number(kept_cpu_variants):
    """100,000 small boxes, which a comparison of all pairs would take seconds for."""
    data = scene(small, 100_000, 1, False)
    data[:, 4:] = data[:, 2:4] + np.float32(0.004)
    first, *others = kept_cpu_variants(data)
    kept = first[0][first[1] >= 0]
    # No kept box has more than half in common with one of its 400 neighbours by their left sides.
    by_left = kept[np.argsort(kept[:, 2])]
    for i in range(0, len(kept), 1000):
        near = by_left[i : i + 400]
        iou = box_iou(near[:, 2:], near[:, 2:])
        np.fill_diagonal(iou, 0)
        assert iou.max() <= 0.5
    for out, index in others:
        np.testing.assert_array_equal(index, first[1])
        np.testing.assert_array_equal(out, first[0])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32), num=st.integers(1, 90), ties=st.booleans(), special=st.booleans()
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "defaults")
def test_equals_mxnet(mx, backend, options, seed, num, ties, special):
    data = as_run(rows(np.random.default_rng(seed), 2, num, ties=ties, special=special), options)
    x = mx.nd.array(data)
    x.attach_grad()
    with mx.autograd.record():
        theirs = mx.nd.contrib.box_nms(x, **options)
    out_grad = np.random.default_rng(seed).normal(size=data.shape).astype(np.float32)
    theirs.backward(mx.nd.array(out_grad))
    out, index = box_nms(data, **options, return_index=True, backend=backend)
    np.testing.assert_array_equal(out, theirs.asnumpy())
    grad = box_nms_backward(out_grad, index, backend=backend)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


def test_several_chunks_sanitized(run_sanitized_small, launches):
    data = rows(np.random.default_rng(8), 300, ties=True)
    data[..., 2:] *= 10
    for options in ({}, {"id_index": 0}):
        expected = box_nms(data, **options, backend="numpy")
        np.testing.assert_array_equal(run_sanitized_small(box_nms, data, **options), expected)
    kernels = [launch.kernel for launch in launches]
    assert kernels.count("nms_chunk") == 6  # three chunks of 128
    assert {"sort_merge", "nms_spatial_keys", "nms_classes"} <= set(kernels)


def test_sanitized(run_sanitized):
    data = rows(np.random.default_rng(8), 2, 130, ties=True)
    for topk in (-1, 0):
        options = dict(id_index=0, out_format="center", topk=topk)
        out, index = run_sanitized(box_nms, data, **options, return_index=True)
        np.testing.assert_array_equal(out, box_nms(data, **options, backend="numpy"))
        grad = run_sanitized(box_nms_backward, data, index)
        np.testing.assert_array_equal(grad, box_nms_backward(data, index, backend="numpy"))
    index = np.random.default_rng(9).integers(-9, 139, (2, 130)).astype(np.int32)
    grad = run_sanitized(box_nms_backward, data, index)
    np.testing.assert_array_equal(grad, box_nms_backward(data, index, backend="numpy"))


SIX = np.zeros((3, 6), np.float32)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (SIX[0], {}, ValueError, r"data: expected shape \(\.\.\., N, K\), got \(6,\)"),
        (SIX[:, :4], {}, ValueError, r"data: expected rows of a score and 4 .*got shape \(3, 4\)"),
        (SIX[:, :5], dict(id_index=1), ValueError, "data: expected rows of a score, a class and 4"),
        (SIX.astype(np.float16), {}, TypeError, "data: expected float32, got float16"),
        (SIX, dict(score_index=3), ValueError, "score_index: .* got 3"),
        (SIX, dict(score_index=-1), ValueError, "score_index: .* got -1"),
        (SIX, dict(coord_start=3), ValueError, "coord_start: expected four columns of 6, got 3"),
        (SIX, dict(id_index=1), ValueError, "id_index: .* got 1"),
        (SIX, dict(id_index=6), ValueError, "id_index: .* got 6"),
        (SIX, dict(topk=2.5), TypeError, "topk: expected an integer, got 2.5"),
        (SIX, dict(overlap_thresh="a"), TypeError, "overlap_thresh: expected a number, got 'a'"),
        (SIX, dict(valid_thresh=np.nan), ValueError, "valid_thresh: expected a number, got nan"),
        (SIX, dict(in_format="xywh"), ValueError, "in_format: .* got 'xywh'"),
        (
            np.broadcast_to(SIX[:1], (2**24, 6)),
            {},
            ValueError,
            "data: expected fewer than 16776960 rows",
        ),
        (
            np.broadcast_to(SIX[:, :1], (3, 2**31)),
            {},
            ValueError,
            r"data: .* of fewer than 2\*\*31 numbers, got shape \(3, 2147483648\)",
        ),
    ],
)
def test_refuses(data, options, error, message):
    with pytest.raises(error, match=message):
        box_nms(data, **options)


INDEX = np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("out_grad", "index", "error", "message"),
    [
        (SIX[0], INDEX, ValueError, r"out_grad: expected shape \(\.\.\., N, K\), got \(6,\)"),
        (SIX.astype("f8"), INDEX, TypeError, "out_grad: expected float32, got float64"),
        (SIX, INDEX.astype("i8"), TypeError, "index: expected int32, got int64"),
        (SIX, INDEX[:2], ValueError, r"index: expected shape \(3,\), got \(2,\)"),
        (SIX, INDEX[:, None], ValueError, r"index: expected shape \(3,\), got \(3, 1\)"),
        (SIX[None], INDEX, ValueError, r"index: expected shape \(1, 3\), got \(3,\)"),
        (SIX, [0, 1, 2], TypeError, "index: expected an array .* got list"),
        (
            np.broadcast_to(SIX[:1], (2**24, 6)),
            INDEX,
            ValueError,
            "out_grad: expected fewer than 16776960 rows",
        ),
        (
            np.broadcast_to(SIX[:, :1], (3, 2**31)),
            INDEX,
            ValueError,
            r"of fewer than 2\*\*31 numbers, got shape \(3, 2147483648\)",
        ),
    ],
)
def test_gradient_refuses(out_grad, index, error, message):
    with pytest.raises(error, match=message):
        box_nms_backward(out_grad, index)
