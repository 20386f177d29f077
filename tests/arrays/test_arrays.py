"""Arrays of NumPy, PyTorch and MXNet as arguments and results of ops."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from in_threads import run_in_threads

import cvops
from cvops import arrays
from cvops.backends.cpu import Cpu
from cvops.ops import _op

RNG = np.random.default_rng(0)
A, B = (np.sort(RNG.random((n, 2, 2), np.float32), axis=1).reshape(n, 4) for n in (30, 20))


def numpy_array(mx, x):
    return x


def torch_tensor(mx, x):
    return pytest.importorskip("torch").from_numpy(x.copy())


def mxnet_ndarray(mx, x):
    return mx.nd.array(x, dtype=x.dtype)


def mxnet_numpy(mx, x):
    return mx.np.array(x, dtype=x.dtype)


LIBRARIES = [numpy_array, torch_tensor, mxnet_ndarray, mxnet_numpy]


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.__name__)
def make(request, mx):
    """make(x): copy a NumPy array to an array of a library."""
    return lambda x: request.param(mx, x)


def to_numpy(x):
    return x if isinstance(x, np.ndarray) else x.asnumpy() if hasattr(x, "asnumpy") else x.numpy()


@pytest.mark.parametrize("backend", [None, "numpy", "native", "emulated"])
def test_result_is_an_array_of_the_same_library(make, backend):
    a, b = make(A), make(B)
    out = cvops.box_iou(a, b, backend=backend)
    assert type(out) is type(a)
    np.testing.assert_array_equal(to_numpy(out), cvops.box_iou(A, B, backend="numpy"))
    np.testing.assert_array_equal(to_numpy(a), A)  # the input is unchanged


def test_several_results_are_a_tuple_of_arrays(make):
    label = make(np.float32([[[0, 0.1, 0.1, 0.6, 0.7]]]))
    out = cvops.multibox_target(make(A[None]), label, make(np.zeros((1, 2, 30), np.float32)))
    assert isinstance(out, tuple)
    assert [tuple(x.shape) for x in out] == [(1, 120), (1, 120), (1, 30)]
    assert {type(x) for x in out} == {type(label)}


def test_conversions_to_and_from_numpy_share_the_memory(make):
    x = make(A)
    library = arrays.library_of(x)
    inside = library.to_numpy(x)
    inside[3, 2] = 42
    assert to_numpy(x)[3, 2] == 42
    y = Cpu(library, arrays.CPU).empty((2, 3), np.float32)
    outside = library.from_numpy(y)
    y[1, 2] = 7
    assert to_numpy(outside)[1, 2] == 7


def test_every_numpy_array_converts_to_the_library(make):
    library = arrays.library_of(make(A))
    for y in (
        A,
        A[:, 1:3],
        Cpu(library, arrays.CPU).empty((6, 4), np.float32)[1:3],
        np.zeros((2, 0), np.float32),
    ):
        outside = library.from_numpy(y)
        assert type(outside) is type(make(A))
        np.testing.assert_array_equal(to_numpy(outside), y)


def test_result_keeps_its_memory(make):
    """The arguments are freed, and new arrays could reuse memory that a result does not keep."""
    outs = [cvops.box_iou(make(A), make(B)) for _ in range(20)]
    others = [np.full(600, i, np.float32) for i in range(100)]
    expected = cvops.box_iou(A, B, backend="numpy")
    assert len(others) == 100
    for out in outs:
        np.testing.assert_array_equal(to_numpy(out), expected)


def test_large_result_keeps_its_memory(make):
    """The extension reuses the memory of large results that are freed."""
    boxes = np.tile(A, (20, 1))
    outs = [cvops.box_iou(make(boxes * scale), make(boxes)) for scale in (1, 2, 3)]
    assert to_numpy(outs[0]).nbytes > 1 << 20
    expected = [cvops.box_iou(boxes * scale, boxes, backend="numpy") for scale in (1, 2, 3)]
    del outs[1], expected[1]
    cvops.box_iou(make(boxes), make(boxes * 4))
    for out, values in zip(outs, expected):
        np.testing.assert_array_equal(to_numpy(out), values)


@pytest.mark.parametrize("backend", ["native", "emulated"])
def test_strided_views_give_the_same_result(backend):
    wide = np.zeros((30, 9), np.float32)
    wide[:, ::-2][:, :4] = A
    reversed_rows = np.ascontiguousarray(B[::-1])[::-1]
    assert not wide[:, ::-2].flags.c_contiguous
    out = cvops.box_iou(wide[:, ::-2][:, :4], reversed_rows, backend=backend)
    np.testing.assert_array_equal(out, cvops.box_iou(A, B, backend="numpy"))


@pytest.mark.parametrize("backend", ["native", "emulated"])
@pytest.mark.parametrize("shift", [1, 2, 4, 8])
def test_misaligned_memory_gives_the_same_result(backend, shift):
    memory = np.zeros(A.nbytes + 16, np.uint8)
    misaligned = memory[shift : shift + A.nbytes].view(np.float32).reshape(A.shape)
    misaligned[...] = A
    out = cvops.box_iou(misaligned, B, backend=backend)
    np.testing.assert_array_equal(out, cvops.box_iou(A, B, backend="numpy"))


def test_read_only_memory_gives_the_same_result():
    a = A.copy()
    a.flags.writeable = False
    np.testing.assert_array_equal(cvops.box_iou(a, B), cvops.box_iou(A, B))


def test_transposed_tensor_that_requires_a_gradient_gives_the_same_result():
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(np.ascontiguousarray(A.T)).t().requires_grad_()
    out = cvops.box_iou(a, torch.from_numpy(B))
    assert not out.requires_grad
    np.testing.assert_array_equal(out.numpy(), cvops.box_iou(A, B))


def test_op_waits_for_pending_mxnet_operators(mx):
    x = mx.nd.array(np.tile(A, (400, 1)))
    for _ in range(20):
        x = x * 1.0 + 0.0  # MXNet's engine runs these after the call of the op
    np.testing.assert_array_equal(
        cvops.box_iou(x[:30], mx.nd.array(B)).asnumpy(), cvops.box_iou(A, B)
    )


def test_misaligned_part_of_an_mxnet_array_is_copied_for_the_kernels(mx):
    library = arrays.library_of(mx.nd.zeros(1))
    whole = mx.nd.array(np.arange(6), dtype="uint8").reshape(2, 3)
    assert library.memory(whole) == (library.to_numpy(whole).ctypes.data, whole)
    address, part = library.memory(whole[1])
    assert address % arrays.ALIGNMENT == 0
    assert part.asnumpy().tolist() == [3, 4, 5]


class TestTensorsOnAGpu:
    """The methods for tensors on a GPU, with tensors on the CPU in their place."""

    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")
        self.library = arrays.library_of(self.torch.empty(0))
        arrays.torch._current_stream.cache_clear()
        yield
        arrays.torch._current_stream.cache_clear()

    def test_aligned_tensor_is_not_copied(self):
        x = self.torch.zeros(3, 4, requires_grad=True)
        address, tensor = self.library.memory(x)
        assert address == x.data_ptr() == tensor.data_ptr()
        assert not tensor.requires_grad

    def test_misaligned_part_is_copied(self):
        part = self.torch.arange(8.0)[1:]
        address, copy = self.library.memory(part)
        assert address == copy.data_ptr()
        assert address % arrays.ALIGNMENT == 0
        assert self.torch.equal(copy, part)

    @pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.uint8])
    def test_empty_tensor_has_the_dtype_and_the_device(self, monkeypatch, dtype):
        empty, gpus = self.torch.empty, []

        def on_the_cpu(*args, device, **options):
            gpus.append(device)
            return empty(*args, **options)

        monkeypatch.setattr(self.torch, "empty", on_the_cpu)
        address, tensor = self.library.empty_cuda((3, 4), dtype, arrays.Device("cuda", 1))
        assert gpus == [self.torch.device("cuda:1")]
        assert (tensor.shape, tensor.numpy().dtype) == ((3, 4), dtype)
        assert address == tensor.data_ptr()

    @pytest.mark.parametrize("has_shortcut", [True, False], ids=["torch._C", "torch.cuda"])
    def test_stream_is_the_current_one_of_the_device(self, monkeypatch, has_shortcut):
        def streams(number):
            return 1000 + number

        def current_stream(number):
            return SimpleNamespace(cuda_stream=streams(number))

        shortcut = "_cuda_getCurrentRawStream"
        monkeypatch.delattr(self.torch._C, shortcut, raising=False)
        if has_shortcut:
            monkeypatch.setattr(self.torch._C, shortcut, streams, raising=False)
        else:
            monkeypatch.setattr(self.torch.cuda, "current_stream", current_stream)
        assert self.library.stream(arrays.Device("cuda", 2)) == 1002


def test_arrays_of_two_libraries_are_refused(mx):
    with pytest.raises(
        TypeError, match="lhs is a NumPy array on the CPU and rhs an MXNet NDArray on the CPU"
    ):
        cvops.box_iou(A, mx.nd.array(B))
    with pytest.raises(TypeError, match=r"lhs is an MXNet NumPy ndarray .* rhs an MXNet NDArray"):
        cvops.box_iou(mx.np.array(A), mx.nd.array(B))


def test_arrays_on_two_gpus_are_refused(monkeypatch):
    numbers = iter([0, 1])

    def describe(self, x):
        return arrays.Device("cuda", next(numbers)), x.dtype, x.shape

    monkeypatch.setattr(arrays.NumPy, "describe", describe)
    _op.clear_caches()  # they know the arrays
    with pytest.raises(TypeError, match=r"lhs is a NumPy array on GPU 0 and rhs .* on GPU 1"):
        cvops.box_iou(A, B)


def test_tensor_on_an_unknown_device_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match="lhs: expected a tensor on the CPU or a CUDA device, got one on meta"
    ):
        cvops.box_iou(torch.empty((3, 4), device="meta"), torch.from_numpy(B))


def test_16_bit_floats_are_refused_by_an_op_of_float32(mx):
    torch = pytest.importorskip("torch")
    rows = torch.zeros((3, 6), dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="data: expected float32, got bfloat16"):
        cvops.soft_nms(rows)
    with pytest.raises(TypeError, match="data: expected float32, got float16"):
        cvops.soft_nms(mx.nd.zeros((3, 6), dtype="float16"))
    with pytest.raises(TypeError, match="rhs: expected float32 as lhs, got float16"):
        cvops.box_iou(mx.nd.array(A), mx.nd.array(B, dtype="float16"))


def test_sparse_array_is_refused(mx):
    with pytest.raises(
        TypeError, match="lhs: expected a dense NDArray, got one of storage type 'row_sparse'"
    ):
        cvops.box_iou(mx.nd.array(A).tostype("row_sparse"), mx.nd.array(B))


def test_masked_array_is_refused():
    for mask in (False, A < 0.5):
        with pytest.raises(
            TypeError, match=r"rhs: expected an array without a mask, got a numpy.ma.MaskedArray"
        ):
            cvops.box_iou(A, np.ma.array(A, mask=mask))
    filled = np.ma.array(A, mask=A < 0).filled(-1)
    np.testing.assert_array_equal(cvops.box_iou(A, filled), cvops.box_iou(A, A))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("backend", [None, "numpy"])
def test_subclass_of_an_array_gives_a_plain_array(backend, tmp_path):
    stored = np.memmap(tmp_path / "boxes", np.float32, "w+", shape=A.shape)
    stored[...] = A
    expected = cvops.box_iou(A, A, backend="numpy")
    for x in (np.matrix(A), stored, A.view(np.recarray)):
        out = cvops.box_iou(x, A, backend=backend)
        assert type(out) is np.ndarray
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        (np.float64, r': convert it by \.astype\("float32"\)$'),
        (np.float16, r': convert it by \.astype\("float32"\)$'),
        (np.int64, r': convert it by \.astype\("float32"\)$'),
        (np.bool_, r': convert it by \.astype\("float32"\)$'),
        (object, r': convert it by \.astype\("float32"\)$'),
        (">f4", r': convert it by \.astype\("float32"\)$'),
        (np.complex64, "$"),
        ([("x", "f4")], "$"),
        ("U3", "$"),
        ("M8[s]", "$"),
    ],
    ids=[
        "float64",
        "float16",
        "int64",
        "bool",
        "object",
        "big-endian float32",
        "complex64",
        "struct",
        "text",
        "datetime",
    ],
)
def test_another_dtype_is_refused_with_its_conversion(dtype, remedy):
    with pytest.raises(TypeError, match=f"rhs: expected float32.*, got .*{remedy}"):
        cvops.box_iou(A, np.zeros((3, 4), dtype))


def test_conversion_names_the_expected_dtype(mx):
    message = r'image: expected uint8, got int32: convert it by \.astype\("uint8"\)'
    for make in (numpy_array, mxnet_ndarray, mxnet_numpy):
        image, colors = make(mx, np.zeros((2, 2, 3), np.int32)), make(mx, np.eye(3, dtype=np.uint8))
        with pytest.raises(TypeError, match=message):
            cvops.label_from_color(image, colors)


def test_list_is_refused_with_its_conversion():
    message = r'lhs: expected an array .*, got list: convert it by numpy.array\(lhs, "float32"\)'
    with pytest.raises(TypeError, match=message):
        cvops.box_iou(A.tolist(), B)
    message = r"maps\[1\]: expected .* got"
    with pytest.raises((TypeError, ValueError), match=message):
        cvops.multibox_priors([np.zeros((1, 1, 2, 2), "f"), "x"], [1, 1], [1, 1])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (1.5, "expected an array .*NumPy.*, got float$"),
        (None, "expected an array .*NumPy.*, got NoneType$"),
        ("boxes", "expected an array .*NumPy.*, got str$"),
        (memoryview(A), r"expected an array .*, got memoryview: convert it by numpy.array\(lhs, "),
        ([[0, 0, 1, 1], [0]], r"expected an array .*, got list: convert it by numpy.array\(lhs, "),
    ],
    ids=["float", "None", "text", "memoryview", "ragged list"],
)
def test_object_that_is_no_array_is_refused(x, message):
    with pytest.raises(TypeError, match=f"^lhs: {message}"):
        cvops.box_iou(x, B)


def test_scalar_of_numpy_is_refused_by_its_shape():
    with pytest.raises(ValueError, match=r"lhs: expected shape \(..., N, 4\), got \(\)"):
        cvops.box_iou(np.float32(1), B)


def test_sparse_array_of_scipy_is_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"lhs: expected an array .*, got csr_"):
        cvops.box_iou(sparse.csr_matrix(A), B)


def test_call_after_a_valid_call_is_checked_again():
    cvops.box_iou(A, B)
    for lhs, error, message in (
        (A.astype(">f4"), TypeError, "lhs: expected float32, .*, got >f4"),
        (A.view(np.int32), TypeError, "lhs: expected float32, .*, got int32"),
        (A.reshape(20, 6), ValueError, r"lhs: expected shape \(..., N, 4\), got \(20, 6\)"),
        (A.tolist(), TypeError, "lhs: expected an array .*, got list"),
    ):
        for _ in range(2):
            with pytest.raises(error, match=message):
                cvops.box_iou(lhs, B)
    with pytest.raises(ValueError, match="backend: expected one of"):
        cvops.box_iou(A, B, backend="numba")
    assert cvops.box_iou(A, B).shape == (30, 20)


def test_pending_mxnet_operators_can_read_a_result(mx):
    a, b = mx.nd.array(A), mx.nd.array(B)
    expected = cvops.box_iou(A, B) * np.float32(4)
    for _ in range(20):
        out = cvops.box_iou(a, b) * 2  # no variable refers to the result that the engine reads
        np.testing.assert_array_equal((out * 2).asnumpy(), expected)


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        ("cuda", ValueError, "backend: expected one of .*'cupy'.*, got 'cuda'"),
        ("cupy", ValueError, "backend: 'cupy' does not run on arrays on the CPU"),
    ],
    ids=["cuda", "cupy"],
)
def test_unknown_or_unsuitable_backend_is_refused(backend, error, message):
    with pytest.raises(error, match=message):
        cvops.box_iou(A, B, backend=backend)


@pytest.mark.parametrize("backend", ["native", "emulated"])
def test_concurrent_calls_give_the_same_result(backend):
    rows = np.tile(np.c_[A[:, :2], A], (4, 1))
    expected = cvops.box_nms(rows, backend="numpy")

    def work(_):
        for _ in range(5):
            np.testing.assert_array_equal(cvops.box_nms(rows.copy(), backend=backend), expected)

    run_in_threads(work, range(8))


def test_forked_child_gives_the_same_result():
    code = (
        "import os, numpy as np, cvops\n"
        "x = np.random.rand(500, 4).astype('f')\n"
        "expected = cvops.box_iou(x, x)\n"
        "child = os.fork()\n"
        "same = np.array_equal(cvops.box_iou(x, x), expected)\n"
        "os._exit(not same) if child == 0 else None\n"
        "assert same and os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_import_and_a_call_import_no_framework():
    code = (
        "import sys, numpy as np, cvops\n"
        "cvops.box_iou(np.zeros((2, 4), 'f'), np.zeros((2, 4), 'f'))\n"
        "assert not {'mxnet', 'torch', 'cupy', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
