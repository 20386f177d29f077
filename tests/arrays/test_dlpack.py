"""Arrays of libraries that cvops does not know, through DLPack."""

import ctypes
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import cvops
from cvops import arrays
from cvops.arrays import dlpack

RNG = np.random.default_rng(0)
A, B = (np.sort(RNG.random((n, 2, 2), np.float32), axis=1).reshape(n, 4) for n in (30, 20))


class DType:
    """A dtype that is none of NumPy."""


class Tensor:
    """An array with the least that DLPack asks for, in the memory of a NumPy array."""

    dtype = DType()
    #: The device of ``__dlpack_device__``: 1 is the CPU.
    kind = 1

    def __init__(self, x):
        self.x, self.shape, self.streams = x, list(x.shape), []

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self.x.__dlpack__()

    def numpy(self):
        return self.x


class Standard(Tensor):
    """An array of the array API standard, whose namespace is no module of its type."""

    def __array_namespace__(self, api_version=None):
        return STANDARD


def importer(kind):
    """Return ``from_dlpack`` of a library. NumPy's own would make the memory read-only."""

    def from_dlpack(x):
        x.__dlpack__()
        return kind(x)

    return from_dlpack


STANDARD = SimpleNamespace(__name__="standard", from_dlpack=importer(Standard))


def values(x):
    """The values of an array as a NumPy array, in the same memory."""
    return x.numpy() if isinstance(x, Tensor) else x._array


@pytest.fixture(params=["root module", "namespace", "array_api_strict"])
def make(request, monkeypatch):
    """make(x): make an array of a library in the memory of a NumPy array."""
    if request.param == "namespace":
        return Standard
    if request.param == "array_api_strict":
        return pytest.importorskip("array_api_strict").asarray
    kind = type("EagerTensor", (Tensor,), {"__module__": "other_framework.eager"})
    module = ModuleType("other_framework")
    module.from_dlpack = importer(kind)
    monkeypatch.setitem(sys.modules, "other_framework", module)
    return kind


@pytest.mark.parametrize("backend", [None, "numpy", "native", "emulated"])
def test_result_is_an_array_of_the_library(make, backend):
    out = cvops.box_iou(make(A), make(B), backend=backend)
    assert type(out) is type(make(A))
    np.testing.assert_array_equal(values(out), cvops.box_iou(A, B, backend="numpy"))


def test_several_results_are_a_tuple_of_arrays(make):
    rows = np.ascontiguousarray(np.c_[A[:, :2], A])
    out, index = cvops.box_nms(make(rows), return_index=True)
    want = cvops.box_nms(rows, return_index=True)
    for found, expected in zip((out, index), want):
        assert type(found) is type(make(A))
        assert values(found).dtype == expected.dtype
        np.testing.assert_array_equal(values(found), expected)


def test_input_and_result_share_their_memory(make):
    x = make(A)
    library = arrays.library_of(x)
    assert np.shares_memory(library.to_numpy(x), values(x))
    assert np.shares_memory(library.fetch(x), values(x))
    y = np.empty((2, 3), np.float32)
    assert np.shares_memory(values(library.from_numpy(y)), y)


def test_strided_and_misaligned_arrays_give_the_same_result():
    want = cvops.box_iou(A, B)
    wide = np.zeros((30, 9), np.float32)
    wide[:, 1:5] = A
    memory = np.zeros(A.nbytes + 16, np.uint8)
    misaligned = memory[4 : 4 + A.nbytes].view(np.float32).reshape(A.shape)
    misaligned[...] = A
    for x in (wide[:, 1:5], np.asfortranarray(A), misaligned):
        out = cvops.box_iou(Standard(x), Standard(B))
        np.testing.assert_array_equal(values(out), want)


def test_result_keeps_its_memory():
    outs = [cvops.box_iou(Standard(A), Standard(B)) for _ in range(20)]
    others = [np.full(600, i, np.float32) for i in range(100)]
    assert len(others) == 100
    for out in outs:
        np.testing.assert_array_equal(values(out), cvops.box_iou(A, B))


def test_empty_array_gives_an_empty_result(make):
    out = cvops.box_iou(make(A[:0]), make(B))
    assert values(out).shape == (0, 20)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float64, "float64"),
        (np.int32, "int32"),
        (np.uint8, "uint8"),
        (np.complex64, "complex64"),
        (bool, "bool"),
    ],
)
def test_another_dtype_is_refused_with_its_conversion(dtype, name):
    remedy = (
        "" if name == "complex64" else r": convert it by standard.astype\(x, standard.float32\)"
    )
    with pytest.raises(TypeError, match=f"^rhs: expected .*, got {name}{remedy}$"):
        cvops.box_iou(Standard(A), Standard(np.zeros((3, 4), dtype)))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"lhs: expected shape \(..., N, 4\), got \(20, 6\)"):
        cvops.box_iou(Standard(A.reshape(20, 6)), Standard(B))


