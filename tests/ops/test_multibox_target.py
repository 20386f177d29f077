import numpy as np
import pytest
from backend_runner import PLACES, runner
from emulator import backends
from emulator.arena import Arena
from hypothesis import given, settings
from hypothesis import strategies as st

import cvops
from cvops.ops import _exp_log

F = np.float32
#: ``struct TargetShape`` of the kernels.
#: ``TargetBuffers`` of the kernels: addresses, and the number of splits.
BUFFERS = np.dtype(
    {
        "names": [
            *("states", "keys", "counts", "num_valid", "num_splits"),
            *("wanted", "bounds", "scores", "bins", "finished_blocks"),
        ],
        "formats": [*["u8"] * 4, "i4", *["u8"] * 5],
    },
    align=True,
)
SHAPE = np.dtype(
    [(f"num_{name}", np.int32) for name in ("images", "anchors", "truths")]
    + [("label_width", np.int32), ("num_classes", np.int32)]
)


def a(values):
    return np.array(values, F)


def assert_equal(got, want):
    for x, y, name in zip(got, want, ("loc_target", "loc_mask", "cls_target")):
        np.testing.assert_array_equal(x, y, err_msg=name)


# Expected values by hand.

# The example of Dive into Deep Learning: five anchors, a dog (class 0) and a cat (class 1).
BOOK_ANCHORS = a(
    [
        [
            [0, 0.1, 0.2, 0.3],
            [0.15, 0.2, 0.4, 0.4],
            [0.63, 0.05, 0.88, 0.98],
            [0.66, 0.45, 0.8, 0.8],
            [0.57, 0.3, 0.92, 0.9],
        ]
    ]
)
BOOK_LABEL = a([[[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]]])
# Centres and sizes: dog (.31, .5), .42 x .84; cat (.725, .54), .35 x .68.
BOOK_OFFSETS = {
    # The best anchor of the dog: (.275, .3), .25 x .2.
    1: (0.035 / 0.25 / 0.1, 0.2 / 0.2 / 0.1, np.log(0.42 / 0.25) / 0.2, np.log(0.84 / 0.2) / 0.2),
    # Above the threshold for the cat: (.755, .515), .25 x .93.
    2: (
        -0.03 / 0.25 / 0.1,
        0.025 / 0.93 / 0.1,
        np.log(0.35 / 0.25) / 0.2,
        np.log(0.68 / 0.93) / 0.2,
    ),
    # The best anchor of the cat: (.745, .6), .35 x .6.
    4: (-0.02 / 0.35 / 0.1, -0.06 / 0.6 / 0.1, np.log(0.35 / 0.35) / 0.2, np.log(0.68 / 0.6) / 0.2),
}


def test_the_book(run):
    target, mask, cls = run(cvops.multibox_target, BOOK_ANCHORS, BOOK_LABEL, np.zeros((1, 3, 5), F))
    assert (target.dtype, mask.dtype, cls.dtype) == (F, F, F)
    np.testing.assert_array_equal(cls, [[0, 1, 2, 0, 2]])
    np.testing.assert_array_equal(mask.reshape(5, 4), np.repeat([[0, 1, 1, 0, 1]], 4, 0).T)
    want = [BOOK_OFFSETS.get(i, (0, 0, 0, 0)) for i in range(5)]
    np.testing.assert_allclose(target.reshape(5, 4), want, atol=2e-6)


ANCHORS = a(
    [
        [
            [0.1, 0.1, 0.5, 0.5],
            [0.5, 0.5, 0.9, 0.9],
            [0.1, 0.1, 0.45, 0.45],
            [0, 0, 1, 1],
            [0.8, 0.8, 0.8, 0.9],
        ]
    ]
)
SAME = (3, 0.1, 0.1, 0.5, 0.5)  # the box of anchor 0
PADDING = (-1, -1, -1, -1, -1)
NAN = float("nan")


