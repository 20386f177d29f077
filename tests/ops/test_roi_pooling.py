import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import roi_pooling, roi_pooling_backward

LOWEST = np.finfo(np.float32).min
INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def count_up(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def pool(run, data, rois, size, scale=1.0):
    return run(roi_pooling, f32(data), f32(rois), size, scale, return_argmax=True)


class TestByHand:
    def test_values_and_argmax_of_two_rois_that_overlap(self, run):
        # The first RoI has rows and columns 0 to 2. A bin has 1.5 of each, so the middle one is in
        # both halves. The second has rows 1 to 3 and columns 0 to 3: 1.5 rows and 2 columns a bin.
        rois = [[0, 0, 0, 20, 20], [0, 0, 10, 30, 30]]
        pooled, argmax = pool(run, count_up(1, 1, 4, 4), rois, (2, 2), 0.1)
        np.testing.assert_array_equal(pooled[:, 0], [[[5, 6], [9, 10]], [[9, 11], [13, 15]]])
        np.testing.assert_array_equal(argmax, pooled)  # each value of the data is its index
        assert pooled.dtype == np.float32
        assert argmax.dtype == np.int32

    @pytest.mark.parametrize(
        ("scale", "want"),
        [(1.0, [[14, 16], [26, 28]]), (0.7, [[7, 9], [19, 21]])],
        ids=["scale 1", "scale 0.7"],
    )
    def test_example_of_the_documentation(self, run, scale, want):
        pooled, _ = pool(run, count_up(1, 1, 8, 6), [[0, 0, 0, 4, 4]], (2, 2), scale)
        np.testing.assert_array_equal(pooled[0, 0], want)

    #: First and last coordinate of an RoI, first and last pixel.
    pixels = {
        "integers": (1.0, 2.0, 1, 2),
        "halves are rounded up": (0.5, 1.5, 1, 2),
        "below a half": (0.49999997, 2.5, 0, 3),  # the rounded sum with 0.5 is 1
        "negative halves are rounded down": (-0.5, -0.4, 0, 0),  # pixel -1 is outside
        "inverted": (3.0, 1.0, 3, 3),
        "beyond the map": (5.0, 99.0, 5, 6),
    }

    @pytest.mark.parametrize(("first", "last", "begin", "end"), pixels.values(), ids=pixels)
    def test_roi_covers_its_rounded_pixels(self, run, first, last, begin, end):
        row = f32([[[[0, 1, 2, 3, 4, 5, 6]]]])
        high, _ = pool(run, row, [[0, first, 0, last, 0]], (1, 1))
        low, _ = pool(run, -row, [[0, first, 0, last, 0]], (1, 1))
        assert (-low.item(), high.item()) == (begin, end)

    def test_scale_of_zero_pools_the_first_pixel(self, run):
        pooled, _ = pool(run, 7 + count_up(1, 1, 3, 3), [[0, 1, 2, 3, 4]], (2, 1), 0)
        np.testing.assert_array_equal(pooled[0, 0], [[7], [7]])

    @pytest.mark.parametrize(
        ("index", "want"),
        [(0, 0), (1, 1), (1.9, 1), (-0.9, 0)],
    )
    def test_image_index_is_truncated(self, run, index, want):
        data = f32([[[[5.0]]], [[[6.0]]]])
        pooled, argmax = pool(run, data, [[index, 0, 0, 0, 0]], (1, 1))
        assert (pooled.item(), argmax.item()) == (5 + want, want)

    def test_roi_of_a_missing_image_gives_zeros(self, run):
        indices = [-1, 2, NAN, INF, -INF, 2.0**31, 2.0**32, -(2.0**32)]
        rois = [[index, 0, 0, 0, 0] for index in indices]
        pooled, argmax = pool(run, np.full((2, 1, 1, 1), 5), rois, (1, 1))
        assert pooled.reshape(-1).tolist() == [0] * 8
        assert argmax.reshape(-1).tolist() == [-1] * 8

    corners = {
        # Infinity, NaN and 3e9 become -2^31. An RoI that ends there is inverted: one pixel.
        "infinite end": ([1, 0, INF, 0], [1]),
        "end at 3e9": ([1, 0, 3e9, 0], [1]),
        "NaN end": ([1, 0, NAN, 0], [1]),
        # An RoI that begins there is outside.
        "NaN begin": ([NAN, 0, 2, 0], [0]),
        "begin at -infinity": ([-INF, 0, 2, 0], [0]),
        "infinite begin and end": ([INF, 0, INF, 0], [0]),
        # 2e9 + 1 pixels include the whole row.
        "2e9 pixels": ([0, 0, 2e9, 0], [4]),
        # 4e9 + 1 pixels are negative in 32 bits: one pixel, which is outside.
        "4e9 pixels": ([-2e9, 0, 2e9, 0], [0]),
    }

    @pytest.mark.parametrize(("corners", "want"), corners.values(), ids=corners)
    def test_corners_and_sizes_beyond_int32_select_defined_pixels(self, run, corners, want):
        pooled, _ = pool(run, count_up(1, 1, 1, 5), [[0, *corners]], (1, 1))
        np.testing.assert_array_equal(pooled.reshape(-1), want)

    def test_argmax_is_the_first_of_equal_values(self, run):
        data = [[[[1, 2, 3], [3, 3, 0], [3, 0, -0.0]]]]
        rois = [[0, 0, 0, 2, 2], [0, 0, 1, 1, 2], [0, 1, 2, 2, 2]]
        _, argmax = pool(run, data, rois, (1, 1))
        assert argmax.reshape(-1).tolist() == [2, 3, 7]

    def test_nan_and_the_lowest_values_are_no_maximum(self, run):
        data = [[[[NAN, 1, NAN, INF], [NAN, NAN, -INF, LOWEST]]]]
        rois = [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 2, 1, 3, 1], [0, 0, 0, 3, 1]]
        pooled, argmax = pool(run, data, rois, (1, 1))
        np.testing.assert_array_equal(pooled.reshape(-1), f32([1, LOWEST, LOWEST, INF]))
        assert argmax.reshape(-1).tolist() == [1, -1, -1, 3]

    def test_gradients_are_summed_in_order_of_rois(self, run):
        # 1e8 + 1 is 1e8 in float32: the sum in order is 0, another order gives 1.
        out_grad = f32([1e8, 1, -1e8]).reshape(3, 1, 1, 1)
        argmax = np.zeros((3, 1, 1, 1), np.int32)
        assert run(roi_pooling_backward, out_grad, argmax, (1, 1, 1, 1)).item() == 0
        assert run(roi_pooling_backward, out_grad[[0, 2, 1]], argmax, (1, 1, 1, 1)).item() == 1

    def test_argmax_in_another_channel_gives_no_gradient(self, run):
        # Channel 0 has the indices 0, 1, 4 and 5 of the data, channel 1 the others.
        argmax = np.int32([[0, 5, 2, 8], [3, 0, -1, 7], [4, -(2**31), 2**31 - 1, 6]])
        argmax = argmax.reshape(3, 2, 1, 2)
        out_grad = f32(2.0 ** np.arange(12)).reshape(argmax.shape)
        grad = run(roi_pooling_backward, out_grad, argmax, (2, 2, 1, 2))
        np.testing.assert_array_equal(grad.reshape(-1), [1 + 32, 0, 4, 0, 256, 2, 2048, 128])


