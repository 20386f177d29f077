from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import multibox_prior, multibox_priors

#: Sizes of a map, and options.
SHAPES = [
    ((7, 11), dict(sizes=(0.2, 0.27), ratios=(1, 2, 0.5))),
    ((13, 5), dict(sizes=(0.3,), ratios=(1.7,), clip=True)),
    (
        (3, 3),
        dict(sizes=(0.1, 0.2, 0.3), ratios=(3, 0.333, 1), steps=(0.11, 0.13), offsets=(0.2, 0.9)),
    ),
    ((1, 1), dict(sizes=0.5, ratios=4)),
    ((4, 6), dict(steps=(0.1, 0), offsets=(0, 1))),
    (
        (5, 2),
        dict(
            sizes=np.linspace(0.1, 0.9, 70).tolist(),
            ratios=np.linspace(0.2, 5, 90).tolist(),
            clip=True,
        ),
    ),
    ((2, 3), dict(sizes=(0.5, -0.5), ratios=(1, -1, 0), clip=True)),
    ((40, 33), {}),
]
#: Sizes of several maps, and options.
MAPS = {
    "three maps": (
        [(7, 11), (3, 4), (1, 1)],
        dict(sizes=[(0.2, 0.27), 0.37, (0.5, 0.6, 0.7)], ratios=[(1, 2, 0.5), 1, (2, 3)]),
    ),
    "steps and offsets": (
        [(13, 5), (40, 33)],
        dict(
            **dict(sizes=[0.3, (1.5, -0.5)], ratios=[1.7, (1, -1, 0)], clip=True),
            **dict(steps=[(0.11, 0.13), (-1, -1)], offsets=[(0.2, 0.9), (0, 1)]),
        ),
    ),
    "one map": (
        [(5, 2)],
        dict(sizes=[np.linspace(0.1, 0.9, 70)], ratios=[np.linspace(0.2, 5, 90)]),
    ),
    "more maps than in one launch": (
        [(i + 1, 2 * i + 1) for i in range(19)],
        dict(sizes=[(0.1, 0.2)] * 19, ratios=[(1, 2)] * 19),
    ),
    "more shapes than in one launch": (
        [(2, 3), (17, 16), (2, 2)],
        dict(
            sizes=[np.linspace(0.1, 0.9, num) for num in (100, 100, 300)],
            ratios=[1, (1, 2), 0.5],
        ),
    ),
}
#: The maps of SSD at 512 x 512: 24,564 anchors.
SSD = dict(
    maps=[(side, side) for side in (64, 32, 16, 8, 4, 2, 1)],
    sizes=[(0.07, 0.1), *[(0.3, 0.37, 0.33, 0.28)] * 4, (0.75, 0.82), (0.9, 0.97)],
    ratios=[(1, 2, 0.5)] * 7,
)


def one_by_one(maps, clip=False, **options):
    """The expected result of multibox_priors: the reference for each map, concatenated."""
    rows = [dict(zip(options, row)) for row in zip(*options.values())]
    each = [multibox_prior(x, **row, clip=clip, backend="numpy") for x, row in zip(maps, rows)]
    return np.concatenate(each, axis=1)


def test_anchors_of_the_first_cell_by_hand(run):
    # The center of the first cell of 3 x 2 is (1/4, 1/6). The anchor of size 1/2 and ratio 1 has a
    # width of 1/2 * 3/2 and a height of 1/2.
    out = run(multibox_prior, np.zeros((1, 3, 2, 4), np.float32), (0.5, 0.25), (1, 2, 0.5))
    assert out.shape == (1, 2 * 4 * 4, 4)
    first = [0, 0, 0.25, 0.5], [0.0625, 0.125, 0.1875, 0.375]
    np.testing.assert_array_equal(out[0, :2], np.float32(first))
    others = [-0.051777, 0.073223, 0.301777, 0.426777], [0.036612, -0.103553, 0.213388, 0.603553]
    np.testing.assert_allclose(out[0, 2:4], others, atol=1e-6)


