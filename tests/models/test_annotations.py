"""Annotations of each format: corners, classes, splits, and broken files."""

import base64
import io
import json
import random

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from PIL import Image  # noqa: E402
from pycocotools import mask as coco_mask  # noqa: E402

from cvops.datasets.annotations import find_format, masks, read_annotations  # noqa: E402
from cvops.datasets.annotations.base import Object, Polygons, RunLengths  # noqa: E402
from cvops.datasets.annotations.yolo import read_yaml  # noqa: E402
from cvops.datasets.check import check  # noqa: E402

#: Width and height of the images.
WIDTH, HEIGHT = 40, 20


def write_images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def read(folder, **options):
    """Return the annotations; the format is found."""
    return read_annotations(folder, **options)[1]


def objects(annotations):
    """The objects of each image by the name of its file."""
    return {image.image.name: image.objects for image in annotations.images}


def splits(annotations):
    return {image.image.name: image.split for image in annotations.images}


def problems(annotations):
    return [(problem.kind, problem.where.rpartition("/")[2]) for problem in annotations.problems]


# --- VOC ------------------------------------------------------------------------------------------


def voc_xml(*things, filename="", size=""):
    """An annotation with (name, xmin, ymin, xmax, ymax, difficult)."""
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, difficult in things
    ]
    head = f"<filename>{filename}</filename>" if filename else ""
    return f"<annotation>{head}{size}{''.join(parts)}</annotation>"


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


# --- COCO -----------------------------------------------------------------------------------------


