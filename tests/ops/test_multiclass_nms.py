import ctypes

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_nms, multiclass_nms

#: Every option takes part in some.
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


def name_of(options):
    return "-".join(options) or "defaults"


def scene(seed, batch, classes, num, ties=False, special=False):
    """Boxes and scores; some boxes are inverted."""
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
    """What box_nms gives for all candidates as rows."""
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


def test_by_hand(run):
    # The first two boxes have an IoU of 12 / 16, the third touches the first. A score of 0.01 is
    # not above 0.01.
    out, counts = run(multiclass_nms, BOXES, SCORES)
    first, second, third = BOXES[0]
    expected = [(0, 0.9, *first), (1, 0.5, *second), (0, 0.3, *third), *[[-1] * 6] * 3]
    np.testing.assert_array_equal(out, np.float32([expected]))
    assert counts.tolist() == [3]
    # Across classes the first box suppresses the second one's other class, too.
    out, counts = run(multiclass_nms, BOXES, SCORES, force_suppress=True)
    np.testing.assert_array_equal(out[0, :2], np.float32([expected[0], expected[2]]))
    assert counts.tolist() == [2]
    # An IoU equal to the threshold does not suppress.
    out, counts = run(multiclass_nms, BOXES, SCORES, overlap_thresh=0.75, topk=3)
    expected = np.float32([(0, 0.9, *first), (0, 0.8, *second), (1, 0.5, *second)])
    np.testing.assert_array_equal(out, expected[None])
    # The cut comes before the suppression, post_nms after it.
    out, counts = run(multiclass_nms, BOXES, SCORES, topk=2)
    np.testing.assert_array_equal(out, np.float32([[expected[0], [-1] * 6]]))
    assert counts.tolist() == [1]
    out, counts = run(multiclass_nms, BOXES, SCORES, post_nms=2)
    np.testing.assert_array_equal(out, expected[None, ::2])
    assert counts.tolist() == [2]
    out, counts = run(multiclass_nms, BOXES, SCORES, background_id=0, post_nms=1)
    np.testing.assert_array_equal(out, expected[None, 2:])


