"""The backends of each kind of device, and the choice of one for a call."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Protocol

from cvops.arrays import ArrayType, Device, Library
from cvops.backends import cpu, cuda, extension, shapes


class Executor(Protocol):
    """Runs implementations on one device, for arrays of one library."""

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        """Run an implementation on the caller's arrays; return arrays of the caller's library."""


class Backend(NamedTuple):
    """A way to run ops on a kind of device."""

    #: The implementation that it runs: "native" or "numpy".
    implementation: str
    #: Returns the reason why it cannot run here; None if it can.
    missing: Callable[[], str | None]
    #: Makes the executor for a library and a device.
    executor: Callable[[Library, Device], Executor]
    #: False if the executor ignores the types of the arrays.
    reads_types: bool = True


#: (kind of device, name of the backend) -> the backend; for each device the best comes first.
BACKENDS: dict[tuple[str, str], Backend] = {
    ("cpu", "native"): Backend(
        "native", extension.missing_native, functools.lru_cache(None)(cpu.Cpu), False
    ),
    ("cpu", "numpy"): Backend(
        "numpy", lambda: None, functools.lru_cache(None)(cpu.Reference), False
    ),
    ("cuda", "native"): Backend(
        "native", extension.missing_machine_code, functools.lru_cache(None)(cuda.Native)
    ),
    ("cuda", "cupy"): Backend(
        "native", extension.missing_cupy, functools.lru_cache(None)(cuda.CuPy)
    ),
    ("shapes", "native"): Backend("native", lambda: None, shapes.Shapes),
}


@functools.lru_cache(None)
def backend_for(device: Device, name: str | None) -> Backend:
    """Return the backend of that name for ``device``, or the best that can run here."""
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
