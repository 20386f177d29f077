from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import multi_proposal, proposal

INF, NAN = np.inf, np.nan
#: Anchors of one pixel: the anchor of the cell in row y and column x is (x, y, x, y).
PIXELS = dict(scales=(1,), ratios=(1,), feature_stride=1, rpn_min_size=0, iou_loss=True)


def f32(x):
    return np.array(x, np.float32)


def of_boxes(boxes, scores, size=(100, 100), scale=1):
    """The inputs of one row of cells, whose boxes are the given corners with PIXELS."""
    boxes, num = f32(boxes), len(boxes)
    x = np.arange(num, dtype=np.float32)
    offsets = boxes - np.stack([x, 0 * x, x, 0 * x], axis=1)
    prob = np.stack([np.zeros(num), scores])
    return f32(prob)[None, :, None], offsets.T[None, :, None].copy(), f32([[*size, scale]])


def scene(seed, images=2, anchors=4, height=5, width=7, ties=False, special=False, log=True):
    """Maps with a stride of 16. Without ``log``, all logarithms of ratios are 0."""
    rng = np.random.default_rng(seed)
    prob = rng.random((images, 2 * anchors, height, width), np.float32)
    offsets = rng.normal(size=(images, anchors, 4, height, width)) * 0.5
    if not log:
        offsets[:, :, 2:] = 0
    if ties:
        prob, offsets = np.round(prob * 8) / 8, np.round(offsets * 4) / 4
    if special:
        for x in (prob, offsets):
            x[rng.random(x.shape) < 0.03] = rng.choice([NAN, INF, -INF, -0.0, -1, 100])
    info = rng.uniform([0.5, 0.5, 0.5], [1, 1, 2], (images, 3)) * [16 * height, 16 * width, 1]
    offsets = offsets.reshape(images, 4 * anchors, height, width)
    return f32(prob), f32(offsets), f32(info)


#: Options for ``scene``, which has four anchors.
OPTIONS = [
    {},
    dict(rpn_pre_nms_top_n=30, rpn_post_nms_top_n=9),
    dict(rpn_pre_nms_top_n=-1, rpn_post_nms_top_n=200, threshold=0.9),
    dict(threshold=0.0, rpn_min_size=0, rpn_post_nms_top_n=11),
    dict(threshold=-1, rpn_post_nms_top_n=3),
    dict(threshold=1, rpn_min_size=40),
    dict(iou_loss=True, rpn_min_size=-3),
    dict(feature_stride=9, rpn_min_size=7, threshold=0.3),
]
SHAPES = dict(scales=(1.5, 4), ratios=(0.5, 2))


def options_of(options):
    return {"output_score": True, "rpn_post_nms_top_n": 40, **SHAPES, **options}