@pytest.mark.parametrize(
    ("rows", "want"),
    {
        # Anchor 2 covers .35^2 / .4^2 = .77 of anchor 0's box, above the threshold.
        "two": ([SAME, (0, 0.48, 0.48, 0.9, 0.9)], [4, 1, 4, 0, 0]),
        # The first takes its best anchor, the second the next best. Neither has a third above .5.
        "twice the same": ([(1, *SAME[1:]), (2, *SAME[1:])], [2, 0, 3, 0, 0]),
        "padded": ([SAME, PADDING, PADDING], [4, 0, 4, 0, 0]),
        "nothing after padding": ([PADDING, SAME], [-1, -1, -1, -1, -1]),
        "only -1 is padding": ([(-2, *SAME[1:])], [-1, 0, -1, 0, 0]),
        "a fraction of a class": ([(0.25, *SAME[1:])], [1.25, 0, 1.25, 0, 0]),
        "NaN": ([(3, NAN, 0.1, 0.5, 0.5), (5, 0.1, 0.1, 0.5, NAN)], [0, 0, 0, 0, 0]),
        "NaN beside another": ([(3, NAN, 0.1, 0.5, 0.5), (5, *SAME[1:])], [6, 0, 6, 0, 0]),
        "infinite": ([(3, -np.inf, -np.inf, np.inf, np.inf)], [0, 0, 0, 0, 0]),
        "class NaN": ([(NAN, *SAME[1:])], [NAN, 0, NAN, 0, 0]),
        "no area": ([(3, 0.2, 0.2, 0.2, 0.4)], [0, 0, 0, 0, 0]),
        "inverted": ([(3, 0.5, 0.5, 0.1, 0.1)], [0, 0, 0, 0, 0]),
        # 2e-3 * 2e-3 / 1 = 4e-6 of anchor 3 is enough for the first stage, 5e-4^2 = 2.5e-7 is not.
        "small": ([(3, 0.95, 0.1, 0.952, 0.102)], [0, 0, 0, 4, 0]),
        "too small": ([(3, 0.95, 0.1, 0.9505, 0.1005)], [0, 0, 0, 0, 0]),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_classes(run, rows, want):
    rows, want = want if isinstance(rows, str) else (rows, want)
    _, mask, cls = run(cvops.multibox_target, ANCHORS, a([rows]), np.zeros((1, 2, 5), F))
    np.testing.assert_array_equal(cls, [want])
    positive = ~np.isin(want, (0, -1)) | (np.array(want) == -1) & (rows[0][0] == -2)
    np.testing.assert_array_equal(mask, [np.repeat(positive, 4)])


def test_offsets_to_a_second_and_a_third_box(run):
    label = a([[SAME, (0, 0.48, 0.48, 0.9, 0.9)]])
    target, _, _ = run(cvops.multibox_target, ANCHORS, label, np.zeros((1, 2, 5), F))
    # Anchor 1 to the second: -.01 / .4 / .1 and log(.42 / .4) / .2. Anchor 2, which is .35 wide, to
    # the first: .025 / .35 / .1 and log(.4 / .35) / .2.
    want = [[0] * 4, [-0.25, -0.25, 0.243951, 0.243951], [0.714286, 0.714286, 0.667657, 0.667657]]
    np.testing.assert_allclose(target.reshape(5, 4)[:3], want, atol=2e-6)
    scaled, _, _ = run(
        cvops.multibox_target,
        ANCHORS,
        label,
        np.zeros((1, 2, 5), F),
        variances=(0.2, 0.1, 0.4, 0.1),
    )
    want = [[0] * 4, [-0.125, -0.25, 0.121976, 0.487902], [0.357143, 0.714286, 0.333829, 1.335314]]
    np.testing.assert_allclose(scaled.reshape(5, 4)[:3], want, atol=4e-6)


# The first anchor is the truth; the others have of it 1/2, 1/4 and nothing.
HALVES = a([[[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 2], [8, 8, 9, 9]]])
WHOLE = a([[[6, 0, 0, 4, 4]]])


@pytest.mark.parametrize(
    ("threshold", "want"),
    [
        (0.5, [7, 0, 0, 0]),
        (0.49, [7, 7, 0, 0]),
        (0.25, [7, 7, 0, 0]),
        (0.2, [7, 7, 7, 0]),
        (1e-30, [7, 7, 7, 0]),
        (0, [7, 0, 0, 0]),  # 0 and less leave the stage out
        (-1, [7, 0, 0, 0]),
        (np.inf, [7, 0, 0, 0]),
    ],
)
def test_an_overlap_at_the_threshold_is_negative(run, threshold, want):
    _, _, cls = run(cvops.multibox_target, HALVES, WHOLE, np.zeros((1, 2, 4), F), threshold)
    np.testing.assert_array_equal(cls, [want])


# Logits of the background: anchor 2 looks least like it, then 3, then 1.
LOGITS = a([[[0, 5, 1, 2], [0, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("options", "want"),
    [
        # One positive: as many negatives as the ratio, truncated.
        (dict(negative_mining_ratio=1), [7, -1, 0, -1]),
        (dict(negative_mining_ratio=1.9), [7, -1, 0, -1]),
        (dict(negative_mining_ratio=0.5), [7, -1, -1, -1]),
        # Anchor 1 has an overlap of .5, which is not below .5.
        (dict(negative_mining_ratio=2), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=2, negative_mining_thresh=0.6), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=3, negative_mining_thresh=0.6), [7, 0, 0, 0]),
        (dict(negative_mining_ratio=1, negative_mining_thresh=0.25), [7, -1, -1, 0]),
        (dict(negative_mining_ratio=1, ignore_label=-9), [7, -9, 0, -9]),
        # More than there are candidates, than anchors, than an int holds.
        (dict(negative_mining_ratio=3), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=1e9), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=1e30), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=np.inf), [7, -1, 0, 0]),
        (dict(negative_mining_ratio=1, minimum_negative_samples=3), [7, -1, 0, -1]),
        # Two positives by the second stage.
        (dict(negative_mining_ratio=1, overlap_threshold=0.4), [7, 7, 0, 0]),
        (dict(negative_mining_ratio=0), [7, 0, 0, 0]),
    ],
    ids=str,
)
def test_mining(run, options, want):
    _, mask, cls = run(cvops.multibox_target, HALVES, WHOLE, LOGITS, **options)
    np.testing.assert_array_equal(cls, [want])
    np.testing.assert_array_equal(mask, [np.repeat(np.array(want) == 7, 4)])


@pytest.mark.parametrize(
    ("background", "want"),
    {
        "ties by place": ([9, 1, 1, 1, 1, 1], [7, 0, 0, -1, -1, -1]),
        "NaN last": ([9, NAN, 1, NAN, 2, 3], [7, -1, 0, -1, 0, -1]),
        "NaN where nothing else is left": ([9, NAN, NAN, NAN, NAN, 3], [7, 0, -1, -1, -1, 0]),
        # Infinity less itself is NaN.
        "infinite": ([9, np.inf, 5, -np.inf, 4, 3], [7, -1, -1, 0, -1, 0]),
        "denormal probabilities": ([9, -88, -89, -90, -100, -101], [7, -1, -1, -1, 0, 0]),
        "no probability at all": ([9, -150, -200, 0, -151, 0], [7, 0, 0, -1, -1, -1]),
    }.values(),
)
def test_scores(run, background, want):
    anchors = a([[[0, 0, 4, 4]] + [[8, 8, 9, 9]] * 5])
    logits = np.stack([a([background]), np.zeros((1, 6), F)], axis=1)
    _, _, cls = run(cvops.multibox_target, anchors, WHOLE, logits, negative_mining_ratio=2)
    np.testing.assert_array_equal(cls, [want])


