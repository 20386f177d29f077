"""PyTorch: gradients, the tensors and transformations that are refused, and ``torch.compile``."""

import copy
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


def boxes(num):
    return torch.from_numpy(np.sort(RNG.random((num, 2, 2), np.float32), axis=1).reshape(num, 4))


def whole(*shape):
    """Small whole numbers, whose sums are exact in float32, all different."""
    size = int(np.prod(shape))
    return torch.from_numpy(RNG.permutation(size).astype(np.float32).reshape(shape))


def rows(num):
    """Rows (class, score, x1, y1, x2, y2)."""
    kinds = torch.from_numpy(RNG.integers(0, 2, (num, 1)).astype(np.float32))
    return torch.cat([kinds, whole(num, 1) / 64 + 0.25, boxes(num)], dim=1)


def pool(x, backend=None):
    return cvops.roi_pooling(x, ROIS, (2, 2), 0.5, backend=backend)


def suppress(x, backend=None):
    return cvops.box_nms(x, id_index=0, topk=12, backend=backend)


def upsample(x, backend=None):
    return cvops.bilinear_upsample(x, 2, backend=backend)


def pool_plainly(x):
    """The same by indexing, which PyTorch differentiates."""
    _, argmax = cvops.roi_pooling(x.detach(), ROIS, (2, 2), 0.5, return_argmax=True)
    picked = x.reshape(-1)[argmax.clamp(min=0).long()]
    return torch.where(argmax < 0, torch.zeros(()), picked)


def suppress_plainly(x):
    _, index = cvops.box_nms(x.detach(), id_index=0, topk=12, return_index=True)
    return torch.where(index[..., None] < 0, torch.full((), -1.0), x[index.clamp(min=0).long()])


def upsample_plainly(x):
    channels = x.shape[1]
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight = (line[:, None] * line).expand(channels, 1, 4, 4)
    return torch.nn.functional.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


DIFFERENTIABLE = [
    pytest.param(pool, pool_plainly, lambda: whole(2, 3, 6, 6), id="roi_pooling"),
    pytest.param(suppress, suppress_plainly, lambda: rows(20), id="box_nms"),
    pytest.param(upsample, upsample_plainly, lambda: whole(2, 3, 4, 5), id="bilinear_upsample"),
]
differentiable = pytest.mark.parametrize(("op", "plain", "data"), DIFFERENTIABLE)


def image(*shape):
    return torch.from_numpy(RNG.integers(0, 2, shape).astype(np.uint8))


#: Calls of ops without a gradient, of a tensor that may require one.
PREDICTIONS = torch.softmax(torch.from_numpy(RNG.random((1, 3, 20), np.float32)), 1)
ANCHORS = boxes(20)[None]
MAP, OFFSETS, COLORS = whole(1, 1, 3, 4), torch.zeros(1, 80), torch.eye(3, dtype=torch.uint8)
LABEL = torch.tensor([[[0, 0.1, 0.1, 0.6, 0.7]]])
WITHOUT = {
    "box_iou": (lambda x, **k: cvops.box_iou(x, x, **k), ANCHORS),
    "multibox_prior": (lambda x, **k: cvops.multibox_prior(x, (0.2, 0.4), **k), whole(1, 1, 2, 3)),
    "multibox_priors": (
        lambda x, **k: cvops.multibox_priors([x, MAP], [0.2, 0.4], [1, (1, 2)], **k),
        whole(1, 1, 2, 3),
    ),
    "multibox_target": (
        lambda x, **k: cvops.multibox_target(ANCHORS, LABEL, x, negative_mining_ratio=3, **k),
        PREDICTIONS,
    ),
    "multibox_detection": (
        lambda x, **k: cvops.multibox_detection(x, OFFSETS, ANCHORS, **k),
        PREDICTIONS,
    ),
    "multiclass_nms": (lambda x, **k: cvops.multiclass_nms(ANCHORS, x, **k), PREDICTIONS),
}
#: Calls of ops of integers.
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


def listed(out):
    return list(out) if isinstance(out, tuple) else [out]


