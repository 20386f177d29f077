import re

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import adaptive_avg_pooling, adaptive_avg_pooling_backward

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def bits(x):
    return x.view(np.uint32)


class TestByHand:
    data = f32([[[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]]])

    examples = {
        "default": ((), [[6.5]]),
        "None": (None, [[6.5]]),
        "one number": (1, [[6.5]]),
        "columns that divide the width": ((1, 2), [[5.5, 7.5]]),
        # Three columns of bins have the pixels 0 and 1, 1 and 2, 2 and 3.
        "columns that overlap": ((3, 3), [[1.5, 2.5, 3.5], [5.5, 6.5, 7.5], [9.5, 10.5, 11.5]]),
        # Two rows of bins have the rows 0 and 1, 1 and 2.
        "rows that overlap": ((2, 1), [[4.5], [8.5]]),
        "each pixel": ((3, 4), data[0, 0]),
        # Two bins of a column have one pixel.
        "more bins than pixels": ((1, 8), [[5, 5, 6, 6, 7, 7, 8, 8]]),
        "text": ("(1, 2)", [[5.5, 7.5]]),
    }

    @pytest.mark.parametrize(("size", "expected"), examples.values(), ids=examples)
    def test_bins_are_means_of_their_pixels(self, run, size, expected):
        out = run(adaptive_avg_pooling, self.data, size)
        np.testing.assert_array_equal(out, f32([[expected]]))

    def test_gradient_of_a_bin_is_divided_among_its_pixels(self, run):
        grad = run(adaptive_avg_pooling_backward, f32([[[[6, 12]]]]), (1, 1, 2, 6))
        np.testing.assert_array_equal(grad, f32([[[[1, 1, 1, 2, 2, 2]] * 2]]))

    def test_pixel_in_two_bins_has_the_sum_of_both_gradients(self, run):
        # Bins of three pixels of five: 0 to 2, 2 to 4.
        grad = run(adaptive_avg_pooling_backward, f32([3, 9]).reshape(1, 1, 2, 1), (1, 1, 5, 1))
        np.testing.assert_array_equal(grad.reshape(-1), [1, 1, 4, 3, 3])

    def test_pixels_are_added_by_rows(self, run):
        # 1e8 + 1 is 1e8 in float32: the sum in order is 0, another order gives 1.
        for values, want in (([1e8, 1, -1e8, 0], 0), ([1e8, -1e8, 1, 0], 0.25)):
            for shape, size in (((2, 2), 1), ((4, 1), 1), ((1, 4), 1), ((1, 4), (2, 1))):
                out = run(adaptive_avg_pooling, f32(values).reshape(1, 1, *shape), size)
                assert out.reshape(-1)[0] == want

    def test_gradients_are_added_by_rows_of_bins(self, run):
        # One pixel has all bins.
        for values, want in (([1e8, 1, -1e8, 0], 0), ([1e8, -1e8, 1, 0], 1)):
            for shape in ((1, 4), (4, 1), (2, 2)):
                out_grad = f32(values).reshape(1, 1, *shape)
                assert run(adaptive_avg_pooling_backward, out_grad, (1, 1, 1, 1)).item() == want

    def test_infinity_and_nan_change_only_bins_with_the_pixel(self, run):
        for value in (INF, NAN):
            data = np.ones((1, 2, 4, 6), np.float32)
            data[0, 1, 1, 2] = value
            out = run(adaptive_avg_pooling, data, (2, 2))
            want = np.ones((1, 2, 2, 2), np.float32)
            want[0, 1, 0, 0] = value
            np.testing.assert_array_equal(out, want)
            grad = run(adaptive_avg_pooling_backward, out, data.shape)
            assert np.count_nonzero(~np.isfinite(grad)) == 6

    def test_negative_zero_becomes_zero_as_in_mxnet(self, run):
        data = f32([[[[-0.0]]]])
        assert not np.signbit(run(adaptive_avg_pooling, data))
        assert not np.signbit(run(adaptive_avg_pooling_backward, data, (1, 1, 1, 1)))


#: The shape of data, and the size of the grid.
CASES = {
    "global, few planes": ((2, 3, 7, 7), (1, 1)),
    "global, many planes": ((1, 300, 5, 3), (1, 1)),
    "global, large map": ((1, 2, 100, 99), (1, 1)),
    "one column of bins": ((2, 9, 13, 5), (4, 1)),
    "one row of bins": ((1, 5, 13, 70), (1, 6)),
    "pyramid": ((1, 17, 30, 30), (6, 6)),
    "bins that overlap": ((1, 33, 11, 13), (4, 5)),
    "half": ((1, 8, 10, 28), (5, 14)),
    "more bins than pixels": ((1, 5, 3, 5), (7, 8)),
    "more columns of bins than a block has threads": ((1, 2, 2, 400), (2, 300)),
    "row longer than a piece": ((1, 1, 2, 9000), (1, 2)),
    "one pixel": ((1, 1, 1, 1), (3, 2)),
}