def test_what_a_truth_is_given_is_no_candidate_any_more(run):
    # The first three anchors are given to the truths, the first two with overlaps of 1/4 only. The
    # fourth has 1/2 of the third truth. So 3 are wanted, of 2: those that overlap nothing.
    anchors = a([[[0, 0, 1, 1], [4, 0, 5, 1], [8, 0, 10, 2], [8, 0, 10, 1], *[[0, 8, 1, 9]] * 2]])
    label = a([[[0, 0, 0, 2, 2], [1, 4, 0, 6, 2], [2, 8, 0, 10, 2]]])
    options = dict(overlap_threshold=0, negative_mining_ratio=1)
    _, _, cls = run(cvops.multibox_target, anchors, label, np.zeros((1, 2, 6), F), **options)
    np.testing.assert_array_equal(cls, [[1, 2, 3, -1, 0, 0]])


def test_images_without_truths_and_without_positives(run):
    # The second image has a truth that no anchor overlaps: all is background, with mining nothing.
    label = a([[PADDING, PADDING], [(3, 2, 2, 3, 3), PADDING], [SAME, PADDING]])
    logits = np.zeros((3, 2, 5), F)
    _, _, cls = run(cvops.multibox_target, ANCHORS, label, logits)
    np.testing.assert_array_equal(cls, [[-1] * 5, [0] * 5, [4, 0, 4, 0, 0]])
    _, _, cls = run(cvops.multibox_target, ANCHORS, label, logits, negative_mining_ratio=1)
    np.testing.assert_array_equal(cls, [[-1] * 5, [-1] * 5, [4, 0, 4, 0, -1]])


@pytest.mark.parametrize("options", [{}, dict(negative_mining_ratio=3)], ids=str)
def test_empty(run, options):
    got = run(
        cvops.multibox_target, ANCHORS, np.zeros((0, 2, 5), F), np.zeros((0, 2, 5), F), **options
    )
    assert [x.shape for x in got] == [(0, 20), (0, 20), (0, 5)]
    target, mask, cls = run(
        cvops.multibox_target, ANCHORS, np.zeros((2, 0, 5), F), np.zeros((2, 3, 5), F), **options
    )
    assert not target.any()
    assert not mask.any()
    np.testing.assert_array_equal(cls, np.full((2, 5), -1))


# Against the oracle, the NumPy body: the same bits.


def scene(rng, num_images, num_anchors, num_truths, steps=0, num_classes=3, width=5):
    """Random inputs; with ``steps`` coordinates are multiples of 1 / steps, which makes ties."""

    def boxes(*shape):
        corner, size = rng.random((*shape, 2)) * 0.8, rng.random((*shape, 2)) ** 2 * 0.6
        both = np.concatenate([corner, corner + size], axis=-1)
        return (np.round(both * steps) / steps if steps else both).astype(F)

    label = rng.random((num_images, num_truths, width)).astype(F)
    label[..., 0] = rng.integers(0, 20, (num_images, num_truths))
    label[..., 1:5] = boxes(num_images, num_truths)
    for image, count in enumerate(rng.integers(0, num_truths + 1, num_images)):
        if image:  # the first is full
            label[image, count:] = -1
    logits = rng.normal(size=(num_images, num_classes, num_anchors)).astype(F)
    return boxes(1, num_anchors), label, np.round(logits) if steps else logits


OPTIONS = [
    dict(),
    dict(overlap_threshold=0.2, variances=(1, 2, 3, 4)),
    dict(overlap_threshold=0),
    dict(negative_mining_ratio=3, ignore_label=-7),
    dict(negative_mining_ratio=1.5, negative_mining_thresh=0.1, overlap_threshold=0.3),
    dict(negative_mining_ratio=1e4, negative_mining_thresh=1),
]
#: Images, anchors, truths: odd, beyond several tiles of every backend, beyond a chunk of truths.
SIZES = [(1, 1, 1), (2, 33, 3), (3, 127, 9), (5, 1025, 7), (1, 2500, 40), (2, 515, 131)]


@pytest.fixture(params=PLACES[1:], ids="-".join)
def run_other(request):
    assert PLACES[0] == ("cpu", "numpy"), "which is the oracle"
    return runner(*request.param)


@pytest.mark.parametrize("steps", [0, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_oracle(run_other, size, steps):
    inputs = scene(np.random.default_rng(size), *size, steps)
    for options in OPTIONS:
        want = cvops.multibox_target(*inputs, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, *inputs, **options), want)


def test_oracle_with_more_truths_than_shared_memory_holds(run_other):
    inputs = scene(np.random.default_rng(0), 1, 700, 530)
    want = cvops.multibox_target(*inputs, backend="numpy")
    assert_equal(run_other(cvops.multibox_target, *inputs), want)


def test_oracle_with_one_truth_many_times(run_other):
    # All want the same anchor, and again the same of those that are left.
    anchors, label, logits = scene(np.random.default_rng(1), 2, 300, 35)
    label[0, :30, 1:] = label[0, 0, 1:]
    want = cvops.multibox_target(anchors, label, logits, 0.0, backend="numpy")
    assert_equal(run_other(cvops.multibox_target, anchors, label, logits, 0.0), want)
    assert (want[2] > 0).sum(axis=1)[0] == 35


@pytest.mark.parametrize("places", [np.arange(650) // 5, np.arange(650) % 130], ids=["near", "far"])
def test_oracle_with_every_anchor_many_times(run_other, places):
    # Equal overlaps side by side, and far apart.
    anchors, label, logits = scene(np.random.default_rng(12), 2, 650, 12)
    anchors = np.ascontiguousarray(anchors[:, places])
    for options in OPTIONS:
        want = cvops.multibox_target(anchors, label, logits, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, anchors, label, logits, **options), want)


def test_oracle_with_nan_infinity_and_inverted_boxes(run_other):
    rng = np.random.default_rng(2)
    anchors, label, logits = scene(rng, 4, 600, 11, steps=8)
    for x in (anchors, label[..., 1:], logits):
        spoilt = rng.random(x.shape) < 0.03
        x[spoilt] = rng.choice(a([NAN, np.inf, -np.inf, -1, 0, 3e38, 1e-40]), spoilt.sum())
    padded = label[..., 0] == -1
    label[padded] = -1
    for options in OPTIONS:
        want = cvops.multibox_target(anchors, label, logits, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, anchors, label, logits, **options), want)


def test_oracle_with_more_columns_and_classes(run_other):
    inputs = scene(np.random.default_rng(3), 2, 130, 5, num_classes=21, width=7)
    want = cvops.multibox_target(*inputs, negative_mining_ratio=3, backend="numpy")
    assert_equal(run_other(cvops.multibox_target, *inputs, negative_mining_ratio=3), want)


def test_oracle_where_most_scores_are_equal(run_other):
    # So that the last negative is found by its place.
    anchors, label, logits = scene(np.random.default_rng(4), 2, 2500, 30)
    logits[:, :, 40:] = 0
    for ratio in (1, 4, 11.3):
        options = dict(negative_mining_ratio=ratio)
        want = cvops.multibox_target(anchors, label, logits, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, anchors, label, logits, **options), want)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30, 1000])
