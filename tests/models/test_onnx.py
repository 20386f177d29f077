"""Models of ONNX: their results in ONNX Runtime, their form, errors, the command."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import json
import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "onnx", "onnxruntime")

import onnx
import onnxruntime

import cvops
import cvops.onnx
from cvops import cli
from cvops._mxnet import mxnet
from cvops.models import FCN, FasterRCNN, FastRCNN, TinySSD, fcn
from cvops.onnx.graph import Graph
from cvops.onnx.operators import CONVERTERS, Call

mx = mxnet()
SIDE = 64
NAMES = ("bee", "frog", "newt")

# --- helpers --------------------------------------------------------------------------------------


def initialized(net, seed=0, gain=1):
    """The network with random parameters, also those that begin as 0 or 1."""
    mx.random.seed(seed)
    net.initialize(mx.init.Xavier(magnitude=3 * gain))
    net(mx.nd.zeros((1, 3, SIDE, SIDE)))  # the shapes of all parameters
    rng = np.random.default_rng(seed)
    ranges = {"running_mean": (-0.2, 0.2), "running_var": (0.5, 2), "gamma": (0.5, 1.5)}
    ranges |= {"bias": (-0.3, 0.3), "beta": (-0.3, 0.3)}
    for name, parameter in net.collect_params().items():
        for end, limits in ranges.items():
            if name.endswith(end):
                parameter.set_data(mx.nd.array(rng.uniform(*limits, parameter.shape)))
    return net


def spread(layer, scores):
    """Change the layer whose results are ``scores``, so that no class is the best one everywhere.

    ``scores`` are (rows, classes). They then have a mean of 0 and a deviation of about 2.
    """
    scores = scores.asnumpy()
    scale, mean = 2 / scores.std(axis=0).mean(), mx.nd.array(scores.mean(axis=0))
    layer.bias.set_data((layer.bias.data() - mean) * scale)
    layer.weight.set_data(layer.weight.data() * scale)


def make_images(count=2, height=SIDE, width=SIDE, seed=0):
    """Images with large areas, so that the cells of a map differ."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 3, 8, 8))
    y, x = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    return coarse[:, :, y][..., x].astype(np.float32)