def coco(names, annotations, categories=((7, "bee"), (3, "frog"))):
    """A COCO file of images with the ids 1, 2, ..."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(names, 1)
        ],
        "annotations": [{"id": 100 + i, **row} for i, row in enumerate(annotations)],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }


def bee(box, **more):
    return {"image_id": 1, "category_id": 7, "bbox": box, **more}


def test_coco_boxes_have_a_corner_and_a_size(tmp_path):
    """The classes are in the order of their ids."""
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    ring = [10, 5, 20, 5, 20, 15.5]
    rows = [
        bee([0, 0, 40, 20]),
        {"image_id": 1, "category_id": 3, "segmentation": [ring], "iscrowd": 0},
    ]
    write(tmp_path / "annotations/all.json", coco(["a.jpg", "b.jpg"], rows))
    found = read(tmp_path)
    assert objects(found) == {
        "a.jpg": [
            Object("bee", (0, 0, 40, 20)),
            Object("frog", (10, 5, 20, 15.5), False, Polygons([ring])),
        ],
        "b.jpg": [],
    }
    assert found.classes == ["frog", "bee"]
    assert splits(found) == {"a.jpg": None, "b.jpg": None}


def test_coco_crowd_is_difficult_and_its_runs_are_its_mask(tmp_path):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[3:9, 5:30] = pixels[15, 0] = pixels[15:20, 39] = 1
    code = coco_mask.encode(np.asfortranarray(pixels))
    text = {"size": code["size"], "counts": code["counts"].decode()}
    lengths = np.flatnonzero(np.diff(pixels.T.ravel(), prepend=0, append=0))
    counts = np.diff(lengths, prepend=0).tolist()
    counts += [HEIGHT * WIDTH - sum(counts)] * (sum(counts) < HEIGHT * WIDTH)
    write_images(tmp_path, "a.jpg")
    rows = [
        {"image_id": 1, "category_id": 7, "segmentation": text, "iscrowd": 1},
        bee([1, 2, 3, 4], segmentation={"size": [HEIGHT, WIDTH], "counts": counts}),
    ]
    write(tmp_path / "a.json", coco(["a.jpg"], rows))
    [crowd, plain] = objects(read(tmp_path))["a.jpg"]
    assert (crowd.box, crowd.difficult) == ((0, 3, 40, 20), True)
    assert (plain.box, plain.difficult) == ((1, 2, 4, 6), False)
    for mask in (crowd.mask, plain.mask):
        drawn = masks.render(mask, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
        np.testing.assert_array_equal(drawn, pixels > 0)


@pytest.mark.parametrize("seed", range(3))
def test_lengths_of_a_text_of_coco_are_those_of_pycocotools(seed):
    """Random noise has negative differences; a large blank has lengths of several characters."""
    pixels = np.random.default_rng(seed).integers(0, 2, (300, 400)).astype(np.uint8)
    pixels[:, 100:350] = 0
    code = coco_mask.encode(np.asfortranarray(pixels))
    mask = RunLengths(tuple(code["size"]), code["counts"].decode())
    masks.check_run_lengths(mask, "mask")
    with pytest.raises(ValueError, match="mask: expected the lengths of 300 x 401 pixels"):
        masks.check_run_lengths(mask._replace(size=(300, 401)), "mask")
    with pytest.raises(ValueError, match="mask: expected the lengths"):
        masks.check_run_lengths(mask._replace(counts=mask.counts[:-3]), "mask")


def test_split_of_a_coco_file_is_in_a_name(tmp_path):
    for name, split in (("instances_train2017", "train2017"), ("instances_val2017", "val2017")):
        write_images(tmp_path, f"{split}/{split}.jpg")
        write(tmp_path / f"annotations/{name}.json", coco([f"{split}.jpg"], []))
    write(tmp_path / "annotations/captions_train2017.json", coco(["train2017.jpg"], []))
    write_images(tmp_path, "test/c.jpg", "train2017/same.jpg", "val2017/same.jpg")
    write(tmp_path / "test/_annotations.coco.json", coco(["c.jpg"], []))
    write(tmp_path / "annotations/more_val.json", coco(["same.jpg"], []))
    assert splits(read(tmp_path)) == {
        "train2017.jpg": "train",
        "val2017.jpg": "val",
        "c.jpg": "test",
        "same.jpg": "val",
    }
    paths = {image.image.name: image.image.parent.name for image in read(tmp_path).images}
    assert paths["same.jpg"] == "val2017"


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (bee([1, 2, 3]), "annotation cannot be read", "bbox: expected 4 finite numbers, got"),
        (bee([1, 2, 3, float("nan")]), "annotation cannot be read", "expected 4 finite numbers"),
        (bee("1234"), "annotation cannot be read", "expected 4 finite numbers, got '1234'"),
        (bee([1, 2, 3, True]), "annotation cannot be read", "expected 4 finite numbers"),
        (bee(None), "annotation cannot be read", "expected a bbox or a segmentation, got none"),
        (bee([1, 2, 3, 4], iscrowd=2), "annotation cannot be read", "expected 0 or 1, got 2"),
        (bee([1, 2, 3, 4], category_id=9), "unknown class", "expected the id of a category, got 9"),
        (bee([1, 2, 3, 4], image_id=9), "object without an image", "the id of an image, got 9"),
        (bee([1, 2, 3, 4], image_id=[1]), "object without an image", "the id of an image"),
        (bee([1, 2, 3, 4], segmentation=[[1, 2, 3, 4]]), "annotation cannot be read", "3 corners"),
        (bee([1, 2, 3, 4], segmentation="x"), "annotation cannot be read", "expected polygons or"),
        (
            bee([1, 2, 3, 4], segmentation={"size": [20, 40], "counts": [3, 4]}),
            "annotation cannot be read",
            "expected the lengths of 20 x 40 pixels",
        ),
        (
            bee([1, 2, 3, 4], segmentation={"size": [20, 40], "counts": "zz"}),
            "annotation cannot be read",
            "expected the lengths of 20 x 40 pixels",
        ),
    ],
)
def test_broken_annotation_of_coco_is_a_problem_of_its_image(tmp_path, row, kind, message):
    """The other image is read."""
    write_images(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "a.json", coco(["a.jpg", "b.jpg"], [row]))
    found = read(tmp_path)
    [problem] = found.problems
    assert (problem.kind, problem.where) == (kind, f"{tmp_path / 'a.json'}: annotation 100")
    assert message in problem.message
    assert "b.jpg" in objects(found)
    assert ("a.jpg" in objects(found)) == (row["image_id"] != 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": ', "not a JSON file"),
        ('{"images": [1], "annotations": []}', "expected a list 'categories'"),
        (coco([], [], ((1, ""),)), "expected categories with an id and a name"),
        (coco([], [], ((1, "a"), (1, "b"))), "expected one category of id 1, got several"),
        ({**coco([], []), "annotations": {}}, "expected a list 'annotations'"),
        ('{"images": "annotations"' + "[" * 100_000, "not a JSON file"),
    ],
)
def test_broken_file_of_coco_is_a_problem(tmp_path, content, message):
    write(tmp_path / "a.json", content)
    [problem] = read(tmp_path, format="coco").problems
    assert problem.kind == "annotation cannot be read"
    assert message in problem.message


def test_whole_numbers_with_a_point_are_ids_and_sizes_of_coco(tmp_path):
    write_images(tmp_path, "a.jpg")
    row = {"image_id": 1.0, "category_id": 7, "bbox": [1, 2, 3, 4]}
    content = coco(["a.jpg"], [row], ((7.0, "bee"),))
    content["images"][0].update(height=20.0, width=40.0)
    write(tmp_path / "a.json", content)
    found = read(tmp_path)
    assert objects(found) == {"a.jpg": [Object("bee", (1, 2, 4, 6))]}
    assert found.images[0].size == (20, 40)


def test_missing_and_equal_ids_and_files_of_coco_are_problems(tmp_path):
    write_images(tmp_path, "x/a.jpg", "y/a.jpg", "b.jpg")
    content = coco(["gone.jpg", "a.jpg", "y/a.jpg", "b.jpg"], [])
    content["images"] += [{"id": 4, "file_name": "b.jpg"}, {"id": 5}]
    write(tmp_path / "a.json", content)
    found = read(tmp_path)
    assert [image.image.relative_to(tmp_path).as_posix() for image in found.images] == [
        "y/a.jpg",
        "b.jpg",
    ]
    assert [(problem.kind, problem.where) for problem in found.problems] == [
        ("image is missing", "gone.jpg"),
        ("image is missing", "a.jpg"),
        ("annotation cannot be read", f"{tmp_path / 'a.json'}: image 4"),
        ("annotation cannot be read", f"{tmp_path / 'a.json'}: image 5"),
    ]
    assert "expected one such image" in found.problems[1].message


# --- YOLO -----------------------------------------------------------------------------------------


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


# --- LabelMe --------------------------------------------------------------------------------------


def labelme(*shapes, **more):
    return {
        "version": "5.0",
        "shapes": [
            {"label": label, "shape_type": kind, "points": points, **rest}
            for label, kind, points, rest in shapes
        ],
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }


def test_labelme_shapes_are_boxes_and_masks(tmp_path):
    """The corners of a rectangle are in any order. Two shapes of a group are one object."""
    write_images(tmp_path, "train/a.jpg", "train/b.jpg")
    ring, other = [[1, 2], [5, 2], [5, 8.5]], [[10, 10], [12, 10], [12, 12]]
    shapes = [
        ("bee", "rectangle", [[30, 15], [10, 5]], {"flags": {"difficult": True}}),
        ("frog", "polygon", ring, {"group_id": 1}),
        ("bee", "circle", [[20, 10], [23, 14]], {"group_id": None}),
        ("frog", "polygon", other, {"group_id": 1}),
    ]
    write(tmp_path / "train/a.json", labelme(*shapes, imagePath="..\\train\\a.jpg"))
    found = read(tmp_path)
    rectangle, frog, circle = objects(found)["a.jpg"]
    assert rectangle == Object("bee", (10, 5, 30, 15), True)
    assert frog.box == (1, 2, 12, 12)
    assert frog.mask.rings == [[1, 2, 5, 2, 5, 8.5], [10, 10, 12, 10, 12, 12]]
    np.testing.assert_allclose(circle.box, (15, 5, 25, 15))
    area = masks.render(circle.mask, (HEIGHT, WIDTH), (HEIGHT, WIDTH)).sum()
    assert abs(area - np.pi * 25) < 8
    assert splits(found) == {"a.jpg": "train"}
    assert found.images[0].size == (20, 40)
    assert problems(found) == [("image without an annotation", "b.jpg")]


def png(pixels):
    """Return a picture as the text of LabelMe's masks."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