def assert_same(results, expected):
    for got, want in zip(results, expected):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_base_anchors_are_those_of_faster_rcnn(run):
    prob, info = np.zeros((1, 18, 60, 61), np.float32), f32([[960, 976, 1]])
    prob[0, 9:, 30, 31] = np.linspace(0.9, 0.1, 9)
    offsets = np.zeros((1, 36, 60, 61), np.float32)
    options = dict(scales=(8, 16, 32), ratios=(0.5, 1, 2), threshold=1, rpn_post_nms_top_n=9)
    out = run(proposal, prob, offsets, info, **options)
    published = [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
    x, y = 31 * 16, 30 * 16
    np.testing.assert_array_equal(out[:, 1:], np.add(published, [x, y, x, y]))
    assert (out[:, 0] == 0).all()


def test_offsets_move_the_center_and_scale_the_sides(run):
    # An anchor of 4 x 4 pixels at (0, 0) has its center at 1.5. Its box is 8 x 2 pixels around
    # (1.5 + 5 * 4, 1.5 + 2 * 4).
    offsets = f32([5, 2, np.log(2), np.log(0.5)]).reshape(1, 4, 1, 1)
    options = dict(scales=(1,), ratios=(1,), feature_stride=4, rpn_min_size=1)
    out = run(
        proposal, f32([0, 0.5]).reshape(1, 2, 1, 1), offsets, f32([[40, 40, 1]]),
        rpn_post_nms_top_n=1, **options,
    )  # fmt: skip
    np.testing.assert_allclose(out, [[0, 18, 9, 25, 10]], rtol=1e-6)


def test_suppression_counts_both_corners(run):
    # 10 x 10 and 10 x 5 pixels: the IoU is 50 / 100.
    boxes = [[0, 0, 9, 9], [0, 0, 9, 4], [10, 0, 19, 9]]
    for threshold, want in ((0.5, [0, 1, 2]), (0.49, [0, 2, 0])):
        out = run(
            proposal, *of_boxes(boxes, [0.9, 0.8, 0.7]), threshold=threshold,
            rpn_post_nms_top_n=3, **PIXELS,
        )  # fmt: skip
        np.testing.assert_array_equal(out[:, 1:], f32(boxes)[want])
    # Boxes with one pixel in common: the IoU is 1 / 199.
    boxes = [[0, 0, 9, 9], [9, 9, 18, 18], [10, 10, 19, 19]]
    out = run(
        proposal, *of_boxes(boxes, [0.9, 0.8, 0.7]), threshold=0.005, rpn_post_nms_top_n=2, **PIXELS
    )
    np.testing.assert_array_equal(out[:, 1:], f32(boxes)[[0, 2]])


def test_wide_box_at_the_origin_suppresses_the_boxes_inside_only(run):
    # Most boxes outside are near the wide one in a grid, which has no more boxes after them.
    inside, outside = 6 * np.arange(50), 301 + 59 * np.arange(149) % 149
    left, right = np.r_[310, 0, inside, outside], np.r_[310, 299, inside, outside]
    boxes = np.stack([left, 0 * left, right, 0 * left], axis=1)
    count = len(boxes)
    inputs = of_boxes(boxes, np.linspace(1, 0.1, count), size=(1, 1000))
    rows = run(proposal, *inputs, count, count, threshold=0.002, **PIXELS)
    kept = np.r_[boxes[:2], boxes[52:][outside != 310]]
    np.testing.assert_array_equal(rows[: len(kept), 1:], kept)
    np.testing.assert_array_equal(rows[len(kept), 1:], kept[0])


def test_short_result_repeats_its_rows(run):
    boxes = [[0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 9]]
    out, score = run(
        proposal, *of_boxes(boxes, [0.25, 0.75, 0.125]), rpn_post_nms_top_n=5, output_score=True,
        **PIXELS,
    )  # fmt: skip
    np.testing.assert_array_equal(out[:, 1:], f32(boxes)[[1, 0, 1, 0, 1]])
    np.testing.assert_array_equal(score, f32([[0.75], [0.25], [0.75], [0.25], [0.75]]))


def test_boxes_are_clipped_and_small_ones_grow(run):
    # The minimum side is 3 * 2 = 6 pixels. Boxes of 5 pixels grow by 3 pixels on each side.
    boxes = [[-5, 10, 30, 45], [10, 10, 14, 29], [20, 20, 25, 25]]
    out, score = run(
        proposal, *of_boxes(boxes, [0.5, 0.9, 0.7], (40, 25), 2), output_score=True,
        rpn_post_nms_top_n=3, **{**PIXELS, "rpn_min_size": 3},
    )  # fmt: skip
    want = [[0, 10, 24, 39], [7, 7, 17, 32], [17, 17, 27, 28]]
    np.testing.assert_array_equal(out[:, 1:], want)
    np.testing.assert_array_equal(score[:, 0], f32([0.5, -1, -1]))


def test_cells_beyond_the_image_have_the_lowest_score(run):
    # The image has int(2.75) columns.
    boxes = [[i, 0, i, 0] for i in range(4)]
    out, score = run(
        proposal, *of_boxes(boxes, [0.1, 0.2, 0.3, 0.4], (1, 2.75)), output_score=True,
        rpn_post_nms_top_n=4, threshold=2, **PIXELS,
    )  # fmt: skip
    np.testing.assert_array_equal(score[:, 0], f32([0.2, 0.1, -1, -1]))
    np.testing.assert_array_equal(out[:, 1], f32([1, 0, 1.75, 1.75]))


def test_equal_scores_are_in_order_of_rows_columns_and_anchors(run):
    prob, info = np.full((1, 4, 2, 3), 0.5, np.float32), f32([[2, 3, 1]])
    offsets = np.zeros((1, 8, 2, 3), np.float32)
    offsets[0, 4:] = 1 / 4  # the second anchor
    options = {**PIXELS, "scales": (1, 1), "threshold": 2}
    out = run(proposal, prob, offsets, info, rpn_post_nms_top_n=12, **options)
    y, x, anchor = np.unravel_index(np.arange(12), (2, 3, 2))
    want = np.stack([x, y], axis=1) + anchor[:, None] / 4
    np.testing.assert_array_equal(out[:, 1:3], np.minimum(want, [2, 1]))


def test_nan_score_is_the_lowest_and_its_sign_of_zero_stays(run):
    boxes = [[20 * i, 0, 20 * i + 9, 9] for i in range(5)]
    scores = f32([NAN, -0.0, -2, 0, -INF])
    out, score = run(
        proposal, *of_boxes(boxes, scores), output_score=True, rpn_post_nms_top_n=5, **PIXELS
    )
    order = [1, 3, 2, 0, 4]
    np.testing.assert_array_equal(out[:, 1], np.minimum(20 * f32(order), 99))
    np.testing.assert_array_equal(score[:, 0], scores[order])
    assert np.signbit(score[:2, 0]).tolist() == [True, False]


def test_box_with_nan_neither_suppresses_nor_is_suppressed(run):
    boxes = [[0, 0, 9, 9], [0, NAN, 9, 9], [0, 0, 9, 9]]
    out = run(
        proposal, *of_boxes(boxes, [0.8, 0.9, 0.7]), threshold=0, rpn_post_nms_top_n=3, **PIXELS
    )
    np.testing.assert_array_equal(out[:, 1:], f32(boxes)[[1, 0, 1]])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (3, 4, 70)])
