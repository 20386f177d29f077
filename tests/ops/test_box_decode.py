from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_decode, box_encode

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -1.0, 200.0]
#: float32's e, which is the size of the box of the offset 1 and the anchor 1.
E = np.float32(2.71828182845904523536)


def f32(x):
    return np.array(x, np.float32)


def random_case(rng, batch, num, special=0.0):
    data, anchors = rng.normal(size=(batch, num, 4)), 4 * rng.random((1, num, 4))
    data[rng.random(data.shape) < special] = rng.choice(SPECIAL)
    anchors[rng.random(anchors.shape) < special] = rng.choice(SPECIAL)
    return f32(data), f32(anchors)


class TestByHand:
    # The anchor's center is (2, 3), its size (4, 2).
    CENTER, CORNER = f32([[[2, 3, 4, 2]]]), f32([[[0, 2, 4, 4]]])

    @pytest.mark.parametrize("format", ["center", "corner"])
    def test_anchor_of_each_format_gives_corners(self, run, format):
        # Center (0.5 * 4 + 2, -1 * 2 + 3) = (4, 1), half size exp(0) (4, 2) / 2 = (2, 1).
        anchors = self.CENTER if format == "center" else self.CORNER
        out = run(box_decode, f32([[[0.5, -1, 0, 0]]]), anchors, format=format)
        np.testing.assert_array_equal(out, f32([[[2, 0, 6, 2]]]))
        assert out.dtype == np.float32

    def test_format_of_anchors_is_center_by_default(self, run):
        out = run(box_decode, np.zeros((1, 1, 4), np.float32), self.CENTER)
        np.testing.assert_array_equal(out, self.CORNER)

    def test_each_offset_has_its_factor(self, run):
        # Center (1 * 0.5 * 4 + 2, 1 * 0.25 * 2 + 3), half size (exp(1) * 2, exp(-1 * -1) * 1).
        out = run(box_decode, f32([[[1, 1, 2, -1]]]), self.CENTER, 0.5, 0.25, 0.5, -1)
        np.testing.assert_array_equal(out, [[[4 - 2 * E, f32(3.5) - E, 4 + 2 * E, f32(3.5) + E]]])

    @pytest.mark.parametrize(
        ("offset", "clip", "size"),
        [
            (5, 1, E),
            (1, 5, E),
            (np.nan, 1, E),
            (np.inf, 1, E),
            (-np.inf, 1, 0),
            (5, 0, np.exp(f32(5))),
            (np.nan, 0, np.nan),
            (100, -1, np.inf),
        ],
    )
    def test_positive_clip_is_an_upper_bound(self, run, offset, clip, size):
        data, anchors = f32([[[0, 0, offset, offset]]]), f32([[[0, 0, 2, 2]]])
        out = run(box_decode, data, anchors, clip=clip)
        np.testing.assert_array_equal(out, f32([[[-size, -size, size, size]]]))

    def test_anchors_are_those_of_every_image(self, run):
        anchors = f32([[[0, 0, 2, 2], [5, 7, 2, 4]]])
        out = run(box_decode, np.zeros((3, 2, 4), np.float32), anchors)
        np.testing.assert_array_equal(out, f32([[[-1, -1, 1, 1], [4, 5, 6, 9]]] * 3))


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize(("batch", "num"), [(1, 1), (3, 7), (2, 300), (1, 1000), (40, 3)])
def test_backend_gives_the_bits_of_the_reference(run, batch, num, format):
    rng = np.random.default_rng(num)
    for special in (0.0, 0.1):
        data, anchors = random_case(rng, batch, num, special)
        for clip in (-1, 0.5):
            args = data, anchors, 0.1, 0.2, 0.3, 0.4, clip, format
            want = box_decode(*args, backend="numpy")
            np.testing.assert_array_equal(run(box_decode, *args), want)


