"""The Buffer of the extension: an array in the memory of a GPU."""

import sys

import numpy as np
import pytest

native = pytest.importorskip("cvops._native")


def test_buffer_has_its_fields():
    dtype, owner = np.dtype(np.float32), object()
    buffer = native.Buffer(2**63 + 256, (2, 3, 0), dtype, owner)
    assert (buffer.pointer, buffer.shape, buffer.size) == (2**63 + 256, (2, 3, 0), 0)
    assert buffer.dtype is dtype
    assert buffer.owner is owner
    assert native.Buffer(0, (), dtype).size == 1
    assert native.Buffer(0, (2**40, 2**40), dtype).size == 2**80
    assert native.Buffer(0, (1,), dtype).owner is None


def test_dead_buffer_releases_its_owner():
    owner = object()
    before = sys.getrefcount(owner)
    buffers = [native.Buffer(256, (1,), None, owner) for _ in range(10)]
    assert sys.getrefcount(owner) == before + 10
    del buffers
    assert sys.getrefcount(owner) == before


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((), TypeError, "expected pointer, shape, dtype and owner"),
        ((1, (1,), None, None, None), TypeError, "expected pointer, shape, dtype and owner"),
        ((1, [1], None), TypeError, r"shape: expected a tuple, got \[1\]"),
        ((-1, (1,), None), OverflowError, "negative"),
        (("1", (1,), None), TypeError, "int"),
    ],
    ids=["no arguments", "five arguments", "list as shape", "negative pointer", "text as pointer"],
)
def test_bad_argument_of_a_buffer_raises(args, error, message):
    with pytest.raises(error, match=message):
        native.Buffer(*args)


def test_buffer_without_integers_in_its_shape_is_refused_by_an_op():
    gpu = native.Gpu(native.CallbackDevice(print, 1, 1), 0, lambda size: 0)
    good, bad = native.Buffer(256, (1, 4), None), native.Buffer(256, ("4",), None)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        gpu.box_iou(good, good, bad, False)
