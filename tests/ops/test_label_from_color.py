import re

import numpy as np
import pytest
from backend_runner import runner

from cvops import label_from_color

#: The colors of background, aeroplane, bicycle and bird in Pascal VOC.
VOC = np.uint8([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]])


class TestByHand:
    def test_colors_of_voc_give_their_indices(self, run):
        image = VOC[[[0, 1, 3], [3, 2, 2]]]
        labels = run(label_from_color, image, VOC)
        assert labels.dtype == np.int32
        assert labels.tolist() == [[0, 1, 3], [3, 2, 2]]

    @pytest.mark.parametrize("unknown", [0, 255, -1, 2**31 - 1, -(2**31)])
    def test_color_that_is_not_in_the_map_is_unknown(self, run, unknown):
        image = np.uint8([[0, 0, 1], [128, 0, 0], [0, 1, 0], [1, 0, 0], [255, 255, 255]])
        labels = run(label_from_color, image, VOC, unknown)
        assert labels.tolist() == [unknown, 1, unknown, unknown, unknown]

    def test_swapped_channels_are_another_color(self, run):
        colormap = np.uint8([[1, 2, 3], [3, 2, 1], [2, 1, 3], [0, 0, 0]])
        image = np.uint8([[3, 2, 1], [2, 1, 3], [1, 2, 3], [1, 3, 2]])
        assert run(label_from_color, image, colormap, unknown=9).tolist() == [1, 2, 0, 9]

    def test_equal_colors_give_the_lowest_index(self, run):
        colormap = np.uint8([[5, 5, 5], [1, 1, 1], [5, 5, 5], [1, 1, 1], [2, 2, 2]])
        image = np.uint8([[1, 1, 1], [2, 2, 2], [5, 5, 5]])
        assert run(label_from_color, image, colormap).tolist() == [1, 4, 0]

    def test_colormap_of_one_color_gives_0_or_unknown(self, run):
        image = np.uint8([[9, 8, 7], [9, 8, 8]])
        assert run(label_from_color, image, image[:1], unknown=5).tolist() == [0, 5]


def random_case(seed, shape, num_colors):
    """An image and a colormap with some equal colors. Some pixels are not in the colormap."""
    rng = np.random.default_rng(seed)
    colormap = np.uint8(rng.integers(0, 256, (num_colors, 3)))
    colormap[rng.random(num_colors) < 0.2] = colormap[rng.integers(num_colors)]
    image = colormap[rng.integers(num_colors, size=shape)]
    other = rng.random(shape) < 0.2
    image[other] ^= np.uint8(1)
    return image, colormap


