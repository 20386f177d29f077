"""``torch.ops.cvops``: results, gradients, and the transformations of PyTorch."""

import contextlib
import inspect
import math
import threading
import time

import numpy as np
import pytest

import cvops

torch = pytest.importorskip("torch")
pytest.importorskip("cvops._native")

from in_threads import run_in_threads  # noqa: E402
from operator_calls import CASES as ARRAYS  # noqa: E402
from operator_calls import DIFFERENTIABLE, as_list, public  # noqa: E402

import cvops.torch  # noqa: E402
from cvops.ops._results import ALL_RESULTS  # noqa: E402
from cvops.torch import build  # noqa: E402

#: op -> the tensors and the options of a call.
CASES = {
    name: ({key: torch.from_numpy(x) for key, x in arrays.items()}, options)
    for name, (arrays, options) in ARRAYS.items()
}


#: A small image with two RoIs.
IMAGE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) % 17
ROIS = torch.tensor([[0.0, 0, 0, 5, 5], [1, 2, 2, 7, 7]])


def packet(name):
    return getattr(torch.ops.cvops, name).default


def equal(a, b):
    return len(a) == len(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
        for x, y in zip(a, b)
    )


@pytest.fixture(params=["cpu", "emulated", "cuda"])
def device(request):
    """The device of the tensors. "emulated" computes CPU tensors by the code for GPUs."""
    if request.param == "cuda" and not (torch.cuda.is_available() and build.has_kernels()):
        pytest.skip("needs an NVIDIA GPU and its driver")
    if request.param != "emulated":
        yield request.param
        return
    from emulator import backends

    backends.use_for_mxnet()
    build.library().cvops_compute_through_gpu(1)
    yield "cpu"
    build.library().cvops_compute_through_gpu(0)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_public_function(device, name):
    tensors, options = CASES[name]
    want = public(name, {key: x.numpy() for key, x in tensors.items()}, options)
    given = {key: x.to(device) for key, x in tensors.items()}
    got = [x.cpu().numpy() for x in as_list(packet(name)(**given, **options))]
    assert equal(got, want)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_public_function(device, name):
    tensors, options = CASES[name]
    if name == "box_iou":
        options = {**options, "kind": "giou"}
    grads = []
    calls = (packet(name), device), (lambda **args: public(name, tensors | args, {}), "cpu")
    for function, where in calls:
        given = {key: x.to(where).clone().requires_grad_() for key, x in tensors.items()}
        out = as_list(function(**given, **options))[0]
        weight = torch.arange(out.numel(), dtype=torch.float32, device=where)
        weight = weight.reshape(out.shape)
        found = torch.autograd.grad(out, list(given.values()), weight, allow_unused=True)
        # The public function has zeros where the operator has no gradient.
        grads.append([torch.zeros(0) if x is None or not x.any() else x.cpu() for x in found])
    assert any(x.numel() for x in grads[0])
    assert equal(*([x.numpy() for x in found] for found in grads))


@pytest.mark.parametrize("name", CASES)
def test_opcheck_passes(name):
    tensors, options = CASES[name]
    given = {
        key: x.clone().requires_grad_(name in DIFFERENTIABLE and x.is_floating_point())
        for key, x in tensors.items()
    }
    torch.library.opcheck(packet(name), (), {**given, **options})


@pytest.mark.parametrize("name", CASES)
def test_schema_has_the_arguments_and_the_defaults_of_the_public_function(name):
    parameters = inspect.signature(getattr(cvops, name)).parameters
    arguments = packet(name)._schema.arguments
    want = [x for x in parameters if x not in (*ALL_RESULTS, "backend", "like")]
    assert [x.name for x in arguments if x.name != "like"] == want
    for argument in arguments:
        if argument.has_default_value() and argument.default_value is not None:
            default = parameters[argument.name].default
            got = argument.default_value
            assert got == (list(default) if isinstance(default, tuple) else default), argument


