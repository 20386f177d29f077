"""From images and annotations to a set: the check, the splits, the masks and the command."""

import base64
import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_cases import save_on_its_side
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools", "tqdm")

from PIL import Image  # noqa: E402

from cvops import cli, voc  # noqa: E402
from cvops.images import image_size  # noqa: E402
from cvops.sets import DataError, make_set, read_set  # noqa: E402

#: Width and height of the images.
WIDTH, HEIGHT = 40, 20


def noise(seed, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write_photos(folder, count, suffix="png"):
    """Write different images 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(noise(number)).save(folder / f"{number}.{suffix}", quality=90)


def write_csv(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "boxes.csv").write_text("".join(f"{row}\n" for row in rows))


def kinds(report):
    return [(problem.kind, problem.where.rpartition("/")[2]) for problem in report.problems]


@pytest.fixture
def photos(tmp_path):
    """Ten images, of which the last one has no object."""
    write_photos(tmp_path / "photos", 10)
    rows = [f"{i}.png,{('bee', 'frog')[i % 2]},{i},2,30,20" for i in range(9)]
    write_csv(tmp_path / "photos", *rows, "9.png,,,,,")
    return tmp_path / "photos"


# --- splits ---------------------------------------------------------------------------------------


def test_set_has_all_images_with_their_boxes(photos, tmp_path):
    report = make_set(photos, tmp_path / "set", val=0.3, seed=1)
    made = report.set
    assert read_set(made.path) == made
    assert (made.kind, made.classes, report.format) == ("boxes", ("bee", "frog"), "csv")
    assert {split: row.images for split, row in made.splits.items()} == {"train": 7, "val": 3}
    seen = {}
    for split in made.splits:
        for source, scene in zip(made.sources(split), made.scenes(split)):
            seen[os.path.basename(source)] = scene
    assert sorted(seen) == [f"{i}.png" for i in range(10)]
    for i in range(9):
        image, labels, _ = seen[f"{i}.png"]
        np.testing.assert_array_equal(image, noise(i))
        np.testing.assert_allclose(labels, [(i % 2, i / 40, 0.1, 0.75, 1, 0)], rtol=1e-6)
    assert len(seen["9.png"].labels) == 0
    assert sum(report.empty.values()) == 1
    assert {name: sum(row.values()) for name, row in report.objects.items()} == {
        "bee": 5,
        "frog": 4,
    }
    assert report.sides == (40, 40, 40)
    assert report.problems == []


def test_equal_seeds_make_equal_sets(photos, tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, seed in zip(paths, (1, 1, 2)):
        make_set(photos, path, seed=seed)
    contents = [
        {file.name: file.read_bytes() for file in path.iterdir() if file.suffix != ".json"}
        for path in paths
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        (0, {"train": 10}),
        (1, {"val": 10}),
        (0.01, {"train": 9, "val": 1}),
        (0.5, {"train": 5, "val": 5}),
    ],
)
def test_fraction_of_val(photos, tmp_path, val, expected):
    made = make_set(photos, tmp_path / "set", val=val).set
    assert {split: row.images for split, row in made.splits.items()} == expected


def test_splits_of_the_source_are_kept(tmp_path):
    """An image without a split is one of train."""
    for split, names in (("train", "ab"), ("valid", "c"), ("", "d")):
        for name in names:
            (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(ord(name))).save(tmp_path / "photos" / split / f"{name}.png")
    write_csv(tmp_path / "photos", *(f"{name}.png,bee,1,2,3,4" for name in "abcd"))
    made = make_set(tmp_path / "photos", tmp_path / "set").set
    names = {
        split: sorted(os.path.basename(x) for x in made.sources(split)) for split in made.splits
    }
    assert names == {"train": ["a.png", "b.png", "d.png"], "val": ["c.png"]}
    with pytest.raises(
        ValueError, match=r"val: expected no value, because the source has .*, got 0\.5"
    ):
        make_set(tmp_path / "photos", tmp_path / "other", val=0.5)


def test_one_split_of_the_source_is_divided(tmp_path):
    write_photos(tmp_path / "photos" / "train", 4)
    write_csv(tmp_path / "photos", *(f"{i}.png,bee,1,2,3,4" for i in range(4)))
    made = make_set(tmp_path / "photos", tmp_path / "set", val=0.25).set
    assert {split: row.images for split, row in made.splits.items()} == {"train": 3, "val": 1}


def test_equal_images_are_in_one_split(tmp_path):
    """The copy is another file format with equal pixels."""
    photos = tmp_path / "photos"
    write_photos(photos, 8)
    for i in range(4):
        Image.open(photos / f"{i}.png").save(photos / f"copy{i}.bmp")
    rows = [f"{i}.png,bee,1,2,3,4" for i in range(8)]
    write_csv(photos, *rows, *(f"copy{i}.bmp,bee,1,2,3,4" for i in range(4)))
    report = make_set(photos, tmp_path / "set", val=0.5)
    assert kinds(report) == [("equal images", f"copy{i}.bmp") for i in range(4)]
    made = report.set
    assert {split: row.images for split, row in made.splits.items()} != {"train": 12}
    split_of = {os.path.basename(x): split for split in made.splits for x in made.sources(split)}
    assert len(split_of) == 12
    assert all(split_of[f"{i}.png"] == split_of[f"copy{i}.bmp"] for i in range(4))


def test_image_in_train_and_val_is_kept_in_val_alone(tmp_path):
    photos = tmp_path / "photos"
    write_photos(photos / "train", 3)
    (photos / "val").mkdir()
    Image.open(photos / "train" / "1.png").save(photos / "val" / "other.png")
    rows = [f"train/{i}.png,bee,1,2,3,4" for i in range(3)]
    write_csv(photos, *rows, "val/other.png,bee,1,2,3,4")
    report = make_set(photos, tmp_path / "set")
    assert kinds(report) == [("image is in two splits", "1.png")]
    assert [row.images for row in report.set.splits.values()] == [2, 1]
    with pytest.raises(DataError, match="1 errors; nothing is written"):
        make_set(photos, tmp_path / "other", on_error="stop")
    assert not (tmp_path / "other").exists()


# --- the check ------------------------------------------------------------------------------------

#: Rows of images with the problem of each.
FAULTS = {
    "gone.png,bee,1,2,3,4": ("image is missing", "gone.png"),
    "text.png,bee,1,2,3,4": ("image cannot be read", "text.png"),
    "cut.png,bee,1,2,3,4": ("image cannot be read", "cut.png"),
    "4.png,bee,1,2,three,4": ("annotation cannot be read", "boxes.csv: line 5"),
    "5.png,bee,40,2,50,4": ("box outside of the image", "boxes.csv: 5.png: object 0"),
    "9.png,bee,5,2,3,4": ("inverted box", "boxes.csv: 9.png: object 0"),
    "6.png,bee,5,2,5,4": ("empty box", "boxes.csv: 6.png: object 0"),
    "7.png,bee,-3,2,30,4": ("box beyond the border", "boxes.csv: 7.png: object 0"),
    "8.png,bee,1,2,3,4\n8.png,bee,1,2,3,4": ("object is there twice", "boxes.csv: 8.png: object 1"),
}


@pytest.fixture
def faulty(tmp_path):
    photos = tmp_path / "photos"
    write_photos(photos, 10)
    (photos / "text.png").write_text("no image")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:-500])
    write_csv(photos, "0.png,bee,1,2,3,4", *FAULTS)
    return photos


def test_each_fault_is_named_and_the_rest_is_kept(faulty, tmp_path):
    report = make_set(faulty, tmp_path / "set", val=0)
    assert sorted(kinds(report)) == sorted(FAULTS.values())
    made = report.set
    labels = {
        os.path.basename(source): scene.labels.tolist()
        for source, scene in zip(made.sources("train"), made.scenes("train"))
    }
    one = np.float32([0, 1 / 40, 0.1, 3 / 40, 0.2, 0]).tolist()
    cut = np.float32([0, 0, 0.1, 30 / 40, 0.2, 0]).tolist()
    assert labels == {"0.png": [one], "6.png": [], "7.png": [cut], "8.png": [one]}
    with open(made.path / "problems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["problem"], os.path.basename(row["where"])) for row in rows] == kinds(report)
    assert rows[0]["result"] == "image skipped"


def test_stop_refuses_errors_but_not_notes(faulty, tmp_path):
    with pytest.raises(DataError, match="photos: 7 errors; nothing is written") as error:
        make_set(faulty, tmp_path / "set", on_error="stop")
    assert len(error.value.problems) == 9
    assert not (tmp_path / "set").exists()
    notes = [row for row, (kind, _) in FAULTS.items() if row[0] in "78"]
    write_csv(faulty, *notes)
    assert len(make_set(faulty, tmp_path / "set", on_error="stop").problems) == 2


def test_annotation_of_another_size_is_an_error(tmp_path):
    """The file of the second image has an EXIF rotation, which the annotation ignores."""
    photos = tmp_path / "photos"
    write_photos(photos, 3)
    save_on_its_side(photos / "1.png", Image.fromarray(noise(1)), "PNG")
    write_csv(
        photos,
        "file,width,height,class,x1,y1,x2,y2",
        "0.png,80,40,bee,1,2,3,4",
        "1.png,20,40,bee,1,2,3,4",
        "2.png,40,20,bee,1,2,3,4",
        "3.png,40,0,bee,1,2,3,4",
    )
    report = make_set(photos, tmp_path / "set", val=0)
    assert kinds(report) == [
        ("annotation cannot be read", "boxes.csv: line 5"),
        ("size of the image differs", "boxes.csv: 0.png"),
        ("size of the image differs", "boxes.csv: 1.png"),
    ]
    assert report.problems[1].message.endswith("upright image, 20 x 40, got 40 x 80")
    assert report.problems[2].message.endswith("of the image before its EXIF rotation")


def test_boxes_are_those_of_the_upright_image(tmp_path):
    """The set has the upright image, so that each reader sees it."""
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, 20:] = 255
    save_on_its_side(photos / "a.jpg", Image.fromarray(pixels), "JPEG")
    write_csv(photos, "a.jpg,white,20,0,40,20")
    made = make_set(photos, tmp_path / "set", val=0).set
    image, labels, _ = made.scenes("train")[0]
    assert np.abs(image.astype(int) - pixels).mean() < 3
    np.testing.assert_array_equal(labels, [(0, 0.5, 0, 1, 1, 0)])


def test_classes_choose_names_and_their_order(photos, tmp_path):
    """Images of other classes are background."""
    report = make_set(photos, tmp_path / "set", classes=["frog", "cat"], val=0)
    assert report.set.classes == ("frog", "cat")
    assert report.set.splits["train"] == (10, 4)
    assert (report.objects["frog"]["train"], report.objects["cat"]["train"]) == (4, 0)
    assert report.problems == [("class is not asked for", "bee", "bee: 5 objects")]
    with pytest.raises(DataError, match="expected an image with an object of cat, got 10 images"):
        make_set(photos, tmp_path / "other", classes=["cat"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "warn"}, "on_error: expected one of"),
        ({"kind": "masks"}, "kind: expected one of"),
        ({"val": 1.5}, "val: expected a number in"),
        ({"max_side": 0}, "max_side: expected an integer in"),
        ({"classes": "bee"}, "classes: expected one name or more, got 'bee'"),
        ({"format": "voc"}, "expected images with annotations of the format voc, got none"),
    ],
)
def test_bad_argument_is_rejected(photos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_set(photos, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_set_is_not_written_into_its_source(photos, tmp_path):
    with pytest.raises(ValueError, match="path: expected a folder outside of"):
        make_set(photos, photos / "set")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="full: expected no folder, or an empty one"):
        make_set(photos, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "photos"]


def test_set_that_contains_its_source_is_not_replaced(photos, tmp_path):
    made = make_set(photos, tmp_path / "set").set.path
    shutil.copytree(photos, made / "photos")
    for given in ({"source": made / "photos"}, {"source": photos, "images": made / "photos"}):
        with pytest.raises(ValueError, match=r"path: expected a folder without .*photos in it"):
            make_set(path=made, overwrite=True, **given)
    assert (made / "photos").is_dir()


def test_names_of_files_are_any_bytes(tmp_path):
    photos, name = tmp_path / "photos", os.fsdecode(b"caf\xe9 1.png")
    write_photos(photos, 1)
    try:
        (photos / "0.png").rename(photos / name)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    Image.fromarray(noise(5)).save(photos / "other.png")
    (photos / "classes.txt").write_text("bee")
    (photos / name).with_suffix(".txt").write_text("0 0.5 0.5 1 1")
    made = make_set(photos, tmp_path / "set", val=0).set
    assert made.sources("train") == [str(photos / name), str(photos / "other.png")]
    assert [len(scene.labels) for scene in made.scenes("train")] == [1, 0]


# --- images and masks -----------------------------------------------------------------------------


def test_large_images_are_reduced(photos, tmp_path):
    Image.fromarray(noise(0, (8, 400))).save(photos / "0.png")
    made = make_set(photos, tmp_path / "set", max_side=20, val=0).set
    sizes = {
        os.path.basename(x): y.image.shape
        for x, y in zip(made.sources("train"), made.scenes("train"))
    }
    assert sizes["0.png"] == (1, 20, 3)
    assert sizes["1.png"] == (10, 20, 3)


def test_plain_files_are_kept_and_others_are_encoded(tmp_path):
    photos = tmp_path / "photos"
    write_photos(photos, 1, "jpg")
    Image.fromarray(noise(1)).convert("CMYK").save(photos / "1.jpg")
    Image.fromarray(noise(2)[..., 0] * np.uint16(256)).save(photos / "2.png")
    Image.fromarray(noise(3)[..., 0]).save(photos / "3.png")
    write_csv(photos, *(f"{name},bee,1,2,3,4" for name in ("0.jpg", "1.jpg", "2.png", "3.png")))
    content = (make_set(photos, tmp_path / "set", val=0).set.path / "train.rec").read_bytes()
    kept = [file.name for file in sorted(photos.iterdir()) if file.read_bytes() in content]
    assert kept == ["0.jpg", "3.png"]


def coco_source(folder):
    """Two overlapping squares, of which the smaller one is drawn over the other; and a crowd."""
    write_photos(folder, 3)

    def square(x, y, side):
        return [[x, y, x + side, y, x + side, y + side, x, y + side]]

    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 40, 760]}
    rows = [
        {"image_id": 1, "category_id": 2, "bbox": [4, 4, 4, 4], "segmentation": square(4, 4, 4)},
        {"image_id": 1, "category_id": 1, "bbox": [2, 2, 12, 12], "segmentation": square(2, 2, 12)},
        {
            "image_id": 2,
            "category_id": 1,
            "bbox": [0, 0, 2, 20],
            "segmentation": runs,
            "iscrowd": 1,
        },
    ]
    content = {
        "images": [{"id": i + 1, "file_name": f"{i}.png"} for i in range(3)],
        "annotations": [{"id": i, **row} for i, row in enumerate(rows)],
        "categories": [{"id": 1, "name": "bee"}, {"id": 2, "name": "frog"}],
    }
    (folder / "all.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("max_side", [None, 20])
def test_masks_of_coco_are_those_of_the_set(tmp_path, max_side):
    made = make_set(
        coco_source(tmp_path / "photos"), tmp_path / "set", val=0, max_side=max_side
    ).set
    assert made.kind == "instances"
    scenes = made.scenes("train")
    scale = 1 if max_side is None else 2
    large, small = np.zeros((2, HEIGHT, WIDTH), bool)
    large[2:14, 2:14], small[4:8, 4:8] = True, True
    expected = np.array([small, large & ~small])[:, ::scale, ::scale]
    np.testing.assert_array_equal(scenes[0].masks, expected)
    np.testing.assert_allclose(scenes[0].labels[0], [1, 0.1, 0.2, 0.2, 0.4, 0], rtol=1e-6)
    assert scenes[1].labels.tolist() == [[0, 0, 0, np.float32(0.05), 1, 1]]
    assert scenes[1].masks[0].sum() == 40 / scale**2
    assert scenes[2].masks.shape == (0, HEIGHT // scale, WIDTH // scale)
    _, pixels = made.segmentation("train", (HEIGHT // scale, WIDTH // scale)).image(0)
    np.testing.assert_array_equal(pixels, expected[0] * 2 + expected[1])


def test_masks_are_needed_for_segmentation(photos, tmp_path):
    with pytest.raises(DataError, match="expected masks for segmentation, got boxes alone"):
        make_set(photos, tmp_path / "set", kind="segmentation")


def test_kind_of_a_set_is_as_asked(tmp_path):
    photos = coco_source(tmp_path / "photos")
    assert make_set(photos, tmp_path / "a", kind="boxes").set.kind == "boxes"
    assert make_set(photos, tmp_path / "b", kind="segmentation").set.kind == "segmentation"
    content = json.loads((photos / "all.json").read_text())
    del content["annotations"][0]["segmentation"]
    (photos / "all.json").write_text(json.dumps(content))
    assert make_set(photos, tmp_path / "c").set.kind == "boxes"
    report = make_set(photos, tmp_path / "d", kind="instances", val=0)
    assert [problem.kind for problem in report.problems] == ["object without a mask"]
    assert report.set.scenes("train")[0].masks.sum(axis=(1, 2)).tolist() == [0, 144]


def test_mask_without_pixels_is_noted(tmp_path):
    photos = coco_source(tmp_path / "photos")
    content = json.loads((photos / "all.json").read_text())
    empty = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    content["annotations"][0]["segmentation"] = empty
    (photos / "all.json").write_text(json.dumps(content))
    report = make_set(photos, tmp_path / "set", val=0)
    assert [problem.kind for problem in report.problems] == ["object without a mask"]
    assert report.set.scenes("train")[0].masks.sum(axis=(1, 2)).tolist() == [0, 144]


def test_group_of_a_mask_and_a_polygon_is_checked_and_drawn(tmp_path):
    """Object 0 of image 0 has 6 pixels of a mask and 16 of a square. That of image 1 is far."""
    write_photos(tmp_path / "photos", 2)
    text = io.BytesIO()
    Image.fromarray(np.ones((2, 3), np.uint8)).save(text, "PNG")
    mask = base64.b64encode(text.getvalue()).decode()
    for number, corner in enumerate((14, 1e9)):
        square = [[10, 10], [14, 10], [corner, 14], [10, 14]]
        shapes = [
            {"shape_type": "polygon", "points": square},
            {"shape_type": "mask", "points": [[7, 4], [9, 5]], "mask": mask},
        ]
        content = {"shapes": [{"label": "bee", "group_id": 1, **shape} for shape in shapes]}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        (tmp_path / f"photos/{number}.json").write_text(json.dumps(content))
    report = make_set(tmp_path / "photos", tmp_path / "set", val=0)
    assert ("mask cannot be read", "1.json: object 0") in kinds(report)
    (scene,) = report.set.scenes("train")
    assert report.set.kind == "instances"
    assert scene.masks.sum() == 22


def test_masks_that_do_not_fit_their_image_are_errors(tmp_path):
    photos = coco_source(tmp_path / "photos")
    content = json.loads((photos / "all.json").read_text())
    content["annotations"][0]["segmentation"][0][0] = 1e9
    content["annotations"][2]["segmentation"] = {"size": [2, 4], "counts": [8]}
    content["annotations"].append(
        {
            "id": 9,
            "image_id": 3,
            "category_id": 1,
            "bbox": [0, 0, 5, 5],
            "segmentation": [[0, 0, 5, 0, 5, 5]],
        }
    )
    (photos / "all.json").write_text(json.dumps(content))
    report = make_set(photos, tmp_path / "set", val=0)
    assert [problem.kind for problem in report.problems] == ["mask cannot be read"] * 2
    assert "expected a polygon in the image, got a corner at 1e+09" in report.problems[0].message
    assert "image's size, 20 x 40, got 2 x 4" in report.problems[1].message
    assert report.set.splits == {"train": (1, 1)}
    assert make_set(photos, tmp_path / "boxes", kind="boxes").problems == []


def test_voc_tree_keeps_objects_masks_and_boundaries(tmp_path):
    """A set of a VOC tree is that tree, in train and val. Classes may be omitted."""
    source = voc.make_voc(tmp_path / "source", 4, 2, seed=3, size=(40, 60))
    before = voc.VOCInstanceDataset(True, source)
    made = make_set(source, tmp_path / "set").set
    assert made.kind == "instances"
    assert {split: row.images for split, row in made.splits.items()} == {"train": 4, "val": 2}
    for i, scene in enumerate(made.scenes("train")):
        image, labels, masks = before.scene(i)
        names = [before.classes[int(kind)] for kind in labels[:, 0]]
        assert [made.classes[int(kind)] for kind in scene.labels[:, 0]] == names
        np.testing.assert_array_equal(scene.image, image)
        np.testing.assert_allclose(scene.labels[:, 1:], labels[:, 1:6], atol=1e-6)
        np.testing.assert_array_equal(scene.masks, masks)
    pixels = made.segmentation("train", (40, 40), void=255)
    original = voc.VOCSegDataset(True, (40, 40), source, void=255)
    for i in range(len(original)):
        expected = [voc.VOC_CLASSES[k] if k < 21 else "void" for k in original.image(i)[1].ravel()]
        names = ["background", *made.classes, *[""] * 300]
        names[255] = "void"
        assert [names[k] for k in pixels.image(i)[1].ravel()] == expected
    [name] = made.classes[:1]
    other = make_set(source, tmp_path / "one", classes=[name]).set
    for one, scene in zip(other.scenes("train"), made.scenes("train")):
        np.testing.assert_array_equal(one.masks, scene.masks[scene.labels[:, 0] == 0])


def write_classes(folder, **files):
    """Write labels of ``SegmentationClass``, gray images, and other files."""
    for name in ("JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    for name, label in files.items():
        Image.fromarray(noise(len(name), label.shape[:2])).save(folder / f"JPEGImages/{name}.png")
        Image.fromarray(label).save(folder / f"SegmentationClass/{name}.png")


def test_labels_of_classes_are_a_set_for_segmentation(tmp_path):
    """The indices are 0, 1, 3 and void. The lists of the tree choose train and val."""
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[:10, :10], indices[5:, 20:], indices[0, 39] = 1, 3, 255
    tree = tmp_path / "tree"
    write_classes(tree, a=indices, bb=np.zeros_like(indices), ccc=indices, dddd=indices + 1)
    lists = tree / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nbb\ngone\n")
    (lists / "val.txt").write_text("ccc\n")
    names = ["bee", "frog", "cat"]
    report = make_set(tree, tmp_path / "set", kind="segmentation", classes=names)
    made = report.set
    assert kinds(report) == [("mask cannot be read", "gone.png")]
    assert made.classes == tuple(names)
    assert made.splits == {"train": (2, 2), "val": (1, 2)}
    pixels = made.segmentation("train", (HEIGHT, WIDTH), void=255)
    np.testing.assert_array_equal(pixels.image(0)[1], indices)
    np.testing.assert_array_equal(pixels.image(1)[1], 0)
    labels = made.scenes("train")[0].labels
    np.testing.assert_allclose(
        labels, [(0, 0, 0, 0.25, 0.5, 0), (2, 0.5, 0.25, 1, 1, 0)], rtol=1e-6
    )
    with pytest.raises(ValueError, match="SegmentationClass alone, which are for --kind segment"):
        make_set(tree, tmp_path / "other")
    with pytest.raises(DataError, match="expected an image with an object of bee, frog") as error:
        make_set(tree, tmp_path / "other", kind="segmentation", classes=["bee", "frog"])
    assert [problem.kind for problem in error.value.problems] == ["mask cannot be read"] * 3


def test_labels_have_the_classes_and_colors_of_a_list(tmp_path):
    """CVAT's list has colors of its own, in any order; LabelMe's has VOC's colors."""
    label = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    label[:5], label[5:8], label[8:9] = (9, 8, 7), (1, 2, 3), (224, 224, 192)
    write_classes(tmp_path / "cvat", a=label)
    (tmp_path / "cvat" / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nfrog:9,8,7::\nbackground:0,0,0::\nbee:1,2,3::\n"
    )
    made = make_set(tmp_path / "cvat", tmp_path / "a", kind="segmentation", val=0).set
    assert made.classes == ("frog", "bee")
    expected = np.repeat([1] * 5 + [2] * 3 + [255] + [0] * 11, WIDTH).reshape(HEIGHT, WIDTH)
    pixels = made.segmentation("train", (HEIGHT, WIDTH), void=255).image(0)[1]
    np.testing.assert_array_equal(pixels, expected)

    colors = voc.VOC_PALETTE[np.where(expected == 255, 255, expected)]
    write_classes(tmp_path / "labelme", a=colors)
    (tmp_path / "labelme" / "class_names.txt").write_text("__ignore__\n_background_\nfrog\nbee\n")
    made = make_set(tmp_path / "labelme", tmp_path / "b", kind="segmentation", val=0).set
    assert made.classes == ("frog", "bee")
    pixels = made.segmentation("train", (HEIGHT, WIDTH), void=255).image(0)[1]
    np.testing.assert_array_equal(pixels, expected)
    (tmp_path / "cvat" / "labelmap.txt").write_text("frog:9,8\n")
    with pytest.raises(
        ValueError, match=r"labelmap\.txt: expected lines name:r,g,b, got 'frog:9,8'"
    ):
        make_set(tmp_path / "cvat", tmp_path / "c", kind="segmentation")


# --- the command ----------------------------------------------------------------------------------


def test_command_prints_counts_and_draws_samples(faulty, tmp_path, capsys):
    out = tmp_path / "set"
    assert cli.main(["data", str(faulty), str(out), "--val", "0.2"]) == 0
    printed = capsys.readouterr()
    assert f"cvops: image cannot be read: {faulty / 'text.png'}: not an image" in printed.err
    assert printed.err.count("cvops: ") == 7
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["image", "cannot", "be", "read", "2", "skipped"] in lines
    assert lines[-2] == [f"{out}:", "boxes,", "from", "csv"]
    made = read_set(out)
    total = [sum(column) for column in zip(*made.splits.values())]
    assert total == [4, 3]
    assert ["train", "3"] in [line[:2] for line in lines]
    assert image_size(out / "samples.png")[1] >= 256
    assert sorted(path.name for path in out.iterdir()) == [
        "problems.csv",
        "samples.png",
        "set.json",
        "sources.csv",
        "train.idx",
        "train.rec",
        "val.idx",
        "val.rec",
    ]


def test_full_disk_is_reported_with_the_folder(photos, tmp_path, capsys, monkeypatch):
    """The set is there only if its drawing alone is missing."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "set"
    for owner, name, message in [
        (Path, "write_bytes", "set: cannot be written: No space left on device\n"),
        (
            Image.Image,
            "save",
            "samples.png: cannot be written: No space left on device; the",
        ),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            assert cli.main(["data", str(photos), str(out)]) == 2
        assert message in capsys.readouterr().err
        assert out.exists() == (owner is Image.Image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set"]
    assert "samples.png" not in {path.name for path in out.iterdir()}


def test_command_notes_that_val_is_missing(photos, tmp_path, capsys):
    assert cli.main(["data", str(photos), str(tmp_path / "set"), "--val", "0"]) == 0
    assert "note: no images are in val" in capsys.readouterr().out


def test_command_stops_on_errors_as_asked(faulty, tmp_path, capsys):
    assert cli.main(["data", str(faulty), str(tmp_path / "set"), "--on-error", "stop"]) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].endswith("7 errors; nothing is written")
    assert "refused" in printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_command_reads_classes_from_a_file_or_its_argument(photos, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("frog\n\nbee\n")
    for number, classes in enumerate((str(tmp_path / "names.txt"), "frog, bee")):
        out = tmp_path / f"set{number}"
        assert cli.main(["data", str(photos), str(out), "--classes", classes]) == 0
        assert read_set(out).classes == ("frog", "bee")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "set"], "none: no such file or folder"),
        (["photos", "photos/set"], "expected a folder outside of"),
        (["photos", "set", "--images", "gone"], "gone: no such folder"),
        (["photos", "set", "--classes", ","], "classes: expected one name or more"),
        (["photos", "set", "--classes", "cat"], "expected an image with an object of cat"),
        (["photos", "photos/0.png/set"], "expected a folder, got a file, "),
    ],
)
def test_command_gives_the_reason_in_one_line(
    photos, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