@pytest.mark.parametrize("num", [1, 7, 255, 256, 257, 5000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num):
    args = *random_case(np.random.default_rng(num), 3, num, 0.02), 0.1, 0.1, 0.2, 0.2, 2, "corner"
    want = box_decode(*args, backend="numpy")
    for out in cpu_variants(partial(box_decode, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


def assert_equal_but_for_exp(ours, theirs):
    """Compare boxes whose half sizes may differ by one unit in the last place of exp."""
    half = np.abs(theirs[..., 2:] - theirs[..., :2]) / 2
    bound = np.spacing(np.concatenate([half, half], axis=-1)) + np.spacing(np.abs(theirs))
    finite = np.isfinite(theirs) & np.isfinite(bound)
    np.testing.assert_array_equal(ours[~finite], theirs[~finite])
    assert (np.abs(ours - theirs)[finite] <= bound[finite]).all()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    special=st.sampled_from([0.0, 0.05, 0.3]),
    clip=st.sampled_from([-1, 0, 0.25, 3]),
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("format", ["corner", "center"])
def test_equals_mxnet(mx, backend, format, seed, special, clip):
    rng = np.random.default_rng(seed)
    data, anchors = random_case(rng, rng.integers(1, 4), rng.integers(1, 40), special)
    stds = rng.choice([1, 0.1, 0.2, -0.5, 0], 4).tolist()
    theirs = mx.nd.contrib.box_decode(
        mx.nd.array(data), mx.nd.array(anchors), *stds, clip, format
    ).asnumpy()
    with np.errstate(all="ignore"):
        assert_equal_but_for_exp(
            box_decode(data, anchors, *stds, clip, format, backend=backend), theirs
        )


@pytest.mark.parametrize("num", [1, 31, 97])
@pytest.mark.parametrize("grid", [(1, 1), (4, 2), (9, 1)])
def test_kernel_covers_all_images_on_any_grid(monkeypatch, grid, num):
    def on_another_grid(launch):
        tiles = max(grid[0], -(-num // 32))
        return launch._replace(grid=(tiles, grid[1]), block=(32,))

    monkeypatch.setattr(backends, "on_launch", on_another_grid)
    data, anchors = random_case(np.random.default_rng(num), 5, num)
    out = box_decode(data, anchors, backend="emulated")
    np.testing.assert_array_equal(out, box_decode(data, anchors, backend="numpy"))


def test_sanitized(run_sanitized):
    data, anchors = random_case(np.random.default_rng(2), 3, 37, 0.1)
    out = run_sanitized(box_decode, data, anchors, clip=1)
    np.testing.assert_array_equal(out, box_decode(data, anchors, clip=1, backend="numpy"))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_inputs_give_an_empty_result(run, shape):
    out = run(box_decode, np.zeros((*shape, 4), np.float32), np.zeros((1, shape[1], 4), np.float32))
    assert out.shape == (*shape, 4)


def test_decode_inverts_encode():
    rng = np.random.default_rng(3)
    corners = f32(np.sort(rng.random((2, 50, 2, 2)), axis=2)).reshape(2, 50, 4)
    ones, at = np.ones((1, 50), np.float32), f32(np.arange(50))[None]
    means, stds = np.zeros(4, np.float32), f32([0.1, 0.1, 0.2, 0.2])
    for run in (runner("cpu", "numpy"), runner("cpu", "native")):
        targets, _ = run(box_encode, ones, at, corners[:1], corners[1:], means, stds)
        boxes = run(box_decode, targets, corners[:1], *stds.tolist(), format="corner")
        np.testing.assert_allclose(boxes[0], corners[1], atol=1e-5)


DATA, ANCHORS = np.zeros((2, 3, 4), np.float32), np.zeros((1, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": DATA[0]}, ValueError, r"data: expected shape \(B, N, 4\), got \(3, 4\)"),
        ({"data": DATA[..., :3]}, ValueError, r"data: .* got \(2, 3, 3\)"),
        ({"data": DATA.astype("i4")}, TypeError, "data: expected float32, float64, .* got int32"),
        (
            {"anchors": ANCHORS[:, :2]},
            ValueError,
            r"anchors: expected shape \(1, N, 4\) with N = 3 as in data, got \(1, 2, 4\)",
        ),
        ({"anchors": DATA}, ValueError, r"anchors: expected shape \(1, N, 4\).* got \(2, 3, 4\)"),
        ({"anchors": ANCHORS[0]}, ValueError, r"anchors: expected .* got \(3, 4\)"),
        ({"anchors": ANCHORS.tolist()}, TypeError, "anchors: expected an array .*, got list"),
        ({"std0": "wide"}, TypeError, "std0: expected a number, got 'wide'"),
        ({"std1": None}, TypeError, "std1: expected a number, got None"),
        ({"std2": np.nan}, ValueError, "std2: expected a number, got nan"),
        ({"std3": True}, TypeError, "std3: expected a number, got True"),
        ({"clip": np.nan}, ValueError, "clip: expected a number, got nan"),
        ({"format": "corners"}, ValueError, r"format: expected one of .*, got 'corners'"),
        (
            {"data": np.broadcast_to(np.float32(0), (2**31, 3, 4))},
            ValueError,
            r"data: expected sizes below 2\*\*31, got shape \(2147483648, 3, 4\)",
        ),
    ],
)
def test_bad_argument_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        box_decode(**{"data": DATA, "anchors": ANCHORS, **change})
