"""Odd values of each argument of each op: a result, or an error that names the argument."""

import datetime
import decimal
import fractions
import inspect

import numpy as np
import pytest
from cases import CALLS

import cvops


class Odd:
    """An object without a value."""


class Index:
    """An object that is an integer."""

    def __index__(self):
        return 1


def generator():
    yield 1


#: Functions that make a value, since some values can be used once.
VALUES = {
    "None": lambda: None,
    "flag": lambda: True,
    "integer": lambda: 2,
    "negative integer": lambda: -1,
    "large integer": lambda: 2**70,
    "large negative integer": lambda: -(2**70),
    "float": lambda: 0.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "number beyond float32": lambda: 1e300,
    "complex": lambda: 1 + 2j,
    "Fraction": lambda: fractions.Fraction(1, 2),
    "Decimal": lambda: decimal.Decimal("0.5"),
    "empty text": lambda: "",
    "text": lambda: "x",
    "text of a number": lambda: "1",
    "text of NaN": lambda: "nan",
    "text of many digits": lambda: "1" * 5000,
    "text that is not UTF-8": lambda: "\ud800",
    "bytes": lambda: b"x",
    "memoryview": lambda: memoryview(b"ab"),
    "numpy text": lambda: np.str_("corner"),
    "0-d array": lambda: np.array(1),
    "array of one": lambda: np.array([1]),
    "array of two": lambda: np.array([1, 2]),
    "array of two axes": lambda: np.array([[1.0, 2.0]]),
    "empty array": lambda: np.array([]),
    "array of objects": lambda: np.ones((2, 2), object),
    "masked array": lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    "masked constant": lambda: np.ma.masked,
    "numpy.bool_": lambda: np.bool_(True),
    "numpy.float16": lambda: np.float16(1),
    "numpy.complex64": lambda: np.complex64(1),
    "numpy.datetime64": lambda: np.datetime64("2020"),
    "list": lambda: [1],
    "list of two": lambda: [1, 2],
    "tuple of three": lambda: (1, 2, 3),
    "list of lists": lambda: [[1]],
    "dict": lambda: {1: 2},
    "empty dict": dict,
    "set": lambda: {1},
    "range": lambda: range(2),
    "slice": lambda: slice(1),
    "generator": generator,
    "object": Odd,
    "class": lambda: Odd,
    "object that is an integer": Index,
    "date": lambda: datetime.date(2020, 1, 1),
    "Ellipsis": lambda: ...,
    "function": lambda: len,
}
ARGUMENTS = [
    (op, name) for op in CALLS for name in inspect.signature(getattr(cvops, op)).parameters
]


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_odd_value_gives_a_result_or_an_error_with_the_name(op, name):
    """A warning is an error too."""
    function = getattr(cvops, op)
    given, options = CALLS[op]
    arguments = inspect.signature(function).bind(*given, **options).arguments
    for kind, make in VALUES.items():
        try:
            function(**{**arguments, name: make()})
        except (TypeError, ValueError) as error:
            message = str(error)
        else:
            continue
        assert name in message, (kind, message)
