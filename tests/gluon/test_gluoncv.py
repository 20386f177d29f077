"""Unchanged models of GluonCV, on MXNet's operators and on those of cvops."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from operator_cases import MODES as ALL_MODES

from cvops.backends.operators import OPERATORS

MODES = {mode: ALL_MODES[mode] for mode in ("eager", "static")}

# The models run in a new process: the import of GluonCV gives warnings, and it rejects recent
# versions of torch, which these models do not need. MXNet imports SciPy, which fails without torch.
RUN = """
import json, sys, zlib
import numpy as np
import cvops.mxnet
import mxnet as mx
sys.modules["torch"] = None
from gluoncv.loss import SSDMultiBoxLoss
from gluoncv.model_zoo import MaskRCNN, custom_mask_rcnn_fpn, get_model, resnet18_v1b
from gluoncv.model_zoo.rcnn.faster_rcnn.faster_rcnn import FasterRCNN, custom_faster_rcnn_fpn
from gluoncv.model_zoo.rcnn.mask_rcnn.data_parallel import ForwardBackwardTask
from gluoncv.model_zoo.rcnn.rpn.rpn_target import RPNTargetGenerator
from gluoncv.model_zoo.ssd.target import SSDTargetGenerator
del sys.modules["torch"]

CLASSES = ["cat", "dog", "cow"]
rng = np.random.default_rng(0)
image = mx.nd.array(rng.normal(size=(1, 3, 96, 96)))
large = mx.nd.array(rng.normal(size=(1, 3, 160, 160)))  # with rois of two maps of a pyramid
truth = mx.nd.array([[[10, 12, 60, 80], [30, 40, 90, 92]]])
label = mx.nd.array([[[0], [1]]])

def prepared(net, mode):
    mx.random.seed(1)
    net.initialize(mx.init.Normal(0.05))
    if mode is not None:
        net.hybridize(**mode)
    return net

def ssd(mode):
    net = get_model(
        "ssd_512_mobilenet1.0_custom", classes=CLASSES, pretrained=False, pretrained_base=False
    )
    net.set_nms(nms_thresh=0.45, nms_topk=400, post_nms=100)
    return prepared(net, mode)

def ssd_detects(mode):
    net = ssd(mode)
    return net, net(image)

def ssd_learns(mode):
    net = ssd(mode)
    targets = SSDTargetGenerator(negative_mining_ratio=-1)
    with mx.autograd.record():
        cls_pred, box_pred, anchors = net(image)
        with mx.autograd.pause():
            cls_target, box_target, mask = targets(anchors, None, truth, label)
        loss = SSDMultiBoxLoss()(cls_pred, box_pred, cls_target, box_target)[0]
    mx.autograd.backward(loss)
    return net, [cls_target, box_target, mask, *loss, gradients(net)]

def stages():
    base = resnet18_v1b(pretrained=False)
    features, top = mx.gluon.nn.HybridSequential(), mx.gluon.nn.HybridSequential()
    features.add(base.conv1, base.bn1, base.relu, base.maxpool, base.layer1, base.layer2)
    features.add(base.layer3)
    top.add(base.layer4)
    return features, top

SMALL = dict(
    rpn_channel=32, rpn_min_size=1, rpn_test_pre_nms=200, rpn_test_post_nms=50,
    rpn_train_pre_nms=200, rpn_train_post_nms=50, num_sample=32, max_num_gt=4, clip=4.42,
)
ONE_MAP = dict(strides=16, scales=(1, 2, 4), roi_size=(14, 14), **SMALL)
PYRAMID = dict(
    pretrained_base=False, num_fpn_filters=16, num_box_head_dense_filters=32, min_stage=2,
    max_stage=6, strides=(4, 8, 16, 32, 64), scales=(2, 4, 8, 16, 32), roi_size=(7, 7), **SMALL,
)
MASKS = dict(mask_channels=16, rcnn_max_dets=20)

def faster_rcnn_detects(mode):
    net = prepared(FasterRCNN(*stages(), CLASSES, **ONE_MAP), mode)
    return net, net(image)

