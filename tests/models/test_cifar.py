"""CIFAR-10 in its two layouts, and the made set."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import os
import pickle

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from classification_cases import random_images, write_cifar10

from cvops import classification
from cvops._mxnet import mxnet
from cvops.classification import CIFAR10, CIFAR10_CLASSES, FIGURES, make_cifar10, read_cifar10

mx = mxnet()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "pickles"])
@pytest.mark.parametrize("parent", [True, False], ids=["parent folder", "folder"])
def test_both_layouts_are_read(tmp_path, binary, parent):
    folder = write_cifar10(tmp_path / f"cifar-10-batches-{'bin' if binary else 'py'}", binary)
    root = tmp_path if parent else folder
    images, labels, classes = read_cifar10(root)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    expected = [random_images(seed) for seed in range(5)]
    np.testing.assert_array_equal(images, np.concatenate([part for part, _ in expected]))
    np.testing.assert_array_equal(labels, np.concatenate([part for _, part in expected]))
    assert classes == CIFAR10_CLASSES
    images, labels, _ = read_cifar10(root, train=False)
    np.testing.assert_array_equal(images, random_images(5)[0])
    np.testing.assert_array_equal(labels, random_images(5)[1])


def test_record_has_the_class_and_three_planes(tmp_path):
    """The first record of the test batch: class 3, red 1, green 2, blue 3; red 9 at (0, 1)."""
    folder = write_cifar10(tmp_path)
    planes = np.repeat(np.array([1, 2, 3], np.uint8), 32 * 32)
    planes[1] = 9
    (folder / "test_batch.bin").write_bytes(bytes([3]) + planes.tobytes())
    images, labels, _ = read_cifar10(folder, train=False)
    assert labels.tolist() == [3]
    assert images[0, 0, :3].tolist() == [[1, 2, 3], [9, 2, 3], [1, 2, 3]]
    assert images[0, 31, 31].tolist() == [1, 2, 3]


def test_data_set_has_the_interface_of_gluons(tmp_path):
    dataset = CIFAR10(write_cifar10(tmp_path), train=True)
    images, labels = np.concatenate([random_images(seed)[0] for seed in range(5)]), dataset[:][1]
    assert len(dataset) == len(labels) == 10
    image, label = dataset[3]
    assert isinstance(image, mx.nd.NDArray)
    assert (image.dtype, label) == (np.uint8, labels[3])
    np.testing.assert_array_equal(image.asnumpy(), images[3])
    np.testing.assert_array_equal(dataset[0:4][0].asnumpy(), images[:4])
    assert [label for _, label in dataset] == labels.tolist()
    doubled = CIFAR10(tmp_path, True, lambda image, label: (image, 2 * label))
    assert doubled[3][1] == 2 * labels[3]


def test_default_folder_is_gluons(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    write_cifar10(tmp_path / "datasets" / "cifar10")
    assert len(CIFAR10(train=False)) == 2


@pytest.mark.parametrize("is_train", [True, False])
def test_loader_gives_each_image_once(tmp_path, is_train):
    dataset = CIFAR10(write_cifar10(tmp_path, count=3), is_train)
    np.random.seed(0)
    loader = classification.load_cifar10(is_train, classification.no_aug, 4, tmp_path)
    batches = [(x.asnumpy(), y.asnumpy()) for x, y in loader]
    assert [len(labels) for _, labels in batches] == [4] * (3 if is_train else 0) + [3]
    assert batches[0][0].shape[1:] == (3, 32, 32)
    found = np.concatenate([images for images, _ in batches]).transpose(0, 2, 3, 1) * 255
    expected = dataset[:][0].asnumpy()
    order = [int(np.abs(image - found).sum(axis=(1, 2, 3)).argmin()) for image in expected]
    assert sorted(order) == list(range(len(dataset)))
    assert (order == sorted(order)) is not is_train
    np.testing.assert_allclose(found[order], expected, atol=1e-4)


def replaced(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))


PIXELS = np.zeros((2, 3072), np.uint8)
BAD_BINARY = {
    "size": ("test_batch.bin", bytes(3073 + 5), "expected records of 3073 bytes, got 3078 bytes"),
    "class": (
        "test_batch.bin",
        bytes(3073) + bytes([10]) + bytes(3072),
        "expected classes 0 to 9, got 10 at image 1",
    ),
    "no images": ("test_batch.bin", b"", "expected one image or more, got none"),
    "names": ("batches.meta.txt", b"\xff\xfe", "not a list of names in UTF-8"),
    "no names": ("batches.meta.txt", b"\n\n", "expected 1 to 256 names of classes, got 0"),
    "class without a name": ("batches.meta.txt", b"one\n", "expected classes 0 to 0, got"),
}
BAD_PICKLES = {
    "list": ("test_batch", [1], "expected a dictionary, got a list"),
    "no data": ("test_batch", {"labels": [1]}, r"expected data, uint8 \(n, 3072\), got nothing"),
    "float data": (
        "test_batch",
        {"data": PIXELS.astype(np.float32), "labels": [1, 2]},
        r"expected data, uint8 \(n, 3072\), got float32 \(2, 3072\)",
    ),
    "no labels": ("test_batch", {"data": PIXELS}, "expected labels, whole numbers, got nothing"),
    "text as labels": (
        "test_batch",
        {"data": PIXELS, "labels": ["a", "b"]},
        "expected labels, whole numbers, got a list",
    ),
    "counts": (
        "test_batch",
        {"data": PIXELS, "labels": [1]},
        r"expected data of shape \(1, 3072\), as many as the labels, got \(2, 3072\)",
    ),
    "class": (
        "test_batch",
        {"data": PIXELS, "labels": [0, -1]},
        "expected classes 0 to 9, got -1 at image 1",
    ),
    "names": ("batches.meta", {"label_names": 3}, "expected label_names, a list, got a int"),
    "no pickle": ("test_batch", b"x", "not a pickle of plain values and arrays"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_damaged_records_are_rejected(tmp_path, name, content, message):
    replaced(write_cifar10(tmp_path), name, content)
    with pytest.raises(ValueError, match=message) as error:
        read_cifar10(tmp_path, train=False)
    assert str(error.value).startswith(str(tmp_path))


@pytest.mark.parametrize(("name", "content", "message"), BAD_PICKLES.values(), ids=BAD_PICKLES)
def test_damaged_pickles_are_rejected(tmp_path, name, content, message):
    replaced(write_cifar10(tmp_path, binary=False), name, content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_cifar10(tmp_path, train=False)


def test_hostile_pickle_is_rejected_and_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    replaced(write_cifar10(tmp_path, binary=False), "data_batch_2", {"data": Hostile()})
    with pytest.raises(ValueError, match=r"data_batch_2: not a pickle .* got posix\.mkdir"):
        CIFAR10(tmp_path)
    assert not (tmp_path / "made").exists()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none: expected CIFAR-10, the folder .*-bin or"):
        CIFAR10(tmp_path / "none")
    (write_cifar10(tmp_path) / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4\.bin: no such file"):
        CIFAR10(tmp_path)


def test_made_set_has_each_animal_equally_often(tmp_path):
    folder = make_cifar10(tmp_path, train=25, test=10, seed=1)
    images, labels, classes = read_cifar10(tmp_path)
    assert classes == tuple(FIGURES) == ("bee", "frog", "bird", "cat", "sheep")
    assert np.bincount(labels).tolist() == [5] * 5
    assert images.shape == (25, 32, 32, 3)
    assert images.std(axis=(1, 2)).min() > 3  # no image of one color
    assert folder == tmp_path / "cifar-10-batches-bin"
    again = make_cifar10(tmp_path / "again", train=25, test=10, seed=1)
    other = make_cifar10(tmp_path / "other", train=25, test=10, seed=2)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        content = (folder / name).read_bytes()
        assert (again / name).read_bytes() == content
        assert ((other / name).read_bytes() == content) is (name == "test_batch.bin")


def test_made_image_needs_a_known_animal(tmp_path):
    photo = classification.figure_image
    with pytest.raises(ValueError, match=r"name: expected one of \['bee', .*'sheep'\], got 'dog'"):
        photo("dog", None, None, 32)
    with pytest.raises(ValueError, match="train: expected"):
        make_cifar10(tmp_path, train=4)
