import re

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import bilinear_resize, bilinear_resize_backward

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def bits(x):
    return x.view(np.uint32)


def ramp(height, width):
    """Return one map (1, 1, height, width) whose value is 10 * row + column."""
    return f32(10 * np.arange(height)[:, None] + np.arange(width))[None, None]


class TestByHand:
    # A linear map stays linear between its pixels.
    corners = {
        "enlarged": ((2, 2), (3, 3), [[0, 0.5, 1], [5, 5.5, 6], [10, 10.5, 11]]),
        "reduced": ((3, 5), (2, 3), [[0, 2, 4], [20, 22, 24]]),
        "one row": ((3, 3), (1, 5), [[0, 0.5, 1, 1.5, 2]]),
        "one column": ((3, 3), (3, 1), [[0], [10], [20]]),
        "one pixel": ((1, 1), (2, 3), [[0] * 3] * 2),
    }  # fmt: skip

    @pytest.mark.parametrize(("before", "after", "expected"), corners.values(), ids=corners)
    def test_first_and_last_outputs_are_the_corner_pixels(self, run, before, after, expected):
        out = run(bilinear_resize, ramp(*before), height=after[0], width=after[1])
        np.testing.assert_array_equal(out, f32([[expected]]))

    # The positions of four outputs of two pixels are -0.25, 0.25, 0.75, 1.25. Negative ones are 0,
    # and the last pixel has no next one.
    edges = {
        "enlarged": ((1, 2), (1, 4), [[0, 0.25, 0.75, 1]]),
        "reduced": ((4, 4), (2, 2), [[5.5, 7.5], [25.5, 27.5]]),
        "one output": ((3, 4), (1, 1), [[0]]),
        "column": ((2, 1), (4, 1), [[0], [2.5], [7.5], [10]]),
    }

    @pytest.mark.parametrize(("before", "after", "expected"), edges.values(), ids=edges)
    def test_maps_have_the_same_edges_without_align_corners(self, run, before, after, expected):
        height, width = after
        out = run(bilinear_resize, ramp(*before), height=height, width=width, align_corners=False)
        np.testing.assert_array_equal(out, f32([[expected]]))

    modes = {
        "default": ({}, (1, 1)),
        "height": ({"height": 4}, (4, 1)),
        "factors": ({"scale_height": 2, "scale_width": 1.5}, (10, 12)),
        "factors are rounded down": ({"scale_height": 0.5, "scale_width": 0.9}, (2, 7)),
        "only a factor of the width": ({"scale_width": 2, "height": 3, "width": 4}, (3, 4)),
        "odd_scale": ({"mode": "odd_scale", "scale_height": 2, "scale_width": 1.5}, (9, 12)),
        "odd_scale reduces": (
            {"mode": "odd_scale", "scale_height": 0.4, "scale_width": 0.4}, (2, 3)
        ),
        "to_even_down": ({"mode": "to_even_down"}, (4, 8)),
        "to_even_up": ({"mode": "to_even_up"}, (6, 8)),
        "to_odd_down": ({"mode": "to_odd_down"}, (5, 7)),
        "to_odd_up": ({"mode": "to_odd_up"}, (5, 9)),
        "text": ({"height": "3", "scale_width": "None", "align_corners": "0"}, (3, 1)),
    }  # fmt: skip

    @pytest.mark.parametrize(("options", "size"), modes.values(), ids=modes)
    def test_mode_determines_the_size(self, run, options, size):
        data = ramp(5, 8)
        out = run(bilinear_resize, data, **options)
        align = options.get("align_corners") != "0"
        want = bilinear_resize(data, height=size[0], width=size[1], align_corners=align)
        np.testing.assert_array_equal(out, want)

    def test_like_has_the_size(self, run):
        like = np.full((2, 7, 3, 4), NAN, np.float32)
        out = run(bilinear_resize, ramp(5, 8), like, mode="like")
        np.testing.assert_array_equal(out, bilinear_resize(ramp(5, 8), height=3, width=4))

    def test_gradient_of_an_output_goes_to_four_pixels(self, run):
        # The output in the middle of three has the position 0.5. Its weights are 0.5.
        out_grad = np.zeros((1, 1, 3, 3), np.float32)
        out_grad[0, 0, 1, 1] = 16
        grad = run(bilinear_resize_backward, out_grad, (1, 1, 2, 2))
        np.testing.assert_array_equal(grad, f32([[[[4, 4], [4, 4]]]]))

    def test_pixels_between_the_outputs_have_no_gradient(self, run):
        grad = run(bilinear_resize_backward, f32([[[[1, 2]]]]), (1, 1, 1, 7))
        np.testing.assert_array_equal(grad, f32([[[[1, 0, 0, 0, 0, 0, 2]]]]))
        grad = run(bilinear_resize_backward, f32([1, 2]).reshape(1, 1, 2, 1), (1, 1, 7, 1))
        np.testing.assert_array_equal(grad.reshape(-1), [1, 0, 0, 0, 0, 0, 2])

    def test_gradients_are_added_by_rows(self, run):
        # One pixel has all outputs. 1e8 + 1 is 1e8 in float32: the sum in order is 0.
        for values, want in (([1e8, 1, -1e8, 0], 0), ([1e8, -1e8, 1, 0], 1)):
            for shape in ((1, 4), (4, 1), (2, 2)):
                out_grad = f32(values).reshape(1, 1, *shape)
                assert run(bilinear_resize_backward, out_grad, (1, 1, 1, 1)).item() == want

    def test_equal_size_is_a_copy(self, run):
        data = f32([[[[1, INF, -0.0], [NAN, -2, 1e-40]]]])
        for align_corners in (True, False):
            out = run(bilinear_resize, data, height=2, width=3, align_corners=align_corners)
            np.testing.assert_array_equal(out, data)
            assert np.signbit(out[0, 0, 0, 2])
            grad = run(bilinear_resize_backward, data, data.shape, align_corners)
            np.testing.assert_array_equal(grad, data)
            assert not np.signbit(grad[0, 0, 0, 2])  # 0 + -0, as in MXNet

    def test_infinite_pixel_times_a_weight_of_zero_is_nan(self, run):
        # Output 0 is pixel 0 with a weight of 1; the next pixel has 0, and so has the next row.
        out = run(bilinear_resize, f32([[[[1, INF, 1]]]]), height=1, width=5)
        np.testing.assert_array_equal(out, f32([[[[NAN, NAN, NAN, NAN, 1]]]]))

    def test_strided_and_unaligned_maps_give_equal_results(self, run):
        data = np.zeros((1, 2, 5, 14), np.float32)[..., 1::2]
        data[:] = ramp(5, 7)
        want = bilinear_resize(ramp(5, 7), height=4, width=8)
        out = run(bilinear_resize, data, height=4, width=8)
        np.testing.assert_array_equal(out, np.repeat(want, 2, axis=1))