class TestTracers:
    def test_compiled_function_with_public_functions_is_one_graph(self):
        def function(x):
            boxes = cvops.box_nms(x, 0.3, id_index=0, topk=5)
            rows, index = cvops.box_nms(x, return_index=True)
            iou = cvops.box_iou(rows[..., 2:6], boxes[..., 2:6], kind="giou")
            return iou.sum() + index.sum()

        x = CASES["box_nms"][0]["data"]
        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x), function(x))

    def test_compiled_gradient_is_the_eager_one(self):
        def function(x):
            return torch.ops.cvops.roi_pooling(x * 2, ROIS, (2, 2), 1.0)[0].square().sum()

        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        for f in (compiled, function):
            x = IMAGE.clone().requires_grad_()
            f(x).backward()
            assert torch.equal(x.grad, torch.func.grad(function)(IMAGE))

    def test_exported_program_takes_other_sizes(self):
        class Module(torch.nn.Module):
            def forward(self, x, rois):
                return torch.ops.cvops.roi_align(x, rois, (2, 2), 0.5, 2)

        dim = torch.export.Dim
        sizes = {"x": {0: dim("n"), 2: dim("h"), 3: dim("w")}, "rois": {0: dim("k")}}
        program = torch.export.export(Module(), (IMAGE, ROIS), dynamic_shapes=sizes).module()
        x, rois = IMAGE[:1, :, :5], ROIS[:1]
        assert torch.equal(program(x, rois), Module()(x, rois))

    def test_shape_of_a_bad_call_is_an_error_in_a_tracer(self):
        def function(x):
            return torch.ops.cvops.box_iou(x, x[:, :3])

        with pytest.raises(Exception, match=r"rhs: expected shape"):
            torch.compile(function, backend="eager", fullgraph=True)(torch.zeros(2, 4))


class TestTransformations:
    def test_vmap_gives_the_result_of_each_entry(self):
        x = torch.stack([IMAGE, IMAGE + 1, IMAGE.flip(-1)])

        def function(x, rois):
            return torch.ops.cvops.roi_pooling(x, rois, (2, 2), 1.0)

        pooled, argmax = torch.func.vmap(function, in_dims=(0, None))(x, ROIS)
        for i in range(3):
            want = function(x[i], ROIS)
            assert torch.equal(pooled[i], want[0])
            assert torch.equal(argmax[i], want[1])

    def test_vmap_of_a_gradient_gives_that_of_each_entry(self):
        def function(x):
            return torch.ops.cvops.roi_align(x, ROIS, (2, 2), 1.0, 2).square().sum()

        x = torch.stack([IMAGE, IMAGE.flip(-1)])
        found = torch.func.vmap(torch.func.grad(function))(x)
        for i in range(2):
            assert torch.equal(found[i], torch.func.grad(function)(x[i]))

    def test_autocast_computes_in_float32(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = torch.ops.cvops.roi_align(IMAGE.bfloat16(), ROIS, (2, 2), 1.0, 2)
        want = torch.ops.cvops.roi_align(IMAGE.bfloat16().float(), ROIS, (2, 2), 1.0, 2)
        assert torch.equal(found, want)

    def test_second_derivative_is_an_error_that_names_the_op(self):
        x = IMAGE.clone().requires_grad_()
        out = torch.ops.cvops.roi_align(x, ROIS, (2, 2), 1.0, 2).square().sum()
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"cvops::roi_align: .* differentiate twice"):
            grad.sum().backward()

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
    def test_forward_mode_is_an_error_that_names_the_op(self):
        with pytest.raises(NotImplementedError, match=r"cvops::roi_align .* forward-mode"):
            torch.func.jvp(
                lambda x: torch.ops.cvops.roi_align(x, ROIS, (2, 2), 1.0), (IMAGE,), (IMAGE,)
            )

    def test_result_without_a_gradient_does_not_require_one(self):
        x = CASES["multiclass_nms"][0]
        rows, count = torch.ops.cvops.multiclass_nms(x["boxes"], x["scores"].requires_grad_())
        assert not rows.requires_grad
        assert not count.requires_grad

    def test_second_backward_pass_is_refused(self):
        x = IMAGE.clone().requires_grad_()
        out = torch.ops.cvops.roi_align(x, ROIS, (2, 2), 1.0, 2).sum()
        out.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            out.backward()


