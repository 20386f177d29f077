from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import multibox_prior

SHAPES = [
    ((7, 11), dict(sizes=(0.2, 0.27), ratios=(1, 2, 0.5))),
    ((13, 5), dict(sizes=(0.3,), ratios=(1.7,), clip=True)),
    (
        (3, 3),
        dict(sizes=(0.1, 0.2, 0.3), ratios=(3, 0.333, 1), steps=(0.11, 0.13), offsets=(0.2, 0.9)),
    ),
    ((1, 1), dict(sizes=0.5, ratios=4)),
    ((4, 6), dict(steps=(0.1, 0), offsets=(0, 1))),
    ((5, 2), dict(sizes=tuple(np.linspace(0.1, 0.9, 70)), ratios=tuple(np.linspace(0.2, 5, 90)), clip=True)),
    ((2, 3), dict(sizes=(0.5, -0.5), ratios=(1, -1, 0), clip=True)),
    ((40, 33), {}),
]


def test_first_cell_by_hand(run):
    # The first cell of 3 x 2 has its centre at (1/4, 1/6). Of size 1/2 and ratio 1 an anchor is
    # 1/2 * 3/2 wide and 1/2 high.
    out = run(multibox_prior, np.zeros((1, 3, 2, 4), np.float32), (0.5, 0.25), (1, 2, 0.5))
    assert out.shape == (1, 2 * 4 * 4, 4)
    first = [0, 0, 0.25, 0.5], [0.0625, 0.125, 0.1875, 0.375]
    np.testing.assert_array_equal(out[0, :2], np.float32(first))
    others = [-0.051777, 0.073223, 0.301777, 0.426777], [0.036612, -0.103553, 0.213388, 0.603553]
    np.testing.assert_allclose(out[0, 2:4], others, atol=1e-6)


def test_the_example_of_the_book(run):
    # d2l-zh, 9.3: the anchors at (250, 250) of an image of 561 x 728, in pixels.
    out = run(multibox_prior, (561, 728), sizes=[0.75, 0.5, 0.25], ratios=[1, 2, 0.5])
    assert out.shape == (1, 2042040, 4)
    boxes = out.reshape(561, 728, 5, 4)
    np.testing.assert_allclose(boxes[250, 250, 0], [0.06, 0.07, 0.63, 0.82], atol=0.005)


@pytest.mark.parametrize(("size", "options"), SHAPES)
def test_against_the_oracle(run, size, options):
    expected = multibox_prior(size, **options, backend="numpy")
    np.testing.assert_array_equal(run(multibox_prior, size, **options), expected)


@pytest.mark.parametrize(("size", "options"), [*SHAPES, ((131, 67), dict(sizes=(0.1, 0.2, 0.3)))])
@pytest.mark.parametrize("clip", [False, True])
def test_threads_and_vectors_do_not_change_a_bit(in_every_way, size, options, clip):
    options = {**options, "clip": clip}
    expected = multibox_prior(size, **options, backend="numpy")
    for out in in_every_way(partial(multibox_prior, size, **options, backend="native")):
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_ratios_0_shapes_every_size(run):
    wide = run(multibox_prior, (1, 1), sizes=(0.5, 0.25), ratios=(4, 1))[0]
    width, height = wide[:, 2] - wide[:, 0], wide[:, 3] - wide[:, 1]
    np.testing.assert_array_equal(width, np.float32([1, 0.5, 0.5]))
    np.testing.assert_array_equal(height, np.float32([0.25, 0.125, 0.5]))


def test_clips(run):
    out = run(multibox_prior, (2, 2), sizes=(3,), ratios=(1, -1), clip=True)[0]
    np.testing.assert_array_equal(out[::2], np.tile(np.float32([0, 0, 1, 1]), (4, 1)))
    assert np.isnan(out[1::2]).all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    sizes=st.lists(st.floats(0.015625, 2, width=32), min_size=1, max_size=5),
    ratios=st.lists(st.floats(0.0625, 8, width=32), min_size=1, max_size=5),
    clip=st.booleans(),
    steps=st.one_of(st.just((-1, -1)), st.tuples(*[st.floats(0.0078125, 1, width=32)] * 2)),
    offsets=st.tuples(*[st.floats(0, 1, width=32)] * 2),
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_equals_mxnet(mx, backend, size, **options):
    data = np.zeros((1, 1, *size), np.float32)
    theirs = mx.nd.contrib.MultiBoxPrior(mx.nd.array(data), **options).asnumpy()
    np.testing.assert_array_equal(multibox_prior(data, **options, backend=backend), theirs)


def test_like(mx):
    out = multibox_prior((2, 3), like=mx.nd.zeros(1))
    assert type(out) is mx.nd.NDArray
    np.testing.assert_array_equal(out.asnumpy(), multibox_prior((2, 3)))


def test_sanitized(run_sanitized):
    out = run_sanitized(multibox_prior, (5, 3), sizes=(0.2, 0.3), ratios=(1, 2))
    np.testing.assert_array_equal(
        out, multibox_prior((5, 3), sizes=(0.2, 0.3), ratios=(1, 2), backend="numpy")
    )


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (
            np.zeros((3, 2, 4), np.float32),
            {},
            ValueError,
            r"data: expected shape .*got \(3, 2, 4\)",
        ),
        (
            np.zeros((1, 3, 0, 4), np.float32),
            {},
            ValueError,
            r"data: .* above 0, got \(1, 3, 0, 4\)",
        ),
        ((0, 4), {}, ValueError, r"data: expected an integer in \[1, .*got 0"),
        ((2.5, 4), {}, TypeError, "data: expected an integer, got 2.5"),
        ((1, 2, 3), {}, ValueError, r"data: expected an array or a pair .*got \(1, 2, 3\)"),
        (np.zeros((1, 1, 2, 2)), {}, TypeError, "data: expected float32, got float64"),
        (None, {}, TypeError, "data: expected an array .*got NoneType"),
        ((2, 2), {"sizes": ()}, ValueError, r"sizes: expected one number or more, got \(\)"),
        ((2, 2), {"ratios": "1"}, ValueError, "ratios: expected one number or more, got '1'"),
        ((2, 2), {"ratios": (1, "x")}, TypeError, "ratios: expected a number, got 'x'"),
        ((2, 2), {"steps": (0.1,)}, ValueError, r"steps: expected 2 numbers, got \(0.1,\)"),
        ((2, 2), {"steps": (0.1, -1)}, ValueError, r"steps: expected both positive or neither"),
        (
            (2, 2),
            {"offsets": (0.5, 1.5)},
            ValueError,
            r"offsets: expected a number in \[0, 1\], got 1.5",
        ),
        ((2, 2), {"sizes": float("nan")}, ValueError, "sizes: expected a number, got nan"),
        ((2**16, 2**16), {}, ValueError, "data: 65536 x 65536 cells of 1 anchors are 2.31 or more"),
    ],
)
def test_refuses(data, options, error, message):
    with pytest.raises(error, match=message):
        multibox_prior(data, **options)
