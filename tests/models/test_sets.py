"""Sets of a user: their description, their two forms, and their readers."""

import json
import os
import random

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from PIL import Image  # noqa: E402

from cvops import voc  # noqa: E402
from cvops.datasets.set_writer import Example, write_set  # noqa: E402
from cvops.datasets.sets import Split, read_set  # noqa: E402
from cvops.images import image_size  # noqa: E402

CLASSES = ["red box", "red-box", "汽车"]
#: Two objects in an image of 40 x 20 pixels (width x height).
LABELS = [(2, 0.25, 0.25, 0.75, 1, 0), (0, 0, 0, 0.5, 0.5, 1)]


def picture(gray=100, size=(40, 20)):
    return Image.new("RGB", size, (gray, gray, gray))


def numbers():
    """The second object covers a part of the first one; the corner is void."""
    pixels = np.zeros((20, 40), np.uint8)
    pixels[5:20, 10:30], pixels[0:10, 0:20], pixels[19, 39] = 1, 2, voc.VOC_VOID
    return pixels


def examples(with_numbers=False):
    pixels = numbers() if with_numbers else None
    empty = np.zeros_like(pixels) if with_numbers else None
    return [
        Example(picture(), np.array(LABELS), pixels, "a.png"),
        Example(picture(200), np.zeros((0, 6)), empty, "b, c.png"),
    ]


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    return write_set(
        tmp_path_factory.mktemp("sets") / "boxes",
        "boxes",
        CLASSES,
        {"train": examples(), "val": iter(examples()[:1])},
    )


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "masks"
    return write_set(path, "instances", CLASSES, {"train": examples(True)})


def test_set_has_the_counts_of_its_splits(boxes):
    found = read_set(boxes.path)
    assert found == boxes
    assert found.classes == tuple(CLASSES)
    assert found.splits == {"train": Split(2, 2), "val": Split(1, 2)}
    assert found.sources("train") == ["a.png", "b, c.png"]
    assert json.loads((boxes.path / "set.json").read_text("utf-8"))["format"] == "cvops set 1"


def test_boxes_of_a_set_are_records_of_six_numbers(boxes):
    scenes = boxes.scenes("train")
    image, labels, masks = scenes[0]
    assert (len(scenes), image.shape, image.dtype, masks) == (2, (20, 40, 3), np.uint8, None)
    np.testing.assert_array_equal(labels, np.float32(LABELS))
    assert scenes[-1].labels.shape == (0, 6)
    assert abs(int(scenes[1].image.mean()) - 200) < 2
    assert [len(scene.labels) for scene in scenes[0:2]] == [2, 0]
    with pytest.raises(IndexError, match="index: expected one of 2 images, got 2"):
        scenes[2]
    batch = next(boxes.iterator("train", 2, side=32))
    assert batch.data[0].shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(batch.label[0][0].asnumpy(), np.float32(LABELS))
    assert (batch.label[0][1].asnumpy() == -1).all()


def test_content_of_an_image_file_is_kept(tmp_path):
    """The pixels of a PNG are equal; a JPEG would change them."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    file = tmp_path / "noise.png"
    Image.fromarray(pixels).save(file)
    example = Example(file.read_bytes(), np.array(LABELS))
    found = write_set(tmp_path / "set", "boxes", CLASSES, {"train": [example]})
    np.testing.assert_array_equal(found.scenes("train")[0].image, pixels)


def test_masks_of_a_set_are_a_voc_tree_with_its_classes(instances):
    image, labels, masks = instances.scenes("train")[0]
    assert image.shape == (20, 40, 3)
    np.testing.assert_array_equal(labels, np.float32(LABELS))
    np.testing.assert_array_equal(masks, [numbers() == 1, numbers() == 2])
    assert instances.scenes("train")[1].labels.shape == (0, 6)
    _, rows, shapes = instances.instances("train", side=20)[0]
    np.testing.assert_array_equal(rows[:, :6], np.float32(LABELS))
    np.testing.assert_array_equal(shapes[1], (numbers() == 2)[:, 1::2])
    _, kinds = instances.segmentation("train", (20, 40), void=255).image(0)
    expected = np.array([0, 3, 1, *[0] * 252, 255])[numbers()]  # the background is 0
    np.testing.assert_array_equal(kinds, expected)


def test_class_names_with_equal_letters_are_different_classes(tmp_path):
    """VOC's names may differ in spaces and signs, but not if a set has both."""
    labels = np.array([(kind, 0, 0, 1, 1, 0) for kind in range(4)])
    names = ["class 1", "class 2", "c", "c++"]
    example = Example(picture(), labels, np.zeros((20, 40), np.uint8))
    found = write_set(tmp_path / "set", "instances", names, {"train": [example]})
    assert found.scenes("train")[0].labels[:, 0].tolist() == [0, 1, 2, 3]


