"""Annotations in YOLO text: boxes, polygons, names of classes, broken files."""

import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import HEIGHT, WIDTH, objects, problems, read, splits, write, write_images  # noqa: E402
from PIL import Image  # noqa: E402

from cvops.datasets.annotations.base import Object, Polygons  # noqa: E402
from cvops.datasets.annotations.yolo import read_yaml  # noqa: E402


def test_yolo_boxes_are_centers_and_sizes_in_fractions(tmp_path):
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path / "classes.txt", "bee\nbig frog\n")
    write(tmp_path / "a.txt", "0 0.5 0.5 1 1\n1 0.25 0.5 0.1 0.5\n\n")
    write(tmp_path / "b.txt", "1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    found = read(tmp_path)
    assert objects(found) == {
        "a.jpg": [Object("bee", (0, 0, 40, 20)), Object("big frog", (8, 5, 12, 15))],
        "b.jpg": [Object("big frog", (10, 5, 20, 15), False, Polygons([[10, 5, 20, 5, 20, 15]]))],
        "c.jpg": [],
    }
    assert found.classes == ["bee", "big frog"]
    assert problems(found) == [("image without a label file", "c.jpg")]


def test_yolo_box_of_an_image_on_its_side_is_that_of_the_upright_image(tmp_path):
    """The pixels are 20 x 40; EXIF turns them to 40 x 20."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "a.jpg", exif=exif)
    write(tmp_path / "classes.txt", "bee")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.5 1")
    assert objects(read(tmp_path)) == {"a.jpg": [Object("bee", (10, 0, 30, 20))]}


@pytest.mark.parametrize("layout", ["images/{}/{}.jpg", "{}/images/{}.jpg"])
def test_data_yaml_names_classes_and_splits(tmp_path, layout):
    """Its paths are those of Ultralytics or of Roboflow, which begin above the folder."""
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        image = layout.format(split, name)
        write_images(tmp_path, image)
        label = image.replace("images", "labels").replace("jpg", "txt")
        write(tmp_path / label, "0 0.5 0.5 1 1")
    folders = [layout.format(split, "").rpartition("/")[0] for split in ("train", "valid", "test")]
    up = "../" * layout.startswith("{}")
    write(
        tmp_path / "data.yaml",
        f"train: {up}{folders[0]}  # comment\nval: {up}{folders[1]}\ntest: {up}{folders[2]}\n\n"
        "nc: 2\nnames: ['bee # 1', frog]\nroboflow:\n  names: [other]\n",
    )
    found = read(tmp_path)
    assert splits(found) == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}
    assert found.classes == ["bee # 1", "frog"]
    assert [x[0].name for x in objects(found).values()] == ["bee # 1"] * 3
    assert found.problems == []
    (tmp_path / "data.yaml").unlink()
    assert splits(read(tmp_path, classes=("bee",))) == splits(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: [a, 'b, c', \"d\"]\n", ["a", "b, c", "d"]),
        ("names:\n- a\n- b c\nnc: 2\n", ["a", "b c"]),
        ("names:\n  - a\n\n  - 'b'\n", ["a", "b"]),
        ("nc: 2\nnames:\n  1: b\n  0: a # first\n", ["a", "b"]),
        ("names: {0: a, 1: 'b: c'}", ["a", "b: c"]),
        ("names: [\n  a,\n  b,\n]\nnc: 2", ["a", "b"]),
        ("names: [汽车]", ["汽车"]),
    ],
)
def test_names_of_data_yaml(tmp_path, text, expected):
    write(tmp_path / "data.yaml", text)
    assert read_yaml(tmp_path / "data.yaml")["names"] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b", "names: expected a list in brackets"),
        ("names:\n  0: a\n  2: b\n", "names: expected names by 0, 1"),
        ("names: *other\n", "names: expected a name or a path, got '\\*other'"),
        ("names:\n- a\n  b\n", "names: expected lines '- name'"),
        ("names: [a, a]\n", r"expected different names of classes, got \['a', 'a'\]"),
    ],
)
def test_other_data_yaml_is_rejected(tmp_path, text, message):
    write(tmp_path / "data.yaml", text)
    with pytest.raises(ValueError, match=rf"data\.yaml: {message}"):
        read(tmp_path)


def test_missing_folder_of_data_yaml_is_a_problem(tmp_path):
    write_images(tmp_path, "train/images/a.jpg")
    write(tmp_path / "train/labels/a.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "data.yaml", "names: [bee]\ntrain: ../train/images\ntest: ../test/images\n")
    found = read(tmp_path)
    assert splits(found) == {"a.jpg": "train"}
    [problem] = found.problems
    assert problem.kind == "image is missing"
    assert problem.message.endswith("test: expected a folder or a list, got '../test/images'")


def test_lists_of_darknet_choose_images_and_splits(tmp_path):
    write_images(tmp_path, "obj_train_data/a.png", "obj_train_data/b.png", "obj_train_data/c.png")
    for name in "abc":
        write(tmp_path / f"obj_train_data/{name}.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "obj.names", "bee\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a.png\ndata/obj_train_data/gone.png\n")
    write(tmp_path / "valid.txt", "data/obj_train_data/b.png\n")
    found = read(tmp_path)
    assert splits(found) == {"a.png": "train", "b.png": "val"}
    assert problems(found) == [("image is missing", "gone.png")]


def test_labels_in_another_folder_than_the_images(tmp_path):
    write_images(tmp_path, "photos/x/a.jpg")
    write(tmp_path / "labels/x/a.txt", "0 0.5 0.5 1 1")
    found = read(tmp_path / "labels", images=tmp_path / "photos", classes=("bee",))
    assert objects(found) == {"a.jpg": [Object("bee", (0, 0, 40, 20))]}
    with pytest.raises(FileNotFoundError, match="other: no such folder"):
        read(tmp_path / "labels", images=tmp_path / "other")


def test_label_of_another_image_with_the_same_name_is_not_used(tmp_path):
    write_images(tmp_path, "train/images/a.jpg", "val/images/a.jpg", "val/images/b.jpg")
    write(tmp_path / "val/labels/a.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "more/b.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "data.yaml", "names: [bee]\ntrain: train/images\nval: val/images\n")
    found = read(tmp_path)
    assert [len(image.objects) for image in found.images] == [0, 1, 1]
    assert problems(found) == [("image without a label file", "a.jpg")]
    assert found.problems[0].where == str(tmp_path / "train/images/a.jpg")


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 0.5 0.5 1", "annotation cannot be read", "line 1: expected a class and 4 numbers"),
        ("0 0.5 0.5 1 1 0.9", "annotation cannot be read", "expected a class and 4 numbers"),
        ("0 0.5 0.5 1 x", "annotation cannot be read", "expected a class and 4 numbers"),
        ("0 0.5 0.5 1 nan", "annotation cannot be read", "expected finite numbers"),
        ("0 20 10 40 20", "annotation cannot be read", "expected fractions of the image"),
        ("2 0.5 0.5 1 1", "unknown class", "expected a class from 0 to 1, got 2"),
        ("0.5 0.5 0.5 1 1", "unknown class", "expected a class from 0 to 1, got 0.5"),
        ("-1 0.5 0.5 1 1", "unknown class", "expected a class from 0 to 1, got -1"),
    ],
)
def test_broken_label_of_yolo_is_a_problem(tmp_path, line, kind, message):
    write_images(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "classes.txt", "bee\nfrog")
    write(tmp_path / "a.txt", line)
    write(tmp_path / "b.txt", "")
    write(tmp_path / "gone.txt", "0 0.5 0.5 1 1")
    found = read(tmp_path)
    assert problems(found) == [(kind, "a.txt"), ("image is missing", "gone.txt")]
    assert all(x.message.startswith(x.where) for x in found.problems)
    assert message in found.problems[0].message
    assert objects(found) == {"b.jpg": []}


def test_yolo_without_names_needs_classes(tmp_path):
    write_images(tmp_path, "images/a.jpg")
    write(tmp_path / "labels/a.txt", "1 0.5 0.5 1 1")
    with pytest.raises(
        ValueError, match=r"classes: expected the names of the classes in data\.yaml"
    ):
        read(tmp_path)
    assert objects(read(tmp_path, classes=("x", "y")))["a.jpg"][0].name == "y"
    (tmp_path / "labels/a.txt").rename(tmp_path / "images/a.txt")  # beside its image
    assert objects(read(tmp_path, classes=("x", "y")))["a.jpg"][0].name == "y"
    (tmp_path / "images/a.txt").rename(tmp_path / "labels/a.txt")
    write(tmp_path / "classes.txt", "bee")
    write(tmp_path / "labels/classes.txt", "frog")
    with pytest.raises(ValueError, match="expected the same names of classes, got different ones"):
        read(tmp_path)
