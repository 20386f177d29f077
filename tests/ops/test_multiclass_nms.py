import ctypes
import struct

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_nms, multiclass_nms

#: Each option is in one dictionary or more.
OPTIONS = [
    {},
    dict(topk=30),
    dict(topk=1, valid_thresh=-1),
    dict(background_id=0, overlap_thresh=0.3),
    dict(background_id=2, valid_thresh=0.4, post_nms=9),
    dict(force_suppress=True, topk=100),
    dict(in_format="center", topk=77, overlap_thresh=0.0),
    dict(overlap_thresh=-1, post_nms=0),
    dict(valid_thresh=np.inf),
    dict(valid_thresh=-np.inf, background_id=7),
]


def scene(seed, batch, classes, num, ties=False, special=False):
    """Boxes and scores. Some boxes are inverted."""
    rng = np.random.default_rng(seed)
    low, size = rng.random((batch, num, 2)) * 4, rng.random((batch, num, 2)) * 3 - 0.3
    boxes = np.concatenate([low, low + size], axis=-1).astype(np.float32)
    scores = rng.random((batch, classes, num), np.float32) * np.float32(1.5) - np.float32(0.5)
    if ties:
        scores, boxes = np.round(scores * 10) / np.float32(10), np.round(boxes)
    if special:
        for x in (boxes, scores):
            x[rng.random(x.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.4, 3e9])
    return boxes, scores


def by_box_nms(boxes, scores, topk=1000, post_nms=-1, valid_thresh=0.01, **options):
    """The result of box_nms with one row per class and box, as rows and counts."""
    batch, classes, num = scores.shape
    data = np.empty((batch, classes, num, 6), np.float32)
    data[..., 0], data[..., 1] = np.arange(classes)[:, None], scores
    data[..., 2:] = boxes[:, None]
    options = dict(options, topk=topk, valid_thresh=valid_thresh, id_index=0)
    options["out_format"] = options.get("in_format", "corner")
    data = data.reshape(batch, classes * num, 6)
    out, index = box_nms(data, **options, return_index=True, backend="numpy")
    rows = min(topk, classes * num)
    rows = rows if post_nms < 0 else min(rows, post_nms)
    return out[:, :rows], np.minimum((index >= 0).sum(axis=1), rows)


def assert_same(results, expected):
    (out, counts), (expected_out, expected_counts) = results, expected
    assert (out.dtype, counts.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(out, expected_out)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected_out))


BOXES = np.float32([[[0, 0, 4, 4], [0, 0, 4, 3], [4, 0, 8, 4]]])
SCORES = np.float32([[[0.9, 0.8, 0.3], [0.2, 0.5, 0.01]]])


def test_kept_rows_by_hand(run):
    # The IoU of the first two boxes is 12 / 16, that of the first and the third is 0. A score of
    # 0.01 is not above 0.01.
    out, counts = run(multiclass_nms, BOXES, SCORES)
    first, second, third = BOXES[0]
    expected = [(0, 0.9, *first), (1, 0.5, *second), (0, 0.3, *third), *[[-1] * 6] * 3]
    np.testing.assert_array_equal(out, np.float32([expected]))
    assert counts.tolist() == [3]
    # Across classes, the first box also suppresses class 1 of the second box.
    out, counts = run(multiclass_nms, BOXES, SCORES, force_suppress=True)
    np.testing.assert_array_equal(out[0, :2], np.float32([expected[0], expected[2]]))
    assert counts.tolist() == [2]
    # An IoU equal to the threshold does not suppress.
    out, counts = run(multiclass_nms, BOXES, SCORES, overlap_thresh=0.75, topk=3)
    expected = np.float32([(0, 0.9, *first), (0, 0.8, *second), (1, 0.5, *second)])
    np.testing.assert_array_equal(out, expected[None])
    # topk applies before the suppression, post_nms after it.
    out, counts = run(multiclass_nms, BOXES, SCORES, topk=2)
    np.testing.assert_array_equal(out, np.float32([[expected[0], [-1] * 6]]))
    assert counts.tolist() == [1]
    out, counts = run(multiclass_nms, BOXES, SCORES, post_nms=2)
    np.testing.assert_array_equal(out, expected[None, ::2])
    assert counts.tolist() == [2]
    out, counts = run(multiclass_nms, BOXES, SCORES, background_id=0, post_nms=1)
    np.testing.assert_array_equal(out, expected[None, 2:])