def gradient(op, x, weight):
    """The gradient of ``op`` at ``x`` of a weighted sum, with a part beside ``op``."""
    x = x.detach().clone().requires_grad_()
    out = op(x)
    assert out.requires_grad
    ((out * weight).sum() + 2 * x.sum()).backward()
    return x.grad


class TestGradients:
    @differentiable
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_are_those_of_a_plain_formula(self, op, plain, data, backend):
        x = data()
        weight = whole(*op(x).shape)
        found = gradient(lambda x: op(x, backend), x, weight)
        expected = gradient(plain, x, weight)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
        assert torch.equal(op(x), op(x.clone().requires_grad_()).detach())

    @differentiable
    def test_of_an_input_that_is_not_contiguous(self, op, plain, data):
        x = data().transpose(-1, -2).contiguous().transpose(-1, -2)
        assert not x.is_contiguous()
        weight = whole(*op(x).shape).transpose(-1, -2).contiguous().transpose(-1, -2)
        found = gradient(op, x, weight)
        torch.testing.assert_close(found, gradient(plain, x, weight), rtol=1e-6, atol=1e-4)

    @differentiable
    def test_do_not_read_an_input_that_is_changed_later(self, op, plain, data):
        x = data()
        leaf = x.clone().requires_grad_()
        changed = leaf * 1
        out = op(changed)
        changed.zero_()
        out.sum().backward()
        expected = gradient(plain, x, torch.ones(())) - 2
        torch.testing.assert_close(leaf.grad, expected * (leaf.grad != 0), rtol=1e-6, atol=1e-4)

    @differentiable
    def test_pass_through_hooks_and_changes_of_the_result(self, op, plain, data):
        x = data().requires_grad_()
        y = x * 1
        y.register_hook(lambda grad: 3 * grad)
        out = op(y)
        out.mul_(2)
        out.sum().backward()
        expected = 6 * (gradient(plain, x, torch.ones(())) - 2)
        torch.testing.assert_close(x.grad, expected, rtol=1e-6, atol=1e-4)

    @differentiable
    def test_are_not_kept_where_pytorch_keeps_none(self, op, plain, data):
        x = data().requires_grad_()
        with torch.no_grad():
            assert not op(x).requires_grad
        with torch.inference_mode():
            out = op(x)
            assert out.is_inference()
        torch.testing.assert_close(out, op(x.detach()), rtol=0, atol=0)
        assert not op(x.detach()).requires_grad

    @differentiable
    def test_of_a_parameter_and_other_subclasses(self, op, plain, data):
        class Marked(torch.Tensor):
            pass

        x = data()
        for y in (torch.nn.Parameter(x), x.as_subclass(Marked).requires_grad_()):
            op(y).sum().backward()
            expected = gradient(plain, x, torch.ones(())) - 2
            torch.testing.assert_close(
                y.grad.as_subclass(torch.Tensor), expected, rtol=1e-6, atol=1e-4
            )

    @differentiable
    def test_twice_are_an_error_that_names_the_op(self, op, plain, data, request):
        x = data().requires_grad_()
        (first,) = torch.autograd.grad((op(x) ** 2).sum(), x, create_graph=True)
        name = request.node.callspec.id
        with pytest.raises(RuntimeError, match=f"{name}: trying to differentiate twice"):
            first.sum().backward()

    def test_of_rois_are_zeros(self):
        rois = ROIS.clone().requires_grad_()
        x = whole(2, 3, 6, 6).requires_grad_()
        cvops.roi_pooling(x, rois, (2, 2), 0.5).sum().backward()
        assert torch.equal(rois.grad, torch.zeros_like(rois))
        assert x.grad.sum() == 3 * 3 * 4
        only = ROIS.clone().requires_grad_()
        cvops.roi_pooling(x.detach(), only, (2, 2), 0.5).sum().backward()
        assert torch.equal(only.grad, torch.zeros_like(only))

    def test_are_of_the_first_of_two_results(self):
        x = whole(2, 3, 6, 6).requires_grad_()
        out, argmax = cvops.roi_pooling(x, ROIS, (2, 2), 0.5, return_argmax=True)
        assert out.requires_grad
        assert not argmax.requires_grad
        assert argmax.dtype == torch.int32
        data = rows(20).requires_grad_()
        out, index = cvops.box_nms(data, return_index=True)
        assert (out.requires_grad, index.requires_grad) == (True, False)
        out[:, 2:].sum().backward()
        assert torch.equal(data.grad[:, 2:].sum(0), (index >= 0).sum().float().expand(4))

    @pytest.mark.parametrize("name", WITHOUT)
    def test_of_the_others_there_are_none(self, name):
        op, x = WITHOUT[name]
        expected = listed(op(x))
        for out, same in zip(listed(op(x.clone().requires_grad_())), expected):
            assert not out.requires_grad
            assert torch.equal(out, same)
        assert "gradient" in getattr(cvops, name).__doc__

    def test_in_a_copied_model_under_checkpointing(self):
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
    return lambda x: sum(y.sum() for y in listed(op(x)))