CASES = {
    "one pixel": ((1,), 1),
    "three pixels": ((3,), 2),
    "three pixels after groups of four": ((3, 37), 21),
    "several blocks": ((2, 50, 53), 256),
    "1024 colors in shared memory": ((500,), 1024),
    "1025 colors": ((501,), 1025),
    "65535 colors": ((1000,), 65535),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_equal_the_reference(run, case):
    image, colormap = random_case(0, *case)
    want = label_from_color(image, colormap, 7, backend="numpy")
    np.testing.assert_array_equal(run(label_from_color, image, colormap, 7), want)


def test_reference_gives_the_first_equal_color():
    image, colormap = random_case(1, (40, 30), 50)
    equal = (image[:, :, None] == colormap).all(axis=-1)
    want = np.where(equal.any(axis=-1), equal.argmax(axis=-1), 99)
    labels = label_from_color(image, colormap, 99, backend="numpy")
    np.testing.assert_array_equal(labels, want)
    assert 0 < np.count_nonzero(labels == 99) < labels.size


def test_colors_with_equal_hashes_are_found(run):
    """The first slot of a search is the upper bits of a product. Here all are equal."""
    colors = np.arange(2**24, dtype=np.uint32)
    colors = colors[colors * np.uint32(2654435769) >> np.uint32(22) == 1023][:64]
    colormap = colors.view(np.uint8).reshape(-1, 4)[:, :3]
    image = np.concatenate([colormap[::-1], colormap[:1] ^ np.uint8(1)])
    labels = run(label_from_color, image[:, None], np.ascontiguousarray(colormap), -1)
    assert labels[:, 0].tolist() == [*range(63, -1, -1), -1]


def test_several_threads_give_equal_labels():
    image, colormap = random_case(2, (7, 320, 480), 21)
    want = label_from_color(image, colormap, backend="numpy")
    np.testing.assert_array_equal(runner("cpu", "native")(label_from_color, image, colormap), want)


@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 33, 5000, 100_001])
@pytest.mark.parametrize("smooth", [1, 50])
@pytest.mark.parametrize("num_colors", [1, 21, 300])
def test_threads_and_vectors_do_not_change_a_label(cpu_variants, pixels, smooth, num_colors):
    image, colormap = random_case(6, (-(-pixels // smooth),), num_colors)
    image = np.ascontiguousarray(image.repeat(smooth, axis=0)[:pixels])
    want = label_from_color(image, colormap, -1, backend="numpy")
    run = runner("cpu", "native")
    for got in cpu_variants(lambda: run(label_from_color, image, colormap, -1)):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (4, 0), (2, 0, 3)])
def test_empty_image_gives_empty_labels(run, shape):
    labels = run(label_from_color, np.zeros((*shape, 3), np.uint8), VOC)
    assert labels.shape == shape
    assert labels.dtype == np.int32


@pytest.mark.parametrize("num_colors", [5, 1100])
def test_sanitizers_find_no_error(run_sanitized, num_colors):
    image, colormap = random_case(3, (5, 7), num_colors)
    want = label_from_color(image, colormap, backend="numpy")
    np.testing.assert_array_equal(run_sanitized(label_from_color, image, colormap), want)


def test_labels_equal_the_books_table():
    image, colormap = random_case(4, (32, 48), 21)
    table = np.zeros(256**3, np.int32)
    for i in reversed(range(21)):
        red, green, blue = colormap[i].tolist()
        table[(red * 256 + green) * 256 + blue] = i
    x = image.astype(np.int32)
    want = table[(x[..., 0] * 256 + x[..., 1]) * 256 + x[..., 2]]
    np.testing.assert_array_equal(label_from_color(image, colormap), want)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_mxnet_arrays_give_an_mxnet_array(mx, backend):
    image, colormap = random_case(5, (6, 9), 21)
    arrays = mx.nd.array(image, dtype="uint8"), mx.nd.array(colormap, dtype="uint8")
    labels = label_from_color(*arrays, backend=backend)
    assert type(labels) is mx.nd.NDArray
    assert labels.dtype is np.int32
    want = label_from_color(image, colormap, backend="numpy")
    np.testing.assert_array_equal(labels.asnumpy(), want)


REFUSED = {
    "image of one pixel": ({"image": VOC[0]}, "image: expected shape (..., W, 3), got (3,)"),
    "four channels": (
        {"image": np.zeros((5, 4), "u1")},
        "image: expected shape (..., W, 3), got (5, 4)",
    ),
    "int32 image": ({"image": VOC.astype("i4")}, "image: expected uint8, got int32"),
    "float32 image": ({"image": VOC.astype("f4")}, "image: expected uint8, got float32"),
    "colormap of one axis": ({"colormap": VOC[0]}, "colormap: expected shape (K, 3), got (3,)"),
    "colormap is a list": ({"colormap": VOC.tolist()}, "colormap: expected an array"),
    "int64 colormap": ({"colormap": VOC.astype("i8")}, "colormap: expected uint8, got int64"),
    "no colors": ({"colormap": VOC[:0]}, "colormap: expected 1 to 65535 colors, got 0"),
    "65536 colors": (
        {"colormap": np.zeros((65536, 3), "u1")},
        "expected 1 to 65535 colors, got 65536",
    ),
    "unknown is a float": ({"unknown": 0.0}, "unknown: expected an integer, got 0.0"),
    "unknown is 2^31": (
        {"unknown": 2**31},
        "unknown: expected an integer in [-2147483648, 2147483647]",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        label_from_color(**{"image": VOC, "colormap": VOC, **arguments})