def test_equal_scores_are_in_order_of_class_and_box(run):
    boxes = np.float32([[[i, 0, i + 1, 1] for i in range(100)]])
    scores = np.full((1, 3, 100), 0.5, np.float32)
    out, counts = run(multiclass_nms, boxes, scores, topk=250)
    assert counts.tolist() == [250]
    np.testing.assert_array_equal(out[0, :, 0], np.arange(250) // 100)
    np.testing.assert_array_equal(out[0, :, 2], np.arange(250) % 100)


def test_zero_scores_of_both_signs_are_equal(run):
    boxes = np.float32([[[i, 0, i + 1, 1] for i in range(4)]])
    scores = np.float32([[[-0.0, 0.0, -0.0, -1]]])
    out, _ = run(multiclass_nms, boxes, scores, valid_thresh=-0.5, topk=2)
    np.testing.assert_array_equal(out[0, :, 2], [0, 1])
    assert np.signbit(out[0, :, 1]).tolist() == [True, False]
    _, counts = run(multiclass_nms, boxes, scores, valid_thresh=0)
    assert counts.tolist() == [0]
    _, counts = run(multiclass_nms, boxes, scores, valid_thresh=-0.0)
    assert counts.tolist() == [0]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 64), (3, 5, 37), (1, 40, 5)])
