"""The data, the metrics and the commands of the demo, on a small scale."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import importlib.util
import io
import json
import math
import random
import re

import numpy as np
import pytest

NEEDS = ("mxnet", "skimage", "pycocotools", "PIL", "tqdm")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"no {', '.join(MISSING)} here", allow_module_level=True)

from PIL import Image

from cvops import checkpoint, cli, data, demo, metrics
from cvops._mxnet import mxnet

mx = mxnet()
SIDE = 64  # of the images here: a sixteenth of the work


@pytest.fixture(scope="module")
def operators():
    """Skips where the operators for MXNet cannot be built."""
    try:
        import cvops.mxnet  # noqa: F401
    except ImportError as error:
        pytest.skip(str(error))


# --- data -----------------------------------------------------------------------------------------


def test_the_splits_share_no_photograph():
    assert not set(data.TRAIN_PHOTOS) & set(data.TEST_PHOTOS)
    # The two of the pair show the same scene.
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(data.TRAIN_PHOTOS)


@pytest.mark.parametrize("name", data.TRAIN_PHOTOS + data.TEST_PHOTOS)
def test_every_photograph_is_in_the_wheel(name):
    photo = data.photograph(name)
    assert photo.mode == "RGB"
    assert min(photo.size) >= 100


def test_box_is_tight():
    """A solid part from (3, 2) to (15, 7), pasted at (10, 20)."""
    sprite = Image.new("RGBA", (20, 10))
    sprite.paste("red", (3, 2, 15, 7))
    image = Image.new("RGB", (64, 64), "white")
    assert data.paste(image, sprite, 10, 20) == (13, 22, 25, 27)
    red = np.all(np.asarray(image) == (255, 0, 0), axis=2)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (13, 22, 25, 27)


def test_scene():
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


def test_record_holds_what_was_drawn(record):
    rng = random.Random(3)
    photos = [data.photograph(name) for name in data.TEST_PHOTOS]
    scenes = data.read_record(record)
    assert len(scenes) == 5
    for number, (image, labels) in enumerate(scenes):
        drawn, expected = data.scene(photos[number % len(photos)], rng, SIDE)
        np.testing.assert_array_equal(labels, expected)
        assert np.abs(np.subtract(image, drawn, dtype=float)).mean() < 10  # JPEG


def test_record_is_the_same_again(record, tmp_path):
    data.write_record(tmp_path / "again.rec", data.TEST_PHOTOS, count=5, seed=3, side=SIDE)
    assert (tmp_path / "again.rec").read_bytes() == record.read_bytes()
    assert (tmp_path / "again.idx").read_text() == record.with_suffix(".idx").read_text()


def test_iterator_reads_the_record(record):
    (batch,) = data.iterator(record, batch_size=5, side=SIDE)
    pixels, labels = batch.data[0].asnumpy(), batch.label[0].asnumpy()
    assert pixels.shape == (5, 3, SIDE, SIDE)
    assert pixels.max() > 100  # of 255
    for rows, (_, expected) in zip(labels, data.read_record(record)):
        np.testing.assert_array_equal(rows[: len(expected)], expected)
        assert (rows[len(expected) :] == -1).all()


def write_records(path, labels, encoded=None, index=True):
    """A record file of these labels as they are, on gray images or on ``encoded``."""
    if encoded is None:
        content = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), "gray").save(content, "PNG")
        encoded = content.getvalue()
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for number, label in enumerate(labels):
        header = mx.recordio.IRHeader(0, label, number, 0)
        record.write_idx(number, mx.recordio.pack(header, encoded))
    record.close()
    if not index:
        path.with_suffix(".idx").unlink()
    return path


BEE, FROG = (0, 0.1, 0.2, 0.5, 0.6), (1, 0.25, 0.25, 1, 0.75)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([2, 5, *BEE, *FROG], [BEE, FROG]),
        ([2, 6, *BEE, 1, *FROG, 0], [(*BEE, 1), (*FROG, 0)]),  # VOC's: the last is "difficult"
        ([4, 5, 640, 480, *BEE], [BEE]),  # GluonCV's header has the width and height too
        ([2, 5, *BEE, -1, -1, -1, -1, -1], [BEE]),
        ([2, 5, 1, 0.5, 0.5, 0.5, 0.6, *BEE], [BEE]),  # an empty box
    ],
    ids=["two numbers", "difficult", "four numbers", "rows of -1", "empty box"],
)
def test_headers_of_records_are_read(tmp_path, label, expected):
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
        *("header width 2.5", "header width nan", "no header", "class 0.5", "nan", "pixels"),
    ],
)
def test_labels_that_are_not_of_detection_are_refused(tmp_path, label, message):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], label])
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        data.read_record(path)
    with pytest.raises(ValueError, match=f"some.rec: record 1: {message}"):
        data.iterator(path, batch_size=1, side=SIDE)


def test_objects_of_two_widths_are_refused_in_batches(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], [2, 6, *BEE, 0]])
    assert [objects.shape for _, objects in data.read_record(path)] == [(1, 5), (1, 6)]
    with pytest.raises(ValueError, match=r"record 1: expected objects of one width, got {5, 6}"):
        data.iterator(path, batch_size=2, side=SIDE)


@pytest.mark.parametrize("augment", [False, True], ids=["plain", "augmented"])
def test_images_without_objects_come_in_batches(tmp_path, augment):
    random.seed(0)
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE, *FROG], [2, 5], [2, 5, *FROG]])
    assert [len(objects) for _, objects in data.read_record(path)] == [2, 0, 1]
    batches = data.iterator(path, batch_size=3, side=SIDE, augment=augment)
    for _ in range(4):  # mirrored or not
        batches.reset()
        (batch,) = batches
        assert batch.pad == 0
        labels = batch.label[0].asnumpy()
        assert labels.shape == (3, 2, 5)
        assert sorted((rows[:, 0] >= 0).sum() for rows in labels) == [0, 1, 2]
        assert (labels[labels[:, :, 0] < 0] == -1).all()


def test_a_record_of_images_without_objects_alone(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5]] * 3)
    (batch,) = data.iterator(path, batch_size=3, side=SIDE)
    assert batch.label[0].shape == (3, 1, 5)
    assert (batch.label[0].asnumpy() == -1).all()


def test_images_of_records_are_read_by_the_rules(tmp_path):
    """A photograph on its side: the left half of the scene is white."""
    scene = Image.new("RGB", (SIDE, SIDE))
    scene.paste("white", (0, 0, SIDE // 2, SIDE))
    exif, encoded = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    scene.transpose(Image.Transpose.ROTATE_90).save(encoded, "PNG", exif=exif)
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE]], encoded.getvalue())
    ((image, _),) = data.read_record(path)
    np.testing.assert_array_equal(image, scene)
    (batch,) = data.iterator(path, batch_size=1, side=SIDE)
    np.testing.assert_array_equal(batch.data[0].asnumpy()[0].transpose(1, 2, 0), scene)


def test_damaged_images_of_records_are_refused(tmp_path, record):
    label = [2, 5, *BEE]
    for encoded, message in ((b"", "an empty file"), (b"text", "not an image that can be read")):
        path = write_records(tmp_path / "some.rec", [label], encoded)
        with pytest.raises(ValueError, match=f"some.rec: record 0: {message}"):
            data.read_record(path)
        with pytest.raises(ValueError, match=f"some.rec: record 0: {message}"):
            next(data.iterator(path, batch_size=1, side=SIDE))


def test_damaged_record_files_are_refused(tmp_path, record):
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
    for content in ("a b", "0"):
        index.write_text(content)
        for read in readers:
            with pytest.raises(ValueError, match=r"some.idx: not the index of a record file"):
                read(path)


def test_records_without_an_index(tmp_path):
    path = write_records(tmp_path / "some.rec", [[2, 5, *BEE], [2, 5]], index=False)
    assert [len(objects) for _, objects in data.read_record(path)] == [1, 0]
    with pytest.raises(FileNotFoundError, match=r"some.idx: no such file"):
        data.iterator(path, batch_size=1, side=SIDE)


def test_an_empty_record_file_is_refused_in_batches(tmp_path):
    path = write_records(tmp_path / "some.rec", [])
    assert data.read_record(path) == []
    with pytest.raises(ValueError, match=r"some.rec: expected one record or more, got none"):
        data.iterator(path, batch_size=1, side=SIDE)


def test_augmented_iterator_is_seeded(record):
    def first():
        random.seed(5)
        return next(iter(data.iterator(record, 5, SIDE, augment=True))).data[0].asnumpy()

    np.testing.assert_array_equal(first(), first())


# --- metrics --------------------------------------------------------------------------------------

BOX, FAR = (0.0, 0.0, 0.5, 0.5), (0.6, 0.6, 1.0, 1.0)


def rows(*of):
    return np.array(of, np.float32)


@pytest.mark.parametrize(
    ("detections", "labels", "expected"),
    [
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX))], 1),
        ([rows((0, 0.9, *FAR))], [rows((0, *BOX))], 0),
        # Overlap of 0.4 x 0.5 over 0.5 x 0.5: 0.8.
        ([rows((0, 0.9, 0, 0, 0.4, 0.5))], [rows((0, *BOX))], 1),
        # Of 0.2 x 0.5 over 0.5 x 0.5: 0.4.
        ([rows((0, 0.9, 0, 0, 0.2, 0.5))], [rows((0, *BOX))], 0),
        ([rows((0, 0.9, *BOX), (-1, 0.8, *FAR))], [rows((0, *BOX), (-1,) * 5)], 1),
        # Found once and missed once: 51 of the 101 recalls are reached.
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX), (0, *FAR))], 51 / 101),
        # Right, wrong, right: precision is 1 up to a recall of a half, then 2/3.
        (
            [rows((0, 0.9, *BOX)), rows((0, 0.8, *FAR), (0, 0.7, *BOX))],
            [rows((0, *BOX)), rows((0, *BOX))],
            (51 + 50 * 2 / 3) / 101,
        ),
        # The second of two detections of one box is wrong, but comes last.
        ([rows((0, 0.9, *BOX), (0, 0.8, *BOX))], [rows((0, *BOX))], 1),
        ([rows().reshape(0, 6)], [rows((0, *BOX))], 0),
    ],
    ids=["hit", "miss", "iou 0.8", "iou 0.4", "filled up", "half", "two thirds", "twice", "none"],
)
def test_average_precision_by_hand(detections, labels, expected):
    value = metrics.average_precision(detections, labels, num_classes=1)
    np.testing.assert_allclose(value, [expected], rtol=1e-12)


def test_average_precision_of_each_class():
    detections = [rows((0, 0.9, *BOX), (1, 0.9, *BOX))]
    value = metrics.average_precision(detections, [rows((0, *BOX), (1, *FAR))], num_classes=3)
    np.testing.assert_allclose(value, [1, 0, np.nan], rtol=1e-12)


METHODS = ("coco", "area", "11-point")


@pytest.mark.parametrize(
    ("detections", "labels", "area", "eleven"),
    [
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX))], 1, 1),
        ([rows((0, 0.9, *FAR))], [rows((0, *BOX))], 0, 0),
        ([rows().reshape(0, 6)], [rows((0, *BOX))], 0, 0),
        # Found once and missed once: recalls 0 to 0.5 are reached, 6 of 11.
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX), (0, *FAR))], 1 / 2, 6 / 11),
        # Right, wrong, right: precision is 1 up to a recall of a half, then 2/3.
        (
            [rows((0, 0.9, *BOX)), rows((0, 0.8, *FAR), (0, 0.7, *BOX))],
            [rows((0, *BOX)), rows((0, *BOX))],
            (1 + 2 / 3) / 2,
            (6 + 5 * 2 / 3) / 11,
        ),
        # 3 of 10 found: the recall 0.3 is reached.
        (
            [rows((0, 0.9, *BOX))] * 3 + [rows().reshape(0, 6)] * 7,
            [rows((0, *BOX))] * 10,
            3 / 10,
            4 / 11,
        ),
        # The second detection of a box is wrong, though another box of IoU 0.8 is free.
        (
            [rows((0, 0.9, *BOX), (0, 0.8, *BOX))],
            [rows((0, *BOX), (0, 0, 0, 0.4, 0.5))],
            1 / 2,
            6 / 11,
        ),
    ],
    ids=["hit", "miss", "none", "half", "two thirds", "3 of 10", "best box"],
)
def test_average_precision_of_voc_by_hand(detections, labels, area, eleven):
    for method, expected in (("area", area), ("11-point", eleven)):
        value = metrics.average_precision(detections, labels, 2, method=method)
        np.testing.assert_allclose(value, [expected, np.nan], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [0.9, 0.1], ids=["best scores", "last scores"])
def test_difficult_objects_do_not_count(method, first):
    """Both detections of a difficult object are neither right nor wrong. Class 1 has no other."""
    plain = [rows((0, 0.5, *BOX)), rows((0, 0.4, *FAR), (0, 0.3, *BOX))]
    truths = [rows((0, *BOX, 0)), rows((0, *BOX, 0))]
    expected = metrics.average_precision(plain, [t[:, :5] for t in truths], 1, method=method)
    found = [
        np.concatenate([plain[0], rows((0, first, *FAR), (0, first, 0.6, 0.6, 1, 0.9))]),
        np.concatenate([plain[1], rows((1, first, *BOX))]),
    ]
    labels = [
        np.concatenate([truths[0], rows((0, *FAR, 1))]),
        np.concatenate([truths[1], rows((1, *FAR, 1), (-1,) * 6)]),
    ]
    value = metrics.average_precision(found, labels, 2, method=method)
    np.testing.assert_allclose(value, [*expected, np.nan], rtol=1e-12)
    # Too far from the difficult object: wrong.
    found[0] = np.concatenate([plain[0], rows((0, 0.9, 0.8, 0.6, 1, 0.75))])
    value = metrics.average_precision(found, labels, 2, method=method)
    assert value[0] < expected[0]


@pytest.mark.parametrize("method", ["area", "11-point"])
def test_a_box_of_nan_is_wrong(method):
    found, labels = rows((0, 0.9, *(np.nan,) * 4)), rows((0, *FAR, 1), (0, *BOX, 0))
    assert metrics.average_precision([found], [labels], 1, method=method) == [0]


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_average_precision_agree_roughly(method):
    """On one random set the three differ by less than 0.05, as their recalls are 0.1 apart."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.5, (40, 6, 2))
    truths = np.concatenate([np.zeros((40, 6, 1)), corners, corners + 0.3], axis=2)
    moved = truths[:, :, 1:] + rng.normal(0, 0.04, (40, 6, 4))
    found = np.concatenate([np.zeros((40, 6, 1)), rng.random((40, 6, 1)), moved], axis=2)
    coco, value = (
        metrics.average_precision(list(found), list(truths), 1, method=m)[0]
        for m in ("coco", method)
    )
    assert 0.3 < value < 0.99
    assert abs(value - coco) < 0.05