def normalized(images):
    return mx.nd.array(fcn.normalize_image(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def exported(net, tmp_path, **options):
    path = tmp_path / "model.onnx"
    cvops.onnx.export(net, path, **options)
    return session(str(path))


def run_operator(name, arrays, num_classes=0, **options):
    """The result of a converter in ONNX Runtime, for arrays of one image or of one batch."""
    graph = Graph(num_classes)
    names = [f"input{i}" for i in range(len(arrays))]
    call = Call(names, [x.shape for x in arrays], options)
    value = CONVERTERS[name](graph, call)
    inputs = {name: x.shape for name, x in zip(names, arrays)}
    rank = len(graph_rank(name, arrays))
    outputs = {"out": (value, np.float32, [None] * rank)}
    model = graph.model(inputs, outputs, name, "0", {})
    [out] = session(model.SerializeToString()).run(None, dict(zip(names, arrays)))
    return out


def graph_rank(name, arrays):
    return range(4 if "ROI" in name else arrays[0].ndim)


# --- operators ------------------------------------------------------------------------------------


def grid_boxes(rng, batch, count):
    """Boxes whose corners are multiples of 1/8. Many of their IoUs are 1/3 or 1/2."""
    low = rng.integers(0, 3, (batch, count, 2))
    high = low + rng.integers(0, 3, (batch, count, 2))  # some are empty
    return (np.concatenate([low, high], axis=2) / 8).astype(np.float32)


@pytest.mark.parametrize("nms_threshold", [1 / 3, 0.5, 1], ids=["IoU 1/3", "IoU 1/2", "IoU 1"])
@pytest.mark.parametrize("seed", range(3))
def test_multibox_detection_has_the_rows_of_cvops_with_ties(seed, nms_threshold):
    """Scores are multiples of 1/4. An IoU at the threshold suppresses."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (2, 4, 60)).astype(np.float32) / 4
    anchors, offsets = grid_boxes(rng, 1, 60), np.zeros((2, 240), np.float32)
    options = {"threshold": 0.5, "nms_threshold": nms_threshold}
    expected = cvops.multibox_detection(scores, offsets, anchors, **options)
    found = run_operator("_contrib_cvops_MultiBoxDetection", [scores, offsets, anchors], **options)
    np.testing.assert_array_equal(found, expected)
    # The cases are there: kept, suppressed, below the threshold.
    kinds, marks = expected[..., 0], expected[..., 1]
    assert (kinds >= 0).any()
    assert ((kinds < 0) & (marks > 0)).any()
    assert (marks < 0).any()


def test_multibox_detection_decodes_offsets(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, (2, 3, 40)).astype(np.float32)
    anchors = grid_boxes(rng, 1, 40)
    offsets = rng.normal(0, 2, (2, 160)).astype(np.float32)
    arrays = [scores, offsets, anchors]
    for options in ({}, {"clip": False, "variances": (0.2, 0.1, 0.3, 0.4)}):
        expected = cvops.multibox_detection(*arrays, **options)
        found = run_operator("_contrib_MultiBoxDetection", arrays, **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_box_nms_has_the_rows_of_cvops_with_ties(seed):
    """An IoU at the threshold does not suppress."""
    rng = np.random.default_rng(seed)
    rows = np.empty((2, 50, 6), np.float32)
    rows[..., 0] = rng.integers(0, 3, (2, 50))
    rows[..., 1] = rng.integers(0, 5, (2, 50)) / 4
    rows[..., 2:] = grid_boxes(rng, 2, 50)
    options = {"overlap_thresh": 1 / 3, "valid_thresh": 0.25, "id_index": 0}
    expected = cvops.box_nms(rows, **options)
    found = run_operator("_contrib_cvops_box_nms", [rows], num_classes=3, **options)
    np.testing.assert_array_equal(found, expected)
    assert 0 < (expected[..., 0] >= 0).sum() < (rows[..., 1] > 0.25).sum()


@pytest.mark.parametrize(("topk", "post_nms"), [(30, 8), (1000, -1)])
def test_multiclass_nms_has_the_rows_of_cvops_with_ties(topk, post_nms):
    rng = np.random.default_rng(0)
    boxes = grid_boxes(rng, 2, 50)
    scores = (rng.integers(0, 9, (2, 1, 50)) / 8).astype(np.float32)
    options = {"overlap_thresh": 0.5, "valid_thresh": 0, "topk": topk, "post_nms": post_nms}
    expected, counts = cvops.multiclass_nms(boxes, scores, **options)
    found = run_operator("_contrib_cvops_multiclass_nms", [boxes, scores], **options)
    np.testing.assert_array_equal(found, expected)
    assert (counts > 0).all()


@pytest.mark.parametrize("format", ["corner", "center"])
def test_box_decode_has_the_boxes_of_cvops(format):
    rng = np.random.default_rng(0)
    offsets, anchors = rng.normal(0, 3, (2, 30, 4)).astype(np.float32), grid_boxes(rng, 1, 30)
    options = {"std0": 0.1, "std1": 0.2, "std2": 0.3, "std3": 0.4, "clip": 0.5, "format": format}
    expected = cvops.box_decode(offsets, anchors, **options)
    found = run_operator("_contrib_cvops_box_decode", [offsets, anchors], **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["ROIAlign", "ROIPooling"])
def test_pooled_features_are_those_of_cvops(name):
    """A roi of a negative image has features of 0. One roi is of -1: padding."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 9, 11)).astype(np.float32)
    low = rng.uniform(0, 50, (20, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 40, (20, 2))], axis=1)
    rois = np.c_[rng.integers(-1, 2, 20), boxes].astype(np.float32)
    rois[0, 1:] = -1
    options = {"pooled_size": (3, 2), "spatial_scale": 1 / 8}
    if name == "ROIAlign":
        options["sample_ratio"] = 2
        expected = cvops.roi_align(features, rois, **options)
    else:
        expected = cvops.roi_pooling(features, rois, **options)
    found = run_operator(f"_contrib_cvops_{name}", [features, rois], **options)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not found[rois[:, 0] < 0].any()
    assert found[rois[:, 0] >= 0].any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("_contrib_cvops_MultiBoxDetection", {"nms_threshold": 0}),
        ("_contrib_cvops_MultiBoxDetection", {"force_suppress": True}),
        ("_contrib_cvops_MultiBoxDetection", {"nms_topk": 5}),
        ("_contrib_cvops_box_nms", {}),  # without classes
        ("_contrib_cvops_ROIAlign", {"aligned": True, "spatial_scale": 1, "pooled_size": (2, 2)}),
        ("UpSampling", {"sample_type": "bilinear"}),
        ("Reshape", {"shape": (0, -2)}),
    ],
)
def test_options_without_an_equivalent_are_refused(name, options):
    shapes = [(1, 2, 6), (1, 24), (1, 6, 4)]
    call = Call(["a", "b", "c"][: 2 if "ROI" in name else 3], shapes, options)
    with pytest.raises(NotImplementedError):
        CONVERTERS[name](Graph(1), call)


