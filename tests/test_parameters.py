"""The arguments of a launch, as a kernel takes them."""

import ctypes
import struct

import numpy as np
import pytest

from cvops._arrays import Buffer
from cvops._parameters import Parameters

RULE = np.dtype([("threshold", "f4"), ("at_least", "i4"), ("center", "i4")])
FORMS = ("*", "int", "Rule", "float", "*", "long long")


TYPES = {
    "int": ctypes.c_int,
    "long long": ctypes.c_longlong,
    "float": ctypes.c_float,
}


def buffer(pointer):
    return Buffer(pointer, (4,), np.dtype("f4"))


def values(args, types):
    """What a kernel of these parameters gets for the arguments, but for pointers."""
    packed = Parameters("k", types).packed(args)
    return [TYPES[type_].from_buffer_copy(x).value for type_, x in zip(types, packed)]


def test_arguments_as_bytes():
    rule = np.array((0.5, -1, 2), RULE)
    packed = Parameters("k", FORMS).packed((buffer("here"), -2, rule, 0.1, None, 2**63 - 1))
    assert packed == (
        "here",
        struct.pack("<i", -2),
        struct.pack("<fii", 0.5, -1, 2),
        struct.pack("<f", 0.1),
        bytes(8),
        struct.pack("<q", 2**63 - 1),
    )


@pytest.mark.parametrize(
    "value",
    [True, 3, np.int64(3), np.uint8(3)],
    ids=["bool", "int", "NumPy's int64", "NumPy's uint8"],
)
def test_whole_numbers_of_any_type_are_taken(value):
    assert values((value,) * 3, ("int", "long long", "float")) == [int(value)] * 3


@pytest.mark.parametrize(
    ("value", "want"),
    [(1e300, np.inf), (-1e300, -np.inf), (1e-300, 0), (np.float32(0.1), np.float32(0.1))],
)
def test_a_number_becomes_the_nearest_float(value, want):
    assert values((value,), ("float",)) == [want]


@pytest.mark.parametrize("take", ["packed", "typed"])
class TestRefusals:
    @pytest.fixture(autouse=True)
    def parameters(self, take):
        parameters = Parameters("k", FORMS)
        self.take = getattr(parameters, take)
        self.args = [buffer(16), 3, np.zeros((), RULE), 0.5, None, 4]
        self.take(tuple(self.args))

    def refused(self, i, arg, error, message):
        self.args[i] = arg
        with pytest.raises(error, match=message):
            self.take(tuple(self.args))

    def test_too_few_or_too_many(self):
        for args in (self.args[:-1], [*self.args, 1], []):
            with pytest.raises(TypeError, match=f"k takes 6 arguments, got {len(args)}"):
                self.take(tuple(args))

    @pytest.mark.parametrize("arg", [3, np.zeros(4, np.float32), "x"])
    def test_a_pointer_that_is_no_buffer(self, arg):
        self.refused(0, arg, TypeError, r"k: expected \* for an argument, got ")

    @pytest.mark.parametrize("i", [1, 3, 5])
    def test_a_buffer_for_a_number(self, i):
        self.refused(i, buffer(16), TypeError, rf"k: expected {FORMS[i]} .*, got Buffer")

    @pytest.mark.parametrize("arg", [1.5, np.float32(2), None, "3"])
    def test_an_integer_that_is_none(self, arg):
        self.refused(1, arg, TypeError, "k: expected int for an argument, got ")

    @pytest.mark.parametrize("arg", [None, "3", 1j])
    def test_a_float_that_is_none(self, arg):
        self.refused(3, arg, TypeError, "k: expected float for an argument, got ")

    @pytest.mark.parametrize("arg", [2**31, -(2**31) - 1])
    def test_what_an_int_cannot_hold(self, arg):
        self.refused(1, arg, OverflowError, f"k: {arg} does not fit int")

    def test_what_a_long_long_cannot_hold(self):
        self.refused(5, 2**63, OverflowError, f"k: {2**63} does not fit long long")

    @pytest.mark.parametrize("arg", [3, np.zeros(3, np.float32), buffer(16), None])
    def test_a_struct_that_is_none(self, arg):
        self.refused(2, arg, TypeError, "k: expected Rule for an argument, got ")

    def test_a_struct_of_another_size(self):
        other = np.zeros((), RULE.descr[:2])
        self.refused(2, other, TypeError, "k: expected Rule of 12 bytes, got 8")
