"""Fast, Faster and Mask R-CNN: outputs, proposals, pooling, files, detection."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from rcnn_cases import ANCHORS, CLASSES, SIDE, STATIC, make, make_batch, make_fast, make_proposals

from cvops import box_iou
from cvops._mxnet import mxnet
from cvops.models import FasterRCNN, FastRCNN, RCNNDetector, rcnn
from cvops.models.rcnn_blocks import FPN, Backbone

mx = mxnet()
pytestmark = pytest.mark.usefixtures("operators")

# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"mask": True}, {"roi": "pooling"}, {"fpn": True}, {"backbone": "squeezenet"}],
    ids=["faster", "mask", "pooling", "fpn", "squeezenet"],
)
def test_outputs_have_a_row_for_each_proposal(options):
    net = make(**options)
    images, _, _ = make_batch()
    proposals, logits, offsets = net(images)
    assert proposals.shape == (2, 60, 4)
    assert logits.shape == (2, 60, 3)
    assert offsets.shape == (2, 60, 2, 4)
    anchors, scores, moves = net.regions(mx.nd, net.backbone(images))
    assert anchors.shape[1] == scores.shape[1] == moves.shape[1] == net.num_anchors(SIDE, SIDE)


def test_maps_have_the_strides_of_their_backbone():
    """A side of 128 is 32, 16, 8 or 4 cells, or one less for SqueezeNet without padding."""
    data = mx.sym.var("data")
    for name, fpn, strides, sides in [
        ("small", False, [8], [16]),
        ("small", True, [4, 8, 16], [32, 16, 8]),
        ("squeezenet", False, [8], [15]),
        ("squeezenet", True, [4, 8, 16], [31, 15, 7]),
        ("resnet50", False, [16], [8]),
        ("resnet50", True, [4, 8, 16, 32], [32, 16, 8, 4]),
    ]:
        backbone = Backbone(name, fpn)
        shapes = [x.infer_shape(data=(2, 3, 128, 128))[1][0] for x in backbone(data)]
        assert backbone.strides == strides
        assert shapes == [(2, channels, n, n) for channels, n in zip(backbone.channels, sides)]


def test_anchors_are_those_of_multibox_prior():
    net = make()
    images, _, _ = make_batch()
    anchors, _, _ = net.regions(mx.nd, net.backbone(images))
    assert net.num_anchors(SIDE, SIDE) == ANCHORS
    expected = mx.nd.contrib.MultiBoxPrior(
        mx.nd.zeros((1, 1, 8, 8)), sizes=(0.2, 0.32, 0.5), ratios=(1, 2, 0.5)
    )
    np.testing.assert_array_equal(anchors.asnumpy(), expected.asnumpy())


BAD_ARGUMENTS = [
    ({"classes": ()}, "classes: expected one or more names, got ()"),
    ({"side": 63}, "side: expected an integer in [64, 4096], got 63"),
    ({"roi": "crop"}, "roi: expected one of ['align', 'pooling'], got 'crop'"),
    ({"backbone": "vgg"}, "backbone: expected one of ['small', 'squeezenet', 'resnet50'], got"),
    ({"mask": "maybe"}, "mask: expected True or False, got 'maybe'"),
    ({"hidden": 0}, "hidden: expected an integer in"),
    ({"fpn": True, "sizes": (0.2, 0.4)}, "sizes: expected 3, one for each map, got (0.2, 0.4)"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_ARGUMENTS, ids=[next(iter(a)) for a, _ in BAD_ARGUMENTS]
)
def test_bad_argument_of_the_network_is_rejected(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        FasterRCNN(**{"classes": CLASSES, **arguments})


@pytest.mark.parametrize("coarse_size", [(2, 3), (1, 2)], ids=["rounded up", "rounded down"])
def test_pyramid_adds_enlarged_coarse_maps_to_fine_maps(coarse_size):
    """All weights are 1 in the center: the maps are sums over channels of this and coarser maps.

    The last row and column of a coarse map that is too small count again.
    """
    fpn = FPN((2, 3), 1)
    fpn.initialize(mx.init.Zero())
    for layer in fpn.lateral:
        layer.weight.set_data(mx.nd.ones(layer.weight.shape))
    for layer in fpn.smooth:
        center = np.zeros(layer.weight.shape)
        center[..., 1, 1] = 1
        layer.weight.set_data(mx.nd.array(center))
    rng = np.random.default_rng(0)
    fine = rng.random((1, 2, 3, 5), np.float32)
    coarse = rng.random((1, 3, *coarse_size), np.float32)
    first, second = (x.asnumpy() for x in fpn(mx.nd.array(fine), mx.nd.array(coarse)))
    top = coarse.sum(axis=1)
    np.testing.assert_allclose(second[:, 0], top, rtol=1e-5)
    padded = np.pad(top, ((0, 0), (0, 1), (0, 1)), mode="edge")
    enlarged = padded.repeat(2, axis=1).repeat(2, axis=2)[:, :3, :5]
    np.testing.assert_allclose(first[:, 0], fine.sum(axis=1) + enlarged, rtol=1e-5)


# --- pooling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("roi", ["align", "pooling"])
def test_features_of_rois_are_those_of_the_operator_in_pixels(roi):
    """The image is 64 x 96: an x of 1 is pixel 96, a y of 1 is pixel 64."""
    net = make_fast(roi=roi)
    maps = mx.nd.random.uniform(shape=(2, 96, 8, 12))
    boxes = np.array([[(0, 0, 1, 1), (0.25, 0.5, 0.5, 0.75)], [(0.1, 0.1, 0.2, 0.9), (-1,) * 4]])
    images = mx.nd.zeros((2, 3, 64, 96))
    pooled = net.pool(mx.nd, images, [maps], mx.nd.array(boxes), (7, 7))
    pixels = (boxes * (96, 64, 96, 64)).reshape(4, 4)
    rois = mx.nd.array(np.column_stack([[0, 0, 1, 1], pixels]))
    given = {"pooled_size": (7, 7), "spatial_scale": 1 / 8}
    if roi == "align":
        expected = mx.nd.contrib.ROIAlign(maps, rois, sample_ratio=2, **given)
    else:
        expected = mx.nd.ROIPooling(maps, rois, **given)
    np.testing.assert_allclose(pooled.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("roi", ["align", "pooling"])
def test_roi_of_a_pyramid_has_the_features_of_the_map_for_its_size(roi):
    """Each map has its own constant. From 14 cells of 8 or 16 pixels on, the next one is in use."""
    net = make_fast(roi=roi, fpn=True)
    maps = [mx.nd.full((1, 64, 64 >> i, 64 >> i), i + 1) for i in range(3)]
    sides = np.array([8, 111, 113, 223, 225, 250]) / 256
    boxes = np.column_stack([np.zeros((6, 2)), sides, sides])[None]
    images = mx.nd.zeros((1, 3, 256, 256))
    pooled = net.pool(mx.nd, images, maps, mx.nd.array(boxes), (2, 2)).asnumpy()
    for values, expected in zip(pooled, (1, 1, 2, 2, 3, 3)):
        np.testing.assert_allclose(values, expected)


# --- proposals ------------------------------------------------------------------------------------


def random_regions(count=400, batch=2):
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.7, (1, count, 2))
    anchors = np.concatenate([low, low + rng.uniform(0.01, 0.3, (1, count, 2))], axis=2)
    logits, offsets = rng.normal(size=(batch, count)), rng.normal(size=(batch, count, 4))
    return [mx.nd.array(x) for x in (anchors, logits, 2 * offsets)]


def test_proposals_are_sorted_distinct_large_and_inside_the_image():
    net = make()
    anchors, logits, offsets = random_regions()
    boxes = net.propose(mx.nd, anchors, logits, offsets).asnumpy()
    decoded = mx.nd.contrib.box_decode(
        offsets, anchors, 0.1, 0.1, 0.2, 0.2, clip=10.0, format="corner"
    )
    decoded = decoded.asnumpy().clip(0, 1)
    for found, all_boxes, scores in zip(boxes, decoded, logits.asnumpy()):
        found = found[found[:, 0] >= 0]
        assert 20 < len(found) <= 60
        assert found.min() >= 0
        assert found.max() <= 1
        assert (found[:, 2:] - found[:, :2]).min() >= 4 / SIDE
        overlaps = box_iou(found, found) - np.eye(len(found))
        assert overlaps.max() <= 0.7
        distance = np.abs(found[:, None] - all_boxes[None]).max(axis=2)
        assert distance.min(axis=1).max() < 1e-5
        assert (np.diff(scores[distance.argmin(axis=1)]) <= 0).all()


def test_image_with_fewer_proposals_is_padded():
    """All boxes but three are too small."""
    net = make()
    anchors = np.full((1, 80, 4), 0.5)
    anchors[0, :3] = [(0, 0, 0.2, 0.2), (0.3, 0.3, 0.5, 0.9), (0.6, 0, 0.9, 0.3)]
    logits = mx.nd.array(np.arange(80)[None])
    zeros = mx.nd.zeros((1, 80, 4))
    boxes = net.propose(mx.nd, mx.nd.array(anchors), logits, zeros).asnumpy()[0]
    np.testing.assert_allclose(boxes[:3], anchors[0, 2::-1], atol=1e-6)
    assert (boxes[3:] == -1).all()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FasterRCNN, {"mask": True}),
        (FasterRCNN, {"fpn": True, "sizes": (0.1, 0.3, 0.9)}),
        (FastRCNN, {"roi": "pooling"}),
    ],
    ids=["mask", "fpn", "fast"],
)
def test_saved_network_is_loaded_with_its_options(tmp_path, kind, options):
    net = make(kind, **options)
    net.save(tmp_path / "net.params")
    loaded = kind.load(tmp_path / "net.params")
    assert (loaded.classes, loaded.side, loaded.options) == (CLASSES, SIDE, net.options)
    images, labels, _ = make_batch()
    inputs = [images] if kind is FasterRCNN else [images, make_proposals(labels)]
    for one, other in zip(net(*inputs), loaded(*inputs)):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())


def test_load_rejects_bad_files(tmp_path):
    path = tmp_path / "net.params"
    with pytest.raises(FileNotFoundError, match=r"net\.params: no such file"):
        FasterRCNN.load(path)
    make().save(path)
    with pytest.raises(ValueError, match=r"net\.json: does not describe a FastRCNN"):
        FastRCNN.load(path)
    about = path.with_suffix(".json").read_text()
    for text in ("", "[]", about.replace('"align"', '"crop"'), about.replace('"fpn"', '"fps"')):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(ValueError, match=r"net\.json: does not describe a FasterRCNN"):
            FasterRCNN.load(path)
    path.with_suffix(".json").write_text(about.replace('"bee",', ""))
    with pytest.raises(ValueError, match=r"net\.params: not the parameters of a FasterRCNN"):
        FasterRCNN.load(path)


def test_backbone_loads_the_weights_of_the_model_zoo(tmp_path):
    path = tmp_path / "squeezenet.params"
    zoo = mx.gluon.model_zoo.vision.squeezenet1_1()
    zoo.initialize(mx.init.Xavier())
    images = mx.nd.random.uniform(0, 255, (1, 3, SIDE, SIDE))
    zoo(mx.nd.zeros((1, 3, 224, 224)))  # its classifier needs 224 pixels
    zoo.save_parameters(str(path))
    net = make(backbone="squeezenet")
    net.backbone.load_zoo(path)
    mean, std = (
        mx.nd.array(x).reshape((1, 3, 1, 1)) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    features = (images / 255 - mean) / std
    for layer in list(zoo.features)[:8]:
        features = layer(features)
    (given,) = net.backbone(images)
    np.testing.assert_allclose(given.asnumpy(), features.asnumpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(FileNotFoundError, match=r"none\.params: no such file"):
        net.backbone.load_zoo(tmp_path / "none.params")
    path.write_bytes(b"no parameters")
    with pytest.raises(ValueError, match=r"squeezenet\.params: not the parameters of squeezenet"):
        net.backbone.load_zoo(path)
    with pytest.raises(ValueError, match="pretrained: expected a backbone of the model zoo"):
        make().backbone.load_zoo(path)


# --- detection ------------------------------------------------------------------------------------


def given_inputs(net):
    images, labels, _ = make_batch()
    return [images] if isinstance(net, FasterRCNN) else [images, make_proposals(labels)]


DETECTORS = pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FasterRCNN, {}),
        (FasterRCNN, {"mask": True}),
        (FasterRCNN, {"mask": True, "fpn": True}),
        (FastRCNN, {"mask": True, "roi": "pooling"}),
    ],
    ids=["faster", "mask", "mask-fpn", "fast"],
)


def as_arrays(out):
    return [x.asnumpy() for x in (out if isinstance(out, (list, tuple)) else [out])]


@DETECTORS
def test_hybridized_detector_equals_the_plain_one(kind, options):
    net = make(kind, **options)
    detector, inputs = RCNNDetector(net, threshold=0.1), given_inputs(net)
    plain = as_arrays(detector(*inputs))
    detector.hybridize(**STATIC)
    hybrid = as_arrays(detector(*inputs))
    assert len(plain) == len(hybrid) == (2 if net.mask else 1)
    assert (plain[0][..., 0] >= 0).any()
    for one, other in zip(plain, hybrid):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@DETECTORS
def test_detections_are_sorted_and_padded(kind, options):
    """12 proposals, of which one is padding, and two classes give at most 22 detections."""
    net = make(kind, **options)
    rows, *masks = as_arrays(RCNNDetector(net, 0.1, 0.3, most=30)(*given_inputs(net)))
    assert rows.shape == (2, 30, 6)
    for image in rows:
        found = image[: int((image[:, 0] >= 0).sum())]
        assert (image[len(found) :] == -1).all()
        assert set(found[:, 0]) <= {0, 1}
        assert (found[:, 1] >= 0.1).all()
        assert (np.diff(found[:, 1]) <= 0).all()
        assert found[:, 2:].min() >= 0
        assert found[:, 2:].max() <= 1
        for one in (0, 1):
            boxes = np.ascontiguousarray(found[found[:, 0] == one, 2:])
            assert (box_iou(boxes, boxes) - np.eye(len(boxes)) <= 0.3).all()
    if kind is FastRCNN:
        assert (rows[:, 22:] == -1).all()
    for shapes in masks:
        assert shapes.shape == (2, 30, 28, 28)
        assert (shapes[rows[..., 0] < 0] == 0).all()
        assert ((shapes[rows[..., 0] >= 0] > 0) & (shapes[rows[..., 0] >= 0] < 1)).all()


def test_detections_equal_a_reference_for_one_image():
    """All offsets are 0, so boxes are proposals; the logits of two proposals are by hand."""
    net = make_fast()
    proposals = np.array([[(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), (0.5, 0.5, 1, 0.9)]], np.float32)
    logits = np.log([[(0.1, 0.8, 0.1), (0.2, 0.1, 0.7), (0.3, 0.1, 0.6)]])
    net.heads = lambda *_: (mx.nd.array(logits), mx.nd.zeros((1, 3, 2, 4)))
    rows = RCNNDetector(net, 0.15, 0.3, 4)(mx.nd.zeros((1, 3, SIDE, SIDE)), mx.nd.array(proposals))
    expected = [(0, 0.8, 0, 0, 0.5, 0.5), (1, 0.7, 0.5, 0.5, 1, 1), (-1,) * 6, (-1,) * 6]
    np.testing.assert_allclose(rows[0].asnumpy(), expected, rtol=1e-5)


def test_mask_of_a_detection_is_that_of_its_class():
    net = make_fast(mask=True)
    logits = np.log([[(0.1, 0.8, 0.1), (0.2, 0.1, 0.7)]])
    net.heads = lambda *_: (mx.nd.array(logits), mx.nd.zeros((1, 2, 2, 4)))
    net.masks = lambda *_: mx.nd.broadcast_mul(
        mx.nd.array([-3, 2]).reshape((1, 2, 1, 1)), mx.nd.ones((3, 2, 28, 28))
    )
    proposals = mx.nd.array([[(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]])
    rows, masks = RCNNDetector(net, 0.5, 0.3, 3)(mx.nd.zeros((1, 3, SIDE, SIDE)), proposals)
    assert rows[0, :, 0].asnumpy().tolist() == [0, 1, -1]
    expected = 1 / (1 + np.exp(3)), 1 / (1 + np.exp(-2)), 0
    np.testing.assert_allclose(masks[0, :, 5, 7].asnumpy(), expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # SymbolBlock warns about the input
def test_exported_detector_gives_the_same_detections_after_import(tmp_path):
    net = make(mask=True)
    images, _, _ = make_batch()
    detector = RCNNDetector(net, 0.1)
    detector.hybridize(**STATIC)
    expected = as_arrays(detector(images))
    detector.export(str(tmp_path / "detector"))
    block = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "detector-symbol.json"), ["data"], str(tmp_path / "detector-0000.params")
    )
    for one, other in zip(as_arrays(block(images)), expected):
        np.testing.assert_array_equal(one, other)


def test_predict_gives_boxes_and_masks_in_pixels():
    Image = pytest.importorskip("PIL.Image")
    net = make(mask=True)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    square = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE))).transpose(2, 0, 1)[None]
    rows, scores = as_arrays(net.detect(mx.nd.array(square), threshold=0.3))
    kept = rows[0, :, 0] >= 0
    found = rcnn.predict(net, Image.fromarray(pixels), threshold=0.3)
    assert len(found.rows) == kept.sum() > 0
    np.testing.assert_allclose(found.rows[:, :2], rows[0, kept, :2])
    np.testing.assert_allclose(found.rows[:, 2:], rows[0, kept, 2:] * (100, 50, 100, 50), rtol=1e-5)
    assert found.masks.shape == (kept.sum(), 50, 100)
    assert found.masks.dtype == np.uint8
    from cvops.ops.paste_masks import paste_masks

    expected = paste_masks(scores[0, kept], np.ascontiguousarray(found.rows[:, 2:]), (50, 100))
    np.testing.assert_array_equal(found.masks, expected)
    assert rcnn.predict(net, pixels, threshold=1).masks.shape == (0, 50, 100)


def test_predict_of_a_fast_network_needs_proposals():
    pytest.importorskip("PIL")
    net, pixels = make_fast(), np.zeros((50, 100, 3), np.uint8)
    boxes = np.array([(10, 10, 60, 40), (0, 0, 30, 50)], np.float32)
    found = rcnn.predict(net, pixels, 0.1, proposals=boxes)
    assert found.masks is None
    assert found.rows[:, 2:].max() <= 100
    assert rcnn.predict(net, pixels, proposals=boxes[:0]).rows.shape == (0, 6)
    with pytest.raises(ValueError, match=r"proposals: expected proposals \(n, 4\) for a FastRCNN"):
        rcnn.predict(net, pixels)
    with pytest.raises(ValueError, match="proposals: expected no proposals for a FasterRCNN"):
        rcnn.predict(make(), pixels, proposals=boxes)
    with pytest.raises(ValueError, match=r"image: expected uint8 \(height, width, 3\), got float"):
        rcnn.predict(make(), pixels.astype(float))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold: expected a number in \[0, 1\], got 1.5"),
        ({"nms_threshold": None}, "nms_threshold: expected a number, got None"),
        ({"most": 0}, "most: expected an integer in"),
    ],
    ids=["threshold", "nms_threshold", "most"],
)
def test_bad_option_of_the_detector_is_rejected(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        RCNNDetector(make(), **options)
