"""float64, float16 and bfloat16 in the ops that take them."""

import cases
import numpy as np
import pytest

import cvops
from cvops.ops._op import FLOATS

ml_dtypes = pytest.importorskip("ml_dtypes")
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def call_of(name, dtype):
    """The small call of an op, with its float32 arrays in another dtype."""
    args, options = cases.CALLS[name]
    return tuple(converted(x, dtype) for x in args), options


def converted(x, dtype):
    is_float = isinstance(x, np.ndarray) and x.dtype == np.float32
    return x.astype(dtype) if is_float else x


def results(found):
    return found if isinstance(found, tuple) else (found,)


def assert_same_bits(found, expected):
    for x, y in zip(results(found), results(expected), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        np.testing.assert_array_equal(x.view(f"u{x.itemsize}"), y.view(f"u{y.itemsize}"))


def boxes(rng, *shape, dtype=np.float64):
    """Boxes of which some are inverted, without area, or have NaN and infinities."""
    low = rng.random((*shape, 2)) * 4
    b = np.concatenate([low, low + rng.random((*shape, 2)) * 2 - 0.3], axis=-1)
    b[..., ::7, :] = np.round(b[..., ::7, :])
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 1e300, 1e-60, 2.0**-149]
    odd = rng.random(b.shape) < 0.01
    b[odd] = rng.choice(special, odd.sum())
    return b.astype(dtype)


def test_the_list_of_ops_is_complete():
    named = [
        name
        for name in cases.CALLS
        if "float32, float64 or half" in (getattr(cvops, name).__doc__ or "")
    ]
    assert named == cases.ANY_FLOAT


@pytest.mark.parametrize("name", cases.ANY_FLOAT)
def test_float64_results_equal_the_reference(run_any_steps, name):
    args, options = call_of(name, np.float64)
    rng = np.random.default_rng(0)
    # More bits than a float32 has.
    args = tuple(
        x * (1 + 1e-9 * rng.random(x.shape)) if getattr(x, "dtype", None) == np.float64 else x
        for x in args
    )
    op = getattr(cvops, name)
    assert_same_bits(run_any_steps(op, *args, **options), op(*args, **options, backend="numpy"))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", cases.ANY_FLOAT)
def test_half_results_are_those_of_float32_rounded_once(run, name, dtype):
    half = HALVES[dtype]
    args, options = call_of(name, half)
    singles = tuple(x.astype(np.float32) if getattr(x, "dtype", None) == half else x for x in args)
    op = getattr(cvops, name)
    expected = results(op(*singles, **options, backend="numpy"))
    expected = tuple(y.astype(half) if y.dtype == np.float32 else y for y in expected)
    assert_same_bits(run(op, *args, **options), expected)


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_float64_iou_of_unusual_boxes_equals_the_reference(run, kind, format):
    rng = np.random.default_rng(1)
    lhs, rhs = boxes(rng, 70), boxes(rng, 43)
    out_grad = rng.standard_normal((70, 43))
    for op, args in ((cvops.box_iou, (lhs, rhs)), (cvops.box_iou_backward, (out_grad, lhs, rhs))):
        expected = op(*args, format, kind, backend="numpy")
        found = run(op, *args, format=format, kind=kind)
        for x, y in zip(results(found), results(expected), strict=True):
            np.testing.assert_array_equal(x, y)


NMS = {
    "defaults": {},
    "classes": {"id_index": 0, "overlap_thresh": 0.3},
    "topk": {"topk": 41, "in_format": "center"},
    "converted": {"in_format": "center", "out_format": "corner", "overlap_thresh": 0.1},
    "zero": {"overlap_thresh": 0},
    "negative": {"overlap_thresh": -0.1, "id_index": 0},
    "copy": {"topk": 0},
}


#: Sets of several chunks take long in the emulator: two options are enough.
NMS_CASES = [(num, key) for num in (1, 300) for key in NMS] + [(1100, "classes"), (1100, "topk")]