def test_box_below_a_pixel_has_one_pixel_in_a_voc_tree(tmp_path):
    labels = np.array([(0, 0.499, 0.99, 0.5, 1, 0), (0, 0.99, 0, 1, 0.01, 0)])
    example = Example(picture(), labels, np.zeros((20, 40), np.uint8))
    found = write_set(tmp_path / "set", "instances", CLASSES, {"train": [example]})
    boxes = found.scenes("train")[0].labels[:, 1:5] * (40, 20, 40, 20)
    np.testing.assert_allclose(boxes, [(20, 19, 21, 20), (39, 0, 40, 1)], atol=1e-4)


def test_numbers_of_objects_win_over_their_boxes(tmp_path):
    """Each box is that of the other mask: the places in the set decide."""
    example = examples(True)[0]
    example.labels[:, 1:5] = example.labels[::-1, 1:5].copy()
    found = write_set(tmp_path / "set", "instances", CLASSES, {"train": [example]})
    _, _, masks = found.scenes("train")[0]
    np.testing.assert_array_equal(masks, [numbers() == 1, numbers() == 2])


def test_folder_is_there_only_after_the_last_image(tmp_path):
    def broken():
        yield examples()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "deep" / "set", "boxes", CLASSES, {"train": broken()})
    assert list((tmp_path / "deep").iterdir()) == []


def test_image_that_is_no_example_is_refused(tmp_path):
    with pytest.raises(TypeError, match="splits: expected images as Example, got ndarray"):
        write_set(tmp_path / "set", "boxes", CLASSES, {"train": [np.zeros((4, 4, 3))]})


def test_set_is_replaced_only_as_asked(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    write_set(path, "boxes", CLASSES, {"train": examples()})
    with pytest.raises(FileExistsError, match=r"got a set, which overwrite \(--overwrite\) re"):
        write_set(path, "boxes", ["a"], {"train": []})
    with pytest.raises(FileExistsError, match="expected no folder, or an empty one, got a file"):
        write_set(path / "set.json", "boxes", ["a"], {"train": []})
    new = write_set(path, "boxes", ["a"], {"train": []}, overwrite=True)
    assert read_set(path) == new
    (path / "set.json").unlink()
    with pytest.raises(FileExistsError, match="set: expected a set, or no folder, got files"):
        write_set(path, "boxes", CLASSES, {"train": []}, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("failing", [("new",), ("new", "old")])
def test_previous_set_is_there_after_a_failed_rename(boxes, tmp_path, monkeypatch, failing):
    """The rename of the new folder fails after that of the previous one, or its way back too."""
    path, rename = tmp_path / "set", os.replace
    write_set(path, "boxes", CLASSES, {"train": examples()})

    def replace(source, target):
        if str(target) == str(path) and source.name in failing:
            raise OSError("no space")
        rename(source, target)

    monkeypatch.setattr("cvops._files.os.replace", replace)
    with pytest.raises(OSError, match="no space"):
        write_set(path, "boxes", ["a"], {"train": []}, overwrite=True)
    (left,) = tmp_path.iterdir()
    assert read_set(left if left == path else left / "old").classes == tuple(CLASSES)
    assert (left == path) == (failing == ("new",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "cvops set 2"}, "expected the format 'cvops set 1', got 'cvops set 2'"),
        ({"kind": "circles"}, "kind: expected one of .*, got 'circles'"),
        ({"classes": "bee"}, "classes: expected a list of names, got 'bee'"),
        ({"classes": ["a", "b\x07"]}, r"expected printable names without margins, got 'b\\x07'"),
        ({"classes": [" a"]}, "expected printable names without margins, got ' a'"),
        ({"classes": ["a", ""]}, "classes: expected one name or more"),
        ({"classes": ["a", "a"]}, r"expected different names, got \['a'\] more than once"),
        ({"splits": {"../train": {"images": 1, "objects": 1}}}, "expected a name such as 'train'"),
        ({"splits": {"train": {"images": 1}}}, "not the description of a set: 'objects'"),
    ],
)
def test_other_description_is_rejected(boxes, tmp_path, change, message):
    about = json.loads((boxes.path / "set.json").read_text("utf-8"))
    (tmp_path / "set.json").write_text(json.dumps(about | change))
    with pytest.raises(ValueError, match=rf"set\.json: .*{message}"):
        read_set(tmp_path)


