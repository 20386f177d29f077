"""Gradients of the operators in MXNet, for each mode and each ``grad_req``."""

import numpy as np
import pytest
from operator_cases import (
    MODES,
    MXNETS,
    WITHOUT_GRADIENT,
    arrays,
    floats,
    network,
    ours,
    theirs,
    weighted_sum,
)

import cvops


def pooling(F, op, x, rois, uses):
    """A sum of ``uses`` poolings of one tensor."""
    out = 0
    for i in range(uses):
        pool = F.ROIPooling if op == "theirs" else F.contrib.cvops_ROIPooling
        out = out + pool(x, rois, pooled_size=(2, 2), spatial_scale=1 / (1 + i)) * (i + 1)
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("uses", [1, 2, 7, 8, 9, 20])
@pytest.mark.parametrize("direct", [True, False], ids=["input", "inner tensor"])
def test_gradient_of_a_tensor_with_several_consumers_equals_mxnets(
    mx, operators, uses, grad_req, mode, direct
):
    """From 8 consumers on, MXNet sums the gradients of a static graph in place."""
    data, rois = floats(1, 2, 8, 8), mx.nd.array([[0, 0, 0, 7, 7], [0, 2, 2, 5, 5]])

    def gradient(op, mode):
        def forward(F, x, rois):
            return pooling(F, op, x if direct else x * 2, rois, uses)

        net, x = network(mx, forward, mode), mx.nd.array(data)
        x.attach_grad(grad_req)
        for _ in range(2):
            with mx.autograd.record():
                out = net(x, rois)
            out.backward()
        return x.grad.asnumpy()

    np.testing.assert_allclose(
        gradient("ours", mode), gradient("theirs", "eager"), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", MXNETS)
def test_gradient_equals_that_of_mxnets_operator(mx, operators, op, mode):
    def gradients(call, grad_req):
        inputs, options = arrays(mx, op)
        net = network(mx, lambda F, *args: call(F, op)(*args, **options), mode)
        for x in inputs:
            x.attach_grad(grad_req)
            x.grad[:] = 7
        with mx.autograd.record():
            loss = weighted_sum(mx, net(*inputs))
        loss.backward()
        return [x.grad.asnumpy() for x in inputs]

    if op in WITHOUT_GRADIENT:
        want = [np.zeros(x.shape, np.float32) for x in arrays(mx, op)[0]]
    else:
        want = gradients(theirs, "write")
    for got, expected in zip(gradients(ours, "write"), want):
        np.testing.assert_array_equal(got, expected)
    # The reference is not MXNet's "add": its box_nms overwrites the gradient.
    for got, expected in zip(gradients(ours, "add"), want):
        np.testing.assert_array_equal(got, expected + np.float32(7))


@pytest.mark.parametrize("mode", MODES)
def test_op_without_a_gradient_adds_zero_to_the_gradient(mx, operators, mode):
    """The loss is 3 * cls_pred + targets; after two steps the gradient is 2 * 3."""
    inputs, _ = arrays(mx, "MultiBoxTarget")
    cls_pred = inputs[2]
    cls_pred.attach_grad("add")

    def forward(F, anchor, label, cls_pred):
        target = F.contrib.cvops_MultiBoxTarget(anchor, label, cls_pred)
        return (cls_pred * 3).sum() + target[0].sum()

    net = network(mx, forward, mode)
    for _ in range(2):
        with mx.autograd.record():
            loss = net(*inputs)
        loss.backward()
    assert (cls_pred.grad.asnumpy() == 6).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradients_of_kinds_of_iou_equal_the_array_function(mx, operators, kind, mode):
    inputs, _ = arrays(mx, "box_iou")
    net = network(mx, lambda F, *args: F.contrib.cvops_box_iou(*args, kind=kind), mode)
    weights = mx.nd.array(floats(3, 4, 2, 5))
    for x in inputs:
        x.attach_grad()
    with mx.autograd.record():
        loss = (net(*inputs) * weights).sum()
    loss.backward()
    numpy = [x.asnumpy() for x in (weights, *inputs)]
    for x, want in zip(inputs, cvops.box_iou_backward(*numpy, kind=kind)):
        np.testing.assert_array_equal(x.grad.asnumpy(), want)
        x.grad[:] = 0
    with mx.autograd.record():
        loss = (cvops.box_iou(*inputs, kind=kind) * weights).sum()
    loss.backward()
    for x, want in zip(inputs, cvops.box_iou_backward(*numpy, kind=kind)):
        np.testing.assert_array_equal(x.grad.asnumpy(), want)


@pytest.mark.parametrize("mode", MODES)
def test_bilinear_resize_to_the_size_of_an_array_has_both_gradients(mx, operators, mode):
    """MXNet's operator aborts the process if both inputs have other users too."""
    inputs = [mx.nd.array(floats(2, 3, 5, 7)), mx.nd.array(floats(1, 2, 8, 4))]
    net = network(mx, lambda F, *args: F.contrib.cvops_BilinearResize2D(*args, mode="like"), mode)
    weights = mx.nd.array(floats(2, 3, 8, 4))
    for call in (net, lambda *args: cvops.bilinear_resize(*args, mode="like")):
        for x in inputs:
            x.attach_grad("add")
            x.grad[:] = 7
        with mx.autograd.record():
            out = call(*inputs)
            loss = (out * weights).sum() + sum((3 * x).sum() for x in inputs)
        loss.backward()
        want = mx.nd.contrib.BilinearResize2D(*inputs, mode="like")
        np.testing.assert_array_equal(out.asnumpy(), want.asnumpy())
        grad = cvops.bilinear_resize_backward(weights.asnumpy(), inputs[0].shape)
        np.testing.assert_array_equal(inputs[0].grad.asnumpy(), grad + np.float32(3) + 7)
        assert (inputs[1].grad.asnumpy() == 10).all()


@pytest.mark.parametrize("mode", MODES)
def test_deformable_pooling_without_offsets_has_two_inputs_as_in_mxnet(mx, operators, mode):
    inputs, options = arrays(mx, "DeformablePSROIPooling")
    data, rois, _ = inputs

    def results(call):
        def forward(F, *args):
            return call(F, "DeformablePSROIPooling")(*args, **options, no_trans=True)

        data.attach_grad()
        net = network(mx, forward, mode)
        with mx.autograd.record():
            out = net(data, rois)
            loss = weighted_sum(mx, out)
        loss.backward()
        return out.asnumpy(), data.grad.asnumpy()

    for got, want in zip(results(ours), results(theirs)):
        assert want.any()
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", MODES)
def test_bilinear_upsample_gradient_equals_the_array_function(mx, operators, mode):
    inputs, options = arrays(mx, "bilinear_upsample")
    net = network(mx, lambda F, x: F.contrib.cvops_bilinear_upsample(x, **options), mode)
    weights = mx.nd.array(floats(2, 3, 16, 20))
    inputs[0].attach_grad("add")
    inputs[0].grad[:] = 7
    with mx.autograd.record():
        loss = (net(*inputs) * weights).sum()
    loss.backward()
    np.testing.assert_array_equal(
        inputs[0].grad.asnumpy(),
        cvops.bilinear_upsample_backward(weights.asnumpy(), **options) + np.float32(7),
    )