def test_arrays_of_two_libraries_are_refused(make):
    with pytest.raises(TypeError, match=r"lhs is an array of .* on the CPU and rhs a NumPy array"):
        cvops.box_iou(make(A), B)


def test_array_without_a_way_back_is_refused():
    message = "lhs: expected an array of a library with from_dlpack, got one of .*numpy.from_dlpack"
    with pytest.raises(TypeError, match=message):
        cvops.box_iou(Tensor(A), Tensor(B))


def test_array_that_has_no_export_is_refused():
    class Sparse(Standard):
        def __dlpack__(self, *, stream=None):
            raise BufferError("a sparse array has no strides")

    with pytest.raises(TypeError, match="lhs: expected an array that DLPack can describe: a spa"):
        cvops.box_iou(Sparse(A), Standard(B))


def test_array_on_another_device_is_refused():
    class OneApi(Standard):
        kind = 14

    message = "lhs: expected an array on the CPU or a CUDA device, got one on DLPack's device 14"
    with pytest.raises(TypeError, match=message):
        cvops.box_iou(OneApi(A), OneApi(B))


def test_capsule_of_dlpack_1_has_the_same_description():
    torch = pytest.importorskip("torch")

    class Versioned(Standard):
        def __dlpack__(self, *, stream=None, **version):
            return torch.from_numpy(self.x).__dlpack__(**version)

    found, plain = dlpack._export(Versioned(A)), dlpack._export(Standard(A))
    assert [repr(x.capsule).split()[2] for x in (found, plain)] == [
        '"dltensor_versioned"',
        '"dltensor"',
    ]
    assert found[1:] == plain[1:] == (A.ctypes.data, "float32", (30, 4), True)
    out = cvops.box_iou(Versioned(A), Versioned(B))
    np.testing.assert_array_equal(out.numpy(), cvops.box_iou(A, B))


@pytest.mark.skipif(not hasattr(np, "astype"), reason="needs NumPy 2.1")
def test_read_only_memory_gives_the_same_result():
    class Versioned(Standard):
        def __dlpack__(self, *, stream=None, max_version=None, **options):
            return self.x.__dlpack__(max_version=max_version)

    x = A.copy()
    x.flags.writeable = False
    out = cvops.box_iou(Versioned(x), Standard(B))
    np.testing.assert_array_equal(out.numpy(), cvops.box_iou(A, B))


class TestGpu:
    """The methods for arrays on a GPU, with memory of the CPU in its place."""

    @pytest.fixture(autouse=True)
    def library(self):
        class OnGpu(Standard):
            kind = 2
            device = "gpu"

            def __array_namespace__(self, api_version=None):
                return namespace

        def empty(shape, dtype, device):
            self.made.append((shape, dtype, device))
            return OnGpu(np.empty(shape, dtype))

        namespace = SimpleNamespace(
            **{"from_dlpack": None, "empty": empty, "float32": "f4", "uint8": "u1"}
        )
        self.make, self.made = OnGpu, []
        self.library = arrays.library_of(OnGpu(A))
        assert isinstance(self.library, dlpack.DLPack)

    def test_array_is_ready_on_the_default_stream(self):
        x = self.make(A)
        gpu, dtype, shape = self.library.describe(x)
        assert (str(gpu), dtype, shape) == ("GPU 0", "float32", (30, 4))
        pointer, owner = self.library.memory(x)
        assert pointer == A.ctypes.data
        assert owner[0] is x
        assert x.streams == [1, 1]  # DLPack's number of the stream
        assert self.library.stream(gpu) == 0  # the driver's
        assert not self.library.exposes_stream

    def test_result_is_made_by_the_library_on_the_device_of_the_arguments(self):
        gpu, *_ = self.library.describe(self.make(A))
        pointer, x = self.library.empty_cuda((2, 3), np.float32, gpu)
        _, scratch = self.library.workspace(64, gpu)
        assert self.made == [((2, 3), "f4", "gpu"), ((64,), "u1", "gpu")]
        assert pointer == x.numpy().ctypes.data
        assert x.streams == scratch.streams == [1]

    def test_array_that_the_kernels_cannot_load_is_refused(self):
        for x in (np.asfortranarray(A), A[:, :2], A.reshape(-1)[1:]):
            with pytest.raises(TypeError, match=r"^expected a C-contiguous array at a multiple of"):
                self.library.describe(self.make(x))
        for x in (A[:0, :2], A[:1], A[:, None]):  # these are contiguous
            self.library.describe(self.make(x))

    def test_values_on_a_gpu_are_not_fetched(self):
        with pytest.raises(TypeError, match="x: expected an array of numbers"):
            arrays.as_numbers("x", self.make(A))


def test_types_of_pythons_functions_stay_those_of_other_libraries():
    """MXNet passes an address to the same function object."""
    assert ctypes.pythonapi.PyCapsule_GetName.restype is ctypes.c_int
    assert ctypes.pythonapi.PyCapsule_GetPointer.argtypes is None
