import numpy as np
import pytest
from models import OPS, STATIC

from cvops._mxnet import mxnet
from cvops.models.fcn import BilinearKernel, BilinearUpsample

CLASSES, SCALE = 21, 32
BOOK = "Conv2DTranspose"
PEERS = BOOK, "Conv2DTranspose, weight fixed", "Deconvolution, 21 groups", "cvops_bilinear_upsample"


def layers():
    """Return the layer of each peer for the same upsampling."""
    nn = mxnet().gluon.nn

    def transposed():
        sizes = CLASSES, 2 * SCALE, SCALE, SCALE // 2
        return nn.Conv2DTranspose(
            *sizes, in_channels=CLASSES, use_bias=False, weight_initializer=BilinearKernel()
        )

    found = transposed(), transposed(), *(BilinearUpsample(CLASSES, SCALE, x) for x in OPS)
    for layer in found:
        layer.initialize()
        layer.hybridize(**STATIC)
    found[1].weight.grad_req = "null"
    return dict(zip(PEERS, found))


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("batch", [4, 32])
def bench_upsampling(time_case, batch, backward, peer):
    """The last layer of an FCN.

    (B, 21, 10, 15) enlarged 32 times to (B, 21, 320, 480); hybridized statically. Conv2DTranspose
    is the layer of "Dive into Deep Learning": 21 x 21 kernels of 64 x 64, with trained or fixed
    weights. The others interpolate each channel separately, and have no trained weights.
    """
    mx = mxnet()

    def prepare():
        random = np.random.default_rng(0)
        x = mx.nd.array(random.standard_normal((batch, CLASSES, 10, 15), np.float32))
        x.attach_grad()
        calls, results = {}, {}
        for name, layer in layers().items():

            def call(layer=layer):
                if not backward:
                    return layer(x)
                with mx.autograd.record():
                    out = layer(x)
                out.backward()
                return out

            results[name] = [call()[:1].asnumpy(), x.grad.asnumpy()]
            calls[name] = call
        for result in results.values():
            for got, expected in zip(result, results[BOOK]):
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
        return calls

    case = f"{batch} images, {'forward and backward' if backward else 'forward'}"
    time_case(case, peer, prepare, base=BOOK, rounds=5)
