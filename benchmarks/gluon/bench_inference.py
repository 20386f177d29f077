import numpy as np
import pytest
from models import OPS, STATIC, images, make_priors, tiny_ssds

from cvops._mxnet import mxnet
from cvops.models.tiny_ssd import Detector


def detection_inputs(net, pixels):
    """Return the inputs of MultiBoxDetection: scores, offsets, anchors."""
    anchors, classes, offsets = net(pixels)
    return mxnet().nd.softmax(classes).transpose((0, 2, 1)), offsets, anchors


def make_step(net, pixels, threshold):
    """Return a function that detects objects and returns the detections."""
    detector = Detector(net, threshold)
    detector.hybridize(**STATIC)
    return lambda: detector(pixels)


def make_ops(net, pixels, inputs, threshold):
    """Return a function that calls MultiBoxPrior and MultiBoxDetection on the arrays of a step."""
    priors, detection = make_priors(net, pixels), net.op(mxnet().nd, "MultiBoxDetection")

    def call():
        priors()
        return detection(*inputs, threshold=threshold, nms_threshold=0.3)

    return call


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("share", [1, 0.01], ids=["all anchors", "few anchors"])
@pytest.mark.parametrize("batch", [1, 32])
def bench_inference(time_case, batch, share, ops):
    """Detection by TinySSD.

    Images of 256 x 256; hybridized statically: network, softmax, MultiBoxDetection. The network is
    not trained, and its scores are nearly equal. With the threshold 0.01 all 5,444 anchors of an
    image are candidates, which is the worst case. A threshold that 1 % of the scores exceed is
    similar to a trained network. "Ops alone" are separate calls of MultiBoxPrior and
    MultiBoxDetection on the arrays of the step.
    """

    def prepare():
        pixels, nets = images(batch), tiny_ssds()
        inputs = detection_inputs(nets["mxnet"], pixels)
        threshold = float(np.quantile(inputs[0].asnumpy()[:, 1], 1 - share)) if share < 1 else 0.01
        steps = {ops: make_step(net, pixels, threshold) for ops, net in nets.items()}
        calls = {ops: make_ops(net, pixels, inputs, threshold) for ops, net in nets.items()}
        ours, theirs = (calls[ops]().asnumpy() for ops in ("cvops", "mxnet"))
        # exp may differ in its last bit.
        np.testing.assert_array_equal(ours[..., 0], theirs[..., 0])
        np.testing.assert_allclose(ours[..., 1:], theirs[..., 1:], rtol=1e-4, atol=1e-5)
        for step in steps.values():
            assert (step().asnumpy()[..., 0] >= 0).any()
        return {**steps, **{f"{ops}, ops alone": call for ops, call in calls.items()}}

    def columns(medians, ops):
        seconds = medians[f"{ops}, ops alone"]
        return {
            "images/s": f"{batch / medians[ops]:.1f}",
            "ops alone": f"{1e3 * seconds:.2f} ms",
            "% of step": f"{100 * seconds / medians[ops]:.1f} %",
        }

    case = f"batch {batch}, {'all' if share == 1 else '1 % of'} anchors over the threshold"
    time_case(case, ops, prepare, base="mxnet", rounds=5 if batch > 1 else 20, columns=columns)
