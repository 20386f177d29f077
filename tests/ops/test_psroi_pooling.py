import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import psroi_pooling, psroi_pooling_backward

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def count_up(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def pool(run, data, rois, dim, size, group=0, scale=1.0):
    return run(psroi_pooling, f32(data), f32(rois), scale, dim, size, group)


class TestByHand:
    def test_bin_is_the_mean_of_the_pixels_that_it_touches(self, run):
        # The roi has 3 x 3 pixels from 0 to 3, so a bin of 1.5 pixels touches two of each axis.
        # The value at row y and column x is 6 y + x.
        out = pool(run, count_up(1, 1, 8, 6), [[0, 0, 0, 2, 2]], 1, 2, 1)
        np.testing.assert_array_equal(out[0, 0], [[3.5, 4.5], [9.5, 10.5]])
        assert out.dtype == np.float32

    def test_bins_read_the_channels_of_their_cells(self, run):
        # Channel (c * 2 + i) * 2 + j has the value 100 c + 10 i + j.
        values = [100 * c + 10 * i + j for c in range(3) for i in range(2) for j in range(2)]
        data = f32(values).reshape(1, 12, 1, 1) * np.ones((1, 1, 4, 5), np.float32)
        out = pool(run, data, [[0, 0, 0, 3, 3]], 3, 2)
        np.testing.assert_array_equal(out.reshape(-1), values)
        # The cells of three bins are 0, 0 and 1: floor(i * 2 / 3).
        out = pool(run, data, [[0, 0, 0, 3, 3]], 3, 3, 2)
        np.testing.assert_array_equal(out[0, 2], [[200, 200, 201]] * 2 + [[210, 210, 211]])

    def test_more_cells_than_bins_leave_channels_unread(self, run):
        data = np.full((1, 9, 2, 2), NAN, np.float32)
        data[:, [0, 1, 3, 4]] = f32([0, 1, 3, 4]).reshape(4, 1, 1)  # floor(i * 3 / 2) is 0 or 1
        rois = [[0, 0, 0, 1, 1]]
        np.testing.assert_array_equal(pool(run, data, rois, 1, 2, 3)[0, 0], [[0, 1], [3, 4]])
        grad = run(psroi_pooling_backward, f32([[[[1, 2], [3, 4]]]]), f32(rois), data.shape, 1.0, 3)
        np.testing.assert_array_equal(grad.sum(axis=(0, 2, 3)), [1, 2, 0, 3, 4, 0, 0, 0, 0])

    #: First and last coordinate of a roi of one bin, the scale, and the mean of a row 1 to 6.
    rows = {
        "one pixel": (2, 2, 1, 3),
        "all pixels": (0, 5, 1, 3.5),
        "rounded half away from zero": (0.5, 2.5, 1, 3),  # 1 to 3, whose end is 4
        "negative half rounded away from zero": (-0.5, 1.5, 1, 2),  # -1 to 2, whose end is 3
        # 1.5 to 2.5: pixels 1 and 2.
        "edges between pixels": (3, 4, 0.5, 2.5),
        "before the map": (-9, -2, 1, 0),
        "after the map": (6, 9, 1, 0),
        # 3 to 3.1: pixel 3.
        "inverted": (3, -5, 1, 4),
        "no scale": (2, 4, 0, 1),
        "NaN first": (NAN, 2, 1, 0),
        "NaN last": (0, NAN, 1, 0),
        "infinite": (-INF, INF, 1, 0),
        # An edge that does not fit into int becomes the smallest int, as in MXNet.
        "last coordinate beyond int": (0, 3e9, 1, 0),
        "large": (-2e9, 1e9, 1, 3.5),
    }

    @pytest.mark.parametrize(("first", "last", "scale", "want"), rows.values(), ids=rows)
    def test_bin_of_a_row(self, run, first, last, scale, want):
        row = np.tile(f32([1, 2, 3, 4, 5, 6]), (1, 1, 2, 1))
        wide = pool(run, row, [[0, first, 0, last, 0]], 1, 1, scale=scale)
        high = row.swapaxes(2, 3).copy()
        high = pool(run, high, [[0, 0, first, 0, last]], 1, 1, scale=scale)
        np.testing.assert_array_equal([wide.item(), high.item()], want)

    def test_order_of_a_sum_is_by_rows(self, run):
        # 1e8 + 1 is 1e8 in float32, so another order gives 1 / 4.
        data, rois = [[[[1e8, 1], [-1e8, 0]]]], [[0, 0, 0, 1, 1]]
        assert pool(run, data, rois, 1, 1).item() == 0
        assert pool(run, np.swapaxes(data, 2, 3), rois, 1, 1).item() == 0.25

    @pytest.mark.parametrize(("index", "want"), [(0, 5), (1, 6), (1.9, 6), (-0.9, 5)])
    def test_image_index_is_truncated(self, run, index, want):
        data = f32([[[[5.0]]], [[[6.0]]]])
        assert pool(run, data, [[index, 0, 0, 0, 0]], 1, 1).item() == want

    def test_roi_of_a_missing_image_gives_zeros_and_no_gradient(self, run):
        indices = [-1, 2, NAN, INF, -INF, 2.0**31, 2.0**32, -(2.0**32)]
        rois = f32([[index, 0, 0, 0, 0] for index in indices])
        data = np.full((2, 12, 1, 1), NAN, np.float32)
        out = pool(run, data, rois, 3, 2)
        np.testing.assert_array_equal(out, np.zeros((8, 3, 2, 2)))
        grad = run(psroi_pooling_backward, np.ones_like(out), rois, data.shape, 1.0)
        np.testing.assert_array_equal(grad, np.zeros(data.shape))

    def test_nan_and_infinity_reach_the_bins_with_their_pixels_only(self, run):
        data = f32([[1, 2, NAN, 4, INF]]).reshape(1, 1, 1, 5)
        out = pool(run, data, [[0, x, 0, x + 1, 0] for x in (0, 1, 2, 3)], 1, 1)
        np.testing.assert_array_equal(out.reshape(-1), [1.5, NAN, NAN, INF])

    def test_channels_beyond_the_bins_are_ignored_and_have_no_gradient(self, run):
        data = count_up(2, 6, 3, 3)
        data[:, 4:] = NAN
        rois = f32([[1, 0, 0, 2, 2]])
        out = pool(run, data, rois, 1, 2)
        np.testing.assert_array_equal(out, pool(run, data[:, :4], rois, 1, 2))
        grad = run(psroi_pooling_backward, np.ones_like(out), rois, data.shape, 1.0)
        assert not grad[:, 4:].any()
        np.testing.assert_allclose(grad.sum(axis=(2, 3))[1], [1, 1, 1, 1, 0, 0], rtol=1e-6)

    def test_gradient_of_a_bin_is_divided_by_its_area(self, run):
        # Columns 1 and 2, row 0.
        grad = run(
            psroi_pooling_backward, f32([[[[6]]]]), f32([[0, 1, 0, 2, 0]]), (1, 1, 2, 4), 1.0
        )
        np.testing.assert_array_equal(grad[0, 0], [[0, 3, 3, 0], [0, 0, 0, 0]])

    def test_gradients_are_summed_in_order_of_rois(self, run):
        # 1e8 + 1 is 1e8 in float32: the sum in order is 0, another order gives 1.
        rois = np.zeros((3, 5), np.float32)
        out_grad = f32([1e8, 1, -1e8]).reshape(3, 1, 1, 1)
        args = rois, (1, 1, 1, 1), 1.0
        assert run(psroi_pooling_backward, out_grad, *args).item() == 0
        assert run(psroi_pooling_backward, out_grad[[0, 2, 1]], *args).item() == 1

    def test_gradients_are_summed_in_order_of_bins(self, run):
        # One pixel has all four bins of the cell.
        rois = np.zeros((1, 5), np.float32)
        for values, want in (([1e8, 1, -1e8, 0], 0), ([1e8, -1e8, 1, 0], 1)):
            out_grad = f32(values).reshape(1, 1, 2, 2)
            assert run(psroi_pooling_backward, out_grad, rois, (1, 1, 1, 1), 1.0, 1).item() == want


SPECIAL = [NAN, INF, -INF, 3e9, -3e9, 2e9, -2e9, 1e7, -1e7, 300, -3, -1, 0, 1, 2, 5]


def random_case(seed, shape, num, special=False):
    """Feature maps, RoIs and a scale. Some RoIs are inverted, outside, or of missing images."""
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    scale = rng.choice([1.0, 0.5, 1 / 16, 0.3])
    extent = np.array(shape[:1:-1]) / scale
    low = rng.uniform(-0.3, 1, (num, 2)) * extent
    size = rng.uniform(-0.1, 1.2, (num, 2)) * extent
    beyond = rng.integers(2)
    image = rng.integers(-beyond, shape[0] + beyond, (num, 1))
    rois = f32(np.concatenate([image, low, low + size], axis=1))
    if rng.random() < 0.5:
        rois = np.rint(2 * rois) / 2
    if special:
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
        rois[::2, 1:] = rng.choice(SPECIAL, rois[::2, 1:].shape)
    return data, rois, scale


def check(run, data, rois, scale, dim, size, group=0):
    """The results and the gradients of a backend have the bits of the reference."""
    reference = runner("cpu", "numpy")
    want = pool(reference, data, rois, dim, size, group, scale)
    np.testing.assert_array_equal(pool(run, data, rois, dim, size, group, scale), want)
    rng = np.random.default_rng(4)
    out_grad = f32(rng.normal(size=want.shape))
    out_grad[rng.random(want.shape) < 0.02] = INF
    args = out_grad, rois, data.shape, scale, group
    want = reference(psroi_pooling_backward, *args)
    np.testing.assert_array_equal(run(psroi_pooling_backward, *args), want)


#: The shape of data, the number of RoIs, output_dim, pooled_size and group_size.
CASES = {
    "one pixel": ((1, 1, 1, 1), 1, 1, 1, 0),
    "odd sizes": ((3, 5 * 9, 7, 11), 9, 5, 3, 0),
    "37 channels": ((2, 37 * 4, 6, 5), 12, 37, 2, 0),
    "more bins than cells": ((2, 2 * 9 + 1, 9, 10), 30, 2, 7, 3),
    "more cells than bins": ((1, 2 * 25, 9, 10), 30, 2, 3, 5),
    "one cell": ((2, 3, 9, 10), 20, 3, 4, 1),
    "more bins than threads": ((1, 2, 9, 8), 2, 2, 17, 1),
    "maps of several tiles": ((1, 9 * 4, 33, 18), 30, 9, 2, 0),
    "more bins than a block lists": ((2, 1, 4, 4), 300, 1, 1, 0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_results_and_gradients_equal_the_reference(run_other, case, special):
    shape, num, *options = case
    data, rois, scale = random_case(1, shape, num, special)
    check(run_other, data, rois, scale, *options)


CPU_CASES = {
    "one channel and few RoIs": ((1, 4, 30, 40), 3, 1, 2, 0),
    "8 channels": ((2, 8 * 49, 20, 31), 60, 8, 7, 0),
    "13 channels": ((1, 13 * 9, 12, 30), 20, 13, 3, 0),
    "37 channels": ((2, 37 * 4, 21, 19), 60, 37, 5, 2),
}


@pytest.mark.parametrize("case", CPU_CASES.values(), ids=CPU_CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, case, special):
    shape, num, *options, group = case
    data, rois, scale = random_case(6, shape, num, special)
    data[np.random.default_rng(7).random(shape) < 0.1] = -0.0

    def both(run):
        out = pool(run, data, rois, *options, group, scale)
        out_grad = f32(np.random.default_rng(8).normal(size=out.shape))
        return out, run(psroi_pooling_backward, out_grad, rois, shape, scale, group)

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        for x, y in zip(got, want):
            # The bits of a NaN depend on the order of the operands of an instruction.
            np.testing.assert_array_equal(x, y)
            assert x[~np.isnan(x)].tobytes() == y[~np.isnan(y)].tobytes()


@pytest.mark.parametrize(
    ("shape", "num"),
    [((1, 8, 3, 4), 0), ((0, 8, 3, 4), 2), ((2, 8, 0, 4), 2), ((1, 8, 3, 0), 1)],
)
def test_empty_input_gives_zeros(run, shape, num):
    rois = np.zeros((num, 5), np.float32)
    out = pool(run, np.zeros(shape), rois, 2, 2)
    np.testing.assert_array_equal(out, np.zeros((num, 2, 2, 2)))
    grad = run(psroi_pooling_backward, np.ones_like(out), rois, shape, 1.0)
    np.testing.assert_array_equal(grad, np.zeros(shape))


def test_gradient_is_the_transpose(run):
    # The areas of all bins are powers of two, and all numbers are integers: all sums are exact.
    rng = np.random.default_rng(3)
    data = f32(rng.integers(-9, 10, (2, 12, 8, 8)))
    low, size = rng.integers(0, 5, (9, 2)), rng.choice([2, 4], (9, 2))
    rois = f32(np.concatenate([rng.integers(0, 2, (9, 1)), low, low + size - 1], axis=1))
    out = pool(run, data, rois, 3, 2)
    out_grad = f32(rng.integers(-9, 10, out.shape))
    grad = run(psroi_pooling_backward, out_grad, rois, data.shape, 1.0)
    assert np.vdot(out.astype(float), out_grad) == np.vdot(grad.astype(float), data) != 0


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_a_bit(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data, rois, scale = random_case(20, (2, 9 * 4, 9, 8), 40)
    check(runner("cpu", "emulated"), data, rois, scale, 9, 3, 2)


def test_sanitizers_find_no_error(run_sanitized):
    data, rois, scale = random_case(5, (2, 5 * 4 + 1, 5, 4), 7, special=True)
    check(run_sanitized, data, rois, scale, 5, 3, 2)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    num=st.integers(1, 20),
    dim=st.integers(1, 40),
    size=st.integers(1, 5),
    group=st.integers(0, 4),
    special=st.booleans(),
)
def test_equals_mxnet(mx, backend, seed, images, height, width, num, dim, size, group, special):
    shape = images, dim * (group or size) ** 2, height, width
    data, rois, scale = random_case(seed, shape, num, special)
    rois[:, 0] = rois[:, 0].clip(0, images - 1)  # MXNet checks no index
    options = scale, dim, size, group
    x, r = mx.nd.array(data), mx.nd.array(rois)
    x.attach_grad()
    r.attach_grad()
    with mx.autograd.record():
        want = mx.nd.contrib.PSROIPooling(x, r, *options)
    out_grad = f32(np.random.default_rng(seed).normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    run = runner("cpu", backend)
    out = run(psroi_pooling, data, rois, *options)
    np.testing.assert_array_equal(out, want.asnumpy())
    grad = run(psroi_pooling_backward, out_grad, rois, data.shape, scale, group)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())
    assert not r.grad.asnumpy().any()


class TestRefusals:
    data = np.zeros((1, 8, 4, 4), np.float32)
    rois = np.zeros((3, 5), np.float32)
    huge = np.broadcast_to(np.float32(0), (2, 2**10, 2**10, 2**10))

    #: Name and value of a bad argument, and the message.
    forward = {
        "data has three axes": ("data", data[0], "expected shape (N, C, H, W), got (8, 4, 4)"),
        "data is float64": ("data", data.astype("f8"), "expected float32, got float64"),
        "2^31 elements": ("data", huge, "expected less than 2**31 elements, got shape (2, 1024"),
        "seven channels": (
            *("data", data[:, :7]),
            "expected at least output_dim * group_size**2 = 8 channels, got 7",
        ),
        "four columns": ("rois", rois[:, :4], "expected shape (R, 5), got (3, 4)"),
        "rois is a list": (
            "rois",
            [[0] * 5],
            "expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack)",
        ),
        "scale above 1": ("spatial_scale", 1.1, "expected a number in [0, 1], got 1.1"),
        "scale is NaN": ("spatial_scale", NAN, "expected a number in [0, 1], got nan"),
        "no output channels": (
            *("output_dim", 0),
            "expected an integer in [1, 2147483647], got 0",
        ),
        "output_dim is a float": ("output_dim", 2.0, "expected an integer, got 2.0"),
        "no bins": ("pooled_size", 0, "expected an integer in [1, 32767], got 0"),
        "2^30 bins": ("pooled_size", 2**15, "expected an integer in [1, 32767], got 32768"),
        "pooled_size is a pair": ("pooled_size", (2, 2), "expected an integer, got (2, 2)"),
        "negative group_size": (
            *("group_size", -1),
            "expected an integer in [0, 2147483647], got -1",
        ),
    }

    @pytest.mark.parametrize(("name", "value", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, name, value, message):
        args = {"data": self.data, "rois": self.rois, "spatial_scale": 1.0}
        args |= {"output_dim": 2, "pooled_size": 2}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            psroi_pooling(**{**args, name: value})

    out_grad = np.zeros((3, 2, 2, 2), np.float32)

    #: Name and value of a bad argument, and the message.
    backward = {
        "out_grad has two axes": (
            *("out_grad", rois),
            "expected shape (R, D, height, width), got (3, 5)",
        ),
        "bins of two sizes": (
            *("out_grad", out_grad[..., :1]),
            "expected a square of 1 x 1 to 32767 x 32767 bins, got 2 x 1",
        ),
        "no bins": ("out_grad", out_grad[:, :, :0, :0], "got 0 x 0"),
        "another number of RoIs": ("rois", rois[:2], "with R = 3 as in out_grad, got (2, 5)"),
        "three sizes": ("data_shape", (1, 8, 4), "expected (N, C, H, W), got (1, 8, 4)"),
        "negative size": (
            *("data_shape", (1, 8, 4, -1)),
            "expected an integer in [0, 2147483647], got -1",
        ),
        "seven channels": ("data_shape", (1, 7, 4, 4), "group_size**2 = 8 channels, got 7"),
        "2^31 elements": (
            *("data_shape", (2**28, 8, 1, 1)),
            "less than 2**31 elements, got shape (268435456, 8",
        ),
        "negative scale": ("spatial_scale", -1, "expected a number in [0, 1], got -1"),
        "negative group_size": ("group_size", -1, "got -1"),
    }

    @pytest.mark.parametrize(("name", "value", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, name, value, message):
        args = {"out_grad": self.out_grad, "rois": self.rois, "data_shape": (1, 8, 4, 4)}
        args["spatial_scale"] = 1.0
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            psroi_pooling_backward(**{**args, name: value})
