import numpy as np
import pytest
from models import OPS, STATIC, images, prior, tiny_ssds

from cvops._mxnet import mxnet
from cvops.models.tiny_ssd import Detector


def scored(net, pixels):
    """What MultiBoxDetection gets: scores, offsets, anchors."""
    anchors, classes, offsets = net(pixels)
    return mxnet().nd.softmax(classes).transpose((0, 2, 1)), offsets, anchors


def same(ours, theirs):
    """Raise unless the detections agree: exp may differ in its last bit, the rest may not."""
    np.testing.assert_array_equal(ours[..., 0], theirs[..., 0])
    np.testing.assert_allclose(ours[..., 1:], theirs[..., 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("share", [1, 0.01], ids=["all anchors", "few anchors"])
@pytest.mark.parametrize("batch", [1, 32])
def bench_inference(race, batch, share, ops):
    """Detection by TinySSD.

    Images of 256 x 256; hybridized statically: network, softmax, MultiBoxDetection. The network is
    not trained, so that its scores are near each other: with the threshold at 0.01 all 5,444
    anchors of an image are candidates, which is the worst case; a threshold that 1 % of them pass
    is more like a trained network. "Ops alone" are MultiBoxPrior and MultiBoxDetection, called one
    by one on the arrays of the step.
    """

    def prepare():
        pixels, nets = images(batch), tiny_ssds()
        given = scored(nets["mxnet"], pixels)
        threshold = float(np.quantile(given[0].asnumpy()[:, 1], 1 - share)) if share < 1 else 0.01
        calls, found = {}, {}
        for name, net in nets.items():
            detector = Detector(net, threshold)
            detector.hybridize(**STATIC)

            def step(detector=detector):
                return detector(pixels)

            def alone(net=net, priors=prior(net, pixels), options=detector.options):
                priors()
                return net.op(mxnet().nd, "MultiBoxDetection")(*given, **options)

            found[name] = step().asnumpy(), alone().asnumpy()
            calls.update({name: step, f"{name}, ops alone": alone})
        same(found["cvops"][1], found["mxnet"][1])
        assert (found["cvops"][0][..., 0] >= 0).any()
        return calls

    def columns(medians, ops):
        seconds = medians[f"{ops}, ops alone"]
        return {
            "images/s": f"{batch / medians[ops]:.1f}",
            "ops alone": f"{1e3 * seconds:.2f} ms",
            "of the step": f"{100 * seconds / medians[ops]:.1f} %",
        }

    case = f"batch {batch}, {'all' if share == 1 else '1 % of'} anchors over the threshold"
    race(case, ops, prepare, base="mxnet", rounds=5 if batch > 1 else 20, columns=columns)
