from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_iou_backward
from cvops.ops.box_iou import _angle

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -1.0]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def random_boxes(rng, num, ties=False, special=0.0):
    b = rng.random((num, 4), np.float32) * 4
    b[:, 2:] += b[:, :2] - np.float32(0.5)  # some are inverted
    b = np.round(b) if ties else b
    b[rng.random(b.shape) < special] = rng.choice(SPECIAL)
    return b


@pytest.mark.parametrize(
    ("lhs", "rhs", "expected"),
    [
        (boxes((0, 0, 8, 8)), boxes((3, 5, 10, 12)), [[15 / (64 + 49 - 15)]]),
        (boxes((0, 0, 8, 8)), boxes((0, 0, 8, 8)), [[1]]),
        (boxes((0, 0, 8, 8)), boxes((8, 0, 9, 8)), [[0]]),
        (boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1)), [[0]]),
        (boxes((0, 0, np.inf, np.inf)), boxes((0, 0, 1, 1)), [[0]]),
        (boxes((np.nan, 0, 1, 1)), boxes((0, 0, 1, 1)), [[np.nan]]),
        (boxes((0, 0, 1, 1)), boxes((np.nan, 0, 1, 1)), [[0]]),
        (boxes(), boxes((0, 0, 1, 1)), np.zeros((0, 1))),
        (boxes((0, 0, 1, 1)), boxes(), np.zeros((1, 0))),
    ],
    ids=[
        "overlap",
        "equal",
        "touching",
        "no area",
        "infinite",
        "NaN left",
        "NaN right",
        "no lhs",
        "no rhs",
    ],
)
def test_iou_by_hand(run, lhs, rhs, expected):
    np.testing.assert_array_equal(run(box_iou, lhs, rhs), np.float32(expected))


def test_center_format_by_hand(run):
    # The corners are (0, 0, 4, 4) and (2, 2, 6, 4). The intersection is 2 x 2.
    out = run(box_iou, boxes((2, 2, 4, 4)), boxes((4, 3, 4, 2)), format="center")
    np.testing.assert_array_equal(out, np.float32([[4 / (16 + 8 - 4)]]))


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize(("num_lhs", "num_rhs"), [(1, 1), (7, 300), (1000, 17), (3, 2), (257, 64)])
def test_results_equal_the_reference(run, num_lhs, num_rhs, format):
    rng = np.random.default_rng(num_lhs)
    for ties, special in ((False, 0.0), (True, 0.0), (True, 0.1)):
        lhs = random_boxes(rng, num_lhs, ties, special)
        rhs = random_boxes(rng, num_rhs, ties, special)
        expected = box_iou(lhs, rhs, format, backend="numpy")
        np.testing.assert_array_equal(run(box_iou, lhs, rhs, format=format), expected)


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize("num_rhs", [1, 2, 7, 8, 9, 63, 65, 1023, 1024, 1025, 2049])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num_rhs, format):
    # The last vector of a row extends over the next row. A task has about 16384 pairs.
    rng = np.random.default_rng(num_rhs)
    for num_lhs in (1, 5, 33, 16384 // num_rhs + 9):
        lhs, rhs = (random_boxes(rng, num, special=0.02) for num in (num_lhs, num_rhs))
        expected = box_iou(lhs, rhs, format, backend="numpy")
        for out in cpu_variants(partial(box_iou, lhs, rhs, format, backend="native")):
            np.testing.assert_array_equal(out, expected)


def test_output_has_the_leading_axes_of_both_inputs(run):
    rng = np.random.default_rng(0)
    lhs, rhs = random_boxes(rng, 6).reshape(2, 3, 4), random_boxes(rng, 5).reshape(5, 1, 4)
    out = run(box_iou, lhs, rhs)
    assert out.shape == (2, 3, 5, 1)
    np.testing.assert_array_equal(
        out.reshape(6, 5), box_iou(lhs.reshape(-1, 4), rhs.reshape(-1, 4), backend="numpy")
    )


def test_iou_is_symmetric_to_the_last_bit(run):
    b = random_boxes(np.random.default_rng(1), 200)
    iou = run(box_iou, b, b)
    np.testing.assert_array_equal(iou, iou.T)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), ties=st.booleans(), special=st.sampled_from([0.0, 0.05, 0.3]))
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("format", ["corner", "center"])
def test_results_equal_mxnet(mx, backend, format, seed, ties, special):
    rng = np.random.default_rng(seed)
    lhs = random_boxes(rng, rng.integers(1, 40), ties, special)
    rhs = random_boxes(rng, rng.integers(1, 40), ties, special)
    theirs = mx.nd.contrib.box_iou(mx.nd.array(lhs), mx.nd.array(rhs), format=format).asnumpy()
    np.testing.assert_array_equal(box_iou(lhs, rhs, format, backend=backend), theirs)


