"""JAX's arrays with values, on the CPU. ``cvops.jax`` has the ops for JAX's transformations."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from cvops.arrays.base import CPU, Description, Library


class Jax(Library):
    name = "a JAX array"

    @functools.cached_property
    def _jax(self) -> Any:
        return sys.modules["jax"]

    def describe(self, x: Any) -> Description:
        if isinstance(x, self._jax.core.Tracer):
            raise NotImplementedError(
                "expected an array with values, got one under a transformation of JAX: import "
                "cvops.jax and call the op of that module"
            )
        platforms = {device.platform for device in x.devices()}
        if platforms != {"cpu"}:
            raise TypeError(
                f"expected an array on the CPU, got one on {', '.join(sorted(platforms))}: import "
                "cvops.jax and call the op of that module"
            )
        return CPU, x.dtype, x.shape

    def from_numpy(self, y: np.ndarray) -> Any:
        if y.dtype == np.int64 and not self._jax.config.jax_enable_x64:
            raise TypeError(
                "the result is int64, which JAX has after "
                'jax.config.update("jax_enable_x64", True) only'
            )
        return self._jax.numpy.asarray(y)

    def copy(self, x: Any) -> Any:
        return self._jax.numpy.array(x)
