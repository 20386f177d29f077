import contextlib

import numpy as np
import pytest
from models import STATIC

import cvops.mxnet
from cvops._mxnet import mxnet

THEIRS, OURS, INSTALLED, FLOOR = "box_iou", "cvops_box_iou", "box_iou, installed", "relu"
CHAIN = 10


def op(F, peer, x, *others):
    if peer == FLOOR:
        return F.relu(x)
    return getattr(F.contrib, OURS if peer == OURS else THEIRS)(x, *others)


def network(peer, length, hybridized):
    """A block that applies the op ``length`` times."""

    class Chain(mxnet().gluon.HybridBlock):
        def hybrid_forward(self, F, x, *others):
            for _ in range(length):
                x = op(F, peer, x, *others)
            return x

    net = Chain()
    if hybridized:
        net.hybridize(**STATIC)
    return net


def worker(peer, length, hybridized, backward, count, wait):
    """``count`` times a chain of ``length`` calls; gives the last result and gradient."""
    mx = mxnet()
    around = cvops.mxnet.installed if peer == INSTALLED else contextlib.nullcontext
    square = np.random.default_rng(0).random((4, 2, 2), np.float32)
    x = mx.nd.array(np.sort(square, axis=1).reshape(4, 4))
    x.attach_grad()
    inputs = [x] if peer == FLOOR else [x, x.copy()]
    net = network(peer, length, hybridized)

    def step():
        if not backward:
            return op(mx.nd, peer, *inputs) if length == 1 else net(*inputs)
        with mx.autograd.record():
            out = op(mx.nd, peer, *inputs) if length == 1 else net(*inputs)
        out.backward()
        return out

    def work():
        with around():
            for _ in range(count):
                out = step()
                if wait:
                    mx.nd.waitall()
        return out, x.grad

    return work


@pytest.mark.parametrize("peer", [THEIRS, OURS, INSTALLED, FLOOR])
@pytest.mark.parametrize("wait", [True, False], ids=["waited for", "issued"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("length", "hybridized"),
    [(1, False), (CHAIN, False), (CHAIN, True)],
    ids=["one call", "chain", "hybridized"],
)
def bench_overhead(race, length, hybridized, backward, wait, peer):
    """What a call costs beside the work.

    box_iou of 4 and 4 boxes: MXNet's; ours; ours by MXNet's name, cvops.mxnet.installed(). relu of
    as many numbers is there as a floor. Ten calls in a row are a block, each on the result of the
    one before. Waited for: one after another; issued: 1000 calls, and a wait at the end.
    """
    count = 1000 // length

    def prepare():
        peers = [THEIRS, OURS, INSTALLED, FLOOR]
        calls = {x: worker(x, length, hybridized, backward, count, wait) for x in peers}
        results = {name: [x.asnumpy() for x in call()] for name, call in calls.items()}
        for name in (OURS, INSTALLED):
            for got, expected in zip(results[name], results[THEIRS]):
                np.testing.assert_allclose(got, expected, rtol=1e-6)
        return calls

    def columns(medians, peer):
        more = medians[peer] / medians[THEIRS] - 1
        return {"more than MXNet's": "" if peer in (THEIRS, FLOOR) else f"{100 * more:+.0f} %"}

    case = "one call" if length == 1 else f"{length} calls" + ", hybridized" * hybridized
    case += ", with backward" * backward + (", waited for" if wait else ", issued")
    race(case, peer, prepare, base=THEIRS, rounds=7, repeats=count, columns=columns)
