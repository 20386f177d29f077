from functools import partial

import numpy as np
import pytest
from backend_runner import DEVICE_BACKENDS, runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_encode

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -1.0]
ZEROS, ONES = np.zeros(4, np.float32), np.ones(4, np.float32)
ON_A_GPU = [place for place in DEVICE_BACKENDS if place[1] == "emulated" or place[0] == "cuda"]
LN2 = np.float32(0.693147180559945309417)


def f32(x):
    return np.array(x, np.float32)


def random_boxes(rng, *shape, special=0.0):
    boxes = 4 * rng.random((*shape, 4))
    boxes[..., 2:] += boxes[..., :2] - 0.5  # some are inverted
    boxes[rng.random(boxes.shape) < special] = rng.choice(SPECIAL)
    return f32(boxes)


def random_case(rng, batch, num, refs, special=0.0):
    samples = rng.choice([1, 1, 0, -1, 0.5, 0.75, np.nan], (batch, num))
    matches = rng.integers(0, refs, (batch, num)) + rng.choice([0, 0.5], (batch, num))
    unused = ~(samples > 0.5) & (rng.random((batch, num)) < 0.5)
    matches[unused] = rng.choice([-1, refs, np.nan, np.inf], unused.sum())
    return (
        f32(samples),
        f32(matches),
        random_boxes(rng, batch, num, special=special),
        random_boxes(rng, batch, refs, special=special),
        f32(rng.choice([0, 0.1, -2], 4)),
        f32(rng.choice([1, 0.1, 0.2, -1], 4)),
    )


def check(run, args):
    for out, want in zip(run(box_encode, *args), box_encode(*args, backend="numpy")):
        np.testing.assert_array_equal(out, want)


class TestByHand:
    # The anchor has the center (2, 1) and the size (4, 2).
    ANCHOR = f32([[[0, 0, 4, 2]]])

    def encode(self, run, ref, means=ZEROS, stds=ONES):
        one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
        targets, masks = run(box_encode, one, zero, self.ANCHOR, f32([[ref]]), f32(means), stds)
        np.testing.assert_array_equal(masks, f32([[[1, 1, 1, 1]]]))
        return targets[0, 0]

    def test_positive_anchor_gets_the_offsets_of_its_box(self, run):
        # Center (3, 4), size (2, 4): ((3 - 2) / 4, (4 - 1) / 2, log(2 / 4), log(4 / 2)).
        targets = self.encode(run, [2, 2, 4, 6])
        np.testing.assert_array_equal(targets, f32([0.25, 1.5, -LN2, LN2]))
        assert targets.dtype == np.float32

    def test_offsets_are_normalized(self, run):
        # (0.25 - 1) / 2, (1.5 - 0.5) / -4, (-LN2 - 0) / 0.5, (LN2 - 0) / 1.
        targets = self.encode(run, [2, 2, 4, 6], [1, 0.5, 0, 0], f32([2, -4, 0.5, 1]))
        np.testing.assert_array_equal(targets, f32([-0.375, -0.25, -2 * LN2, LN2]))

    def test_sizes_are_rounded_once(self, run):
        # log(2) - LN2 is -1.9046543e-9, the rounding of LN2, and not 0.
        targets = self.encode(run, [2, 2, 4, 6], [0, 0, -LN2, LN2])
        difference = f32(0.6931471805599453 - float(LN2))
        np.testing.assert_array_equal(targets[2:], [-difference, difference])
        assert difference != 0

    @pytest.mark.parametrize(
        ("ref", "want"),
        [
            ([2, 1, 2, 1], [0, 0, -np.inf, -np.inf]),  # no width, no height
            ([4, 0, 0, 2], [0, 0, np.nan, 0]),  # inverted
            ([0, 0, np.inf, 2], [np.inf, 0, np.inf, 0]),
            ([np.nan, 0, 4, 2], [np.nan, 0, np.nan, 0]),
        ],
        ids=["no area", "inverted", "infinite", "NaN"],
    )
    def test_degenerate_box(self, run, ref, want):
        np.testing.assert_array_equal(self.encode(run, ref), f32(want))

    @pytest.mark.parametrize(
        ("sample", "mask"), [(1, 1), (0.6, 1), (0.5, 0), (0, 0), (-1, 0), (np.nan, 0), (np.inf, 1)]
    )
    def test_sample_above_a_half_is_positive(self, run, sample, mask):
        args = f32([[sample]]), f32([[0]]), self.ANCHOR, f32([[[2, 2, 4, 6]]]), ZEROS, ONES
        targets, masks = run(box_encode, *args)
        np.testing.assert_array_equal(masks, f32([[[mask] * 4]]))
        np.testing.assert_array_equal(targets, mask * f32([[[0.25, 1.5, -LN2, LN2]]]))

    def test_match_is_an_index_of_the_image_without_its_fraction(self, run):
        # Boxes as large as the anchor: 10, 20 in the first image, 30, 40 in the second one.
        refs = self.ANCHOR + 4 * f32([[10, 20], [30, 40]])[..., None]
        matches = f32([[1, 0.9, -0.9], [1.5, 0, 1]])
        anchors = self.ANCHOR.repeat(3, axis=1).repeat(2, axis=0)
        args = np.ones((2, 3), np.float32), matches, anchors, refs, ZEROS, ONES
        targets, _ = run(box_encode, *args)
        np.testing.assert_array_equal(targets[..., 0], [[20, 10, 10], [40, 30, 40]])