def test_random_maps_have_the_bits_of_the_reference(run_other, shape, options):
    images, height, width = shape
    for seed, (ties, special) in enumerate(((False, False), (True, False), (True, True))):
        arrays = scene(seed, images, 4, height, width, ties, special)
        want = multi_proposal(*arrays, **options_of(options), backend="numpy")
        assert_same(run_other(multi_proposal, *arrays, **options_of(options)), want)


def test_proposal_equals_multi_proposal_of_one_image(run):
    arrays = scene(3, 2)
    out = run(multi_proposal, *arrays, **SHAPES, rpn_post_nms_top_n=30)
    for i in range(2):
        one = run(proposal, *(x[i : i + 1] for x in arrays), **SHAPES, rpn_post_nms_top_n=30)
        np.testing.assert_array_equal(one[:, 1:], out[30 * i : 30 * i + 30, 1:])
        assert (one[:, 0] == 0).all()
        assert (out[30 * i : 30 * i + 30, 0] == i).all()


def test_several_chunks_have_the_bits_of_the_reference(run_other):
    """More candidates than a chunk of the suppression and a tile of the sort: 4 x 20 x 30."""
    arrays = scene(4, 1, 4, 20, 30)
    for threshold in (0.5, 0.95):
        options = options_of(dict(threshold=threshold, rpn_post_nms_top_n=1500))
        want = proposal(*arrays, **options, backend="numpy")
        assert_same(run_other(proposal, *arrays, **options), want)


def test_threads_and_vectors_do_not_change_a_bit(cpu_variants):
    for images in (1, 3):
        arrays = scene(5, images, 4, 30, 41, special=True)
        options = options_of(dict(rpn_post_nms_top_n=300, threshold=0.8))
        want = multi_proposal(*arrays, **options, backend="numpy")
        call = partial(multi_proposal, *arrays, **options, backend="native")
        for results in cpu_variants(call):
            assert_same(results, want)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), ties=st.booleans(), one=st.booleans())
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("options", OPTIONS)
def test_results_equal_mxnet_without_exp(mx, backend, options, seed, ties, one):
    options = {**options, "feature_stride": 16}  # MXNet refuses a smaller feature map
    arrays = scene(seed, 1 if one else 2, ties=ties, log=False)
    ours, theirs = (proposal, "Proposal") if one else (multi_proposal, "MultiProposal")
    want = getattr(mx.nd.contrib, theirs)(*map(mx.nd.array, arrays), **options_of(options))
    results = ours(*arrays, **options_of(options), backend=backend)
    assert_same(results, [x.asnumpy() for x in want])


