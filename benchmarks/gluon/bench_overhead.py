import numpy as np
import pytest
from models import STATIC

import cvops.mxnet
from cvops._mxnet import mxnet

THEIRS, OURS, INSTALLED, BOUND = "box_iou", "cvops_box_iou", "box_iou, installed", "relu"
CHAIN = 10


def functions(peer):
    """Return the current functions of the peer's op, by module (arrays, symbols)."""
    mx = mxnet()
    if peer == BOUND:
        return {F: F.relu for F in (mx.nd, mx.sym)}
    name = OURS if peer == OURS else THEIRS
    return {F: getattr(F.contrib, name) for F in (mx.nd, mx.sym)}


def make_chains(by_module, inputs, length, hybridized, backward, count, wait):
    """Return a function that runs ``count`` chains of ``length`` calls.

    It returns the last result and gradient.
    """
    mx = mxnet()

    class Chain(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x, *others):
            for _ in range(length):
                x = by_module[F](x, *others)
            return x

    call = Chain() if length > 1 else by_module[mx.nd]
    if hybridized:
        call.hybridize(**STATIC)

    def step():
        if not backward:
            return call(*inputs)
        with mx.autograd.record():
            out = call(*inputs)
        out.backward()
        return out

    def run():
        for _ in range(count):
            out = step()
            if wait:
                mx.nd.waitall()
        return out, inputs[0].grad

    return run


@pytest.mark.parametrize("peer", [THEIRS, OURS, INSTALLED, BOUND])
@pytest.mark.parametrize("wait", [True, False], ids=["wait", "no wait"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("length", "hybridized"),
    [(1, False), (CHAIN, False), (CHAIN, True)],
    ids=["one call", "chain", "hybridized"],
)
def bench_overhead(time_case, length, hybridized, backward, wait, peer):
    """Call overhead.

    box_iou of 4 and 4 boxes: MXNet's operator; cvops's; cvops's under MXNet's name (installed()).
    relu of the same boxes is a lower bound. In a block of ten calls, the input of each call is the
    result of the previous one. "With a wait": a wait after each call or block. "Without a wait":
    one wait after 1000 calls.
    """
    count = 1000 // length
    theirs = functions(THEIRS)

    def prepare():
        corners = np.random.default_rng(0).random((4, 2, 2), np.float32)
        boxes = mxnet().nd.array(np.sort(corners, axis=1).reshape(4, 4))
        boxes.attach_grad()
        calls = {}
        for name in (THEIRS, OURS, INSTALLED, BOUND):
            inputs = [boxes] if name == BOUND else [boxes, boxes.copy()]
            by_module = theirs if name == THEIRS else functions(name)
            calls[name] = make_chains(by_module, inputs, length, hybridized, backward, count, wait)
        results = {name: [x.asnumpy() for x in call()] for name, call in calls.items()}
        for name in (OURS, INSTALLED):
            for got, expected in zip(results[name], results[THEIRS]):
                np.testing.assert_allclose(got, expected, rtol=1e-6)
        return calls

    def columns(medians, peer):
        change = medians[peer] / medians[THEIRS] - 1
        cell = "" if peer in (THEIRS, BOUND) else f"{100 * change:+.0f} %"
        return {"more than MXNet's": cell}

    case = "one call" if length == 1 else f"{length} calls" + ", hybridized" * hybridized
    case += ", with backward" * backward + (", with a wait" if wait else ", without a wait")
    # All peers are timed here while cvops is installed; ``theirs`` has MXNet's own functions.
    with cvops.mxnet.installed():
        time_case(case, peer, prepare, base=THEIRS, rounds=7, repeats=count, columns=columns)
