from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_soft_nms import f32, rows, scene

from cvops import box_iou, weighted_boxes_fusion

#: The IoU of the first two boxes is 12 / 16; the third one touches neither.
BOXES = [[0, 0, 4, 4], [0, 0, 4, 3], [8, 0, 12, 4]]


def fused(run, data, **options):
    """The rows of the clusters, without the rows of -1 after them."""
    out = run(weighted_boxes_fusion, data, **options)
    num = int((out[:, 1] > 0).sum())
    np.testing.assert_array_equal(out[num:], -1)
    return out[:num]


def check(run, data, options):
    want = weighted_boxes_fusion(data, **options, backend="numpy")
    got = run(weighted_boxes_fusion, data, **options)
    assert got.dtype == want.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def by_the_paper(boxes, scores, labels, threshold, num_models, kind="avg"):
    """The algorithm of the paper in float64: lists of the members of each cluster."""
    clusters, means = [], []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        best, match = threshold, None
        for c, mean in enumerate(means):
            low, high = np.maximum(mean[:2], boxes[i][:2]), np.minimum(mean[2:], boxes[i][2:])
            inside = np.prod(np.maximum(high - low, 0))
            areas = np.prod(mean[2:] - mean[:2]) + np.prod(boxes[i][2:] - boxes[i][:2])
            iou = inside / (areas - inside)
            if labels[clusters[c][0]] == labels[i] and iou > best:
                best, match = iou, c
        if match is None:
            clusters.append([i])
            means.append(boxes[i])
        else:
            clusters[match].append(i)
            members = clusters[match]
            means[match] = np.average(boxes[members], axis=0, weights=scores[members])
    found = []
    for members, mean in zip(clusters, means):
        score = scores[members].mean() if kind == "avg" else scores[members].max()
        found.append([score * min(len(members), num_models) / num_models, *mean])
    return np.array(sorted(found, key=lambda row: -row[0]))


