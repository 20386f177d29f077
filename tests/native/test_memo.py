"""The memory of checked options and of checked arrays: what it remembers, and its bounds."""

import gc
import itertools
import sys
import weakref
from collections import namedtuple

import numpy as np
import pytest
from in_threads import run_in_threads

import cvops
from cvops.ops import _check

native = pytest.importorskip("cvops._native")
NAN = float("nan")


class Text(str):
    """A str whose instances are all equal."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("corner")


class Number:
    """A hashable number that changes."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return float(self.value)


class Counted:
    """A function with a memory, and the number of its calls."""

    def __init__(self, function=lambda *args, **kwargs: (args, kwargs), arrays=False):
        self.calls = 0
        self.function = function
        self.get = native.memoized(self._call, arrays)

    def _call(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


#: Arguments with different meanings. Many of them are equal for Python.
DIFFERENT = [
    *((), (1,), (True,), (1.0,), ("1",), (0,), (False,), (0.0,), (-0.0,), (None,), (NAN,)),
    *(((),), ((1,),), ((True,),), ((1.0,),), ((0.0,),), ((-0.0,),), (((1,),),), ((1, 1),), (1, 1)),
    *((2**64,), (2**64 + 1,), (-1,), (-2,), ("corner",), ("center",), ("",), ("\ud800",)),
    *(((1, 2), 3), (1, (2, 3)), (1, 2, 3), ((1, 2, 3),)),
]


def test_arguments_of_other_types_or_bits_have_other_results():
    counted = Counted(function=lambda *args: args)
    for _ in range(3):
        for args in DIFFERENT:
            assert repr(counted.get(*args)) == repr(args)
    assert counted.calls < 2 * len(DIFFERENT)  # a few can share a set of the table


def test_equal_arguments_of_other_objects_share_a_result():
    counted = Counted()
    first = counted.get(float("0.25"), int("1000"), "".join(["cor", "ner"]), (int("70000"), NAN))
    second = counted.get(float("0.25"), int("1000"), "".join(["cor", "ner"]), (int("70000"), NAN))
    assert first is second
    assert counted.calls == 1


@pytest.mark.parametrize(
    "value",
    [
        *([1], {1: 2}, {1}, b"1", 1j, range(2), Number(1), Text("corner"), np.array(1.0)),
        *(np.float32(1), np.float64(1), np.int64(1), np.True_, np.str_("corner"), np.zeros(2)),
        *(namedtuple("Pair", "a b")(1, 2), type("Int", (int,), {})(1), np.dtype("f"), ...),
        *("x" * 65, (0,) * 513, ((((((1,),),),),),)),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("inside", [False, True])
def test_other_objects_and_large_ones_are_not_remembered(value, inside):
    counted = Counted()
    args = (1, (0.5, value)) if inside else (value,)
    for calls in (1, 2, 3):
        assert counted.get(*args)[0][-1] is args[-1]
        assert counted.calls == calls


def test_errors_are_not_remembered():
    def refuse(x):
        raise ValueError(f"x: got {x}")

    counted = Counted(refuse)
    for calls in (1, 2):
        with pytest.raises(ValueError, match="x: got 1"):
            counted.get(1)
        assert counted.calls == calls


def test_names_of_arguments_count():
    counted = Counted()
    calls = [dict(a=1, b=2), dict(b=1, a=2), dict(a=2, b=1), dict(a=1), {}]
    for _, kwargs in itertools.product(range(2), calls):
        assert counted.get(0, **kwargs) == ((0,), kwargs)
    assert counted.get(0, 1) == ((0, 1), {})
    assert counted.calls == len(calls) + 1


def test_arrays_count_by_dtype_and_shape():
    counted = Counted(lambda x, y=None: (x.dtype, x.shape), arrays=True)
    shapes = (), (0,), (6,), (2, 3), (3, 2), (1, 2, 3)
    for dtype, shape in itertools.product(("f4", "f8", "i4", ">f4"), shapes):
        for _ in range(2):
            assert counted.get(np.zeros(shape, dtype)) == (np.dtype(dtype), shape)
    # Each array with another order of bytes has a dtype of its own.
    assert counted.calls == len(shapes) * (1 + 1 + 1 + 2)
    x = np.zeros((4, 4), np.float32)
    counted.get(x)
    x.shape = 2, 8
    assert counted.get(x) == (x.dtype, (2, 8))


def test_neither_a_subclass_of_an_array_nor_an_array_as_option_is_remembered():
    for counted, x in (
        (Counted(arrays=True), np.zeros((2, 2)).view(np.matrix)),
        (Counted(arrays=False), np.zeros((2, 2))),
    ):
        counted.get(x)
        counted.get(x)
        assert counted.calls == 2


def test_memory_does_not_keep_arrays_and_has_a_bound():
    class Result:
        pass

    counted = Counted(lambda *args: Result(), arrays=True)
    x = np.zeros(3)
    before = sys.getrefcount(x)
    counted.get(x)
    assert sys.getrefcount(x) == before
    results = [weakref.ref(counted.get(i)) for i in range(2000)]
    gc.collect()
    assert 1 <= sum(result() is not None for result in results) <= 256
    counted.get = None
    gc.collect()
    assert not any(result() for result in results)


def test_function_may_call_itself():
    counted = Counted(lambda n: 1 if n < 2 else n * counted.get(n - 1))
    assert counted.get(20) == 2432902008176640000
    assert counted.calls == 20


def test_threads_get_their_own_results():
    counted = Counted(lambda *args: args)

    def use(i):
        for j in range(3000):
            args = j % 400, i % 2, float(j % 7)
            assert counted.get(*args) == args

    run_in_threads(use, range(4))


def test_without_the_extension_the_function_itself_is_called(monkeypatch):
    monkeypatch.setattr(_check.extension, "native", lambda: None)
    function = _check.memoized(lambda x: [x])
    assert function.get(1) is not function.get(1)


class TestOps:
    """Calls of ops whose options are equal for Python, one after the other."""

    BOXES = np.float32([[[0, 0, 4, 4], [1, 1, 5, 5]]])
    ROWS = np.float32([[0, 0.9, 0, 0, 4, 4], [1, 0.8, 0, 0, 4, 4]])

    def test_sign_of_a_zero(self):
        zeros = np.zeros((1, 2, 4), np.float32)
        for clip in (0.0, -0.0, 0.0):
            want = cvops.box_decode(zeros + 1, self.BOXES, clip=clip, backend="numpy")
            got = cvops.box_decode(zeros + 1, self.BOXES, clip=clip)
            assert got.tobytes() == want.tobytes()
        label, scores = np.full((1, 1, 5), -1, np.float32), np.zeros((1, 2, 2), np.float32)
        options = dict(negative_mining_ratio=1.0, negative_mining_thresh=0.5)
        for ignored in (0.0, -0.0, 0, 0.0):
            out = cvops.multibox_target(self.BOXES, label, scores, 0.5, ignored, **options)
            want = cvops.multibox_target(
                self.BOXES, label, scores, 0.5, ignored, **options, backend="numpy"
            )
            assert [x.tobytes() for x in out] == [x.tobytes() for x in want]

    def test_flag_and_number(self):
        for value in (1, True, "1", 1):
            assert cvops.box_nms(self.ROWS, id_index=0, force_suppress=value)[1, 0] == -1
        for wrong in (1.0, np.ones(1), 2):
            with pytest.raises(ValueError, match="force_suppress: expected True or False"):
                cvops.box_nms(self.ROWS, id_index=0, force_suppress=wrong)
        assert cvops.box_nms(self.ROWS, id_index=0, topk=1)[1, 0] == -1
        for wrong in (True, 1.0, np.float32(1)):
            with pytest.raises(TypeError, match="topk: expected an integer"):
                cvops.box_nms(self.ROWS, id_index=0, topk=wrong)

    def test_options_that_change(self):
        thresh, size = Number(1), [2, 2]
        assert (cvops.box_nms(self.ROWS, thresh)[1] != -1).all()
        thresh.value = 0
        assert (cvops.box_nms(self.ROWS, thresh)[1] == -1).all()
        maps, rois = np.ones((1, 1, 4, 4), np.float32), np.float32([[0, 0, 0, 3, 3]])
        assert cvops.roi_align(maps, rois, size, 1.0).shape[2:] == (2, 2)
        size[0] = 3
        assert cvops.roi_align(maps, rois, size, 1.0).shape[2:] == (3, 2)
        assert cvops.roi_align(maps, rois, (2, 2), 1.0).shape[2:] == (2, 2)

    def test_text_that_equals_each_text(self):
        cvops.box_nms(self.ROWS, in_format="corner")
        with pytest.raises(ValueError, match="in_format: expected one of"):
            cvops.box_nms(self.ROWS, in_format="Corner")
        wide = Text("center")
        assert (cvops.box_nms(self.ROWS, in_format=wide, id_index=0) != -1).all()

    def test_shape_and_dtype_of_the_arrays(self):
        for num, dtype in itertools.product((2, 1, 0, 2), ("f4", "f8", "f2")):
            rows = self.ROWS[:num].astype(dtype)
            out = cvops.box_nms(rows, id_index=0)
            assert (out.shape, out.dtype) == (rows.shape, rows.dtype)
        for wrong in (self.ROWS.astype("i4"), self.ROWS.astype(">f4")):
            with pytest.raises(TypeError, match="data: expected float32"):
                cvops.box_nms(wrong)
        with pytest.raises(ValueError, match="data: expected rows of a score and 4 coordinates"):
            cvops.box_nms(self.ROWS[:, :3])
        with pytest.raises(TypeError, match="data: expected an array without a mask"):
            cvops.box_nms(np.ma.masked_array(self.ROWS))


class Parts:
    """A function in two parts with a memory, and the arguments of their calls."""

    def __init__(self):
        self.whole, self.first, self.second = [], [], []
        parts = self._first, self._second
        self.get = native.memoized(self._whole, True, parts)

    def _whole(self, *args, **arrays):
        self.whole.append(args)
        return "whole"

    def _first(self, name, **arrays):
        self.first.append((name, *((key, x.dtype.name) for key, x in arrays.items())))
        return len(self.first)

    def _second(self, of_types, shapes):
        self.second.append((of_types, shapes))
        return len(self.second)


def test_arrays_of_other_shapes_share_the_first_part():
    parts = Parts()
    x, y, double = np.zeros((2, 3), np.float32), np.zeros(5, np.float32), np.zeros(5)
    for _ in range(2):
        assert parts.get("a", x=x, y=y) == 1
        assert parts.get("a", x=y, y=x[0]) == 2
        assert parts.get("a", x=x, y=double) == 3
        assert parts.get("b", x=x, y=y) == 4
    single = ("x", "float32"), ("y", "float32")
    assert parts.first == [
        ("a", *single),
        ("a", ("x", "float32"), ("y", "float64")),
        ("b", *single),
    ]
    shapes = ((2, 3), (5,))
    assert parts.second == [(1, shapes), (1, ((5,), (3,))), (2, shapes), (3, shapes)]
    assert parts.whole == []


def test_call_that_is_not_remembered_has_the_whole_function():
    parts = Parts()
    for _ in range(2):
        assert parts.get([1], x=np.zeros(3)) == "whole"
    assert (len(parts.whole), parts.first) == (2, [])


def test_errors_of_a_part_are_not_remembered():
    def fail(*args, **arrays):
        raise ValueError("here")

    for parts in ((fail, lambda *_: 0), (lambda x: 1, fail)):
        get = native.memoized(lambda x: 0, True, parts)
        for _ in range(2):
            with pytest.raises(ValueError, match="here"):
                get(np.zeros(3))
