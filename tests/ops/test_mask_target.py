from functools import partial

import numpy as np
import pytest
from backend_runner import DEVICE_BACKENDS, runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import mask_target

SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -5.0]
ON_A_GPU = [place for place in DEVICE_BACKENDS if place[1] == "emulated" or place[0] == "cuda"]


def f32(x):
    return np.array(x, np.float32)


def random_case(rng, images, num, masks, size, special=0.0):
    """Masks of 0 and 1, and rois of which some leave the masks."""
    low = rng.uniform(-3, max(size), (images, num, 2))
    rois = f32(np.concatenate([low, low + rng.uniform(-1, max(size), low.shape)], axis=-1))
    rois[rng.random(rois.shape) < special] = rng.choice(SPECIAL)
    gt_masks = f32(rng.random((images, masks, *size)) < 0.5)
    gt_masks[rng.random(gt_masks.shape) < special / 9] = rng.choice(SPECIAL)
    matches = rng.integers(0, masks, (images, num)) + rng.choice([0, 0.5], (images, num))
    classes = rng.choice([-1, 0, 1, 2, 3, 1.5, np.nan], (images, num))
    unused = ~np.isin(classes, [0, 1, 2])
    matches[unused] = rng.choice([-1, masks, np.nan, 1e10], unused.sum())
    return rois, gt_masks, f32(matches), f32(classes)


def check(run, args, options):
    for out, want in zip(
        run(mask_target, *args, **options), mask_target(*args, **options, backend="numpy")
    ):
        np.testing.assert_array_equal(out, want)


class TestByHand:
    # The first mask is 1 on its left half, the second one has a ramp.
    MASKS = f32([[[[1, 1, 0, 0]] * 4, [[0, 1, 2, 3]] * 4]])

    def test_mask_of_the_match_is_pooled_for_each_class(self, run):
        # Bins of 2 x 2 pixels with 2 x 2 samples at 0.5 and 1.5, 2.5 and 3.5 (which is 3).
        rois = f32([[[0, 0, 4, 4], [0, 0, 4, 4]]])
        targets, weights = run(
            mask_target, rois, self.MASKS, f32([[1, 0]]), f32([[2, 0]]), 2, 3, (1, 2)
        )
        assert targets.shape == weights.shape == (1, 2, 3, 1, 2)
        # The ramp: (0.5 + 1.5) / 2 and (2.5 + 3) / 2. The half: (1 + 0.5) / 2 and 0.
        np.testing.assert_array_equal(targets[0, 0], f32([[[1, 2.75]]] * 3))
        np.testing.assert_array_equal(targets[0, 1], f32([[[0.75, 0]]] * 3))
        np.testing.assert_array_equal(weights[0, 0, :, 0, 0], [0, 0, 1])
        np.testing.assert_array_equal(weights[0, 1, :, 0, 0], [1, 0, 0])
        np.testing.assert_array_equal(weights[..., 0], weights[..., 1])

    def test_aligned_subtracts_half_a_pixel(self, run):
        # One sample of each bin: at 0.5 - 0.5 and 1.5 - 0.5 of the ramp.
        options = dict(num_classes=1, mask_size=(1, 2), sample_ratio=1, aligned=True)
        rois = f32([[[0, 0, 2, 2]]])
        targets, _ = run(mask_target, rois, self.MASKS, f32([[1]]), f32([[0]]), **options)
        np.testing.assert_array_equal(targets, f32([[[[[0, 1]]]]]))

    def test_masks_are_those_of_the_image(self, run):
        masks = f32([1, 2, 3, 4]).reshape(2, 2, 1, 1)
        rois, zeros = f32([[[0, 0, 1, 1]]] * 2), np.zeros((2, 1), np.float32)
        options = dict(num_classes=1, mask_size=(1, 1))
        targets, _ = run(mask_target, rois, masks, f32([[1], [0]]), zeros, **options)
        np.testing.assert_array_equal(targets.ravel(), [2, 3])

    @pytest.mark.parametrize("target", [-1, 3, 0.5, np.nan, np.inf, 1e30])
    def test_other_number_is_no_class(self, run, target):
        options = dict(num_classes=3, mask_size=(2, 2))
        args = f32([[[0, 0, 2, 2]]]), self.MASKS, f32([[-7]]), f32([[target]])
        targets, weights = run(mask_target, *args, **options)
        np.testing.assert_array_equal(weights, np.zeros((1, 1, 3, 2, 2)))
        args = *args[:2], f32([[0]]), args[3]
        np.testing.assert_array_equal(targets, run(mask_target, *args, **options)[0])