def test_results_are_close_to_those_of_mxnet_with_exp(mx):
    arrays = scene(6, 2, 12, 20, 30)
    options = dict(output_score=True, rpn_min_size=8)
    want = mx.nd.contrib.MultiProposal(*map(mx.nd.array, arrays), **options)
    out, score = multi_proposal(*arrays, **options)
    np.testing.assert_array_equal(score, want[1].asnumpy())
    np.testing.assert_allclose(out, want[0].asnumpy(), rtol=2e-6, atol=1e-4)


@pytest.mark.slow
def test_sanitizers_find_no_error(run_sanitized_small):
    arrays = scene(7, 2, 4, 9, 11, special=True)
    options = options_of(dict(rpn_post_nms_top_n=300, threshold=0.9))
    want = multi_proposal(*arrays, **options, backend="numpy")
    assert_same(run_sanitized_small(multi_proposal, *arrays, **options), want)


def test_batch_without_images_gives_no_rows(run):
    out, score = run(multi_proposal, *scene(0, 0), **options_of({}))
    assert out.shape == (0, 5)
    assert score.shape == (0, 1)


VALID = dict(zip(("cls_prob", "bbox_pred", "im_info"), scene(0, 1)), **SHAPES)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"im_info": VALID["im_info"][:, :2]}, ValueError, r"im_info: .*\(B, 3\), got \(1, 2\)"),
        (
            {"im_info": np.zeros((2, 3), np.float32)},
            ValueError,
            r"im_info: expected shape \(B, 3\) with B = 1 as in cls_prob, got \(2, 3\)",
        ),
        ({"bbox_pred": VALID["bbox_pred"][:, 1:]}, ValueError, r"bbox_pred: expected 4 \* 4 "),
        ({"bbox_pred": VALID["bbox_pred"][..., 1:]}, ValueError, "bbox_pred: .* W = 7 as in"),
        ({"cls_prob": VALID["cls_prob"][:, 1:]}, ValueError, r"cls_prob: expected 2 \* 4 channels"),
        ({"scales": (1, 2, 3)}, ValueError, r"cls_prob: expected 2 \* 6 channels for 3 scales"),
        ({"scales": range(1, 70)}, ValueError, "scales: expected at most 128 anchors .*got 138"),
        ({"scales": ()}, ValueError, "scales: expected one number or more"),
        ({"ratios": (1, NAN)}, ValueError, "ratios: expected a number, got nan"),
        ({"threshold": NAN}, ValueError, "threshold: expected a number, got nan"),
        ({"rpn_pre_nms_top_n": 1.5}, TypeError, "rpn_pre_nms_top_n: expected an integer, got 1.5"),
        ({"rpn_post_nms_top_n": 0}, ValueError, r"rpn_post_nms_top_n: expected an integer in \[1"),
        ({"feature_stride": 0}, ValueError, r"feature_stride: expected an integer in \[1"),
        ({"feature_stride": 2**30}, ValueError, r"feature_stride: expected fewer than 2\*\*31 "),
        ({"rpn_min_size": "a"}, TypeError, "rpn_min_size: expected an integer, got 'a'"),
        ({"output_score": 2}, ValueError, "output_score: expected True or False, got 2"),
        ({"cls_prob": VALID["cls_prob"].astype("f8")}, TypeError, "cls_prob: expected float32"),
    ],
)
def test_bad_argument_is_refused_by_name(change, error, message):
    for op in (proposal, multi_proposal):
        with pytest.raises(error, match=message):
            op(**{**VALID, **change})


def test_several_images_or_no_cells_are_refused():
    with pytest.raises(ValueError, match=r"cls_prob: expected one image, got shape \(2, "):
        proposal(*scene(0, 2), **SHAPES)
    with pytest.raises(ValueError, match=r"cls_prob: expected a cell or more, .*\(1, 8, 0, 7\)"):
        proposal(*scene(0, 1, height=0), **SHAPES)
    with pytest.raises(ValueError, match=r"rpn_post_nms_top_n: expected fewer than 2\*\*31 rows"):
        multi_proposal(*scene(0, 2), **SHAPES, rpn_post_nms_top_n=2**30)
