"""An op: one public function that holds the contract, and one body for each way to compute it.

The public function begins a call with the caller's arrays (:meth:`Op.call`), which are held against
what the op says of them, checks its other arguments, and calls the call with what the bodies take
beside the arrays. The bodies stand below it in its file:

==============  ==============================  ============================================
kind of body    first argument                  arrays
==============  ==============================  ============================================
``numpy``                                       NumPy arrays; the reference implementation
``native``      a ``Cpu`` or a ``Call``         NumPy arrays or ``Buffer``, for the C++ in
                                                ``bindings/``
==============  ==============================  ============================================

A call of little work takes about as long as what stands in this file, so that what can be kept is:
the forms of an op's arrays, the backend for a device, the outcome of the checks for arrays of the
same kinds and shapes.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple, Protocol, TypeVar, Union

import numpy as np

from cvops.arrays import Device, Library, dtype_name, library_of
from cvops.backends import cpu, cuda, extension

F = TypeVar("F", bound=Callable[..., Any])
Place = Union[cpu.Cpu, cuda.Cuda]


class Executor(Protocol):
    """The first argument of a ``native`` implementation: the ops of the extension, and memory."""

    ops: Any
    #: Makes an array for a result, of a shape and a dtype, not initialized.
    empty: Callable[..., Any]
    #: Makes several such arrays.
    empty_all: Callable[..., Any]


class Backend(NamedTuple):
    """A way to run ops on a kind of device."""

    #: The kind of body that it runs.
    body: str
    #: Why it cannot run here; None if it can. Asked until it can, and then no more.
    missing: Callable[[], str | None]
    #: Makes what runs the body.
    place: Callable[[Library, Device], Place]


#: (kind of device, name of the backend) -> the backend; for each device the best comes first.
BACKENDS: dict[tuple[str, str], Backend] = {
    ("cpu", "native"): Backend(
        "native", extension.missing_native, functools.lru_cache(None)(cpu.Cpu)
    ),
    ("cpu", "numpy"): Backend("numpy", lambda: None, functools.lru_cache(None)(cpu.Oracle)),
    ("cuda", "native"): Backend(
        "native", extension.missing_machine_code, functools.lru_cache(None)(cuda.Native)
    ),
    ("cuda", "cupy"): Backend(
        "native", extension.missing_cupy, functools.lru_cache(None)(cuda.CuPy)
    ),
}


@functools.lru_cache(None)
def backend_for(device: Device, name: str | None) -> Backend:
    """The backend of that name for ``device``, or the best that can run here."""
    if name is not None and (device.kind, name) not in BACKENDS:
        names = sorted({name for _, name in BACKENDS})
        if name not in names:
            raise ValueError(f"backend: expected one of {names}, got {name!r}")
        raise ValueError(f"backend: {name!r} does not run on arrays on {device}")
    reasons = []
    for (kind, key), backend in BACKENDS.items():
        if kind == device.kind and name in (None, key):
            missing = backend.missing()
            if missing is None:
                return backend
            reasons.append(f"{key!r} {missing}")
    raise RuntimeError(f"no backend can run on {device} here: {'; '.join(reasons)}")


class Form:
    """What an op takes for an array, of a text as ``float32 (..., N, 4)``.

    For each axis stands its size or a name for it: the same size wherever the name stands. A
    ``...`` at the beginning or at the end matches any number of axes. The bodies do not get arrays
    of which there is but the ``shape of float32 (...)`` to be known.
    """

    def __init__(self, text: str):
        #: Whether the bodies get the array.
        self.read = not text.startswith("shape of ")
        self.dtype, _, self.shape = text.replace("shape of ", "").partition(" ")
        axes = [axis.strip() for axis in self.shape[1:-1].split(",") if axis.strip()]
        #: Whether the named axes are the last ones, and whether there may be others.
        self.leading, self.open = axes[0] == "...", "..." in axes
        self.axes = tuple(int(a) if a.isdigit() else a for a in axes if a != "...")


class Plan:
    """What follows from where a call's arrays lie, their dtypes and their shapes."""

    def __init__(self, op: Op, backend: str | None, arrays: tuple[tuple[Any, ...], ...]):
        #: The shapes of the arrays that the op has a form for.
        self.shapes: dict[str, tuple[int, ...]] = {}
        #: The sizes that the names in the forms stand for.
        self.sizes: dict[str, int] = {}
        #: The shapes and dtypes of the arrays that the bodies get: of all, or of none.
        self.kinds: list[extension.Kind] = []
        first, self.library, (self.device, _, _) = arrays[0]
        for name, library, (device, dtype, shape) in arrays:
            if library is not self.library or device != self.device:
                raise TypeError(
                    f"{first} is a {self.library.name} on {self.device} and {name} a "
                    f"{library.name} on {device}: the arrays must be of one kind and on one device"
                )
            if name.partition("[")[0] in op.forms:
                self._check(op, name, dtype_name(dtype), tuple(shape))
        found = backend_for(self.device, backend)
        self.body, self.place = op.bodies[found.body], found.place(self.library, self.device)
        self.op, self.backend = op, backend
        self.run = self.library.runner(self.place)
        self.takes_arrays = bool(self.kinds) or self.library.takes_unread
        op.check(self)

    def _check(self, op: Op, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        listed, bracket, _ = name.partition("[")
        form = op.forms[listed]
        sizes: dict[str, int] = {} if bracket else self.sizes
        if dtype != form.dtype:
            remedy = self.library.cast(dtype, form.dtype)
            raise TypeError(f"{name}: expected {form.dtype}, got {dtype}{remedy}")
        spare = len(shape) - len(form.axes)
        if spare < 0 or (spare > 0 and not form.open):
            raise ValueError(f"{name}: expected shape {form.shape}, got {shape}")
        for want, size in zip(form.axes, shape[spare:] if form.leading else shape):
            known = sizes.setdefault(want, size) if isinstance(want, str) else want
            if size != known:
                where = ""
                if isinstance(want, str):
                    first = next(other for other in self.shapes if want in op.forms[other].axes)
                    where = f" with {want} = {known} as in {first}"
                raise ValueError(f"{name}: expected shape {form.shape}{where}, got {shape}")
        self.shapes[name] = shape
        if form.read:
            self.kinds.append((shape, np.dtype(form.dtype)))


#: Kept, since most programs call an op with the same shapes again and again.
_plan = functools.lru_cache(1024)(Plan)


def _conversion(op: Op, name: str, x: Any) -> str:
    """The rest of an error message: the call that makes an array of a list or the like."""
    form = op.forms.get(name)
    if form is None or not form.read or not hasattr(x, "__len__") or isinstance(x, (str, bytes)):
        return ""
    return f': convert it by numpy.array({name}, "{form.dtype}")'


class Call:
    """One call of an op: its arrays, and the plan for it."""

    __slots__ = ("_arrays", "_plan", "shapes", "sizes")

    def __init__(self, op: Op, backend: str | None, arrays: dict[str, Any]):
        if backend is not None and not isinstance(backend, str):
            raise TypeError(f"backend: expected a name or None, got {backend!r}")
        kinds = []
        for name, x in arrays.items():
            library = library_of(x)
            if library is None:
                raise TypeError(
                    f"{name}: expected an array (NumPy, CuPy, PyTorch or MXNet), "
                    f"got {type(x).__name__}{_conversion(op, name, x)}"
                )
            try:
                kinds.append((name, library, library.describe(x)))
            except (TypeError, NotImplementedError) as error:
                raise type(error)(f"{name}: {error}") from None
        plan = _plan(op, backend, tuple(kinds))
        self._arrays, self._plan = arrays, plan
        self.shapes, self.sizes = plan.shapes, plan.sizes

    def __call__(self, *options: Any) -> Any:
        """Compute, and give the results as the caller's kind of array.

        The body gets the arrays in their order, and then the options.
        """
        plan = self._plan
        return plan.run(plan, self._arrays.values() if plan.takes_arrays else (), options)


def _nothing(plan: Plan) -> None:
    pass


class Gradient(NamedTuple):
    """The path of a gradient from an op's first result to its first array.

    The gradient with respect to the other arrays is 0.
    """

    #: Of the gradient of the result, the residual if there is one, the options and the backend.
    backward: Callable[..., Any]
    #: True if the last option asks for a second result, and ``backward`` takes that.
    residual: bool


class Op:
    """The forms of an op's arrays, and the table of its bodies."""

    def __init__(self, name: str, **forms: str):
        self.name = name
        self.forms = {array: Form(text) for array, text in forms.items()}
        self.bodies: dict[str, Callable[..., Any]] = {}
        #: Refuses shapes that have the forms, but do not go together.
        self.check: Callable[[Plan], None] = _nothing
        #: None for an op without a gradient.
        self.gradient: Gradient | None = None
        #: The operator of MXNet for an op with a gradient, and its attributes, from the options.
        self.operator: Callable[..., tuple[str, dict[str, Any]]] | None = None

    def shapes(self, check: Callable[[Plan], None]) -> Callable[[Plan], None]:
        """Register the decorated function as :attr:`check`."""
        self.check = check
        return check

    def backward(self, residual: bool = False) -> Callable[[F], F]:
        """Register the decorated function as :attr:`Gradient.backward`."""

        def register(function: F) -> F:
            self.gradient = Gradient(function, residual)
            return function

        return register

    def mxnet(self, operator: F) -> F:
        """Register the decorated function as :attr:`operator`."""
        self.operator = operator
        return operator

    def body(self, kind: str) -> Callable[[F], F]:
        """Register the decorated function as the body of that kind."""

        def register(function: F) -> F:
            self.bodies[kind] = function
            return function

        return register

    def call(self, backend: str | None, **arrays: Any) -> Call:
        """Begin a call with the caller's arrays, named as its parameters are.

        Each that has a form is held against it. The others only say where the call runs. The arrays
        of a list are named ``maps[0]``, ``maps[1]``, ...: their form is that of ``maps``, and each
        has its own sizes.
        """
        return Call(self, backend, arrays)