def test_average_precision_refuses_other_methods():
    with pytest.raises(ValueError, match=r"method: expected one of \['coco', 'area', '11-point'\]"):
        metrics.average_precision([], [], 1, method="voc")


def test_average_precision_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="2 images with detections, 1 with labels"):
        metrics.average_precision([rows((0, 0.9, *BOX))] * 2, [rows((0, *BOX))], 1)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "box",
    [
        *((NAN, 0, 0.5, 0.5), (NAN,) * 4, (0, 0, INF, INF), (-INF, -INF, INF, INF)),
        *((0.5, 0.5, 0, 0), (-1e200, -1e200, 1e200, 1e200)),
    ],
)
def test_a_box_without_a_finite_area_never_matches(box, method):
    for iou in (1e-9, 0.5, 1):
        found, truth = [(0, 0.9, *box)], rows((0, *BOX))
        assert metrics.average_precision([found], [truth], 1, iou, method) == [0]
    # It is wrong, and comes before the right one.
    found += [(0, 0.8, *BOX)]
    value = metrics.average_precision([found], [truth], 1, 1, method)
    assert value == pytest.approx(0.5)


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_a_class_may_have_any_numbers(method):
    found = rows((0, 0.9, *BOX), (-1, *(NAN,) * 5), (-0.5, *(INF,) * 5))
    labels = rows((0, *BOX), (-1, NAN, INF, 0, 0), (-1,) * 5)
    value = metrics.average_precision([found], [labels], 1, method=method)
    assert value == pytest.approx(1)


