"""The TinySSD: outputs, parameters, files, detection."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from ssd_cases import SIDE, STATIC, make, make_batch

from cvops._mxnet import mxnet
from cvops.models import Detector, TinySSD, tiny_ssd

mx = mxnet()

# --- the network ----------------------------------------------------------------------------------


def test_outputs_have_the_shapes_of_the_book(ops):
    """The maps have sides 32, 16, 8, 4, 1: (1024 + 256 + 64 + 16 + 1) * 4 = 5444 anchors."""
    anchors, classes, offsets = make(ops)(mx.nd.zeros((2, 3, 256, 256)))
    assert anchors.shape == (1, 5444, 4)
    assert classes.shape == (2, 5444, 3)
    assert offsets.shape == (2, 5444 * 4)


def test_first_anchor_equals_the_value_by_hand():
    """Its center is (0.5, 0.5) / 8, its side is 0.2."""
    anchors, _, _ = make()(make_batch()[0])
    np.testing.assert_allclose(
        anchors[0, 0].asnumpy(), [0.0625 - 0.1, 0.0625 - 0.1, 0.0625 + 0.1, 0.0625 + 0.1], atol=1e-7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "classes: expected one or more names, got ()"),
        (("bee",), "classes: expected one or more names, got 'bee'"),
        (((1, 2),), "classes: expected one or more names, got (1, 2)"),
        ((2,), "classes: expected one or more names, got 2"),
        ((("bee",), 63), "side: expected an integer in [64, 4096], got 63"),
        ((("bee",), 64.5), "side: expected an integer, got 64.5"),
        ((("bee",), 64, "torch"), "ops: expected one of ['cvops', 'mxnet'], got 'torch'"),
    ],
    ids=["no classes", "text", "numbers", "number", "side 63", "side 64.5", "torch"],
)
def test_bad_argument_of_the_network_is_rejected(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        TinySSD(*arguments)


def test_parameters_load_into_a_network_with_the_other_ops(operators, tmp_path):
    ours, theirs = make("cvops", seed=1), make("mxnet", seed=2)

    def names(net):
        return [name[len(net.prefix) :] for name in net.collect_params()]

    assert names(ours) == names(theirs)
    theirs.save(tmp_path / "net.params")
    images, _ = make_batch()
    loaded = TinySSD.load(tmp_path / "net.params", "cvops")
    assert (loaded.ops, loaded.classes, loaded.side) == ("cvops", ("bee", "frog"), SIDE)
    for our, their in zip(loaded(images), theirs(images)):
        np.testing.assert_array_equal(our.asnumpy(), their.asnumpy())


def test_load_rejects_bad_files(tmp_path):
    net = make()
    path = tmp_path / "net.params"
    with pytest.raises(FileNotFoundError, match=r"net\.params: no such file"):
        TinySSD.load(path, "mxnet")
    net.save(path)
    about = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(about.replace("bee", "bee, wasp").replace("64", "1"))
    with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
        TinySSD.load(path, "mxnet")
    for text in ("", "[]", "[" * 100000, about.replace("64", "64.5")):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(ValueError, match=r"net\.json: does not describe a TinySSD"):
            TinySSD.load(path, "mxnet")
    path.with_suffix(".json").write_text(about.replace('"bee",', ""))
    with pytest.raises(ValueError, match=r"net\.params: not the parameters of a TinySSD"):
        TinySSD.load(path, "mxnet")


# --- detection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True], ids=["plain", "hybridized"])
def test_both_sets_of_ops_give_the_same_detections(operators, hybrid):
    images, _ = make_batch()
    found = []
    for ops in ("cvops", "mxnet"):
        detector = Detector(make(ops), threshold=0.35)
        if hybrid:
            detector.hybridize(**STATIC)
        found.append(detector(images).asnumpy())
    assert found[0].shape == (3, 344, 6)
    assert (found[0][..., 0] >= 0).any()
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # SymbolBlock warns about the input
def test_exported_detector_gives_the_same_detections_after_import(ops, tmp_path):
    images, _ = make_batch()
    detector = Detector(make(ops), threshold=0.3)
    detector.hybridize(**STATIC)
    expected = detector(images).asnumpy()
    detector.export(str(tmp_path / "detector"))
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "detector-symbol.json"), ["data"], str(tmp_path / "detector-0000.params")
    )
    np.testing.assert_array_equal(block(images).asnumpy(), expected)
    assert ("cvops_MultiBoxDetection" in (tmp_path / "detector-symbol.json").read_text()) == (
        ops == "cvops"
    )


def test_predict_gives_the_detections_in_pixels(ops):
    """An image of 100 x 50 is resized to a square. The boxes are in pixels of 100 x 50."""
    Image = pytest.importorskip("PIL.Image")
    net = make(ops)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    image = Image.fromarray(pixels)
    square = np.asarray(image.resize((SIDE, SIDE))).transpose(2, 0, 1)[None]
    expected = net.detect(mx.nd.array(square), threshold=0.35)[0].asnumpy()
    expected = expected[expected[:, 0] >= 0]
    rows = tiny_ssd.predict(net, image, threshold=0.35)
    assert rows.shape == (len(expected), 6)
    assert len(rows) > 0
    assert rows.dtype == np.float32
    assert (rows[:, 1] >= 0.35).all()
    np.testing.assert_array_equal(rows[:, :2], expected[:, :2])
    np.testing.assert_allclose(rows[:, 2:], expected[:, 2:] * (100, 50, 100, 50), rtol=1e-6)
    for other in (pixels, mx.nd.array(pixels, dtype=np.uint8)):
        np.testing.assert_array_equal(tiny_ssd.predict(net, other, threshold=0.35), rows)
    assert tiny_ssd.predict(net, image, threshold=1).shape == (0, 6)


def test_predict_reads_pillow_images_by_the_rules(ops):
    Image = pytest.importorskip("PIL.Image")
    from image_cases import images_and_pixels

    net = make(ops)
    for image, pixels in images_and_pixels():
        expected = tiny_ssd.predict(net, pixels, threshold=0.35)
        np.testing.assert_array_equal(tiny_ssd.predict(net, image, threshold=0.35), expected)
    odd = Image.fromarray(np.full((50, 100), 2, np.float32))
    with pytest.raises(ValueError, match="image: expected float pixels of 0 to 1"):
        tiny_ssd.predict(net, odd)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 50, 100), np.uint8), ((50, 100), np.uint8), ((5, 5, 3), np.float32)],
    ids=["channels first", "gray", "float32"],
)
def test_image_of_another_shape_or_type_is_rejected(shape, dtype):
    pytest.importorskip("PIL")
    message = f"image: expected uint8 (height, width, 3), got {np.dtype(dtype)} {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_ssd.predict(make(), np.zeros(shape, dtype))
