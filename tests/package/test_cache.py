"""The cache folder: its place, its files, and files that are broken, unused or of other users."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from cvops.backends import adapter, cache

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


@pytest.mark.parametrize("home", ["", "/", None], ids=["empty", "root folder", "not in passwd"])
def test_user_without_a_home_folder_gets_a_temporary_one_with_a_warning(monkeypatch, home):
    for name in ("CVOPS_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is None:
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.warns(RuntimeWarning, match="no home folder.* CVOPS_CACHE_DIR"):
        folder = cache.folder()
    assert folder.name == f"cvops-{os.geteuid()}"
    assert folder.parent.is_dir()


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """An entry of a cache folder that is there."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(folder))
    return cache.Entry("box_nms-sm90", ["source"], ".cubin")


def write(file, days=0.0, content="content"):
    """Write a file whose last use was some days ago."""
    file.write_text(content)
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


def test_added_file_is_found_by_its_key(entry, tmp_path):
    assert entry.find() is None
    file = entry.add(write(tmp_path / "made"))
    assert file.read_text() == "content"
    assert cache.Entry("box_nms-sm90", ["source"], ".cubin").find() == file
    for name, key in (("box_nms-sm90", "other source"), ("box_nms-sm80", "source")):
        assert cache.Entry(name, [key], ".cubin").find() is None


def test_folder_that_is_not_there_is_made_private(tmp_path, monkeypatch):
    monkeypatch.setenv("CVOPS_CACHE_DIR", str(tmp_path / "new" / "cache"))
    entry = cache.Entry("box_nms-sm90", ["source"], ".cubin")
    assert entry.find() is None
    with entry.workplace() as folder:
        file = entry.add(write(folder / "made"))
    assert list(entry.folder.iterdir()) == [file]
    assert stat.S_IMODE(entry.folder.stat().st_mode) == 0o700


def test_unused_files_are_removed_when_a_file_is_added(entry, tmp_path):
    old = [
        write(entry.folder / "box_nms-sm90-0123456789.cubin", 91),
        write(entry.folder / "mxnet-operators-0123456789.so", 91),
        write(entry.folder / "cvops-temporary-abc", 2),
    ]
    folder = entry.folder / "cvops-temporary-folder"
    folder.mkdir()
    write(folder / "box_nms.o", 2)
    os.utime(folder, (time.time() - 2 * DAY,) * 2)
    kept = [
        write(entry.folder / "box_iou-sm90-0123456789.cubin", 89),
        write(entry.folder / "mxnet-operators-9876543210.so", 89),
        write(entry.folder / "cvops-temporary-def"),
        write(entry.folder / "thesis.txt", 900),  # not a file of cvops
        write(entry.folder / "libother.so", 900),
    ]
    file = entry.add(write(tmp_path / "made"))
    assert set(entry.folder.iterdir()) == {*kept, file}
    assert not any(path.exists() for path in [*old, folder])


def add_with_age(entry, tmp_path, days):
    file = entry.add(write(tmp_path / "made"))
    os.utime(file, (time.time() - days * DAY,) * 2)
    return file


def test_used_file_is_kept(entry, tmp_path):
    file = add_with_age(entry, tmp_path, 91)
    assert entry.find() == file
    cache.Entry("box_iou-sm90", ["source"], ".cubin").add(write(tmp_path / "made"))
    assert file.exists()


def test_second_use_within_a_day_writes_nothing(entry, tmp_path):
    file = add_with_age(entry, tmp_path, 0.5)
    before = file.stat().st_mtime
    assert entry.find() == file
    assert file.stat().st_mtime == before