def faster_rcnn_fpn_detects(mode):
    net = prepared(custom_faster_rcnn_fpn(CLASSES, **PYRAMID), mode)
    return net, net(large)

def mask_rcnn(mode):
    return prepared(MaskRCNN(*stages(), CLASSES, **MASKS, **ONE_MAP), mode)

def mask_rcnn_fpn(mode):
    net = custom_mask_rcnn_fpn(CLASSES, target_roi_scale=2, num_fcn_convs=1, **MASKS, **PYRAMID)
    return prepared(net, mode)

def mask_rcnn_detects(mode):
    net = mask_rcnn(mode)
    return net, net(image)

def mask_rcnn_fpn_detects(mode):
    net = mask_rcnn_fpn(mode)
    return net, net(large)

def faster_rcnn_learns(mode):
    net = prepared(FasterRCNN(*stages(), CLASSES, roi_mode="pool", **ONE_MAP), mode)
    mx.random.seed(2)  # for the random samples of the network
    with mx.autograd.record():
        out = net(image, truth, label)
        loss = sum((x ** 2).mean() for x in (out[0], out[1], out[5], out[6]))
    loss.backward()
    return net, [*out, gradients(net)]

def mask_rcnn_learns(mode):
    return step(mask_rcnn(mode), image)

def mask_rcnn_fpn_learns(mode):
    return step(mask_rcnn_fpn(mode), large)

def step(net, image):
    # One step of GluonCV's training: its targets, losses and update.
    size = image.shape[2]
    masks = mx.nd.array(np.random.default_rng(1).random((1, 2, size, size)) < 0.5)
    loss, huber = mx.gluon.loss, mx.gluon.loss.HuberLoss
    logistic = loss.SigmoidBinaryCrossEntropyLoss(from_sigmoid=False)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
    task = ForwardBackwardTask(
        net, trainer, logistic, huber(1 / 9), loss.SoftmaxCrossEntropyLoss(), huber(), logistic,
        amp_enabled=False,
    )
    maps, generators = net.features(image), net.rpn.anchor_generator
    maps, generators = (maps, generators) if net.num_stages > 1 else ([maps], [generators])
    anchors = [make(x).reshape((-1, 4)) for make, x in zip(generators, maps)]
    np.random.seed(0)  # for the random samples of the targets
    targets = RPNTargetGenerator()(truth[0], mx.nd.concat(*anchors, dim=0), size, size)
    targets = [mx.nd.array(x[None]) for x in targets]
    mx.random.seed(2)
    labels = mx.nd.concat(truth, label, dim=2)
    out = task.forward_backward((image, labels, masks, *targets))
    found = gradients(net)
    trainer.step(1)
    return net, [*out[:5], found, bits(p.data() for p in net.collect_params().values())]

def gradients(net):
    return bits(p.grad() for p in net.collect_params().values() if p.grad_req != "null")

def bits(arrays):
    # The checksums of finite arrays.
    arrays = [x.asnumpy() + 0.0 for x in arrays]  # -0.0 becomes 0.0
    assert all(np.isfinite(x).all() for x in arrays)
    return mx.nd.array([zlib.crc32(x) for x in arrays], dtype="int64")

def without_garbage(kind):
    # MXNet leaves the result of a roi of no image uninitialized; GluonCV has such rois in a
    # pyramid. Here it is 0.
    theirs = kind.contrib.ROIAlign
    def function(data, rois, *args, **kwargs):
        image = kind.slice_axis(rois, axis=1, begin=0, end=1)
        valid = kind.concat(kind.relu(image), kind.slice_axis(rois, axis=1, begin=1, end=5), dim=1)
        out = theirs(data, valid, *args, **kwargs)
        return kind.where(kind.reshape(image, (-1,)) >= 0, out, kind.zeros_like(out))
    kind.contrib.ROIAlign = function