def test_results_equal_box_nms(run, shape, options):
    for seed, (ties, special) in enumerate(((False, False), (True, False), (True, True))):
        arrays = scene(seed, *shape, ties, special)
        assert_same(run(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


#: Odd sizes: the addresses of most rows of scores are not multiples of 16.
@pytest.mark.parametrize("shape", [(3, 3, 1367), (2, 5, 1023), (1, 9, 2051)])
@pytest.mark.parametrize(
    "options",
    [dict(topk=20), dict(topk=300, background_id=1), dict(topk=5000, valid_thresh=0.8)],
)
def test_more_candidates_than_a_sample_equal_box_nms(run, shape, options):
    """The kernels list only some of 4096 or more candidates, by the bound of a sample."""
    for seed, (ties, special) in enumerate(((False, False), (True, True))):
        arrays = scene(seed, *shape, ties, special)
        assert_same(run(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


@pytest.mark.parametrize("topk", [2048, 2049, 4500])
def test_more_candidates_than_a_sort_tile_have_equal_bits(run, topk):
    boxes, scores = scene(topk, 2, 4, 1300, ties=True)
    boxes *= 10  # more boxes are kept
    options = dict(topk=topk, valid_thresh=-1)
    expected = multiclass_nms(boxes, scores, **options, backend="native")
    assert_same(run(multiclass_nms, boxes, scores, **options), expected)
    assert (expected[1] > topk // 4).all()


def test_topk_above_the_number_of_candidates_returns_all(run):
    arrays = scene(0, 2, 3, 50)
    out, counts = run(multiclass_nms, *arrays, topk=2**31 - 1)
    assert out.shape == (2, 150, 6)
    assert_same((out, counts), by_box_nms(*arrays, topk=150))


@pytest.mark.parametrize(
    "kind", ["equal", "two values", "ascending", "descending", "all floats", "few candidates"]
)
@pytest.mark.parametrize("topk", [1, 7, 900])
def test_output_is_in_order_of_scores(run, kind, topk):
    """The boxes do not overlap, so the output has the topk best candidates."""
    classes, num = 3, 3001
    rng = np.random.default_rng(topk)
    boxes = np.zeros((1, num, 4), np.float32)
    boxes[0, :, 0] = np.arange(num)
    boxes[..., 2:] = boxes[..., :2] + np.float32(0.5)
    scores = {
        "equal": np.full(classes * num, 0.5),
        "two values": rng.choice([0.3, np.nextafter(np.float32(0.3), 1)], classes * num),
        "ascending": np.arange(classes * num),
        "descending": -np.arange(classes * num),
        "all floats": rng.integers(0, 2**32, classes * num, np.uint32).view(np.float32),
        "few candidates": np.where(rng.random(classes * num) < 0.002, 1, -np.inf),
    }[kind].astype(np.float32)
    candidates = np.flatnonzero(scores > -np.inf)
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:topk]
    out, counts = run(
        multiclass_nms, boxes, scores.reshape(1, classes, num), valid_thresh=-np.inf, topk=topk
    )
    assert counts.tolist() == [len(order)]
    np.testing.assert_array_equal(out[0, : len(order), 0], order // num)
    np.testing.assert_array_equal(out[0, : len(order), 1], scores[order])
    np.testing.assert_array_equal(out[0, : len(order), 2], order % num)
    assert (out[0, len(order) :] == -1).all()


def sampled(num):
    """The positions of the sample: sample_position of topk.cuh."""
    j = np.arange(4096)
    begin, end = j * num // 4096, (j + 1) * num // 4096
    mixed = j * 2654435761 % 2**32
    mixed = ((mixed ^ mixed >> 15) * 2246822519).astype(np.uint64) % 2**32
    return begin + (mixed.astype(np.int64) * (end - begin) >> 32)


def biased(higher, num=14001):
    """Boxes and scores of two images. The sample of the second has its highest or lowest scores."""
    boxes, scores = scene(0, 2, 5, num)
    in_sample = np.zeros(scores[0].size, bool)
    in_sample[sampled(in_sample.size)] = True
    scores[1] = np.where(in_sample == higher, 1, 0.5).reshape(scores[1].shape) + scores[1] / 10
    return boxes, scores


@pytest.mark.parametrize("higher", [False, True], ids=["low sample", "high sample"])
def test_biased_sample_gives_the_rows_of_box_nms(run, higher):
    arrays = biased(higher)
    assert_same(run(multiclass_nms, *arrays), by_box_nms(*arrays))


@pytest.mark.parametrize("higher", [False, True], ids=["low sample", "high sample"])
def test_biased_sample_makes_the_list_too_long_or_too_short(monkeypatch, higher):
    """The list of the first image has a valid length."""
    found, capacities = [], []

    def record(launch):
        if launch.kernel == "multiclass_nms_order":  # it reads the lists of topk_collect
            _, address, _, capacity = struct.unpack("PPPi", launch.arguments[3][:28])
            found.extend((ctypes.c_int * 2).from_address(address))
            capacities.append(capacity)
        return launch

    monkeypatch.setattr(backends, "on_launch", record)
    multiclass_nms(*biased(higher), backend="emulated")
    [capacity] = capacities
    assert 1000 <= found[0] <= capacity < 5 * 14001
    assert found[1] < 1000 if higher else found[1] > capacity


def test_bound_of_the_sample_that_excludes_one_candidate_loses_no_row(run):
    """The bound is the sample of rank 29: 97 to 100 scores are better. The best 100 are wanted."""
    classes, num, topk, rank = 7, 10_001, 100, 29
    rng = np.random.default_rng(31)
    in_sample = sampled(classes * num)
    others = np.setdiff1d(np.arange(classes * num), in_sample)
    boxes = np.zeros((4, num, 4), np.float32)
    boxes[..., 0] = np.arange(num)
    boxes[..., 2:] = boxes[..., :2] + np.float32(0.5)
    scores = rng.uniform(0.1, 0.4, (4, classes * num)).astype(np.float32)
    for row, better in zip(scores, (97, 98, 99, 100)):
        first = rng.choice(in_sample, rank, False)
        row[first] = rng.uniform(0.6, 0.9, rank)
        row[first[0]] = 0.5
        row[rng.choice(others, better - rank + 1, False)] = rng.uniform(0.6, 0.9, better - rank + 1)
        assert np.sort(row[in_sample])[-rank] == 0.5
        assert (row > 0.5).sum() == better
    out, counts = run(multiclass_nms, boxes, scores.reshape(4, classes, num), topk=topk)
    assert counts.tolist() == [topk] * 4
    order = np.argsort(-scores, axis=1, kind="stable")[:, :topk]
    np.testing.assert_array_equal(out[..., 0], order // num)
    np.testing.assert_array_equal(out[..., 1], np.take_along_axis(scores, order, 1))
    np.testing.assert_array_equal(out[..., 2], order % num)


def test_images_are_independent(run):
    boxes, scores = scene(1, 3, 4, 100, ties=True)
    out, counts = run(multiclass_nms, boxes, scores, topk=60)
    for i in range(3):
        one = run(multiclass_nms, boxes[i : i + 1], scores[i : i + 1], topk=60)
        assert_same((out[i : i + 1], counts[i : i + 1]), one)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0), (0, 0, 0)])
def test_empty_input_gives_zero_counts(run, shape):
    batch, classes, num = shape
    boxes, scores = np.zeros((batch, num, 4), np.float32), np.zeros(shape, np.float32)
    out, counts = run(multiclass_nms, boxes, scores, topk=10)
    assert out.shape == (batch, min(10, classes * num), 6)
    assert counts.tolist() == [0] * batch


def test_post_nms_of_zero_gives_no_rows(run):
    out, counts = run(multiclass_nms, BOXES, SCORES, post_nms=0)
    assert out.shape == (1, 0, 6)
    assert counts.tolist() == [0]


def test_kept_boxes_do_not_overlap(run):
    """A kept box of the same class with a higher score overlaps each suppressed box."""
    boxes, scores = scene(2, 1, 2, 200)
    out, counts = run(multiclass_nms, boxes, scores, valid_thresh=-1)
    rows = out[0, : counts[0]]
    assert (np.diff(rows[:, 1]) <= 0).all()
    assert (out[0, counts[0] :] == -1).all()
    for c in range(2):
        kept = rows[rows[:, 0] == c]
        assert 10 < len(kept) < 190
        iou = box_iou(kept[:, 2:], kept[:, 2:])
        np.fill_diagonal(iou, 0)
        assert iou.max() <= 0.5
        iou = box_iou(boxes[0], kept[:, 2:])
        best_overlapping = np.where(iou > 0.5, kept[:, 1], -1).max(axis=1)
        is_kept = np.isin(scores[0, c], kept[:, 1])
        assert (best_overlapping > scores[0, c])[~is_kept].all()


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("ascending", [False, True], ids=["any order", "ascending"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, batch, ascending):
    """Several threads share one image, or each thread has an image."""
    boxes, scores = scene(batch, batch, 60, 3000, special=True)
    if ascending:
        scores = np.sort(scores, axis=None).reshape(scores.shape)
    options = dict(topk=700, background_id=20)
    expected = multiclass_nms(boxes, scores, **options, backend="numpy")
    for results in cpu_variants(lambda: multiclass_nms(boxes, scores, **options, backend="native")):
        assert_same(results, expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 30)),
    ties=st.booleans(),
    special=st.booleans(),
    topk=st.integers(1, 200),
    post_nms=st.integers(-1, 200),
    background_id=st.integers(-2, 7),
    valid_thresh=st.sampled_from([-np.inf, -0.5, -0.0, 0.0, 0.01, 0.4, 0.9]),
    overlap_thresh=st.sampled_from([-0.1, 0.0, 0.3, 0.5, 1.0]),
    force_suppress=st.booleans(),
)
@pytest.mark.parametrize("backend", ["native", "emulated"])
def test_random_options_give_the_rows_of_box_nms(backend, seed, shape, ties, special, **options):
    arrays = scene(seed, *shape, ties, special)
    results = multiclass_nms(*arrays, **options, backend=backend)
    assert_same(results, by_box_nms(*arrays, **options))


def test_results_equal_box_nms_of_mxnet(mx):
    boxes, scores = scene(3, 2, 4, 90, ties=True)
    data = np.empty((2, 4, 90, 6), np.float32)
    data[..., 0], data[..., 1], data[..., 2:] = np.arange(4)[:, None], scores, boxes[:, None]
    theirs = mx.nd.contrib.box_nms(
        mx.nd.array(data.reshape(2, 360, 6)), valid_thresh=0.01, topk=200, id_index=0
    )
    out, counts = multiclass_nms(boxes, scores, topk=200)
    np.testing.assert_array_equal(out, theirs.asnumpy()[:, :200])
    np.testing.assert_array_equal(counts, (theirs.asnumpy()[..., 1] > 0).sum(axis=1))


@pytest.mark.parametrize("shape", [(2, 3, 50), (2, 3, 1367)])
def test_sanitizers_find_no_error(run_sanitized, shape):
    arrays = scene(4, *shape, ties=True)
    options = dict(topk=70, background_id=1)
    assert_same(run_sanitized(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


def test_sanitizers_find_no_error_with_a_biased_sample(run_sanitized):
    arrays = biased(True, 1367)
    options = dict(topk=20, post_nms=5)
    assert_same(run_sanitized(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


ONE = np.zeros(1, np.float32)

VALID = BOXES, SCORES
REFUSED = {
    "boxes of two axes": (
        (BOXES[0], SCORES),
        {},
        ValueError,
        r"boxes: expected shape \(B, N, 4\), got \(3, 4\)",
    ),
    "three columns": (
        (BOXES[..., :3], SCORES),
        {},
        ValueError,
        r"boxes: .*\(B, N, 4\), got \(1, 3, 3\)",
    ),
    "scores of two axes": (
        (BOXES, SCORES[0]),
        {},
        ValueError,
        r"scores: .*\(B, C, N\), got \(2, 3\)",
    ),
    "another number of boxes": (
        (BOXES, SCORES[..., :2]),
        {},
        ValueError,
        "scores: .*with N = 3 as in boxes, got",
    ),
    "another number of images": (
        (BOXES[:0], SCORES),
        {},
        ValueError,
        "scores: .*with B = 0 as in boxes, got",
    ),
    "float64": (
        (BOXES, SCORES.astype("f8")),
        {},
        TypeError,
        "scores: expected float32 as boxes, got float64",
    ),
    "list": ((BOXES.tolist(), SCORES), {}, TypeError, "boxes: expected an array .*got list"),
    "topk 0": (VALID, dict(topk=0), ValueError, r"topk: .* in \[1, 2147483647\], got 0"),
    "topk is a float": (VALID, dict(topk=2.0), TypeError, "topk: expected an integer, got 2.0"),
    "post_nms is a word": (
        VALID,
        dict(post_nms="all"),
        TypeError,
        "post_nms: .*integer, got 'all'",
    ),
    "background_id is None": (
        VALID,
        dict(background_id=None),
        TypeError,
        "background_id: .*got None",
    ),
    "valid_thresh is NaN": (
        VALID,
        dict(valid_thresh=np.nan),
        ValueError,
        "valid_thresh: .*got nan",
    ),
    "overlap_thresh is a letter": (
        VALID,
        dict(overlap_thresh="a"),
        TypeError,
        "overlap_thresh: .*got 'a'",
    ),
    "unknown format": (VALID, dict(in_format="xywh"), ValueError, "in_format: .* got 'xywh'"),
    "2^24 + 1 classes": (
        (np.broadcast_to(ONE, (1, 1, 4)), np.broadcast_to(ONE, (1, 2**24 + 1, 1))),
        {},
        ValueError,
        r"scores: expected at most 2\*\*24 classes, .*got shape \(1, 16777217, 1\)",
    ),
    "2^31 scores": (
        (np.broadcast_to(ONE, (1, 2**21, 4)), np.broadcast_to(ONE, (1, 2**10, 2**21))),
        {},
        ValueError,
        r"scores: .*fewer than 2\*\*31 scores of an image, got shape \(1, 1024, 2097152\)",
    ),
    "topk above the limit of a sort": (
        (np.broadcast_to(ONE, (1, 2**20, 4)), np.broadcast_to(ONE, (1, 2**10, 2**20))),
        dict(topk=65535 * 256),
        ValueError,
        "topk: expected fewer than 16776960 of 1073741824 candidates, got 16776960",
    ),
}


@pytest.mark.parametrize(("arrays", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(arrays, options, error, message):
    with pytest.raises(error, match=message):
        multiclass_nms(*arrays, **options)