class TestByHand:
    def test_overlapping_boxes_become_their_weighted_mean(self, run):
        out = fused(run, rows([0.25, 0.75, 0.5], BOXES))
        # The height of the cluster is (0.25 * 4 + 0.75 * 3) / (0.25 + 0.75), its score the mean.
        assert out.tolist() == [[0, 0.5, 0, 0, 4, 3.25], [0, 0.5, 8, 0, 12, 4]]

    def test_cluster_of_few_models_has_a_lower_score(self, run):
        data = rows([0.25, 0.75, 0.5], BOXES)
        assert fused(run, data, num_models=4)[:, 1].tolist() == [0.5 * 2 / 4, 0.5 * 1 / 4]
        assert fused(run, data, num_models=2)[:, 1].tolist() == [0.5, 0.25]

    def test_highest_score_replaces_the_mean(self, run):
        data = rows([0.25, 0.75, 0.5], BOXES)
        out = fused(run, data, score_type="max", num_models=2)
        assert out[:, 1].tolist() == [0.75, 0.25]
        assert out[0, 2:].tolist() == [0, 0, 4, 3.25]

    def test_iou_at_the_threshold_fuses_nothing(self, run):
        data = rows([0.25, 0.75], BOXES[:2])
        np.testing.assert_array_equal(fused(run, data, overlap_thresh=0.75), data[[1, 0]])
        assert len(fused(run, data, overlap_thresh=0.74)) == 1

    def test_threshold_of_zero_fuses_boxes_that_overlap_and_not_those_that_touch(self, run):
        boxes = [[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]]
        data = rows([0.75, 0.5, 0.25], boxes)
        np.testing.assert_array_equal(fused(run, data, overlap_thresh=0), data)
        assert len(fused(run, rows([0.75, 0.5], [boxes[0], [3, 3, 7, 7]]), overlap_thresh=0)) == 1

    def test_classes_have_their_own_clusters(self, run):
        data = rows([0.25, 0.75], BOXES[:2], [1, 2])
        np.testing.assert_array_equal(fused(run, data, id_index=0), data[[1, 0]])
        out = fused(run, data, id_index=0, force_suppress=True)
        assert out.tolist() == [[2, 0.5, 0, 0, 4, 3.25]]  # the class of the best box
        assert len(fused(run, data)) == 1
        assert fused(run, data, id_index=0, background_id=2).tolist() == data[:1].tolist()
        same = rows([0.25, 0.75], BOXES[:2], [1.25, 1.75])  # the integer parts are equal
        assert len(fused(run, same, id_index=0)) == 1

    def test_box_joins_the_cluster_of_the_highest_iou(self, run):
        # The IoUs of the last box with the other two are 2 / 6 and 3 / 5.
        data = rows([0.9, 0.8, 0.1], [[0, 0, 4, 1], [3, 0, 7, 1], [2, 0, 6, 1]])
        out = fused(run, data, overlap_thresh=0.3)
        assert out[0].tolist() == data[0].tolist()
        np.testing.assert_allclose(out[1, 2:], [26 / 9, 0, 62 / 9, 1], rtol=1e-6)

    def test_equal_ious_go_to_the_first_cluster(self, run):
        # The third box has the IoU 1 / 3 with the other two, which touch.
        data = rows([0.5, 0.75, 0.25], [[0, 0, 4, 1], [4, 0, 8, 1], [2, 0, 6, 1]])
        out = fused(run, data, overlap_thresh=0.25, num_models=2)
        assert out.tolist() == [[0, 0.5, 3.5, 0, 7.5, 1], [0, 0.25, 0, 0, 4, 1]]

    def test_candidates_are_above_the_threshold_and_topk(self, run):
        data = rows([0.25, 0.75, 0.5], BOXES)
        np.testing.assert_array_equal(fused(run, data, valid_thresh=0.25), data[1:])
        np.testing.assert_array_equal(fused(run, data, topk=2), data[1:])
        assert run(weighted_boxes_fusion, data, post_nms=1).shape == (1, 6)
        assert run(weighted_boxes_fusion, data, topk=0).tolist() == [[-1] * 6] * 3

    def test_centers_and_sizes_have_the_same_mean(self, run):
        corners = rows([0.25, 0.75, 0.5], BOXES)
        low, high = corners[:, 2:4], corners[:, 4:]
        centers = np.concatenate([corners[:, :2], (low + high) / 2, high - low], axis=1)
        out = fused(run, centers, in_format="center")
        assert out.tolist() == [[0, 0.5, 2, 1.625, 4, 3.25], [0, 0.5, 10, 2, 4, 4]]

    def test_nan_and_boxes_without_area_stay_alone(self, run):
        boxes = [[np.nan, 0, 4, 4], [0, 0, 4, 4], [1, 1, 1, 1], [3, 3, 0, 0]]
        data = rows([0.5, 0.875, 0.75, 0.625], boxes)
        np.testing.assert_array_equal(fused(run, data, overlap_thresh=0), data[[1, 2, 3, 0]])

    def test_other_columns_are_those_of_the_best_box(self, run):
        data = np.c_[rows([0.25, 0.75], BOXES[:2]), f32([[5], [6]])]
        assert fused(run, data)[0, 6] == 6


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_result_is_that_of_the_paper(run, kind):
    rng = np.random.default_rng(3)
    low = rng.random((60, 2)) * 3
    boxes = np.concatenate([low, low + 1 + rng.random((60, 2))], axis=1)
    data = f32(np.c_[rng.integers(0, 3, 60), rng.permutation(60) / 64 + 1 / 64, boxes])
    out = fused(run, data, id_index=0, overlap_thresh=0.4, num_models=4, score_type=kind)
    want = by_the_paper(data[:, 2:], data[:, 1], data[:, 0], 0.4, 4, kind)
    assert 5 < len(want) < 50
    np.testing.assert_allclose(out[:, 1:], want, rtol=1e-5)


OPTIONS = [
    {},
    dict(id_index=0, overlap_thresh=0.1, background_id=1, num_models=3),
    dict(id_index=0, score_type="max", topk=25, post_nms=7, num_models=2),
    dict(id_index=0, force_suppress=True, valid_thresh=0.2, overlap_thresh=0.6),
    dict(in_format="center", overlap_thresh=0, num_models=5),
    dict(score_index=6, overlap_thresh=1),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (1, 100)])