@pytest.mark.parametrize(
    ("batch", "num", "refs"), [(1, 1, 1), (3, 7, 2), (2, 300, 9), (1, 1000, 64), (40, 3, 5)]
)
def test_backend_gives_the_bits_of_the_reference(run, batch, num, refs):
    rng = np.random.default_rng(num)
    for special in (0.0, 0.1):
        check(run, random_case(rng, batch, num, refs, special))


@pytest.mark.parametrize("num", [1, 7, 255, 256, 257, 5000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num):
    args = random_case(np.random.default_rng(num), 3, num, 6, 0.02)
    want = box_encode(*args, backend="numpy")
    for out in cpu_variants(partial(box_encode, *args, backend="native")):
        for got, expected in zip(out, want):
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.sampled_from([0.0, 0.05, 0.3]))
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_equals_mxnet(mx, backend, seed, special):
    rng = np.random.default_rng(seed)
    args = random_case(rng, *rng.integers(1, [4, 40, 6]), special)
    samples, matches, *others = args
    # MXNet reads the boxes of other anchors too, out of bounds.
    known = np.where(samples > 0.5, matches, np.float32(0))
    theirs = mx.nd.contrib.box_encode(*map(mx.nd.array, (samples, known, *others)))
    targets, masks = box_encode(*args, backend=backend)
    np.testing.assert_array_equal(masks, theirs[1].asnumpy())
    np.testing.assert_array_equal(targets[..., :2], theirs[0].asnumpy()[..., :2])
    # log in double may differ in its last places, and round to the next float.
    np.testing.assert_allclose(targets[..., 2:], theirs[0].asnumpy()[..., 2:], rtol=1.2e-7)


WRONG_MATCHES = [(-1, "-1", 0), (2, "2", 1), (np.nan, "nan", 0), (3e9, "3e+09", 0)]
WRONG_MATCHES += [(-np.inf, "-inf", 0), (1e5, "100000", 1)]


def wrong_match(match):
    anchors, refs = f32([[[0, 0, 4, 2]] * 3] * 2), f32([[[0, 0, 4, 2], [8, 0, 12, 2]]] * 2)
    samples, matches = f32([[1, -1, 0], [0, 1, 1]]), f32([[0, -1, 7], [np.nan, match, match]])
    return samples, matches, anchors, refs, ZEROS, ONES


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize(("match", "text", "_"), WRONG_MATCHES)
def test_match_out_of_range_is_refused_on_a_cpu(backend, match, text, _):
    message = f"^matches: expected an index of 2 refs .*, got {text} in image 1, anchor 1$"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        runner("cpu", backend)(box_encode, *wrong_match(match))