without_garbage(mx.nd)
without_garbage(mx.sym)
modes, runs, folder = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
graphs = {}
for model, name in runs:
    run, mode = globals()[model], modes[name]
    found = {}
    _, out = run(mode)
    found.update({f"mxnet/{i}": x.asnumpy() for i, x in enumerate(out)})
    with cvops.mxnet.installed():
        net, out = run(mode)
        found.update({f"cvops/{i}": x.asnumpy() for i, x in enumerate(out)})
    np.savez(f"{folder}/{model}-{name}.npz", **found)
    if mode is not None:
        graphs[model] = net._cached_graph[1].tojson()
json.dump(graphs, open(f"{folder}/graphs.json", "w"))
"""
PROPOSALS = ["box_decode", "box_nms"]
TARGETS = ["box_encode", "box_iou"]
#: model -> the operators of cvops in its graph.
OURS = {
    "ssd_detects": PROPOSALS,
    "ssd_learns": [],  # its targets are computed outside of the graph
    "faster_rcnn_detects": [*PROPOSALS, "ROIAlign", "AdaptiveAvgPooling2D"],
    "faster_rcnn_fpn_detects": [*PROPOSALS, "ROIAlign"],
    "faster_rcnn_learns": [*PROPOSALS, *TARGETS, "ROIPooling", "AdaptiveAvgPooling2D"],
    "mask_rcnn_detects": [*PROPOSALS, "ROIAlign", "AdaptiveAvgPooling2D"],
    "mask_rcnn_learns": [*PROPOSALS, *TARGETS, "ROIAlign", "AdaptiveAvgPooling2D"],
    "mask_rcnn_fpn_detects": [*PROPOSALS, "ROIAlign"],
    "mask_rcnn_fpn_learns": [*PROPOSALS, *TARGETS, "ROIAlign"],
}
EAGER = ["mask_rcnn_fpn_detects", "mask_rcnn_fpn_learns"]
RUNS = [*((model, "static") for model in OURS), *((model, "eager") for model in EAGER)]


@pytest.fixture(scope="module")
def results(operators, tmp_path_factory):
    """The folder with the outputs of each model."""
    if importlib.util.find_spec("gluoncv") is None:
        pytest.skip("gluoncv is not installed")
    folder = tmp_path_factory.mktemp("gluoncv")
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(MODES), json.dumps(RUNS), folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("model", "mode"), RUNS)
def test_model_with_cvops_has_the_bits_of_mxnets_operators(results, model, mode):
    found = np.load(results / f"{model}-{mode}.npz")
    assert len(found) >= 2 * 3
    for i in range(len(found) // 2):
        np.testing.assert_array_equal(found[f"cvops/{i}"], found[f"mxnet/{i}"])


@pytest.mark.parametrize("model", OURS)
def test_graph_has_the_operators_of_cvops_instead_of_mxnets(results, model):
    graph = json.loads((results / "graphs.json").read_text())[model]
    ops = {node["op"] for node in json.loads(graph)["nodes"]}
    assert {op for op in ops if "cvops" in op} == {f"_contrib_cvops_{op}" for op in OURS[model]}
    assert not ops & {name for operator in OPERATORS for name in operator.replaces}


@pytest.mark.parametrize("model", [model for model in OURS if "detects" in model])
def test_detections_are_kept(results, model):
    """Without detections, the other tests would compare no boxes."""
    classes = np.load(results / f"{model}-static.npz")["cvops/0"]
    assert (classes >= 0).sum() >= 5


def test_pyramid_has_rois_of_two_maps(results):
    """GluonCV pools boxes of sides of 112 and more from a coarser map."""
    boxes = np.load(results / "mask_rcnn_fpn_detects-static.npz")["cvops/2"][0]
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    assert sides.min() < 100
    assert sides.max() > 112


@pytest.mark.parametrize("model", [model for model in OURS if "learns" in model])
def test_step_has_gradients_of_many_parameters(results, model):
    gradients = np.load(results / f"{model}-static.npz")
    checksums = gradients[f"cvops/{len(gradients) // 2 - 1}"]
    assert len(set(checksums.tolist())) > 50
