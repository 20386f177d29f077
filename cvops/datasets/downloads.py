"""Download of public archives, whose sums and members are checked before they are unpacked."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from cvops._files import check_regular
from cvops._mxnet import mxnet

mx = mxnet()

_VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
_VOC_SHA1 = "4e443f8a2eca6b1dac8a6c57641b67dd40621a49"


def download_voc_pascal(data_dir: str | Path = "../data") -> str:
    """Return ``voc_dir`` of VOC2012 below ``data_dir``, after a download of 2 GB if necessary.

    If ``data_dir`` has the archive of VOC2012, that file is unpacked.

    Raises:
        OSError: the archive cannot be downloaded or unpacked.
        ValueError: the archive has another SHA-1 than VOC's, or members outside of ``data_dir``.
    """
    data_dir = Path(data_dir)
    voc_dir = data_dir / "VOCdevkit" / "VOC2012"
    if not (voc_dir / "ImageSets" / "Segmentation" / "train.txt").is_file():
        unpack_tar(_fetch(_VOC_URL, _VOC_SHA1, data_dir), data_dir)
    return str(voc_dir)


def _fetch(url: str, sha1: str, folder: Path) -> Path:
    """Return the file of ``url`` in ``folder``, downloaded if it is not there."""
    path = folder / url.rpartition("/")[2]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            mx.gluon.utils.download(url, str(path), sha1_hash=sha1, retries=1)
        except Exception as error:  # requests and MXNet raise many types
            raise OSError(
                f"{path}: cannot be downloaded: {error}; the file of {url} may be put there"
            ) from error
    check_regular(path)
    if not mx.gluon.utils.check_sha1(str(path), sha1):
        raise ValueError(f"{path}: expected the SHA-1 {sha1}, the file is damaged or another one")
    return path


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack an archive of regular files and folders below ``folder``.

    Raises:
        OSError: a file cannot be written.
        ValueError: it is not such an archive. Nothing is unpacked.
    """
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise ValueError(f"{archive}: expected names below a folder, got {name}")
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{archive}: expected files and folders, got a link, {name}")
                member.mode = 0o755 if member.isdir() else 0o644
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, members, filter="data")
            else:
                tar.extractall(folder, members)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: not a tar archive that can be read: {error}") from error