# --- networks -------------------------------------------------------------------------------------


def check_detections(found, expected):
    """The same rows: classes and padding are equal, scores and corners are close."""
    np.testing.assert_array_equal(found[..., 0], expected[..., 0])
    np.testing.assert_allclose(found[..., 1:], expected[..., 1:], atol=1e-4)
    assert len(np.unique(expected[..., 0])) >= 2
    assert np.ptp(expected[..., 1][expected[..., 0] >= 0]) > 0.1


@pytest.fixture(scope="module")
def ssd():
    """Networks by seed."""
    return [initialized(TinySSD(NAMES, SIDE), seed) for seed in range(3)]


@pytest.mark.parametrize("seed", range(3))
def test_model_of_a_tiny_ssd_has_its_detections(ssd, tmp_path, seed):
    """The number of images is free."""
    runtime = exported(ssd[seed], tmp_path)
    for count in (1, 3):
        images = make_images(count, seed=seed)
        [found] = runtime.run(None, {"images": images})
        expected = ssd[seed].detect(mx.nd.array(images)).asnumpy()
        check_detections(found, expected)
        assert ((expected[..., 0] < 0) & (expected[..., 1] > 0)).any()  # suppressed ones


def test_thresholds_are_those_of_the_arguments(ssd, tmp_path):
    images = make_images()
    runtime = exported(ssd[0], tmp_path, threshold=0.4, nms_threshold=0.1)
    [found] = runtime.run(None, {"images": images})
    expected = ssd[0].detect(mx.nd.array(images), 0.4, 0.1).asnumpy()
    check_detections(found, expected)
    other = ssd[0].detect(mx.nd.array(images)).asnumpy()
    assert (other[..., 0] >= 0).sum() != (expected[..., 0] >= 0).sum()


def test_model_of_another_size_has_the_anchors_of_that_size(ssd, tmp_path):
    images = make_images(2, 96, 128)
    [found] = exported(ssd[1], tmp_path, size=(96, 128)).run(None, {"images": images})
    check_detections(found, ssd[1].detect(mx.nd.array(images)).asnumpy())


def test_network_with_operators_of_mxnet_has_the_same_model(ssd, tmp_path):
    path = tmp_path / "net.params"
    ssd[0].save(path)
    for ops in ("cvops", "mxnet"):
        cvops.onnx.export(TinySSD.load(path, ops), tmp_path / ops)
    assert (tmp_path / "cvops").read_bytes() == (tmp_path / "mxnet").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"mask": True},
        {"roi": "pooling"},
        {"fpn": True, "mask": True},
        {"backbone": "squeezenet", "fpn": True, "hidden": 32},
    ],
)
def test_model_of_a_faster_rcnn_has_its_detections(tmp_path, options):
    net = initialized(FasterRCNN(NAMES, SIDE, **options), 3)
    # The weights of these layers are small at first, so that all rows are alike.
    for head in (net.rpn.objects, net.rpn.offsets, net.box_head.offsets):
        head.weight.set_data(head.weight.data() * 30)
    _, logits, _ = net(mx.nd.array(make_images(3)))
    spread(net.box_head.classes, logits.reshape((-1, 4)))
    runtime = exported(net, tmp_path, threshold=0.3)
    for count in (1, 3):
        images = make_images(count)
        expected = net.detect(mx.nd.array(images), threshold=0.3)
        found = runtime.run(None, {"images": images})
        if net.mask:
            expected, masks = expected
            np.testing.assert_allclose(found[1], masks.asnumpy(), atol=1e-4)
            assert np.ptp(masks.asnumpy()) > 0.1
        check_detections(found[0], expected.asnumpy())


