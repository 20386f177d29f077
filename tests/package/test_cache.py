"""The cache folder: its place, and the files that are removed from it."""

import os
import time
from pathlib import Path

import pytest

from cvops.backends import cache

DAY = 24 * 60 * 60


@pytest.mark.parametrize(
    ("own", "base", "expected"),
    [
        ("/own", "/base", "/own"),
        (None, "/base", "/base/cvops"),
        ("", "/base", "/base/cvops"),
        (None, "", "/home/reader/.cache/cvops"),
        (None, "relative/base", "/home/reader/.cache/cvops"),
        (None, None, "/home/reader/.cache/cvops"),
    ],
    ids=[
        "CVOPS_CACHE_DIR",
        "XDG_CACHE_HOME",
        "empty CVOPS_CACHE_DIR",
        "empty XDG_CACHE_HOME",
        "relative XDG_CACHE_HOME",
        "no variable",
    ],
)
def test_environment_variables_set_the_folder(monkeypatch, own, base, expected):
    monkeypatch.setenv("HOME", "/home/reader")
    for name, value in (("CVOPS_CACHE_DIR", own), ("XDG_CACHE_HOME", base)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache.folder() == Path(expected)


def make(file, days):
    """Write a file whose last use was some days ago."""
    file.write_text("content")
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


def test_unused_files_are_removed_when_a_file_is_put(tmp_path):
    old = [
        make(tmp_path / "box_nms-sm90-0123456789.cubin", 91),
        make(tmp_path / "mxnet-operators-0123456789.so", 91),
        make(tmp_path / "cvops-temporary-abc", 2),
    ]
    folder = tmp_path / "cvops-temporary-folder"
    folder.mkdir()
    make(folder / "box_nms.o", 2)
    os.utime(folder, (time.time() - 2 * DAY,) * 2)
    kept = [
        make(tmp_path / "box_iou-sm90-0123456789.cubin", 89),
        make(tmp_path / "mxnet-operators-9876543210.so", 89),
        make(tmp_path / "cvops-temporary-def", 0),
        make(tmp_path / "thesis.txt", 900),  # not a file of cvops
        make(tmp_path / "libother.so", 900),
    ]
    file = tmp_path / "box_iou-sm80-0123456789.cubin"
    cache.put(make(tmp_path / "made", 0), file)
    assert set(tmp_path.iterdir()) == {*kept, file}
    assert not any(path.exists() for path in [*old, folder])


def test_used_file_is_kept(tmp_path):
    file = make(tmp_path / "box_nms-sm90-0123456789.cubin", 91)
    assert cache.has(file)
    cache.put(make(tmp_path / "made", 0), tmp_path / "other")
    assert file.exists()
    assert not cache.has(tmp_path / "absent.cubin")


def test_second_use_within_a_day_writes_nothing(tmp_path):
    file = make(tmp_path / "box_nms-sm90-0123456789.cubin", 0.5)
    before = file.stat().st_mtime
    assert cache.has(file)
    assert file.stat().st_mtime == before


def test_read_only_folder_can_be_used(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    file = make(tmp_path / "box_nms-sm90-0123456789.cubin", 91)
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.has(file)


def test_file_that_another_process_removed_is_no_error(tmp_path, monkeypatch):
    make(tmp_path / "box_nms-sm90-0123456789.cubin", 91)
    unlink = Path.unlink

    def removed_before(path, missing_ok=False):
        unlink(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", removed_before)
    cache.put(make(tmp_path / "made", 0), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
