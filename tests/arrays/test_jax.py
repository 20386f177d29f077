"""Arrays of JAX: eager calls, and ``cvops.jax`` under JAX's transformations."""

import numpy as np
import pytest

import cvops

jax = pytest.importorskip("jax")
pytest.importorskip("cvops._native")

from jax.experimental import enable_x64  # noqa: E402
from operator_calls import CASES, DIFFERENTIABLE, as_list, public  # noqa: E402

import cvops.jax as ops  # noqa: E402

jnp = jax.numpy


IMAGE = jnp.asarray(np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8) % 17)
ROIS = jnp.asarray([[0.0, 0, 0, 5, 5], [1, 2, 2, 7, 7]])


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@pytest.fixture(params=["cpu", "emulated"])
def device(request):
    """ "emulated" computes arrays on the CPU by the code for GPUs."""
    from emulator import backends

    from cvops.jax import build

    if request.param == "emulated":
        backends.use_for_mxnet()
        build.library().cvops_compute_through_gpu(1)
    yield
    build.library().cvops_compute_through_gpu(0)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_numpy_arrays(device, name):
    arrays, options = CASES[name]
    with enable_x64(name == "confusion_matrix"):
        given = {key: jnp.asarray(x) for key, x in arrays.items()}
        want = public(name, arrays, options)
        traced = jax.jit(lambda given: getattr(ops, name)(**given, **options))
        for got in (getattr(ops, name)(**given, **options), traced(given)):
            got = as_list(got)
            assert len(got) == len(want)
            assert all(map(same, got, want))
        plain = public(name, given, options)
        assert all(isinstance(x, jax.Array) for x in plain)
        assert all(map(same, plain, want))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_operators_of_pytorch(device, name):
    torch = pytest.importorskip("torch")
    import cvops.torch  # noqa: F401

    arrays, options = CASES[name]
    if name == "box_iou":
        options = {**options, "kind": "giou"}

    def loss(given):
        out = as_list(getattr(ops, name)(**given, **options))[0]
        return (out * jnp.arange(out.size, dtype=out.dtype).reshape(out.shape)).sum()

    found = jax.grad(loss)({key: jnp.asarray(x) for key, x in arrays.items()})
    given = {key: torch.from_numpy(x).requires_grad_() for key, x in arrays.items()}
    out = as_list(getattr(torch.ops.cvops, name)(**given, **options))[0]
    weight = torch.arange(out.numel(), dtype=torch.float32).reshape(out.shape)
    (out * weight).sum().backward()
    assert any(x.grad is not None for x in given.values())
    for key, x in given.items():
        want = np.zeros_like(arrays[key]) if x.grad is None else x.grad.numpy()
        assert same(found[key], want), key


def test_vmap_gives_the_result_of_each_entry():
    x = jnp.stack([IMAGE, IMAGE + 1, IMAGE[..., ::-1]])
    pooled, argmax = jax.vmap(lambda x: ops.roi_pooling(x, ROIS, (2, 2), 1.0))(x)
    for i in range(3):
        want = ops.roi_pooling(x[i], ROIS, (2, 2), 1.0)
        assert same(pooled[i], want[0])
        assert same(argmax[i], want[1])


def test_gradient_of_an_op_without_one_is_zero():
    arrays = {key: jnp.asarray(x) for key, x in CASES["multiclass_nms"][0].items()}

    def loss(scores):
        return ops.multiclass_nms(arrays["boxes"], scores)[0].sum() + 2 * scores.sum()

    found = jax.grad(loss)(arrays["scores"])
    assert same(found, jnp.full_like(arrays["scores"], 2))


def test_second_derivative_is_an_error():
    def loss(x):
        return ops.roi_align(x, ROIS, (2, 2), 1.0, 2).sum()

    for second in (jax.hessian(loss), jax.grad(lambda x: jax.grad(loss)(x).sum())):
        with pytest.raises(NotImplementedError, match="ROIAlign: expected a first derivative, got"):
            second(IMAGE)


BOXES = jnp.zeros((2, 4))
BAD = {
    "shape": (lambda: ops.box_iou(BOXES, BOXES[:, :3]), ValueError,
              r"rhs: expected shape .* got \(2, 3\)"),
    "dtype": (lambda: ops.box_iou(BOXES, BOXES.astype(jnp.float16)), TypeError,
              r"rhs: expected float32 as lhs, got float16: convert it by \.astype"),
    "library": (lambda: ops.box_iou(BOXES, np.zeros((2, 4), np.float32)), TypeError,
                r"rhs: expected an array of JAX, got ndarray: convert it by jax\.numpy\.asarr"),
    "name": (lambda: ops.box_iou(BOXES, BOXES, knd="giou"), TypeError,
             "box_iou: got an unexpected keyword argument 'knd'"),
    "word": (lambda: ops.box_iou(BOXES, BOXES, "x"), ValueError, "format: expected one of"),
    "option": (lambda: ops.roi_align(IMAGE, ROIS, (2, 2), jnp.ones(())), TypeError,
               "spatial_scale: expected a value of Python"),
    "x64": (lambda: ops.confusion_matrix(jnp.zeros(2, int), jnp.zeros(2, int), 2), TypeError,
            "confusion_matrix: the result is int64"),
    "op": (lambda: ops.no_op, AttributeError, "has no attribute 'no_op'"),
    "tracer": (lambda: jax.jit(cvops.box_iou)(BOXES, BOXES), NotImplementedError,
               "lhs: expected an array with values, .* import cvops.jax"),
    "mixed": (lambda: cvops.box_iou(BOXES, np.zeros((2, 4), np.float32)), TypeError,
              "lhs is a JAX array on the CPU and rhs a NumPy array"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_argument_is_an_error_that_names_it(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_module_lists_its_ops():
    assert {*CASES} == {*dir(ops)}


def test_old_jax_is_an_error_with_the_version(monkeypatch):
    from cvops.jax import build

    monkeypatch.delattr(jax, "ffi")
    monkeypatch.setattr(jax, "__version__", "0.4.30")
    with pytest.raises(ImportError, match=r"cvops\.jax: expected JAX 0\.5 or later, got 0\.4\.30"):
        build.recipe()