def test_missing_file_of_a_set_is_reported(boxes, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"set\.json: no such file; `cvops data` writes"):
        read_set(tmp_path)
    (tmp_path / "set.json").write_text((boxes.path / "set.json").read_text("utf-8"), "utf-8")
    with pytest.raises(FileNotFoundError, match=r"train\.rec: no such file, but .* has 'train'"):
        read_set(tmp_path)
    (tmp_path / "set.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"set\.json: not the description of a set"):
        read_set(tmp_path)


def test_split_or_kind_that_is_not_there_is_rejected(boxes, instances):
    with pytest.raises(ValueError, match=r"split: expected one of \['train', 'val'\], got 'test'"):
        boxes.scenes("test")
    with pytest.raises(ValueError, match="expected a set of kind instances or segmentation, got b"):
        boxes.segmentation("train", (8, 8))
    with pytest.raises(ValueError, match="expected a set of kind boxes, got instances"):
        instances.record("train")


@pytest.mark.parametrize(
    ("kind", "example", "message"),
    [
        (
            "boxes",
            Example(picture(), [(3, 0, 0, 1, 1, 0)], None, "x"),
            "x: expected classes 0 to 2",
        ),
        ("boxes", Example(picture(), [(0, 0, 0, 1.1, 1, 0)]), "expected boxes in the image"),
        ("boxes", Example(picture(), [(0, 0.5, 0, 0.5, 1, 0)]), "expected boxes in the image"),
        ("boxes", Example(picture(), [(0, 0, 0, np.nan, 1, 0)]), "finite numbers"),
        ("instances", Example(picture(), LABELS), r"uint8 \(20, 40\), got None"),
        ("instances", Example(picture(), LABELS, numbers()[1:]), r"got \(\(19, 40\), 'uint8'\)"),
        ("instances", Example(picture(), LABELS[:1], numbers()), "of 1 objects, got number 2"),
        ("instances", Example(picture(), LABELS[:1] * 255, numbers()), "at most 254 objects"),
    ],
)
def test_wrong_example_is_rejected(tmp_path, kind, example, message):
    with pytest.raises(ValueError, match=message):
        write_set(tmp_path / "set", kind, CLASSES, {"train": [example]})
    assert list(tmp_path.iterdir()) == []


def test_random_boxes_of_both_kinds_are_those_of_the_examples(tmp_path):
    """Boxes of whole pixels survive both forms."""
    rng = random.Random(0)
    labels = []
    for _ in range(50):
        (x1, x2), (y1, y2) = (sorted(rng.sample(range(n + 1), 2)) for n in (37, 23))
        labels.append((rng.randrange(3), x1 / 37, y1 / 23, x2 / 37, y2 / 23, rng.randrange(2)))
    example = Example(picture(9, (37, 23)), np.array(labels), np.zeros((23, 37), np.uint8))
    for kind in ("boxes", "segmentation"):
        found = write_set(tmp_path / kind, kind, CLASSES, {"val": [example]})
        np.testing.assert_allclose(found.scenes("val")[0].labels, labels, atol=1e-6)
    assert image_size(next((tmp_path / "segmentation" / "JPEGImages").iterdir())) == (23, 37)
