import re

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import bilinear_upsample, bilinear_upsample_backward

NAN, INF = np.nan, np.inf


def f32(x):
    return np.array(x, np.float32)


def bits(x):
    return x.view(np.uint32)


class TestByHand:
    def test_row_of_two_pixels_is_interpolated_at_scale_2(self, run):
        # The taps of scale 2 are 1/4, 3/4, 3/4, 1/4. Along x, 8 and 16 become 0.75 * 8,
        # 0.75 * 8 + 0.25 * 16, 0.25 * 8 + 0.75 * 16, 0.75 * 16. Along y, one row is multiplied by
        # 0.75.
        out = run(bilinear_upsample, f32([[[[8, 16]]]]), 2)
        row = np.array([6, 10, 14, 12]) * 0.75
        np.testing.assert_array_equal(out, f32([[[row, row]]]))

    def test_column_of_two_pixels_is_interpolated_at_scale_3(self, run):
        # The taps of scale 3 are 1/3, 2/3, 1, 2/3, 1/3. The middle one of three outputs is the
        # pixel itself.
        out = run(bilinear_upsample, f32([3, 9]).reshape(1, 1, 2, 1), 3)
        column = [2, 3, 2 / 3 * 3 + 1 / 3 * 9, 1 / 3 * 3 + 2 / 3 * 9, 9, 6]
        np.testing.assert_allclose(out[0, 0, :, 1], column, rtol=1e-6)

    def test_scale_of_one_changes_nothing(self, run):
        data = f32([[[[1, NAN, -2], [INF, 0, 1e-40]]]])
        np.testing.assert_array_equal(run(bilinear_upsample, data, 1), data)
        np.testing.assert_array_equal(run(bilinear_upsample_backward, data, 1), data)

    def test_weights_are_those_of_the_books_kernel(self, run):
        for scale in (2, 3, 4, 6, 7):
            kernel = book_kernel(scale)
            size, edge = len(kernel), scale // 2
            # The distance of the pixel to all edges is two pixels, so all its outputs are inside.
            data = np.zeros((1, 1, 5, 5), np.float32)
            data[0, 0, 2, 2] = 1
            out = run(bilinear_upsample, data, scale)[0, 0]
            begin = 2 * scale - edge
            square = out[begin : begin + size, begin : begin + size]
            np.testing.assert_allclose(square, kernel, rtol=2e-7)
            assert np.count_nonzero(out) == size * size

    def test_infinity_and_nan_change_only_outputs_with_a_weight(self, run):
        # Pixel 1 of 3 has a weight in outputs 2 to 6 of 9 (scale 3) and in 1 to 4 of 6 (scale 2).
        for scale, reached in ((3, range(2, 7)), (2, range(1, 5))):
            for value in (INF, NAN):
                data = np.ones((1, 1, 3, 3), np.float32)
                data[0, 0, 1, 1] = value
                out = run(bilinear_upsample, data, scale)[0, 0]
                want = np.zeros(out.shape, bool)
                want[np.ix_(reached, reached)] = True
                np.testing.assert_array_equal(~np.isfinite(out), want)

    def test_gradient_of_one_output_goes_to_four_pixels(self, run):
        # Scale 2, output (1, 1) of 4 x 4: the weight of the nearer pixel of an axis is 0.75.
        out_grad = np.zeros((1, 1, 4, 4), np.float32)
        out_grad[0, 0, 1, 1] = 16
        grad = run(bilinear_upsample_backward, out_grad, 2)
        np.testing.assert_array_equal(grad, f32([[[[9, 3], [3, 1]]]]))

    def test_gradients_are_summed_in_order_of_rows_and_columns(self, run):
        # Scale 2: pixel 0 has outputs 0 to 2 with the weights 0.75, 0.75 and 0.25. 2**27 + 3 is
        # 2**27 in float32, so that this order loses the gradient 4, and the sum is 0.
        column = f32([2**27, 4, -3 * 2**27, 0]) / f32([0.75, 0.75, 0.75, 1])
        for out_grad in (column.reshape(1, 1, 4, 1), column.reshape(1, 1, 1, 4)):
            out_grad = np.repeat(out_grad, 2, axis=3 if out_grad.shape[3] == 1 else 2)
            grad = run(bilinear_upsample_backward, out_grad, 2)
            # The second axis has one pixel and two outputs with the weight 0.75.
            assert grad.reshape(-1)[0] == 0


def book_kernel(scale):
    """``bilinear_kernel`` of "Dive into Deep Learning" for one channel, float64 (k, k)."""
    size = 2 * scale - scale % 2
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 else factor - 0.5
    along = 1 - abs(np.arange(size) - center) / factor
    return along[:, None] * along


