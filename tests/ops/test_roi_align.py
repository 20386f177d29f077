import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import roi_align, roi_align_backward

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def count_up(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def align(run, data, rois, size, scale=1.0, **options):
    return run(roi_align, f32(data), f32(rois), size, scale, **options)


class TestByHand:
    examples = {
        "adaptive": {},
        "one sample": {"sample_ratio": 1},
        "four samples": {"sample_ratio": 2},
    }

    @pytest.mark.parametrize("options", examples.values(), ids=examples)
    def test_means_of_a_plane_are_the_values_at_the_centers_of_the_bins(self, run, options):
        # The value at row y and column x is 6 y + x. The centers of the bins are 1 and 3.
        out = align(run, count_up(1, 1, 8, 6), [[0, 0, 0, 4, 4]], (2, 2), **options)
        np.testing.assert_array_equal(out[0, 0], [[7, 9], [19, 21]])
        assert out.dtype == np.float32

    def test_aligned_moves_the_samples_by_half_a_pixel(self, run):
        # The centers are 0.5 and 2.5: 6 * 0.5 + 0.5 = 3.5.
        out = align(
            run, count_up(1, 1, 8, 6), [[0, 0, 0, 4, 4]], (2, 2), sample_ratio=2, aligned=True
        )
        np.testing.assert_array_equal(out[0, 0], [[3.5, 5.5], [15.5, 17.5]])

    #: First and last coordinate of an RoI, options, and the mean of a row of values 1 to 6.
    rows = {
        "sample between pixels": (1, 2.5, {}, 1 + 1.75),
        "scale": (2, 5, {"scale": 0.5}, 1 + 1.75),
        # Positions -1 and 0: both have the value of the first pixel.
        "sample one pixel before the map": (-1.5, 0.5, {"sample_ratio": 2}, 1),
        # Positions -1.25 and -0.25.
        "sample more than one pixel before the map": (-1.75, 0.25, {"sample_ratio": 2}, 0.5),
        # Positions 5.5 and 6.5, of which the map has pixels up to 5 and positions up to 6.
        "sample after the map": (5, 7, {"sample_ratio": 2}, 3),
        "sample at the end of the map": (5.5, 6.5, {}, 6),
        # One pixel long: the center is 3.
        "inverted": (2.5, 1, {}, 1 + 3),
        "short": (2.5, 2.75, {}, 1 + 3),
        # The samples are at 2.5 - 0.25 * 1.5 and 2.5 - 0.75 * 1.5, minus 0.5: the mean is 1.25.
        "inverted, aligned": (2.5, 1, {"sample_ratio": 2, "aligned": True}, 1 + 1.25),
        "inverted, aligned, adaptive": (2.5, 1, {"aligned": True}, 0),
        "empty, aligned": (2.5, 2.5, {"sample_ratio": 2, "aligned": True}, 1 + 2),
        "empty, aligned, adaptive": (2.5, 2.5, {"aligned": True}, 0),
        # ceil(2.5) = 3 samples, at 2.5 / 6, 1.25 and 12.5 / 6.
        "adaptive": (0, 2.5, {}, 1 + 1.25),
        "NaN": (0, NAN, {}, 0),
        "NaN, three samples": (NAN, 2, {"sample_ratio": 3}, 0),
        "infinite end": (0, INF, {}, 0),
        "infinite end, three samples": (0, INF, {"sample_ratio": 3}, 0),
        "infinite begin": (-INF, 2, {"sample_ratio": 1, "aligned": True}, 0),
        "infinite begin and end": (INF, INF, {}, 0),
        "length of 2^31 pixels": (-(2.0**30), 2.0**30, {}, 0),
    }

    @pytest.mark.parametrize(("first", "last", "options", "want"), rows.values(), ids=rows)
    def test_samples_of_an_axis(self, run, first, last, options, want):
        # The other axis has two equal pixels, and its samples are in the map.
        row = f32([1, 2, 3, 4, 5, 6])
        options = {"scale": 1.0, **options}
        other = 1 / options["scale"]
        wide = align(
            run, np.tile(row, (1, 1, 2, 1)), [[0, first, 0, last, other]], (1, 1), **options
        )
        high = align(
            run, np.tile(row, (1, 1, 2, 1)).swapaxes(2, 3).copy(),
            *([[0, 0, first, other, last]], (1, 1)), **options
        )  # fmt: skip
        np.testing.assert_allclose([wide.item(), high.item()], want, rtol=1e-6)

    def test_millions_of_samples_count_outside_of_the_map(self, run):
        # A bin of 2^21 pixels has 2^21 samples at distance 1. Those at -0.5, 0.5, 1.5, 2.5 and 3.5
        # are in the map, whose values are 1. The other axis has one sample.
        ones = np.ones((1, 1, 2, 4))
        out = align(run, ones, [[0, -(2.0**20), 0, 2.0**20, 1]], (1, 1))
        assert out.item() == 5 / 2**21

    def test_order_of_a_sum_is_by_rows_of_samples(self, run):
        # Four samples at the pixels: 1e8 + 1 is 1e8 in float32, so another order gives 1 / 4.
        data = [[[[1e8, 1], [-1e8, 0]]]]
        out = align(run, data, [[0, -0.5, -0.5, 1.5, 1.5]], (1, 1), sample_ratio=2)
        assert out.item() == 0
        out = align(
            run, np.swapaxes(data, 2, 3), [[0, -0.5, -0.5, 1.5, 1.5]], (1, 1), sample_ratio=2
        )
        assert out.item() == 0.25

    def test_position_sensitive_bins_read_their_own_channels(self, run):
        # Channel (c * 2 + i) * 3 + j has the value 100 c + 10 i + j.
        values = [100 * c + 10 * i + j for c in range(2) for i in range(2) for j in range(3)]
        data = f32(values).reshape(1, 12, 1, 1) * np.ones((1, 1, 4, 5), np.float32)
        out = align(run, data, [[0, 0, 0, 3, 3]], (2, 3), position_sensitive=True)
        assert out.shape == (1, 2, 2, 3)
        np.testing.assert_array_equal(out.reshape(-1), values)
        grad = run(
            roi_align_backward, out, f32([[0, 0, 0, 3, 3]]), data.shape, 1.0,
            position_sensitive=True,
        )  # fmt: skip
        np.testing.assert_allclose(grad.sum(axis=(2, 3)).reshape(-1), values, rtol=1e-6)

    @pytest.mark.parametrize(("index", "want"), [(0, 5), (1, 6), (1.9, 6), (-0.9, 5)])
    def test_image_index_is_truncated(self, run, index, want):
        data = f32([[[[5.0]]], [[[6.0]]]])
        assert align(run, data, [[index, 0, 0, 0, 0]], (1, 1)).item() == want

    def test_roi_of_a_missing_image_gives_zeros_and_no_gradient(self, run):
        indices = [-1, 2, NAN, INF, -INF, 2.0**31, 2.0**32, -(2.0**32)]
        rois = f32([[index, 0, 0, 0, 0] for index in indices])
        data = np.full((2, 3, 1, 1), NAN, np.float32)
        out = align(run, data, rois, (2, 1))
        np.testing.assert_array_equal(out, np.zeros((8, 3, 2, 1)))
        grad = run(roi_align_backward, np.ones_like(out), rois, data.shape, 1.0)
        np.testing.assert_array_equal(grad, np.zeros(data.shape))

    def test_sample_outside_adds_zero_times_the_first_pixel(self, run):
        # The bins are at columns 0.5 and 1.5 of a map of one column. Position 1.5 is outside.
        data = f32([2, INF, NAN]).reshape(1, 3, 1, 1)
        out = align(run, data, [[0, 0, 0, 2, 1]], (1, 2))
        np.testing.assert_array_equal(out[0, :, 0], [[2, 0], [NAN, NAN], [NAN, NAN]])
        data = np.tile(data, (1, 1, 1, 2))
        data[..., 0] = 1
        out = align(run, data, [[0, 1, 0, 5, 1]], (1, 2), sample_ratio=1)
        np.testing.assert_array_equal(out[0, :, 0], [[2, 0], [NAN, 0], [NAN, 0]])

    def test_gradient_of_one_sample_is_its_weights(self, run):
        # The position is row 0.25, column 1.75: weights 0.75 and 0.25, 0.25 and 0.75.
        rois = f32([[0, 1.25, -0.25, 2.25, 0.75]])
        grad = run(roi_align_backward, f32([[[[16]]]]), rois, (1, 1, 2, 4), 1.0)
        np.testing.assert_array_equal(grad[0, 0], [[0, 3, 9, 0], [0, 1, 3, 0]])

    def test_gradients_are_summed_in_order_of_rois(self, run):
        # 1e8 + 1 is 1e8 in float32: the sum in order is 0, another order gives 1.
        rois = np.zeros((3, 5), np.float32)
        out_grad = f32([1e8, 1, -1e8]).reshape(3, 1, 1, 1)
        args = rois, (1, 1, 1, 1), 1.0
        assert run(roi_align_backward, out_grad, *args).item() == 0
        assert run(roi_align_backward, out_grad[[0, 2, 1]], *args).item() == 1

    def test_gradients_are_summed_in_order_of_bins(self, run):
        rois = f32([[0, 0, 0, 1, 1]])
        for values, want in (([1e8, 1, -1e8], 0), ([1e8, -1e8, 1], 1)):
            for shape in ((1, 1, 1, 3), (1, 1, 3, 1)):
                out_grad = f32(values).reshape(shape)
                grad = run(roi_align_backward, out_grad, rois, (1, 1, 1, 1), 1.0)
                assert grad.item() == want

    def test_infinite_gradient_times_a_weight_of_zero_is_nan(self, run):
        # The position is row 0.5, column 1: the weight of column 2 is 0.
        rois = f32([[0, 0.5, 0, 1.5, 1]])
        grad = run(roi_align_backward, f32([[[[INF]]]]), rois, (1, 1, 3, 4), 1.0)
        np.testing.assert_array_equal(grad[0, 0], [[0, INF, NAN, 0]] * 2 + [[0] * 4])

    def test_samples_at_minus_one_touch_the_first_two_pixels(self, run):
        # Their weights are 1 and 0, so an infinite gradient gives infinity and NaN.
        rois = f32([[0, -1.5, -1.5, -0.5, -0.5]])
        data = f32([[[[5, 7, 7], [7, 7, 7], [7, 7, 7]]]])
        assert align(run, data, rois, (1, 1)).item() == 5
        grad = run(roi_align_backward, f32([[[[INF]]]]), rois, data.shape, 1.0)
        np.testing.assert_array_equal(grad[0, 0], [[INF, NAN, 0], [NAN, NAN, 0], [0, 0, 0]])


def random_rois(rng, num, images, height, width, scale):
    """RoIs that overlap. Some are inverted, partly outside, or of missing images."""
    low = rng.uniform(-0.3, 1, (num, 2)) * (width, height) / scale
    size = rng.uniform(-0.1, 1.2, (num, 2)) * (width, height) / scale
    beyond = rng.integers(2)
    image = rng.integers(-beyond, images + beyond, (num, 1))
    return f32(np.concatenate([image, low, low + size], axis=1))


SPECIAL = [NAN, INF, -INF, 3e9, -3e9, 2e9, -2e9, 1e7, -1e7, 1e5, 300, -3, -1, 0, 1, 2, 5]


def random_case(seed, shape, num, special=False):
    """Feature maps, RoIs and a scale."""
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    scale = rng.choice([1.0, 0.5, 1 / 16, 0.3])
    rois = random_rois(rng, num, shape[0], *shape[2:], scale)
    if rng.random() < 0.5:
        rois = np.rint(rois)  # many samples are at pixels
    if special:
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
        rois[::2, 1:] = rng.choice(SPECIAL, rois[::2, 1:].shape)
    return data, rois, scale


def check(run, data, rois, size, scale, seed=0, **options):
    """The results and the gradients of a backend have the bits of the reference."""
    reference = runner("cpu", "numpy")
    want = align(reference, data, rois, size, scale, **options)
    np.testing.assert_array_equal(align(run, data, rois, size, scale, **options), want)
    rng = np.random.default_rng(seed)
    out_grad = f32(rng.normal(size=want.shape))
    out_grad[rng.random(want.shape) < 0.02] = INF
    args = out_grad, rois, data.shape, scale
    want = reference(roi_align_backward, *args, **options)
    np.testing.assert_array_equal(run(roi_align_backward, *args, **options), want)


#: The shape of data, the number of RoIs, the pooled size and the options.
CASES = {
    "one pixel": ((1, 1, 1, 1), 1, (1, 1), {}),
    "odd sizes": ((3, 5, 7, 11), 9, (3, 2), {"sample_ratio": 3}),
    "70 channels": ((1, 70, 6, 5), 3, (7, 7), {"sample_ratio": 2}),
    "aligned": ((2, 9, 9, 10), 30, (4, 3), {"aligned": True}),
    "aligned, two samples": ((2, 3, 9, 10), 30, (4, 3), {"aligned": True, "sample_ratio": 2}),
    "position-sensitive": ((2, 5 * 12, 9, 10), 20, (4, 3), {"position_sensitive": True}),
    "position-sensitive, one channel": (
        *((1, 6, 5, 7), 4, (3, 2)),
        {"position_sensitive": True, "sample_ratio": 2, "aligned": True},
    ),
    "more bins than pixels": ((1, 2, 2, 3), 4, (5, 7), {}),
    "more bins than threads": ((1, 3, 9, 8), 2, (1, 300), {}),
    "more outputs than threads": ((2, 1, 5, 4), 90, (3, 4), {}),
    "nine samples of long bins": ((1, 2, 20, 40), 5, (1, 2), {"sample_ratio": 9}),
    "adaptive samples of long bins": ((1, 2, 20, 40), 5, (1, 2), {}),
    "maps of several tiles": ((1, 9, 33, 18), 30, (3, 3), {"sample_ratio": 2}),
    "more RoIs than a block lists": ((2, 1, 4, 4), 300, (1, 1), {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_results_and_gradients_equal_the_reference(run_other, case, special):
    shape, num, size, options = case
    data, rois, scale = random_case(1, shape, num, special)
    check(run_other, data, rois, size, scale, **options)


CPU_CASES = {
    "one channel and few RoIs": ((1, 1, 9, 13), 3, (3, 3), {}),
    "3 channels": ((2, 3, 20, 31), 40, (7, 7), {"sample_ratio": 2}),
    "13 channels": ((1, 13, 12, 30), 20, (2, 5), {"sample_ratio": 3}),
    "37 channels": ((2, 37, 21, 19), 60, (3, 4), {"aligned": True}),
    "196 bins": ((1, 9, 18, 18), 10, (14, 14), {"sample_ratio": 1}),
    "100 RoIs": ((2, 70, 25, 33), 100, (7, 7), {"sample_ratio": 2}),
    "position-sensitive": ((2, 4 * 37, 9, 8), 50, (2, 2), {"position_sensitive": True}),
}


@pytest.mark.parametrize("case", CPU_CASES.values(), ids=CPU_CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, case, special):
    shape, num, size, options = case
    data, rois, scale = random_case(6, shape, num, special)
    data[np.random.default_rng(7).random(shape) < 0.1] = -0.0

    def both(run):
        out = align(run, data, rois, size, scale, **options)
        out_grad = f32(np.random.default_rng(8).normal(size=out.shape))
        return out, run(roi_align_backward, out_grad, rois, shape, scale, **options)

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        for x, y in zip(got, want):
            # The bits of a NaN depend on the order of the operands of an instruction.
            np.testing.assert_array_equal(x, y)
            assert x[~np.isnan(x)].tobytes() == y[~np.isnan(y)].tobytes()


def test_non_temporal_stores_give_equal_bits(cpu_variants):
    """The condition is a result of 4 MiB in memory that was written before."""
    native = pytest.importorskip("cvops._native")
    data, rois, scale = random_case(9, (2, 37, 25, 33), 600)
    rois[:, 3:] = np.minimum(rois[:, 3:], rois[:, 1:3] + 2 / scale)
    want = align(runner("cpu", "numpy"), data, rois, (7, 7), scale)
    sizes = (*data.shape, 7, 7, scale, -1, False, False)
    for offset in (0, 1, 3):  # floats after a multiple of 16 bytes

        def into_old_memory(offset=offset):
            out = np.ones(want.size + 4, np.float32)[offset : offset + want.size]
            native.cpu.roi_align(out, data, rois, sizes)
            return out

        for got in cpu_variants(into_old_memory):
            assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("shape", "num"),
    [((1, 2, 3, 4), 0), ((0, 2, 3, 4), 2), ((1, 0, 3, 4), 2), ((2, 3, 0, 4), 2), ((1, 2, 3, 0), 1)],
)
def test_empty_input_gives_zeros(run, shape, num):
    rois = np.zeros((num, 5), np.float32)
    out = align(run, np.zeros(shape), rois, (2, 3))
    np.testing.assert_array_equal(out, np.zeros((num, shape[1], 2, 3)))
    grad = run(roi_align_backward, np.ones_like(out), rois, shape, 1.0)
    np.testing.assert_array_equal(grad, np.zeros(shape))


def test_position_sensitive_without_channels_gives_zeros(run):
    rois = np.zeros((2, 5), np.float32)
    out = align(run, np.zeros((1, 0, 3, 4)), rois, (2, 3), position_sensitive=True)
    assert out.shape == (2, 0, 2, 3)
    grad = run(roi_align_backward, out, rois, (1, 0, 3, 4), 1.0, position_sensitive=True)
    assert grad.shape == (1, 0, 3, 4)


@pytest.mark.parametrize("options", [{}, {"aligned": True}, {"position_sensitive": True}])
def test_gradient_is_the_transpose(run, options):
    # Multiples of 1/2 and 4 samples per bin make all weights multiples of 1/64: integers below 10
    # have exact sums, in any order.
    rng = np.random.default_rng(3)
    data = f32(rng.integers(-9, 10, (2, 12, 5, 6)))
    low, size = rng.integers(-2, 10, (9, 2)) / 2, rng.integers(1, 8, (9, 2))
    rois = f32(np.concatenate([rng.integers(0, 2, (9, 1)), low, low + size], axis=1))
    options = {"sample_ratio": 2, **options}
    out = align(run, data, rois, (2, 2), **options)
    out_grad = f32(rng.integers(-9, 10, out.shape))
    grad = run(roi_align_backward, out_grad, rois, data.shape, 1.0, **options)
    assert np.vdot(out.astype(float), out_grad) == np.vdot(grad.astype(float), data) != 0


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_a_bit(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data, rois, scale = random_case(20, (2, 9, 9, 8), 40)
    check(runner("cpu", "emulated"), data, rois, (3, 3), scale)


@pytest.mark.parametrize("max_shared", [0, 227 << 10], ids=["no shared memory", "shared memory"])
def test_sanitizers_find_no_error(run_sanitized, monkeypatch, max_shared):
    monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
    data, rois, scale = random_case(5, (2, 3, 5, 4), 7, special=True)
    check(run_sanitized, data, rois, (3, 2), scale)


class TestSharedMemory:
    """Planes are in shared memory if they fit, and if the bins read each pixel once."""

    # 16 bytes for each of 10 x 12 pixels.
    @pytest.mark.parametrize(("max_shared", "shared"), [(1920, 1920), (1919, 0)])
    def test_planes_fit_or_do_not(self, monkeypatch, launches, max_shared, shared):
        monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
        data, rois, scale = random_case(10, (2, 5, 10, 12), 40)
        want = align(runner("cpu", "numpy"), data, rois, (3, 3), scale, sample_ratio=2)
        got = align(runner("cpu", "emulated"), data, rois, (3, 3), scale, sample_ratio=2)
        assert [x.shared for x in launches] == [shared]
        np.testing.assert_array_equal(got, want)

    # 13 RoIs have 117 bins, 14 have 126; the map has 120 pixels.
    @pytest.mark.parametrize(("num", "shared"), [(13, 0), (14, 1920)])
    def test_few_rois_read_global_memory(self, launches, num, shared):
        data, rois, scale = random_case(12, (1, 3, 10, 12), num)
        check(runner("cpu", "emulated"), data, rois, (3, 3), scale)
        assert launches[0].shared == shared


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*(st.integers(1, n) for n in (3, 40, 12, 12))),
    num=st.integers(1, 20),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sample_ratio=st.integers(-1, 5),
    position_sensitive=st.booleans(),
    aligned=st.booleans(),
    special=st.booleans(),
)
def test_equals_mxnet(
    mx, backend, seed, shape, num, size, sample_ratio, position_sensitive, aligned, special
):
    if position_sensitive:
        shape = shape[0], size[0] * size[1] * (1 + shape[1] // 10), *shape[2:]
    data, rois, scale = random_case(seed, shape, num)
    if special:  # in data only: MXNet reads out of bounds for RoIs of infinity or NaN
        rng = np.random.default_rng(seed)
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
    rois[:, 0] = rois[:, 0].clip(0, shape[0] - 1)  # MXNet checks no index
    if aligned:  # MXNet aborts for lengths of 0 or less
        rois[:, 3:] = np.maximum(rois[:, 3:], rois[:, 1:3] + 1)
    options = sample_ratio, position_sensitive, aligned
    x, r = mx.nd.array(data), mx.nd.array(rois)
    x.attach_grad()
    r.attach_grad()
    with mx.autograd.record():
        want = mx.nd.contrib.ROIAlign(x, r, size, scale, *options)
    out_grad = f32(np.random.default_rng(seed).normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    run = runner("cpu", backend)
    out = run(roi_align, data, rois, size, scale, *options)
    np.testing.assert_array_equal(out, want.asnumpy())
    grad = run(roi_align_backward, out_grad, rois, data.shape, scale, *options)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())
    assert not r.grad.asnumpy().any()


class TestRefusals:
    data = np.zeros((1, 4, 4, 4), np.float32)
    rois = np.zeros((3, 5), np.float32)
    huge = np.broadcast_to(np.float32(0), (2, 2**10, 2**10, 2**10))

    #: Name and value of a bad argument, and the message.
    forward = {
        "data has three axes": ("data", data[0], "expected shape (N, C, H, W), got (4, 4, 4)"),
        "data is int32": ("data", data.astype("i4"), "expected float32, float64, float16 or bfl"),
        "2^31 elements": ("data", huge, "expected less than 2**31 elements, got shape (2, 1024"),
        "four columns": ("rois", rois[:, :4], "expected shape (R, 5), got (3, 4)"),
        "rois is a list": (
            "rois",
            [[0] * 5],
            "expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack)",
        ),
        "one size": ("pooled_size", (7,), "expected a pair (height, width), got (7,)"),
        "size of zero": ("pooled_size", (7, 0), "expected an integer in [1, 2147483647], got 0"),
        "2^30 bins": ("pooled_size", (2**15, 2**15), "less than 2**30 bins, got (32768, 32768)"),
        "scale above 1": ("spatial_scale", 1.1, "expected a number in [0, 1], got 1.1"),
        "scale is NaN": ("spatial_scale", NAN, "expected a number in [0, 1], got nan"),
        "sample_ratio is a float": ("sample_ratio", 2.0, "expected an integer, got 2.0"),
        "1025 samples": (
            *("sample_ratio", 1025),
            "expected an integer in [-2147483648, 1024], got 1025",
        ),
        "aligned is no flag": ("aligned", 2, "expected True or False, got 2"),
        "position_sensitive is no flag": (
            *("position_sensitive", "yes"),
            "expected True or False, got 'yes'",
        ),
    }

    @pytest.mark.parametrize(("name", "value", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, name, value, message):
        args = {"data": self.data, "rois": self.rois, "pooled_size": (2, 2), "spatial_scale": 1.0}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            roi_align(**{**args, name: value})

    def test_channels_that_are_no_multiple_of_the_bins_are_refused(self):
        message = "data: expected a multiple of height * width = 6 channels, .* got 4"
        with pytest.raises(ValueError, match=message.replace("*", r"\*", 1)):
            roi_align(self.data, self.rois, (2, 3), 1.0, position_sensitive=True)

    out_grad = np.zeros((3, 4, 2, 2), np.float32)

    #: Name and value of a bad argument, and the message.
    backward = {
        "out_grad has two axes": (
            *("out_grad", rois),
            "expected shape (R, C, height, width), got (3, 5)",
        ),
        "another number of RoIs": ("rois", rois[:2], "with R = 3 as in out_grad, got (2, 5)"),
        "three sizes": ("data_shape", (1, 4, 4), "expected (N, C, H, W), got (1, 4, 4)"),
        "negative size": (
            *("data_shape", (1, 4, 4, -1)),
            "expected an integer in [0, 2147483647], got -1",
        ),
        "another number of channels": (
            *("data_shape", (1, 3, 4, 4)),
            "C = 4 for this out_grad and position_sensitive = False, got (1, 3, 4, 4)",
        ),
        "2^31 elements": (
            *("data_shape", (2**29, 4, 1, 1)),
            "less than 2**31 elements, got shape (536870912, 4",
        ),
        "negative scale": ("spatial_scale", -1, "expected a number in [0, 1], got -1"),
        "1025 samples": ("sample_ratio", 1025, "got 1025"),
    }

    @pytest.mark.parametrize(("name", "value", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, name, value, message):
        args = {"out_grad": self.out_grad, "rois": self.rois, "data_shape": (1, 4, 4, 4)}
        args["spatial_scale"] = 1.0
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            roi_align_backward(**{**args, name: value})

    def test_channels_of_a_position_sensitive_gradient_are_checked(self):
        with pytest.raises(
            ValueError, match=r"data_shape: .*C = 16 for this out_grad .*, got \(1, 4, 4, 4"
        ):
            roi_align_backward(self.out_grad, self.rois, (1, 4, 4, 4), 1.0, position_sensitive=True)

    def test_gradient_of_2_to_30_bins_is_refused(self):
        out_grad = np.empty((0, 2, 2**15, 2**15), np.float32)
        message = re.escape("out_grad: expected less than 2**30 bins, got 32768 x 32768")
        with pytest.raises(ValueError, match=message):
            roi_align_backward(out_grad, self.rois[:0], (1, 2, 4, 4), 1.0)
