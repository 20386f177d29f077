"""Folders of images, one per class, and the made set."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from classification_cases import gray, write_folders
from image_cases import images_and_pixels
from PIL import Image

from cvops import classification
from cvops._mxnet import mxnet
from cvops.classification import ImageFolderDataset, make_image_folders, read_image_folders

mx = mxnet()


def test_images_have_the_class_of_their_folder(tmp_path):
    images = {"b/2.png": gray(2), "a/1.PNG": gray(1), "b/0.jpeg": gray(0), "a/.hidden.png": gray(9)}
    write_folders(tmp_path, images)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("")
    dataset = ImageFolderDataset(tmp_path)
    assert dataset.synsets == ["a", "b"]
    assert len(dataset) == 3
    items = [(int(image.asnumpy().max()), label) for image, label in dataset]
    assert items == [(1, 0), (0, 1), (2, 1)]
    image, _ = dataset[0]
    assert (type(image), image.dtype, image.shape) == (mx.nd.NDArray, np.uint8, (30, 40, 3))


def test_data_set_equals_gluons(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("x/0.png", "x/1.png", "y/0.png"):
        image = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        write_folders(tmp_path, {name: image})
    ours, theirs = (
        cls(str(tmp_path)) for cls in (ImageFolderDataset, mx.gluon.data.vision.ImageFolderDataset)
    )
    assert (ours.synsets, ours.items) == (theirs.synsets, theirs.items)
    for (image, label), (expected, expected_label) in zip(ours, theirs):
        np.testing.assert_array_equal(image.asnumpy(), expected.asnumpy())
        assert label == expected_label
    doubled = ImageFolderDataset(tmp_path, lambda image, label: (image, 2 * label))
    assert doubled[2][1] == 2


def test_images_of_all_modes_become_upright_rgb(tmp_path):
    for number, (image, pixels) in enumerate(images_and_pixels()):
        path = tmp_path / "all" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path, exif=image.getexif())
        found, _ = ImageFolderDataset(tmp_path)[number]
        np.testing.assert_array_equal(found.asnumpy(), pixels)


def test_folders_without_images_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        ImageFolderDataset(tmp_path / "none")
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}: expected a folder for each class")
    ):
        ImageFolderDataset(tmp_path)
    write_folders(tmp_path, {"a/0.png": gray(0)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected images, \.jpg, \.jpeg, \.png, got none"):
        ImageFolderDataset(tmp_path)


def test_damaged_image_is_named_at_its_access(tmp_path):
    write_folders(tmp_path, {"a/0.png": gray(0)})
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    dataset = ImageFolderDataset(tmp_path)
    assert dataset[0][1] == 0
    with pytest.raises(ValueError, match=r"a/1\.png: not an image that can be read"):
        dataset[1]


def test_train_and_test_have_the_same_classes(tmp_path):
    write_folders(tmp_path, {"train/a/0.png": gray(0), "test/b/0.png": gray(0)})
    with pytest.raises(ValueError, match=r"test: expected the classes of train, \['a'\], got"):
        read_image_folders(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none/train: no such folder"):
        read_image_folders(tmp_path / "none")


def test_loader_transforms_images_of_several_sizes(tmp_path):
    images = {"train/a/0.png": gray(1), "train/b/0.png": gray(2, (20, 50)), "test/a/0.png": gray(0)}
    write_folders(tmp_path, {**images, "test/b/0.png": gray(0, (1, 1))})
    for is_train, augs in zip((True, False), classification.finetune_augs(28)):
        loader = classification.load_image_folders(tmp_path, is_train, augs, 2)
        ((batch, labels),) = loader
        assert batch.shape == (2, 3, 28, 28)
        assert sorted(labels.asnumpy()) == [0, 1]


def test_made_set_has_the_layout_of_the_hot_dogs(tmp_path):
    root = make_image_folders(tmp_path / "0", ("frog", "cat"), train=5, test=4, side=32)
    train, test = read_image_folders(root)
    assert train.synsets == ["cat", "frog"]
    assert [label for _, label in train.items] == [0, 0, 1, 1, 1]
    assert [label for _, label in test.items] == [0, 0, 1, 1]
    assert train[0][0].shape == (32, 32, 3)
    make_image_folders(root, ("frog", "cat"), train=5, test=4, side=32)  # once more
    other = make_image_folders(tmp_path / "1", ("frog", "cat"), train=5, test=4, seed=1, side=32)
    pixels = [[image.asnumpy() for image, _ in part] for part in read_image_folders(other)]
    assert not np.array_equal(pixels[0][0], train[0][0].asnumpy())
    np.testing.assert_array_equal(pixels[1], [image.asnumpy() for image, _ in test])
    with pytest.raises(FileExistsError, match=r"train/frog/\d+\.png: expected an empty folder"):
        make_image_folders(root, ("bee", "cat"), train=5, test=4, side=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("bee",)}, r"classes: expected two different names or more, got \['bee'\]"),
        ({"classes": ("bee", "bee")}, "classes: expected two different names or more"),
        ({"classes": ("bee", "dog")}, "classes: expected one of .*, got 'dog'"),
        ({"train": 1}, "train: expected"),
        ({"side": 15}, "side: expected"),
    ],
)
def test_bad_arguments_of_the_made_set_are_rejected(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_image_folders(tmp_path, **options)