TRANSFORMATIONS = {
    "jit.trace": (trace, "torch.jit.trace.*as a constant"),
    "export": (export, "FakeTensor.*torch.export"),
    "make_fx-real": (make_fx("real"), "make_fx"),
    "make_fx-fake": (make_fx("fake"), "FakeTensor"),
    "make_fx-symbolic": (make_fx("symbolic"), "FakeTensor"),
    "fake": (fake, "FakeTensor"),
    "fake-mode": (real_in_fake_mode, "FakeTensorMode"),
    "fx": (symbolic_trace, "Proxy.*torch.fx.wrap"),
}
OF_VALUES = {
    "vmap": (lambda op, x: torch.func.vmap(op)(x[None]), "torch.func.vmap.*leading axes"),
    "grad": (lambda op, x: torch.func.grad(scalar(op))(x), "torch.func.grad.*requires_grad_"),
    "jvp": (lambda op, x: torch.func.jvp(op, (x,), (x,)), "torch.func.grad, vjp or jvp"),
    "jacrev": (lambda op, x: torch.func.jacrev(scalar(op))(x), "torch.func.grad, vjp or jvp"),
}
CALLS = {
    "roi_pooling": (pool, whole(2, 3, 6, 6)),
    "box_nms": (suppress, rows(20)),
    "bilinear_upsample": (upsample, whole(2, 3, 4, 5)),
    **WITHOUT,
    **OF_INTEGERS,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.(trace|script).*:DeprecationWarning")
class TestTransformations:
    """Each is refused: it would store a result as a constant, or lose a gradient."""

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("transformation", TRANSFORMATIONS)
    def test_that_trace(self, transformation, name):
        transform, message = TRANSFORMATIONS[transformation]
        op, x = CALLS[name]
        with pytest.raises(NotImplementedError, match=f": expected a tensor .*{message}"):
            transform(op, x)
        listed(op(x))  # afterwards a call works

    @pytest.mark.parametrize(
        ("transformation", "name"),
        [
            (transformation, name)
            for transformation in OF_VALUES
            for name, (_, x) in CALLS.items()
            if "multibox_prior" not in name and (transformation == "vmap" or x.is_floating_point())
        ],
    )
    def test_of_values(self, transformation, name):
        transform, message = OF_VALUES[transformation]
        op, x = CALLS[name]
        with pytest.raises(NotImplementedError, match=f": expected a tensor .*{message}"):
            transform(op, x)

    def test_do_not_matter_to_an_op_that_reads_shapes_only(self):
        def op(x):
            return cvops.multibox_prior(x, (0.2, 0.4)).sum() + (x**2).sum()

        x = whole(1, 1, 2, 3)
        assert torch.equal(torch.func.grad(op)(x), 2 * x)

    def test_do_not_matter_to_other_tensors(self):
        fixed = boxes(5)
        found = torch.func.vmap(lambda x: x + cvops.box_iou(fixed, fixed).sum())(torch.zeros(3))
        assert torch.equal(found, cvops.box_iou(fixed, fixed).sum().expand(3))

    def test_do_not_see_a_tensor_that_requires_a_gradient(self):
        x = whole(2, 3, 6, 6).requires_grad_()
        with pytest.raises(NotImplementedError, match=r"roi_pooling: expected .*torch.func.grad"):
            torch.func.grad(lambda y: (y * pool(x)).sum())(torch.ones(()))

    def test_forward_mode(self):
        ad = torch.autograd.forward_ad
        x = whole(2, 3, 6, 6)
        with ad.dual_level():
            with pytest.raises(NotImplementedError, match=r"roi_pooling: .*forward-mode AD"):
                pool(ad.make_dual(x, torch.ones_like(x)))
            assert torch.equal(pool(x), pool_plainly(x))

    def test_a_mode_that_only_watches_is_no_transformation(self):
        from torch.utils._python_dispatch import TorchDispatchMode

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                return function(*args, **(kwargs or {}))

        x = whole(2, 3, 6, 6).requires_grad_()
        with Watch():
            out = pool(x)
        assert torch.equal(out.detach(), pool(x).detach())
        assert out.requires_grad


class TestTensors:
    """Tensors that are not plain memory."""

    def test_a_negative_bit_is_resolved(self):
        x = torch.complex(whole(2, 3, 6, 6), -whole(2, 3, 6, 6)).conj().imag
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
    )
    def test_another_dtype_is_refused_with_its_conversion(self, dtype, remedy):
        name = str(dtype).rpartition(".")[2]
        with pytest.raises(TypeError, match=f"lhs: expected float32, got {name}{remedy}"):
            cvops.box_iou(torch.zeros((3, 4), dtype=dtype), boxes(5))

    @pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
    def test_a_quantized_tensor_is_refused(self):
        x = torch.quantize_per_tensor(boxes(5), 0.1, 0, torch.quint8)
        with pytest.raises(TypeError, match="lhs: expected float32, got quint8"):
            cvops.box_iou(x, boxes(5))

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_nested_tensors_are_refused(self):
        x = [boxes(5), boxes(6)]
        for layout in (torch.strided, torch.jagged):
            with pytest.raises(TypeError, match=r"lhs: expected a tensor with .*, got"):
                cvops.box_iou(torch.nested.nested_tensor(x, layout=layout), boxes(5))

    @pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
    def test_a_masked_tensor_is_refused(self):
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
            return [out + 1 for out in test_torch.listed(op(y, backend=backend))]

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
    for op, x in test_torch.CALLS.values():
        for backend in (None, "numpy"):
            run(op, x, backend)
    assert traced <= {{test_torch.__file__, __file__}} and traced, traced
