"""An op: one public function that holds the contract, and one body for each way to compute it.

The public function lets the arrays in (:meth:`Op.call`, :meth:`Call.array`), checks its other
arguments, and calls the call with what the bodies take. The bodies stand below it in its file:

==============  ==============================  ============================================
kind of body    first argument                  arrays
==============  ==============================  ============================================
``numpy``                                       NumPy arrays; the oracle
``native``                                      NumPy arrays, for the C++ in ``bindings/``
``kernels``     a ``Gpu`` to launch kernels on  ``Buffer``; the launches are made in Python
``native_cuda`` a ``Gpu`` to allocate on        ``Buffer``; the launches are made in C++
==============  ==============================  ============================================
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, TypeVar

from cvops import _arrays, _gpu
from cvops._arrays import Device, Library

F = TypeVar("F", bound=Callable[..., Any])


class Backend(NamedTuple):
    """A way to run ops on a kind of device."""

    #: The kind of body that it runs.
    body: str
    #: Why it cannot run here; None if it can.
    missing: Callable[[], Optional[str]]
    #: Makes what a ``kernels`` or ``native_cuda`` body launches on; None for a CPU body.
    gpu: Optional[Callable[[Library, Device], _gpu.Gpu]] = None


#: (kind of device, name of the backend) -> the backend; for each device the best comes first.
BACKENDS: dict[tuple[str, str], Backend] = {
    ("cpu", "native"): Backend("native", _gpu.missing_extension),
    ("cpu", "numpy"): Backend("numpy", lambda: None),
    ("cuda", "native"): Backend("native_cuda", _gpu.missing_cuda_extension, _gpu.Native),
    ("cuda", "cupy"): Backend("kernels", _gpu.missing_cupy, _gpu.CuPy),
}


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


class Call:
    """One call of an op: where its arrays lie, and the body that will compute it."""

    def __init__(self, op: Op, backend: str | None, arrays: dict[str, Any]):
        self.op = op
        self.arrays = arrays
        #: The sizes that the shapes' names stand for, and the array each was read from.
        self.sizes: dict[str, tuple[int, str]] = {}
        self._checked: dict[str, tuple[Any, ...]] = {}
        first: tuple[Library, Device, str] | None = None
        for name, x in arrays.items():
            library = _arrays.library_of(x)
            if library is None:
                raise TypeError(
                    f"{name}: expected an array (NumPy, CuPy, PyTorch or MXNet), "
                    f"got {type(x).__name__}"
                )
            try:
                device = library.device(x)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from None
            if first is None:
                first = library, device, name
            elif (library, device) != first[:2]:
                raise TypeError(
                    f"{first[2]} is a {first[0].name} on {first[1]} and {name} a {library.name} on "
                    f"{device}: the arrays must be of one kind and on one device"
                )
        assert first is not None
        self.library, self.device, _ = first
        self.backend = backend_for(self.device, backend)
        self.gpu = self.backend.gpu(self.library, self.device) if self.backend.gpu else None

    def array(
        self, name: str, shape: tuple[Any, ...], dtypes: tuple[str, ...] = ("float32",)
    ) -> Any:
        """The array of that name as the bodies take it, after :meth:`shape`'s checks."""
        self.shape(name, shape, dtypes)
        x = self.arrays[name]
        return self.gpu.enter(x) if self.gpu else self.library.to_numpy(x)

    def shape(
        self, name: str, shape: tuple[Any, ...], dtypes: tuple[str, ...] = ("float32",)
    ) -> tuple[int, ...]:
        """The shape of the array of that name, if it and the dtype are as they should be.

        ``shape`` gives for each axis its size or a name for it, the same size wherever the name
        stands. A ``...`` at the beginning or at the end matches any number of axes.
        """
        x = self.arrays[name]
        if self._checked.get(name) == shape:
            return tuple(x.shape)
        dtype = self.library.dtype(x)
        if dtype not in dtypes:
            raise TypeError(f"{name}: expected {' or '.join(dtypes)}, got {dtype}")
        got = tuple(x.shape)
        named = [axis for axis in shape if axis is not ...]
        first = len(got) - len(named) if shape[0] is ... else 0
        if len(got) < len(named) or (len(got) > len(named) and len(named) == len(shape)):
            raise ValueError(f"{name}: expected shape {_text(shape)}, got {got}")
        for want, size in zip(named, got[first:]):
            known, source = (
                self.sizes.setdefault(want, (size, name)) if isinstance(want, str) else (want, "")
            )
            if size != known:
                where = f" with {want} = {known} as in {source}" if source else ""
                raise ValueError(f"{name}: expected shape {_text(shape)}{where}, got {got}")
        self._checked[name] = shape
        return got

    def __call__(self, *args: Any) -> Any:
        """Compute, and give the result as the caller's kind of array."""
        body = self.op.bodies[self.backend.body]
        if self.gpu is None:
            out = body(*args)
            leave: Callable[[Any], Any] = self.library.from_numpy
        else:
            out = self.gpu.run(body, args)
            leave = self.gpu.leave
        return tuple(map(leave, out)) if type(out) is tuple else leave(out)


class Op:
    """The table of an op's bodies."""

    def __init__(self, name: str):
        self.name = name
        self.bodies: dict[str, Callable[..., Any]] = {}

    def body(self, kind: str) -> Callable[[F], F]:
        """Register the decorated function as the body of that kind."""

        def register(function: F) -> F:
            self.bodies[kind] = function
            return function

        return register

    def call(self, backend: str | None, **arrays: Any) -> Call:
        """Begin a call with the caller's arrays, named as its parameters are."""
        return Call(self, backend, arrays)


def _text(shape: tuple[Any, ...]) -> str:
    axes = ["..." if axis is ... else str(axis) for axis in shape]
    return "(" + ", ".join(axes) + ("," if len(axes) == 1 else "") + ")"
