import numpy as np
import pytest
from models import OPS, STATIC, images, labels, make_priors, tiny_ssds

from cvops._mxnet import mxnet
from cvops.models.losses import DetectionLoss
from cvops.models.tiny_ssd import Training, train_step

BATCH = 32


def make_step(net, batch):
    """Return a function that makes a training step and returns its losses."""
    training = Training(net, DetectionLoss(per="box"))
    training.hybridize(**STATIC)
    settings = {"learning_rate": 0.001, "momentum": 0.9}
    trainer = mxnet().gluon.Trainer(net.collect_params(), "sgd", settings)
    return lambda: train_step(training, trainer, *batch)[0][0]


def make_ops(net, batch):
    """Return a function that calls MultiBoxPrior and MultiBoxTarget on the arrays of a step."""
    pixels, label = batch
    anchors, classes, _ = net(pixels)
    logits = classes.transpose((0, 2, 1))
    priors, target = make_priors(net, pixels), net.op(mxnet().nd, "MultiBoxTarget")

    def call():
        priors()
        target(anchors, label, logits)

    return call


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("objects", [1, 8, 64])
def bench_training(time_case, objects, ops):
    """A training step of TinySSD.

    32 images of 256 x 256; hybridized statically: forward, targets, loss, backward, trainer. "Ops
    alone" are separate calls of MultiBoxPrior and MultiBoxTarget on the arrays of the step.
    """

    def prepare():
        batch = images(BATCH), labels(BATCH, objects)
        nets = tiny_ssds()
        steps = {ops: make_step(net, batch) for ops, net in nets.items()}
        calls = {f"{ops}, ops alone": make_ops(net, batch) for ops, net in nets.items()}
        losses = {ops: [step().asnumpy() for _ in range(2)] for ops, step in steps.items()}
        np.testing.assert_allclose(losses["cvops"], losses["mxnet"], rtol=1e-4)
        for call in calls.values():
            call()
        return {**steps, **calls}

    def columns(medians, ops):
        seconds = medians[f"{ops}, ops alone"]
        return {
            "images/s": f"{BATCH / medians[ops]:.1f}",
            "ops alone": f"{1e3 * seconds:.2f} ms",
            "% of step": f"{100 * seconds / medians[ops]:.1f} %",
        }

    case = f"{objects} object{'s' * (objects > 1)} an image"
    time_case(case, ops, prepare, base="mxnet", rounds=5, columns=columns)
