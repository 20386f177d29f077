import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import deformable_psroi_pooling, deformable_psroi_pooling_backward

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def count_up(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def pool(run, data, rois, trans, dim, size, *, scale=1.0, group=0, **options):
    trans = None if trans is None else f32(trans)
    options["no_trans"] = trans is None
    args = f32(data), f32(rois), trans, scale, dim, group, size
    return run(deformable_psroi_pooling, *args, **options)


def gradients(run, out_grad, data, rois, trans, *, scale=1.0, group=0, **options):
    trans = None if trans is None else f32(trans)
    args = f32(out_grad), f32(data), f32(rois), trans, scale, group
    return run(deformable_psroi_pooling_backward, *args, **options)


class TestByHand:
    def test_samples_begin_at_the_begin_of_a_bin(self, run):
        # A roi of 2 x 2 pixels from 0.5 to 2.5; bins begin at 0.5 and 1.5. The value is 6 y + x.
        data, rois = count_up(1, 1, 8, 6), [[0, 1, 1, 2, 2]]
        out = pool(run, data, rois, None, 1, 2, group=1)
        np.testing.assert_array_equal(out[0, 0], [[3.5, 4.5], [9.5, 10.5]])
        assert out.dtype == np.float32
        # Two samples of an axis are at 0 and 0.5 from the begin.
        out = pool(run, data, rois, None, 1, 2, group=1, sample_per_part=2)
        np.testing.assert_array_equal(out[0, 0], [[5.25, 6.25], [11.25, 12.25]])

    def test_offsets_move_bins_by_fractions_of_the_roi(self, run):
        # The roi is 4 pixels wide and 2 high. The offsets of the two parts are x, then y.
        data, rois = count_up(1, 1, 9, 10), [[0, 2, 2, 5, 3]]
        trans = [[[[0, 1], [0, 0]], [[0, 0], [-0.5, 0]]]]
        still = pool(run, data, rois, np.zeros((1, 2, 2, 2)), 1, 2, group=1, trans_std=0.5)
        moved = pool(run, data, rois, trans, 1, 2, group=1, trans_std=0.5)
        # By 1 * 0.5 * 4 columns, and by -0.5 * 0.5 * 2 rows of 10.
        np.testing.assert_array_equal((moved - still)[0, 0], [[0, 2], [-5, 0]])
        np.testing.assert_array_equal(still, pool(run, data, rois, None, 1, 2, group=1))

    def test_bins_of_a_part_move_together(self, run):
        # The parts of three bins are 0, 0 and 1: floor(i / 3 * 2).
        data, rois = count_up(1, 1, 9, 16), [[0, 2, 2, 7, 4]]
        trans = [[[[0, 1], [0, 1]], [[0, 0], [0, 0]]]]
        still = pool(run, data, rois, None, 1, 3, group=1)
        options = {"group": 1, "part_size": 2, "trans_std": 1}
        moved = pool(run, data, rois, trans, 1, 3, **options)
        np.testing.assert_array_equal((moved - still)[0, 0], [[0, 0, 6]] * 3)

    def test_classes_have_their_own_offsets(self, run):
        # Channels 0 and 1 belong to class 0, channels 2 and 3 to class 1.
        data, rois = np.tile(count_up(1, 1, 4, 9), (1, 4, 1, 1)), [[0, 1, 1, 2, 2]]
        trans = f32([1, 0, 2, 0]).reshape(1, 4, 1, 1)
        still = pool(run, data, rois, None, 4, 1)
        moved = pool(run, data, rois, trans, 4, 1, trans_std=1)
        np.testing.assert_array_equal((moved - still).reshape(-1), [2, 2, 4, 4])

    def test_bins_read_the_channels_of_their_cells(self, run):
        values = [100 * c + 10 * i + j for c in range(3) for i in range(2) for j in range(2)]
        data = f32(values).reshape(1, 12, 1, 1) * np.ones((1, 1, 4, 5), np.float32)
        out = pool(run, data, [[0, 0, 0, 3, 3]], None, 3, 2, group=2)
        np.testing.assert_array_equal(out.reshape(-1), values)

    #: First and last coordinate of a roi, two samples per axis, and the mean of a row 1 to 6.
    rows = {
        # Positions 1.5 and 2.5.
        "between pixels": (2, 3, 1, 3),
        # Positions -0.5 and 0.25: the first has the value of the edge.
        "half a pixel before the map": (0, 0.5, 1, (1 + 1.5) / 2),
        # Positions -1.5 and 0.5, of which the first is left out.
        "before the map": (-1, 2, 1, 1.5),
        # Positions 4.5 and 5.5.
        "half a pixel after the map": (5, 6, 1, (5.5 + 6) / 2),
        # Positions 4.5 and 6.
        "after the map": (5, 7, 1, 5.5),
        "outside": (9, 12, 1, 0),
        # From 3.5: 3.5 and 3.55.
        "inverted": (4, -5, 1, 4.525),
        "scale": (4, 6, 0.5, (2.5 + 3.25) / 2),  # 1.5 to 3
        "NaN": (NAN, 2, 1, 0),
        "infinite": (-INF, INF, 1, 0),
        "large": (-3e9, 3e9, 1, 1),  # samples at -3e9 and 0
    }

    @pytest.mark.parametrize(("first", "last", "scale", "want"), rows.values(), ids=rows)
    def test_samples_of_a_row(self, run, first, last, scale, want):
        # The other axis has samples at 0 and 1, in two equal pixels.
        row = np.tile(f32([1, 2, 3, 4, 5, 6]), (1, 1, 3, 1))
        options = {"scale": scale, "sample_per_part": 2}
        wide = pool(run, row, [[0, first, 1, last, 1]], None, 1, 1, **options)
        high = row.swapaxes(2, 3).copy()
        high = pool(run, high, [[0, 1, first, 1, last]], None, 1, 1, **options)
        np.testing.assert_allclose([wide.item(), high.item()], want, rtol=1e-6)

    @pytest.mark.parametrize("offset", [NAN, INF, -INF, 1e30])
    def test_bin_that_an_offset_moves_away_is_zero_and_has_no_gradient(self, run, offset):
        data, rois = np.ones((1, 1, 4, 4), np.float32), [[0, 1, 1, 2, 2]]
        for trans in ([offset, 0], [0, offset]):
            args = data, rois, f32(trans).reshape(1, 2, 1, 1)
            assert pool(run, *args, 1, 1, trans_std=1).item() == 0
            for grad in gradients(run, [[[[1]]]], *args, trans_std=1):
                assert not grad.any()

    @pytest.mark.parametrize(("index", "want"), [(0, 5), (1, 6), (1.9, 6), (-0.9, 5)])
    def test_image_index_is_truncated(self, run, index, want):
        data = f32([[[[5.0]]], [[[6.0]]]])
        assert pool(run, data, [[index, 0, 0, 0, 0]], None, 1, 1).item() == want

    def test_roi_of_a_missing_image_gives_zeros_and_no_gradient(self, run):
        indices = [-1, 2, NAN, INF, -INF, 2.0**31, 2.0**32, -(2.0**32)]
        rois = f32([[index, 0, 0, 0, 0] for index in indices])
        data, trans = np.full((2, 12, 1, 1), NAN, np.float32), np.zeros((8, 2, 2, 2), np.float32)
        out = pool(run, data, rois, trans, 3, 2)
        np.testing.assert_array_equal(out, np.zeros((8, 3, 2, 2)))
        for grad, of in zip(gradients(run, np.ones_like(out), data, rois, trans), (data, trans)):
            np.testing.assert_array_equal(grad, np.zeros(of.shape))

    def test_gradients_of_one_sample(self, run):
        # The sample is at row 0.5 and column 1.25: 1.5 - 0.5 and 1.25 = 0.5 + 0.25 * 3.
        data = f32([[0, 1, 5, 0], [0, 3, 9, 0]]).reshape(1, 1, 2, 4)
        rois, trans = [[0, 1, 1, 3, 1]], f32([0.25, 0]).reshape(1, 2, 1, 1)
        grad, trans_grad = gradients(run, [[[[8]]]], data, rois, trans, trans_std=1)
        np.testing.assert_array_equal(grad[0, 0], [[0, 3, 1, 0], [0, 3, 1, 0]])
        # Slopes: 0.5 * (5 - 1) + 0.5 * (9 - 3), and 0.75 * (3 - 1) + 0.25 * (9 - 5).
        np.testing.assert_array_equal(trans_grad.reshape(-1), [5 * 8 * 3, 2.5 * 8 * 1])

    def test_gradient_without_offsets_is_that_of_offsets_of_zero(self, run):
        data, rois, _, scale = random_case(3, (2, 8, 7, 9), 9, 1, 2)
        out_grad = f32(np.random.default_rng(1).normal(size=(9, 2, 2, 2)))
        grad, none = gradients(run, out_grad, data, rois, None, scale=scale)
        assert none is None
        want, _ = gradients(run, out_grad, data, rois, np.zeros((9, 2, 2, 2)), scale=scale)
        np.testing.assert_array_equal(grad, want)

    def test_gradients_are_summed_in_order_of_rois(self, run):
        # 1e8 + 1 is 1e8 in float32: the sum in order is 0, another order gives 1.
        rois, out_grad = np.zeros((3, 5), np.float32), f32([1e8, 1, -1e8]).reshape(3, 1, 1, 1)
        data = np.zeros((1, 1, 1, 1), np.float32)
        assert gradients(run, out_grad, data, rois, None)[0].item() == 0
        assert gradients(run, out_grad[[0, 2, 1]], data, rois, None)[0].item() == 1

    def test_gradients_of_an_offset_are_summed_in_order_of_channels(self, run):
        # The slope along x is 1 in all four channels.
        data = np.tile(f32([0, 1, 2, 3]), (1, 4, 3, 1))
        for values, want in (([1e8, 1, -1e8, 0], 0), ([1e8, -1e8, 1, 0], 1)):
            args = data, [[0, 1, 1, 1, 1]], np.zeros((1, 2, 1, 1))
            _, grad = gradients(run, f32(values).reshape(1, 4, 1, 1), *args, trans_std=1)
            assert grad[0, 0].item() == want

    def test_infinite_gradient_times_a_weight_of_zero_is_nan(self, run):
        # The sample is at row 0.5 and column 1: both pixels of the row axis, one column twice.
        args = np.zeros((1, 1, 3, 4)), [[0, 1.5, 1, 2, 1]]
        grad, _ = gradients(run, [[[[INF]]]], *args, None, scale=0.75, group=1)
        assert np.isnan(grad).any()
        np.testing.assert_array_equal(
            grad, gradients(runner("cpu", "numpy"), [[[[INF]]]], *args, None, scale=0.75)[0]
        )


SPECIAL = [NAN, INF, -INF, 3e9, -3e9, 1e7, -1e7, 300, -3, -1, 0, 1, 2, 5]


def random_case(seed, shape, num, classes, part, special=False):
    """Feature maps, RoIs, offsets and a scale. Some RoIs are outside, or of missing images."""
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    scale = rng.choice([1.0, 0.5, 1 / 16, 0.3])
    extent = np.array(shape[:1:-1]) / scale
    low = rng.uniform(-0.3, 1, (num, 2)) * extent
    size = rng.uniform(-0.1, 1.2, (num, 2)) * extent
    beyond = rng.integers(2)
    image = rng.integers(-beyond, shape[0] + beyond, (num, 1))
    rois = f32(np.concatenate([image, low, low + size], axis=1))
    trans = f32(rng.normal(size=(num, 2 * classes, part, part)))
    if special:
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
        rois[::2, 1:] = rng.choice(SPECIAL, rois[::2, 1:].shape)
        trans[rng.random(trans.shape) < 0.1] = NAN
    return data, rois, trans, scale


def both(run, data, rois, trans, scale, dim, size, **options):
    """The results and the gradients."""
    options["scale"] = scale
    out = pool(run, data, rois, trans, dim, size, **options)
    rng = np.random.default_rng(4)
    out_grad = f32(rng.normal(size=out.shape))
    out_grad[rng.random(out.shape) < 0.02] = INF
    return out, *gradients(run, out_grad, data, rois, trans, **options)


def check(run, *args, **options):
    """The results and the gradients of a backend have the bits of the reference."""
    for got, want in zip(
        both(run, *args, **options), both(runner("cpu", "numpy"), *args, **options)
    ):
        np.testing.assert_array_equal(got, want)


#: The shape of data, the numbers of RoIs, classes, output channels and bins, and the options.
CASES = {
    "one pixel": ((1, 1, 1, 1), 1, 1, 1, 1, {}),
    "odd sizes": ((3, 6 * 9, 7, 11), 9, 2, 6, 3, {"sample_per_part": 2, "trans_std": 0.2}),
    "37 channels": ((2, 37 * 4, 6, 5), 9, 1, 37, 2, {"trans_std": 0.1}),
    "classes of 9 channels": ((1, 18 * 4, 9, 8), 9, 2, 18, 2, {"trans_std": 0.3}),
    "parts of several bins": (
        *((2, 3 * 4 + 1, 9, 10), 20, 3, 3, 5),
        {"part_size": 2, "group": 2, "sample_per_part": 2, "trans_std": 0.1},
    ),
    "more parts than bins": (
        *((1, 2 * 9, 9, 10), 20, 1, 2, 3),
        {"part_size": 5, "sample_per_part": 3, "trans_std": 0.5},
    ),
    "17 samples": ((1, 2, 9, 8), 3, 1, 2, 1, {"sample_per_part": 17, "trans_std": 0.5}),
    "maps of several tiles": (
        *((1, 9 * 4, 33, 18), 20, 1, 9, 2),
        {"sample_per_part": 2, "trans_std": 0.1},
    ),
    "more bins than a block lists": ((2, 1, 4, 4), 300, 1, 1, 1, {"trans_std": 0.1}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_results_and_gradients_equal_the_reference(run_other, case, special):
    shape, num, classes, dim, size, options = case
    part = options.get("part_size", size)
    *arrays, scale = random_case(1, shape, num, classes, part, special)
    check(run_other, *arrays, scale, dim, size, **options)


CPU_CASES = {
    "one channel and few RoIs": ((1, 4, 30, 40), 3, 1, 1, 2, {}),
    "13 channels": ((1, 13 * 9, 12, 30), 20, 1, 13, 3, {"sample_per_part": 3}),
    "40 channels of two classes": ((2, 40 * 4, 21, 19), 40, 2, 40, 2, {"sample_per_part": 2}),
    "parts of several bins": ((2, 12 * 4, 9, 8), 20, 2, 12, 3, {"group": 2, "part_size": 2}),
}


@pytest.mark.parametrize("case", CPU_CASES.values(), ids=CPU_CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, case, special):
    shape, num, classes, dim, size, options = case
    part = options.get("part_size", size)
    data, *arrays = random_case(6, shape, num, classes, part, special)
    data[np.random.default_rng(7).random(shape) < 0.1] = -0.0
    args, options = (data, *arrays, dim, size), {**options, "trans_std": 0.1}
    want = both(runner("cpu", "numpy"), *args, **options)
    for got in cpu_variants(lambda: both(runner("cpu", "native"), *args, **options)):
        for x, y in zip(got, want):
            # The bits of a NaN depend on the order of the operands of an instruction.
            np.testing.assert_array_equal(x, y)
            assert x[~np.isnan(x)].tobytes() == y[~np.isnan(y)].tobytes()


@pytest.mark.parametrize(
    ("shape", "num"),
    [((1, 8, 3, 4), 0), ((0, 8, 3, 4), 2), ((2, 8, 0, 4), 2), ((1, 8, 3, 0), 1)],
)
def test_empty_input_gives_zeros(run, shape, num):
    data, rois = np.zeros(shape), np.zeros((num, 5))
    trans = np.ones((num, 2, 2, 2))
    out = pool(run, data, rois, trans, 2, 2)
    np.testing.assert_array_equal(out, np.zeros((num, 2, 2, 2)))
    grad, trans_grad = gradients(run, np.ones_like(out), data, rois, trans)
    np.testing.assert_array_equal(grad, np.zeros(shape))
    np.testing.assert_array_equal(trans_grad, np.zeros(trans.shape))


def test_gradients_are_those_of_finite_differences(run):
    # The maps rise linearly along both axes within the reach of the samples.
    rng = np.random.default_rng(3)
    data = f32(rng.integers(-3, 4, (1, 8, 1, 1)) * np.arange(12)[:, None] + np.arange(12) * 2)
    rois, trans = [[0, 3, 3, 6, 7]], f32(rng.uniform(-0.2, 0.2, (1, 2, 2, 2)))
    options = {"sample_per_part": 2, "trans_std": 0.5}
    out_grad = f32(rng.integers(-3, 4, (1, 2, 2, 2)))
    _, grad = gradients(run, out_grad, data, rois, trans, **options)
    for at in np.ndindex(*trans.shape):
        low, high = trans.copy(), trans.copy()
        low[at] -= 0.01
        high[at] += 0.01
        change = pool(run, data, rois, high, 2, 2, **options).astype(float)
        change -= pool(run, data, rois, low, 2, 2, **options)
        np.testing.assert_allclose(np.vdot(change, out_grad) / 0.02, grad[at], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_a_bit(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    args = random_case(20, (2, 9 * 4, 9, 8), 30, 1, 3)
    check(runner("cpu", "emulated"), *args, 9, 3, group=2, trans_std=0.1)


def test_sanitizers_find_no_error(run_sanitized):
    args = random_case(5, (2, 6 * 4 + 1, 5, 4), 7, 2, 2, special=True)
    check(run_sanitized, *args, 6, 3, group=2, part_size=2, sample_per_part=2, trans_std=0.1)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    num=st.integers(1, 12),
    classes=st.integers(1, 3),
    of_class=st.integers(1, 20),
    size=st.integers(1, 4),
    group=st.integers(1, 3),
    part=st.integers(0, 4),
    samples=st.integers(1, 4),
    no_trans=st.booleans(),
    special=st.booleans(),
)
def test_equals_mxnet(
    mx, backend, seed, images, height, width, num, classes, of_class, size, group, part, samples,
    no_trans, special,
):  # fmt: skip
    dim = classes * of_class
    shape = images, dim * group**2, height, width
    data, rois, trans, scale = random_case(seed, shape, num, classes, part or size)
    if special:  # in data only: MXNet reads out of bounds for positions of infinity or NaN
        rng = np.random.default_rng(seed)
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
    rois[:, 0] = rois[:, 0].clip(0, images - 1)  # MXNet checks no index
    options = {"part_size": part, "sample_per_part": samples, "trans_std": 0.1}
    arrays = [mx.nd.array(x) for x in ((data, rois) if no_trans else (data, rois, trans))]
    for x in arrays:
        x.attach_grad()
    with mx.autograd.record():
        want = mx.nd.contrib.DeformablePSROIPooling(
            *arrays, spatial_scale=scale, output_dim=dim, group_size=group, pooled_size=size,
            no_trans=no_trans, **options,
        )  # fmt: skip
    out_grad = f32(np.random.default_rng(seed).normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    run, trans = runner("cpu", backend), None if no_trans else trans
    options |= {"scale": scale, "group": group}
    out = pool(run, data, rois, trans, dim, size, **options)
    np.testing.assert_array_equal(out, want.asnumpy())
    grad, trans_grad = gradients(run, out_grad, data, rois, trans, **options)
    np.testing.assert_array_equal(grad, arrays[0].grad.asnumpy())
    assert not arrays[1].grad.asnumpy().any()
    if not no_trans:
        np.testing.assert_array_equal(trans_grad, arrays[2].grad.asnumpy())


class TestRefusals:
    data = np.zeros((1, 8, 4, 4), np.float32)
    rois = np.zeros((3, 5), np.float32)
    trans = np.zeros((3, 4, 2, 2), np.float32)
    huge = np.broadcast_to(np.float32(0), (2, 2**10, 2**10, 2**10))
    expected = "part_size = 2 and classes that divide output_dim = 2, got "

    #: Name and value of a bad argument, and the message.
    forward = {
        "data has three axes": ("data", data[0], "expected shape (N, C, H, W), got (8, 4, 4)"),
        "2^31 elements": ("data", huge, "expected less than 2**31 elements, got shape (2, 1024"),
        "seven channels": (
            *("data", data[:, :7]),
            "expected at least output_dim * group_size**2 = 8 channels, got 7",
        ),
        "four columns": ("rois", rois[:, :4], "expected shape (R, 5), got (3, 4)"),
        "no offsets": (
            "trans",
            None,
            "expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack)",
        ),
        "offsets are float64": ("trans", trans.astype("f8"), "expected float32, got float64"),
        "offsets of two rois": ("trans", trans[:2], "with R = 3 as in rois, got (2, 4, 2, 2)"),
        "offsets of three axes": ("trans", trans[0], "got (4, 2, 2)"),
        "parts that are not square": ("trans", trans[..., :1], f"{expected}(3, 4, 2, 1)"),
        "one part": ("trans", trans[..., :1, :1].copy(), f"{expected}(3, 4, 1, 1)"),
        "no classes": ("trans", trans[:, :0], f"{expected}(3, 0, 2, 2)"),
        "half a class": ("trans", trans[:, :3], f"{expected}(3, 3, 2, 2)"),
        "three classes": ("trans", np.tile(trans, (1, 2, 1, 1))[:, :6], f"{expected}(3, 6, 2, 2)"),
        "scale above 1": ("spatial_scale", 1.1, "expected a number in [0, 1], got 1.1"),
        "no output channels": (
            *("output_dim", 0),
            "expected an integer in [1, 2147483647], got 0",
        ),
        "negative group_size": (
            *("group_size", -1),
            "expected an integer in [0, 2147483647], got -1",
        ),
        "no bins": ("pooled_size", 0, "expected an integer in [1, 32767], got 0"),
        "negative part_size": ("part_size", -1, "expected an integer in [0, 32767], got -1"),
        "no samples": ("sample_per_part", 0, "expected an integer in [1, 1024], got 0"),
        "trans_std above 1": ("trans_std", 1.5, "expected a number in [0, 1], got 1.5"),
        "no_trans is no flag": ("no_trans", 2, "expected True or False, got 2"),
    }

    @pytest.mark.parametrize(("name", "value", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, name, value, message):
        args = {"data": self.data, "rois": self.rois, "trans": self.trans, "spatial_scale": 1.0}
        args |= {"output_dim": 2, "group_size": 2, "pooled_size": 2}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            deformable_psroi_pooling(**{**args, name: value})

    def test_offsets_with_no_trans_are_refused(self):
        args = self.data, self.rois, self.trans, 1.0, 2, 2, 2
        with pytest.raises(TypeError, match=r"^trans: expected None with no_trans, got ndarray"):
            deformable_psroi_pooling(*args, no_trans=True)

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
        "another number of RoIs": ("rois", rois[:2], "with R = 3 as in out_grad, got (2, 5)"),
        "seven channels": ("data", data[:, :7], "group_size**2 = 8 channels, got 7"),
        "2^31 elements": ("data", huge, "expected less than 2**31 elements, got shape (2, 1024"),
        "three classes": ("trans", np.tile(trans, (1, 2, 1, 1))[:, :6], f"{expected}(3, 6, 2, 2)"),
        "negative scale": ("spatial_scale", -1, "expected a number in [0, 1], got -1"),
        "no samples": ("sample_per_part", 0, "expected an integer in [1, 1024], got 0"),
    }

    @pytest.mark.parametrize(("name", "value", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, name, value, message):
        args = {"out_grad": self.out_grad, "data": self.data, "rois": self.rois}
        args |= {"trans": self.trans, "spatial_scale": 1.0, "group_size": 2}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            deformable_psroi_pooling_backward(**{**args, name: value})