@pytest.mark.parametrize(
    "kind", ["lists", "float16", "float64", "int32", "torch", "mxnet", "mx.np"]
)
def test_arrays_of_every_library(kind):
    found, labels = [[[1, 9, 0, 0, 4, 4]], []], [[[1, 0, 0, 4, 4]], [[0, 0, 0, 4, 4]]]
    matrix = [[3, 1], [0, 4]]
    if kind != "lists":
        torch = pytest.importorskip("torch")
        enter = {
            "torch": lambda x: torch.tensor(x, dtype=torch.bfloat16, requires_grad=True).float(),
            "mxnet": mx.nd.array,
            "mx.np": mx.np.array,
        }.get(kind, lambda x: np.array(x, kind))
        found, labels = [enter(found[0]), []], [enter(x) for x in labels]
        matrix = enter(matrix)
    np.testing.assert_allclose(metrics.average_precision(found, labels, 2), [0, 1], rtol=1e-12)
    assert metrics.pixel_accuracy(matrix) == 7 / 8
    assert metrics.mean_iou(matrix) == (3 / 4 + 4 / 5) / 2


def test_a_batch_of_images_is_a_sequence():
    found, labels = mx.nd.array([[[0, 0.9, *BOX]]]), mx.nd.array([[[0, *BOX], [-1] * 5]])
    assert metrics.average_precision(found, labels, 1) == pytest.approx(1)


