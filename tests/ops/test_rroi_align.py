import ctypes
import ctypes.util
import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import roi_align, rroi_align

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def count_up(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def align(run, data, rois, size, scale=1.0, ratio=-1):
    return run(rroi_align, f32(data), f32(rois), size, scale, ratio)


class TestByHand:
    #: Angle in degrees, and the bins of a roi of 4 x 2 pixels around (4, 3). The value at row y and
    #: column x is 10 y + x. The centers of the bins are 1 pixel left and right of the center.
    angles = {
        "0": (0, [33, 35]),
        # The right end turns up.
        "90": (90, [44, 24]),
        "180": (180, [35, 33]),
        "-90": (-90, [24, 44]),
        "450": (450, [44, 24]),
        # 1 pixel to the right and 1 up, by sqrt(1/2) each.
        "45": (45, [34 + 9 * 0.5**0.5, 34 - 9 * 0.5**0.5]),
        "30": (30, [34 - 0.75**0.5 + 5, 34 + 0.75**0.5 - 5]),
    }

    @pytest.mark.parametrize(("degrees", "want"), angles.values(), ids=angles)
    @pytest.mark.parametrize("ratio", [-1, 1, 2])
    def test_bins_turn_around_the_center(self, run, degrees, want, ratio):
        data = (10 * np.arange(7)[:, None] + np.arange(9)).reshape(1, 1, 7, 9)
        out = align(run, data, [[0, 4, 3, 4, 2, degrees]], (1, 2), 1.0, ratio)
        np.testing.assert_allclose(out[0, 0, 0], want, rtol=1e-6)
        assert out.dtype == np.float32

    def test_coordinates_are_scaled(self, run):
        out = align(run, count_up(1, 1, 8, 6), [[0, 8, 8, 16, 16, 0]], (2, 2), 0.25)
        np.testing.assert_array_equal(out[0, 0], [[7, 9], [19, 21]])

    def test_roi_without_an_angle_equals_an_upright_roi(self, run):
        data, rois = f32(np.random.default_rng(0).normal(size=(2, 5, 9, 11))), []
        for image, x, y, width, height in ((0, 5, 4, 4, 6), (1, 2, 7, 8, 2), (1, 10, 1, 4, 4)):
            rois.append((image, x, y, width, height, 0))
        image, x, y, width, height, _ = f32(rois).T
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        upright = np.stack([image, *edges], axis=1)
        want = runner("cpu", "numpy")(roi_align, data, upright, (2, 2), 1.0, 2)
        np.testing.assert_array_equal(align(run, data, rois, (2, 2), 1.0, 2), want)

    #: A roi of one bin on a map of 2 x 4 ones, the ratio, and the share of the samples in the map.
    shares = {
        "all": ((1.5, 0.5, 2, 1, 0), -1, 1),
        # A size of 1: the sample is at the center.
        "no size": ((3, 1, 0, -5, 30), 1, 1),
        # Positions 3.5, 4 and 4.5 of which the map has those up to 4.
        "beyond the map": ((4, 0.5, 1.5, 1, 0), 3, 2 / 3),
        "turned beyond the map": ((1.5, 2, 3, 1, 90), 3, 2 / 3),
        "adaptive": ((1.5, 0.5, 20, 1, 0), -1, 6 / 20),  # -1 to 4 at distance 1, from -8
        "far away": ((1e6, 1e6, 50, 50, 45), -1, 0),
        "center NaN": ((NAN, 0.5, 2, 1, 0), 2, 0),
        "center infinite": ((INF, 0.5, 20, 20, 10), -1, 0),
        "width NaN": ((1.5, 0.5, NAN, 1, 0), 2, 0),
        "width NaN, adaptive": ((1.5, 0.5, NAN, 1, 0), -1, 0),
        "width infinite, adaptive": ((1.5, 0.5, INF, 1, 0), -1, 0),
        "angle NaN": ((1.5, 0.5, 2, 1, NAN), 2, 0),
        "angle infinite": ((1.5, 0.5, 20, 20, INF), -1, 0),
        # 2^20 radians are 60 078 979 degrees.
        "large angle": ((1.5, 0.5, 1, 1, 6.00e7), 1, 1),
        "angle beyond 2^20 radians": ((1.5, 0.5, 1, 1, 6.01e7), 1, 0),
    }

    @pytest.mark.parametrize(("roi", "ratio", "want"), shares.values(), ids=shares)
    def test_samples_outside_count_as_zero(self, run, roi, ratio, want):
        out = align(run, np.ones((1, 1, 2, 4)), [[0, *roi]], (1, 1), 1.0, ratio)
        np.testing.assert_allclose(out.item(), want, rtol=1e-6)

    def test_millions_of_samples_count_outside_of_the_map(self, run_other):
        # The other axis has one sample. Those at -0.5, 0.5, 1.5, 2.5 and 3.5 are in the map.
        ones = np.ones((1, 1, 4, 4))
        for angle in (0, 90):
            out = align(run_other, ones, [[0, 2, 2, 2.0**21, 1, angle]], (1, 1))
            assert out.item() == 5 / 2**21

    @pytest.mark.parametrize(("index", "want"), [(0, 5), (1, 6), (1.9, 6), (-0.9, 5)])
    def test_image_index_is_truncated(self, run, index, want):
        data = f32([[[[5.0]]], [[[6.0]]]])
        assert align(run, data, [[index, 0, 0, 0, 0, 0]], (1, 1)).item() == want

    def test_roi_of_a_missing_image_gives_zeros(self, run):
        indices = [-1, 2, NAN, INF, -INF, 2.0**31, 2.0**32, -(2.0**32)]
        data = np.full((2, 3, 1, 1), NAN, np.float32)
        out = align(run, data, [[index, 0, 0, 0, 0, 0] for index in indices], (2, 1))
        np.testing.assert_array_equal(out, np.zeros((8, 3, 2, 1)))

    def test_sample_outside_adds_zero_times_the_first_pixel(self, run):
        data = np.full((1, 3, 1, 4), 2, np.float32)
        data[0, :, 0, 0] = 1, INF, NAN
        out = align(run, data, [[0, 3.5, 0, 6, 1, 0]], (1, 2), 1.0, 1)  # at columns 2 and 5
        np.testing.assert_array_equal(out[0, :, 0], [[2, 0], [2, NAN], [2, NAN]])

    def test_order_of_a_sum_is_by_rows_of_samples(self, run):
        # Four samples at the pixels: 1e8 + 1 is 1e8 in float32, so another order gives 1 / 4.
        data, roi = [[[[1e8, 1], [-1e8, 0]]]], [[0, 0.5, 0.5, 2, 2, 0]]
        assert align(run, data, roi, (1, 1), 1.0, 2).item() == 0
        assert align(run, np.swapaxes(data, 2, 3), roi, (1, 1), 1.0, 2).item() == 0.25


SPECIAL = [NAN, INF, -INF, 3e9, -3e9, 1e7, -1e7, 300, -3, -1, 0, 1, 2, 5]


def random_case(seed, shape, num, special=False):
    """Feature maps, RoIs and a scale. Some RoIs are partly outside, or of missing images."""
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    scale = rng.choice([1.0, 0.5, 1 / 16, 0.3])
    extent = np.array(shape[:1:-1]) / scale
    center = rng.uniform(-0.2, 1.2, (num, 2)) * extent
    size = rng.uniform(-0.1, 1.2, (num, 2)) * extent
    angle = rng.choice([0, 45, 90, -180, 359.5, *rng.uniform(-400, 400, 10)], (num, 1))
    beyond = rng.integers(2)
    image = rng.integers(-beyond, shape[0] + beyond, (num, 1))
    rois = f32(np.concatenate([image, center, size, angle], axis=1))
    if special:
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
        rois[::2, 1:] = rng.choice(SPECIAL, rois[::2, 1:].shape)
        # The reference computes each sample.
        rois[:, 3:5] = np.where(np.abs(rois[:, 3:5]) > 1e5, NAN, rois[:, 3:5])
    return data, rois, scale


def check(run, data, rois, *options):
    """The results of a backend have the bits of the reference."""
    want = align(runner("cpu", "numpy"), data, rois, *options)
    np.testing.assert_array_equal(align(run, data, rois, *options), want)


#: The shape of data, the number of RoIs, the pooled size and the sampling ratio.
CASES = {
    "one pixel": ((1, 1, 1, 1), 1, (1, 1), -1),
    "odd sizes": ((3, 5, 7, 11), 9, (3, 2), 3),
    "70 channels": ((1, 70, 6, 5), 3, (7, 7), 2),
    "adaptive": ((2, 9, 9, 10), 30, (4, 3), -1),
    "more bins than threads": ((1, 3, 9, 8), 2, (1, 300), 1),
    "more outputs than threads": ((2, 1, 5, 4), 90, (3, 4), 1),
    "nine samples of long bins": ((1, 2, 20, 40), 5, (1, 2), 9),
    "adaptive samples of long bins": ((1, 2, 20, 40), 5, (1, 2), -1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_results_equal_the_reference(run_other, case, special):
    shape, num, size, ratio = case
    data, rois, scale = random_case(1, shape, num, special)
    check(run_other, data, rois, size, scale, ratio)


def test_angles_give_correctly_rounded_sines_and_cosines(run_other):
    """A roi of one bin samples column cos(angle) or sin(angle) of a map that counts up."""
    # The bin at distance 1 from the center is at x = cos and y = -sin.
    rng = np.random.default_rng(2)
    degrees = f32([*range(-720, 721, 15), *rng.uniform(-3000, 3000, 300), 6e7, 1e-30, -1e-3])
    rois = np.zeros((len(degrees), 6), np.float32)
    rois[:, 1], rois[:, 2], rois[:, 3], rois[:, 4], rois[:, 5] = 1, 1, 4, 1, degrees
    columns = np.tile(f32([0, 1, 2]), (1, 1, 3, 1))
    x = align(run_other, columns, rois, (1, 2), 1.0, 1)[:, 0, 0, 1]
    y = align(run_other, columns.swapaxes(2, 3).copy(), rois, (1, 2), 1.0, 1)[:, 0, 0, 1]
    angle = f32(degrees.astype(np.float64) * np.pi / 180).astype(np.float64)
    want_x = np.cos(angle).astype(np.float32) + np.float32(1)
    want_y = np.float32(1) - np.sin(angle).astype(np.float32)
    # The interpolation rounds once more.
    np.testing.assert_allclose(x, want_x, rtol=0, atol=2e-7)
    np.testing.assert_allclose(y, want_y, rtol=0, atol=2e-7)


CPU_CASES = {
    "one channel and few RoIs": ((1, 1, 9, 13), 3, (3, 3), -1),
    "3 channels": ((2, 3, 20, 31), 40, (7, 7), 2),
    "13 channels": ((1, 13, 12, 30), 20, (2, 5), 3),
    "37 channels": ((2, 37, 21, 19), 60, (3, 4), -1),
    "196 bins": ((1, 9, 18, 18), 10, (14, 14), 1),
}


@pytest.mark.parametrize("case", CPU_CASES.values(), ids=CPU_CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, case, special):
    shape, num, size, ratio = case
    data, rois, scale = random_case(6, shape, num, special)
    data[np.random.default_rng(7).random(shape) < 0.1] = -0.0
    want = align(runner("cpu", "numpy"), data, rois, size, scale, ratio)
    for got in cpu_variants(lambda: align(runner("cpu", "native"), data, rois, size, scale, ratio)):
        # The bits of a NaN depend on the order of the operands of an instruction.
        np.testing.assert_array_equal(got, want)
        assert got[~np.isnan(got)].tobytes() == want[~np.isnan(want)].tobytes()


def test_non_temporal_stores_give_equal_bits(cpu_variants):
    """The condition is a result of 4 MiB in memory that was written before."""
    native = pytest.importorskip("cvops._native")
    data, rois, scale = random_case(9, (1, 37, 25, 33), 600)
    rois[:, 0] = 0
    want = align(runner("cpu", "native"), data, rois, (7, 7), scale, 1)
    reference = align(runner("cpu", "numpy"), data[:, :3].copy(), rois[:40], (7, 7), scale, 1)
    np.testing.assert_array_equal(want[:40, :3], reference)
    sizes = (*data.shape, 7, 7, scale, 1)
    for offset in (0, 1, 3):  # floats after a multiple of 16 bytes

        def into_old_memory(offset=offset):
            out = np.ones(want.size + 4, np.float32)[offset : offset + want.size]
            native.cpu.rroi_align(out, data, rois, sizes)
            return out

        for got in cpu_variants(into_old_memory):
            assert got.tobytes() == want.tobytes()


def test_tables_for_many_samples_are_made_in_parts(cpu_variants):
    """Tables are for 2^17 samples at most. These RoIs have 2^18."""
    data, rois, scale = random_case(3, (2, 2, 9, 8), 64)
    want = align(runner("cpu", "emulated"), data, rois, (2, 2), scale, 32)
    for got in cpu_variants(lambda: align(runner("cpu", "native"), data, rois, (2, 2), scale, 32)):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("shape", "num"),
    [((1, 2, 3, 4), 0), ((0, 2, 3, 4), 2), ((1, 0, 3, 4), 2), ((2, 3, 0, 4), 2), ((1, 2, 3, 0), 1)],
)
def test_empty_input_gives_zeros(run, shape, num):
    out = align(run, np.zeros(shape), np.zeros((num, 6)), (2, 3))
    np.testing.assert_array_equal(out, np.zeros((num, shape[1], 2, 3)))


@pytest.mark.parametrize("max_shared", [0, 227 << 10], ids=["no shared memory", "shared memory"])
def test_sanitizers_find_no_error(run_sanitized, monkeypatch, max_shared):
    monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
    data, rois, scale = random_case(5, (2, 3, 5, 4), 7, special=True)
    check(run_sanitized, data, rois, (3, 2), scale)


# 16 bytes for each of 10 x 12 pixels.
@pytest.mark.parametrize(("max_shared", "shared"), [(1920, 1920), (1919, 0)])
def test_planes_fit_into_shared_memory_or_do_not(monkeypatch, launches, max_shared, shared):
    monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
    data, rois, scale = random_case(10, (2, 5, 10, 12), 40)
    check(runner("cpu", "emulated"), data, rois, (3, 3), scale, 2)
    assert [x.shared for x in launches] == [0, shared]


def angles_of_the_c_library(degrees):
    """Return the sines and cosines that MXNet uses."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    for function in (libm.sinf, libm.cosf):
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    radians = f32(degrees.astype(np.float64) * np.pi / 180)
    return f32([[libm.sinf(x), libm.cosf(x)] for x in radians]), radians.astype(np.float64)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*(st.integers(1, n) for n in (3, 40, 12, 12))),
    num=st.integers(1, 20),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ratio=st.integers(-1, 5),
    special=st.booleans(),
)
def test_equals_mxnet_for_equal_sines_and_cosines(
    mx, backend, seed, shape, num, size, ratio, special
):
    data, rois, scale = random_case(seed, shape, num)
    if special:  # in data only: MXNet reads out of bounds for RoIs of infinity or NaN
        rng = np.random.default_rng(seed)
        data[rng.random(shape) < 0.1] = NAN
        data[rng.random(shape) < 0.1] = INF
    rois[:, 0] = rois[:, 0].clip(0, shape[0] - 1)  # MXNet checks no index
    want = mx.nd.contrib.RROIAlign(mx.nd.array(data), mx.nd.array(rois), size, scale, ratio)
    out = runner("cpu", backend)(rroi_align, data, rois, size, scale, ratio)
    angles, radians = angles_of_the_c_library(rois[:, 5])
    equal = (angles == f32(np.stack([np.sin(radians), np.cos(radians)], axis=1))).all(axis=1)
    np.testing.assert_array_equal(out[equal], want.asnumpy()[equal])


class TestRefusals:
    data = np.zeros((1, 4, 4, 4), np.float32)
    rois = np.zeros((3, 6), np.float32)
    huge = np.broadcast_to(np.float32(0), (2, 2**10, 2**10, 2**10))

    #: Name and value of a bad argument, and the message.
    arguments = {
        "data has three axes": ("data", data[0], "expected shape (N, C, H, W), got (4, 4, 4)"),
        "data is float64": ("data", data.astype("f8"), "expected float32, got float64"),
        "2^31 elements": ("data", huge, "expected less than 2**31 elements, got shape (2, 1024"),
        "five columns": ("rois", rois[:, :5], "expected shape (R, 6), got (3, 5)"),
        "rois is a list": (
            "rois",
            [[0] * 6],
            "expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack)",
        ),
        "one size": ("pooled_size", (7,), "expected a pair (height, width), got (7,)"),
        "size of zero": ("pooled_size", (7, 0), "expected an integer in [1, 2147483647], got 0"),
        "2^30 bins": ("pooled_size", (2**15, 2**15), "less than 2**30 bins, got (32768, 32768)"),
        "scale above 1": ("spatial_scale", 1.1, "expected a number in [0, 1], got 1.1"),
        "scale is NaN": ("spatial_scale", NAN, "expected a number in [0, 1], got nan"),
        "ratio is a float": ("sampling_ratio", 2.0, "expected an integer, got 2.0"),
        "1025 samples": (
            *("sampling_ratio", 1025),
            "expected an integer in [-2147483648, 1024], got 1025",
        ),
    }

    @pytest.mark.parametrize(("name", "value", "message"), arguments.values(), ids=arguments)
    def test_bad_arguments_are_refused(self, name, value, message):
        args = {"data": self.data, "rois": self.rois, "pooled_size": (2, 2), "spatial_scale": 1.0}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            rroi_align(**{**args, name: value})