@pytest.mark.parametrize("num", [1, 3, 4, 97, 300])
@pytest.mark.parametrize("grid", [(1, 1), (3, 2)])
def test_kernel_on_another_grid_gives_equal_bits(monkeypatch, grid, num):
    def on_another_grid(launch):
        return launch._replace(grid=grid, block=(32,))

    monkeypatch.setattr(backends, "on_launch", on_another_grid)
    rng = np.random.default_rng(num)
    lhs, rhs = random_boxes(rng, 23), random_boxes(rng, num)
    out = box_iou(lhs, rhs, backend="emulated")
    np.testing.assert_array_equal(out, box_iou(lhs, rhs, backend="numpy"))


def test_sanitizers_find_no_error(run_sanitized):
    rng = np.random.default_rng(2)
    lhs, rhs = random_boxes(rng, 13), random_boxes(rng, 7)
    out = run_sanitized(box_iou, lhs, rhs)
    np.testing.assert_array_equal(out, box_iou(lhs, rhs, backend="numpy"))


@pytest.mark.parametrize(
    ("lhs", "options", "error", "message"),
    [
        (
            np.zeros(4, np.float32),
            {},
            ValueError,
            r"lhs: expected shape \(\.\.\., N, 4\), got \(4,\)",
        ),
        (np.zeros((3, 5), np.float32), {}, ValueError, r"lhs: .* got \(3, 5\)"),
        (np.zeros((3, 4), "i4"), {}, TypeError, "lhs: expected float32, float64, .* got int32"),
        (np.zeros((3, 4), ">f4"), {}, TypeError, "lhs: expected float32, float64, .* got >f4"),
        (boxes(), {"format": "corners"}, ValueError, r"format: expected one of .*, got 'corners'"),
        (boxes(), {"kind": "IoU"}, ValueError, r"kind: expected one of .*'ciou'\], got 'IoU'"),
        ([[0, 0, 1, 1]], {}, TypeError, "lhs: expected an array .*, got list"),
        (
            np.broadcast_to(np.float32(0), (2**31, 4)),
            {},
            ValueError,
            "lhs: expected fewer than 2.31 boxes",
        ),
    ],
    ids=["one axis", "five columns", "int32", "byte order", "format", "kind", "list", "too many"],
)
def test_bad_arguments_are_refused(lhs, options, error, message):
    with pytest.raises(error, match=message):
        box_iou(lhs, boxes((0, 0, 1, 1)), **options)


KINDS = ["iou", "giou", "diou", "ciou"]
A, B, C = boxes((0, 0, 4, 2)), boxes((2, 0, 6, 2)), boxes((6, 3, 7, 5))