def test_example_of_the_book(run):
    # d2l-zh, 9.3: the anchors of pixel (250, 250) of an image of 561 x 728.
    out = run(multibox_prior, (561, 728), sizes=[0.75, 0.5, 0.25], ratios=[1, 2, 0.5])
    assert out.shape == (1, 2042040, 4)
    boxes = out.reshape(561, 728, 5, 4)
    np.testing.assert_allclose(boxes[250, 250, 0], [0.06, 0.07, 0.63, 0.82], atol=0.005)


@pytest.mark.parametrize(("size", "options"), SHAPES)
def test_results_equal_the_reference(run, size, options):
    expected = multibox_prior(size, **options, backend="numpy")
    np.testing.assert_array_equal(run(multibox_prior, size, **options), expected)


def test_sign_of_a_zero_ratio_is_the_sign_of_the_height(run):
    """1 / sqrt(-0.0) is -inf. The cache has the shapes of the ratio 0.0."""
    for ratio in (0.0, -0.0, 0.0):
        [[[_, top, _, bottom]]] = run(multibox_prior, (1, 1), sizes=0.5, ratios=ratio)
        assert (top, bottom) == ((np.inf, -np.inf) if str(ratio) == "-0.0" else (-np.inf, np.inf))


@pytest.mark.parametrize(("size", "options"), [*SHAPES, ((131, 67), dict(sizes=(0.1, 0.2, 0.3)))])
@pytest.mark.parametrize("clip", [False, True], ids=["any", "clip"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, size, options, clip):
    options = {**options, "clip": clip}
    expected = multibox_prior(size, **options, backend="numpy")
    for out in cpu_variants(partial(multibox_prior, size, **options, backend="native")):
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_first_ratio_applies_to_every_size(run):
    wide = run(multibox_prior, (1, 1), sizes=(0.5, 0.25), ratios=(4, 1))[0]
    width, height = wide[:, 2] - wide[:, 0], wide[:, 3] - wide[:, 1]
    np.testing.assert_array_equal(width, np.float32([1, 0.5, 0.5]))
    np.testing.assert_array_equal(height, np.float32([0.25, 0.125, 0.5]))


@pytest.mark.parametrize(
    "call",
    [
        lambda zero: multibox_prior((1, 1), ratios=zero),
        lambda zero: multibox_prior((1, 1), ratios=np.float32([zero])),
        lambda zero: multibox_priors([(1, 1)], [1], [(zero,)]),
        lambda zero: multibox_priors([(1, 1)], [1], [zero]),
    ],
    ids=["number", "array", "tuples", "numbers"],
)
def test_cache_distinguishes_the_signs_of_a_zero_ratio(call):
    """The height is 1 / 0 for the ratio 0.0 and -1 / 0 for -0.0."""
    for zero in (0.0, -0.0, 0.0):
        _, low, _, high = call(zero)[0, 0]
        assert (low < high) == (str(zero) == "0.0")


def test_clip_limits_coordinates_to_0_and_1(run):
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
def test_results_equal_mxnet(mx, backend, size, **options):
    data = np.zeros((1, 1, *size), np.float32)
    theirs = mx.nd.contrib.MultiBoxPrior(mx.nd.array(data), **options).asnumpy()
    np.testing.assert_array_equal(multibox_prior(data, **options, backend=backend), theirs)


def test_like_of_an_mxnet_array_gives_an_mxnet_array(mx):
    out = multibox_prior((2, 3), like=mx.nd.zeros(1))
    assert type(out) is mx.nd.NDArray
    np.testing.assert_array_equal(out.asnumpy(), multibox_prior((2, 3)))


def test_sanitizers_find_no_error(run_sanitized):
    out = run_sanitized(multibox_prior, (5, 3), sizes=(0.2, 0.3), ratios=(1, 2))
    np.testing.assert_array_equal(
        out, multibox_prior((5, 3), sizes=(0.2, 0.3), ratios=(1, 2), backend="numpy")
    )


def test_anchors_of_two_maps_by_hand(run):
    # The first map has the centers (1/4, 1/2) and (3/4, 1/2). The anchor of size 1/2 has a width of
    # 1/2 * 1/2 and a height of 1/2. The second map has one cell with the sizes 1/2 and 1.
    out = run(multibox_priors, [(1, 2), (1, 1)], sizes=[0.5, (0.5, 1)], ratios=[1, 1])
    left, right = [0.125, 0.25, 0.375, 0.75], [0.625, 0.25, 0.875, 0.75]
    alone = [0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]
    np.testing.assert_array_equal(out, np.float32([[left, right, *alone]]))


@pytest.mark.parametrize(("maps", "options"), MAPS.values(), ids=MAPS)
def test_anchors_of_maps_are_concatenated(run, maps, options):
    expected = one_by_one(maps, **options)
    np.testing.assert_array_equal(run(multibox_priors, maps, **options), expected)


@pytest.mark.parametrize(("maps", "options"), MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("clip", [False, True], ids=["any", "clip"])
def test_threads_and_vectors_do_not_change_a_bit_of_several_maps(cpu_variants, maps, options, clip):
    options = {**options, "clip": clip}
    expected = one_by_one(maps, **options)
    for out in cpu_variants(partial(multibox_priors, maps, **options, backend="native")):
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_maps_of_ssd_have_24564_anchors(run):
    out = run(multibox_priors, **SSD)
    assert out.shape == (1, 24564, 4)
    np.testing.assert_array_equal(out, one_by_one(**SSD))


def test_feature_maps_give_the_anchors_of_their_sizes(run):
    def priors(*maps, **options):
        return multibox_priors(maps, **options)

    arrays = np.zeros((2, 3, 4, 5), np.float32), np.zeros((1, 6, 2, 1, 7), np.float32)
    options = dict(sizes=[0.2, 0.5], ratios=[1, (1, 2)])
    expected = one_by_one([(4, 5), (2, 1)], **options)
    np.testing.assert_array_equal(run(priors, *arrays, **options), expected)


def test_several_maps_like_an_mxnet_array_give_an_mxnet_array(mx):
    out = multibox_priors([(2, 3), (1, 1)], [0.2, 0.4], [1, 1], like=mx.nd.zeros(1))
    assert type(out) is mx.nd.NDArray
    np.testing.assert_array_equal(
        out.asnumpy(), multibox_priors([(2, 3), (1, 1)], [0.2, 0.4], [1, 1])
    )


def test_sanitizers_find_no_error_with_several_maps(run_sanitized):
    maps, options = [(5, 3), (9, 16), (1, 1)], dict(sizes=[(0.2, 0.3), 0.5, 0.7], ratios=[1, 2, 3])
    np.testing.assert_array_equal(
        run_sanitized(multibox_priors, maps, **options), one_by_one(maps, **options)
    )


def test_all_maps_of_a_model_need_one_launch(launches):
    multibox_priors(**SSD, backend="listed")
    # The maps have 16384, 6144, 1536, 384, 96, 16 and 4 anchors. A tile has 256 anchors of one map.
    tiles = 64 + 24 + 6 + 2 + 1 + 1 + 1
    assert [(x.kernel, x.grid) for x in launches] == [("multibox_prior", (tiles, 1, 1))]


#: The number of shapes of each map, and the number of launches.
LAUNCHES = {
    "8 maps": ([1] * 8, 1),
    "9 maps": ([1] * 9, 2),
    "128 shapes of two maps": ([64, 64], 1),
    "129 shapes of two maps": ([64, 65], 2),
    "128 shapes": ([128], 1),
    "129 shapes": ([129], 2),
    "300 shapes between others": ([1, 300, 1], 4),
}


@pytest.mark.parametrize(("shapes", "count"), LAUNCHES.values(), ids=LAUNCHES)
def test_launch_has_at_most_8_maps_and_128_shapes(launches, shapes, count):
    sizes = [np.linspace(0.1, 0.9, num) for num in shapes]
    multibox_priors([(2, 2)] * len(shapes), sizes, [1] * len(shapes), backend="listed")
    assert len(launches) == count


@pytest.mark.parametrize(("grid", "block"), [(1, 256), (3, 64), (50, 31)])
def test_kernel_on_another_grid_gives_equal_bits(monkeypatch, grid, block):
    def other(launch):
        return launch._replace(grid=(grid,), block=(block,))

    monkeypatch.setattr(backends, "on_launch", other)
    maps, options = MAPS["three maps"]
    out = multibox_priors(maps, **options, backend="emulated")
    np.testing.assert_array_equal(out, one_by_one(maps, **options))


#: ``struct PriorWork`` of the kernels.
PART = [("center", np.float32, 4), ("width", np.uint32), ("shapes", np.uint32)]
PART += [("by_width", np.uint32, 2), ("by_shapes", np.uint32, 2), ("rest", np.uint32, 5)]
WORK = np.dtype([("end", np.uint32, 8), ("part", PART, 8), ("half", np.float32, (128, 2))])


@pytest.fixture(scope="module")
def divisor():
    """divisor(number): the factor and the shift of the kernel's division by ``number``."""
    works = []

    def record(launch):
        works.append(np.frombuffer(launch.arguments[1], WORK)[0])
        return launch

    def divisor(number):
        multibox_prior((1, number), backend="listed")
        return tuple(map(int, works.pop()["part"][0]["by_width"]))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(backends, "on_launch", record)
        yield divisor


@settings(max_examples=200, deadline=None)
@given(n=st.integers(0, 2**31 - 1), number=st.integers(1, 2**31 - 1))
def test_division_of_the_kernel_is_exact(divisor, n, number):
    factor, shift = divisor(number)
    for n_near in {n, n // number * number, max(n // number * number - 1, 0), 2**31 - 1}:
        assert factor < 2**32
        assert n_near + (n_near * factor >> 32) < 2**32
        assert (n_near + (n_near * factor >> 32)) >> shift == n_near // number


def test_parameters_of_the_kernel_fit_every_gpu(launches):
    multibox_prior((2, 2), backend="listed")
    [launch] = launches
    assert [len(x) for x in launch.arguments] == [8, WORK.itemsize, 4]
    assert sum(map(len, launch.arguments)) <= 4096


REFUSED = {
    "three axes": (
        np.zeros((3, 2, 4), np.float32),
        {},
        ValueError,
        r"data: expected shape .*got \(3, 2, 4\)",
    ),
    "height of 0": (
        np.zeros((1, 3, 0, 4), np.float32),
        {},
        ValueError,
        r"data: .* above 0, got \(1, 3, 0, 4\)",
    ),
    "pair with 0": ((0, 4), {}, ValueError, r"data: expected an integer in \[1, .*got 0"),
    "number": (4, {}, ValueError, r"data: expected an array or a pair \(height, width\), got 4"),
    "pair with a float": ((2.5, 4), {}, TypeError, "data: expected an integer, got 2.5"),
    "three sizes": (
        (1, 2, 3),
        {},
        ValueError,
        r"data: expected an array or a pair .*got \(1, 2, 3\)",
    ),
    "float64": (np.zeros((1, 1, 2, 2)), {}, TypeError, "data: expected float32, got float64"),
    "None": (None, {}, TypeError, "data: expected an array .*got NoneType"),
    "no sizes": (
        (2, 2),
        {"sizes": ()},
        ValueError,
        r"sizes: expected one number or more, got \(\)",
    ),
    "ratios is a letter": (
        (2, 2),
        {"ratios": "x"},
        ValueError,
        "ratios: expected one number or more, got 'x'",
    ),
    "ratio is a letter": (
        (2, 2),
        {"ratios": (1, "x")},
        TypeError,
        "ratios: expected a number, got 'x'",
    ),
    "one step": (
        (2, 2),
        {"steps": (0.1,)},
        ValueError,
        r"steps: expected 2 numbers, got \(0.1,\)",
    ),
    "one negative step": (
        (2, 2),
        {"steps": (0.1, -1)},
        ValueError,
        r"steps: expected both positive or neither",
    ),
    "offset above 1": (
        (2, 2),
        {"offsets": (0.5, 1.5)},
        ValueError,
        r"offsets: expected a number in \[0, 1\], got 1.5",
    ),
    "size NaN": (
        (2, 2),
        {"sizes": float("nan")},
        ValueError,
        "sizes: expected a number, got nan",
    ),
    "2^32 anchors": (
        (2**16, 2**16),
        {},
        ValueError,
        "data: 65536 x 65536 cells of 1 anchors are 2.31 or more",
    ),
}


@pytest.mark.parametrize(("data", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        multibox_prior(data, **options)


ARRAY = np.zeros((1, 1, 2, 2), np.float32)
TWO = [(2, 2), (3, 3)]
REFUSED_MAPS = {
    "no maps": ([], {}, ValueError, r"maps: expected one feature map or more, got \[\]"),
    "number": (3, {}, ValueError, "maps: expected one feature map or more, got 3"),
    "two axes": (
        [ARRAY, np.zeros((2, 4), np.float32)],
        {},
        ValueError,
        r"maps\[1\]: expected shape \(N, C, H, W, \.\.\.\), got \(2, 4\)",
    ),
    "float64": (
        [ARRAY, np.zeros((1, 1, 2, 2))],
        {},
        TypeError,
        r"maps\[1\]: expected float32, got float64",
    ),
    "width of 0": (
        [ARRAY, np.zeros((1, 1, 2, 0), np.float32)],
        {},
        ValueError,
        r"maps\[1\]: expected a height and a width above 0, got \(1, 1, 2, 0\)",
    ),
    "pair after an array": (
        [ARRAY, (2, 2)],
        {},
        TypeError,
        r"maps\[1\]: expected an array .*got tuple",
    ),
    "array after a pair": (
        [(2, 2), ARRAY],
        {},
        TypeError,
        r"maps\[1\]: expected a pair \(height, width\) as before, got a NumPy array",
    ),
    "pair with 0": (
        [(2, 2), (0, 4)],
        {},
        ValueError,
        r"maps\[1\]: expected an integer in \[1, .*got 0",
    ),
    "one size": (
        [(2, 2), (1,)],
        {},
        ValueError,
        r"maps\[1\]: expected an array or a pair .*got \(1,\)",
    ),
    "sizes is a number": (
        TWO,
        {"sizes": 0.5},
        ValueError,
        "sizes: expected one for each of 2 maps, got 0.5",
    ),
    "ratios of one map": (
        TWO,
        {"ratios": [1]},
        ValueError,
        r"ratios: expected one for each of 2 maps, got \[1\]",
    ),
    "steps of three maps": (
        TWO,
        {"steps": (0.1, 0.1, 1)},
        ValueError,
        "steps: expected one for each of 2 maps, got",
    ),
    "offsets of one map": (
        TWO,
        {"offsets": [None]},
        ValueError,
        "offsets: expected one for each of 2 maps, got",
    ),
    "no sizes of a map": (
        TWO,
        {"sizes": [1, ()]},
        ValueError,
        r"sizes\[1\]: expected one number or more, got \(\)",
    ),
    "size is a letter": (
        TWO,
        {"sizes": [1, "x"]},
        ValueError,
        r"sizes\[1\]: expected one number .* got 'x'",
    ),
    "ratio is None": (
        TWO,
        {"ratios": [1, (1, None)]},
        TypeError,
        r"ratios\[1\]: expected a number, got None",
    ),
    "one step": (
        TWO,
        {"steps": [(1, 1), 1]},
        ValueError,
        r"steps\[1\]: expected 2 numbers, got 1",
    ),
    "one negative step": (
        TWO,
        {"steps": [(1, 1), (1, -1)]},
        ValueError,
        r"steps\[1\]: expected both positive or neither, got \(1, -1\)",
    ),
    "offset above 1": (
        TWO,
        {"offsets": [(0.5, 2), (0.5, 0.5)]},
        ValueError,
        r"offsets\[0\]: expected a number in \[0, 1\], got 2",
    ),
    "2^31 anchors": (
        [(2**15, 2**15), (2**15, 2**15)],
        {},
        ValueError,
        r"maps\[1\]: 32768 x 32768 cells of 1 anchors, with those before, are 2.31 or more",
    ),
}


@pytest.mark.parametrize(
    ("maps", "options", "error", "message"), REFUSED_MAPS.values(), ids=REFUSED_MAPS
)
def test_bad_arguments_of_several_maps_are_refused(maps, options, error, message):
    with pytest.raises(error, match=message):
        multibox_priors(maps, **{"sizes": [1, 1], "ratios": [1, 1], **options})


def test_maps_of_two_libraries_are_refused():
    torch = pytest.importorskip("torch")
    maps = [np.zeros((1, 1, 2, 2), np.float32), torch.zeros(1, 1, 2, 2)]
    message = r"maps\[0\] is a NumPy array on the CPU and maps\[1\] a PyTorch tensor on the CPU"
    with pytest.raises(TypeError, match=message):
        multibox_priors(maps, [1, 1], [1, 1])
