"""Times of the layers of a call on the CPU.

- adapter: conversion of the arrays and of the results, and memory for the results
- contract: the checks of the arrays and of the other arguments
- dispatch: from the checked arguments to the implementation, and its Python code
- binding: pybind11, measured by the same call with empty arrays
- core: C++
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tools.small_calls import SmallCall, quickest

from cvops import arrays
from cvops.backends.registry import BACKENDS
from cvops.ops import _op


class Steps:
    """The steps of one call on the CPU, recorded as functions with their arguments."""

    def __init__(self, small: SmallCall, inputs: tuple[np.ndarray, ...], args: tuple[Any, ...]):
        self.bindings: list[tuple[Any, ...]] = []
        self.memory: list[tuple[Any, ...]] = []
        self.implementation: tuple[Any, ...] = ()
        library = arrays.library_of(inputs[0])
        executor = BACKENDS["cpu", "native"].executor(library, arrays.CPU)
        original = dict(vars(executor))

        def recorded(steps, function):
            def call(*args):
                steps.append((function, *args))
                return function(*args)

            return call

        class Ops:
            def __getattr__(_, name):
                return recorded(self.bindings, getattr(original["ops"], name))

        def run(implementation, types, inputs, options):
            self.implementation = implementation, executor, *inputs, *options
            return original["run"](implementation, types, inputs, options)

        executor.ops, executor.run = Ops(), run
        executor.empty = recorded(self.memory, original["empty"])
        executor.empty_all = recorded(self.memory, original["empty_all"])
        _op.clear_caches()  # a signature keeps the executor's method
        try:
            small.op(*inputs, *args, **small.options)
        finally:
            vars(executor).clear()
            vars(executor).update(original)
            _op.clear_caches()


def layers(small: SmallCall) -> dict[str, float]:
    """Return the microseconds of each layer, and of the whole call with NumPy's arrays."""
    steps = Steps(small, small.arrays, small.args)
    empty = Steps(small, small.empty_arrays, small.empty_args) if small.empty_arrays else None
    library = arrays.library_of(small.arrays[0])
    native = sum(quickest(*step) for step in steps.bindings)
    binding = sum(quickest(*step) for step in empty.bindings) if empty else native
    memory = sum(quickest(*step) for step in steps.memory)
    adapter = memory + len(steps.memory) * quickest(library.from_numpy, small.arrays[0])
    for x in small.arrays:
        adapter += sum(
            quickest(f, x) for f in (arrays.library_of, library.describe, library.to_numpy)
        )
    implementation = quickest(*steps.implementation)
    whole = quickest(partial(small.op, *small.arrays, *small.args, **small.options))
    return {
        "adapter": adapter,
        "contract": whole - adapter - (implementation - memory),
        "dispatch": implementation - memory - native,
        "binding": binding,
        "core": native - binding,
        "NumPy": whole,
    }