def test_backend_gives_the_bits_of_the_reference(run_any_steps, shape, options):
    for ties, special in ((False, False), (True, False), (True, True)):
        check(run_any_steps, scene(1, *shape, ties=ties, special=special), options)


def test_more_clusters_than_threads_of_a_block(run_other):
    data = scene(2, 1100, side=400)
    assert (weighted_boxes_fusion(data, backend="native")[:, 1] > 0).sum() > 1024
    check(run_other, data, {"overlap_thresh": 0.2, "num_models": 2})


@pytest.mark.parametrize("num", [1, 16, 17, 2000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num):
    data, options = scene(num, 2, num, ties=True), dict(id_index=0, overlap_thresh=0.3)
    want = weighted_boxes_fusion(data, **options, backend="numpy")
    call = partial(weighted_boxes_fusion, data, **options, backend="native")
    for found in cpu_variants(call):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("scale", [1, 1e-15, 1e12])
def test_box_joins_a_cluster_if_their_iou_is_above_the_threshold_by_one_bit(scale):
    for seed in range(40):
        data = scene(seed, 2)
        data[:, 2:4], data[:, 4:6] = data[:, 2:4] % 1, 1 + data[:, 4:6] % 1  # they overlap
        data[:, 1], data[:, 2:6] = (0.75, 0.5), data[:, 2:6] * f32(scale)
        iou = box_iou(data[:1, 2:6], data[1:, 2:6])[0, 0]
        for threshold, num in ((iou, 2), (np.nextafter(iou, f32(0)), 1)):
            found = fused(runner("cpu", "native"), data, overlap_thresh=float(threshold))
            assert len(found) == num


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.booleans())
def test_random_case_equals_the_reference(seed, special):
    rng = np.random.default_rng(seed)
    data = scene(seed, rng.integers(1, 3), rng.integers(1, 90), ties=True, special=special)
    options = dict(
        overlap_thresh=float(rng.choice([0, 0.25, 0.5])),
        num_models=int(rng.integers(1, 5)),
        id_index=int(rng.integers(-1, 1)),
        score_type=str(rng.choice(["avg", "max"])),
    )
    check(runner("cpu", "native"), data, options)


def test_sanitized(run_sanitized_small):
    # A step is slow here.
    options = dict(id_index=0, overlap_thresh=0.1, topk=4)
    check(run_sanitized_small, scene(5, 1, 110, ties=True), options)


def test_order_of_the_rows_does_not_matter(run):
    data = scene(6, 80)
    data[:, 1] = np.arange(80) / f32(128)
    want = run(weighted_boxes_fusion, data, overlap_thresh=0.2)
    shuffled = data[np.random.default_rng(0).permutation(80)]
    np.testing.assert_array_equal(run(weighted_boxes_fusion, shuffled, overlap_thresh=0.2), want)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"overlap_thresh": 1.5}, ValueError, r"overlap_thresh: expected a .* \[0, 1\], got 1.5"),
        ({"num_models": 0}, ValueError, r"num_models: expected an integer in \[1, .*, got 0"),
        ({"num_models": 1.5}, TypeError, "num_models: expected an integer, got 1.5"),
        ({"score_type": "sum"}, ValueError, r"score_type: expected one of \['avg', 'max'\]"),
        ({"valid_thresh": -1}, ValueError, r"valid_thresh: expected a number in \[0, inf\]"),
        ({"score_index": 3}, ValueError, "score_index: expected a column outside of the coord"),
        ({"id_index": 1}, ValueError, "id_index: expected a column of its own or -1, got 1"),
        ({"in_format": "polar"}, ValueError, r"in_format: expected one of \['corner', 'center'\]"),
        ({"data": np.zeros((3, 4), "f")}, ValueError, "data: expected rows of a score and 4"),
        ({"data": np.zeros(6, "f")}, ValueError, r"data: expected shape \(..., N, K\), got \(6,"),
        ({"data": np.zeros((3, 6))}, TypeError, "data: expected float32, got float64"),
        ({"data": [[0.5] * 6]}, TypeError, r"data: expected an array .*numpy.array\(data, "),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_bad_argument_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        weighted_boxes_fusion(**{"data": rows([0.5]), **options})
