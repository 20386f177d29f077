"""Calls of implementations on the CPU by the extension: the arrays that they get and return."""

import numpy as np
import pytest

import cvops

native = pytest.importorskip("cvops._native")


class Calls:
    """An implementation and converters that record their arguments."""

    def __init__(self, result=None):
        self.got, self.converted, self.result = [], [], result

    def implementation(self, *args):
        self.got = args
        return self.result

    def to_numpy(self, x):
        self.converted.append(x)
        return np.zeros(3)

    def run(self, arrays, options=(), from_numpy=None):
        args = "device", self.to_numpy, from_numpy, self.implementation, None, arrays, options
        return native.run_on_cpu(*args)


def read_only(x):
    x.flags.writeable = False
    return x


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    return memory[1:].view(x.dtype).reshape(x.shape)


@pytest.mark.parametrize("kind", [tuple, list, iter])
def test_implementation_gets_the_device_arrays_and_options(kind):
    calls, arrays = Calls(), [np.zeros((2, 3)), read_only(np.zeros(2, np.uint8))]
    calls.run(kind(arrays), (1, None))
    assert calls.got[0] == "device"
    assert calls.got[3:] == (1, None)
    assert calls.got[1] is arrays[0]
    assert calls.got[2] is arrays[1]
    assert calls.converted == []


@pytest.mark.parametrize(
    "x",
    [np.zeros((4, 4))[:, 1:], unaligned(np.zeros(4)), np.zeros(3).view(np.recarray), [1, 2], None],
    ids=["strided", "unaligned", "subclass", "list", "none"],
)
def test_other_arrays_are_converted(x):
    calls = Calls()
    calls.run([x])
    assert len(calls.converted) == 1
    assert calls.converted[0] is x
    assert calls.got[1].shape == (3,)


def test_results_are_converted_one_by_one():
    assert Calls(1).run((), from_numpy=lambda x: x + 10) == 11
    assert Calls((1, 2)).run((), from_numpy=lambda x: x + 10) == (11, 12)
    assert Calls((1, 2)).run(()) == (1, 2)


def test_errors_are_those_of_the_functions():
    def fail(*args):
        raise KeyError("here")

    for args in [
        (None, fail, None, lambda *_: 0, None, [0], ()),
        (None, None, fail, lambda *_: 0, None, [], ()),
        (None, None, None, fail, None, [], ()),
    ]:
        with pytest.raises(KeyError, match="here"):
            native.run_on_cpu(*args)
    with pytest.raises(TypeError, match="arrays: expected an iterable"):
        native.run_on_cpu(None, None, None, fail, None, 3, ())
    with pytest.raises(TypeError, match="seven arguments, the last one a tuple"):
        native.run_on_cpu(None, None, None, fail, None, [], [])


class TestTensors:
    @pytest.fixture(autouse=True)
    def torch(self):
        torch = pytest.importorskip("torch")
        if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
            pytest.skip("needs DLPack's functions for C")
        cvops.box_iou(torch.zeros(1, 4), torch.zeros(1, 4))  # the extension then knows the type
        return torch

    @pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
    @pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 1)])
    def test_dense_tensor_shares_its_memory(self, torch, dtype, shape):
        x = torch.ones(shape, dtype=getattr(torch, dtype))
        calls = Calls()
        calls.run([x])
        (_, y) = calls.got
        assert calls.converted == []
        assert (y.dtype, y.shape, y.flags.carray, y.base is x) == (dtype, shape, True, True)
        y[...] = 5
        assert (x == 5).all()

    @pytest.mark.parametrize(
        "make",
        [
            lambda torch: torch.zeros(4, 4)[:, 1:],
            lambda torch: torch._neg_view(torch.ones(3)),
            lambda torch: torch.zeros(3, dtype=torch.int64),
            lambda torch: torch.zeros(3, dtype=torch.float16),
            lambda torch: torch.zeros(3, device="meta"),
            lambda torch: torch.eye(3).to_sparse(),
        ],
        ids=["strided", "negated", "int64", "float16", "meta", "sparse"],
    )
    def test_other_tensors_are_converted(self, torch, make):
        x, calls = make(torch), Calls()
        calls.run([x])
        assert len(calls.converted) == 1
        assert calls.converted[0] is x

    def test_type_is_known_after_its_first_call_of_an_op(self, torch):
        class Marked(torch.Tensor):
            pass

        x = torch.zeros(1, 4).as_subclass(Marked)
        before, after = Calls(), Calls()
        before.run([x])
        cvops.box_iou(x, x)
        after.run([x])
        assert [y is x for y in before.converted] == [True]
        assert after.converted == []
        assert after.got[1].base is x

    def test_negated_and_strided_tensors_have_the_results_of_their_values(self, torch):
        boxes = torch.rand(5, 4)
        want = cvops.box_iou(boxes, boxes)
        for same in (torch._neg_view(-boxes), boxes.t().contiguous().t(), boxes[:, :].detach()):
            assert torch.equal(cvops.box_iou(same, boxes), want)
