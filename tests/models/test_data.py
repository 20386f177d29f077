"""The detection data: drawn scenes, record files, batches."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import io
import pickle
import random

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL")

from image_cases import save_on_its_side
from PIL import Image
from record_cases import BEE, FROG, SIDE, write_records

from cvops import data

# --- scenes ---------------------------------------------------------------------------------------


def test_splits_share_no_photograph():
    assert not set(data.TRAIN_PHOTOS) & set(data.TEST_PHOTOS)
    # These two photographs show the same scene.
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(data.TRAIN_PHOTOS)


@pytest.mark.parametrize("name", data.TRAIN_PHOTOS + data.TEST_PHOTOS)
def test_photograph_is_in_the_wheel(name):
    photo = data.photograph(name)
    assert photo.mode == "RGB"
    assert min(photo.size) >= 100


def test_name_that_is_no_photograph_is_an_error_with_the_list_of_names(tmp_path):
    message = "^none.png: no photograph of scikit-image; names are in cvops.data.TRAIN_PHOTOS"
    with pytest.raises(FileNotFoundError, match=message):
        data.photograph("none.png")
    with pytest.raises(FileNotFoundError, match=r"no/some\.rec'$"):
        data.write_record(tmp_path / "no/some.rec", data.TRAIN_PHOTOS, 1, 0)


def test_box_of_a_pasted_sprite_is_tight():
    """The opaque part is from (3, 2) to (15, 7). The sprite is pasted at (10, 20)."""
    sprite = Image.new("RGBA", (20, 10))
    sprite.paste("red", (3, 2, 15, 7))
    image = Image.new("RGB", (64, 64), "white")
    assert data.paste(image, sprite, 10, 20) == (13, 22, 25, 27)
    red = np.all(np.asarray(image) == (255, 0, 0), axis=2)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (13, 22, 25, 27)


def test_scene_has_one_to_four_objects_inside_the_image():
    photo = data.photograph("coffee.png")
    seen = set()
    for seed in range(20):
        image, labels = data.scene(photo, random.Random(seed), SIDE)
        assert image.size == (SIDE, SIDE)
        assert labels.dtype == np.float32
        assert 1 <= len(labels) <= 4
        assert (labels[:, 1:] >= 0).all()
        assert (labels[:, 1:] <= 1).all()
        assert (labels[:, 3:] - labels[:, 1:3] > 0.1).all()
        seen |= set(labels[:, 0])
    assert seen == {0, 1}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "some.rec"
    data.write_record(path, data.TEST_PHOTOS, count=5, seed=3, side=SIDE)
    return path


@pytest.mark.parametrize("name", data.CLASSES)
def test_scene_has_the_given_classes_and_number(name):
    photo = data.photograph("chelsea.png")
    for seed in range(8):
        _, labels = data.scene(photo, random.Random(seed), 64, most=1, classes=(name,))
        assert labels.shape == (1, 5)
        assert labels[0, 0] == 0
    with pytest.raises(ValueError, match=r"classes: expected one of \['bee', 'frog'\], got 'dog'"):
        data.scene(photo, random.Random(0), 64, classes=("dog",))
    with pytest.raises(ValueError, match="classes: expected one name or more, got none"):
        data.scene(photo, random.Random(0), 64, classes=())


def test_record_has_the_drawn_scenes(record):
    rng = random.Random(3)
    photos = [data.photograph(name) for name in data.TEST_PHOTOS]
    scenes = data.read_record(record)
    assert len(scenes) == 5
    for number, (image, labels) in enumerate(scenes):
        drawn, expected = data.scene(photos[number % len(photos)], rng, SIDE)
        np.testing.assert_array_equal(labels, expected)
        assert np.abs(np.subtract(image, drawn, dtype=float)).mean() < 10  # JPEG changes pixels


def test_records_of_equal_seeds_have_equal_bytes(record, tmp_path):
    data.write_record(tmp_path / "again.rec", data.TEST_PHOTOS, count=5, seed=3, side=SIDE)
    assert (tmp_path / "again.rec").read_bytes() == record.read_bytes()
    assert (tmp_path / "again.idx").read_text() == record.with_suffix(".idx").read_text()


def test_iterator_gives_the_images_and_labels_of_the_record(record):
    (batch,) = data.iterator(record, batch_size=5, side=SIDE)
    pixels, labels = batch.data[0].asnumpy(), batch.label[0].asnumpy()
    assert pixels.shape == (5, 3, SIDE, SIDE)
    assert pixels.max() > 100  # of 255
    for rows, (_, expected) in zip(labels, data.read_record(record)):
        np.testing.assert_array_equal(rows[: len(expected)], expected)
        assert (rows[len(expected) :] == -1).all()


def test_record_data_set_reads_an_item_at_its_access(record, tmp_path):
    """The items are those of the record, also in worker processes; a damaged one is named."""
    dataset = data.RecordDataset(record)
    expected = data.read_record(record)
    assert len(dataset) == 5
    for i, (image, labels) in enumerate(expected):
        assert dataset[i][0].tobytes() == image.tobytes()
        np.testing.assert_array_equal(dataset[i][1], labels)
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index: expected one of 5 images, got {index}"):
            dataset[index]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[4][0].tobytes() == expected[4][0].tobytes()
    path = write_records(tmp_path / "bad.rec", [[2, 5, *BEE], [2, 5, 0]])
    damaged = data.RecordDataset(path)
    assert len(damaged[0][1]) == 1
    with pytest.raises(ValueError, match=r"bad\.rec: record 1: expected a header"):
        damaged[1]
    path.with_suffix(".idx").unlink()
    with pytest.raises(FileNotFoundError, match=r"bad\.idx: no such file"):
        data.RecordDataset(path)


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([2, 5, *BEE, *FROG], [BEE, FROG]),
        ([2, 6, *BEE, 1, *FROG, 0], [(*BEE, 1), (*FROG, 0)]),  # with VOC's "difficult" flag
        ([4, 5, 640, 480, *BEE], [BEE]),  # GluonCV's header has the width and height of the image
        ([2, 5, *BEE, -1, -1, -1, -1, -1], [BEE]),
        ([2, 5, 1, 0.5, 0.5, 0.5, 0.6, *BEE], [BEE]),  # an empty box
    ],
    ids=["two numbers", "difficult", "four numbers", "padding", "empty box"],
)
def test_header_of_a_record_is_read(tmp_path, label, expected):
    path = write_records(tmp_path / "some.rec", [label])
    ((image, objects),) = data.read_record(path)
    assert image.size == (SIDE, SIDE)
    np.testing.assert_array_equal(objects, np.array(expected, np.float32))
    (batch,) = data.iterator(path, batch_size=1, side=SIDE)
    np.testing.assert_array_equal(batch.label[0].asnumpy()[0], objects)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3.0, r"expected a detection label .*, got \[3.0\]; im2rec writes it with --pack-label"),
        ([2, 5, *BEE[:4]], "expected a header of .*, got 6 numbers for header width 2, object wid"),
        ([2, 4, *BEE[:4]], "expected a header of .* width 2, object width 4"),
        ([1, 5, *BEE], "expected a header of .* width 1, object width 5"),
        ([2, 0, *BEE], "expected a header of .* width 2, object width 0"),
        ([2.5, 5, *BEE], "expected a header of .* width 2.5, object width 5"),
        ([float("nan"), 5, *BEE], "expected a header of .* width nan, object width 5"),
        ([*BEE], "expected a header of .* width 0, object width 0.1"),
        ([2, 5, 0.5, *BEE[1:]], "expected whole classes and finite boxes, got "),
        ([2, 5, *BEE[:4], float("nan")], "expected whole classes and finite boxes, got "),
        (
            [2, 5, 0, 10, 20, 50, 60],
            r"expected boxes in fractions .*, got \[10.0, 20.0, 50.0",
        ),
    ],
    ids=[
        *("one number", "part of an object", "object width 4", "header width 1", "object width 0"),
        *("header width 2.5", "header width nan", "no header", "class 0.5", "corner nan", "pixels"),
    ],
)
def test_label_that_is_not_for_detection_is_rejected(tmp_path, label, message):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], label])
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        data.read_record(path)
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        data.iterator(path, batch_size=1, side=SIDE)


def test_objects_of_two_widths_are_rejected_in_batches(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], [2, 6, *BEE, 0]])
    assert [objects.shape for _, objects in data.read_record(path)] == [(1, 5), (1, 6)]
    with pytest.raises(ValueError, match=r"record 1: expected objects of one width, got {5, 6}"):
        data.iterator(path, batch_size=2, side=SIDE)


@pytest.mark.parametrize("augment", [False, True], ids=["plain", "augmented"])
def test_image_without_objects_is_in_a_batch(tmp_path, augment):
    random.seed(0)
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE, *FROG], [2, 5], [2, 5, *FROG]])
    assert [len(objects) for _, objects in data.read_record(path)] == [2, 0, 1]
    batches = data.iterator(path, batch_size=3, side=SIDE, augment=augment)
    for _ in range(4):  # some are mirrored
        batches.reset()
        (batch,) = batches
        assert batch.pad == 0
        labels = batch.label[0].asnumpy()
        assert labels.shape == (3, 2, 5)
        assert sorted((rows[:, 0] >= 0).sum() for rows in labels) == [0, 1, 2]
        assert (labels[labels[:, :, 0] < 0] == -1).all()


def test_batch_without_objects_has_padded_labels(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5]] * 3)
    (batch,) = data.iterator(path, batch_size=3, side=SIDE)
    assert batch.label[0].shape == (3, 1, 5)
    assert (batch.label[0].asnumpy() == -1).all()


def test_image_of_a_record_is_turned_by_its_exif_orientation(tmp_path):
    """The left half of the upright scene is white."""
    scene = Image.new("RGB", (SIDE, SIDE))
    scene.paste("white", (0, 0, SIDE // 2, SIDE))
    encoded = io.BytesIO()
    save_on_its_side(encoded, scene, "PNG")
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]], encoded.getvalue())
    ((image, _),) = data.read_record(path)
    np.testing.assert_array_equal(image, scene)
    (batch,) = data.iterator(path, batch_size=1, side=SIDE)
    np.testing.assert_array_equal(batch.data[0].asnumpy()[0].transpose(1, 2, 0), scene)


def test_damaged_image_of_a_record_is_rejected(tmp_path):
    label = [2, 5, *BEE]
    for encoded, message in ((b"", "an empty file"), (b"text", "not an image that can be read")):
        path = write_records(tmp_path / "some.rec", [label], encoded)
        with pytest.raises(ValueError, match=f"some.rec: record 0: {message}"):
            data.read_record(path)
        with pytest.raises(ValueError, match=f"some.rec: record 0: {message}"):
            next(data.iterator(path, batch_size=1, side=SIDE))


def test_damaged_record_file_is_rejected(tmp_path, record):
    path = tmp_path / "some.rec"
    readers = data.read_record, lambda path: data.iterator(path, batch_size=1, side=SIDE)
    for read in readers:
        with pytest.raises(FileNotFoundError, match=r"some.rec: no such file"):
            read(path)
    index = path.with_suffix(".idx")
    index.write_bytes(record.with_suffix(".idx").read_bytes())
    for content in (b"", b"text", b"no record file " * 100, record.read_bytes()[:30]):
        path.write_bytes(content)
        for read in readers:
            with pytest.raises(ValueError, match=r"some.rec: record 0: damaged, or not a record"):
                read(path)
    path.write_bytes(record.read_bytes())
    for content in (b"a b", b"0", b"0\t-1", b"0\t%d" % 2**62, b"0\t0\n\n", b"\xff"):
        index.write_bytes(content)
        for read in readers:
            with pytest.raises(ValueError, match=r"some.idx: not the index of a record file"):
                read(path)


def test_record_file_without_an_index_is_read_in_its_order(tmp_path):
    labels = [[2, 5, *BEE], [2, 5], [2, 5, *FROG]]
    path = write_records(tmp_path / "some.rec", labels, index=False)
    assert [len(objects) for _, objects in data.read_record(path)] == [1, 0, 1]
    batches = data.iterator(path, batch_size=2, side=SIDE)
    for _ in range(2):
        batches.reset()
        found = [(batch.label[0].asnumpy()[:, 0, 0].tolist(), batch.pad) for batch in batches]
        assert found == [([0, -1], 0), ([1, 0], 1)]
    with pytest.raises(FileNotFoundError, match=r"some.idx: no such file"):
        data.iterator(path, batch_size=1, side=SIDE, augment=True)


@pytest.mark.parametrize(
    ("label", "encoded", "end", "message"),
    [
        ([2, 5, *BEE], None, -8, "damaged, or not a record"),
        ([2, 5, 0.5], None, None, "expected a header of "),
        ([2, 5, *BEE], b"text", None, "not an image that can be read"),
    ],
    ids=["record cut off", "bad label", "bad image"],
)
def test_bad_record_without_an_index_is_rejected_with_its_number(
    tmp_path, label, encoded, end, message
):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]], index=False)
    second = write_records(tmp_path / "second.rec", [label], encoded, index=False)
    with path.open("ab") as file:
        file.write(second.read_bytes()[:end])
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        data.read_record(path)
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        list(data.iterator(path, batch_size=1, side=SIDE))


def test_record_file_without_records_gives_no_batches(tmp_path):
    path = write_records(tmp_path / "some.rec", [])
    assert data.read_record(path) == []
    with pytest.raises(ValueError, match=r"some.rec: expected one record or more, got none"):
        data.iterator(path, batch_size=1, side=SIDE)


def test_augmented_batches_of_equal_seeds_are_equal(record):
    def first():
        random.seed(5)
        return next(iter(data.iterator(record, 5, SIDE, augment=True))).data[0].asnumpy()

    np.testing.assert_array_equal(first(), first())