def test_oracle_where_scores_crowd_and_where_they_vanish(run_other, scale):
    inputs = scene(np.random.default_rng(11), 2, 1500, 30, num_classes=6)
    inputs[2][...] *= F(scale)
    for ratio in (0.3, 2, 17):
        options = dict(negative_mining_ratio=ratio)
        want = cvops.multibox_target(*inputs, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, *inputs, **options), want)


def assert_all_equal_the_oracle(in_every_way, inputs, **options):
    want = cvops.multibox_target(*inputs, **options, backend="numpy")
    for got in in_every_way(lambda: cvops.multibox_target(*inputs, **options, backend="native")):
        assert_equal(got, want)


@pytest.mark.parametrize("num_images", [1, 4])
@pytest.mark.parametrize("num_anchors", [1, 31, 32, 33, 255, 257, 1023, 1025, 2049])
def test_threads_and_vectors_do_not_change_a_bit(in_every_way, num_anchors, num_images):
    inputs = scene(np.random.default_rng(num_anchors), num_images, num_anchors, 6, 16, 7)
    for options in OPTIONS:
        assert_all_equal_the_oracle(in_every_way, inputs, **options)


def test_threads_that_share_an_image_do_not_change_a_bit(in_every_way):
    inputs = scene(np.random.default_rng(13), 1, 20000, 9, 32, 21)
    for options in (OPTIONS[0], OPTIONS[3]):
        assert_all_equal_the_oracle(in_every_way, inputs, **options)


def test_outputs_beyond_the_caches():
    # 36 bytes of outputs for each of 120 x 4100 anchors are more than 2^24; a third of them is not.
    anchors, label, logits = scene(np.random.default_rng(14), 120, 4100, 5)
    options = dict(negative_mining_ratio=3)
    whole = cvops.multibox_target(anchors, label, logits, **options)
    for first in range(0, 120, 40):
        some = slice(first, first + 40)
        part = cvops.multibox_target(anchors, label[some], logits[some], **options)
        assert_equal([x[some] for x in whole], part)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("steps", [3, 10, 40])
def test_bounds_of_blocks_leave_nothing_out(in_every_way, seed, steps):
    # Anchors of a map, of few sizes, so that a block of them lies close together.
    rng = np.random.default_rng(seed)
    side = int(rng.integers(2, 24))
    anchors = cvops.multibox_prior((side, side), rng.uniform(0.05, 0.9, 2).tolist(), (1, 2, 0.5))
    anchors = np.round(anchors * F(steps)) / F(steps) if seed % 2 else anchors
    _, label, logits = scene(rng, 3, anchors.shape[1], 12, steps)
    for options in OPTIONS:
        assert_all_equal_the_oracle(in_every_way, (anchors, label, logits), **options)


@pytest.mark.parametrize("scale", [1e-22, 3e-20, 1e-15, 1e17, 1e19, 2e19])
def test_areas_near_the_ends_of_the_floats(in_every_way, scale):
    # Squared, these scales give areas from denormal to infinite.
    rng = np.random.default_rng(15)
    anchors, label, logits = scene(rng, 3, 900, 9)
    anchors[0, ::3] *= F(scale)
    anchors[0, 1::3] *= F(scale) * rng.random((300, 1)).astype(F)
    label[..., 1:] *= np.where(label[..., :1] == -1, F(1), F(scale))
    for threshold in (0.5, 1e-3, 1e-7, 1e-30):
        assert_all_equal_the_oracle(
            in_every_way, (anchors, label, logits), overlap_threshold=threshold
        )
        assert_all_equal_the_oracle(
            in_every_way,
            (anchors, label, logits),
            overlap_threshold=threshold,
            negative_mining_ratio=2,
            negative_mining_thresh=1e-6,
        )