GOOD = {"detections": [rows((0, 0.9, *BOX))], "labels": [rows((0, *BOX))], "num_classes": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou": NAN}, r"iou: expected a number in \[0, 1\], got nan"),
        ({"iou": 1.5}, r"iou: expected a number in \[0, 1\], got 1.5"),
        ({"iou": -1}, r"iou: expected a number in \[0, 1\], got -1"),
        ({"iou": 0}, "iou: expected a number above 0, got 0"),
        ({"iou": True}, "iou: expected a number, got True"),
        ({"iou": [0.5]}, r"iou: expected a number, got \[0.5\]"),
        ({"num_classes": 0}, "num_classes: expected an integer in .*, got 0"),
        ({"num_classes": 2.0}, "num_classes: expected an integer, got 2.0"),
        ({"num_classes": True}, "num_classes: expected an integer, got True"),
        ({"method": "COCO"}, "method: expected one of .*, got 'COCO'"),
        ({"method": None}, "method: expected one of .*, got None"),
        ({"detections": None}, "detections: expected one array of rows for each image, got None"),
        ({"detections": "x"}, "detections: expected one array of rows for each image, got 'x'"),
        ({"labels": 3}, "labels: expected one array of rows for each image, got 3"),
        ({"labels": []}, "expected equal lengths, got 1 images with detections, 0 with labels"),
        (
            {"detections": rows((0, 0.9, *BOX))},
            r"detections\[0\]: expected shape \(n, 6\), got \(6,\)",
        ),
        ({"detections": [rows((0, *BOX))]}, r"detections\[0\]: expected shape .*, got \(1, 5\)"),
        ({"detections": [np.zeros((0, 4))]}, r"detections\[0\]: expected shape .*, got \(0, 4\)"),
        ({"labels": [rows((0, 1, 1, 1))]}, r"labels\[0\]: expected shape .* or .*, got \(1, 4\)"),
        ({"labels": [np.zeros((1, 7))]}, r"labels\[0\]: expected shape .*, got \(1, 7\)"),
        ({"labels": [[[0, 1], [0]]]}, r"labels\[0\]: expected an array of numbers, got \[\[0"),
        ({"labels": [[["0"] * 5]]}, r"labels\[0\]: expected an array of numbers, got"),
        ({"labels": [None]}, r"labels\[0\]: expected an array of numbers, got object None"),
        (
            {"labels": [np.ones((1, 5), bool)]},
            r"labels\[0\]: expected an array of numbers, got bool",
        ),
        ({"labels": [np.ones((1, 5), complex)]}, r"labels\[0\]: .* numbers, got complex128"),
        (
            {"labels": [rows((0, *BOX), (2, *BOX))]},
            r"labels\[0\]: .* classes below 2, got \[2.0.* 1",
        ),
        ({"labels": [rows((0.7, *BOX))]}, r"labels\[0\]: expected whole classes .*, got \[0.69"),
        ({"labels": [rows((NAN, *BOX))]}, r"labels\[0\]: expected whole classes .*, got \[nan"),
        ({"labels": [rows((INF, *BOX))]}, r"labels\[0\]: expected whole classes .*, got \[inf"),
        ({"labels": [rows((0, NAN, 0, 1, 1))]}, r"labels\[0\]: expected finite corners, .*, got"),
        ({"labels": [rows((0, 0, 0, INF, 1))]}, r"labels\[0\]: expected finite corners, .*, got"),
        ({"labels": [rows((0, 1, 1, 0, 0))]}, r"labels\[0\]: .* x1 <= x2, y1 <= y2, got"),
        ({"labels": [rows((0, *BOX, 2))]}, r"labels\[0\]: expected difficult flags of 0 or 1, got"),
        (
            {"labels": [rows((0, *BOX, NAN))]},
            r"labels\[0\]: expected difficult flags of 0 or 1, got",
        ),
        ({"detections": [rows((2, 0.9, *BOX))]}, r"detections\[0\]: .* classes below 2, got \[2.0"),
        ({"detections": [rows((0.7, 0.9, *BOX))]}, r"detections\[0\]: expected whole classes"),
        ({"detections": [rows((NAN, 0.9, *BOX))]}, r"detections\[0\]: expected whole classes"),
        (
            {"detections": [rows((0, NAN, *BOX))]},
            r"detections\[0\]: expected scores, got \[0.0, nan",
        ),
    ],
)
def test_average_precision_refuses(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.average_precision(**{**GOOD, **arguments})


@pytest.mark.parametrize("metric", [metrics.pixel_accuracy, metrics.mean_iou])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 2, 3]], r"matrix: expected shape \(classes, classes\), got \(1, 3\)"),
        ([[1, 2], [3]], "matrix: expected an array of numbers, got"),
        ("12", "matrix: expected an array of numbers, got"),
        (None, "matrix: expected an array of numbers, got"),
        (np.eye(2, dtype=bool), "matrix: expected an array of numbers, got bool"),
        ([[1, NAN], [0, 1]], r"matrix: expected counts of 0 or more, got nan at \(0, 1\)"),
        ([[1, 0], [INF, 1]], r"matrix: expected counts of 0 or more, got inf at \(1, 0\)"),
        ([[1, 0], [0, -1]], r"matrix: expected counts of 0 or more, got -1 at \(1, 1\)"),
    ],
)
def test_measures_of_a_matrix_refuse(metric, matrix, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metric(matrix)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((-1, 0, 0), "anchors: expected an integer in .*, got -1"),
        ((4.0, 0, 0), "anchors: expected an integer, got 4.0"),
        ((4, 5, 0), r"right: expected a number in \[0, 4\], got 5"),
        ((4, NAN, 0), r"right: expected a number in \[0, 4\], got nan"),
        ((4, 4, -1), "offset_error: expected a number in .*, got -1"),
        ((4, 4, NAN), "offset_error: expected a number in .*, got nan"),
        ((4, 4, None), "offset_error: expected a number, got None"),
    ],
)
def test_anchor_errors_refuse(batch, message):
    for add in (metrics.AnchorErrors, metrics.AnchorErrors().add):
        with pytest.raises((TypeError, ValueError), match=message):
            add(*batch)