"""


class TestCompile:
    @pytest.mark.parametrize("imports", ["import cvops, torch", "import torch, cvops"])
    def test_gives_the_eager_results_and_traces_nothing_of_ours(self, imports, tmp_path):
        script = tmp_path / "compiled.py"
        script.write_text(textwrap.dedent(COMPILED.format(imports=imports)))
        # In a process of its own, where the tracer is imported after both or after one.
        path = [*sys.path, str(Path(__file__).parent)]
        code = f"import sys, runpy; sys.path[:] = {path!r}; runpy.run_path({str(script)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    # The tracer reads the gradient of each tensor between two graphs, and so warns itself.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_gives_the_eager_gradients(self):
        x = whole(2, 3, 6, 6)

        def function(x):
            return upsample(pool(x * 2)) * 3

        compiled = torch.compile(function, backend="eager")
        weight = whole(*function(x).shape)
        assert torch.equal(gradient(compiled, x, weight), gradient(function, x, weight))

    @pytest.mark.parametrize("name", CALLS)
    def test_of_a_full_graph_is_an_error_that_says_why(self, name):
        op, x = CALLS[name]
        compiled = torch.compile(lambda x: listed(op(x)), backend="eager", fullgraph=True)
        message = f"{name}[^$]*cvops computes outside of the graphs of torch.compile"
        with pytest.raises(torch._dynamo.exc.Unsupported, match=message):
            compiled(x)