LOGITS_OF = {
    "equal": lambda rng, shape: np.zeros(shape),
    "a last bit apart": lambda rng, shape: 1 + rng.integers(0, 4, shape) * 2.0**-23,
    "close": lambda rng, shape: rng.normal(size=shape) * 1e-4,
    "far apart": lambda rng, shape: rng.normal(size=shape) * 60,
    "as far apart as the rough ones are sure": lambda rng, shape: rng.choice(
        [0, 69, 69.3, 69.4, 70, 87, 88, 89, 104], shape
    ),
    "of every size": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.uniform(-8, 38, shape),
    "mostly NaN": lambda rng, shape: np.where(rng.random(shape) < 0.7, NAN, rng.normal(size=shape)),
    "NaN": lambda rng, shape: np.full(shape, NAN),
    "some infinite": lambda rng, shape: np.where(
        rng.random(shape) < 0.1, rng.choice([np.inf, -np.inf], shape), rng.normal(size=shape)
    ),
    "mostly -inf": lambda rng, shape: np.where(rng.random(shape) < 0.8, -np.inf, 1.0),
    "one NaN first": lambda rng, shape: np.where(np.arange(shape[-1]), np.zeros(shape), NAN),
    "two sizes": lambda rng, shape: rng.choice([0.0, 1e-7, 5.0], shape),
    # The kernels are sure up to 2^63: 63 ln 2 = 43.668.
    "as far apart as the kernels are sure": lambda rng, shape: rng.choice(
        [0, 1, 42, 43.6, 43.668, 43.6683, 43.7, 44, 60], shape
    ),
    # One softmax, but for the roundings of its sum.
    "the same in another order": lambda rng, shape: rng.permuted(
        np.broadcast_to(np.linspace(-2, 2, shape[1])[:, None], shape), axis=1
    ),
    "denormal": lambda rng, shape: rng.normal(size=shape) * 1e-40,
    "a crowd and a few": lambda rng, shape: np.where(
        rng.random(shape) < 0.01, rng.normal(size=shape) * 5, rng.normal(size=shape) * 1e-5
    ),
}


@pytest.mark.parametrize("num_classes", [1, 2, 5, 12])
@pytest.mark.parametrize("logits", LOGITS_OF.values(), ids=LOGITS_OF)
def test_adversarial_logits(in_every_way, logits, num_classes):
    rng = np.random.default_rng(16)
    anchors, label, _ = scene(rng, 2, 1300, 10)
    with np.errstate(over="ignore"):
        cls_pred = logits(rng, (2, num_classes, 1300)).astype(F)
    for ratio in (0.02, 1, 7, 1e3):
        for threshold in (0.5, 0.05):
            assert_all_equal_the_oracle(
                in_every_way,
                (anchors, label, cls_pred),
                negative_mining_ratio=ratio,
                negative_mining_thresh=threshold,
            )


@pytest.mark.parametrize("num_classes", [1, 2, 21, 81])
@pytest.mark.parametrize("logits", LOGITS_OF.values(), ids=LOGITS_OF)
def test_oracle_with_adversarial_logits(run_other, logits, num_classes):
    rng = np.random.default_rng(17)
    anchors, label, _ = scene(rng, 2, 900, 10)
    with np.errstate(over="ignore"):
        cls_pred = logits(rng, (2, num_classes, 900)).astype(F)
    for ratio in (0.02, 1, 7):
        options = dict(negative_mining_ratio=ratio)
        want = cvops.multibox_target(anchors, label, cls_pred, **options, backend="numpy")
        assert_equal(run_other(cvops.multibox_target, anchors, label, cls_pred, **options), want)


@pytest.mark.parametrize("sanitizer", [None, "address"])
def test_a_block_that_has_more_to_look_at_than_it_lists(sanitizer):
    num, half = 9001, 0x3F000000  # the bits of 0.5
    rough = 0x5F040000 - 0x40000000  # of 1 / 0.5
    arena = Arena()

    def placed(value, *shape, dtype):
        array = arena.array(shape, dtype)
        array[:] = value
        return array

    states = placed(0x7FFFFFFE, num + 3, dtype=np.int32)
    scores = placed(rough, num + 3, dtype=np.uint32)
    bins = placed(0, 2048, dtype=np.uint32)
    bins[rough >> 18] = num
    wanted, bounds = placed(7, 1, dtype=np.int32), placed(0, 1, dtype=np.uint64)
    finished, logits = placed(0, 1, dtype=np.uint32), placed(0, 2, num, dtype=F)
    in_use = states, None, None, None, 0, wanted, bounds, scores, bins, finished
    buffers = np.zeros((), BUFFERS)
    for field, array in zip(BUFFERS.names, in_use):
        buffers[field] = array.ctypes.data if isinstance(array, np.ndarray) else 0
    shape = np.array((1, num, 1, 5, 2), SHAPE)
    backends.module("mining", sanitizer).launch(
        "multibox_target_refine",
        (1, 1, 1),
        (512, 1, 1),
        (buffers, np.uintp(logits.ctypes.data), shape, np.int32(1)),
        arena=arena if sanitizer else None,
    )
    np.testing.assert_array_equal(states[:num], 0x40000000 + half)
    assert int(bounds[0]) == half << 32 | 7  # anchors 0 to 6


def test_oracle_with_more_tiles_than_slots(run_other):
    # Each truth is an anchor among the first 512 of a slot, which looks at others after them.
    anchors, label, logits = scene(np.random.default_rng(18), 1, 512 * 512 + 1111, 3, 0, 2)
    anchors[0, [1100, 600, 5]] = label[0, :, 1:]
    options = dict(overlap_threshold=0, negative_mining_ratio=3)
    want = cvops.multibox_target(anchors, label, logits, **options, backend="numpy")
    assert (want[2][0, [1100, 600, 5]] > 0).all()
    assert_equal(run_other(cvops.multibox_target, anchors, label, logits, **options), want)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 21, 81, 1000])
