"""Annotations of all formats: damaged files, and the search for the format."""

import json
import random

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import (  # noqa: E402
    HEIGHT,
    WIDTH,
    bee,
    coco,
    labelme,
    objects,
    read,
    voc_xml,
    write,
    write_images,
)

from cvops.datasets.annotations import find_format  # noqa: E402
from cvops.datasets.annotations.base import Object  # noqa: E402
from cvops.datasets.check import check  # noqa: E402

# --- damaged files --------------------------------------------------------------------------------

RING = [10, 5, 20, 5, 20, 15.5]

RUNS = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}

SOUND = {
    "voc": ("a.xml", voc_xml(("bee", 1, 1, 40, 20, 0), ("frog", 1, 5, 11, 5, 1))),
    "coco": (
        "a.json",
        coco(["a.jpg"], [bee([0, 0, 40, 20], segmentation=[RING]), bee(None, segmentation=RUNS)]),
    ),
    "yolo": ("data.yaml", "names: {0: bee, 1: 'frog'}\ntrain: .\nval: [a, b]\n"),
    "labelme": (
        "a.json",
        labelme(
            ("bee", "rectangle", [[30, 15], [10, 5]], {"group_id": 1}),
            ("frog", "circle", [[1, 2], [5, 2]], {"flags": {}}),
        ),
    ),
    "csv": ("a.csv", "file,class,x1,y1,x2,y2,width,height\na.jpg,bee,1,2,30,20,40,20\n"),
}

PIECES = ["-1", "1e999", "NaN", "null", "[]", "{}", '""', "true", "9" * 30, "\0", "\\ud800", ","]


@pytest.mark.parametrize("name", SOUND)
def test_damaged_file_is_a_problem_or_an_error_with_a_message(tmp_path, name):
    """Bytes are lost, doubled or replaced. No other exception than those of the contract occurs."""
    file, content = SOUND[name]
    write_images(tmp_path, "a.jpg")
    rng = random.Random(name)
    text = content if isinstance(content, str) else json.dumps(content)
    counts, messages = [], []
    for _ in range(60):
        damaged = text
        for _ in range(rng.randint(1, 3)):
            at, length = rng.randrange(len(damaged)), rng.randint(0, 8)
            piece = rng.choice([*PIECES, damaged[at : at + 10]])
            damaged = damaged[:at] + piece + damaged[at + length :]
        (tmp_path / file).write_text(damaged)
        try:
            found = read(tmp_path, format=name)
            classes = found.classes or [x.name for image in found.images for x in image.objects]
            kept, problems = check(found, classes, True)
            counts.append(len(kept) + len(problems))
        except (OSError, ValueError) as error:
            messages.append(str(error))
    assert any(counts)
    assert all(messages)


# --- the format -----------------------------------------------------------------------------------


def test_format_of_a_file_is_found(tmp_path):
    files = {
        "a.xml": (voc_xml(), "voc"),
        "b.json": (coco([], []), "coco"),
        "c.json": (labelme(), "labelme"),
        "d.csv": ("a.jpg,bee,1,2,3,4", "csv"),
        "data.yaml": ("names: [a]", "yolo"),
    }
    for name, (content, expected) in files.items():
        write(tmp_path / name, content)
        assert find_format(tmp_path / name) == expected


def test_other_or_several_formats_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such file or folder"):
        find_format(tmp_path / "none")
    write(tmp_path / "notes.txt", "hello")
    write_images(tmp_path, "a.jpg")
    with pytest.raises(ValueError, match="expected VOC XML, COCO or LabelMe JSON, YOLO text"):
        find_format(tmp_path)
    write(tmp_path / "a.xml", voc_xml(("bee", 1, 1, 2, 2, 0)))
    write(tmp_path / "a.csv", "other,table")
    assert find_format(tmp_path) == "voc"
    write(tmp_path / "a.json", labelme())
    with pytest.raises(
        ValueError, match=r"expected one format, got \['labelme', 'voc'\]; --format"
    ):
        find_format(tmp_path)
    assert len(read(tmp_path, format="voc").images) == 1
    with pytest.raises(ValueError, match="format: expected one of"):
        read(tmp_path, format="pascal")


def test_linked_folders_are_read_once(tmp_path):
    """A link leads to images elsewhere, and another one to the folder above."""
    write_images(tmp_path, "elsewhere/a.jpg")
    write(tmp_path / "set/classes.txt", "bee")
    (tmp_path / "set/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    write(tmp_path / "set/labels/a.txt", "0 0.5 0.5 1 1")
    assert objects(read(tmp_path / "set")) == {"a.jpg": [Object("bee", (0, 0, 40, 20))]}


@pytest.mark.parametrize("name", ["voc", "coco", "labelme"])
def test_format_without_files_is_rejected(tmp_path, name):
    write_images(tmp_path, "a.jpg")
    with pytest.raises(ValueError, match=f"with annotations of the format {name}, got none"):
        read(tmp_path, format=name)