@pytest.mark.parametrize(("num", "key"), NMS_CASES)
def test_float64_nms_equals_the_reference(run_any_steps, num, key):
    options = NMS[key]
    rng = np.random.default_rng(num)
    # Scores that differ in their last bits only, equal ones, and NaN.
    scores = 0.5 + rng.integers(0, num, (2, num, 1)) * 2.0**-52
    scores[:, ::5] = rng.choice([0.5, -0.0, 0.0, np.nan, np.inf], scores[:, ::5].shape)
    data = np.concatenate([rng.integers(0, 3, (2, num, 1)), scores, boxes(rng, 2, num)], axis=-1)
    out, index = run_any_steps(cvops.box_nms, data, return_index=True, **options)
    want, want_index = cvops.box_nms(data, return_index=True, backend="numpy", **options)
    np.testing.assert_array_equal(index, want_index)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize(
    "options", [{}, {"topk": 33, "background_id": 1}, {"post_nms": 7, "force_suppress": True}]
)
def test_float64_nms_of_classes_equals_the_reference(run_any_steps, options):
    rng = np.random.default_rng(3)
    scores = 0.5 + rng.integers(0, 999, (2, 3, 150)) * 2.0**-53
    args = boxes(rng, 2, 150), scores
    found = run_any_steps(cvops.multiclass_nms, *args, **options)
    for x, y in zip(found, cvops.multiclass_nms(*args, backend="numpy", **options), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_float64_score_decides_where_float32_has_a_tie(run):
    rows = np.array([[0, 1, 0, 0, 2, 2], [0, 1 + 1e-12, 0, 0, 2, 2.1]])
    out = run(cvops.box_nms, rows)
    assert out[0, 1] == 1 + 1e-12
    assert out[1, 0] == -1


def test_boxes_of_65504_pixels_in_float16_have_a_finite_area(run):
    side = np.float16(65504)
    lhs = np.array([[0, 0, side, side]], np.float16)
    rhs = np.array([[0, 0, side, side / np.float16(2)]], np.float16)
    np.testing.assert_array_equal(run(cvops.box_iou, lhs, rhs), np.float16([[0.5]]))


@pytest.mark.parametrize("name", cases.ANY_FLOAT)
def test_integers_are_refused_with_a_cast(run, name):
    args, options = call_of(name, np.int64)
    with pytest.raises(TypeError, match="expected float32, float64, float16 or bfloat16") as error:
        run(getattr(cvops, name), *args, **options)
    assert 'int64: convert it by .astype("float32")' in str(error.value)


def test_arrays_of_two_dtypes_are_refused(run):
    lhs, rhs = np.zeros((1, 4)), np.zeros((1, 4), np.float32)
    with pytest.raises(TypeError, match=r"rhs: expected float64 as lhs, got float32: convert it"):
        run(cvops.box_iou, lhs, rhs)


def test_default_arrays_of_numpy_need_no_cast():
    np.testing.assert_array_equal(cvops.box_iou(np.ones((1, 4)), np.ones((1, 4))), [[0.0]])


# MXNet's operators compute float64 by their rules for float32, except for options, which are
# float32, and for exp and log.


@pytest.mark.parametrize("format", ["corner", "center"])
def test_float64_iou_has_the_bits_of_mxnet(mx, format):
    rng = np.random.default_rng(4)
    lhs, rhs = boxes(rng, 50), boxes(rng, 60)
    expected = mx.nd.contrib.box_iou(
        mx.nd.array(lhs, dtype="float64"), mx.nd.array(rhs, dtype="float64"), format=format
    )
    np.testing.assert_array_equal(cvops.box_iou(lhs, rhs, format), expected.asnumpy())


@pytest.mark.parametrize("options", [NMS["defaults"], NMS["classes"], NMS["topk"]])
def test_float64_nms_has_the_bits_of_mxnet(mx, options):
    rng = np.random.default_rng(5)
    scores = 0.5 + rng.permutation(400)[:, None] * 2.0**-52
    low = rng.random((400, 2)) * 4
    data = np.concatenate([rng.integers(0, 3, (400, 1)), scores, low, low + 1], axis=1)
    expected = mx.nd.contrib.box_nms(mx.nd.array(data, dtype="float64"), **options)
    np.testing.assert_array_equal(cvops.box_nms(data, **options), expected.asnumpy())


def test_float64_roi_pooling_has_the_bits_of_mxnet(mx):
    rng = np.random.default_rng(6)
    data = rng.standard_normal((2, 3, 17, 19))
    rois = np.concatenate([rng.integers(0, 2, (20, 1)), boxes(rng, 20) * 8], axis=1)
    rois[~np.isfinite(rois) | (abs(rois) > 1e6)] = 3
    x, r = (mx.nd.array(a, dtype="float64") for a in (data, rois))
    x.attach_grad()
    with mx.autograd.record():
        expected = mx.nd.ROIPooling(x, r, pooled_size=(3, 5), spatial_scale=0.4)
    expected.backward(expected)
    out, argmax = cvops.roi_pooling(data, rois, (3, 5), 0.4, return_argmax=True)
    np.testing.assert_array_equal(out, expected.asnumpy())
    grad = cvops.roi_pooling_backward(out, argmax, data.shape)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


@pytest.mark.parametrize("sample_ratio", [-1, 2])
def test_float64_roi_align_has_the_bits_of_mxnet(mx, sample_ratio):
    rng = np.random.default_rng(7)
    data = rng.standard_normal((2, 3, 17, 19))
    low = rng.random((20, 2)) * 20
    rois = np.concatenate([rng.integers(0, 2, (20, 1)), low, low + rng.random((20, 2)) * 30], 1)
    x, r = (mx.nd.array(a, dtype="float64") for a in (data, rois))
    x.attach_grad()
    with mx.autograd.record():
        expected = mx.nd.contrib.ROIAlign(
            x, r, pooled_size=(3, 5), spatial_scale=0.4, sample_ratio=sample_ratio
        )
    expected.backward(expected)
    out = cvops.roi_align(data, rois, (3, 5), 0.4, sample_ratio)
    np.testing.assert_array_equal(out, expected.asnumpy())
    grad = cvops.roi_align_backward(out, rois, data.shape, 0.4, sample_ratio)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


def test_float64_decode_and_encode_are_close_to_mxnet(mx):
    args, options = call_of("box_decode", np.float64)
    expected = mx.nd.contrib.box_decode(*(mx.nd.array(x, dtype="float64") for x in args), **options)
    found = cvops.box_decode(*args, **options)
    np.testing.assert_allclose(found, expected.asnumpy(), rtol=1e-14, atol=1e-13)
    args, _ = call_of("box_encode", np.float64)
    expected = mx.nd.contrib.box_encode(*(mx.nd.array(x, dtype="float64") for x in args))
    for x, y in zip(cvops.box_encode(*args), expected, strict=True):
        np.testing.assert_allclose(x, y.asnumpy(), rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("bits", [16, 32])
def test_conversion_of_halves_equals_numpy(bits):
    # The public functions convert by the array's library; the operators of frameworks convert by
    # the functions of kernels/half.cuh.
    native = pytest.importorskip("cvops._native").cpu
    rng = np.random.default_rng(8)
    for half, is_bfloat16 in ((np.float16, False), (ml_dtypes.bfloat16, True)):
        if bits == 16:
            every = np.arange(2**16, dtype=np.uint16)
            found = np.empty(2**16, np.float32)
            native.half_to_float(found, every, is_bfloat16)
            np.testing.assert_array_equal(found, every.view(half).astype(np.float32))
            continue
        some = rng.integers(0, 2**32, 1 << 20, dtype=np.uint32).view(np.float32)
        exponents = np.ldexp(rng.standard_normal(1 << 18), rng.integers(-30, 20, 1 << 18))
        some = np.concatenate([some, exponents.astype(np.float32)])
        found = np.empty(len(some), np.uint16)
        native.float_to_half(found, some, is_bfloat16)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = some.astype(half)
        np.testing.assert_array_equal(found.view(half).astype("f"), expected.astype("f"))


def test_the_dtypes_are_named_in_the_order_of_the_errors():
    assert FLOATS == ("float32", "float64", "float16", "bfloat16")