@pytest.mark.parametrize(
    ("stride", "upsample"),
    [
        (8, "bilinear"),
        (32, "transposed"),
        pytest.param(8, "transposed", marks=pytest.mark.slow),
        pytest.param(32, "bilinear", marks=pytest.mark.slow),
    ],
)
def test_model_of_an_fcn_has_its_scores_at_any_size(tmp_path, stride, upsample):
    net = initialized(FCN(5, upsample, stride), 1)
    for score in net.skip_scores:
        score.initialize(mx.init.Xavier(), force_reinit=True)
    for _ in range(2):  # the other layers add to the scores
        maps = net(normalized(make_images(1)))
        spread(net.score, maps.transpose((0, 2, 3, 1)).reshape((-1, 5)))
    runtime = exported(net, tmp_path)
    assert runtime.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for height, width in ((SIDE, SIDE), (45, 77)):
        images = make_images(1, height, width)
        expected = net(normalized(images)).asnumpy()
        scores, classes = runtime.run(["scores", "classes"], {"images": images})
        np.testing.assert_allclose(scores, expected, atol=1e-4)
        np.testing.assert_array_equal(classes, expected.argmax(axis=1))
        assert len(np.unique(classes)) >= 2


# --- the file -------------------------------------------------------------------------------------


def test_model_states_its_arguments_and_uses_standard_operators(ssd, tmp_path):
    path = tmp_path / "model.onnx"
    cvops.onnx.export(ssd[0], path, threshold=0.25)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {x.domain: x.version for x in model.opset_import} == {"": 13}
    assert {node.domain for node in model.graph.node} == {""}
    assert (model.producer_name, model.producer_version) == ("cvops", cvops.__version__)
    about = {x.key: x.value for x in model.metadata_props}
    assert json.loads(about.pop("classes")) == list(NAMES)
    assert about == {"model": "TinySSD", "side": "64", "threshold": "0.25", "nms_threshold": "0.3"}
    stored = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    weight = ssd[0].class_heads[0].weight.data().asnumpy()
    np.testing.assert_array_equal(stored["class_heads.0.weight"], weight)


def test_sizes_of_the_model_are_those_of_the_arguments(ssd, tmp_path):
    def shapes(runtime):
        return [x.shape for x in (*runtime.get_inputs(), *runtime.get_outputs())]

    # Maps of 8 x 8, 4 x 4, 2 x 2, 1 and 1 cells with 4 anchors: 344.
    free = [["batch", 3, SIDE, SIDE], ["batch", 344, 6]]
    assert shapes(exported(ssd[0], tmp_path)) == free
    assert shapes(exported(ssd[0], tmp_path, batch=2)) == [[2, 3, SIDE, SIDE], [2, 344, 6]]
    fixed = [[1, 3, 40, 50], [1, 5, 40, 50], [1, 40, 50]]
    assert shapes(exported(initialized(FCN(5)), tmp_path, batch=1, size=(40, 50))) == fixed