class TestKindsByHand:
    # A and B: the intersection has 4 of 12, the hull is covered, and the centers are 2 apart. The
    # squared diagonal is 6 * 6 + 2 * 2. A and C: the hull is 7 x 5, the areas are 8 and 2, and the
    # centers (2, 1) and (6.5, 4) have the squared distance 29.25.
    angle = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    examples = {
        "giou, hull covered": ("giou", A, B, 1 / 3),
        "giou, apart": ("giou", A, C, -25 / 35),
        "diou": ("diou", A, B, 1 / 3 - 4 / 40),
        "diou, apart": ("diou", A, C, -29.25 / 74),
        "ciou, equal shapes": ("ciou", A, B, 1 / 3 - 4 / 40),
        "ciou": ("ciou", A, C, -29.25 / 74 - angle**2 / (1 + angle)),
        **{f"{kind}, equal boxes": (kind, A, A, 1) for kind in KINDS},
        **{
            f"{kind}, points": (kind, boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1)), 0) for kind in KINDS
        },
    }

    @pytest.mark.parametrize(("kind", "lhs", "rhs", "expected"), examples.values(), ids=examples)
    def test_value_by_hand(self, run, kind, lhs, rhs, expected):
        out = run(box_iou, lhs, rhs, kind=kind)
        np.testing.assert_allclose(out, [[expected]], rtol=1e-6, atol=1e-7)

    def test_center_format_gives_the_values_of_the_corners(self, run):
        lhs, rhs = boxes((2, 1, 4, 2)), boxes((4, 1, 4, 2), (6.5, 4, 1, 2))
        for kind in KINDS:
            out = run(box_iou, lhs, rhs, format="center", kind=kind)
            want = box_iou(A, np.concatenate([B, C]), kind=kind)
            np.testing.assert_allclose(out, want, rtol=1e-6)

    def test_gradient_of_an_iou_by_hand(self, run):
        # The IoU is i / (16 - i) with i = 2 * (4 - x1 of B): it changes by -2 * 16 / 12**2.
        # The lower and upper edges are equal, so each box has a half of the change by both areas.
        lhs_grad, rhs_grad = run(box_iou_backward, np.ones((1, 1), np.float32), A, B)
        by_edge, by_area = 2 * 16 / 144, 4 / 144
        half = 16 / 144  # of the change by a lower or upper edge
        want = [2 * by_area, -half + 4 * by_area, by_edge - 2 * by_area, half - 4 * by_area]
        np.testing.assert_allclose(lhs_grad, [want], rtol=1e-6)
        want = [-by_edge + 2 * by_area, -half + 4 * by_area, -2 * by_area, half - 4 * by_area]
        np.testing.assert_allclose(rhs_grad, [want], rtol=1e-6)

    def test_iou_of_boxes_apart_has_no_gradient_and_giou_has_one(self, run):
        one = np.ones((1, 1), np.float32)
        assert not any(x.any() for x in run(box_iou_backward, one, A, C))
        # GIoU is 10 / h - 1 with the hull h = 7 * 5. The hull ends at the right side of C.
        lhs_grad, rhs_grad = run(box_iou_backward, one, A, C, kind="giou")
        np.testing.assert_allclose(rhs_grad[0, 2], 2 / 35 - 10 * 5 / 35**2, rtol=1e-6)
        np.testing.assert_allclose(lhs_grad[0, 2], 2 / 35, rtol=1e-6)

    def test_pairs_are_added_in_128_partial_sums(self, run):
        # 1e8 + 1 is 1e8 in float32. The pairs 0, 128 and 256 have one sum: its order matters.
        out_grad = np.zeros((1, 257), np.float32)
        for values, want in (([1e8, 1, -1e8], 0), ([1e8, -1e8, 1], 1)):
            out_grad[0, ::128] = values
            for one_side in (False, True):
                lhs, rhs = A, np.repeat(B, 257, axis=0)
                args = (out_grad.T.copy(), rhs, lhs) if one_side else (out_grad, lhs, rhs)
                grad = run(box_iou_backward, *args)[1 if one_side else 0]
                unit = run(box_iou_backward, np.ones((1, 1), np.float32), A, B)[0]
                np.testing.assert_array_equal(grad[0, 0] != 0, want)
                np.testing.assert_allclose(grad, want * unit, rtol=1e-6)
        # A sum of its own has the pair 1.
        out_grad[:] = 0
        out_grad[0, [0, 1, 128]] = 1e8, 1, -1e8
        grad = run(box_iou_backward, out_grad, A, np.repeat(B, 257, axis=0))[0]
        unit = run(box_iou_backward, np.ones((1, 1), np.float32), A, B)[0]
        np.testing.assert_array_equal(grad, unit)


