"""Files of MXNet's parameters: damaged files, which MXNet itself would trust, and failed writes."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import struct

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet")

from cvops._mxnet import mxnet, params

mx = mxnet()


@pytest.fixture
def saved(tmp_path):
    """A file with two arrays."""
    path = tmp_path / "net.params"
    arrays = {"a": mx.nd.ones((2, 3)), "b": mx.nd.ones((4,), dtype="float16")}
    mx.nd.save(str(path), arrays)
    return path


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "uint8", "int8", "int32", "int64"]
)
def test_file_of_each_dtype_is_accepted(tmp_path, dtype):
    path = tmp_path / "net.params"
    mx.nd.save(str(path), {"a": mx.nd.ones((2, 3), dtype=dtype)})
    params.check(path)


def test_files_of_empty_arrays_and_scalars_are_accepted(tmp_path):
    path = tmp_path / "net.params"
    mx.nd.save(str(path), {})
    params.check(path)
    with mx.util.np_shape(True):
        mx.nd.save(str(path), {"a": mx.nd.zeros((0, 3)), "b": mx.nd.zeros(())})
    params.check(path)


def test_file_of_the_first_format_is_accepted(tmp_path):
    """The format before version 1: the number of axes, uint32 sizes, device, dtype, values."""
    array = struct.pack("<III", 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + bytes(24)
    path = tmp_path / "net.params"
    path.write_bytes(struct.pack("<QQQ", 0x112, 0, 1) + array + struct.pack("<QQ", 1, 1) + b"a")
    params.check(path)
    assert mx.nd.load(str(path))["a"].shape == (2, 3)


def at(position, kind, value):
    """A change of the number at a position of the file."""

    def change(data):
        number = struct.pack("<" + kind, value)
        return data[:position] + number + data[position + len(number) :]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "expected 24 more bytes, got 0"),
        (lambda data: data[:40], "more bytes"),
        (lambda data: data[:-1], "expected 1 more bytes, got 0"),
        (lambda data: data + b"x", "expected the end of the file, got 1 more bytes"),
        (at(0, "Q", 7), "expected the number 0x112 at the beginning"),
        (at(16, "Q", 2**60), "."),
        (at(28, "i", 1), "expected dense arrays, got one of storage type 1"),
        (at(32, "i", 2**30), "expected up to 32 axes"),
        (at(36, "q", -1), r"expected a shape without negative numbers, got \(-1, 3\)"),
        (at(36, "q", 2**40), "more bytes"),
        (at(60, "i", 99), "expected the number of a dtype, got 99"),
    ],
)
def test_damaged_file_is_rejected(saved, change, message):
    saved.write_bytes(change(saved.read_bytes()))
    with pytest.raises(ValueError, match=message):
        params.check(saved)


def test_file_without_names_is_rejected(tmp_path):
    mx.nd.save(str(tmp_path / "list.params"), [mx.nd.ones((2,))])
    net = mx.gluon.nn.Dense(1, in_units=2)
    message = "list.params: not the parameters of a layer: expected a name for each of 1 arrays"
    with pytest.raises(ValueError, match=message):
        params.load(net.load_parameters, tmp_path / "list.params", "a layer")


def test_folder_and_device_are_rejected(tmp_path):
    net = mx.gluon.nn.Dense(1, in_units=2)
    for path, kind in ((tmp_path, "folder"), (tmp_path / "/dev/zero", "device or pipe")):
        with pytest.raises(ValueError, match=f"expected a file, got a {kind}"):
            params.load(net.load_parameters, path, "a layer")


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    net = mx.gluon.nn.Dense(1, in_units=2)
    net.initialize()
    path = tmp_path / "net.params"
    params.save(net, path)
    before = path.read_bytes()

    def half(name):
        with open(name, "wb") as file:
            file.write(before[:10])
        raise mx.MXNetError("no space left")

    monkeypatch.setattr(net, "save_parameters", half)
    with pytest.raises(OSError, match=r"net\.params: cannot be written: no space left"):
        params.save(net, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    params.load(net.load_parameters, path, "a layer")
    np.testing.assert_array_equal(net.bias.data().asnumpy(), [0])