BOTTOM_LEFT = np.uint8([[0, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize("value", [1, 255])
def test_labelme_mask_has_the_pixels_of_its_file(tmp_path, value):
    write_images(tmp_path, "a.jpg")
    mask = {"mask": png(value * BOTTOM_LEFT)}
    write(tmp_path / "a.json", labelme(("bee", "mask", [[7, 4], [9, 5]], mask)))
    (bee,) = objects(read(tmp_path))["a.jpg"]
    assert bee.box == (7, 4, 10, 6)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[5, 7:9] = True
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)


def test_labelme_group_has_the_pixels_of_all_its_masks(tmp_path):
    """A shape of another label or group is another object. A rectangle has no mask."""
    write_images(tmp_path, "a.jpg")
    mask, other = [{"mask": png(BOTTOM_LEFT), "group_id": group} for group in (1, 2)]
    square, far = [[10, 10], [14, 10], [14, 14], [10, 14]], [[30, 10], [34, 14]]
    shapes = [
        ("bee", "mask", [[7, 4], [9, 5]], mask),
        ("frog", "mask", [[7, 4], [9, 5]], mask),
        ("bee", "polygon", square, {"group_id": 1, "flags": {"difficult": True}}),
        ("bee", "mask", [[8, 4], [10, 5]], mask),
        ("bee", "mask", [[20, 4], [22, 5]], other),
        ("bee", "rectangle", far, {"group_id": 2}),
    ]
    write(tmp_path / "a.json", labelme(*shapes))
    bee, frog, second = objects(read(tmp_path))["a.jpg"]
    assert [x.name for x in (bee, frog, second)] == ["bee", "frog", "bee"]
    assert (bee.box, bee.difficult) == ((7, 4, 14, 14), True)
    assert (frog.box, frog.difficult) == ((7, 4, 10, 6), False)
    assert (second.box, second.mask) == ((20, 4, 34, 14), None)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[5, 7:10] = want[10:14, 10:14] = True
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)
    half = masks.render(bee.mask, (HEIGHT // 2, WIDTH // 2), want.shape)
    np.testing.assert_array_equal(half[5:7, 4:8], [[0, 1, 1, 0], [0, 1, 1, 0]])


@pytest.mark.parametrize("inside", [np.ones((2, 3), bool), np.eye(3) > 0, np.zeros((1, 1), bool)])
def test_run_lengths_are_those_of_the_pixels(inside):
    code = masks.run_lengths(inside)
    masks.check_run_lengths(code, "mask")
    np.testing.assert_array_equal(masks.render(code, inside.shape, inside.shape), inside)


MASK = {"mask": png(BOTTOM_LEFT)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (labelme(("bee", "mask", [[1, 2], [3, 3]], {})), "expected a mask in base64, got None"),
        (labelme(("bee", "mask", [[1, 2], [3, 3]], {"mask": "?"})), "expected a PNG file"),
        (labelme(("bee", "mask", [[1, 2], [3, 3]], {"mask": "AAAA"})), "expected a PNG file"),
        (labelme(("bee", "mask", [[-1, 2], [1, 3]], MASK)), "got 3 x 2 pixels at -1, 2"),
        (labelme(("bee", "mask", [[38, 2], [40, 3]], MASK)), "got 3 x 2 pixels at 38, 2"),
        (
            labelme(("bee", "mask", [[1, 2], [3, 3]], MASK), imageHeight=None),
            "expected imageHeight and imageWidth",
        ),
        (labelme(("bee", "line", [[1, 2], [3, 4]], {})), "got 'line' of 2"),
        (labelme(("bee", "polygon", [[1, 2], [3, 4]], {})), "got 'polygon' of 2"),
        (labelme(("", "rectangle", [[1, 2], [3, 4]], {})), "shape 0: expected a label, got ''"),
        (labelme(("bee", "rectangle", [[1, 2], [3]], {})), "expected 2 finite numbers, got"),
        (labelme(("bee", "rectangle", None, {})), "expected points, got None"),
        ({"shapes": [3]}, "expected an object, got 3"),
        ({"shapes": 3}, "expected a list 'shapes'"),
    ],
)
def test_broken_file_of_labelme_is_a_problem(tmp_path, content, message):
    write_images(tmp_path, "a.jpg")
    write(tmp_path / "a.json", content)
    found = read(tmp_path)
    assert problems(found) == [("annotation cannot be read", "a.json")]
    assert message in found.problems[0].message
    assert found.images == []


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg,bee,1,2,30,20\na.jpg,frog,0,0,5.5,5\nb.jpg,,,,,\n",
        "a.jpg,1,2,30,20,bee\na.jpg,0,0,5.5,5,frog\nb.jpg,,,,,\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "a.jpg,40,20,bee,1,2,30,20\na.jpg,40,20,frog,0,0,5.5,5\nb.jpg,40,20,,,,,\n",
        "\ufeffImage;Label;X1;Y1;X2;Y2\r\n\r\na.jpg;bee;1;2;30;20\r\na.jpg;frog;0;0;5.5;5\r\nb.jpg\r\n",
    ],
    ids=["plain", "class last", "header", "semicolons"],
)
def test_csv_corners_are_pixels(tmp_path, text):
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    write(tmp_path / "boxes.csv", text)
    found = read(tmp_path)
    assert objects(found) == {
        "a.jpg": [Object("bee", (1, 2, 30, 20)), Object("frog", (0, 0, 5.5, 5))],
        "b.jpg": [],
    }
    assert found.problems == []


