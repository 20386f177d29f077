"""The transforms of Gluon and the pipelines of the book."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import random

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "skimage")

from cvops import classification
from cvops._mxnet import mxnet
from cvops.classification import TRANSFORMS

mx = mxnet()
transforms = mx.gluon.data.vision.transforms

#: Mean of the channels in gray, by BT.601.
GRAY = np.array([0.299, 0.587, 0.114])


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    mx.random.seed(0)


@pytest.fixture
def image():
    """An image, 48 x 64, whose channels are 60 to 120: no transform of colors saturates it."""
    pixels = np.random.default_rng(0).integers(60, 121, (48, 64, 3), np.uint8)
    return mx.nd.array(pixels, dtype=np.uint8)


def results(name, image, count=200):
    transform = TRANSFORMS[name]
    return [transform(image).asnumpy().astype(np.float64) for _ in range(count)]


def test_transforms_are_those_of_gluons_table():
    assert len(TRANSFORMS) == 15
    for name, transform in TRANSFORMS.items():
        assert type(transform) is getattr(transforms, name)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_keeps_the_promised_shape_and_dtype(name, image):
    """Sizes of the transforms are width, height."""
    others = {
        "Compose": ((3, 48, 48), np.float32),
        "Cast": ((48, 64, 3), np.float32),
        "ToTensor": ((3, 48, 64), np.float32),
        "Normalize": ((3, 48, 64), np.float32),
    }
    given = TRANSFORMS["ToTensor"](image) if name == "Normalize" else image
    found = TRANSFORMS[name](given)
    assert (found.shape, found.dtype) == others.get(name, ((48, 64, 3), np.uint8))


def test_fixed_transforms_compute_their_values(image):
    pixels = image.asnumpy()
    tensor = TRANSFORMS["ToTensor"](image)
    np.testing.assert_allclose(tensor.asnumpy(), pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    normalized = TRANSFORMS["Normalize"](tensor).asnumpy()
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalized, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(TRANSFORMS["Cast"](image).asnumpy(), pixels.astype(np.float32))
    wide = mx.nd.concat(image, image, dim=1)
    center = TRANSFORMS["CenterCrop"](wide).asnumpy()
    np.testing.assert_array_equal(center, wide.asnumpy()[:, 32:96])
    level = mx.nd.full((30, 20, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(TRANSFORMS["Resize"](level).asnumpy(), np.full((48, 64, 3), 77))
    both = TRANSFORMS["Compose"](image).asnumpy()
    resized = transforms.Resize(48)(image).asnumpy()
    np.testing.assert_allclose(both, resized.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize(("name", "axis"), [("RandomFlipLeftRight", 1), ("RandomFlipTopBottom", 0)])
def test_flip_mirrors_half_of_the_images_exactly(name, axis, image):
    pixels = image.asnumpy()
    mirrored = np.flip(pixels, axis)
    flipped = [np.array_equal(found, mirrored) for found in results(name, image)]
    kept = [np.array_equal(found, pixels) for found in results(name, image)]
    for count in (sum(flipped), sum(kept)):
        assert 70 <= count <= 130  # 100 of 200, within more than four standard deviations
    assert all(
        np.array_equal(found, pixels) or np.array_equal(found, mirrored)
        for found in results(name, image)
    )


def test_crop_has_random_area_shape_and_place(image):
    """The image has its column in red and its row in green: a crop shows its corners."""
    columns, rows = np.meshgrid(np.arange(64) * 3, np.arange(48) * 3)
    place = mx.nd.array(np.stack([columns, rows, rows], axis=2), dtype=np.uint8)
    found = np.array(results("RandomResizedCrop", place))
    assert found.shape == (200, 48, 64, 3)
    widths = (found[:, 0, -1, 0] - found[:, 0, 0, 0]) / 3 / 64
    heights = (found[:, -1, 0, 1] - found[:, 0, 0, 1]) / 3 / 48
    areas = widths * heights
    assert 0.06 <= areas.min() < 0.2
    assert 0.8 < areas.max() <= 1
    assert len({(x, y) for x, y in found[:, 0, 0, :2]}) > 50
    assert (widths > heights).any()
    assert (widths < heights).any()


def ratio(found, image):
    return np.median(found / image.asnumpy(), axis=(0, 1, 2))


def test_brightness_scales_all_channels_by_half_to_three_halves(image):
    factors = np.array([ratio(found, image) for found in results("RandomBrightness", image)])
    assert 0.49 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5
    for found in results("RandomBrightness", image, 20):
        np.testing.assert_allclose(found, ratio(found, image) * image.asnumpy(), atol=1.6)


def test_contrast_keeps_the_mean_gray(image):
    mean = (image.asnumpy() @ GRAY).mean()
    spreads = []
    for found in results("RandomContrast", image):
        assert (found @ GRAY).mean() == pytest.approx(mean, abs=1.5)
        spreads.append(found.std() / image.asnumpy().std())
    assert 0.49 <= min(spreads) < 0.6
    assert 1.4 < max(spreads) <= 1.52


def test_saturation_of_mxnet_scales_all_channels(image):
    """MXNet 1.9.1 adds no gray, so that the saturation stays: a fault of its operator."""
    factors = []
    for found in results("RandomSaturation", image):
        factors.append(ratio(found, image))
        np.testing.assert_allclose(found, factors[-1] * image.asnumpy(), atol=4)  # rounding
    assert 0.48 <= min(factors) < 0.6
    assert 1.4 < max(factors) <= 1.5


def test_hue_changes_colors_and_keeps_gray_pixels(image):
    mx.random.seed(0)
    changes = [np.abs(found - image.asnumpy()).mean() for found in results("RandomHue", image)]
    assert max(changes) > 10
    level = mx.nd.full((4, 4, 3), 90, dtype=np.uint8)
    for found in results("RandomHue", level, 20):
        np.testing.assert_allclose(found, 90, atol=2)


def test_lighting_adds_one_color_to_all_pixels(image):
    shifts = []
    for found in results("RandomLighting", image, 50):
        shift = found - image.asnumpy()
        assert np.ptp(shift, axis=(0, 1)).max() <= 1  # rounding
        shifts.append(shift.mean(axis=(0, 1)))
    assert np.std(shifts, axis=0).min() > 1


def test_color_jitter_changes_brightness_and_color():
    red = np.zeros((4, 4, 3), np.uint8) + np.array([120, 60, 60], np.uint8)
    found = np.array(results("RandomColorJitter", mx.nd.array(red, dtype=np.uint8)))
    means = found.mean(axis=(1, 2))
    assert np.std(means @ GRAY) > 10
    reddest = means.argmax(axis=1)
    assert min(np.bincount(reddest, minlength=3)) > 20  # each hue of the three channels


def test_seeds_repeat_the_random_numbers(image):
    def copies():
        random.seed(5)
        mx.random.seed(5)
        return [augs(image).asnumpy() for augs in classification.pipelines(48).values()]

    for first, second in zip(copies(), copies()):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", classification.pipelines())
def test_pipeline_gives_a_tensor_of_0_to_1(name):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = mx.nd.array(pixels, dtype=np.uint8)
    found = [classification.pipelines(32)[name](image).asnumpy() for _ in range(8)]
    for tensor in found:
        assert (tensor.shape, tensor.dtype) == ((3, 32, 32), np.float32)
        assert 0 <= tensor.min() < tensor.max() <= 1
    assert all(np.array_equal(tensor, found[0]) for tensor in found) is (name == "none")


def test_books_crop_becomes_200_x_200(image):
    assert classification.shape_aug(image).shape == (200, 200, 3)


def test_pipelines_of_fine_tuning_normalize_the_colors(image):
    level = mx.nd.full((60, 90, 3), 255, dtype=np.uint8)
    white = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    for augs in classification.finetune_augs(28):
        found = augs(level).asnumpy()
        assert found.shape == (3, 28, 28)
        np.testing.assert_allclose(found, np.broadcast_to(white[:, None, None], (3, 28, 28)), 1e-5)
    _, augs = classification.finetune_augs(28)
    np.testing.assert_array_equal(augs(image).asnumpy(), augs(image).asnumpy())
    # The test pipeline shows the middle 7 / 8 of the image in each direction.
    columns = mx.nd.array(
        np.tile(np.arange(128)[:, None], (1, 3))[None].repeat(128, 0), dtype="uint8"
    )
    shown = augs(columns).asnumpy()[0, 0] * 0.229 * 255 + 0.485 * 255
    np.testing.assert_allclose(shown[[0, -1]], [8 + 1.5, 120 - 2.5], atol=1)


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.4), (0.5, 1.5), (0.5,)])
def test_bad_scale_is_rejected(scale):
    with pytest.raises(ValueError, match="scale: expected"):
        classification.finetune_augs(28, scale)