CASES = {
    "one pixel": ((1, 1, 1, 1), 2),
    "width divisible by 4": ((2, 3, 3, 6), 4),
    "odd width": ((1, 3, 4, 5), 3),
    "width divisible by 2 only": ((2, 2, 3, 3), 2),
    "one pixel and odd scale": ((1, 1, 1, 1), 7),
    "several rows of pixels in a block": ((3, 4, 5, 7), 2),
    "more columns than a block has threads": ((1, 1, 2, 300), 1),
    "several groups of output rows": ((1, 2, 2, 3), 20),
    "several blocks along x": ((1, 1, 2, 11), 410),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_equal_the_reference(run, case):
    shape, scale = case
    rng = np.random.default_rng(0)
    data = f32(rng.normal(size=shape))
    out = run(bilinear_upsample, data, scale)
    want = bilinear_upsample(data, scale, backend="numpy")
    np.testing.assert_array_equal(bits(out), bits(want))
    out_grad = f32(rng.normal(size=want.shape))
    grad = run(bilinear_upsample_backward, out_grad, scale)
    want = bilinear_upsample_backward(out_grad, scale, backend="numpy")
    np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8, 32])
@pytest.mark.parametrize("shape", [(2, 70, 9, 17), (1, 1, 70, 40)], ids=["planes", "one plane"])
def test_large_maps_equal_the_reference(scale, shape):
    """The maps need several threads and all loops of the CPU along x."""
    data = f32(np.random.default_rng(1).normal(size=shape))
    run = runner("cpu", "native")
    out = run(bilinear_upsample, data, scale)
    np.testing.assert_array_equal(bits(out), bits(bilinear_upsample(data, scale, backend="numpy")))
    grad = run(bilinear_upsample_backward, out, scale)
    want = bilinear_upsample_backward(out, scale, backend="numpy")
    np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 7, 8, 11, 32])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 9), (1, 5, 33, 47)])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, shape, scale):
    data = f32(np.random.default_rng(5).normal(size=shape))

    def both(run):
        out = run(bilinear_upsample, data, scale)
        return out.tobytes(), run(bilinear_upsample_backward, out, scale).tobytes()

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        assert got == want


@pytest.mark.parametrize("scale", [3, 8])
def test_non_temporal_stores_give_equal_bits(cpu_variants, scale):
    """The condition is a result of 4 MiB in memory that was written before."""
    native = pytest.importorskip("cvops._native")
    data = f32(np.random.default_rng(6).normal(size=(1, 20, 81, 83)))
    want = bilinear_upsample(data, scale, backend="numpy")
    assert want.nbytes >= 2**22

    def into_old_memory():
        out = np.ones(want.size + 1, np.float32)[1:]
        native.cpu.bilinear_upsample(out, data, 20, 81, 83, scale)
        return out

    for got in cpu_variants(into_old_memory):
        assert got.tobytes() == want.tobytes()


def test_sanitizers_find_no_error(run_sanitized):
    rng = np.random.default_rng(2)
    for shape, scale in (((2, 1, 3, 3), 2), ((1, 2, 2, 3), 3), ((1, 1, 2, 2), 12)):
        data = f32(rng.normal(size=shape))
        out = run_sanitized(bilinear_upsample, data, scale)
        np.testing.assert_array_equal(out, bilinear_upsample(data, scale, backend="numpy"))
        grad = run_sanitized(bilinear_upsample_backward, out, scale)
        want = bilinear_upsample_backward(out, scale, backend="numpy")
        np.testing.assert_array_equal(grad, want)


def test_gradient_is_the_transpose(run):
    """Integers and a scale that is a power of two give exact sums, so both products are equal."""
    rng = np.random.default_rng(3)
    data = f32(rng.integers(-8, 9, (2, 3, 3, 4)))
    out_grad = f32(rng.integers(-8, 9, (2, 3, 12, 16)))
    forward = (run(bilinear_upsample, data, 4).astype("f8") * out_grad).sum()
    backward = (run(bilinear_upsample_backward, out_grad, 4).astype("f8") * data).sum()
    assert forward == backward


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_maps_give_empty_results(run, shape):
    out = run(bilinear_upsample, np.zeros(shape, np.float32), 3)
    assert out.shape == (*shape[:2], 3 * shape[2], 3 * shape[3])
    assert run(bilinear_upsample_backward, out, 3).shape == shape


