"""Pickles of plain values and arrays, and the refusal of others."""

import pickle
import time

import numpy as np
import pytest

from cvops import _pickles


def written(folder, content):
    path = folder / "values.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_and_arrays_of_each_protocol_are_read(tmp_path, protocol):
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 258], ">i4"),
        np.zeros((0, 3), np.float32),
    ]
    value = {b"data": arrays, "labels": [1, 2.5, None, True], "pair": (arrays[0], b"\xff")}
    found = _pickles.load(written(tmp_path, pickle.dumps(value, protocol)))
    assert found.keys() == value.keys()
    assert found["labels"] == value["labels"]
    assert found["pair"][1] == b"\xff"
    for array, expected in zip([*found[b"data"], found["pair"][0]], [*arrays, arrays[0]]):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_array_of_python_2_is_read(tmp_path):
    """The bytes are those of Python 2.7 with NumPy 1.16, protocol 2, for {"data": uint8 [7, 8]}."""
    content = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02"
        b"u1q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        b"tq\x0eb\x89U\x02\x07\x08q\x0ftq\x10bs."
    )
    found = _pickles.load(written(tmp_path, content))
    np.testing.assert_array_equal(found[b"data"], [7, 8])


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_calls_a_function_is_rejected_and_not_executed(tmp_path, protocol):
    victim = tmp_path / "victim"
    victim.touch()
    path = written(tmp_path, pickle.dumps({"data": Call(victim.unlink)}, protocol))
    with pytest.raises(ValueError, match=r"values\.pkl: not a pickle of plain values and arrays"):
        _pickles.load(path)
    path = written(tmp_path, pickle.dumps(Call(exec, f"open({str(victim)!r}, 'w').write('x')")))
    with pytest.raises(ValueError, match=r"expected plain values and arrays, got builtins\.exec"):
        _pickles.load(path)
    assert victim.read_bytes() == b""


BAD = {
    "empty": (b"", "values.pkl: not a pickle"),
    "text": (b"data\n", "values.pkl: not a pickle"),
    "truncated": (pickle.dumps({"data": np.zeros(9)})[:-20], "values.pkl: not a pickle"),
    "objects": (pickle.dumps(np.array([print])), "values.pkl: not a pickle"),
    "dtype": (pickle.dumps(np.zeros(2, "M8[s]")), r"expected one of the dtypes f2, .*, got 'M8'"),
    "large memo": (
        b"\x80\x02]r\xff\xff\xff\x7f.",
        "expected a small memo, got the index 2147483647",
    ),
    "long bytes": (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.", "values.pkl: not a"),
    # An array of 2 ** 40 bytes with 2 bytes of data.
    "large array": (
        pickle.dumps(np.zeros(2, np.uint8), 2).replace(
            b"K\x02\x85", b"\x8a\x06" + b"\0" * 5 + b"\1\x85"
        ),
        "cannot reshape array of size 2",
    ),
    "call of ndarray": (b"\x80\x02cnumpy\nndarray\n(J\0\0\0\x7ftR.", "values.pkl: not a pickle"),
    "codec": (
        b"\x80\x02c_codecs\nencode\n(X\1\0\0\0xX\3\0\0\0bz2tR.",
        "expected the encoding latin1",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_damaged_or_hostile_pickle_is_rejected(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        _pickles.load(written(tmp_path, content))


def test_nested_lists_that_share_parts_take_little_time(tmp_path):
    value = []
    for _ in range(60):
        value = [value, value]
    start = time.monotonic()
    _pickles.load(written(tmp_path, pickle.dumps(value)))
    assert time.monotonic() - start < 10  # 2 ** 60 parts would take years


def test_folder_and_missing_file_are_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file, got a folder"):
        _pickles.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        _pickles.load(tmp_path / "none")
