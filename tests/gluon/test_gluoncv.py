"""Unchanged models of GluonCV, on MXNet's operators and on those of cvops."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from operator_cases import MODES as ALL_MODES

MODES = {mode: ALL_MODES[mode] for mode in ("eager", "static")}

# The models run in a new process: the import of GluonCV gives warnings, and it rejects recent
# versions of torch, which these models do not need.
RUN = """
import json, sys
sys.modules["torch"] = None
import numpy as np
import cvops.mxnet
import mxnet as mx
from gluoncv.loss import SSDMultiBoxLoss
from gluoncv.model_zoo import FasterRCNN, get_model, resnet18_v1b
from gluoncv.model_zoo.ssd.target import SSDTargetGenerator

CLASSES = ["cat", "dog", "cow"]
image = mx.nd.array(np.random.default_rng(0).normal(size=(1, 3, 96, 96)))
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
    return net, [cls_target, box_target, mask, *loss, *gradients(net)]

def faster_rcnn(mode):
    base = resnet18_v1b(pretrained=False)
    features, top = mx.gluon.nn.HybridSequential(), mx.gluon.nn.HybridSequential()
    features.add(base.conv1, base.bn1, base.relu, base.maxpool, base.layer1, base.layer2)
    features.add(base.layer3)
    top.add(base.layer4)
    net = FasterRCNN(
        features, top, CLASSES, roi_mode="pool", roi_size=(7, 7), strides=16, scales=(1, 2, 4),
        rpn_channel=32, rpn_min_size=1, rpn_test_pre_nms=200, rpn_test_post_nms=50,
        rpn_train_pre_nms=200, rpn_train_post_nms=50, num_sample=32, max_num_gt=4,
    )
    return prepared(net, mode)

def faster_rcnn_learns(mode):
    net = faster_rcnn(mode)
    mx.random.seed(2)  # for the random samples of the network
    with mx.autograd.record():
        out = net(image, truth, label)
        loss = sum((x ** 2).mean() for x in (out[0], out[1], out[5], out[6]))
    loss.backward()
    return net, [*out, *gradients(net)]

def gradients(net):
    return [p.grad() for p in net.collect_params().values() if p.grad_req != "null"]

modes, folder = json.loads(sys.argv[1]), sys.argv[2]
graphs = {}
for model in (ssd_detects, ssd_learns, faster_rcnn_learns):
    for name, mode in modes.items():
        found = {}
        _, out = model(mode)
        found.update({f"mxnet/{i}": x.asnumpy() for i, x in enumerate(out)})
        with cvops.mxnet.installed():
            net, out = model(mode)
            found.update({f"cvops/{i}": x.asnumpy() for i, x in enumerate(out)})
        np.savez(f"{folder}/{model.__name__}-{name}.npz", **found)
        if mode is not None:
            graphs[f"{model.__name__}-{name}"] = net._cached_graph[1].tojson()
json.dump(graphs, open(f"{folder}/graphs.json", "w"))
"""
#: model -> the operators of cvops in its graph.
OURS = {
    "ssd_detects": ["box_nms"],
    "ssd_learns": [],  # its targets are computed outside of the graph
    "faster_rcnn_learns": ["box_nms", "ROIPooling", "box_iou"],
}


@pytest.fixture(scope="module")
def results(operators, tmp_path_factory):
    """The folder with the outputs of each model."""
    if importlib.util.find_spec("gluoncv") is None:
        pytest.skip("gluoncv is not installed")
    folder = tmp_path_factory.mktemp("gluoncv")
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(MODES), folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", OURS)
def test_model_with_cvops_has_the_bits_of_mxnets_operators(results, model, mode):
    found = np.load(results / f"{model}-{mode}.npz")
    assert len(found) >= 2 * 3
    for i in range(len(found) // 2):
        np.testing.assert_array_equal(found[f"cvops/{i}"], found[f"mxnet/{i}"])


@pytest.mark.parametrize("model", OURS)
def test_graph_has_the_operators_of_cvops_instead_of_mxnets(results, model):
    graph = json.loads((results / "graphs.json").read_text())[f"{model}-static"]
    ops = {node["op"] for node in json.loads(graph)["nodes"]}
    assert {op for op in ops if "cvops" in op} == {f"_contrib_cvops_{op}" for op in OURS[model]}
    assert not ops & {"_contrib_box_nms", "_contrib_box_iou", "ROIPooling"}


def test_detections_are_kept_and_suppressed(results):
    """Without detections, the other tests would compare no boxes."""
    classes = np.load(results / "ssd_detects-eager.npz")["cvops/0"]
    assert 5 <= (classes >= 0).sum() <= 100