#: The shape of data, and the size of the result.
CASES = {
    "one pixel": ((1, 1, 1, 1), (3, 5)),
    "to one pixel": ((2, 3, 5, 4), (1, 1)),
    "twice": ((2, 3, 5, 6), (10, 12)),
    "reduced": ((1, 5, 30, 27), (7, 9)),
    "much reduced": ((1, 2, 70, 90), (3, 2)),
    "much enlarged": ((1, 2, 3, 2), (40, 37)),
    "width divisible by 4": ((1, 9, 4, 7), (6, 20)),
    "odd width": ((1, 33, 7, 5), (9, 11)),
    "higher and narrower": ((1, 3, 4, 30), (11, 8)),
    "other height": ((1, 2, 4, 6), (7, 6)),
    "more columns than a block has threads": ((1, 1, 2, 200), (3, 1100)),
    "equal size": ((2, 3, 4, 5), (4, 5)),
}


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("shape", "size"), CASES.values(), ids=CASES)
def test_results_equal_the_reference(run_any_steps, shape, size, align_corners):
    run = run_any_steps
    rng = np.random.default_rng(0)
    data = f32(rng.normal(size=shape))
    options = {"height": size[0], "width": size[1], "align_corners": align_corners}
    want = bilinear_resize(data, **options, backend="numpy")
    np.testing.assert_array_equal(bits(run(bilinear_resize, data, **options)), bits(want))
    out_grad = f32(rng.normal(size=want.shape))
    want = bilinear_resize_backward(out_grad, shape, align_corners, backend="numpy")
    grad = run(bilinear_resize_backward, out_grad, shape, align_corners)
    np.testing.assert_array_equal(bits(grad), bits(want))


@pytest.mark.parametrize("planes", [1, 3, 8, 9, 17, 33])
@pytest.mark.parametrize("sizes", [(9, 13, 20, 27), (20, 31, 9, 12), (5, 70, 5, 140), (6, 6, 6, 6)])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, planes, sizes):
    data = f32(np.random.default_rng(planes).normal(size=(1, planes, *sizes[:2])))

    def both(run):
        out = run(bilinear_resize, data, height=sizes[2], width=sizes[3])
        return out.tobytes(), run(bilinear_resize_backward, out, data.shape).tobytes()

    want = both(runner("cpu", "numpy"))
    for got in cpu_variants(lambda: both(runner("cpu", "native"))):
        assert got == want