def test_networks_with_equal_parameters_have_equal_files(tmp_path):
    for name in "ab":
        cvops.onnx.export(initialized(TinySSD(NAMES, SIDE)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, ValueError, "batch: expected an integer in [1,"),
        ({"batch": "some"}, TypeError, "batch: expected an integer, got 'some'"),
        ({"size": (64,)}, ValueError, "size: expected (height, width), got (64,)"),
        ({"size": (64, 8)}, ValueError, "size: expected an integer in [64,"),
        ({"size": (64, 5000)}, ValueError, "size: expected at most 4096 pixels, got (64, 5000)"),
        ({"threshold": 2}, ValueError, "threshold: expected a number in [0, 1], got 2"),
        ({"nms_threshold": 0}, ValueError, "nms_threshold: expected a number above 0, got 0"),
    ],
)
def test_invalid_argument_is_an_error_and_leaves_the_file(ssd, tmp_path, options, error, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"previous")
    with pytest.raises(error, match=re.escape(message)):
        cvops.onnx.export(ssd[0], path, **options)
    assert path.read_bytes() == b"previous"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "net", TypeError, "net: expected a TinySSD, a FasterRCNN or an FCN, got str"),
        (lambda: FastRCNN(NAMES, SIDE), TypeError, "or an FCN, got FastRCNN"),
        (lambda: TinySSD(NAMES, SIDE), ValueError, "net: expected parameters, got none for"),
        (
            lambda: initialized(FCN(5, ops="mxnet")),
            ValueError,
            "net: no converter to ONNX for the operator '_arange'",
        ),
    ],
    ids=["text", "Fast R-CNN", "no parameters", "unknown operator"],
)
def test_network_that_cannot_be_exported_is_an_error(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        cvops.onnx.export(make(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_network_of_halves_is_refused(tmp_path):
    net = initialized(FCN(2))
    net.cast("float16")
    with pytest.raises(ValueError, match="expected float32 parameters, got float16 of 'features"):
        cvops.onnx.export(net, tmp_path / "model.onnx")


def test_size_that_the_network_does_not_accept_is_an_error(tmp_path):
    """The map of a larger image is 9 cells wide, and this one 8: less than the convolution."""
    net = FasterRCNN(NAMES, SIDE)
    net.backbone.stages.add(mx.gluon.nn.Conv2D(96, 9, in_channels=96))
    net.initialize()
    net(mx.nd.zeros((1, 3, SIDE + 8, SIDE + 8)))
    with pytest.raises(
        ValueError, match=r"size: the network has no graph for images of \(64, 64\)"
    ):
        cvops.onnx.export(net, tmp_path / "model.onnx")


def test_thresholds_have_no_meaning_for_an_fcn(tmp_path):
    with pytest.raises(ValueError, match=r"threshold: expected none for an FCN, got 0\.5"):
        cvops.onnx.export(FCN(2), tmp_path / "model.onnx", threshold=0.5)


# --- the command ----------------------------------------------------------------------------------


def test_command_exports_a_saved_detector(ssd, tmp_path, capsys):
    params, out = tmp_path / "net.params", tmp_path / "net.onnx"
    ssd[2].save(params)
    given = ["--batch", "2", "--threshold", "0.2", "--nms-threshold", "0.4"]
    assert cli.main(["export", "--params", str(params), "--onnx", str(out), *given]) == 0
    assert re.fullmatch(rf"{re.escape(str(out))}: TinySSD, \d\.\d MB\n", capsys.readouterr().out)
    images = make_images()
    [found] = session(str(out)).run(None, {"images": images})
    check_detections(found, ssd[2].detect(mx.nd.array(images), 0.2, 0.4).asnumpy())


def test_command_exports_a_saved_fcn(tmp_path):
    params, out = tmp_path / "net.params", tmp_path / "net.onnx"
    initialized(FCN(3, classes=("background", "bee", "frog"))).save(params)
    line = ["export", "--params", str(params), "--onnx", str(out), "--size", "40", "50"]
    assert cli.main([*line, "--batch", "dynamic"]) == 0
    runtime = session(str(out))
    assert runtime.get_inputs()[0].shape == ["batch", 3, 40, 50]
    properties = runtime.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == ["background", "bee", "frog"]


def test_command_refuses_what_it_cannot_do(ssd, tmp_path, capsys):
    params = tmp_path / "net.params"
    line = ["export", "--params", str(params), "--onnx", str(tmp_path / "net.onnx")]
    for before, more, message in (
        (lambda: None, [], f"{params}: no such file"),
        (lambda: ssd[0].save(params), ["--nms-threshold", "0"], "nms_threshold: expected a"),
        (lambda: None, ["--size", "8", "8"], "size: expected an integer in"),
        (lambda: None, ["--onnx", f"{tmp_path}/no/net.onnx"], "cannot be written: No such file"),
    ):
        before()
        assert cli.main([*line, *more]) == 2
        assert message in capsys.readouterr().err
