"""The download of VOC2012, with small archives in the place of the public one."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import hashlib
import io
import tarfile

import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "skimage")

from cvops import voc
from cvops._mxnet import mxnet
from cvops.datasets import downloads

mx = mxnet()
NAME = "VOCtrainval_11-May-2012.tar"
TRAIN = "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"


def write_tar(path, *members):
    """Write an archive of ``TarInfo``, or of pairs of a name and a content."""
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o6777
                tar.addfile(info, io.BytesIO(content))
    return path


def link(kind, name="a", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def expected_sha1(monkeypatch):
    """A function that makes a file the expected one."""
    return lambda path: monkeypatch.setattr(
        downloads, "_VOC_SHA1", hashlib.sha1(path.read_bytes()).hexdigest()
    )


def test_archive_in_the_folder_is_unpacked(tmp_path, expected_sha1):
    expected_sha1(write_tar(tmp_path / NAME, (TRAIN, b"2012_000000\n")))
    voc_dir = voc.download_voc_pascal(tmp_path)
    assert voc_dir == str(tmp_path / "VOCdevkit/VOC2012")
    unpacked = tmp_path / TRAIN
    assert unpacked.read_bytes() == b"2012_000000\n"
    assert unpacked.stat().st_mode & 0o7777 & ~0o644 == 0
    (tmp_path / NAME).unlink()
    assert voc.download_voc_pascal(tmp_path) == voc_dir  # nothing is downloaded again


def test_other_archive_is_rejected_and_not_unpacked(tmp_path):
    write_tar(tmp_path / NAME, (TRAIN, b"2012_000000\n"))
    with pytest.raises(ValueError, match=rf"{NAME}: expected the SHA-1 4e443f8a2eca"):
        voc.download_voc_pascal(tmp_path)
    assert not (tmp_path / TRAIN).exists()


def test_failed_download_names_the_file_to_put_there(tmp_path, monkeypatch):
    def fails(url, path, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(mx.gluon.utils, "download", fails)
    message = rf"{NAME}: cannot be downloaded: no network; the file of http://host\.robots.*\.tar"
    with pytest.raises(OSError, match=message):
        voc.download_voc_pascal(tmp_path / "data")


HOSTILE = {
    "absolute": (("/tmp/cvops-hostile", b""), "expected names below a folder, got /tmp/cvops-h"),
    "parent": (("a/../../b", b""), r"expected names below a folder, got a/\.\./\.\./b"),
    "backslash": (("..\\b", b""), "expected names below a folder"),
    "symbolic link": (link(tarfile.SYMTYPE), "expected files and folders, got a link, a"),
    "hard link": (link(tarfile.LNKTYPE), "expected files and folders, got a link, a"),
    "device": (link(tarfile.CHRTYPE), "expected files and folders"),
    "pipe": (link(tarfile.FIFOTYPE), "expected files and folders"),
}


@pytest.mark.parametrize(("member", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_rejected_and_not_unpacked(tmp_path, member, message):
    archive, folder = tmp_path / "a.tar", tmp_path / "inside" / "folder"
    folder.mkdir(parents=True)
    write_tar(archive, ("good", b"x"), member)
    with pytest.raises(ValueError, match=f"a.tar: {message}"):
        downloads.unpack_tar(archive, folder)
    assert not list(folder.iterdir())
    assert list(folder.parent.iterdir()) == [folder]


def test_damaged_archive_is_rejected(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"no archive" * 100)
    with pytest.raises(ValueError, match=r"a\.tar: not a tar archive that can be read"):
        downloads.unpack_tar(archive, tmp_path)
    write_tar(archive, ("one", b"x" * 5000))
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.tar: not a tar archive that can be read"):
        downloads.unpack_tar(archive, tmp_path / "out")
