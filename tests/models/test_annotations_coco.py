"""Annotations in COCO JSON: boxes, masks, classes, broken files."""

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import HEIGHT, WIDTH, bee, coco, objects, read, splits, write, write_images  # noqa: E402
from pycocotools import mask as coco_mask  # noqa: E402

from cvops.datasets.annotations import masks  # noqa: E402
from cvops.datasets.annotations.base import Object, Polygons, RunLengths  # noqa: E402


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