@pytest.mark.parametrize("scale", [1e-30, 1e-4, 0.3, 1, 4, 12, 30, 1e3, 1e30])
def test_a_rough_score_is_as_near_as_the_kernels_take_for_granted(scale, num_classes):
    """What rough_error of the kernels bounds, here with a quarter of it to be left."""
    rng = np.random.default_rng(num_classes)
    num = 400_000 // (10 + num_classes) * 4
    logits = (rng.normal(size=(num_classes, num)) * scale).astype(F)
    logits[:, ::7] = np.round(logits[:, ::7])
    logits[0, 1::3] += F(rng.choice([-40, -20, 20, 40]))  # most sums are large, or 1
    logits[:, 2::50] = rng.choice(a([NAN, np.inf, -np.inf, 0, 3e38]), logits[:, 2::50].shape)
    scores, bins = np.empty(num, np.uint32), np.zeros(2048, np.uint32)
    states = np.full(num, 0x7FFFFFFE, np.int32)  # candidates without a score
    shape = np.array((1, num, 1, 5, num_classes), SHAPE)
    backends.module("mining").launch(
        "multibox_target_score",
        (-(-num // 2048), 1, 1),
        (256, 1, 1),
        (scores, bins, states, logits, np.ones(1, np.int32), shape),
    )
    np.testing.assert_array_equal(bins, np.bincount(scores >> 18, minlength=2048))
    rough = (np.uint32(0x5F040000) - scores).view(F).astype(np.float64)
    exact = softmax_of_class_0(logits)
    sure = scores > 0
    error = 2.0**-13 + num_classes * 2.0**-21
    assert np.abs(rough[sure] * exact[sure] - 1).max(initial=0) <= 0.75 * error
    assert not (exact[~sure] > 1.001 * 2.0**-63).any()
    assert sure.any() or scale > 100


def softmax_of_class_0(logits):
    """As the kernels compute it, in float64 from there."""
    top = np.fmax.reduce(logits[1:], initial=-np.inf)
    top = np.where(top > logits[0], top, logits[0])
    with np.errstate(all="ignore"):
        exp = _exp_log.exp(logits - top)
        total = np.zeros_like(top)
        for row in exp:
            total += row
        return (exp[0] / total).astype(np.float64)


def test_the_launches_depend_on_shapes_alone(launches):
    anchors, label, _ = scene(np.random.default_rng(19), 2, 900, 10)
    seen = set()
    for labels in (label, np.full_like(label, -1)):
        for logits in LOGITS_OF.values():
            with np.errstate(over="ignore"):
                cls_pred = logits(np.random.default_rng(20), (2, 3, 900)).astype(F)
            cvops.multibox_target(
                anchors, labels, cls_pred, negative_mining_ratio=3, backend="emulated"
            )
            seen.add(tuple(launch[:4] for launch in launches))
            launches.clear()
    assert len(seen) == 1
    assert [kernel.rpartition("_")[2] for kernel, *_ in seen.pop()] == [
        *("match", "assign", "score", "refine", "write")
    ]


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kernels_are_right_on_any_grid_and_in_any_order(monkeypatch, grid, seed):
    def small(launch):
        return launch._replace(grid=tuple(map(min, launch.grid, grid)))

    monkeypatch.setattr(backends, "on_launch", small)
    monkeypatch.setattr(backends, "SEED", seed)
    inputs = scene(np.random.default_rng(5), 4, 1100, 13, 8)
    for options in OPTIONS[::3]:
        want = cvops.multibox_target(*inputs, **options, backend="numpy")
        assert_equal(cvops.multibox_target(*inputs, **options, backend="emulated"), want)


def test_zeros_of_two_signs_as_an_option(run):
    for zero in (0.0, -0.0, 0.0):
        label = np.full_like(LABEL, -1)
        *_, cls = run(cvops.multibox_target, ANCHORS, label, SCORES, ignore_label=zero)
        assert (np.signbit(cls) == (str(zero) == "-0.0")).all()
        assert (cls == 0).all()


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[3]], ids=str)
def test_sanitized(run_sanitized, options):
    inputs = scene(np.random.default_rng(6), 2, 150, 9, 8)
    inputs[1][0, 3:7] = inputs[1][0, 3]  # some look for another anchor
    want = cvops.multibox_target(*inputs, **options, backend="numpy")
    assert_equal(run_sanitized(cvops.multibox_target, *inputs, **options), want)


@pytest.mark.parametrize("name", ["a last bit apart", "some infinite"])
def test_sanitized_with_adversarial_logits(run_sanitized, name):
    rng = np.random.default_rng(23)
    anchors, label, _ = scene(rng, 2, 602, 4)
    cls_pred = LOGITS_OF[name](rng, (2, 3, 602)).astype(F)
    options = dict(negative_mining_ratio=2)
    want = cvops.multibox_target(anchors, label, cls_pred, **options, backend="numpy")
    assert_equal(run_sanitized(cvops.multibox_target, anchors, label, cls_pred, **options), want)


# Properties.


def test_the_first_stage_gives_each_truth_one_anchor_and_is_stable(run):
    anchors, label, logits = scene(np.random.default_rng(7), 3, 400, 25, 16)
    label[:, :, 0] = np.where(label[:, :, 0] == -1, -1, np.arange(25))  # the class tells the truth
    _, _, cls = run(cvops.multibox_target, anchors, label, logits, overlap_threshold=0.0)
    for image, classes in enumerate(cls):
        truths = label[image][label[image, :, 0] != -1]
        iou = cvops.box_iou(anchors[0], np.ascontiguousarray(truths[:, 1:5]), backend="numpy")
        given = np.flatnonzero(classes > 0)
        owner = classes[given].astype(int) - 1
        assert len(set(owner)) == len(owner)
        # No anchor and truth would both rather have one another.
        of_anchor, of_truth = np.zeros(len(iou)), np.zeros(len(truths))
        of_anchor[given] = of_truth[owner] = iou[given, owner]
        rather = (iou > of_anchor[:, None]) & (iou > of_truth) & (iou > F(1e-6))
        assert not rather.any()
        assert len(given) > 0 or len(truths) == 0