@pytest.mark.parametrize("shape", [(1, 2, 150, 100), (2, 70, 20, 30)])
def test_maps_of_several_threads_equal_the_reference(cpu_variants, shape):
    data = f32(np.random.default_rng(1).normal(size=shape))
    size = {"height": 67, "width": 45, "align_corners": False}
    want = bilinear_resize(data, **size, backend="numpy")
    want_grad = bilinear_resize_backward(want, shape, False, backend="numpy")

    def both():
        out = bilinear_resize(data, **size, backend="native")
        return out, bilinear_resize_backward(out, shape, False, backend="native")

    for out, grad in cpu_variants(both):
        np.testing.assert_array_equal(bits(out), bits(want))
        np.testing.assert_array_equal(bits(grad), bits(want_grad))


def test_non_temporal_stores_give_equal_bits(cpu_variants):
    """The condition is a result of 4 MiB in memory that was written before."""
    native = pytest.importorskip("cvops._native")
    data = f32(np.random.default_rng(6).normal(size=(1, 20, 41, 43)))
    want = bilinear_resize(data, height=250, width=211, backend="numpy")
    assert want.nbytes >= 2**22

    def into_old_memory():
        out = np.ones(want.size + 1, np.float32)[1:]
        native.cpu.bilinear_resize(out, data, 20, (41, 43, 250, 211, True))
        return out

    for got in cpu_variants(into_old_memory):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("sizes", [(5, 6, 3, 4), (3, 2, 7, 9), (4, 4, 4, 4), (2, 5, 1, 1)])
def test_sanitizers_find_no_error(run_sanitized, run_sanitized_small, sizes):
    data = f32(np.random.default_rng(2).normal(size=(1, 5, *sizes[:2])))
    size = {"height": sizes[2], "width": sizes[3]}
    want = bilinear_resize(data, **size, backend="numpy")
    grad = bilinear_resize_backward(want, data.shape, backend="numpy")
    for run in (run_sanitized, run_sanitized_small):
        np.testing.assert_array_equal(run(bilinear_resize, data, **size), want)
        np.testing.assert_array_equal(run(bilinear_resize_backward, want, data.shape), grad)


@pytest.mark.parametrize("align_corners", [True, False])
def test_gradient_is_the_transpose(run, align_corners):
    """Integers and weights that are powers of two give exact sums, so both products are equal."""
    rng = np.random.default_rng(3)
    # The distance of two outputs is 1/2 pixel, or 2 pixels.
    sizes = (3, 5, 5, 9) if align_corners else (3, 4, 6, 8)
    for height, width, *size in (sizes, sizes[2:] + sizes[:2]):
        data = f32(rng.integers(-8, 9, (2, 3, height, width)))
        out_grad = f32(rng.integers(-8, 9, (2, 3, *size)))
        options = {"height": size[0], "width": size[1], "align_corners": align_corners}
        forward = (run(bilinear_resize, data, **options).astype("f8") * out_grad).sum()
        grad = run(bilinear_resize_backward, out_grad, data.shape, align_corners)
        assert forward == (grad.astype("f8") * data).sum() != 0


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 2, 0, 3)])
def test_input_without_planes_gives_an_empty_result(run, shape):
    out = run(bilinear_resize, np.zeros(shape, np.float32), height=3, width=2)
    assert out.shape == (*shape[:2], 3, 2)
    assert run(bilinear_resize_backward, out, shape).shape == shape


SIZES = st.tuples(*(st.integers(1, n) for n in (3, 40, 12, 12, 25, 25)))


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), sizes=SIZES, align_corners=st.booleans())
def test_results_and_gradients_equal_mxnet(mx, backend, seed, sizes, align_corners):
    rng = np.random.default_rng(seed)
    data = f32(rng.normal(size=sizes[:4]))
    data[rng.random(data.shape) < 0.01] = rng.choice([INF, -INF, NAN, -0.0])
    options = {"height": sizes[4], "width": sizes[5], "align_corners": align_corners}
    x = mx.nd.array(data)
    x.attach_grad()
    with mx.autograd.record():
        want = mx.nd.contrib.BilinearResize2D(x, **options)
    out_grad = f32(rng.normal(size=want.shape))
    want.backward(mx.nd.array(out_grad))
    out = bilinear_resize(data, **options, backend=backend)
    np.testing.assert_array_equal(out, want.asnumpy())
    grad = bilinear_resize_backward(out_grad, data.shape, align_corners, backend=backend)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


@pytest.mark.parametrize(
    "options",
    [
        {"scale_height": 1.7, "scale_width": 0.6},
        {"mode": "odd_scale", "scale_height": 0.7, "scale_width": 3},
        *({"mode": f"to_{parity}_{way}"} for parity in ("even", "odd") for way in ("down", "up")),
    ],
)
def test_modes_equal_mxnet(mx, options):
    for shape in ((1, 2, 5, 8), (1, 1, 6, 7), (1, 1, 3, 2)):
        data = f32(np.random.default_rng(5).normal(size=shape))
        want = mx.nd.contrib.BilinearResize2D(mx.nd.array(data), **options).asnumpy()
        np.testing.assert_array_equal(bilinear_resize(data, **options), want)


