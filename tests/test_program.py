"""What a body does on a GPU, written down and repeated: told without a GPU."""

import ctypes
import itertools
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import _cuda, _kernels
from cvops._arrays import Device, Library
from cvops._launches import Launch, Launches
from cvops._program import Part, Recorder, layout
from cvops.ops import _check

FLOATS = np.dtype("f4")


class Rule(ctypes.Structure):
    """As C++ lays it out."""

    _fields_ = (("threshold", ctypes.c_float), ("at_least", ctypes.c_int), ("center", ctypes.c_int))


RULE = np.array((0.5, -1, 2), [("threshold", "f4"), ("at_least", "i4"), ("center", "i4")])


def taken(arguments, types):
    """What a launch takes: the address of each argument, and there a value of its C type."""
    addresses = (ctypes.c_void_p * len(types)).from_address(arguments)
    values = [type_.from_address(at) for type_, at in zip(types, addresses)]
    return [v if isinstance(v, Rule) else v.value for v in values]


def launch(start, name="k"):
    return Launch(name, (5,), (2048,), 16, start)


class TestLaunches:
    def test_each_argument_lies_where_its_address_says(self):
        seen = []

        def start(*types):
            return lambda stream, at, extra: seen.append((stream, taken(at, types), extra))

        first = start(ctypes.c_void_p, ctypes.c_int, Rule, ctypes.c_float, ctypes.c_void_p)
        values = np.int32(-(2**31)), RULE, np.float32(0.1), np.uint64(0)
        second = start(ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p)
        launches = Launches(
            [
                (launch(first), [1, *(x.tobytes() for x in values)]),
                (launch(second), [np.int64(2**63 - 1).tobytes(), 0, 1]),
            ],
            2,
        )
        for here, there in [(2**63 + 16, 32), (64, 80)]:  # the second in the memory of the first
            launches((here, there), 7)
            [(_, [pointer, number, rule, real, null], _), more] = seen
            assert (pointer, number, null) == (there, -(2**31), None)
            assert real == np.float32(0.1)
            assert (rule.threshold, rule.at_least, rule.center) == (0.5, -1, 2)
            assert more == (7, [2**63 - 1, here, there], 0)
            seen.clear()

    def test_arguments_are_aligned_as_c_wants_them(self):
        args = [bytes(4), 0, bytes(12), bytes(8), bytes(1), bytes(8)]
        seen = []

        def start(stream, arguments, extra):
            seen.extend((ctypes.c_void_p * len(args)).from_address(arguments))

        Launches([(launch(start), args)], 1)((16,), 0)
        assert len(seen) == len(args)
        assert all(at % 8 == 0 for at in seen)

    def test_a_call_during_a_launch_has_memory_of_its_own(self):
        seen = []

        def start(stream, arguments, extra):
            if stream == 0:
                launches((2,), 1)  # by a finalizer, say
            seen.extend(taken(arguments, [ctypes.c_void_p]))

        launches = Launches([(launch(start), [0])], 1)
        launches((3,), 0)
        assert seen == [2, 3]

    def test_threads_that_call_at_a_time_have_each_its_memory(self):
        wrong, together, names = [], threading.Barrier(4), (ctypes.c_void_p, ctypes.c_void_p)

        def start(stream, arguments, extra):
            if taken(arguments, names) != [stream, stream + 1]:
                wrong.append(stream)

        launches = Launches([(launch(start), [0, 1])] * 3, 2)

        def calls(first):
            together.wait(60)
            for i in range(first, first + 1000):
                launches((i, i + 1), i)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=calls, args=(n * 10**6,)) for n in range(1, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not wrong

    def test_what_the_driver_refuses_names_the_launch(self):
        def refuse(*args):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")

        launches = Launches([(launch(lambda *args: None), []), (launch(refuse, "second"), [])], 0)
        message = r"second<<<\(5,\), \(2048,\), 16>>>: CUDA_ERROR_INVALID"
        with pytest.raises(RuntimeError, match=message):
            launches((), 0)


class TestStart:
    @pytest.fixture(autouse=True)
    def driver(self, monkeypatch):
        """CuPy, which writes down what the driver is told."""
        self.told = []
        driver = SimpleNamespace(
            launchKernel=lambda *args: self.told.append(args),
            funcSetAttribute=lambda *args: self.told.append(args),
            funcGetAttribute=lambda attribute, function: {(1, 99): 1000}[attribute, function],
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES=1,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
        )
        cupy = SimpleNamespace(cuda=SimpleNamespace(driver=driver))
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setattr(_kernels, "attribute", lambda name, device: 232448)
        _kernels._allow_shared.cache_clear()
        yield
        _kernels._allow_shared.cache_clear()

    @pytest.mark.parametrize(
        ("grid", "block", "want"),
        [
            ((5,), (256,), (5, 1, 1, 256, 1, 1)),
            ((5, 6), (32, 4), (5, 6, 1, 32, 4, 1)),
            ((5, 6, 7), (1, 2, 3), (5, 6, 7, 1, 2, 3)),
        ],
    )
    def test_what_the_driver_is_told(self, grid, block, want):
        _kernels.start(99, grid, block, 48, 0)(7, 1000, 0)
        assert self.told == [(99, *want, 48, 7, 1000, 0)]

    @pytest.mark.parametrize(
        ("shared", "want"), [(48 << 10, []), ((48 << 10) + 1, [(99, 8, 231448)])]
    )
    def test_much_shared_memory_is_allowed(self, shared, want):
        for _ in range(2):  # once is enough
            _kernels.start(99, (1,), (1,), shared, 0)
        assert self.told == want


class TestScratch:
    @pytest.fixture
    def gpu(self):
        return Recorder(Device("cuda", 0), [])

    def program(self, gpu, body):
        gpu._queue = lambda place, count: None
        return gpu.record(body, ())

    def test_arrays_as_they_were_asked_for(self, gpu):
        kinds = ((3, 5), np.uint8), ((), np.uint64), ((0, 4), np.float32)
        assert [x[1:3] for x in gpu.scratch(*kinds)] == [(s, np.dtype(t)) for s, t in kinds]

    def test_the_room_that_a_body_lets_go_of_is_used_again(self, gpu):
        def body(gpu):
            first, second = gpu.scratch(((256,), np.uint8), ((1000,), np.uint8))
            third = gpu.workspace(1)
            del first
            fourth, fifth = gpu.workspace(256), gpu.workspace(0)
            del second, third, fourth, fifth
            gpu.workspace(900)
            return gpu.empty((), np.uint8)

        # 1024 of the second and the sixth, 256 of the first and the fourth, 256 of the third.
        program = self.program(gpu, body)
        first, second, third, fourth, _, sixth = program.parts
        assert (program.size, second, sixth, first, fourth) == (1536, 0, 0, 1024, 1024)
        assert third == 1280

    @settings(deadline=None)
    @given(
        parts=st.lists(
            st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(1, 20)), max_size=12
        )
    )
    def test_what_is_held_at_a_time_does_not_overlap(self, parts):
        parts = [Part(size, begin, begin + time) for size, begin, time in parts]
        size = layout(parts)
        held = [sum(x.size for x in parts if x.begin <= t < x.end) for t in range(40)]
        assert max(held) <= size <= sum(x.size for x in parts)
        for x, y in itertools.combinations(parts, 2):
            if x.begin < y.end and y.begin < x.end:
                assert x.first + x.size <= y.first or y.first + y.size <= x.first
        assert all(x.first % 256 == x.size % 256 == 0 for x in parts)