def test_images_do_not_touch_one_another(run):
    anchors, label, logits = scene(np.random.default_rng(8), 6, 300, 8)
    options = dict(negative_mining_ratio=2)
    whole = run(cvops.multibox_target, anchors, label, logits, **options)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = run(cvops.multibox_target, anchors, label[order], logits[order], **options)
    assert_equal(shuffled, [x[order] for x in whole])
    alone = run(cvops.multibox_target, anchors, label[2:3], logits[2:3], **options)
    assert_equal(alone, [x[2:3] for x in whole])


def test_mined_negatives_look_less_like_background_than_the_rest(run):
    anchors, label, logits = scene(np.random.default_rng(9), 2, 700, 12, num_classes=5)
    _, _, cls = run(cvops.multibox_target, anchors, label, logits, negative_mining_ratio=2)
    for image in range(2):
        truths = label[image][label[image, :, 0] != -1]
        iou = cvops.box_iou(anchors[0], np.ascontiguousarray(truths[:, 1:5]), backend="numpy")
        exp = np.exp(logits[image].astype(np.float64))
        background = exp[0] / exp.sum(axis=0)
        positive, negative = cls[image] > 0, cls[image] == 0
        rest = ~positive & ~negative & (iou.max(axis=1, initial=0) < 0.5)
        assert negative.sum() == 2 * positive.sum() > 0
        assert background[negative].max() < background[rest].min()


# Against MXNet itself.

COORDINATES = st.sampled_from([i / 8 for i in range(9)]) | st.floats(0, 1, width=32)
SPECIAL = COORDINATES | st.sampled_from([NAN, np.inf, -np.inf, -0.5, 2.0])


def draw_array(draw, elements, *shape):
    """Few drawn values stand in many places, which is quick, and makes ties."""
    pool = draw(st.lists(elements, min_size=4, max_size=24))
    places = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, len(pool), shape)
    return a(pool)[places]


@st.composite
def scenes(draw, coordinates, ordered):
    num_images, num_anchors = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    num_truths, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    anchors = draw_array(draw, coordinates, 1, num_anchors, 4)
    label = draw_array(draw, coordinates, num_images, num_truths, 5)
    if ordered:
        for boxes in (anchors, label[..., 1:]):
            boxes[...] = np.concatenate(
                [
                    np.minimum(boxes[..., :2], boxes[..., 2:]),
                    np.maximum(boxes[..., :2], boxes[..., 2:]),
                ],
                axis=-1,
            )
    label[..., 0] = draw_array(draw, st.integers(0, 5), num_images, num_truths)
    for image in range(num_images):
        label[image, draw(st.integers(0, num_truths)) :] = -1
    logits = draw_array(draw, st.floats(-20, 20, width=32), num_images, num_classes, num_anchors)
    return anchors, label, logits


def of_mxnet(mx, inputs, **options):
    out = mx.nd.contrib.MultiBoxTarget(*map(mx.nd.array, inputs), **options)
    return [x.asnumpy() for x in out]


def assert_close_to_mxnet(got, want):
    """Which anchors, the masks and the classes are equal, and the offsets but for the logarithm.

    A logarithm that differs in its last bit may, divided by a variance, differ in two.
    """
    for x, y in zip(got[1:], want[1:]):
        np.testing.assert_array_equal(x, y)
    ours, theirs = got[0].reshape(-1, 4), want[0].reshape(-1, 4)
    np.testing.assert_array_equal(ours[:, :2], theirs[:, :2])
    np.testing.assert_array_max_ulp(ours[:, 2:] + F(0), theirs[:, 2:] + F(0), 2)


@settings(max_examples=150, deadline=None)
@given(
    inputs=scenes(SPECIAL, ordered=False),
    threshold=st.sampled_from([0.5, 0.3, 0.0, -1.0, 0.7]),
    ignore=st.sampled_from([-1.0, -7.5]),
)
def test_as_mxnet(mx, inputs, threshold, ignore):
    options = dict(overlap_threshold=threshold, ignore_label=ignore)
    want = of_mxnet(mx, inputs, **options)
    assert_close_to_mxnet(cvops.multibox_target(*inputs, **options, backend="numpy"), want)


@settings(max_examples=150, deadline=None)
@given(
    inputs=scenes(COORDINATES, ordered=True),
    threshold=st.sampled_from([0.5, 0.3, 0.0]),
    ratio=st.sampled_from([0.5, 1.0, 2.7, 3.0]),
    limit=st.sampled_from([0.5, 0.3, 1.0]),
)
def test_as_mxnet_with_mining(mx, inputs, threshold, ratio, limit):
    options = dict(
        overlap_threshold=threshold, negative_mining_ratio=ratio, negative_mining_thresh=limit
    )
    # One image at a time: where MXNet has too few candidates in one, it gives nothing for any.
    anchors, label, logits = inputs
    for image in range(len(label)):
        one = anchors, label[image : image + 1], logits[image : image + 1]
        got = cvops.multibox_target(*one, **options, backend="numpy")
        try:
            want = of_mxnet(mx, one, **options)
        except mx.base.MXNetError as error:
            refused = str(error)
        else:
            assert_chosen_as_mxnet(got, want, logits[image])
            continue
        assert "temp.size()" in refused
        truths = label[image][label[image, :, 0] != -1]
        iou = cvops.box_iou(anchors[0], np.ascontiguousarray(truths[:, 1:5]), backend="numpy")
        candidates = (got[2][0] <= 0) & (iou.max(axis=1) < F(limit))
        np.testing.assert_array_equal(got[2][0] == 0, candidates)