OPTIONS = [
    {"num_classes": 3, "mask_size": (7, 5)},
    {"num_classes": 1, "mask_size": (14, 14), "sample_ratio": 0, "aligned": True},
    {"num_classes": 2, "mask_size": (1, 9), "sample_ratio": 3, "aligned": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "adaptive", "aligned"])
@pytest.mark.parametrize(
    ("images", "num", "masks", "size"),
    [(1, 1, 1, (1, 1)), (2, 5, 3, (9, 12)), (3, 4, 2, (30, 3))],
)
def test_backend_gives_the_bits_of_the_reference(run_any_steps, images, num, masks, size, options):
    rng = np.random.default_rng(num)
    for special in (0.0, 0.2):
        check(run_any_steps, random_case(rng, images, num, masks, size, special), options)


@pytest.mark.parametrize("mask_size", [(1, 1), (3, 7), (2, 8), (5, 9), (28, 28)])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, mask_size):
    args = random_case(np.random.default_rng(mask_size), 2, 6, 3, (20, 17), 0.05)
    options = dict(num_classes=3, mask_size=mask_size)
    want = mask_target(*args, **options, backend="numpy")
    for out in cpu_variants(partial(mask_target, *args, **options, backend="native")):
        for got, expected in zip(out, want):
            np.testing.assert_array_equal(got, expected)


def test_streamed_results_equal_the_small_ones():
    """Results of 4 MiB and more may use non-temporal stores."""
    args = random_case(np.random.default_rng(0), 1, 40, 3, (50, 60))
    args[3][args[3] == 3] = -1
    native = partial(mask_target, mask_size=(27, 29), backend="native")
    few, many = native(*args, num_classes=3), native(*args, num_classes=90)
    for _ in range(2):  # the second result may be in memory that is known
        for got, want in zip(many, few):
            np.testing.assert_array_equal(got[:, :, :3], want)
        assert not many[1][:, :, 4:].any()
        many = native(*args, num_classes=90)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), aligned=st.booleans(), sample_ratio=st.integers(0, 4))
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_equals_roi_align_of_mxnet(mx, backend, seed, aligned, sample_ratio):
    rng = np.random.default_rng(seed)
    images, num, masks, height, width = rng.integers(1, [4, 7, 5, 30, 30]).tolist()
    rois, gt_masks, matches, classes = random_case(rng, images, num, masks, (height, width))
    rois[..., 2:] = np.maximum(rois[..., 2:], rois[..., :2] + np.float32(0.1))  # or MXNet aborts
    matches = np.trunc(np.where(np.isin(classes, [0, 1, 2]), matches, f32(0)))
    index = matches + np.arange(images, dtype=np.float32)[:, None] * masks
    planes = mx.nd.array(gt_masks.reshape(images * masks, 1, height, width))
    rows = mx.nd.array(np.concatenate([index[..., None], rois], axis=2).reshape(-1, 5))
    options = dict(sample_ratio=sample_ratio, aligned=aligned)
    pooled = mx.nd.contrib.ROIAlign(planes, rows, (6, 9), 1.0, **options).asnumpy()
    targets, weights = mask_target(
        *(rois, gt_masks, matches, classes, num, 3, (6, 9)), **options, backend=backend
    )
    want = pooled.reshape(images, num, 1, 6, 9).repeat(3, axis=2)
    np.testing.assert_array_equal(targets, want)
    is_class = classes[..., None] == np.arange(3)
    np.testing.assert_array_equal(
        weights, np.broadcast_to(is_class[..., None, None], weights.shape)
    )


WRONG_MATCHES = [(-1, "-1", 0), (2, "2", 1), (np.nan, "nan", 0), (3e9, "3e+09", 0)]


def wrong_match(match):
    masks = f32([[[[0]], [[1]]]] * 2)
    rois, classes = np.zeros((2, 3, 4), np.float32), f32([[-1, 1, 7], [3, 0, 1]])
    return rois, masks, f32([[match, 0, match], [match, match, 1]]), classes


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize(("match", "text", "_"), WRONG_MATCHES)
def test_match_out_of_range_is_refused_on_a_cpu(backend, match, text, _):
    message = f"^matches: expected an index of 2 gt_masks .*, got {text} in image 1, roi 1$"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        runner("cpu", backend)(mask_target, *wrong_match(match), num_classes=2, mask_size=(1, 1))