def test_read_only_folder_can_be_used(entry, tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    file = add_with_age(entry, tmp_path, 91)
    monkeypatch.setattr(os, "utime", refuse)
    assert entry.find() == file


def test_file_that_another_process_removed_is_no_error(entry, tmp_path, monkeypatch):
    write(entry.folder / "box_nms-sm90-0123456789.cubin", 91)
    unlink = Path.unlink

    def removed_before(path, missing_ok=False):
        unlink(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", removed_before)
    file = entry.add(write(tmp_path / "made"))
    assert list(entry.folder.iterdir()) == [file]


@pytest.mark.parametrize(
    "content", ["", "conten", "content ", "\0" * 7], ids=["empty", "short", "long", "zeros"]
)
def test_broken_file_is_removed(entry, tmp_path, content):
    file = entry.add(write(tmp_path / "made"))
    file.write_text(content)
    assert entry.find() is None
    assert not file.exists()
    assert entry.add(write(tmp_path / "made")) == file
    assert entry.find() == file


def test_file_that_others_can_write_is_not_loaded(entry, tmp_path):
    file = entry.add(write(tmp_path / "made"))
    for mode in (0o622, 0o602, 0o620):
        file.chmod(mode)
        assert entry.find() is None
    entry.add(write(tmp_path / "made"))
    assert entry.find() == file


def test_link_is_not_loaded(entry, tmp_path):
    file = entry.add(write(tmp_path / "made"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert entry.find() is None


def owned_by(user, path, monkeypatch):
    """Let ``path`` seem to belong to another user."""

    def patch(name):
        original = getattr(Path, name)

        def patched(self, *args, **options):
            info = original(self, *args, **options)
            if self != path:
                return info
            fields = list(info)
            fields[stat.ST_UID] = user
            return os.stat_result(fields)

        monkeypatch.setattr(Path, name, patched)

    patch("stat")
    patch("lstat")


@pytest.mark.parametrize("of", ["file", "folder"])
def test_files_of_another_user_are_not_loaded(entry, tmp_path, monkeypatch, of):
    file = entry.add(write(tmp_path / "made"))
    owned_by(os.geteuid() + 1, file if of == "file" else entry.folder, monkeypatch)
    if of == "file":
        assert entry.find() is None
        return
    message = f"{entry.folder} cannot be used .another user owns it"
    with pytest.raises(PermissionError, match=message):
        entry.find()
    with pytest.raises(PermissionError, match=message), entry.workplace():
        pass


def test_files_of_root_are_loaded(entry, tmp_path, monkeypatch):
    file = entry.add(write(tmp_path / "made"))
    owned_by(0, file, monkeypatch)
    assert entry.find() == file


def test_folder_that_others_can_write_is_made_private(entry, tmp_path):
    file = entry.add(write(tmp_path / "made"))
    entry.folder.chmod(0o777)
    assert entry.find() == file
    assert stat.S_IMODE(entry.folder.stat().st_mode) == 0o755


def test_folder_that_users_share_is_refused(entry):
    entry.folder.chmod(0o1777)
    with pytest.raises(PermissionError, match="another user owns it or can write to it"):
        entry.find()


def test_full_disk_is_an_error_of_one_line(entry, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 5 << 20))
    message = r"cannot be used \(expected 64 MiB of free space, got 5\)"
    with pytest.raises(OSError, match=message), entry.workplace():
        pass
    assert list(entry.folder.iterdir()) == []


def test_disk_that_fills_during_a_compilation_is_an_error_with_the_folder(entry):
    with pytest.raises(OSError, match=str(entry.folder)) as caught, entry.workplace():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


def test_compiler_without_space_is_an_error_of_one_line(monkeypatch, tmp_path):
    script = tmp_path / "compiler"
    script.write_text("#!/bin/sh\necho 'ld: cannot write: No space left on device' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    mxnet = adapter.Adapter("cvops.mxnet", "mxnet", "MXNet", (), (), ())
    with pytest.raises(OSError, match="No space left on device"):
        mxnet.run(tmp_path, "-c", "source.cpp")


def test_killed_process_leaves_no_broken_file(entry):
    code = """
import os
from cvops.backends.cache import Entry
entry = Entry("box_nms-sm90", ["source"], ".cubin")
with entry.workplace() as folder:
    (folder / "made").write_text("half")
    os._exit(9)
"""
    environment = {**os.environ, "CVOPS_CACHE_DIR": str(entry.folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == 9
    (left,) = entry.folder.iterdir()
    assert entry.find() is None
    os.utime(left, (time.time() - 2 * DAY,) * 2)
    made = entry.folder.parent / "made"
    assert list(entry.folder.iterdir()) == [left]
    file = entry.add(write(made))
    assert list(entry.folder.iterdir()) == [file]