def reference_of_kind(torch, lhs, rhs, format, kind):
    """The formulas of torchvision for boxes in float64, as a tensor (N, M)."""
    a, b = lhs[:, None], rhs[None]
    if format == "center":
        a, b = (torch.cat([x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2], -1)
                for x in (a, b))  # fmt: skip
    (aw, ah), (bw, bh) = ((x[..., 2:] - x[..., :2]).unbind(-1) for x in (a, b))
    w, h = (
        (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2]))
        .clamp(min=0)
        .unbind(-1)
    )
    union = aw * ah + bw * bh - w * h
    iou = w * h / union
    cw, ch = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).unbind(-1)
    if kind == "giou":
        return iou - (cw * ch - union) / (cw * ch)
    if kind == "iou":
        return iou
    d = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diou = iou - (d**2).sum(-1) / (cw**2 + ch**2 + 1e-7)
    if kind == "diou":
        return diou
    v = 4 / torch.pi**2 * (torch.atan(aw / ah) - torch.atan(bw / bh)) ** 2
    with torch.no_grad():
        alpha = v / (1 - iou + v + 1e-7)
    return diou - alpha * v


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_gradients_are_close_to_the_formulas_in_float64(run, kind, format):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    sides = []
    for num in (7, 70):
        low, size = rng.random((2, num, 2)) * [[[4]], [[3]]] + [[[0]], [[0.1]]]
        box = (low, size) if format == "center" else (low, low + size)
        sides.append(np.concatenate(box, -1).astype(np.float32))
    out_grad = rng.normal(size=(7, 70)).astype(np.float32)
    lhs, rhs = (torch.from_numpy(x).double().requires_grad_() for x in sides)
    want = reference_of_kind(torch, lhs, rhs, format, kind)
    want.backward(torch.from_numpy(out_grad).double())
    out = run(box_iou, *sides, format=format, kind=kind)
    np.testing.assert_allclose(out, want.detach(), rtol=1e-4, atol=1e-5)
    grads = run(box_iou_backward, out_grad, *sides, format=format, kind=kind)
    for grad, side in zip(grads, (lhs, rhs)):
        np.testing.assert_allclose(grad, side.grad, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_gradients_equal_the_reference(run_any_steps, kind, format):
    run = run_any_steps
    for num_lhs, num_rhs in ((1, 1), (7, 300), (130, 17), (33, 128)):
        rng = np.random.default_rng(num_lhs)
        for ties, special in ((False, 0.0), (True, 0.0), (True, 0.1)):
            lhs = random_boxes(rng, num_lhs, ties, special)
            rhs = random_boxes(rng, num_rhs, ties, special)
            options = {"format": format, "kind": kind}
            want = box_iou(lhs, rhs, **options, backend="numpy")
            np.testing.assert_array_equal(run(box_iou, lhs, rhs, **options), want)
            out_grad = rng.normal(size=want.shape).astype(np.float32)
            want = box_iou_backward(out_grad, lhs, rhs, **options, backend="numpy")
            got = run(box_iou_backward, out_grad, lhs, rhs, **options)
            for x, y in zip(got, want):
                np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_rhs", [1, 7, 127, 128, 129, 300])
def test_threads_and_vectors_change_no_bit_of_kinds_and_gradients(cpu_variants, num_rhs, kind):
    rng = np.random.default_rng(num_rhs)
    for num_lhs in (1, 33, 16384 // num_rhs + 9):
        lhs, rhs = (random_boxes(rng, num, special=0.02) for num in (num_lhs, num_rhs))
        out_grad = rng.normal(size=(num_lhs, num_rhs)).astype(np.float32)

        def results(backend, lhs=lhs, rhs=rhs, out_grad=out_grad):
            grads = box_iou_backward(out_grad, lhs, rhs, kind=kind, backend=backend)
            return box_iou(lhs, rhs, kind=kind, backend=backend), *grads

        want = results("numpy")
        for got in cpu_variants(partial(results, "native")):
            for x, y in zip(got, want):
                np.testing.assert_array_equal(x, y)


def test_angle_is_the_rounded_arc_tangent():
    rng = np.random.default_rng(5)
    size = (2.0 ** rng.uniform(-30, 30, (100_000, 2))).astype(np.float32)
    size[:4] = [[0, 0], [0, 1], [1, 0], [-1, 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.arctan(size[:, 0].astype(np.float64) / size[:, 1])
    exact[0] = 0
    got = _angle(size)  # the reference, which has the bits of the C++
    assert (abs(got - exact) <= 0.5001 * np.spacing(abs(exact).astype(np.float32))).all()


def test_sanitizers_find_no_error_in_kinds_and_gradients(run_sanitized):
    rng = np.random.default_rng(2)
    lhs, rhs = random_boxes(rng, 35), random_boxes(rng, 7)
    out_grad = rng.normal(size=(35, 7)).astype(np.float32)
    for kind in ("giou", "ciou"):
        out = run_sanitized(box_iou, lhs, rhs, kind=kind)
        np.testing.assert_array_equal(out, box_iou(lhs, rhs, kind=kind, backend="numpy"))
        got = run_sanitized(box_iou_backward, out_grad, lhs, rhs, kind=kind)
        want = box_iou_backward(out_grad, lhs, rhs, kind=kind, backend="numpy")
        for x, y in zip(got, want):
            np.testing.assert_array_equal(x, y)


def test_gradient_of_a_side_without_other_boxes_is_zero(run):
    for kind in KINDS:
        args = np.zeros((2, 0), np.float32), A[[0, 0]], A[:0]
        lhs_grad, rhs_grad = run(box_iou_backward, *args, kind=kind)
        np.testing.assert_array_equal(lhs_grad, np.zeros((2, 4)))
        assert rhs_grad.shape == (0, 4)


def test_gradient_has_the_axes_of_the_inputs(run):
    rng = np.random.default_rng(0)
    lhs, rhs = random_boxes(rng, 6).reshape(2, 3, 4), random_boxes(rng, 5).reshape(5, 1, 4)
    out_grad = rng.random((2, 3, 5, 1), np.float32)
    grads = run(box_iou_backward, out_grad, lhs, rhs, kind="giou")
    assert [x.shape for x in grads] == [lhs.shape, rhs.shape]


@pytest.mark.parametrize(
    ("out_grad", "options", "message"),
    [
        (np.zeros((1, 2), np.float32), {}, r"out_grad: expected shape \(1, 1\), got \(1, 2\)"),
        (np.zeros(1, np.float32), {}, r"out_grad: expected shape \(1, 1\), got \(1,\)"),
        (np.zeros((1, 1)), {}, "lhs: expected float64 as out_grad, got float32"),
        (np.zeros((1, 1), np.float32), {"kind": "x"}, "kind: expected one of .*, got 'x'"),
        (np.zeros((1, 1), np.float32), {"format": "x"}, "format: expected one of .*, got 'x'"),
    ],
    ids=["other shape", "one axis", "float64", "kind", "format"],
)
def test_bad_arguments_of_the_gradient_are_refused(out_grad, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        box_iou_backward(out_grad, A, B, **options)