def test_errors_of_no_anchors():
    errors = metrics.AnchorErrors()
    assert math.isnan(errors.class_error)
    assert math.isnan(errors.box_mae)


def test_anchor_errors():
    errors = metrics.AnchorErrors()
    errors.add(anchors=6, right=6, offset_error=2)
    errors.add(anchors=4, right=3, offset_error=6)
    assert errors.class_error == pytest.approx(1 / 10)
    assert errors.box_mae == pytest.approx(8 / 40)


# --- the commands ---------------------------------------------------------------------------------


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def trained(operators, tmp_path_factory):
    """The whole job, far too short to learn much."""
    folder = tmp_path_factory.mktemp("demo")
    demo.run(folder, epochs=1, train_images=8, test_images=4, batch_size=4, side=SIDE)
    return folder


def test_demo(operators, tmp_path, capsys):
    value = demo.run(tmp_path, epochs=1, train_images=8, test_images=4, batch_size=4, side=SIDE)
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"mAP@0.5: {value:.2f}"
    assert re.match(r"epoch +1: class error \d\.\d\de-\d\d, box MAE \d\.\d\de-\d\d, ", out[0])
    times = [line.split() for line in out if re.match(r"(mxnet|cvops) ", line)]
    assert [name for name, *_ in times] == ["mxnet", "cvops"]
    for _, *numbers in times:
        assert len(numbers) == 5
        assert all(float(number) > 0 for number in numbers)
    assert size_of(tmp_path / "detections.png")[0] > 4 * SIDE
    assert size_of(tmp_path / "scene.png") == (SIDE, SIDE)
    about = json.loads((tmp_path / "tiny_ssd.json").read_text())
    assert about["classes"] == list(data.CLASSES)