def test_results_are_close_to_pytorch(run):
    torch = pytest.importorskip("torch")
    data = f32(np.random.default_rng(4).normal(size=(2, 3, 10, 12)))
    for size in ((20, 31), (4, 7), (10, 24)):
        for align_corners in (True, False):
            x = torch.from_numpy(data).requires_grad_()
            out = torch.nn.functional.interpolate(
                x, size=size, mode="bilinear", align_corners=align_corners
            )
            out.sum().backward()
            options = {"height": size[0], "width": size[1], "align_corners": align_corners}
            got = run(bilinear_resize, data, **options)
            np.testing.assert_allclose(got, out.detach().numpy(), rtol=1e-4, atol=1e-5)
            grad = run(bilinear_resize_backward, np.ones_like(got), data.shape, align_corners)
            np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-4, atol=1e-5)


class TestRefusals:
    data = np.zeros((1, 2, 4, 6), np.float32)
    huge = np.broadcast_to(np.float32(0), (1, 1, 2**15, 2**15))

    forward = {
        "three axes": (data[0], {}, "data: expected shape (N, C, H, W), got (2, 4, 6)"),
        "float64": (data.astype("f8"), {}, "data: expected float32, got float64"),
        "list": ([[[[0]]]], {}, "data: expected an array"),
        "no pixels": (data[:, :, :0], {}, "data: expected one pixel or more, got 0 x 6"),
        "height 0": (data, {"height": 0}, "height: expected an integer in [1, 2147483647], got 0"),
        "width a float": (data, {"width": 2.0}, "width: expected an integer, got 2.0"),
        "one factor": (data, {"scale_height": 2}, "two numbers for mode 'size', got 2, None"),
        "no factors": (data, {"mode": "odd_scale"}, "scale_height, scale_width: expected two num"),
        "a word": (data, {"scale_height": "x"}, "scale_height: expected a number, got 'x'"),
        "factor 0": (data, {"scale_height": 0, "scale_width": 1}, "the result: expected one pixel"),
        "negative factor": (
            data, {"scale_height": -1, "scale_width": 1}, "the result: expected one pixel or more"
        ),
        "huge factor": (
            data, {"scale_height": 1e30, "scale_width": 1}, "the result: expected less than 2**30"
        ),
        "one row to even": (
            data[:, :, :1], {"mode": "to_even_down"}, "the result: expected one pixel or more"
        ),
        "unknown mode": (data, {"mode": "scale"}, "mode: expected one of ['size', 'odd_scale'"),
        "like missing": (data, {"mode": "like"}, "like: expected an array for mode 'like', got"),
        "like too much": (data, {"like": data}, "like: expected None for mode 'size', got ndarray"),
        "like of three axes": (
            data, {"like": data[0], "mode": "like"}, "like: expected shape (M, K, height, width)"
        ),
        "like of float64": (
            data, {"like": data.astype("f8"), "mode": "like"}, "like: expected float32, got float64"
        ),
        "align_corners 2": (data, {"align_corners": 2}, "align_corners: expected True or False"),
        "large map": (huge, {}, "data: expected less than 2**30 pixels, got 32768 x 32768"),
        "large result": (
            data, {"height": 2**15, "width": 2**15}, "the result: expected less than 2**30 pixels"
        ),
    }  # fmt: skip

    @pytest.mark.parametrize(("data", "options", "message"), forward.values(), ids=forward)
    def test_bad_arguments_are_refused(self, data, options, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            bilinear_resize(data, **options)

    backward = {
        "three axes": (data[0], (2, 4, 6), "out_grad: expected shape (N, C, height, width), got"),
        "no outputs": (data[:, :, :0], (1, 2, 3, 3), "out_grad: expected one pixel or more, got"),
        "no pixels": (data, (1, 2, 0, 3), "data_shape: expected one pixel or more, got 0 x 3"),
        "other images": (data, (3, 2, 4, 4), "with (N, C) = (1, 2) as in out_grad, got (3, 2"),
        "three sizes": (data, (1, 2, 4), "data_shape: expected (N, C, H, W), got (1, 2, 4)"),
        "large map": (data, (1, 2, 2**15, 2**15), "data_shape: expected less than 2**30 pixels"),
    }  # fmt: skip

    @pytest.mark.parametrize(("out_grad", "shape", "message"), backward.values(), ids=backward)
    def test_bad_arguments_of_the_gradient_are_refused(self, out_grad, shape, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            bilinear_resize_backward(out_grad, shape)
