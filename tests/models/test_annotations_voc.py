"""Annotations in VOC XML: corners, lists of a tree, broken files."""

from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import objects, problems, read, splits, voc_xml, write, write_images  # noqa: E402

from cvops.datasets.annotations.base import Object  # noqa: E402


def test_voc_corners_are_inclusive_and_begin_at_one(tmp_path):
    """The whole image is 1, 1, 40, 20."""
    write_images(tmp_path, "JPEGImages/a.png")
    things = ("bee", 1, 1, 40, 20, 0), ("big frog", 11, 5, 11, 5, 1)
    size = "<size><width>40</width><height>20</height></size>"
    write(tmp_path / "Annotations/a.xml", voc_xml(*things, size=size))
    found = read(tmp_path)
    assert objects(found) == {
        "a.png": [Object("bee", (0, 0, 40, 20)), Object("big frog", (10, 4, 11, 5), True)]
    }
    assert found.images[0].size == (20, 40)
    assert (found.problems, found.classes) == ([], None)


def test_xml_beside_its_image_has_the_split_of_its_folder(tmp_path):
    """Two images have one name; an annotation without an object is kept."""
    write_images(tmp_path, "train/a.jpg", "valid/a.jpg", "valid/b.jpg")
    write(tmp_path / "train/a.xml", voc_xml(("bee", 1, 1, 2, 2, 0), filename="a.jpg"))
    write(tmp_path / "valid/a.xml", voc_xml(filename="a.jpg"))
    found = read(tmp_path)
    assert [(x.image.parent.name, x.split, len(x.objects)) for x in found.images] == [
        ("train", "train", 1),
        ("valid", "val", 0),
    ]
    assert problems(found) == [("image without an annotation", "b.jpg")]


def test_lists_of_a_voc_tree_choose_images_and_splits(tmp_path):
    for name in ("a", "b", "c 2 c", "d"):
        write_images(tmp_path, f"JPEGImages/{name}.jpg")
        write(tmp_path / f"Annotations/{name}.xml", voc_xml())
    write(tmp_path / "ImageSets/Main/train.txt", "a  1\nb -1\n")
    write(tmp_path / "ImageSets/Main/val.txt", "c 2 c\nmissing\n")
    write(tmp_path / "ImageSets/Segmentation/val.txt", "a\n")
    found = read(tmp_path)
    assert splits(found) == {"a.jpg": "train", "b.jpg": "train", "c 2 c.jpg": "val"}
    assert problems(found) == [("annotation cannot be read", "missing.xml")]
    assert found.problems[0].message.startswith(f"{tmp_path}/Annotations/missing.xml: no such file")
    assert splits(read(tmp_path, kind="instances")) == {"a.jpg": "val"}


def test_broken_voc_file_is_a_problem(tmp_path):
    write_images(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "a.xml", voc_xml(("bee", 5, 1, 2, 2, 0)))
    write(tmp_path / "b.xml", "<annotation>")
    write(tmp_path / "c.xml", voc_xml())
    write(tmp_path / "d.xml", voc_xml(size="<size><width>wide</width></size>"))
    found = read(tmp_path)
    assert found.images == []
    assert problems(found) == [
        ("annotation cannot be read", "a.xml"),
        ("annotation cannot be read", "b.xml"),
        ("image is missing", "c.xml"),
        ("annotation cannot be read", "d.xml"),
    ]
    assert all(x.message.startswith(x.where) for x in found.problems)
    assert "object 0: expected a <bndbox>" in found.problems[0].message