@pytest.mark.parametrize(("shape", "size"), CASES.values(), ids=CASES)
def test_results_equal_the_reference(run_any_steps, shape, size):
    run = run_any_steps
    rng = np.random.default_rng(0)
    data = f32(rng.normal(size=shape))
    want = adaptive_avg_pooling(data, size, backend="numpy")
    np.testing.assert_array_equal(bits(run(adaptive_avg_pooling, data, size)), bits(want))
    out_grad = f32(rng.normal(size=want.shape))
    want = adaptive_avg_pooling_backward(out_grad, shape, backend="numpy")
    grad = run(adaptive_avg_pooling_backward, out_grad, shape)
    np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize("planes", [1, 3, 4, 8, 9, 17, 32, 33, 70])
@pytest.mark.parametrize(
    ("height", "width", "size"), [(14, 65, 1), (9, 13, (4, 5)), (70, 3, (70, 1))]
)
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, planes, height, width, size):
    data = f32(np.random.default_rng(planes).normal(size=(1, planes, height, width)))

    def both(run):
        out = run(adaptive_avg_pooling, data, size)
        return out.tobytes(), run(adaptive_avg_pooling_backward, out, data.shape).tobytes()

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        assert got == want


@pytest.mark.parametrize("size", [1, (2, 3), 6])
def test_maps_beyond_the_caches_have_the_bits_of_the_reference(cpu_variants, size):
    """26 MB, of which the next planes are fetched."""
    data = np.random.default_rng(0).standard_normal((1, 2045, 56, 57), np.float32)
    want = adaptive_avg_pooling(data, size, backend="numpy")
    for out in cpu_variants(lambda: adaptive_avg_pooling(data, size, backend="native")):
        np.testing.assert_array_equal(bits(out), bits(want))


@pytest.mark.parametrize("size", [(1, 1), (5, 1)])
def test_gradient_beyond_the_caches_has_the_bits_of_the_reference(cpu_variants, size):
    """70 MB, of which the stores bypass the caches; their addresses have each remainder by 16."""
    shape = (1, 7001, 50, 50) if size == (1, 1) else (1, 7001, 49, 51)
    out_grad = np.random.default_rng(0).standard_normal((*shape[:2], *size), np.float32)
    want = adaptive_avg_pooling_backward(out_grad, shape, backend="numpy")
    for grad in cpu_variants(
        lambda: adaptive_avg_pooling_backward(out_grad, shape, backend="native")
    ):
        np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize(("shape", "size"), [((2, 70, 20, 30), (3, 4)), ((1, 1, 300, 200), (7, 1))])
def test_maps_of_several_threads_equal_the_reference(shape, size):
    data = f32(np.random.default_rng(1).normal(size=shape))
    run = runner("cpu", "native")
    out = run(adaptive_avg_pooling, data, size)
    want = adaptive_avg_pooling(data, size, backend="numpy")
    np.testing.assert_array_equal(bits(out), bits(want))
    want = adaptive_avg_pooling_backward(out, shape, backend="numpy")
    grad = run(adaptive_avg_pooling_backward, out, shape)
    np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (5, 1), (7, 9)])
def test_sanitizers_find_no_error(run_sanitized, run_sanitized_small, sizes):
    data = f32(np.random.default_rng(2).normal(size=(1, 5, 5, 6)))
    want = adaptive_avg_pooling(data, sizes, backend="numpy")
    grad = adaptive_avg_pooling_backward(want, data.shape, backend="numpy")
    for run in (run_sanitized, run_sanitized_small):
        np.testing.assert_array_equal(run(adaptive_avg_pooling, data, sizes), want)
        np.testing.assert_array_equal(run(adaptive_avg_pooling_backward, want, data.shape), grad)