def test_ties_go_by_class_and_then_by_box(run):
    boxes = np.float32([[[i, 0, i + 1, 1] for i in range(100)]])
    scores = np.full((1, 3, 100), 0.5, np.float32)
    out, counts = run(multiclass_nms, boxes, scores, topk=250)
    assert counts.tolist() == [250]
    np.testing.assert_array_equal(out[0, :, 0], np.arange(250) // 100)
    np.testing.assert_array_equal(out[0, :, 2], np.arange(250) % 100)


def test_zeros_of_both_signs_are_equal(run):
    boxes = np.float32([[[i, 0, i + 1, 1] for i in range(4)]])
    scores = np.float32([[[-0.0, 0.0, -0.0, -1]]])
    out, _ = run(multiclass_nms, boxes, scores, valid_thresh=-0.5, topk=2)
    np.testing.assert_array_equal(out[0, :, 2], [0, 1])
    assert np.signbit(out[0, :, 1]).tolist() == [True, False]
    _, counts = run(multiclass_nms, boxes, scores, valid_thresh=0)
    assert counts.tolist() == [0]
    _, counts = run(multiclass_nms, boxes, scores, valid_thresh=-0.0)
    assert counts.tolist() == [0]


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 64), (3, 5, 37), (1, 40, 5)], ids=str)
def test_against_box_nms(run, shape, options):
    for seed, (ties, special) in enumerate(((False, False), (True, False), (True, True))):
        arrays = scene(seed, *shape, ties, special)
        assert_same(run(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


#: Odd sizes: rows of scores then begin at addresses that are no multiples of 16.
@pytest.mark.parametrize("shape", [(3, 3, 1367), (2, 5, 1023), (1, 9, 2051)], ids=str)
@pytest.mark.parametrize(
    "options",
    [dict(topk=20), dict(topk=300, background_id=1), dict(topk=5000, valid_thresh=0.8)],
    ids=name_of,
)
def test_more_than_a_sample(run, shape, options):
    """Of 4096 candidates and more only some are listed, by what a sample of them tells."""
    for seed, (ties, special) in enumerate(((False, False), (True, True))):
        arrays = scene(seed, *shape, ties, special)
        assert_same(run(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


@pytest.mark.parametrize("topk", [2048, 2049, 4500])
def test_more_than_a_tile_of_the_sort(run, topk):
    boxes, scores = scene(topk, 2, 4, 1300, ties=True)
    boxes *= 10  # so that many are kept
    options = dict(topk=topk, valid_thresh=-1)
    expected = multiclass_nms(boxes, scores, **options, backend="native")
    assert_same(run(multiclass_nms, boxes, scores, **options), expected)
    assert (expected[1] > topk // 4).all()


def test_topk_beyond_the_candidates(run):
    arrays = scene(0, 2, 3, 50)
    out, counts = run(multiclass_nms, *arrays, topk=2**31 - 1)
    assert out.shape == (2, 150, 6)
    assert_same((out, counts), by_box_nms(*arrays, topk=150))


@pytest.mark.parametrize("of_all", ["equal", "of two", "rising", "falling", "any float", "few"])
@pytest.mark.parametrize("topk", [1, 7, 900])
def test_the_order(run, of_all, topk):
    """Boxes apart from each other, so that all that take part come back."""
    classes, num = 3, 3001
    rng = np.random.default_rng(topk)
    boxes = np.zeros((1, num, 4), np.float32)
    boxes[0, :, 0] = np.arange(num)
    boxes[..., 2:] = boxes[..., :2] + np.float32(0.5)
    scores = {
        "equal": np.full(classes * num, 0.5),
        "of two": rng.choice([0.3, np.nextafter(np.float32(0.3), 1)], classes * num),
        "rising": np.arange(classes * num),
        "falling": -np.arange(classes * num),
        "any float": rng.integers(0, 2**32, classes * num, np.uint32).view(np.float32),
        "few": np.where(rng.random(classes * num) < 0.002, 1, -np.inf),
    }[of_all].astype(np.float32)
    counted = np.flatnonzero(scores > -np.inf)
    order = counted[np.argsort(-scores[counted], kind="stable")][:topk]
    out, counts = run(
        multiclass_nms, boxes, scores.reshape(1, classes, num), valid_thresh=-np.inf, topk=topk
    )
    assert counts.tolist() == [len(order)]
    np.testing.assert_array_equal(out[0, : len(order), 0], order // num)
    np.testing.assert_array_equal(out[0, : len(order), 1], scores[order])
    np.testing.assert_array_equal(out[0, : len(order), 2], order % num)
    assert (out[0, len(order) :] == -1).all()


def sampled(num):
    """The places that the sample looks at: sample_position of topk.cuh."""
    j = np.arange(4096)
    begin, end = j * num // 4096, (j + 1) * num // 4096
    mixed = j * 2654435761 % 2**32
    mixed = ((mixed ^ mixed >> 15) * 2246822519).astype(np.uint64) % 2**32
    return begin + (mixed.astype(np.int64) * (end - begin) >> 32)


def deceptive(higher, num=14001):
    """Of the second image all that the sample sees is better than the rest, or else worse."""
    boxes, scores = scene(0, 2, 5, num)
    seen = np.zeros(scores[0].size, bool)
    seen[sampled(seen.size)] = True
    scores[1] = np.where(seen == higher, 1, 0.5).reshape(scores[1].shape) + scores[1] / 10
    return boxes, scores


@pytest.mark.parametrize("higher", [False, True])
def test_a_sample_that_deceives(run, higher):
    arrays = deceptive(higher)
    assert_same(run(multiclass_nms, *arrays), by_box_nms(*arrays))


@pytest.mark.parametrize("higher", [False, True])
def test_what_a_deceptive_sample_lists(monkeypatch, higher):
    """The list of the first image serves; the list of the second is too long or too short."""
    found, capacity = [], []

    def spied(launch):
        if launch.kernel == "topk_select":  # which reads what topk_collect has listed
            address, at_most = (int.from_bytes(launch.arguments[i], "little") for i in (3, 7))
            found.extend((ctypes.c_int * 2).from_address(address))
            capacity.append(at_most)
        return launch

    monkeypatch.setattr(backends, "on_launch", spied)
    multiclass_nms(*deceptive(higher), backend="emulated")
    [room] = capacity
    assert 1000 <= found[0] <= room < 5 * 14001
    assert found[1] < 1000 if higher else found[1] > room


def test_images_are_independent(run):
    boxes, scores = scene(1, 3, 4, 100, ties=True)
    out, counts = run(multiclass_nms, boxes, scores, topk=60)
    for i in range(3):
        one = run(multiclass_nms, boxes[i : i + 1], scores[i : i + 1], topk=60)
        assert_same((out[i : i + 1], counts[i : i + 1]), one)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0), (0, 0, 0)], ids=str)
def test_empty(run, shape):
    batch, classes, num = shape
    boxes, scores = np.zeros((batch, num, 4), np.float32), np.zeros(shape, np.float32)
    out, counts = run(multiclass_nms, boxes, scores, topk=10)
    assert out.shape == (batch, min(10, classes * num), 6)
    assert counts.tolist() == [0] * batch


def test_no_rows_wanted(run):
    out, counts = run(multiclass_nms, BOXES, SCORES, post_nms=0)
    assert out.shape == (1, 0, 6)
    assert counts.tolist() == [0]


def test_what_it_promises(run):
    """No two kept overlap too much, and each other one is overlapped by a better kept one."""
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
@pytest.mark.parametrize("rising", [False, True])
def test_every_way_to_run_gives_the_same(cpu_variants, batch, rising):
    """One and several threads, in an image or an image each, and all vector widths."""
    boxes, scores = scene(batch, batch, 60, 3000, special=True)
    if rising:
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
def test_any_options(backend, seed, shape, ties, special, **options):
    arrays = scene(seed, *shape, ties, special)
    results = multiclass_nms(*arrays, **options, backend=backend)
    assert_same(results, by_box_nms(*arrays, **options))


def test_equals_mxnet(mx):
    boxes, scores = scene(3, 2, 4, 90, ties=True)
    data = np.empty((2, 4, 90, 6), np.float32)
    data[..., 0], data[..., 1], data[..., 2:] = np.arange(4)[:, None], scores, boxes[:, None]
    theirs = mx.nd.contrib.box_nms(
        mx.nd.array(data.reshape(2, 360, 6)), valid_thresh=0.01, topk=200, id_index=0
    )
    out, counts = multiclass_nms(boxes, scores, topk=200)
    np.testing.assert_array_equal(out, theirs.asnumpy()[:, :200])
    np.testing.assert_array_equal(counts, (theirs.asnumpy()[..., 1] > 0).sum(axis=1))


@pytest.mark.parametrize("shape", [(2, 3, 50), (2, 3, 1367)], ids=str)
def test_sanitized(run_sanitized, shape):
    arrays = scene(4, *shape, ties=True)
    options = dict(topk=70, background_id=1)
    assert_same(run_sanitized(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


def test_a_deceptive_sample_sanitized(run_sanitized):
    arrays = deceptive(True, 1367)
    options = dict(topk=20, post_nms=5)
    assert_same(run_sanitized(multiclass_nms, *arrays, **options), by_box_nms(*arrays, **options))


ONE = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((BOXES[0], SCORES), {}, ValueError, r"boxes: expected shape \(B, N, 4\), got \(3, 4\)"),
        ((BOXES[..., :3], SCORES), {}, ValueError, r"boxes: .*\(B, N, 4\), got \(1, 3, 3\)"),
        ((BOXES, SCORES[0]), {}, ValueError, r"scores: .*\(B, C, N\), got \(2, 3\)"),
        ((BOXES, SCORES[..., :2]), {}, ValueError, "scores: .*with N = 3 as in boxes, got"),
        ((BOXES[:0], SCORES), {}, ValueError, "scores: .*with B = 0 as in boxes, got"),
        ((BOXES, SCORES.astype("f8")), {}, TypeError, "scores: expected float32, got float64"),
        ((BOXES.tolist(), SCORES), {}, TypeError, "boxes: expected an array .*got list"),
        ((BOXES, SCORES), dict(topk=0), ValueError, r"topk: .* in \[1, 2147483647\], got 0"),
        ((BOXES, SCORES), dict(topk=2.0), TypeError, "topk: expected an integer, got 2.0"),
        ((BOXES, SCORES), dict(post_nms="all"), TypeError, "post_nms: .*integer, got 'all'"),
        ((BOXES, SCORES), dict(background_id=None), TypeError, "background_id: .*got None"),
        ((BOXES, SCORES), dict(valid_thresh=np.nan), ValueError, "valid_thresh: .*got nan"),
        ((BOXES, SCORES), dict(overlap_thresh="a"), TypeError, "overlap_thresh: .*got 'a'"),
        ((BOXES, SCORES), dict(in_format="xywh"), ValueError, "in_format: .* got 'xywh'"),
        (
            (np.broadcast_to(ONE, (1, 1, 4)), np.broadcast_to(ONE, (1, 2**24 + 1, 1))),
            {},
            ValueError,
            r"scores: expected at most 2\*\*24 classes, .*got shape \(1, 16777217, 1\)",
        ),
        (
            (np.broadcast_to(ONE, (1, 2**21, 4)), np.broadcast_to(ONE, (1, 2**10, 2**21))),
            {},
            ValueError,
            r"scores: .*fewer than 2\*\*31 scores of an image, got shape \(1, 1024, 2097152\)",
        ),
        (
            (np.broadcast_to(ONE, (1, 2**20, 4)), np.broadcast_to(ONE, (1, 2**10, 2**20))),
            dict(topk=65535 * 256),
            ValueError,
            "topk: expected fewer than 16776960 of 1073741824 candidates, got 16776960",
        ),
    ],
)
def test_refuses(arrays, options, error, message):
    with pytest.raises(error, match=message):
        multiclass_nms(*arrays, **options)
