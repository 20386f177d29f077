"""An op: one public function, which has the contract, and the implementations of it.

A call passes through these files:

1. ``ops/<op>.py``. The public function passes the caller's arrays to :attr:`Op.signature`, checks
   the options, and passes both to :attr:`Signature.run`. The implementations are below it.
2. This file. It checks the arrays against the op's specs, and selects an implementation.
   ``backends/registry.py`` selects the executor that runs it.
3. ``backends/cpu.py`` or ``backends/cuda.py``. The executor converts the arrays and calls the
   implementation.
4. ``bindings/``. The implementation ``native`` calls the C++ function of the op's name.

==============  ==================  ==============================================
implementation  first argument      arrays
==============  ==================  ==============================================
``numpy``                           NumPy arrays; the reference implementation
``native``      :class:`DeviceOps`  NumPy arrays on the CPU; ``Buffer`` on a GPU
==============  ==================  ==============================================

PyTorch and MXNet record calls for gradients: :attr:`cvops.arrays.Library.autograd` then comes
before the executor.

The checks dominate a small call. Those of arrays of the same types, and those of the same options,
are therefore cached, as are the specs of an op and the backend of a device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol, TypeVar

import numpy as np

from cvops.arrays import ArrayType, Library, dtype_name, library_of
from cvops.backends import extension
from cvops.backends.registry import backend_for
from cvops.ops import _check

if TYPE_CHECKING:
    from cvops._native import Ops

F = TypeVar("F", bound=Callable[..., Any])


class DeviceOps(Protocol):
    """The first argument of a ``native`` implementation: the ops of a device, and memory there."""

    #: The ops of the extension.
    ops: Ops
    #: Makes an uninitialized array for a result, of a shape and a dtype.
    empty: Callable[..., Any]
    #: Makes an uninitialized array for each of several results, of shapes and dtypes.
    empty_all: Callable[..., Any]


#: The dtypes of a spec of the dtype ``float``. The last two are computed in float32.
FLOATS = ("float32", "float64", "float16", "bfloat16")
_HALVES = FLOATS[2:]


class ArraySpec:
    """The dtype and the shape of one argument, from text such as ``float32 (..., N, 4)``.

    The dtype ``float`` is one of ``FLOATS``, the same for all such arrays of a call. An axis is a
    size or a name. A name is the same size in all arrays of a call. ``...`` at the beginning or at
    the end matches any number of axes. The implementations do not get an array of ``shape of
    float32 (...)``: the op uses its shape only.
    """

    def __init__(self, text: str):
        #: True if the implementations get the array.
        self.read = not text.startswith("shape of ")
        self.dtype, _, self.shape = text.replace("shape of ", "").partition(" ")
        axes = [axis.strip() for axis in self.shape[1:-1].split(",") if axis.strip()]
        #: True if there may be axes without a name.
        self.open = "..." in axes
        self.axes = tuple(int(a) if a.isdigit() else a for a in axes if a != "...")
        self.rank = len(self.axes)
        # The axes after "..." count from the end.
        first = -self.rank if axes[0] == "..." else 0
        places = tuple(enumerate(self.axes, first))
        #: (index of the axis, name) of each named axis, and (index, size) of each other one.
        self.named = tuple([(i, axis) for i, axis in places if isinstance(axis, str)])
        self.fixed = tuple([(i, axis) for i, axis in places if isinstance(axis, int)])
        #: True for the dtype ``float``.
        self.is_float = self.dtype == "float"
        #: The name of the dtype in an error message.
        self.expected = f"{', '.join(FLOATS[:-1])} or {FLOATS[-1]}" if self.is_float else self.dtype
        #: The dtype of which each caller has an array.
        self.plain = "float32" if self.is_float else self.dtype


class Dispatch:
    """The executor of a call, from the op and from its arrays' library, device and dtypes."""

    def __init__(self, op: Op, backend: str | None, arrays: tuple[tuple[Any, ...], ...]):
        self.op, self.backend = op, backend
        #: For each array its name, its spec, its dtype in the implementations, and its axes that
        #: an earlier array has too: (axis, index of that array, axis of that array). The spec is
        #: None for an array without a spec, the dtype for one that the implementations do not get.
        self.arrays: list[
            tuple[str, ArraySpec | None, np.dtype[Any] | None, list[tuple[int, int, int]]]
        ] = []
        #: The first place of each axis with a name: the index of the array, the axis.
        self.places: dict[str, tuple[int, int]] = {}
        first, library, device, _ = arrays[0]
        floats: tuple[str, str, Any] | None = None
        is_float = []
        for name, other, where, dtype in arrays:
            if other is not library or where != device:
                raise TypeError(
                    f"{first} is {library.name} on {device} and {name} {other.name} on "
                    f"{where}: the arrays must be of one kind and on one device"
                )
            spec = op.specs.get(name.partition("[")[0])
            got = dtype_name(dtype)
            if spec is None:
                self.arrays.append((name, None, None, []))
                continue
            if got not in FLOATS if spec.is_float else got != spec.dtype:
                cast = library.cast(got, spec.plain)
                raise TypeError(f"{name}: expected {spec.expected}, got {got}{cast}")
            if spec.is_float:
                floats = floats or (name, got, dtype)
                if got != floats[1]:
                    cast = library.cast(got, floats[1])
                    raise TypeError(f"{name}: expected {floats[1]} as {floats[0]}, got {got}{cast}")
            known = np.dtype("float32" if got in _HALVES else got) if spec.read else None
            # The arrays of a list have sizes of their own.
            seen, same = {} if name[-1] == "]" else self.places, []
            for axis, label in spec.named:
                if label in seen:
                    same.append((axis, *seen[label]))
                else:
                    seen[label] = len(self.arrays), axis
            self.arrays.append((name, spec, known, same))
            if spec.read:
                is_float.append(spec.is_float)
        backend_here = backend_for(device, backend)
        executor = backend_here.executor(library, device)
        #: Runs the implementation on arrays of types, with options.
        self.run = functools.partial(executor.run, op.implementations[backend_here.implementation])
        if floats and floats[1] in _HALVES:
            self.run = functools.partial(_in_float32, self.run, library, floats[2], is_float)
        run = self.run if is_float else self.run_unread
        #: The same without the types; None if the executor reads them.
        self.execute = None if backend_here.reads_types else functools.partial(run, [])
        self.autograd = library.autograd

    def run_unread(self, types: list[ArrayType], _: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """Run the implementation of an op that reads no array."""
        return self.run(types, (), options)


def _in_float32(
    run: Callable[..., Any],
    library: Library,
    half: Any,
    is_float: list[bool],
    types: list[ArrayType],
    arrays: Iterable[Any],
    options: tuple[Any, ...],
) -> Any:
    """Compute a call on float16 or bfloat16 arrays in float32; round the results to ``half``."""
    single = [library.to_float32(x) if is_half else x for x, is_half in zip(arrays, is_float)]
    out = run(types, single, options)
    if type(out) is tuple:
        return tuple([library.to_half(y, half) for y in out])
    return library.to_half(out, half)


_dispatch = functools.lru_cache(1024)(Dispatch)


class Signature:
    """The library, device, dtypes and shapes of a call's arrays, and their consequences."""

    __slots__ = (
        "_given", "_places", "_sizes", "backend", "execute", "op", "run", "shapes", "types",
    )  # fmt: skip

    def __init__(self, dispatch: Dispatch, given: tuple[tuple[int, ...], ...]):
        self.op, self.backend = dispatch.op, dispatch.backend
        self._places, self._given = dispatch.places, given
        self._sizes: dict[str, int] | None = None
        #: The shapes of the arrays that have a spec.
        self.shapes = shapes = {}  # type: dict[str, tuple[int, ...]]
        #: The types of the arrays that the implementations get: of all arrays, or of none.
        self.types = types = []  # type: list[ArrayType]
        for (name, spec, dtype, same), shape in zip(dispatch.arrays, given):
            if spec is None:
                continue
            rank = len(shape) - spec.rank
            if rank and (rank < 0 or not spec.open):
                raise ValueError(f"{name}: expected shape {spec.shape}, got {shape}")
            for axis, other, of_other in same:
                want = given[other][of_other]
                if shape[axis] != want:
                    raise ValueError(
                        f"{name}: expected shape {spec.shape} with {spec.axes[axis]} = {want} as "
                        f"in {dispatch.arrays[other][0]}, got {shape}"
                    )
            for axis, want in spec.fixed:
                if shape[axis] != want:
                    raise ValueError(f"{name}: expected shape {spec.shape}, got {shape}")
            shapes[name] = shape
            if dtype is not None:
                types.append((shape, dtype))
        #: Runs the implementation on the caller's arrays, with a tuple of options.
        self.execute = dispatch.execute or functools.partial(
            dispatch.run if types else dispatch.run_unread, types
        )
        #: Also records the call for a gradient. It returns arrays of the caller's library.
        self.run = self.execute
        if dispatch.autograd is not None:
            self.run = functools.partial(dispatch.autograd, self)
        if self.op.check_shapes is not None:
            self.op.check_shapes(self)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the axes that the specs name."""
        if self._sizes is None:
            given = self._given
            self._sizes = {name: given[i][axis] for name, (i, axis) in self._places.items()}
        return self._sizes


_signature = functools.lru_cache(1024)(Signature)


def clear_caches() -> None:
    """Clear the caches of checked arrays, which keep executors, and those of checked options."""
    for cached in (backend_for, _dispatch, _signature):
        cached.cache_clear()
    for function in _check.memoized.functions:
        function.forget()


def _conversion(op: Op, name: str, x: Any) -> str:
    """Return the rest of an error message: the call that makes an array of a list or the like."""
    spec = op.specs.get(name)
    if spec is None or not spec.read or not hasattr(x, "__len__") or isinstance(x, (str, bytes)):
        return ""
    return f': convert it by numpy.array({name}, "{spec.plain}")'


def _describe(op: Op, arrays: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the name, the library, the device and the dtype of each array; and the shapes."""
    kinds, shapes = [], []
    for name, x in arrays.items():
        library = library_of(x)
        if library is None:
            raise TypeError(
                f"{name}: expected an array (NumPy, CuPy, PyTorch, MXNet, JAX, DLPack), "
                f"got {type(x).__name__}{_conversion(op, name, x)}"
            )
        try:
            device, dtype, shape = library.describe(x)
        except (TypeError, NotImplementedError) as error:
            raise type(error)(f"{name}: {error}") from None
        kinds.append((name, library, device, dtype))
        shapes.append(tuple(shape))
    return tuple(kinds), tuple(shapes)


def _check_backend(backend: Any) -> None:
    if backend is not None and not isinstance(backend, str):
        raise TypeError(f"backend: expected a name or None, got {backend!r}")


def _dispatch_of(op: Op, backend: str | None, /, **arrays: Any) -> Dispatch:
    """Check the libraries, devices and dtypes of the caller's arrays."""
    _check_backend(backend)
    return _dispatch(op, backend, _describe(op, arrays)[0])


def _signature_of(op: Op, backend: str | None, /, **arrays: Any) -> Signature:
    """Check the caller's arrays."""
    _check_backend(backend)
    kinds, shapes = _describe(op, arrays)
    # All arrays are of one library, or the check refuses them.
    library = kinds[0][1]
    if not library.is_hashable:
        return Signature(Dispatch(op, backend, kinds), shapes)
    signature = _signature(_dispatch(op, backend, kinds), shapes)
    if library.cpu_flag is not None:
        for x in arrays.values():
            kind: Any = type(x)
            _describe_by(kind, library.cpu_flag)
    return signature


@functools.lru_cache(None)
def _describe_by(kind: Any, cpu_flag: str) -> None:
    """Let the memories of signatures recognize arrays on the CPU by their attributes."""
    native = extension.native()
    if native is not None:
        native.describe_by(kind, cpu_flag)


class Gradient(NamedTuple):
    """The path of a gradient from an op's first result to its first arrays.

    The gradient with respect to the other arrays is 0.
    """

    #: Takes the gradient of the result, the residual or the inputs, the options, the backend.
    backward: Callable[..., Any]
    #: True if the last option asks for a second result, and ``backward`` takes that.
    residual: bool
    #: The names of the arrays that ``backward`` takes.
    inputs: tuple[str, ...]
    #: The number of arrays with a gradient. ``backward`` returns a tuple if it is not 1.
    arrays: int


class Op:
    """The specs of an op's arrays, and the table of its implementations."""

    def __init__(self, name: str, **specs: str):
        self.name = name
        self.specs = {array: ArraySpec(text) for array, text in specs.items()}
        #: Checks the caller's arrays, of a backend and of the names of the op's parameters. An
        #: array without a spec only selects the library and the device. Arrays ``maps[0]``,
        #: ``maps[1]``, ... have the spec of ``maps``, and each has its own sizes.
        self.signature = _check.memoized(
            functools.partial(_signature_of, self),
            arrays=True,
            parts=(functools.partial(_dispatch_of, self), Signature),
        )
        self.implementations: dict[str, Callable[..., Any]] = {}
        #: Refuses shapes that match the specs but not each other, or that are too large.
        self.check_shapes: Callable[[Signature], None] | None = None
        #: None for an op without a gradient.
        self.gradient: Gradient | None = None
        #: Returns the name and the attributes of MXNet's operator, from the options.
        self.operator: Callable[..., tuple[str, dict[str, Any]]] | None = None

    def check(self, function: Callable[[Signature], None]) -> Callable[[Signature], None]:
        """Register the decorated function as :attr:`check_shapes`."""
        self.check_shapes = function
        return function

    def backward(
        self, residual: bool = False, inputs: tuple[str, ...] = (), arrays: int = 1
    ) -> Callable[[F], F]:
        """Register the decorated function as :attr:`Gradient.backward`."""

        def register(function: F) -> F:
            self.gradient = Gradient(function, residual, inputs, arrays)
            return function

        return register

    def mxnet(self, operator: F) -> F:
        """Register the decorated function as :attr:`operator`, for an op with a gradient."""
        self.operator = operator
        return operator

    def implementation(self, name: str) -> Callable[[F], F]:
        """Register the decorated function as the implementation "numpy" or "native"."""

        def register(function: F) -> F:
            self.implementations[name] = function
            return function

        return register
