"""The layers of a call, which the benchmark of the call overhead times."""

import numpy as np
import pytest
from tools.layers import Steps
from tools.small_calls import CASES

from cvops.backends import extension


@pytest.mark.skipif(extension.native() is None, reason="needs the compiled extension")
@pytest.mark.parametrize("name", CASES)
def test_steps_of_a_call_give_its_result(name):
    small = CASES[name]
    steps = Steps(small, small.arrays, small.args)
    assert len(steps.bindings) == 1
    assert steps.memory
    implementation, *arguments = steps.implementation
    got, want = implementation(*arguments), small.op(*small.arrays, *small.args, **small.options)
    for x, y in zip(*(out if isinstance(out, tuple) else (out,) for out in (got, want))):
        np.testing.assert_array_equal(x, y)
