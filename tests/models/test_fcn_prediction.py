"""Prediction of the class of each pixel, in tiles."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL")

from fcn_cases import make_net
from image_cases import images_and_pixels
from PIL import Image

from cvops._mxnet import mxnet
from cvops.datasets.transforms import normalize_image
from cvops.models import fcn

mx = mxnet()


class Brightest(mx.gluon.HybridBlock):
    """The scores of a pixel are its channels. The network stores the sizes of its inputs."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def hybrid_forward(self, F, images):
        self.sizes.append(images.shape[2:])
        return images


@pytest.mark.parametrize(
    "size", [(6, 8), (7, 9), (6, 15), (12, 16), (13, 17), (4, 3), (4, 20)], ids=str
)
def test_tiles_cover_every_pixel(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    net = Brightest()
    classes = fcn.predict(net, image, tile=(6, 8))
    assert classes.dtype == np.int32
    np.testing.assert_array_equal(classes, normalize_image(image).argmax(axis=2))
    # The number of tiles is minimal. All have one size, at most that of the tile.
    assert len(net.sizes) == -(-size[0] // 6) * -(-size[1] // 8)
    assert set(net.sizes) == {(min(size[0], 6), min(size[1], 8))}


class FirstColumn(mx.gluon.HybridBlock):
    """Class 0 scores 1 in each pixel, class 1 scores 1.5 in the first column."""

    def hybrid_forward(self, F, images):
        zero = F.zeros_like(F.slice_axis(images, axis=1, begin=0, end=1))
        first = F.concat(F.ones_like(zero[:, :, :, :1]), zero[:, :, :, 1:], dim=3)
        return F.concat(zero + 1, 1.5 * first, dim=1)


def test_scores_of_overlapping_tiles_are_added():
    """Tiles of 3 columns start at columns 0 and 2 of 5. In column 2, 1 + 1 > 0 + 1.5."""
    image = np.zeros((1, 5, 3), np.uint8)
    np.testing.assert_array_equal(fcn.predict(FirstColumn(), image, (1, 3)), [[1, 0, 0, 0, 0]])
    # Tiles of 2 columns start at columns 0 and 2 of 4, and do not overlap.
    np.testing.assert_array_equal(fcn.predict(FirstColumn(), image[:, :4], (1, 2)), [[1, 0, 1, 0]])


def test_prediction_in_one_tile_equals_that_of_the_network():
    net = make_net(stride=8)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    x = mx.nd.array(normalize_image(image).transpose(2, 0, 1)[None])
    expected = net(x)[0].asnumpy().argmax(axis=0)
    for kind in (image, mx.nd.array(image, dtype=np.uint8), Image.fromarray(image)):
        np.testing.assert_array_equal(fcn.predict(net, kind), expected)
        np.testing.assert_array_equal(fcn.predict(net, kind, tile=(64, 70)), expected)
    left = net(x[:, :, :, :40])[0].asnumpy().argmax(axis=0)
    np.testing.assert_array_equal(fcn.predict(net, image, (50, 40))[:, :30], left[:, :30])


def test_prediction_reads_pillow_images_by_the_rules():
    net = make_net(stride=8)
    for image, pixels in images_and_pixels():
        np.testing.assert_array_equal(fcn.predict(net, image), fcn.predict(net, pixels))


@pytest.mark.parametrize(
    ("shape", "tile", "message"),
    [
        ((8, 8), None, r"image: expected shape \(H, W, 3\), got \(8, 8\)"),
        ((3, 8, 8), None, r"image: expected shape \(H, W, 3\), got \(3, 8, 8\)"),
        ((0, 8, 3), None, r"image: expected shape \(H, W, 3\), got \(0, 8, 3\)"),
        ((8, 8, 3), 8, r"tile: expected \(height, width\), got 8"),
        ((8, 8, 3), (8, 0), "tile: expected an integer in .*, got 0"),
    ],
    ids=["gray", "channels first", "no rows", "tile of one number", "tile of no columns"],
)
def test_bad_image_or_tile_is_rejected(shape, tile, message):
    with pytest.raises(ValueError, match=message):
        fcn.predict(Brightest(), np.zeros(shape, np.uint8), tile)
