"""The ops for arrays of JAX: eager, under ``jit``, ``grad`` and ``vmap``, on the CPU and on GPUs.

``import cvops.jax`` builds the operators for XLA once, and loads them. The build needs a C++
compiler; its result is in ``CVOPS_CACHE_DIR``. ``cvops.jax.<name>`` has the arguments of
``cvops.<name>`` and returns all of its results. Options are Python's values: they are constants of
a traced function. A GPU needs kernels: those of nvcc in the extension, or CuPy, with which NVRTC
compiles them at the first call.

The ops with a gradient have one by reverse mode (``jax.custom_vjp``); a second derivative is an
error. The gradient of another op is 0, as that of ``jax.lax.stop_gradient``.
"""

from __future__ import annotations

from typing import Any

from cvops._imports import optional as _optional

with _optional():
    from cvops.jax import operators as _operators


def __getattr__(name: str) -> Any:
    return _operators.function(name)


def __dir__() -> list[str]:
    return _operators.names()
