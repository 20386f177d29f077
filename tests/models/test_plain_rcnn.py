"""R-CNN with linear SVMs: crops, samples, fitting, detection."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import sys

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "sklearn", "PIL")

from cvops import box_decode
from cvops._mxnet import mxnet
from cvops.models import RCNN, plain_rcnn
from cvops.models.plain_rcnn import CropFeatures, Samples, crops_of

mx = mxnet()

# --- crops and samples ----------------------------------------------------------------------------


def test_crops_have_the_pixels_of_their_boxes():
    """The crop of a box of 4 x 4 pixels has each pixel four times. Others are cut at the border."""
    image = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    crops = crops_of(image, np.array([(3, 2, 7, 6), (0, 0, 12, 10), (-5, 9.6, 40, 90)]), 4)
    assert crops.shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(crops[0], image[2:6, 3:7].transpose(2, 0, 1))
    assert np.abs(crops[1].mean(axis=(1, 2)) - image.mean(axis=(0, 1))).max() < 12
    assert np.abs(crops[2].mean(axis=(1, 2)) - image[9].mean(axis=0)).max() < 12
    assert crops_of(image, np.zeros((0, 4)), 4).shape == (0, 3, 4, 4)


def test_samples_are_objects_close_proposals_and_background():
    """The IoUs of the proposals with the first object are 1, 0.64, 0.5 and 0."""
    image = np.zeros((40, 40, 3), np.uint8)
    labels = np.array([(1, 0, 0, 10, 10), (0, 20, 20, 30, 30), (-1,) * 5], np.float32)
    boxes = np.array([(0, 0, 10, 10), (0, 0, 8, 8), (0, 0, 10, 5), (30, 0, 40, 10)], np.float32)
    samples = Samples([image], [labels], [boxes], side=8)
    assert samples.crops.shape == (5, 3, 8, 8)
    assert samples.kinds.tolist() == [1, 0, 1, 1, -1]
    starts = np.concatenate([labels[:2, 1:], boxes[:2]])
    back = box_decode(samples.offsets[None, :4], starts[None], 0.1, 0.1, 0.2, 0.2, format="corner")
    np.testing.assert_allclose(back[0], labels[[0, 1, 0, 0], 1:], atol=1e-4)
    assert (samples.offsets[4] == 0).all()


def test_image_without_objects_gives_background_only():
    boxes = np.tile(np.array([(0, 0, 10, 10)], np.float32), (40, 1))
    samples = Samples([np.zeros((40, 40, 3), np.uint8)], [np.full((1, 5), -1)], [boxes], side=8)
    assert samples.kinds.tolist() == [-1] * 24


def test_unequal_numbers_of_images_are_rejected():
    with pytest.raises(ValueError, match="images, labels, proposals: expected equal lengths"):
        Samples([np.zeros((8, 8, 3), np.uint8)], [], [])
    with pytest.raises(ValueError, match="images: expected one image or more, got none"):
        Samples([], [], [])


# --- fitting and detection ------------------------------------------------------------------------


class Colors(mx.gluon.HybridBlock):
    """Features by hand: the mean of each channel. One parameter gives the device."""

    def __init__(self):
        super().__init__()
        self.scale = self.params.get("scale", shape=(1,), init="ones")

    def hybrid_forward(self, F, crops, scale):
        means = F.mean(F.cast(crops, "float32"), axis=(2, 3)) / 255
        return F.broadcast_mul(means, scale)


def scenes(count, seed):
    """Images with a red object (class 0) and a blue one (class 1), with proposals around them."""
    rng = np.random.default_rng(seed)
    images, labels, boxes = [], [], []
    for _ in range(count):
        image = np.full((40, 80, 3), 90, np.uint8)
        rows, found = [], []
        for kind in (0, 1):
            x, y = rng.integers(0, 20) + 40 * kind, rng.integers(0, 20)
            image[y : y + 18, x : x + 18, 2 * kind] = 250
            rows.append((kind, x, y, x + 18, y + 18))
            found += [(x, y, x + 18, y + 18), (x + 1, y, x + 18, y + 18)]
        found += [(0, 0, 80, 40), (38, 0, 42, 40), (0, 36, 80, 40)]
        images.append(image)
        labels.append(np.array(rows, np.float32))
        boxes.append(np.array(found, np.float32))
    return images, labels, boxes


@pytest.fixture(scope="module")
def fitted():
    features = Colors()
    features.initialize()
    net = RCNN(features, ("red", "blue"), 8)
    return net.fit(Samples(*scenes(6, 0), side=8), c=10, alpha=1)


def test_fitted_network_finds_each_object_once(fitted):
    for image, labels, boxes in zip(*scenes(4, 1)):
        rows = fitted.predict(image, boxes)
        assert rows.dtype == np.float32
        assert sorted(rows[:, 0]) == [0, 1]
        assert (np.diff(rows[:, 1]) <= 0).all()
        assert (rows[:, 1] >= 0.5).all()
        for row in rows:
            np.testing.assert_allclose(row[2:], labels[int(row[0]), 1:], atol=1.5)
    assert len(fitted.predict(image, boxes, threshold=0)) > 2
    assert fitted.predict(image, boxes[:0]).shape == (0, 6)


def test_features_of_many_crops_are_those_of_each_crop(fitted):
    crops = np.random.default_rng(0).integers(0, 256, (150, 3, 8, 8), np.uint8)
    expected = crops.mean(axis=(2, 3)) / 255
    np.testing.assert_allclose(fitted.features_of(crops), expected, rtol=1e-5)


def test_detection_before_fitting_is_rejected():
    net = RCNN(Colors(), ("red", "blue"))
    with pytest.raises(RuntimeError, match="predict: expected a call of fit before it"):
        net.predict(np.zeros((8, 8, 3), np.uint8), np.zeros((1, 4)))


def test_missing_scikit_learn_is_reported_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r'sklearn.: pip install "cvops\[rcnn\]"'):
        plain_rcnn.require_sklearn()


def test_class_without_samples_is_rejected():
    features = Colors()
    features.initialize()
    samples = Samples(*scenes(2, 0), side=8)
    with pytest.raises(ValueError, match="samples: expected samples of 'green' and others, got 0"):
        RCNN(features, ("red", "blue", "green"), 8).fit(samples)
    with pytest.raises(ValueError, match="classes: expected one or more names"):
        RCNN(features, ())


def test_crop_features_have_their_length():
    features = CropFeatures(16, 10)
    features.initialize()
    assert features(mx.nd.zeros((2, 3, 16, 16), dtype=np.uint8)).shape == (2, 10)
    with pytest.raises(ValueError, match="side: expected a multiple of 8, got 20"):
        plain_rcnn.CropFeatures(20)