BAD = {
    "dtype": (lambda f: f(torch.zeros(2, 4), torch.zeros(2, 4).double()), TypeError,
              r"rhs: expected float32 as lhs, got (float64|double): convert it by "),
    "shape": (lambda f: f(torch.zeros(2, 4), torch.zeros(3)), ValueError,
              r"rhs: expected shape \(\.\.\., 4\), got \(3,\)"),
    "word": (lambda f: f(torch.zeros(2, 4), torch.zeros(2, 4), "x"), ValueError,
             r"format: expected one of \['corner', 'center'\], got 'x'"),
    "layout": (lambda f: f(torch.zeros(2, 4).to_sparse(), torch.zeros(2, 4)), NotImplementedError,
               "'cvops::box_iou' with arguments from the 'SparseCPU' backend"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_argument_is_an_error_that_names_it(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.ops.cvops.box_iou)


BOXES = torch.zeros(1, 3, 6)
REFUSED = {
    "number of one digit": ("soft_nms", (BOXES,), {"sigma": -0.7}),
    "number of 17 digits": ("soft_nms", (BOXES,), {"sigma": -0.1 - 0.2}),
    "number without a fraction": ("soft_nms", (BOXES,), {"sigma": -1.0}),
    "small number": ("soft_nms", (BOXES,), {"valid_thresh": -1.5e-7}),
    "number out of limits": ("roi_align", (IMAGE, ROIS, (2, 2), 1.7), {}),
    "infinity out of limits": ("roi_align", (IMAGE, ROIS, (2, 2), math.inf), {}),
    "NaN": ("box_nms", (BOXES, math.nan), {}),
    "list with NaN": ("multibox_prior", (IMAGE, [0.7, math.nan]), {}),
    "list of another length": ("multibox_prior", (IMAGE,), {"steps": (0.1, 0.2, 0.3)}),
    "list of two signs": ("multibox_prior", (IMAGE,), {"steps": (-0.7, 1.0)}),
    "word": ("soft_nms", (BOXES, "gauss"), {}),
    "one of four words": ("box_iou", (BOXES[..., :4], BOXES[..., :4], "corner", "IoU"), {}),
    "large integer": ("box_nms", (BOXES,), {"topk": 2**31}),
}


@pytest.mark.parametrize(("name", "args", "options"), REFUSED.values(), ids=REFUSED)
def test_error_is_that_of_the_public_function(name, args, options):
    with pytest.raises(ValueError, match="expected") as ours:
        getattr(torch.ops.cvops, name)(*args, **options)
    arrays = [x.numpy() if isinstance(x, torch.Tensor) else x for x in args]
    with pytest.raises(ValueError, match="expected") as public:
        getattr(cvops, name)(*arrays, **options)
    assert str(ours.value) == f"cvops::{name}: {public.value}"


def test_inputs_without_elements_give_results_without_elements():
    assert torch.ops.cvops.box_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert torch.ops.cvops.roi_align(IMAGE, ROIS[:0], (2, 2), 1.0).shape == (0, 3, 2, 2)
    rows, index = torch.ops.cvops.box_nms(torch.zeros(2, 0, 6))
    assert (rows.shape, index.shape) == ((2, 0, 6), (2, 0))


def test_tensor_that_is_not_contiguous_gives_the_result_of_its_copy():
    x = IMAGE.permute(0, 1, 3, 2)
    found = torch.ops.cvops.roi_align(x, ROIS, (2, 2), 1.0)
    assert torch.equal(found, torch.ops.cvops.roi_align(x.contiguous(), ROIS, (2, 2), 1.0))


def test_graph_is_not_freed_while_another_thread_runs_it():
    """The first thread waits between two saved tensors. The second one would free them."""
    began, grads = threading.Event(), {}

    def unpack(x):
        if threading.current_thread().name == "first":
            began.set()
            time.sleep(0.1)
        return x

    x = IMAGE.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, unpack):
        total = cvops.torch.roi_align(x, ROIS, 4).sum()

    def work(name):
        threading.current_thread().name = name
        if name == "second":
            began.wait(30)
        with contextlib.suppress(RuntimeError):  # the graph is freed
            (grads[name],) = torch.autograd.grad(total, x)

    run_in_threads(work, ["first", "second"])
    (expected,) = torch.autograd.grad(cvops.torch.roi_align(x, ROIS, 4).sum(), x)
    assert torch.equal(grads["first"], expected)
