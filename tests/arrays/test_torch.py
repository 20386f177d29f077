"""PyTorch: gradients, refused tensors, refused transformations, and ``torch.compile``."""

import copy
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import cvops

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
BACKENDS = [None, "numpy", "native", "emulated"]
ROIS = torch.tensor([[0.0, 0, 0, 3, 3], [1, 2, 1, 5, 4], [0, 1, 1, 9, 9]])


#: Offsets of (x, y) for 2 x 2 parts. All positions are multiples of 1/16.
TRANS = torch.from_numpy(RNG.integers(-2, 3, (3, 2, 2, 2)).astype(np.float32) / 2)


def boxes(num):
    return torch.from_numpy(np.sort(RNG.random((num, 2, 2), np.float32), axis=1).reshape(num, 4))


def integers(*shape):
    """Return a permutation of small integers as float32, whose sums are exact."""
    size = int(np.prod(shape))
    return torch.from_numpy(RNG.permutation(size).astype(np.float32).reshape(shape))


def rows(num):
    """Return rows (class, score, x1, y1, x2, y2)."""
    classes = torch.from_numpy(RNG.integers(0, 2, (num, 1)).astype(np.float32))
    return torch.cat([classes, integers(num, 1) / 64 + 0.25, boxes(num)], dim=1)


def pool(x, backend=None):
    return cvops.roi_pooling(x, ROIS, (2, 2), 0.5, backend=backend)


def average(x, backend=None):
    return cvops.adaptive_avg_pooling(x, (2, 3), backend=backend)


def align(x, backend=None):
    return cvops.roi_align(x, ROIS, (2, 2), 0.5, 2, backend=backend)


def resize(x, backend=None):
    return cvops.bilinear_resize(x, height=7, width=5, align_corners=False, backend=backend)


def resize_like(x, backend=None):
    return cvops.bilinear_resize(x, torch.zeros(1, 1, 3, 9), mode="like", backend=backend)


def pool_by_position(x, backend=None):
    return cvops.psroi_pooling(x, ROIS, 0.5, 3, 3, 2, backend=backend)


def deform(x, backend=None, trans=None):
    trans = TRANS if trans is None else trans
    options = {"sample_per_part": 2, "trans_std": 0.5, "backend": backend}
    return cvops.deformable_psroi_pooling(x, ROIS, trans, 0.5, 3, 2, 2, **options)


def deform_still(x, backend=None):
    options = {"sample_per_part": 2, "no_trans": True, "backend": backend}
    return cvops.deformable_psroi_pooling(x, ROIS, None, 0.5, 3, 2, 2, **options)


def suppress(x, backend=None):
    return cvops.box_nms(x, id_index=0, topk=12, backend=backend)


def rotated_rows(num):
    """Return rows (class, score, x, y, width, height, angle)."""
    turns = torch.from_numpy(RNG.uniform(-180, 180, (num, 1)).astype(np.float32))
    return torch.cat([rows(num), turns], dim=1)


def suppress_rotated(x, backend=None):
    return cvops.nms_rotated(x, 0.2, id_index=0, topk=12, backend=backend)


def upsample(x, backend=None):
    return cvops.bilinear_upsample(x, 2, backend=backend)


# The references take values at the indices that the ops return; PyTorch differentiates them.


def reference_pool(x):
    _, argmax = cvops.roi_pooling(x.detach(), ROIS, (2, 2), 0.5, return_argmax=True)
    picked = x.reshape(-1)[argmax.clamp(min=0).long()]
    return torch.where(argmax < 0, torch.zeros(()), picked)


def reference_align(x):
    """Four bilinear samples in each bin, by the weights of all pixels."""

    def weights(first, last, size):
        length = (last - first).clamp(min=1)
        position = (first + length * (torch.arange(4) + 0.5) / 4).clamp(min=0)
        inside = position <= size
        position = position.clamp(max=size - 1)
        near = (1 - (position[:, None] - torch.arange(size)).abs()).clamp(min=0)
        return (near * inside[:, None]).reshape(2, 2, size).mean(dim=1)

    means = []
    for index, *corners in ROIS:
        x1, y1, x2, y2 = (corner * 0.5 for corner in corners)
        rows, columns = weights(y1, y2, x.shape[2]), weights(x1, x2, x.shape[3])
        means.append(torch.einsum("ih,chw,jw->cij", rows, x[int(index)], columns))
    return torch.stack(means)