@pytest.mark.parametrize("place", ON_A_GPU, ids="-".join)
@pytest.mark.parametrize(("match", "_", "clamped"), WRONG_MATCHES)
def test_match_out_of_range_is_clamped_on_a_gpu(place, match, _, clamped):
    args = wrong_match(match)
    targets, weights = runner(*place)(mask_target, *args, num_classes=2, mask_size=(1, 1))
    want = [[[clamped] * 2, [0, 0], [clamped] * 2], [[clamped] * 2, [clamped] * 2, [1, 1]]]
    np.testing.assert_array_equal(targets[..., 0, 0], want)
    np.testing.assert_array_equal(
        weights[..., 0, 0], [[[0, 0], [0, 1], [0, 0]], [[0, 0], [1, 0], [0, 1]]]
    )


@pytest.mark.parametrize("shape", [(1, 0, 4, 4), (1, 2, 0, 4), (1, 2, 4, 0)])
def test_masks_without_pixels_give_zeros(run, shape):
    rois, minus = np.ones((1, 3, 4), np.float32), np.full((1, 3), -1, np.float32)
    for out in run(
        mask_target,
        rois,
        np.zeros(shape, np.float32),
        minus,
        minus,
        num_classes=2,
        mask_size=(2, 2),
    ):
        np.testing.assert_array_equal(out, np.zeros((1, 3, 2, 2, 2)))


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_class_without_masks_is_refused_on_a_cpu(backend):
    rois, zero = np.ones((1, 1, 4), np.float32), np.zeros((1, 1), np.float32)
    masks = np.zeros((1, 0, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"^matches: expected an index of 0 gt_masks"):
        runner("cpu", backend)(
            mask_target, rois, masks, zero, zero, num_classes=1, mask_size=(2, 2)
        )


def test_sanitized(run_sanitized_small):
    args = random_case(np.random.default_rng(2), 2, 3, 2, (7, 9), 0.1)
    check(run_sanitized_small, args, OPTIONS[0])


@pytest.mark.parametrize(("images", "num"), [(0, 3), (2, 0)])
def test_empty_inputs_give_empty_results(run, images, num):
    rois, rows = np.zeros((images, num, 4), np.float32), np.zeros((images, num), np.float32)
    masks = np.zeros((images, 1, 2, 2), np.float32)
    for out in run(mask_target, rois, masks, rows, rows, num_classes=2, mask_size=(3, 4)):
        assert out.shape == (images, num, 2, 3, 4)


INPUTS = dict(
    rois=np.zeros((2, 3, 4), np.float32),
    gt_masks=np.zeros((2, 5, 6, 7), np.float32),
    matches=np.zeros((2, 3), np.float32),
    cls_targets=np.zeros((2, 3), np.float32),
    num_classes=2,
    mask_size=(4, 4),
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("rois", INPUTS["rois"][..., :3], ValueError, r"expected .*, got \(2, 3, 3\)"),
        ("gt_masks", INPUTS["gt_masks"][0], ValueError, r"expected .*, got \(5, 6, 7\)"),
        ("gt_masks", INPUTS["gt_masks"].astype("u1"), TypeError, "expected float32, got uint8"),
        (
            "matches",
            INPUTS["matches"][:, :2],
            ValueError,
            r".* with N = 3 as in rois, got \(2, 2\)",
        ),
        ("cls_targets", INPUTS["cls_targets"][:1], ValueError, r".* with B = 2 .*, got \(1, 3\)"),
        (
            "gt_masks",
            np.broadcast_to(np.float32(0), (2, 1, 2**16, 2**15)),
            ValueError,
            r"expected masks of less than 2\*\*31 pixels, got shape \(2, 1, 65536, 32768\)",
        ),
        ("num_rois", 4, ValueError, "expected the number of rois, 3, got 4"),
        ("num_rois", "x", TypeError, "expected an integer, got 'x'"),
        ("num_classes", None, TypeError, "expected an integer, got None"),
        ("num_classes", 0, ValueError, "expected an integer in .*, got 0"),
        ("mask_size", None, ValueError, r"expected a pair \(height, width\), got None"),
        ("mask_size", (0, 3), ValueError, "expected an integer in .*, got 0"),
        ("mask_size", (2**15, 2**15), ValueError, r"expected less than 2\*\*30 bins, got"),
        ("sample_ratio", 1025, ValueError, "expected an integer in .*, got 1025"),
        ("aligned", "maybe", ValueError, "expected True or False, got 'maybe'"),
    ],
)
def test_bad_argument_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        mask_target(**{**INPUTS, name: value})