def deconvolution(mx, data, out_grad, scale):
    """The result of MXNet, and its gradient of ``data``."""
    x = mx.nd.array(data)
    channels = data.shape[1]
    kernel = book_kernel(scale)
    weight = mx.nd.array(np.broadcast_to(kernel, (channels, 1, *kernel.shape)))
    x.attach_grad()
    with mx.autograd.record():
        out = mx.nd.Deconvolution(
            x,
            weight,
            kernel=kernel.shape,
            stride=(scale, scale),
            pad=(scale // 2, scale // 2),
            num_filter=channels,
            num_group=channels,
            no_bias=True,
        )
    out.backward(mx.nd.array(out_grad))
    return out.asnumpy(), x.grad.asnumpy()


SHAPES = st.tuples(*(st.integers(1, n) for n in (3, 4, 7, 9)))


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES, scale=st.integers(1, 9))
def test_results_are_close_to_mxnet(mx, backend, seed, shape, scale):
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=shape))
    out = bilinear_upsample(data, scale, backend=backend)
    out_grad = f32(rng.normal(size=out.shape))
    grad = bilinear_upsample_backward(out_grad, scale, backend=backend)
    want, want_grad = deconvolution(mx, data, out_grad, scale)
    assert out.shape == want.shape
    assert (abs(out - want) <= 1e-6 * bilinear_upsample(abs(data), scale)).all()
    assert (abs(grad - want_grad) <= 1e-5 * bilinear_upsample_backward(abs(out_grad), scale)).all()


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES, scale=st.sampled_from([1, 2, 4, 8]))
def test_exact_sums_equal_mxnet(mx, backend, seed, shape, scale):
    # A weight of scale 8 is a multiple of 1/16, a product of two weights a multiple of 1/256. A sum
    # of values up to 16 with a total weight of 8 * 8 is at most 2**10: 18 of 24 bits.
    rng = np.random.default_rng(seed)
    data = f32(rng.integers(-16, 17, shape))
    out = bilinear_upsample(data, scale, backend=backend)
    out_grad = f32(rng.integers(-16, 17, out.shape))
    grad = bilinear_upsample_backward(out_grad, scale, backend=backend)
    want, want_grad = deconvolution(mx, data, out_grad, scale)
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(grad, want_grad)


def test_upsampling_equals_the_books_layer_of_mxnet(mx):
    """The layer connects all channels; its kernel is 0 except on the diagonal."""
    layer = mx.gluon.nn.Conv2DTranspose(3, kernel_size=64, padding=16, strides=32, in_channels=3)
    weight = np.zeros((3, 3, 64, 64))
    weight[range(3), range(3)] = book_kernel(32)
    layer.initialize(mx.init.Constant(mx.nd.array(weight)))
    data = f32(np.random.default_rng(4).integers(-16, 17, (1, 3, 4, 5)))
    want = layer(mx.nd.array(data)).asnumpy()
    assert want.shape == (1, 3, 128, 160)
    np.testing.assert_array_equal(bilinear_upsample(data, 32), want)


class TestRefusals:
    data = np.zeros((1, 2, 4, 6), np.float32)
    huge = np.broadcast_to(np.float32(0), (1, 1, 2**10, 2**10))

    forward = {
        "three axes": (data[0], 2, "data: expected shape (N, C, H, W), got (2, 4, 6)"),
        "int32": (
            data.astype("i4"),
            2,
            "data: expected float32, float64, float16 or bfloat16, got",
        ),
        "list": ([[[[0]]]], 2, "data: expected an array"),
        "scale 0": (data, 0, "scale: expected an integer in [1, 1024], got 0"),
        "scale 1025": (data, 1025, "scale: expected an integer in [1, 1024], got 1025"),
        "scale is a float": (data, 2.0, "scale: expected an integer, got 2.0"),
        "scale is None": (data, None, "scale: expected an integer, got None"),
        "large output": (
            huge,
            32,
            "less than 2**30 elements when enlarged 32 times, got 1024 x 1024",
        ),
        "wide and empty": (
            np.empty((1, 1, 0, 2**20), "f4"),
            32,
            "when enlarged 32 times, got 0 x 1048576",
        ),
    }

    @pytest.mark.parametrize(("data", "scale", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, data, scale, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            bilinear_upsample(data, scale)

    backward = {
        "three axes": (data[0], 2, "out_grad: expected shape (N, C, height, width), got (2, 4, 6)"),
        "int32": (
            data.astype("i4"),
            2,
            "out_grad: expected float32, float64, float16 or bfloat16, got",
        ),
        "height no multiple": (
            data,
            3,
            "out_grad: expected maps of multiples of scale = 3, got 4 x 6",
        ),
        "width no multiple": (
            data,
            4,
            "out_grad: expected maps of multiples of scale = 4, got 4 x 6",
        ),
        "negative scale": (data, -1, "scale: expected an integer in [1, 1024], got -1"),
        "large map": (
            np.broadcast_to(np.float32(0), (1, 1, 2**15, 2**15)),
            2,
            "less than 2**30 elements, got 32768 x 32768",
        ),
    }

    @pytest.mark.parametrize(("out_grad", "scale", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, out_grad, scale, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            bilinear_upsample_backward(out_grad, scale)
