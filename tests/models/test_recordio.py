"""The reader of record files: damaged files, several parts, threads and forks."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import contextlib
import io
import os
import pickle
import random
import re
import struct
import sys

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from in_threads import run_in_threads
from PIL import Image
from record_cases import BEE, SIDE, write_records

from cvops import data
from cvops.datasets.recordio import RecordFile


def test_part_that_is_cut_off_is_named_with_its_byte(tmp_path):
    """The header of a part has 8 bytes, and that of a label 24."""
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]] * 2, b"12345")
    content, size = path.read_bytes(), path.stat().st_size // 2
    record = RecordFile(path, path.with_suffix(".idx"))
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"record 1: .*: the file ends in the part at byte {size}"):
        record.read(1)
    change_header(path, size, more=24 - size)
    with pytest.raises(ValueError, match=f"record 1: .*: the label at byte {size + 8} is cut off"):
        record.read(1)
    change_header(path, size, more=size - 24 + (1 << 28))
    with pytest.raises(ValueError, match=f"record 1: .*: the file ends in the part at byte {size}"):
        record.read(1)


def test_offset_beyond_the_file_is_named(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]])
    path.with_suffix(".idx").write_text(f"0\t{2**62 - 1}\n")
    with pytest.raises(ValueError, match=f"some.rec: record 0: .*: no header at byte {2**62 - 1}"):
        data.read_record(path)


@contextlib.contextmanager
def suppress_error(pattern):
    try:
        yield
    except ValueError as error:
        if not re.match(pattern, str(error)):
            raise


def test_random_changes_of_a_record_file_give_its_records_or_an_error(tmp_path):
    """An error names the file and the record, or the index."""
    rng, magic = random.Random(3), struct.pack("<I", 0xCED7230A)
    for _ in range(150):
        part = rng.randbytes(rng.randrange(9))
        path = write_records(tmp_path / "a.rec", [[2, 5, *BEE]] * 3, part + magic * 2 + part)
        index = path.with_suffix(".idx")
        for file in (path, path, index):
            content = bytearray(file.read_bytes())
            begin = rng.randrange(len(content))
            end = min(begin + rng.choice((0, 1, 4)), len(content))
            content[begin:end] = rng.choice((b"", b"\0", b"7", b"\xff" * 4, magic))
            file.write_bytes(content[: rng.choice((None, None, begin))])
        for given in (index, None):
            with suppress_error(rf"{path}: record \d: damaged|{index}: not the index"):
                record = RecordFile(path, given)
                for key in record.keys:
                    with suppress_error(f"{path}: record {key}: damaged, or not a record"):
                        record.read(key)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_threads_and_a_forked_process_read_one_record_file(tmp_path):
    """Each read has its own offset, and the end of a process does not close the file of another."""
    labels = [[2, 5, i % 3, 0.1, 0.2, 0.5, 0.6] for i in range(40)]
    path = write_records(tmp_path / "some.rec", labels, b"12345")
    records = [RecordFile(path, path.with_suffix(".idx"))]

    def check(first):
        for i in range(1000):
            key = (first * 7 + i * 11) % 40
            header, content = records[0].read(key)
            assert (header.id, content) == (key, b"12345")
            assert header.label[2] == key % 3

    def forked(_):
        child = os.fork()
        if child == 0:
            try:
                check(5)
                records.clear()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        run_in_threads(lambda i: check(i) if i else forked(i), range(6))
    finally:
        sys.setswitchinterval(interval)
    check(0)


def test_record_file_is_closed_at_its_end(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]])
    before = len(os.listdir("/proc/self/fd"))
    record = RecordFile(path, None)
    copy = pickle.loads(pickle.dumps(record))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    path.unlink()
    assert copy.read(0)[1] == record.read(0)[1]
    del record, copy
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(FileNotFoundError, match=r"some.rec: no such file"):
        RecordFile(path, None)


def change_header(path, offset, place=0, more=0):
    """Change the place of a part in its record, and its length by ``more`` bytes."""
    content = bytearray(path.read_bytes())
    (bits,) = struct.unpack_from("<I", content, offset + 4)
    length = bits & ~(7 << 29)
    struct.pack_into("<I", content, offset + 4, place << 29 | length + more)
    path.write_bytes(content)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    ("number", "place", "message"),
    [
        (0, 1, "record 0: .*: expected the next part of a record at byte {1}, got a whole one"),
        (1, 1, "record 1: .*: expected the next part of a record at byte {2}, got a whole one"),
        (1, 2, "record 1: .*: expected the beginning of a record at byte {1}, got a later part"),
        (2, 3, "record 2: .*: expected the beginning of a record at byte {2}, got a last part"),
        (2, 1, "record 2: .*: no header at byte {3}"),
        (2, 5, "record 2: .*: expected the beginning of a record at byte {2}, got the flag 5"),
        (0, None, "record 0: .*: another record begins at byte {1}"),
    ],
)
def test_header_that_joins_records_is_rejected(tmp_path, index, number, place, message):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]] * 3, index=index)
    size = path.stat().st_size // 3
    message = message.format(0, size, 2 * size, 3 * size)
    change_header(path, number * size, place or 0, more=size if place is None else 0)
    readers = [data.read_record, lambda path: data.iterator(path, batch_size=1, side=SIDE)]
    for read in readers + [lambda path: data.RecordDataset(path)[number]] * index:
        with pytest.raises(ValueError, match=f"some.rec: {message}"):
            read(path)


@pytest.mark.parametrize("index", [True, False])
def test_record_of_several_parts_is_one(tmp_path, index):
    """MXNet's writer splits a record at the magic number, here twice."""
    magic, content = struct.pack("<I", 0xCED7230A), io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "gray").save(content, "BMP")
    encoded = content.getvalue() + b"\0" * (-len(content.getvalue()) % 4)
    encoded += magic + b"end." + magic + b"."
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], [2, 5]], encoded, index=index)
    assert path.read_bytes().count(magic) == 6
    record = RecordFile(path, path.with_suffix(".idx") if index else None)
    assert [record.read(key)[1] for key in record.keys] == [encoded] * 2
    assert [len(objects) for _, objects in data.read_record(path)] == [1, 0]
    (batch,) = data.iterator(path, batch_size=2, side=SIDE)
    assert batch.label[0].asnumpy()[:, 0, 0].tolist() == [0, -1]


def test_index_with_a_key_twice_is_rejected(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]])
    path.with_suffix(".idx").write_text("3\t0\n3\t0\n")
    with pytest.raises(ValueError, match=r"some.idx: .*: line 2: .* each key once, got 3 again"):
        data.RecordDataset(path)
