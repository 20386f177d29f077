"""float64, float16 and bfloat16 through the operators of PyTorch, JAX and MXNet."""

import ml_dtypes
import numpy as np
import pytest
from operator_calls import CASES, as_list, public

import cvops
from cvops.backends.operators import OPERATORS

pytest.importorskip("cvops._native")
DTYPES = {"float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
#: The operators that take ``DTYPES``.
ANY_FLOAT = [operator.npx_name for operator in OPERATORS if operator.any_float]
DIFFERENTIABLE = [x.npx_name for x in OPERATORS if x.any_float and x.differentiable]


def case(name, dtype):
    arrays, options = CASES[name]
    return {key: x.astype(dtype) for key, x in arrays.items()}, options


def bits(x):
    return x.view(f"u{x.itemsize}") if x.dtype.kind != "i" else x


def assert_same(got, want):
    got, want = list(map(np.asarray, got)), list(map(np.asarray, want))
    assert [x.dtype for x in got] == [x.dtype for x in want]
    for x, y in zip(got, want):
        np.testing.assert_array_equal(bits(x), bits(y))


def test_the_table_has_the_ops_whose_functions_take_any_float():
    from cvops.ops import box_iou, box_nms

    assert box_iou._OP.specs["lhs"].is_float
    assert box_nms._OP.specs["data"].is_float
    for operator in OPERATORS:
        text = getattr(cvops, operator.npx_name).__doc__
        assert ("float32, float64 or half" in text) == operator.any_float, operator.name


class TestTorch:
    @pytest.fixture
    def torch(self):
        torch = pytest.importorskip("torch")
        import cvops.torch  # noqa: F401

        return torch

    @pytest.fixture(params=["cpu", pytest.param("emulated", marks=pytest.mark.slow)])
    def through(self, request, torch):
        """Compute on the CPU, or by the code for GPUs."""
        from emulator import backends

        from cvops.torch import build

        if request.param == "emulated":
            backends.use_for_mxnet()
            build.library().cvops_compute_through_gpu(1)
        yield
        build.library().cvops_compute_through_gpu(0)

    @pytest.fixture(params=DTYPES)
    def dtype(self, request, torch):
        return getattr(torch, request.param)

    def tensors(self, torch, name, dtype):
        arrays, options = CASES[name]
        return {key: torch.from_numpy(x).to(dtype) for key, x in arrays.items()}, options

    def numpy(self, torch, x):
        if x.dtype == torch.bfloat16:
            return x.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return x.detach().numpy()

    @pytest.mark.parametrize("name", ANY_FLOAT)
    def test_results_are_those_of_numpy_arrays(self, torch, through, dtype, name):
        tensors, options = self.tensors(torch, name, dtype)
        arrays = {key: self.numpy(torch, x) for key, x in tensors.items()}
        found = as_list(getattr(torch.ops.cvops, name)(**tensors, **options))
        assert_same([self.numpy(torch, x) for x in found], public(name, arrays, options))
        eager = public(name, tensors, options)
        assert_same([self.numpy(torch, x) for x in eager], [self.numpy(torch, x) for x in found])

    @pytest.mark.parametrize("name", DIFFERENTIABLE)
    def test_gradients_are_those_of_the_public_function(self, torch, dtype, name):
        tensors, options = self.tensors(torch, name, dtype)
        options = {**options, "kind": "giou"} if name == "box_iou" else options
        grads = []
        for function in (getattr(torch.ops.cvops, name), getattr(cvops, name)):
            given = {key: x.clone().requires_grad_() for key, x in tensors.items()}
            out = as_list(function(**given, **options))[0]
            assert out.dtype == dtype
            found = torch.autograd.grad(
                out, list(given.values()), torch.ones_like(out), allow_unused=True
            )
            assert all(x is None or x.dtype == dtype for x in found)
            # The public function has zeros where the operator has no gradient.
            kept = [x for x in found if x is not None and x.any()]
            grads.append([self.numpy(torch, x) for x in kept])
        assert grads[0]
        assert_same(*grads)

    def test_gradients_of_float64_pass_gradcheck(self, torch):
        ops = torch.ops.cvops
        generator = torch.Generator().manual_seed(0)

        def random(*shape):
            x = torch.rand(shape, generator=generator, dtype=torch.float64)
            return x.requires_grad_()

        rois = torch.tensor([[0, 0.3, 0.4, 6.2, 5.1], [0, 1, 1, 4, 7]], dtype=torch.float64)
        low, other = random(4, 2), random(3, 2)
        assert torch.autograd.gradcheck(
            lambda x: ops.roi_align(x, rois, (2, 3), 1.0, 2), random(1, 2, 8, 9)
        )
        assert torch.autograd.gradcheck(
            lambda x: ops.roi_pooling(x, rois, (2, 3), 1.0)[0], random(1, 2, 8, 9)
        )
        assert torch.autograd.gradcheck(lambda x: ops.bilinear_upsample(x, 3), random(1, 2, 4, 5))
        assert torch.autograd.gradcheck(
            lambda a, b: ops.box_iou(
                torch.cat([a, a + 0.8], 1), torch.cat([b, b + 0.7], 1), "corner", "diou"
            ),
            (low, other),
        )

    @pytest.mark.parametrize("name", ["box_iou", "roi_align", "box_nms", "multiclass_nms"])
    def test_opcheck_passes(self, torch, dtype, name):
        tensors, options = self.tensors(torch, name, dtype)
        torch.library.opcheck(getattr(torch.ops.cvops, name).default, (), {**tensors, **options})

    def test_two_dtypes_are_refused_by_the_name_of_the_second(self, torch):
        box = torch.zeros(1, 4)
        message = "rhs: expected float32 as lhs, got (float64|double)"
        with pytest.raises(TypeError, match=message):
            torch.ops.cvops.box_iou(box, box.double())
        message = "lhs: expected float32, float64, float16 or bfloat16, got (int32|int)"
        with pytest.raises(TypeError, match=message):
            torch.ops.cvops.box_iou(box.int(), box.int())


class TestJax:
    @pytest.fixture
    def jax(self):
        return pytest.importorskip("jax")

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ANY_FLOAT)
    def test_results_and_gradients_are_those_of_numpy_arrays(self, jax, dtype, name):
        import cvops.jax as ops

        arrays, options = case(name, DTYPES[dtype])
        with jax.experimental.enable_x64(True):
            given = {key: jax.numpy.asarray(x) for key, x in arrays.items()}
            found = as_list(jax.jit(lambda x: getattr(ops, name)(**x, **options))(given))
            assert_same(found, public(name, arrays, options))
            assert_same(public(name, given, options), found)
            if name in DIFFERENTIABLE:

                def loss(x):
                    return as_list(getattr(ops, name)(**x, **options))[0].sum()

                grads = jax.grad(loss)(given)
                assert all(x.dtype == DTYPES[dtype] for x in grads.values())


class TestMxnet:
    @pytest.mark.parametrize("dtype", ["float64", "float16"])
    @pytest.mark.parametrize("name", ANY_FLOAT)
    def test_results_are_those_of_numpy_arrays(self, mx, dtype, name):
        import cvops.mxnet  # noqa: F401

        operator = next(x for x in OPERATORS if x.npx_name == name)
        arrays, options = case(name, dtype)
        given = [mx.nd.array(x, dtype=dtype) for x in arrays.values()]
        function = getattr(mx.nd.contrib, f"cvops_{operator.name}")
        for x in given:
            x.attach_grad()
        with mx.autograd.record():
            found = as_list(function(*given, **options))
        want = public(name, arrays, options)
        assert_same([x.asnumpy() for x in found], want[: len(found)])
        mx.autograd.backward(found)
        assert all(x.grad.dtype == np.dtype(dtype) for x in given)