def test_split_of_a_csv_row_is_in_a_column_a_file_or_a_folder(tmp_path):
    write_images(tmp_path, "test/a.jpg", "b.jpg", "c.jpg")
    write(
        tmp_path / "all.csv",
        "file,class,x1,y1,x2,y2,subset,difficult\n"
        "test/a.jpg,bee,1,2,3,4,,1\nb.jpg,bee,1,2,3,4,Validation,\n",
    )
    write(tmp_path / "train_labels.csv", "c.jpg,bee,1,2,3,4\n")
    found = read(tmp_path)
    assert splits(found) == {"a.jpg": "test", "b.jpg": "val", "c.jpg": "train"}
    assert objects(found)["a.jpg"] == [Object("bee", (1, 2, 3, 4), True)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,bee,0.1,0.2,0.5,1\n", "expected boxes in pixels, got fractions"),
        ("file,x1,y1\na.jpg,1,2\n", r"expected columns \['class', 'x2', 'y2'\] in the header"),
        ("a.jpg,bee,1,2,3\n", "expected a header, or the columns file, class, x1"),
        ("\n", "expected rows .*, got none"),
        (
            'a.jpg,bee,1,2,3,4\n"a.jpg,bee,1,2,3,4\n',
            "line 2: not a table, or a wrong quotation mark",
        ),
    ],
)
def test_other_csv_is_rejected(tmp_path, text, message):
    write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=rf"a\.csv: {message}"):
        read(tmp_path)


def test_broken_row_of_csv_is_a_problem_of_its_image(tmp_path):
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    rows = [
        "file,class,x1,y1,x2,y2,split",
        "a.jpg,bee,1,2,3,4,",
        "a.jpg,bee,1,2,three,4,",
        "b.jpg,,1,2,3,4,",
        "c.jpg,bee,1,2,3,4,fold",
        "gone.jpg,bee,1,2,3,4,",
        ",bee,1,2,3,4,",
        "d.jpg,bee,10,2,30,inf,",
        "e.jpg,bee,1,5,2,5,train,30,5,40,5",  # decimal commas
    ]
    write(tmp_path / "a.csv", "\n".join(rows))
    found = read(tmp_path)
    assert found.images == []
    assert problems(found) == [
        ("annotation cannot be read", "a.csv: line 3"),
        ("annotation cannot be read", "a.csv: line 4"),
        ("annotation cannot be read", "a.csv: line 5"),
        ("annotation cannot be read", "a.csv: line 7"),
        ("annotation cannot be read", "a.csv: line 8"),
        ("annotation cannot be read", "a.csv: line 9"),
        ("image is missing", "gone.jpg"),
    ]


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