class Memory(Library):
    """Arrays are numbers, which are their addresses."""

    taken = 100

    def memory(self, x):
        return x, f"array at {x}"

    def empty(self, shape, dtype, device):
        self.taken += 100
        return self.taken, (self.taken, shape, np.dtype(dtype))

    def workspace(self, size, device):
        return 1 << 20, size

    def stream(self, device):
        return 77


class Extension:
    def __init__(self):
        self.calls = []

    def op_workspace(self, num):
        return 10 * num

    def set_device(self, number):
        return number

    def synchronize(self):
        raise AssertionError

    def op_cuda(self, *args):
        self.calls.append(args)


class Native(_cuda.Native):
    def extension(self):
        self.module = Extension()
        return self.module


class Plan:
    kinds = [((3,), FLOATS), ((4,), FLOATS)]

    def __init__(self, body):
        self.place, self.body = Native(Memory(), Device("cuda", 0)), body

    def run(self, arrays, options):
        return self.place.run(self, arrays, options)


class TestCalls:
    def test_a_body_runs_once(self):
        ran = []

        def body(gpu, x, y, factor):
            ran.append((x.shape, y.shape, x.dtype, factor))
            out, index = gpu.empty((2,), np.float32), gpu.empty((7,), np.int32)
            workspace = gpu.workspace(gpu.module.op_workspace(x.size))
            pointers = (z.pointer for z in (index, out, y, workspace, x))
            gpu.module.op_cuda(*pointers, 0, factor, gpu.stream, np.arange(2))
            return index, out

        plan = Plan(body)
        for x, y in [(16, 32), (48, 64)]:
            index, out = plan.run([x, y], (2.5,))
            assert (index[1:], out[1:]) == (((7,), np.int32), ((2,), np.float32))
            [(*args, fixed)] = plan.place.module.calls
            assert args == [index[0], out[0], y, 1 << 20, x, 0, 2.5, 77]
            assert fixed.tolist() == [0, 1]
            plan.place.module.calls.clear()
        assert ran == [((3,), (4,), FLOATS, 2.5)]
        plan.run([16, 32], (3,))
        assert len(ran) == 2

    def test_one_result(self):
        def body(gpu, x, y):
            return gpu.empty((2,), np.float32)

        plan = Plan(body)
        assert plan.run([16, 32], ())[1:] == ((2,), np.float32)
        assert plan.place.module.calls == []

    def test_a_body_that_fails_is_asked_again(self):
        def body(gpu, x, y):
            raise RuntimeError("in the body")

        plan = Plan(body)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="in the body"):
                plan.run([16, 32], ())


class TestOptions:
    """Those that are equal are taken for the same."""

    @pytest.mark.parametrize(
        "zero",
        [
            lambda x: _check.number("x", x),
            lambda x: _check.single("x", x),
            lambda x: _check.numbers("x", (1, x))[1],
        ],
        ids=["number", "single", "numbers"],
    )
    def test_zeros_of_two_signs(self, zero):
        plus, minus = zero(0.0), zero(-0.0)
        assert len({(1, plus), (1, minus)}) == 2
        assert len({(1, minus), (1, zero(-0.0))}) == 1
        assert (str(plus), str(minus)) == ("0.0", "-0.0")
        assert np.signbit(np.array([minus], np.float32)).tolist() == [True]
        assert not minus > 0

    def test_what_is_too_small_for_a_single(self):
        assert len({_check.single("x", -1e-60), _check.single("x", 1e-60)}) == 2