def assert_chosen_as_mxnet(got, want, logits):
    """As MXNet, but for candidates whose scores the last bit of an exponential puts in order."""
    ours, theirs = got[2][0], want[2][0]
    differ = ours != theirs
    if differ.any():
        exp = np.exp(logits.astype(np.float64) - logits.max(axis=0))
        background = (exp[0] / exp.sum(axis=0))[differ]
        assert background.max() <= background.min() * (1 + 4 * np.finfo(F).eps)
        assert set(ours[differ]) | set(theirs[differ]) == {0, -1}
        assert (ours == 0).sum() == (theirs == 0).sum()
    assert_close_to_mxnet((got[0], got[1]), (want[0], want[1]))


def test_how_often_another_negative_is_chosen_than_by_mxnet(mx):
    # 1000 logits that are close to one another, so that a last bit has a chance.
    anchors, label, logits = scene(np.random.default_rng(10), 8, 1000, 20, num_classes=4)
    logits *= F(1e-3)
    options = dict(negative_mining_ratio=4)
    got = cvops.multibox_target(anchors, label, logits, **options)
    want = of_mxnet(mx, (anchors, label, logits), **options)
    for image in range(8):
        rows = [[x[image : image + 1] for x in out] for out in (got, want)]
        assert_chosen_as_mxnet(*rows, logits[image])
    negatives = (want[2] == 0).sum()
    assert negatives > 100
    assert (got[2] != want[2]).sum() <= 0.02 * negatives


# Refusals.

LABEL, SCORES = np.full((2, 3, 5), -1, F), np.zeros((2, 4, 5), F)
HALF = LABEL.copy()
HALF[1] = SAME, SAME, (-1, -1, 0.5, -1, -1)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (([1], LABEL, SCORES), {}, TypeError, "anchor: expected an array .* got list"),
        (
            (ANCHORS.astype("f8"), LABEL, SCORES),
            {},
            TypeError,
            "anchor: expected float32, got float64",
        ),
        (
            (ANCHORS[0], LABEL, SCORES),
            {},
            ValueError,
            r"anchor: expected shape \(1, A, 4\), got \(5, 4\)",
        ),
        ((np.repeat(ANCHORS, 2, 0), LABEL, SCORES), {}, ValueError, r"anchor: .* got \(2, 5, 4\)"),
        (
            (ANCHORS[:, :0], LABEL, SCORES[..., :0]),
            {},
            ValueError,
            "anchor: expected from 1 .* got 0",
        ),
        (
            (ANCHORS, LABEL[..., :4], SCORES),
            {},
            ValueError,
            r"label: .* 5 or more, got shape \(2, 3, 4\)",
        ),
        (
            (ANCHORS, LABEL[0], SCORES),
            {},
            ValueError,
            r"label: expected shape \(B, G, W\), got \(3, 5\)",
        ),
        (
            (ANCHORS, LABEL, SCORES[:1]),
            {},
            ValueError,
            r"cls_pred: .* B = 2 as in label, got \(1, 4, 5\)",
        ),
        (
            (ANCHORS, LABEL, SCORES[..., 1:]),
            {},
            ValueError,
            r"cls_pred: .* A = 5 as in anchor, got",
        ),
        (
            (ANCHORS, np.zeros((0, 2**30, 5), F), SCORES[:0]),
            {},
            ValueError,
            "label: expected fewer than 2\\^30 truths an image, got 1073741824",
        ),
        (
            (ANCHORS, LABEL, SCORES[:, :0]),
            {},
            ValueError,
            r"cls_pred: expected one class .* \(2, 0, 5\)",
        ),
        (
            (ANCHORS, LABEL, SCORES),
            dict(overlap_threshold=NAN),
            ValueError,
            "overlap_threshold: .* nan",
        ),
        ((ANCHORS, LABEL, SCORES), dict(ignore_label="x"), TypeError, "ignore_label: .* got 'x'"),
        (
            (ANCHORS, LABEL, SCORES),
            dict(negative_mining_ratio=3, negative_mining_thresh=0),
            ValueError,
            "negative_mining_thresh: expected a positive number, got 0",
        ),
        (
            (ANCHORS, LABEL, SCORES),
            dict(variances=(1, 2)),
            ValueError,
            r"variances: .* got \(1, 2\)",
        ),
        (
            (ANCHORS, LABEL, SCORES),
            dict(minimum_negative_samples=0.5),
            TypeError,
            "minimum_negative_samples: expected an integer, got 0.5",
        ),
        ((ANCHORS, LABEL, SCORES), dict(backend="x"), ValueError, "backend: .* got 'x'"),
    ],
)
def test_refused(inputs, options, error, message):
    with pytest.raises(error, match=message):
        cvops.multibox_target(*inputs, **options)


@pytest.mark.parametrize("place", PLACES[:2], ids="-".join)
def test_padding_with_corners_is_refused_on_the_cpu(place):
    half = HALF.copy()
    half[1, 2, 2:] = 0.1, -1, 1e-20
    message = r"label: .* got \[-1, 0\.100000001, -1, 9\.99999968e-21\] in image 1, row 2$"
    with pytest.raises(ValueError, match=message):
        runner(*place)(cvops.multibox_target, ANCHORS, half, SCORES)


@pytest.mark.parametrize("place", PLACES[2:], ids="-".join)
def test_padding_with_corners_ends_the_truths_on_a_gpu(place):
    half = HALF.copy()
    half[1, 0] = SAME
    half[1, 1] = (-1, 0.5, 0.5, 0.9, 0.9)
    half[1, 2] = (8, 0.5, 0.5, 0.9, 0.9)
    _, _, cls = runner(*place)(cvops.multibox_target, ANCHORS, half, SCORES)
    np.testing.assert_array_equal(cls, [[-1] * 5, [4, 0, 4, 0, 0]])


def test_an_mxnet_label_that_is_refused(mx):
    with pytest.raises(mx.base.MXNetError, match="Check failed"):
        of_mxnet(mx, (ANCHORS, HALF, SCORES))
