"""Calls of each operator for the frameworks that have all results: PyTorch and JAX."""

import inspect

import numpy as np
import operator_cases

import cvops
from cvops.backends.operators import OPERATORS
from cvops.ops._results import ALL_RESULTS

#: The dtype of the arrays of an op, if it is not float32.
_INTEGERS = {"label_from_color": np.uint8, "confusion_matrix": np.int32}


def _case(operator):
    inputs, options = operator_cases.CASES[operator.name]
    dtype = _INTEGERS.get(operator.npx_name, np.float32)
    arrays = [np.asarray(x).astype(dtype) for x in inputs]
    options = {key: x for key, x in options.items() if key not in ALL_RESULTS}
    return dict(zip(operator.inputs, arrays)), options


#: op -> NumPy's arrays and the options of a call.
CASES = {operator.npx_name: _case(operator) for operator in OPERATORS}
#: The ops with a gradient.
DIFFERENTIABLE = [operator.npx_name for operator in OPERATORS if operator.differentiable]


def as_list(x):
    return list(x) if isinstance(x, (list, tuple)) else [x]


def public(name, arrays, options):
    """Call the public function for all of its results."""
    function = getattr(cvops, name)
    known = inspect.signature(function).parameters
    return as_list(function(**arrays, **options, **{x: True for x in ALL_RESULTS if x in known}))