def random_rois(rng, num, images, height, width, scale):
    """RoIs that overlap. Some are inverted, partly outside, or of missing images."""
    low = rng.uniform(-0.2, 1, (num, 2)) * (width, height) / scale
    size = rng.uniform(-0.1, 1, (num, 2)) * (width, height) / scale
    beyond = rng.integers(2)
    image = rng.integers(-beyond, images + beyond, (num, 1))
    return f32(np.concatenate([image, low, low + size], axis=1))


SPECIAL = [NAN, INF, -INF, 3e9, -3e9, 2147483520, -(2.0**31), 2e9, -2e9, 1e9, 1e5, -3, 0, 2, 5]


def special_rois(rng, num, images):
    rois = rng.choice(SPECIAL, (num, 5))
    rois[: num // 2, 0] = rng.integers(images, size=num // 2)
    return f32(rois)


def random_case(seed, shape, num, special=False):
    rng = np.random.default_rng(seed)
    # A few values give ties.
    data = f32(rng.integers(-4, 5, shape) / 2)
    scale = rng.choice([1.0, 0.5, 1 / 16, 0.3])
    if special:
        data[rng.random(shape) < 0.2] = NAN
        data[rng.random(shape) < 0.1] = -INF
        return data, special_rois(rng, num, shape[0]), scale
    return data, random_rois(rng, num, shape[0], *shape[2:], scale), scale


def check(run, data, rois, size, scale, seed=0):
    """The results and the gradients of a backend have the bits of the reference."""
    reference = runner("cpu", "numpy")
    pooled, argmax = pool(run, data, rois, size, scale)
    want, want_argmax = pool(reference, data, rois, size, scale)
    np.testing.assert_array_equal(pooled, want)
    np.testing.assert_array_equal(argmax, want_argmax)
    np.testing.assert_array_equal(run(roi_pooling, data, rois, size, scale), want)
    out_grad = f32(np.random.default_rng(seed).normal(size=want.shape))
    grad = run(roi_pooling_backward, out_grad, argmax, data.shape)
    want_grad = reference(roi_pooling_backward, out_grad, want_argmax, data.shape)
    np.testing.assert_array_equal(grad, want_grad)


CASES = {
    "one pixel": ((1, 1, 1, 1), 1, (1, 1)),
    "odd sizes": ((3, 5, 7, 11), 9, (3, 2)),
    "70 channels": ((1, 70, 6, 5), 3, (7, 7)),
    "60 RoIs": ((2, 33, 9, 10), 60, (4, 3)),
    "more bins than pixels": ((1, 2, 2, 3), 4, (5, 7)),
    "more bins than threads": ((1, 3, 9, 8), 2, (1, 300)),
    "more outputs than threads": ((2, 1, 5, 4), 90, (3, 4)),
    "five images with two channels": ((5, 2, 4, 4), 20, (2, 2)),
    "one channel after a group of four": ((2, 5, 8, 6), 30, (3, 3)),
    "largest plane in shared memory": ((1, 1, 10, 641), 81, (9, 9)),
    "plane above shared memory": ((1, 1, 3, 2137), 81, (9, 9)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_results_and_gradients_equal_the_reference(run, case, special):
    shape, num, size = case
    data, rois, scale = random_case(1, shape, num, special)
    check(run, data, rois, size, scale)


@pytest.mark.parametrize("num", [1, 40, 400])
def test_large_inputs_equal_the_reference(num):
    """The numbers of RoIs select each algorithm of the CPU. The planes need several threads."""
    data, rois, scale = random_case(2, (2, 100, 23, 17), num)
    check(runner("cpu", "native"), data, rois, (7, 7), scale)


CPU_CASES = {
    "one channel and few RoIs": ((1, 1, 9, 13), 3, (3, 3)),
    "3 channels": ((2, 3, 20, 31), 90, (7, 7)),
    "13 channels": ((1, 13, 12, 70), 40, (2, 5)),
    "37 channels": ((2, 37, 21, 19), 150, (3, 4)),
    "196 bins": ((1, 9, 18, 18), 60, (14, 14)),
    "400 RoIs": ((2, 70, 25, 33), 400, (7, 7)),
}


@pytest.mark.parametrize("case", CPU_CASES.values(), ids=CPU_CASES)
@pytest.mark.parametrize("special", [False, True], ids=["usual", "special"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, case, special):
    shape, num, size = case
    data, rois, scale = random_case(6, shape, num, special)
    data[np.random.default_rng(7).random(shape) < 0.1] = -0.0
    rois = np.concatenate([rois, f32([[0, 0, 0, shape[3] / scale, shape[2] / scale]])])
    out_grad = f32(np.random.default_rng(8).normal(size=(num + 1, shape[1], *size)))

    def both(run):
        pooled, argmax = pool(run, data, rois, size, scale)
        alone = run(roi_pooling, data, rois, size, scale)
        grad = run(roi_pooling_backward, out_grad, argmax, shape)
        return [x.tobytes() for x in (pooled, argmax, alone, grad)]

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        assert got == want


def test_non_temporal_stores_give_equal_bits(cpu_variants):
    """The condition is a result of 4 MiB in memory that was written before."""
    native = pytest.importorskip("cvops._native")
    data, rois, scale = random_case(9, (2, 37, 25, 33), 700)
    want = pool(runner("cpu", "numpy"), data, rois, (7, 7), scale)
    sizes = (*data.shape, 7, 7, scale)
    for offset in (0, 1, 3):  # floats after a multiple of 16 bytes

        def into_old_memory(offset=offset):
            pooled, argmax = (np.ones(x.size + 4, x.dtype)[offset : offset + x.size] for x in want)
            native.cpu.roi_pooling(pooled, argmax, data, rois, sizes)
            return pooled, argmax

        for got in cpu_variants(into_old_memory):
            for x, y in zip(got, want):
                assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_first_of_two_zeros_keeps_its_sign(run, zero):
    """The first zero in order of rows counts, also with so many RoIs that a CPU pools squares."""
    data = np.full((1, 9, 12, 12), -1, np.float32)
    data[:, :, ::2, 1::2] = -zero
    data[:, :, 1::2, ::2] = zero
    rois = f32([[0, 1, 0, 11, 11], [0, 0, 1, 11, 10]]).repeat(20, axis=0)
    pooled = run(roi_pooling, data, rois, (3, 3), 1.0)
    want = roi_pooling(data, rois, (3, 3), 1.0, backend="numpy")
    np.testing.assert_array_equal(pooled.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize(
    ("shape", "num"),
    [((1, 2, 3, 4), 0), ((0, 2, 3, 4), 2), ((1, 0, 3, 4), 2), ((2, 3, 0, 4), 2), ((1, 2, 3, 0), 1)],
)
def test_empty_input_gives_zeros(run, shape, num):
    data, rois = np.zeros(shape, np.float32), np.zeros((num, 5), np.float32)
    pooled, argmax = pool(run, data, rois, (2, 3))
    np.testing.assert_array_equal(pooled, np.zeros((num, shape[1], 2, 3)))
    np.testing.assert_array_equal(argmax, np.full(pooled.shape, -1))
    grad = run(roi_pooling_backward, pooled, argmax, shape)
    np.testing.assert_array_equal(grad, np.zeros(shape))


def test_gradient_equals_finite_differences(run):
    # All values differ by 2 or more, so an increase of 1 changes no argmax. The values are
    # integers, so the differences are exact.
    rng = np.random.default_rng(3)
    data = f32(2 * rng.permutation(2 * 2 * 5 * 6)).reshape(2, 2, 5, 6)
    rois = random_rois(rng, 8, 2, 5, 6, 0.5)
    pooled, argmax = pool(run, data, rois, (2, 3), 0.5)
    out_grad = f32(rng.integers(-9, 10, pooled.shape))
    grad = run(roi_pooling_backward, out_grad, argmax, data.shape)
    for i in np.ndindex(data.shape):
        moved = data.copy()
        moved[i] += 1
        change = roi_pooling(moved, rois, (2, 3), 0.5, backend="numpy") - pooled
        assert grad[i] == (change * out_grad).sum()


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_the_values(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data, rois, scale = random_case(20, (2, 5, 9, 8), 60)
    got = pool(runner("cpu", "emulated"), data, rois, (3, 3), scale)
    for x, y in zip(got, pool(runner("cpu", "numpy"), data, rois, (3, 3), scale)):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_the_gradient(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    rng = np.random.default_rng(4)
    argmax = np.int32(rng.integers(6, size=(200, 1, 3, 3)))
    out_grad = f32(rng.normal(size=argmax.shape))
    got = runner("cpu", "emulated")(roi_pooling_backward, out_grad, argmax, (1, 1, 2, 3))
    want = roi_pooling_backward(out_grad, argmax, (1, 1, 2, 3), backend="numpy")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("max_shared", [0, 227 << 10], ids=["no shared memory", "shared memory"])
def test_sanitizers_find_no_error(run_sanitized, monkeypatch, max_shared):
    monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
    data, rois, scale = random_case(5, (2, 3, 5, 4), 7)
    check(run_sanitized, data, rois, (3, 2), scale)
    argmax = np.int32([-(2**31), 2**31 - 1, -1, 0, 119, 120]).reshape(6, 1, 1, 1).repeat(3, axis=1)
    args = count_up(*argmax.shape), argmax, data.shape
    want = roi_pooling_backward(*args, backend="numpy")
    np.testing.assert_array_equal(run_sanitized(roi_pooling_backward, *args), want)


class TestSharedMemory:
    """Planes are in shared memory if they fit."""

    STAGED, PLAIN = "roi_pooling_staged", "roi_pooling"

    # Each of 10 x 12 pixels has 36 bytes: 4324 bytes with one word. An RoI has an int64 and 6
    # edges: 32 bytes. The staged kernel needs 32 RoIs at once.
    kernels = {
        "40 RoIs fit": (4324 + 32 * 40, STAGED, 4324 + 32 * 40),
        "32 RoIs fit": (4324 + 32 * 32, STAGED, 4324 + 32 * 32),
        "31 RoIs fit": (4324 + 32 * 32 - 1, PLAIN, 0),
        "no shared memory": (0, PLAIN, 0),
    }

    @pytest.mark.parametrize(("max_shared", "kernel", "shared"), kernels.values(), ids=kernels)
    def test_size_of_shared_memory_selects_the_kernel(
        self, monkeypatch, launches, max_shared, kernel, shared
    ):
        monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
        data, rois, scale = random_case(10, (1, 3, 10, 12), 40)
        run = runner("cpu", "emulated")
        got = pool(run, data, rois, (3, 3), scale)
        assert [(x.kernel, x.shared) for x in launches] == [(kernel, shared)]
        for x, y in zip(got, pool(runner("cpu", "numpy"), data, rois, (3, 3), scale)):
            np.testing.assert_array_equal(x, y)

    def test_rois_beyond_shared_memory_are_staged_in_groups(self, monkeypatch, launches):
        # Each of 2 splits has 100 RoIs. The capacity is 32.
        monkeypatch.setattr(backends, "MAX_SHARED", 4324 + 32 * 32)
        data, rois, scale = random_case(11, (1, 3, 10, 12), 200)
        check(runner("cpu", "emulated"), data, rois, (3, 3), scale)
        assert (launches[0].kernel, launches[0].shared) == (self.STAGED, 4324 + 32 * 32)

    def test_few_rois_use_the_plain_kernel(self, launches):
        data, rois, scale = random_case(12, (1, 3, 10, 12), 13)  # 117 bins, 120 pixels
        check(runner("cpu", "emulated"), data, rois, (3, 3), scale)
        assert (launches[0].kernel, launches[0].shared) == (self.PLAIN, 0)

    # With 200 channels, each image has its own blocks: one float for each of 30 pixels.
    @pytest.mark.parametrize(
        ("max_shared", "shared"),
        [(41984 + 120, 41984 + 120), (41984 + 119, 41984)],
        ids=["sums fit", "sums do not fit"],
    )
    def test_sums_of_the_gradient_are_in_shared_memory_if_they_fit(
        self, monkeypatch, launches, max_shared, shared
    ):
        monkeypatch.setattr(backends, "MAX_SHARED", max_shared)
        rng = np.random.default_rng(13)
        argmax = np.int32(rng.integers(-20, 2 * 200 * 30, size=(10, 200, 3, 3)))
        out_grad = f32(rng.normal(size=argmax.shape))
        args = out_grad, argmax, (2, 200, 5, 6)
        got = runner("cpu", "emulated")(roi_pooling_backward, *args)
        assert [(x.kernel, x.shared) for x in launches] == [("roi_pooling_backward", shared)]
        np.testing.assert_array_equal(got, roi_pooling_backward(*args, backend="numpy"))


def test_more_rois_than_a_block_holds_have_equal_bits():
    """An RoI needs 816 of 32768 bytes. Each of 4 splits has 45 RoIs."""
    data, rois, scale = random_case(14, (1, 2, 6, 9), 180)
    want = pool(runner("cpu", "native"), data, rois, (1, 200), scale)
    for x, y in zip(pool(runner("cpu", "emulated"), data, rois, (1, 200), scale), want):
        np.testing.assert_array_equal(x, y)


def test_tiny_and_huge_rois_have_equal_bits(run):
    data = random_case(15, (2, 6, 9, 14), 1)[0]
    corners = [[3, 4, 3, 4], [0, 0, 13, 8], [-50, -50, 90, 90], [2, 0, 2, 8], [0, 5, 13, 5]]
    rois = [[image, *corner] for corner in corners for image in (1, 0, 2)] * 3
    check(run, data, f32(rois), (4, 4), 1.0)


class TestCollisions:
    """Many outputs have the same argmax. Their gradients are summed in order."""

    def compare(self, run, argmax, shape):
        out_grad = f32(np.random.default_rng(16).normal(size=argmax.shape)) * 1e6
        got = run(roi_pooling_backward, out_grad, argmax, shape)
        want = roi_pooling_backward(out_grad, argmax, shape, backend="numpy")
        np.testing.assert_array_equal(got, want)

    def test_outputs_at_one_pixel_are_summed_in_order(self, run):
        argmax = np.full((50, 2, 7, 7), 3, np.int32)
        argmax[:, 1] += 12
        self.compare(run, argmax, (1, 2, 3, 4))

    def test_outputs_of_one_owner_thread_are_summed_in_order(self, run):
        rng = np.random.default_rng(17)
        self.compare(run, np.int32(256 * rng.integers(5, size=(60, 1, 7, 7))), (1, 1, 1, 1025))

    def test_outputs_of_several_images_are_summed_in_order(self, run):
        rng = np.random.default_rng(18)
        argmax = np.int32(rng.integers(-5, 3 * 3 * 20 + 5, size=(300, 3, 2, 3)))
        self.compare(run, argmax, (3, 3, 4, 5))

    def test_planes_at_the_limit_of_shared_memory_are_summed_in_order(self, run):
        """The first is the largest plane that fits into shared memory."""
        rng = np.random.default_rng(19)
        for pixels in (47616, 47617):
            argmax = np.int32(rng.choice([0, 1, pixels - 1, pixels, 77], size=(300, 1, 2, 3)))
            self.compare(run, argmax, (1, 1, 1, pixels))

    def test_nan_and_infinite_gradients_are_summed(self, run):
        out_grad = f32([1, NAN, 2, INF, 1, -INF, INF, -0.0]).reshape(8, 1, 1, 1)
        argmax = np.int32([0, 1, 1, 2, 2, 3, 3, 4]).reshape(8, 1, 1, 1)
        grad = run(roi_pooling_backward, out_grad, argmax, (1, 1, 1, 6))
        np.testing.assert_array_equal(grad.reshape(-1), f32([1, NAN, INF, NAN, 0, 0]))


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*(st.integers(1, n) for n in (3, 40, 12, 12))),
    num=st.integers(1, 40),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    special=st.booleans(),
)
def test_results_and_gradients_equal_mxnet(mx, backend, seed, shape, num, size, special):
    data, rois, scale = random_case(seed, shape, num, special)
    x, r = mx.nd.array(data), mx.nd.array(rois)
    x.attach_grad()
    r.attach_grad()
    with mx.autograd.record():
        want = mx.nd.ROIPooling(x, r, size, scale)
    out_grad = f32(np.random.default_rng(seed).normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    run = runner("cpu", backend)
    pooled, argmax = pool(run, data, rois, size, scale)
    np.testing.assert_array_equal(pooled, want.asnumpy())
    grad = run(roi_pooling_backward, out_grad, argmax, data.shape)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())
    assert not r.grad.asnumpy().any()


class TestRefusals:
    data = np.zeros((1, 2, 4, 4), np.float32)
    rois = np.zeros((3, 5), np.float32)
    huge = np.broadcast_to(np.float32(0), (2, 2**10, 2**10, 2**10))
    huge_but_empty = np.empty((0, 1, 2**16, 2**15), np.float32)

    forward = {
        "data of three axes": ("data", data[0], "expected shape (N, C, H, W), got (2, 4, 4)"),
        "int32": ("data", data.astype("i4"), "expected float32, float64, float16 or bfloat16, got"),
        "2^31 elements": (
            "data",
            huge,
            "expected less than 2**31 elements, got shape (2, 1024, 1024, 1024)",
        ),
        "2^31 pixels without images": (
            "data",
            huge_but_empty,
            "less than 2**31 elements, got shape (0, 1, 65536, 32768)",
        ),
        "rois of four columns": ("rois", rois[:, :4], "expected shape (R, 5), got (3, 4)"),
        "rois of one axis": ("rois", rois[0], "expected shape (R, 5), got (5,)"),
        "list": (
            "rois",
            [[0] * 5],
            "expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack), got list",
        ),
        "pooled_size is a number": ("pooled_size", 7, "expected a pair (height, width), got 7"),
        "one pooled size": ("pooled_size", (7,), "expected a pair (height, width), got (7,)"),
        "no bins": ("pooled_size", (7, 0), "expected an integer in [1, 2147483647], got 0"),
        "pooled size is a float": ("pooled_size", (7, 2.0), "expected an integer, got 2.0"),
        "2^30 bins": (
            "pooled_size",
            (2**15, 2**15),
            "expected less than 2**30 bins, got (32768, 32768)",
        ),
        "negative scale": ("spatial_scale", -0.1, "expected a number in [0, 1], got -0.1"),
        "scale above 1": ("spatial_scale", 1.1, "expected a number in [0, 1], got 1.1"),
        "scale NaN": ("spatial_scale", NAN, "expected a number in [0, 1], got nan"),
    }

    @pytest.mark.parametrize(("name", "value", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, name, value, message):
        args = {"data": self.data, "rois": self.rois, "pooled_size": (2, 2), "spatial_scale": 1.0}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            roi_pooling(**{**args, name: value})

    out_grad = np.zeros((3, 2, 2, 2), np.float32)
    argmax = np.zeros((3, 2, 2, 2), np.int32)

    backward = {
        "two axes": ("out_grad", rois, "expected shape (R, C, height, width), got (3, 5)"),
        "int32": ("out_grad", argmax, "expected float32, float64, float16 or bfloat16, got int32"),
        "int64 argmax": ("argmax", argmax.astype("i8"), "expected int32, got int64"),
        "argmax of fewer RoIs": (
            "argmax",
            argmax[:2],
            "with R = 3 as in out_grad, got (2, 2, 2, 2)",
        ),
        "three sizes": ("data_shape", (1, 2, 4), "expected (N, C, H, W), got (1, 2, 4)"),
        "data_shape is a number": ("data_shape", 4, "expected (N, C, H, W), got 4"),
        "negative size": (
            "data_shape",
            (1, 2, 4, -1),
            "expected an integer in [0, 2147483647], got -1",
        ),
        "size is a float": ("data_shape", (1, 2, 4, 4.0), "expected an integer, got 4.0"),
        "another number of channels": (
            "data_shape",
            (1, 3, 4, 4),
            "with C = 2 as in out_grad, got (1, 3, 4, 4)",
        ),
        "2^31 elements": (
            "data_shape",
            (2**30, 2, 1, 1),
            "less than 2**31 elements, got shape (1073741824, 2",
        ),
    }

    @pytest.mark.parametrize(("name", "value", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, name, value, message):
        args = {"out_grad": self.out_grad, "argmax": self.argmax, "data_shape": (1, 2, 4, 4)}
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{re.escape(message)}"):
            roi_pooling_backward(**{**args, name: value})

    def test_gradient_of_2_to_30_bins_is_refused(self):
        out_grad = np.empty((0, 2, 2**15, 2**15), np.float32)
        message = re.escape("out_grad: expected less than 2**30 bins, got 32768 x 32768")
        with pytest.raises(ValueError, match=message):
            roi_pooling_backward(out_grad, out_grad.astype(np.int32), (1, 2, 4, 4))