def reference_pool_by_position(x):
    """The mean of each bin from its channels and its pixels."""
    means = []
    for index, *corners in ROIS:
        left, top, right, bottom = (corner.item() / 2 for corner in corners)
        width, height = (right + 0.5 - left) / 3, (bottom + 0.5 - top) / 3
        for channel in range(3):
            for i in range(3):
                for j in range(3):
                    plane = x[int(index), (channel * 2 + i * 2 // 3) * 2 + j * 2 // 3]
                    rows = slice(math.floor(top + i * height), math.ceil(top + (i + 1) * height))
                    columns = slice(math.floor(left + j * width), math.ceil(left + (j + 1) * width))
                    means.append(plane[rows, columns].mean())
    return torch.stack(means).reshape(-1, 3, 3, 3)


def reference_deform(x, trans=None):
    """Two bilinear samples along each axis of a bin, by the weights of all pixels."""
    trans = TRANS if trans is None else trans

    def weights(first, last, i, offset, size):
        begin = first / 2 - 0.5
        length = (last + 1) / 2 - 0.5 - begin
        position = begin + (i + torch.arange(2) / 2) * length / 2 + offset * 0.5 * length
        inside = (position >= -0.5) & (position <= size - 0.5)
        position = position.clamp(0, size - 1)
        near = (1 - (position[:, None] - torch.arange(size)).abs()).clamp(min=0)
        return near[inside]

    means = []
    for n, (index, x1, y1, x2, y2) in enumerate(ROIS):
        for channel in range(3):
            for i in range(2):
                for j in range(2):
                    plane = x[int(index), (channel * 2 + i) * 2 + j]
                    rows = weights(y1, y2, i, trans[n, 1, i, j], x.shape[2])
                    columns = weights(x1, x2, j, trans[n, 0, i, j], x.shape[3])
                    found = rows @ plane @ columns.T
                    means.append(found.mean() if found.numel() else found.sum())
    return torch.stack(means).reshape(3, 3, 2, 2)


def reference_suppress(x):
    _, index = cvops.box_nms(x.detach(), id_index=0, topk=12, return_index=True)
    return torch.where(index[..., None] < 0, torch.full((), -1.0), x[index.clamp(min=0).long()])


def reference_suppress_rotated(x):
    _, index = cvops.nms_rotated(x.detach(), 0.2, id_index=0, topk=12, return_index=True)
    return torch.where(index[..., None] < 0, torch.full((), -1.0), x[index.clamp(min=0).long()])


def reference_average(x):
    return torch.nn.functional.adaptive_avg_pool2d(x, (2, 3))


def reference_resize(x):
    return torch.nn.functional.interpolate(x, (7, 5), mode="bilinear")


def reference_resize_like(x):
    return torch.nn.functional.interpolate(x, (3, 9), mode="bilinear", align_corners=True)


def reference_upsample(x):
    channels = x.shape[1]
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight = (line[:, None] * line).expand(channels, 1, 4, 4)
    return torch.nn.functional.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


DIFFERENTIABLE = [
    pytest.param(
        average, reference_average, lambda: integers(2, 3, 5, 7), id="adaptive_avg_pooling"
    ),
    pytest.param(resize, reference_resize, lambda: integers(2, 3, 4, 6), id="bilinear_resize"),
    pytest.param(
        resize_like, reference_resize_like, lambda: integers(2, 3, 5, 5), id="bilinear_resize like"
    ),
    pytest.param(pool, reference_pool, lambda: integers(2, 3, 6, 6), id="roi_pooling"),
    pytest.param(align, reference_align, lambda: integers(2, 3, 6, 6), id="roi_align"),
    pytest.param(
        pool_by_position,
        reference_pool_by_position,
        lambda: integers(2, 12, 6, 6),
        id="psroi_pooling",
    ),
    pytest.param(
        deform,
        reference_deform,
        lambda: integers(2, 12, 6, 6),
        id="deformable_psroi_pooling",
    ),
    pytest.param(suppress, reference_suppress, lambda: rows(20), id="box_nms"),
    pytest.param(
        suppress_rotated, reference_suppress_rotated, lambda: rotated_rows(20), id="nms_rotated"
    ),
    pytest.param(
        upsample, reference_upsample, lambda: integers(2, 3, 4, 5), id="bilinear_upsample"
    ),
]
differentiable = pytest.mark.parametrize(("op", "reference", "data"), DIFFERENTIABLE)


def image(*shape):
    return torch.from_numpy(RNG.integers(0, 2, shape).astype(np.uint8))


PREDICTIONS = torch.softmax(torch.from_numpy(RNG.random((1, 3, 20), np.float32)), 1)
ANCHORS = boxes(20)[None]
MAP, OFFSETS, COLORS = integers(1, 1, 3, 4), torch.zeros(1, 80), torch.eye(3, dtype=torch.uint8)
SAMPLES, SCALE = (torch.ones(1, 20), torch.zeros(1, 20)), (torch.zeros(4), torch.ones(4))
DELTAS = OFFSETS.reshape(1, 8, 2, 5)
SIZE, RPN = torch.tensor([[32.0, 80.0, 1.0]]), dict(scales=(1, 2), ratios=(1,))
TURNED = torch.zeros(2, 6)
NOISE, THREE = torch.zeros(1, 21), boxes(3)
LABEL = torch.tensor([[[0, 0.1, 0.1, 0.6, 0.7]]])
#: op without a gradient -> (call, a float tensor).
WITHOUT_GRADIENT = {
    "rroi_align": (
        lambda x, **k: cvops.rroi_align(x, TURNED, (2, 2), 1.0, **k),
        integers(1, 2, 3, 4),
    ),
    "bipartite_matching": (
        lambda x, **k: cvops.bipartite_matching(x, threshold=0.3, **k),
        PREDICTIONS,
    ),
    "box_decode": (
        lambda x, **k: cvops.box_decode(x, ANCHORS, **k),
        torch.from_numpy(RNG.random((2, 20, 4), np.float32)),
    ),
    "box_encode": (lambda x, **k: cvops.box_encode(*SAMPLES, ANCHORS, x, *SCALE, **k), ANCHORS),
    "box_iou": (lambda x, **k: cvops.box_iou(x, x, **k), ANCHORS),
    "box_iou_rotated": (
        lambda x, **k: cvops.box_iou_rotated(x, x, **k),
        torch.from_numpy(RNG.random((20, 5), np.float32)),
    ),
    "multibox_prior": (
        lambda x, **k: cvops.multibox_prior(x, (0.2, 0.4), **k),
        integers(1, 1, 2, 3),
    ),
    "multibox_priors": (
        lambda x, **k: cvops.multibox_priors([x, MAP], [0.2, 0.4], [1, (1, 2)], **k),
        integers(1, 1, 2, 3),
    ),
    "multibox_target": (
        lambda x, **k: cvops.multibox_target(ANCHORS, LABEL, x, negative_mining_ratio=3, **k),
        PREDICTIONS,
    ),
    "multibox_detection": (
        lambda x, **k: cvops.multibox_detection(x, OFFSETS, ANCHORS, **k),
        PREDICTIONS,
    ),
    "matrix_nms": (cvops.matrix_nms, torch.from_numpy(RNG.random((9, 6), np.float32))),
    "soft_nms": (cvops.soft_nms, torch.from_numpy(RNG.random((9, 6), np.float32))),
    "weighted_boxes_fusion": (
        cvops.weighted_boxes_fusion,
        torch.from_numpy(RNG.random((9, 6), np.float32)),
    ),
    "multi_proposal": (
        lambda x, **k: cvops.multi_proposal(x, DELTAS, SIZE, **RPN, **k),
        torch.from_numpy(RNG.random((1, 4, 2, 5), np.float32)),
    ),
    "multiclass_nms": (lambda x, **k: cvops.multiclass_nms(ANCHORS, x, **k), PREDICTIONS),
    "mask_target": (
        lambda x, **k: cvops.mask_target(ANCHORS, x, *SAMPLES, 20, 2, (3, 3), **k),
        torch.ones(1, 2, 5, 5),
    ),
    "match_anchors": (lambda x, **k: cvops.match_anchors(x, THREE, **k), ANCHORS),
    "paste_masks": (
        lambda x, **k: cvops.paste_masks(x, THREE, (8, 8), **k),
        torch.ones(3, 5, 5),
    ),
    "rcnn_target": (
        lambda x, **k: cvops.rcnn_target(x, LABEL, NOISE, num_sample=4, **k),
        ANCHORS,
    ),
    "rpn_target": (lambda x, **k: cvops.rpn_target(x, LABEL, SAMPLES[1], **k), ANCHORS),
}
#: op of integers -> (call, a tensor).
OF_INTEGERS = {
    "label_from_color": (
        lambda x, **k: cvops.label_from_color(x, COLORS, **k),
        image(4, 5, 3),
    ),
    "confusion_matrix": (
        lambda x, **k: cvops.confusion_matrix(x, x, 2, **k),
        image(1, 4, 5).int(),
    ),
}


def as_list(out):
    return list(out) if isinstance(out, tuple) else [out]


def gradient(op, x, weight):
    """Return the gradient at ``x`` of the weighted sum of ``op(x)`` plus the sum of ``2 * x``."""
    x = x.detach().clone().requires_grad_()
    out = op(x)
    assert out.requires_grad
    ((out * weight).sum() + 2 * x.sum()).backward()
    return x.grad


class TestGradients:
    @differentiable
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_gradients_match_the_reference(self, op, reference, data, backend):
        x = data()
        weight = integers(*op(x).shape)
        found = gradient(lambda x: op(x, backend), x, weight)
        expected = gradient(reference, x, weight)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
        assert torch.equal(op(x), op(x.clone().requires_grad_()).detach())

    @differentiable
    def test_gradients_of_a_strided_input_match_the_reference(self, op, reference, data):
        x = data().transpose(-1, -2).contiguous().transpose(-1, -2)
        assert not x.is_contiguous()
        weight = integers(*op(x).shape).transpose(-1, -2).contiguous().transpose(-1, -2)
        found = gradient(op, x, weight)
        torch.testing.assert_close(found, gradient(reference, x, weight), rtol=1e-6, atol=1e-4)

    @differentiable
    def test_gradients_do_not_depend_on_later_changes_of_the_input(self, op, reference, data):
        x = data()
        leaf = x.clone().requires_grad_()
        changed = leaf * 1
        out = op(changed)
        changed.zero_()
        if op is deform:  # its gradient needs the input
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                out.sum().backward()
            return
        out.sum().backward()
        expected = gradient(reference, x, torch.ones(())) - 2
        torch.testing.assert_close(leaf.grad, expected * (leaf.grad != 0), rtol=1e-6, atol=1e-4)

    @differentiable
    def test_gradients_pass_hooks_and_in_place_changes_of_the_result(self, op, reference, data):
        x = data().requires_grad_()
        y = x * 1
        y.register_hook(lambda grad: 3 * grad)
        out = op(y)
        out.mul_(2)
        out.sum().backward()
        expected = 6 * (gradient(reference, x, torch.ones(())) - 2)
        torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-4)

    @differentiable
    def test_result_without_grad_mode_requires_no_gradient(self, op, reference, data):
        x = data().requires_grad_()
        with torch.no_grad():
            assert not op(x).requires_grad
        with torch.inference_mode():
            out = op(x)
            assert out.is_inference()
        torch.testing.assert_close(out, op(x.detach()), rtol=0, atol=0)
        assert not op(x.detach()).requires_grad

    @differentiable
    def test_subclasses_of_tensors_have_gradients(self, op, reference, data):
        class Marked(torch.Tensor):
            pass

        x = data()
        for y in (torch.nn.Parameter(x), x.as_subclass(Marked).requires_grad_()):
            op(y).sum().backward()
            expected = gradient(reference, x, torch.ones(())) - 2
            torch.testing.assert_close(
                y.grad.as_subclass(torch.Tensor), expected, rtol=1e-6, atol=1e-4
            )

    @differentiable
    def test_second_derivative_is_refused_with_the_name_of_the_op(
        self, op, reference, data, request
    ):
        x = data().requires_grad_()
        (first,) = torch.autograd.grad((op(x) ** 2).sum(), x, create_graph=True)
        name = request.node.callspec.id.partition(" ")[0]
        with pytest.raises(RuntimeError, match=f"{name}: trying to differentiate twice"):
            first.sum().backward()

    def test_gradients_of_rois_are_zeros(self):
        rois = ROIS.clone().requires_grad_()
        x = integers(2, 3, 6, 6).requires_grad_()
        cvops.roi_pooling(x, rois, (2, 2), 0.5).sum().backward()
        assert torch.equal(rois.grad, torch.zeros_like(rois))
        assert x.grad.sum() == 3 * 3 * 4
        only = ROIS.clone().requires_grad_()
        cvops.roi_pooling(x.detach(), only, (2, 2), 0.5).sum().backward()
        assert torch.equal(only.grad, torch.zeros_like(only))

    def test_gradient_of_the_maps_whose_size_counts_is_zero(self):
        x, like = integers(2, 3, 6, 6), torch.ones(1, 1, 3, 4).requires_grad_()
        out = cvops.bilinear_resize(x, like, mode="like")
        out.sum().backward()
        assert torch.equal(like.grad, torch.zeros_like(like))

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
    def test_kinds_of_iou_have_gradients_of_both_inputs(self, kind, backend):
        lhs, rhs = boxes(7).requires_grad_(), boxes(5).requires_grad_()
        out = cvops.box_iou(lhs, rhs, kind=kind, backend=backend)
        weight = integers(7, 5)
        (out * weight).sum().backward()
        want = cvops.box_iou_backward(weight, lhs.detach(), rhs.detach(), kind=kind)
        assert torch.equal(lhs.grad, want[0])
        assert torch.equal(rhs.grad, want[1])
        only = boxes(5).requires_grad_()
        cvops.box_iou(lhs.detach(), only, kind=kind, backend=backend).sum().backward()
        assert only.grad.abs().sum() > 0

    def test_second_derivative_of_an_iou_is_refused(self):
        x = boxes(3).requires_grad_()
        out = cvops.box_iou(x, boxes(4), kind="giou")
        (first,) = torch.autograd.grad((out**2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="box_iou: trying to differentiate twice"):
            first.sum().backward()

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_bins_without_offsets_have_a_gradient(self, backend):
        x, weight = integers(2, 12, 6, 6), integers(3, 3, 2, 2)
        found = gradient(lambda x: deform_still(x, backend), x, weight)
        expected = gradient(lambda x: reference_deform(x, torch.zeros(3, 2, 2, 2)), x, weight)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_offsets_of_bins_have_gradients(self, backend):
        x, weight = integers(2, 12, 6, 6), integers(3, 3, 2, 2)
        # Between pixels: at a pixel, the slope is not unique.
        found, expected = ((TRANS + 0.13).requires_grad_() for _ in range(2))
        (deform(x, backend, found) * weight).sum().backward()
        (reference_deform(x, expected) * weight).sum().backward()
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=0.1)

    def test_second_derivative_for_offsets_is_refused(self):
        trans = TRANS.clone().requires_grad_()
        out = deform(integers(2, 12, 6, 6), trans=trans)
        (first,) = torch.autograd.grad((out**2).sum(), trans, create_graph=True)
        with pytest.raises(RuntimeError, match="psroi_pooling: trying to differentiate twice"):
            first.sum().backward()

    def test_only_the_first_of_two_results_requires_a_gradient(self):
        x = integers(2, 3, 6, 6).requires_grad_()
        out, argmax = cvops.roi_pooling(x, ROIS, (2, 2), 0.5, return_argmax=True)
        assert out.requires_grad
        assert not argmax.requires_grad
        assert argmax.dtype == torch.int32
        data = rows(20).requires_grad_()
        out, index = cvops.box_nms(data, return_index=True)
        assert (out.requires_grad, index.requires_grad) == (True, False)
        out[:, 2:].sum().backward()
        assert torch.equal(data.grad[:, 2:].sum(0), (index >= 0).sum().float().expand(4))

    @pytest.mark.parametrize("name", WITHOUT_GRADIENT)
    def test_results_of_other_ops_require_no_gradient(self, name):
        op, x = WITHOUT_GRADIENT[name]
        expected = as_list(op(x))
        for out, same in zip(as_list(op(x.clone().requires_grad_())), expected):
            assert not out.requires_grad
            assert torch.equal(out, same)
        assert "gradient" in getattr(cvops, name).__doc__

    def test_checkpointing_of_a_copied_model_gives_the_same_gradients(self):
        from torch.utils.checkpoint import checkpoint

        net = torch.nn.Conv2d(1, 3, 3, padding=1)
        x = torch.rand(2, 1, 6, 6)
        pool(net(x)).sum().backward()
        other = copy.deepcopy(net)
        other.zero_grad()
        checkpoint(lambda x: pool(other(x)), x, use_reentrant=False).sum().backward()
        assert torch.equal(net.weight.grad, other.weight.grad)
        assert net.weight.grad.abs().sum() > 0


def make_fx(mode):
    from torch.fx.experimental.proxy_tensor import make_fx

    return lambda op, x: make_fx(lambda x: op(x), tracing_mode=mode)(x)


def export(op, x):
    class Module(torch.nn.Module):
        def forward(self, x):
            return op(x)

    return torch.export.export(Module(), (x,))


def fake(op, x):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        return op(mode.from_tensor(x))


def real_in_fake_mode(op, x):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return op(x)


def trace(op, x):
    return torch.jit.trace(op, (x,))


def symbolic_trace(op, x):
    return torch.fx.symbolic_trace(lambda x: op(x))


def scalar(op):
    return lambda x: sum(y.sum() for y in as_list(op(x)))


#: Transformations that trace: name -> (transformation, part of the message).
TRACERS = {
    "jit.trace": (trace, "torch.jit.trace.*as a constant"),
    "export": (export, "FakeTensor.*torch.export"),
    "make_fx-real": (make_fx("real"), "make_fx"),
    "make_fx-fake": (make_fx("fake"), "FakeTensor"),
    "make_fx-symbolic": (make_fx("symbolic"), "FakeTensor"),
    "fake": (fake, "FakeTensor"),
    "fake-mode": (real_in_fake_mode, "FakeTensorMode"),
    "fx": (symbolic_trace, "Proxy.*torch.fx.wrap"),
}
#: Transformations of values: name -> (transformation, part of the message).
TRANSFORMS = {
    "vmap": (lambda op, x: torch.func.vmap(op)(x[None]), "torch.func.vmap.*leading axes"),
    "grad": (lambda op, x: torch.func.grad(scalar(op))(x), "torch.func.grad.*requires_grad_"),
    "jvp": (lambda op, x: torch.func.jvp(op, (x,), (x,)), "torch.func.grad, vjp or jvp"),
    "jacrev": (lambda op, x: torch.func.jacrev(scalar(op))(x), "torch.func.grad, vjp or jvp"),
}
CALLS = {
    "bilinear_resize": (resize, integers(2, 3, 4, 6)),
    "adaptive_avg_pooling": (average, integers(2, 3, 5, 7)),
    "roi_align": (align, integers(2, 3, 6, 6)),
    "roi_pooling": (pool, integers(2, 3, 6, 6)),
    "deformable_psroi_pooling": (deform, integers(2, 12, 6, 6)),
    "psroi_pooling": (pool_by_position, integers(2, 12, 6, 6)),
    "box_nms": (suppress, rows(20)),
    "nms_rotated": (suppress_rotated, rotated_rows(20)),
    "bilinear_upsample": (upsample, integers(2, 3, 4, 5)),
    **WITHOUT_GRADIENT,
    **OF_INTEGERS,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.(trace|script).*:DeprecationWarning")
class TestTransformations:
    """A transformation is refused if it would lose a gradient or store a result as a constant."""

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("tracer", TRACERS)
    def test_transformation_that_traces_is_refused(self, tracer, name):
        transform, message = TRACERS[tracer]
        op, x = CALLS[name]
        with pytest.raises(NotImplementedError, match=f": expected a tensor .*{message}"):
            transform(op, x)
        op(x)  # a later call works

    @pytest.mark.parametrize(
        ("transformation", "name"),
        [
            (transformation, name)
            for transformation in TRANSFORMS
            for name, (_, x) in CALLS.items()
            if "multibox_prior" not in name and (transformation == "vmap" or x.is_floating_point())
        ],
    )
    def test_transformation_of_values_is_refused(self, transformation, name):
        transform, message = TRANSFORMS[transformation]
        op, x = CALLS[name]
        with pytest.raises(NotImplementedError, match=f": expected a tensor .*{message}"):
            transform(op, x)

    def test_transformation_of_an_op_of_shapes_works(self):
        def op(x):
            return cvops.multibox_prior(x, (0.2, 0.4)).sum() + (x**2).sum()

        x = integers(1, 1, 2, 3)
        assert torch.equal(torch.func.grad(op)(x), 2 * x)

    def test_op_on_an_outer_tensor_works_in_vmap(self):
        fixed = boxes(5)
        found = torch.func.vmap(lambda x: x + cvops.box_iou(fixed, fixed).sum())(torch.zeros(3))
        assert torch.equal(found, cvops.box_iou(fixed, fixed).sum().expand(3))

    def test_outer_tensor_that_requires_a_gradient_is_refused_in_grad(self):
        x = integers(2, 3, 6, 6).requires_grad_()
        with pytest.raises(NotImplementedError, match=r"roi_pooling: expected .*torch.func.grad"):
            torch.func.grad(lambda y: (y * pool(x)).sum())(torch.ones(()))

    def test_forward_mode_is_refused_for_dual_tensors(self):
        ad = torch.autograd.forward_ad
        x = integers(2, 3, 6, 6)
        with ad.dual_level():
            with pytest.raises(NotImplementedError, match=r"roi_pooling: .*forward-mode AD"):
                pool(ad.make_dual(x, torch.ones_like(x)))
            assert torch.equal(pool(x), reference_pool(x))

    def test_dispatch_mode_that_changes_nothing_is_allowed(self):
        from torch.utils._python_dispatch import TorchDispatchMode

        class Observer(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                return function(*args, **(kwargs or {}))

        x = integers(2, 3, 6, 6).requires_grad_()
        with Observer():
            out = pool(x)
        assert torch.equal(out.detach(), pool(x).detach())
        assert out.requires_grad


class TestTensors:
    """Tensors without strided memory of a supported dtype."""

    def test_tensor_with_a_negative_bit_gives_the_right_result(self):
        x = torch.complex(integers(2, 3, 6, 6), -integers(2, 3, 6, 6)).conj().imag
        assert x.is_neg()
        assert torch.equal(pool(x), pool(x.resolve_neg()))

    @pytest.mark.parametrize("convert", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
    @pytest.mark.filterwarnings("ignore:Sparse CSR")
    def test_another_layout_is_refused(self, convert):
        x = getattr(boxes(6), convert)()
        message = r"lhs: expected a dense tensor, got layout .*: convert it by \.to_dense\(\)"
        with pytest.raises(TypeError, match=message):
            cvops.box_iou(x, boxes(5))
        with pytest.raises(TypeError, match="rhs: expected a dense tensor"):
            cvops.box_iou(boxes(5), x)

    @pytest.mark.parametrize(
        ("dtype", "remedy"),
        [
            (torch.float64, r": convert it by \.to\(torch.float32\)$"),
            (torch.float16, r": convert it by \.to\(torch.float32\)$"),
            (torch.bfloat16, r": convert it by \.to\(torch.float32\)$"),
            (torch.int64, r": convert it by \.to\(torch.float32\)$"),
            (torch.bool, r": convert it by \.to\(torch.float32\)$"),
            (torch.complex64, "$"),
        ],
        ids=["float64", "float16", "bfloat16", "int64", "bool", "complex64"],
    )
    def test_another_dtype_is_refused_with_its_conversion(self, dtype, remedy):
        name = str(dtype).rpartition(".")[2]
        with pytest.raises(TypeError, match=f"rhs: expected float32.*, got {name}{remedy}"):
            cvops.box_iou(boxes(5), torch.zeros((3, 4), dtype=dtype))

    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
    def test_quantized_tensor_is_refused(self):
        x = torch.quantize_per_tensor(boxes(5), 0.1, 0, torch.quint8)
        with pytest.raises(TypeError, match=r"lhs: expected float32, .*, got quint8"):
            cvops.box_iou(x, boxes(5))

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_nested_tensor_is_refused(self):
        x = [boxes(5), boxes(6)]
        for layout in (torch.strided, torch.jagged):
            with pytest.raises(TypeError, match=r"lhs: expected a tensor with .*, got"):
                cvops.box_iou(torch.nested.nested_tensor(x, layout=layout), boxes(5))

    @pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
    def test_masked_tensor_is_refused(self):
        x = torch.masked.masked_tensor(boxes(5), torch.ones(5, 4, dtype=torch.bool))
        with pytest.raises(TypeError, match=r"lhs: expected a tensor .*, got a MaskedTensor"):
            cvops.box_iou(x, boxes(5))


COMPILED = """
    import warnings
    {imports}
    import test_torch
    warnings.simplefilter("error")

    def run(op, x, backend):
        def function(x):
            y = x + 0
            return [out + 1 for out in test_torch.as_list(op(y, backend=backend))]

        torch._dynamo.reset()
        expected, compiled = function(x), torch.compile(function, backend="eager")
        for _ in range(2):
            for out, same in zip(compiled(x), expected):
                assert torch.equal(out, same), (op, backend)

    run(*test_torch.CALLS["multibox_prior"], "numpy")
    traced = set()
    original = torch._dynamo.convert_frame.compile_frame
    def compile_frame(code, *args, **options):
        traced.add(code.co_filename)
        return original(code, *args, **options)
    torch._dynamo.convert_frame.compile_frame = compile_frame
    for op, x in list(test_torch.CALLS.values())[:{count}]:
        for backend in (None, "numpy"):
            run(op, x, backend)
    assert traced <= {{test_torch.__file__, __file__}} and traced, traced

    # Without cvops.torch, which puts the ops into the graph.
    for name, (op, x) in list(test_torch.CALLS.items())[:{count}]:
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda x: test_torch.as_list(op(x)), backend="eager", fullgraph=True
        )
        try:
            compiled(x)
        except torch._dynamo.exc.Unsupported as error:
            assert name in str(error), (name, error)
            assert "cvops computes outside of the graphs of torch.compile" in str(error), error
        else:
            raise AssertionError(name)
"""


class TestCompile:
    @pytest.mark.parametrize(
        ("imports", "count"),
        [
            ("import cvops, torch", len(CALLS)),
            pytest.param("import torch, cvops", 2, marks=pytest.mark.slow),
        ],
    )
    def test_compiled_calls_give_the_eager_results_and_no_full_graph(
        self, imports, count, tmp_path
    ):
        script = tmp_path / "compiled.py"
        script.write_text(textwrap.dedent(COMPILED.format(imports=imports, count=count)))
        # The order of the imports matters, so each order gets a new process.
        path = [*sys.path, str(Path(__file__).parent)]
        code = f"import sys, runpy; sys.path[:] = {path!r}; runpy.run_path({str(script)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    # The tracer itself reads the attribute that causes this warning.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_compiled_calls_give_the_eager_gradients(self):
        x = integers(2, 3, 6, 6)

        def function(x):
            return upsample(pool(x * 2)) * 3

        compiled = torch.compile(function, backend="eager")
        weight = integers(*function(x).shape)
        assert torch.equal(gradient(compiled, x, weight), gradient(function, x, weight))
