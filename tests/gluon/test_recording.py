"""The functions for arrays inside ``mx.autograd.record()``, which call the operators."""

import subprocess
import sys

import numpy as np
import pytest
from operator_cases import (
    CASES,
    MXNETS,
    OPS,
    WITHOUT_GRADIENT,
    array,
    array_function,
    as_list,
    floats,
    option_names,
    ours,
    theirs,
    weighted_sum,
)

import cvops
from cvops import contrib

KINDS = ["nd", "np"]


def inputs_of(mx, op, kind):
    arrays = [array(mx, x) for x in CASES[op][0]]
    return [x.as_np_ndarray() for x in arrays] if kind == "np" else arrays


def gradients(mx, call, inputs, grad_req):
    for x in inputs:
        x.attach_grad(grad_req)
        x.grad[:] = 7
    with mx.autograd.record():
        out = call(*inputs)
        # A cast alone would ignore grad_req "add" in MXNet.
        others = [(x.as_nd_ndarray() * 1).astype("float32").sum() for x in inputs]
        loss = weighted_sum(mx, out) + sum(others)
    loss.backward()
    return as_list(out), [x.grad.asnumpy() for x in inputs]


@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_results_and_gradients_equal_those_of_the_operator(mx, operators, op, kind, grad_req):
    options = CASES[op][1]
    inputs = inputs_of(mx, op, kind)
    outside = as_list(array_function(op)(*inputs, **options))
    out, got = gradients(mx, lambda *args: array_function(op)(*args, **options), inputs, grad_req)
    for a, b in zip(out, outside):
        np.testing.assert_array_equal(a, b)
    _, want = gradients(
        mx, lambda *args: ours(mx.nd, op)(*args, **options), inputs_of(mx, op, "nd"), grad_req
    )
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)
    if op in MXNETS and grad_req == "write" and op not in WITHOUT_GRADIENT:
        _, mxnets = gradients(
            mx, lambda *args: theirs(mx.nd, op)(*args, **options), inputs_of(mx, op, "nd"), "write"
        )
        for a, b in zip(got, mxnets):
            np.testing.assert_array_equal(a, b)


def test_gradients_of_both_terms_of_a_loss_are_added(mx, operators):
    x = mx.nd.ones((1, 1, 4, 4))
    rois = mx.nd.array([[0, 0, 0, 3, 3]])
    for pooling in (cvops.roi_pooling, contrib.ROIPooling):
        x.attach_grad()
        with mx.autograd.record():
            loss = pooling(x, rois, (1, 1), 1.0).sum() + x.sum()
        loss.backward()
        assert x.grad.sum().asscalar() == 17


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_an_op_without_one_is_zero(mx, operators, kind):
    """MXNet's operators give 0 too."""
    x = (mx.nd.ones if kind == "nd" else mx.np.ones)((1, 1, 4, 4))
    x.attach_grad()
    for call in (
        lambda: cvops.multibox_prior(x * 2, 0.5, 1),
        lambda: cvops.multibox_priors([x, x * 2], [0.5, 0.2], [1, 2]),
        lambda: cvops.box_iou(x, x * 2),
    ):
        x.grad[:] = 7
        with mx.autograd.record():
            loss = call().sum()
        loss.backward()
        assert (x.grad.asnumpy() == 0).all()


@pytest.mark.parametrize("backend", [None, "native", "numpy"])
@pytest.mark.parametrize("kind", KINDS)
def test_function_with_two_results_is_recorded(mx, operators, kind, backend):
    data, rois = inputs_of(mx, "ROIPooling", kind)
    rows = inputs_of(mx, "box_nms", kind)[0]
    for x, call in (
        (
            data,
            lambda x: cvops.roi_pooling(x, rois, (3, 2), 0.5, return_argmax=True, backend=backend),
        ),
        (rows, lambda x: cvops.box_nms(x, id_index=0, return_index=True, backend=backend)),
    ):
        want = call(x)
        x.attach_grad()
        with mx.autograd.record():
            out, second = call(x * 1)
            loss = out.sum()
        loss.backward()
        assert type(out) is type(second) is type(x)
        for a, b in zip((out, second), want):
            np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
        assert (x.grad.asnumpy() != 0).any()


OPTIONS = [
    *(
        {"in_format": a, "out_format": b}
        for a in ("corner", "center")
        for b in ("corner", "center")
    ),
    *({"id_index": 0, "force_suppress": flag, "background_id": 1} for flag in (True, False)),
    *({"topk": 0}, {"topk": 3}, {"valid_thresh": 0.3}, {"valid_thresh": 1e39}),
    *({"overlap_thresh": -0.0}, {"overlap_thresh": 0.1}, {"coord_start": 1, "score_index": 5}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=option_names)
def test_recorded_call_equals_the_plain_call_for_each_option(mx, operators, options):
    data = array(mx, CASES["box_nms"][0][0])
    want = cvops.box_nms(data, **options)
    with mx.autograd.record():
        got = cvops.box_nms(data, **options)
    np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())


def test_bad_argument_raises_the_error_of_the_function(mx, operators):
    x = mx.nd.ones((3, 4))
    with mx.autograd.record():
        with pytest.raises(ValueError, match=r"lhs: expected shape \(\.\.\., N, 4\)"):
            cvops.box_iou(x[:, :3], x)
        with pytest.raises(TypeError, match="rhs: expected float64 as lhs, got float32"):
            cvops.box_iou(x.astype("float64"), x)
        with pytest.raises(ValueError, match="backend: expected one of"):
            cvops.box_iou(x, x, backend="gpu")


def test_block_trains_to_the_bits_of_mxnets_operator(mx, operators):
    """The block is not hybridized. It has the function between its layers."""

    class Net(mx.gluon.Block):
        def __init__(self, pooling):
            super().__init__(prefix="net_")
            self.pooling = pooling
            with self.name_scope():
                self.before, self.after = mx.gluon.nn.Conv2D(2, 3, padding=1), mx.gluon.nn.Dense(1)

        def forward(self, x, rois):
            pooled = self.pooling(self.before(x), rois, pooled_size=(2, 2), spatial_scale=1)
            return self.after(pooled)

    x, rois = mx.nd.array(floats(1, 3, 8, 8)), mx.nd.array([[0, 0, 0, 7, 7], [0, 2, 2, 5, 5]])
    weights = []
    for pooling in (cvops.roi_pooling, mx.nd.ROIPooling):
        mx.random.seed(3)
        net = Net(pooling)
        net.initialize(mx.init.Xavier())
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        for _ in range(3):
            with mx.autograd.record():
                loss = (net(x, rois) ** 2).sum()
            loss.backward()
            trainer.step(1)
        weights.append([p.data().asnumpy() for p in net.collect_params().values()])
    for weight, mxnets_weight in zip(*weights):
        np.testing.assert_array_equal(weight, mxnets_weight)


def test_calls_outside_of_the_recorded_graph_build_no_operator(operators, tmp_path):
    code = """
import sys
import cvops
from cvops._mxnet import mxnet
mx = mxnet()
x = mx.nd.ones((3, 4))
cvops.box_iou(x, x)
with mx.autograd.record():
    y = cvops.box_iou(x, x)
    with mx.autograd.pause():
        cvops.bilinear_upsample(mx.nd.ones((1, 1, 2, 2)), 2)
print("cvops.mxnet" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