TINY = {"epochs": 2, "train_images": 8, "test_images": 4, "batch_size": 4, "side": SIDE}


def test_a_demo_that_was_stopped_goes_on(operators, tmp_path, capsys, monkeypatch):
    demo.run(tmp_path / "straight", **TINY)
    saved = tmp_path / "saved"
    seeds = checkpoint.seed_all

    def stop_at_the_second_epoch(seed, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        seeds(seed, epoch)

    monkeypatch.setattr(checkpoint, "seed_all", stop_at_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path / "stopped", **TINY, saved=saved)
    monkeypatch.undo()
    capsys.readouterr()
    demo.run(tmp_path / "stopped", **TINY, saved=saved)
    assert capsys.readouterr().out.startswith("epoch  2:")
    straight, stopped = (
        mx.nd.load(str(tmp_path / name / "tiny_ssd.params")) for name in ("straight", "stopped")
    )
    assert straight.keys() == stopped.keys()
    for name, values in straight.items():
        np.testing.assert_array_equal(values.asnumpy(), stopped[name].asnumpy(), err_msg=name)

    demo.run(tmp_path / "stopped", **TINY, saved=saved)  # there is nothing left to train
    assert capsys.readouterr().out.startswith("trained in ")
    message = r"saved: expected a training with .*'seed': 1.*, got .*'seed': 0"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        demo.run(tmp_path / "stopped", **TINY, seed=1, saved=saved)


def test_training_with_images_without_objects(operators, tmp_path, capsys):
    """Two of four images have none; objects have VOC's flag; the last object is difficult."""
    labels = [[2, 6, *BEE, 0], [2, 6], [2, 6, *FROG, 1], [2, 6]]
    batches = data.iterator(write_records(tmp_path / "some.rec", labels), 2, SIDE)
    net = demo.TinySSD(data.CLASSES, SIDE)
    net.initialize(mx.init.Xavier())
    errors = demo.train(net, batches, epochs=3)
    assert errors[0].anchors == 4 * 344
    # The last layers' biases alone tell most anchors from the background.
    assert errors[-1].class_error < errors[0].class_error
    precision = demo.evaluate(net, batches)
    assert 0 <= precision[0] <= 1
    assert np.isnan(precision[1])


@pytest.fixture(scope="module")
def photo(trained):
    """A photograph that is not square."""
    path = trained / "photo.png"
    data.photograph("coffee.png").resize((120, 80)).save(path)
    return path


def test_detect(trained, photo, tmp_path, capsys):
    params, output = trained / "tiny_ssd.params", tmp_path / "out.png"
    given = "--params", str(params), "--output", str(output), "--threshold", "0"
    status = cli.main(["detect", str(photo), *given])
    header, *lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert header.split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert lines
    scores = []
    for line in lines:
        name, score, *box = line.split()
        assert name in data.CLASSES
        scores.append(float(score))
        x1, y1, x2, y2 = map(float, box)
        assert 0 <= x1 <= x2 <= 120
        assert 0 <= y1 <= y2 <= 80
    assert scores == sorted(scores, reverse=True)
    assert size_of(output) == (120, 80)


def test_detect_reads_images_by_the_rules(trained, photo, tmp_path, capsys):
    """The same photograph, on its side by EXIF: the same detections, drawn upright."""
    side, output = tmp_path / "side.png", tmp_path / "out.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(side, exif=exif)
    given = "--params", str(trained / "tiny_ssd.params"), "--threshold", "0"
    printed = []
    for path in (photo, side):
        assert cli.main(["detect", str(path), *given, "--output", str(output)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert size_of(output) == (120, 80)


def test_detect_refuses(trained, photo, tmp_path, capsys):
    params = trained / "tiny_ssd.params"
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty, odd, cut = (tmp_path / name for name in ("empty.jpg", "odd.tiff", "cut.png"))
    empty.write_bytes(b"")
    cut.write_bytes(photo.read_bytes()[:1000])
    Image.fromarray(np.full((8, 8), 7, np.float32)).save(odd)
    lonely = tmp_path / "lonely.params"
    lonely.write_bytes(params.read_bytes())
    wrong = tmp_path / "wrong.params"
    mx.nd.save(str(wrong), {"weight": mx.nd.zeros((1,))})
    broken = tmp_path / "broken.params"
    broken.write_text("not parameters")
    for path in (wrong, broken):
        path.with_suffix(".json").write_bytes(params.with_suffix(".json").read_bytes())
    for arguments, message in [
        ((tmp_path / "none.png", params), "none.png: no such file"),
        ((tmp_path, params), ": a folder, not an image file"),
        ((text, params), "text.png: not an image that can be read"),
        ((empty, params), "empty.jpg: an empty file"),
        ((cut, params), "cut.png: not an image that can be read"),
        ((odd, params), "odd.tiff: expected float pixels of 0 to 1, got 7.0 to 7.0"),
        ((photo, tmp_path / "none.params"), "none.params: no such file"),
        ((photo, lonely), "lonely.json: no such file"),
        ((photo, wrong), "wrong.params: not the parameters of a TinySSD"),
        ((photo, broken), "broken.params: not the parameters of a TinySSD"),
        ((photo, params, "--output", tmp_path / "out.nothing"), "out.nothing: cannot be written"),
    ]:
        image, given, *more = map(str, arguments)
        assert cli.main(["detect", image, "--params", given, *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_demo_refuses(operators, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.endswith("file: cannot make this folder: File exists\n")
    given = "demo", "--output", str(tmp_path), "--train-images", "8"
    assert cli.main([*given, "--checkpoint", str(tmp_path / "none" / "saved")]) == 2
    assert capsys.readouterr().err.endswith("none: no such folder\n")
    assert cli.main([*given, "--checkpoint", str(tmp_path / "file")]) == 2
    assert "file: damaged, or not a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["demo"], ["detect", "image.png", "--params", "net.params"]])
def test_a_missing_compiler_is_said(command, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ImportError("a C++ compiler is needed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_open", fail)
    monkeypatch.setattr(demo, "run", fail)
    assert cli.main(command) == 2
    assert capsys.readouterr().err == "cvops: a C++ compiler is needed\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["detect"],
        ["detect", "image.png", "--params", "net.params", "--threshold", "2"],
        ["demo", "--epochs", "0"],
    ],
    ids=" ".join,
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: cvops" in capsys.readouterr().err
