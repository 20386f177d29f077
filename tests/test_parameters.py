"""The arguments of a launch, as cuLaunchKernel finds them."""

import ctypes
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cvops import _kernels
from cvops._arrays import Buffer
from cvops._parameters import Parameters

RULE = np.dtype([("threshold", "f4"), ("at_least", "i4"), ("center", "i4")])
FORMS = ("*", "int", "Rule", "float", "*", "long long")


class Rule(ctypes.Structure):
    """As C++ lays it out."""

    _fields_ = (("threshold", ctypes.c_float), ("at_least", ctypes.c_int), ("center", ctypes.c_int))


TYPES = {
    "*": ctypes.c_void_p,
    "int": ctypes.c_int,
    "long long": ctypes.c_longlong,
    "float": ctypes.c_float,
    "Rule": Rule,
}


def taken(block, types):
    """What a launch takes: the address of each argument, and there a value of its C type."""
    addresses = (ctypes.c_void_p * len(types)).from_address(block.address)
    values = [TYPES[type_].from_address(at) for type_, at in zip(types, addresses)]
    return [v if isinstance(v, Rule) else v.value for v in values]


def buffer(pointer):
    return Buffer(pointer, (4,), np.dtype("f4"), None)


def test_each_argument_lies_where_its_address_says():
    rule = np.array((0.5, -1, 2), RULE)
    args = buffer(2**63 + 16), -(2**31), rule, 0.1, None, 2**63 - 1
    parameters = Parameters("k", FORMS)
    for _ in range(2):  # as it is first, and in a block that has been released
        block = parameters.pack(args)
        pointer, number, struct, real, null, long = taken(block, FORMS)
        assert (pointer, number, null, long) == (2**63 + 16, -(2**31), None, 2**63 - 1)
        assert real == np.float32(0.1)
        assert (struct.threshold, struct.at_least, struct.center) == (0.5, -1, 2)
        parameters.release(block)


def test_arguments_are_aligned_as_c_wants_them():
    block = Parameters("k", FORMS).pack((None, 1, np.zeros((), RULE), 1.0, None, 1))
    addresses = (ctypes.c_void_p * len(FORMS)).from_address(block.address)
    assert all(at % ctypes.alignment(TYPES[t]) == 0 for t, at in zip(FORMS, addresses))


@pytest.mark.parametrize(
    "value",
    [True, 3, np.int64(3), np.uint8(3)],
    ids=["bool", "int", "NumPy's int64", "NumPy's uint8"],
)
def test_whole_numbers_of_any_type_are_taken(value):
    parameters = Parameters("k", ("int", "long long", "float"))
    assert taken(parameters.pack((value,) * 3), ("int", "long long", "float")) == [int(value)] * 3


@pytest.mark.parametrize(
    ("value", "want"),
    [(1e300, np.inf), (-1e300, -np.inf), (1e-300, 0), (np.float32(0.1), np.float32(0.1))],
)
def test_a_number_becomes_the_nearest_float(value, want):
    assert taken(Parameters("k", ("float",)).pack((value,)), ("float",)) == [want]


@pytest.mark.parametrize("take", ["pack", "typed"])
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


def test_threads_that_launch_at_a_time_have_each_its_block():
    parameters, wrong = Parameters("k", ("*", "int")), []
    together = threading.Barrier(4)

    def launches(number):
        together.wait()
        for i in range(2000):
            block = parameters.pack((buffer(number), i))
            if taken(block, ("*", "int")) != [number, i]:
                wrong.append((number, i))
            parameters.release(block)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=launches, args=(n,)) for n in (16, 32, 48, 64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


class TestLaunch:
    """Of a loaded kernel, with a function of ours for the driver's."""

    def kernel(self, start, allow_shared=lambda: None):
        self.parameters = Parameters("k", ("int",))
        return _kernels.Kernel("k", self.parameters, start, allow_shared)

    @pytest.mark.parametrize(
        ("grid", "block", "want"),
        [
            ((5,), (256,), (5, 1, 1, 256, 1, 1)),
            ((5, 6), (32, 4), (5, 6, 1, 32, 4, 1)),
            ((5, 6, 7), (1, 2, 3), (5, 6, 7, 1, 2, 3)),
        ],
    )
    def test_what_the_driver_is_told(self, grid, block, want):
        calls = []
        self.kernel(lambda *args: calls.append(args)).launch(grid, block, (1,), 48, 7)
        [(*sizes, shared, stream, _, extra)] = calls
        assert (*sizes, shared, stream, extra) == (*want, 48, 7, 0)

    @pytest.mark.parametrize(("shared", "want"), [(48 << 10, "s"), ((48 << 10) + 1, "as")])
    def test_much_shared_memory_is_allowed_first(self, shared, want):
        calls = []
        kernel = self.kernel(lambda *args: calls.append("s"), lambda: calls.append("a"))
        kernel.launch((1,), (1,), (1,), shared, 0)
        assert "".join(calls) == want

    def test_a_launch_during_a_launch_has_a_block_of_its_own(self):
        seen = []

        def during(*args):
            self.parameters.pack((2,))  # by a finalizer, say
            seen.append(taken(SimpleNamespace(address=args[8]), ("int",)))

        self.kernel(during).launch((1,), (1,), (1,), 0, 0)
        assert seen == [[1]]

    def test_what_the_driver_refuses_names_the_launch(self):
        def refuse(*args):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")

        kernel = self.kernel(refuse)
        with pytest.raises(RuntimeError, match=r"k<<<\(5,\), \(2048,\), 16>>>: CUDA_ERROR_INVALID"):
            kernel.launch((5,), (2048,), (1,), 16, 0)