def test_gradient_is_the_transpose(run):
    """Integers and bins of 2, 4 or 8 pixels give exact sums, so both products are equal."""
    rng = np.random.default_rng(3)
    data = f32(rng.integers(-8, 9, (2, 3, 6, 5)))
    out_grad = f32(rng.integers(-8, 9, (2, 3, 3, 4)))
    forward = (run(adaptive_avg_pooling, data, (3, 4)).astype("f8") * out_grad).sum()
    grad = run(adaptive_avg_pooling_backward, out_grad, data.shape)
    assert forward == (grad.astype("f8") * data).sum() != 0


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 2, 0, 3)])
def test_input_without_planes_gives_an_empty_result(run, shape):
    out = run(adaptive_avg_pooling, np.zeros(shape, np.float32), (3, 2))
    assert out.shape == (*shape[:2], 3, 2)
    assert run(adaptive_avg_pooling_backward, out, shape).shape == shape


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*(st.integers(1, n) for n in (3, 40, 12, 12))),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
)
def test_results_and_gradients_equal_mxnet(mx, backend, seed, shape, size):
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    data[rng.random(shape) < 0.01] = rng.choice([INF, -INF, NAN, -0.0])
    x = mx.nd.array(data)
    x.attach_grad()
    with mx.autograd.record():
        want = mx.nd.contrib.AdaptiveAvgPooling2D(x, output_size=size)
    out_grad = f32(rng.normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    out = adaptive_avg_pooling(data, size, backend=backend)
    np.testing.assert_array_equal(out, want.asnumpy())
    grad = adaptive_avg_pooling_backward(out_grad, shape, backend=backend)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


def test_results_are_close_to_pytorch(run):
    torch = pytest.importorskip("torch")
    data = f32(np.random.default_rng(4).normal(size=(2, 3, 10, 12)))
    for size in ((1, 1), (4, 5), (10, 12), (13, 15)):
        x = torch.from_numpy(data).requires_grad_()
        out = torch.nn.functional.adaptive_avg_pool2d(x, size)
        out.sum().backward()
        got = run(adaptive_avg_pooling, data, size)
        np.testing.assert_allclose(got, out.detach().numpy(), rtol=1e-5, atol=1e-6)
        grad = run(adaptive_avg_pooling_backward, np.ones_like(got), data.shape)
        np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-5)


class TestRefusals:
    data = np.zeros((1, 2, 4, 6), np.float32)
    huge = np.broadcast_to(np.float32(0), (1, 1, 2**15, 2**15))
    long = np.broadcast_to(np.float32(0), (1, 1, 2**20, 1))

    forward = {
        "three axes": (data[0], 1, "data: expected shape (N, C, H, W), got (2, 4, 6)"),
        "float64": (data.astype("f8"), 1, "data: expected float32, got float64"),
        "list": ([[[[0]]]], 1, "data: expected an array"),
        "no pixels": (data[:, :, :0], 1, "data: expected one pixel or more, got 0 x 6"),
        "size 0": (data, 0, "output_size: expected an integer in [1, 2147483647], got 0"),
        "width 0": (data, (1, 0), "output_size: expected an integer in [1, 2147483647], got 0"),
        "size is a float": (data, 2.0, "output_size: expected an integer, got 2.0"),
        "three sizes": (data, (1, 2, 3), "output_size: expected two integers at most, got (1, 2"),
        "large map": (huge, 1, "data: expected less than 2**30 pixels, got 32768 x 32768"),
        "large grid": (data, 2**15, "output_size: expected less than 2**30 pixels, got 32768 x"),
        "long axis": (long, (2**11, 1), "less than 2**31 / 1048576 bins along an axis of 1048576"),
    }  # fmt: skip

    @pytest.mark.parametrize(("data", "size", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, data, size, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            adaptive_avg_pooling(data, size)

    backward = {
        "three axes": (data[0], (2, 4, 6), "out_grad: expected shape (N, C, height, width), got"),
        "no bins": (data[:, :, :0], (1, 2, 3, 3), "out_grad: expected one pixel or more, got 0 x"),
        "no pixels": (data, (1, 2, 0, 3), "data_shape: expected one pixel or more, got 0 x 3"),
        "other channels": (data, (1, 3, 4, 4), "with (N, C) = (1, 2) as in out_grad, got (1, 3"),
        "three sizes": (data, (1, 2, 4), "data_shape: expected (N, C, H, W), got (1, 2, 4)"),
        "a float": (data, (1, 2, 4, 4.0), "data_shape: expected an integer, got 4.0"),
        "large map": (data, (1, 2, 2**15, 2**15), "data_shape: expected less than 2**30 pixels"),
    }  # fmt: skip

    @pytest.mark.parametrize(("out_grad", "shape", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, out_grad, shape, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            adaptive_avg_pooling_backward(out_grad, shape)