@pytest.mark.parametrize("place", ON_A_GPU, ids="-".join)
@pytest.mark.parametrize(("match", "_", "clamped"), WRONG_MATCHES)
def test_match_out_of_range_is_clamped_on_a_gpu(place, match, _, clamped):
    targets, masks = runner(*place)(box_encode, *wrong_match(match))
    np.testing.assert_array_equal(masks[..., 0], [[1, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(targets[1, 1:, 0], f32([2 * clamped] * 2))


def without_boxes(sample):
    samples, anchors = np.full((2, 3), sample, np.float32), np.zeros((2, 3, 4), np.float32)
    return samples, 0 * samples, anchors, np.zeros((2, 0, 4), np.float32), ZEROS, ONES


def test_anchors_without_boxes_get_zeros(run):
    for out in run(box_encode, *without_boxes(0)):
        np.testing.assert_array_equal(out, np.zeros((2, 3, 4)))


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_positive_anchor_without_boxes_is_refused_on_a_cpu(backend):
    with pytest.raises(ValueError, match=r"^matches: expected an index of 0 refs"):
        runner("cpu", backend)(box_encode, *without_boxes(1))


@pytest.mark.parametrize("place", ON_A_GPU, ids="-".join)
def test_positive_anchor_without_boxes_gets_zeros_on_a_gpu(place):
    for out in runner(*place)(box_encode, *without_boxes(1)):
        np.testing.assert_array_equal(out, np.zeros((2, 3, 4)))


@pytest.mark.parametrize("num", [1, 31, 97])
@pytest.mark.parametrize("images", [1, 2, 5])
def test_kernel_covers_all_images_on_any_grid(monkeypatch, images, num):
    def on_another_grid(launch):
        return launch._replace(grid=(-(-num // 32) + 1, images), block=(32,))

    monkeypatch.setattr(backends, "on_launch", on_another_grid)
    check(runner("cpu", "emulated"), random_case(np.random.default_rng(num), 5, num, 3))


def test_sanitized(run_sanitized):
    check(run_sanitized, random_case(np.random.default_rng(2), 3, 37, 4, 0.1))


@pytest.mark.parametrize(("batch", "num"), [(0, 3), (2, 0), (0, 0)])
def test_empty_inputs_give_empty_results(run, batch, num):
    rows, boxes = np.zeros((batch, num), np.float32), np.zeros((batch, num, 4), np.float32)
    args = rows, rows, boxes, np.zeros((batch, 2, 4), np.float32), ZEROS, ONES
    for out in run(box_encode, *args):
        assert out.shape == (batch, num, 4)


INPUTS = dict(
    samples=np.zeros((2, 3), np.float32),
    matches=np.zeros((2, 3), np.float32),
    anchors=np.zeros((2, 3, 4), np.float32),
    refs=np.zeros((2, 5, 4), np.float32),
    means=ZEROS,
    stds=ONES,
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("samples", ZEROS, ValueError, r"expected shape \(B, N\), got \(4,\)"),
        (
            "samples",
            INPUTS["samples"].astype("i4"),
            TypeError,
            "expected float32, float64, float16 or bfloat16, got int32",
        ),
        (
            "matches",
            np.zeros((2, 4), np.float32),
            ValueError,
            r"expected shape \(B, N\) with N = 3 as in samples, got \(2, 4\)",
        ),
        ("anchors", INPUTS["anchors"][:1], ValueError, r".* with B = 2 .*, got \(1, 3, 4\)"),
        ("refs", INPUTS["refs"][:1], ValueError, r".* with B = 2 as in samples, got \(1, 5, 4\)"),
        ("refs", INPUTS["refs"][..., :3], ValueError, r"expected .*, got \(2, 5, 3\)"),
        ("means", ZEROS[:3], ValueError, r"expected shape \(4,\), got \(3,\)"),
        ("means", ZEROS[None], ValueError, r"expected shape \(4,\), got \(1, 4\)"),
        ("stds", (1, 1, 1, 1), TypeError, "expected an array .*, got tuple"),
        (
            "refs",
            np.broadcast_to(np.float32(0), (2, 2**31, 4)),
            ValueError,
            r"expected sizes below 2\*\*31, got shape \(2, 2147483648, 4\)",
        ),
    ],
)
def test_bad_argument_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        box_encode(**{**INPUTS, name: value})
