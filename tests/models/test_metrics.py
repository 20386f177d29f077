"""The metrics of detection and of segmentation."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import math

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "pycocotools")

from cvops import metrics
from cvops.metrics import _coco

BOX, FAR = (0.0, 0.0, 0.5, 0.5), (0.6, 0.6, 1.0, 1.0)
METHODS = ("coco", "area", "11-point")
NAN, INF = float("nan"), float("inf")


def rows(*values):
    return np.array(values, np.float32)


# --- average precision ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "labels", "expected"),
    [
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX))], 1),
        ([rows((0, 0.9, *FAR))], [rows((0, *BOX))], 0),
        # The IoU is 0.4 x 0.5 / (0.5 x 0.5) = 0.8.
        ([rows((0, 0.9, 0, 0, 0.4, 0.5))], [rows((0, *BOX))], 1),
        # The IoU is 0.2 x 0.5 / (0.5 x 0.5) = 0.4.
        ([rows((0, 0.9, 0, 0, 0.2, 0.5))], [rows((0, *BOX))], 0),
        ([rows((0, 0.9, *BOX), (-1, 0.8, *FAR))], [rows((0, *BOX), (-1,) * 5)], 1),
        # One object is found, one is missed: 51 of the 101 recalls are reached.
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX), (0, *FAR))], 51 / 101),
        # Right, wrong, right: the precision is 1 up to a recall of 1/2, then 2/3.
        (
            [rows((0, 0.9, *BOX)), rows((0, 0.8, *FAR), (0, 0.7, *BOX))],
            [rows((0, *BOX)), rows((0, *BOX))],
            (51 + 50 * 2 / 3) / 101,
        ),
        # The second detection of a box is wrong, but has the lowest score.
        ([rows((0, 0.9, *BOX), (0, 0.8, *BOX))], [rows((0, *BOX))], 1),
        ([rows().reshape(0, 6)], [rows((0, *BOX))], 0),
    ],
    ids=[
        "hit",
        "miss",
        "iou 0.8",
        "iou 0.4",
        "padding",
        "half",
        "two thirds",
        "twice",
        "no detection",
    ],
)
def test_average_precision_equals_the_value_by_hand(detections, labels, expected):
    value = metrics.average_precision(detections, labels, num_classes=1)
    np.testing.assert_allclose(value, [expected], rtol=1e-12)


def test_average_precision_has_one_value_for_each_class():
    detections = [rows((0, 0.9, *BOX), (1, 0.9, *BOX))]
    value = metrics.average_precision(detections, [rows((0, *BOX), (1, *FAR))], num_classes=3)
    np.testing.assert_allclose(value, [1, 0, np.nan], rtol=1e-12)


@pytest.mark.parametrize(
    ("detections", "labels", "area", "eleven"),
    [
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX))], 1, 1),
        ([rows((0, 0.9, *FAR))], [rows((0, *BOX))], 0, 0),
        ([rows().reshape(0, 6)], [rows((0, *BOX))], 0, 0),
        # One object is found, one is missed: recalls 0 to 0.5 are reached, 6 of 11.
        ([rows((0, 0.9, *BOX))], [rows((0, *BOX), (0, *FAR))], 1 / 2, 6 / 11),
        # Right, wrong, right: the precision is 1 up to a recall of 1/2, then 2/3.
        (
            [rows((0, 0.9, *BOX)), rows((0, 0.8, *FAR), (0, 0.7, *BOX))],
            [rows((0, *BOX)), rows((0, *BOX))],
            (1 + 2 / 3) / 2,
            (6 + 5 * 2 / 3) / 11,
        ),
        # 3 of 10 objects are found: the recall 0.3 is reached.
        (
            [rows((0, 0.9, *BOX))] * 3 + [rows().reshape(0, 6)] * 7,
            [rows((0, *BOX))] * 10,
            3 / 10,
            4 / 11,
        ),
        # The second detection of a box is wrong, although a box of IoU 0.8 has no detection.
        (
            [rows((0, 0.9, *BOX), (0, 0.8, *BOX))],
            [rows((0, *BOX), (0, 0, 0, 0.4, 0.5))],
            1 / 2,
            6 / 11,
        ),
    ],
    ids=["hit", "miss", "no detection", "half", "two thirds", "3 of 10", "best box"],
)
def test_average_precision_of_voc_equals_the_value_by_hand(detections, labels, area, eleven):
    for method, expected in (("area", area), ("11-point", eleven)):
        value = metrics.average_precision(detections, labels, 2, method=method)
        np.testing.assert_allclose(value, [expected, np.nan], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [0.9, 0.1], ids=["best scores", "last scores"])
def test_difficult_object_and_its_detections_do_not_count(method, first):
    """Its detections are neither right nor wrong. All objects of class 1 are difficult."""
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
    # This detection is too far from the difficult object, and therefore wrong.
    found[0] = np.concatenate([plain[0], rows((0, 0.9, 0.8, 0.6, 1, 0.75))])
    value = metrics.average_precision(found, labels, 2, method=method)
    assert value[0] < expected[0]


@pytest.mark.parametrize("method", ["area", "11-point"])
def test_detection_with_a_box_of_nan_is_wrong(method):
    found, labels = rows((0, 0.9, *(np.nan,) * 4)), rows((0, *FAR, 1), (0, *BOX, 0))
    assert metrics.average_precision([found], [labels], 1, method=method) == [0]


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_average_precision_differ_by_less_than_0_05(method):
    """On one random set the area below the curve changes little with the recalls."""
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


def test_faster_coco_eval_gives_the_values_of_pycocotools(monkeypatch):
    faster = pytest.importorskip("faster_coco_eval")
    assert _coco._evaluator()[0] is faster.COCO
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((4, 30, 2, 2)), axis=2).reshape(4, 30, 4)
    labels = np.concatenate([rng.integers(0, 3, (4, 30, 1)), corners], axis=2)
    found = np.insert(labels + rng.normal(0, 0.02, labels.shape) * [0, 1, 1, 1, 1], 1, 0.5, axis=2)
    found[..., 1] = rng.random((4, 30))
    got = metrics.average_precision(list(found), list(labels), 3)
    monkeypatch.setattr(_coco.importlib.util, "find_spec", lambda name: None)
    assert np.array_equal(got, metrics.average_precision(list(found), list(labels), 3))
    assert 0 < got.min() < 1


def test_unknown_method_is_rejected():
    with pytest.raises(ValueError, match=r"method: expected one of \['coco', 'area', '11-point'\]"):
        metrics.average_precision([], [], 1, method="voc")


def test_unequal_numbers_of_images_are_rejected():
    with pytest.raises(ValueError, match="2 images with detections, 1 with labels"):
        metrics.average_precision([rows((0, 0.9, *BOX))] * 2, [rows((0, *BOX))], 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "box",
    [
        (NAN, 0, 0.5, 0.5),
        (NAN,) * 4,
        (0, 0, INF, INF),
        (-INF, -INF, INF, INF),
        (0.5, 0.5, 0, 0),
        (-1e200, -1e200, 1e200, 1e200),
    ],
    ids=["one nan", "all nan", "half infinite", "infinite", "inverted", "area overflows"],
)
def test_detection_without_a_finite_area_matches_nothing(box, method):
    for iou in (1e-9, 0.5, 1):
        found, truth = [(0, 0.9, *box)], rows((0, *BOX))
        assert metrics.average_precision([found], [truth], 1, iou, method) == [0]
    # The wrong detection has a higher score than the right one.
    found += [(0, 0.8, *BOX)]
    value = metrics.average_precision([found], [truth], 1, 1, method)
    assert value == pytest.approx(0.5)


@pytest.mark.parametrize("method", METHODS)
def test_row_without_a_class_may_have_any_numbers(method):
    found = rows((0, 0.9, *BOX), (-1, *(NAN,) * 5), (-0.5, *(INF,) * 5))
    labels = rows((0, *BOX), (-1, NAN, INF, 0, 0), (-1,) * 5)
    value = metrics.average_precision([found], [labels], 1, method=method)
    assert value == pytest.approx(1)


@pytest.mark.parametrize(
    "kind", ["lists", "float16", "float64", "int32", "torch", "mxnet", "mx.np"]
)
def test_metrics_accept_arrays_of_each_library(mx, kind):
    found, labels = [[[1, 9, 0, 0, 4, 4]], []], [[[1, 0, 0, 4, 4]], [[0, 0, 0, 4, 4]]]
    matrix = [[3, 1], [0, 4]]
    if kind != "lists":
        torch = pytest.importorskip("torch")
        array = {
            "torch": lambda x: torch.tensor(x, dtype=torch.bfloat16, requires_grad=True).float(),
            "mxnet": mx.nd.array,
            "mx.np": mx.np.array,
        }.get(kind, lambda x: np.array(x, kind))
        found, labels = [array(found[0]), []], [array(x) for x in labels]
        matrix = array(matrix)
    np.testing.assert_allclose(metrics.average_precision(found, labels, 2), [0, 1], rtol=1e-12)
    assert metrics.pixel_accuracy(matrix) == 7 / 8
    assert metrics.mean_iou(matrix) == (3 / 4 + 4 / 5) / 2


def test_batch_of_arrays_is_a_sequence_of_images(mx):
    found, labels = mx.nd.array([[[0, 0.9, *BOX]]]), mx.nd.array([[[0, *BOX], [-1] * 5]])
    assert metrics.average_precision(found, labels, 1) == pytest.approx(1)


GOOD = {"detections": [rows((0, 0.9, *BOX))], "labels": [rows((0, *BOX))], "num_classes": 2}
#: name -> the argument that is not that of GOOD, and the error.
BAD_ARGUMENTS = {
    "iou nan": ({"iou": NAN}, r"iou: expected a number in \[0, 1\], got nan"),
    "iou 1.5": ({"iou": 1.5}, r"iou: expected a number in \[0, 1\], got 1.5"),
    "iou -1": ({"iou": -1}, r"iou: expected a number in \[0, 1\], got -1"),
    "iou 0": ({"iou": 0}, "iou: expected a number above 0, got 0"),
    "iou True": ({"iou": True}, "iou: expected a number, got True"),
    "iou list": ({"iou": [0.5]}, r"iou: expected a number, got \[0.5\]"),
    "num_classes 0": ({"num_classes": 0}, "num_classes: expected an integer in .*, got 0"),
    "num_classes 2.0": ({"num_classes": 2.0}, "num_classes: expected an integer, got 2.0"),
    "num_classes True": ({"num_classes": True}, "num_classes: expected an integer, got True"),
    "method COCO": ({"method": "COCO"}, "method: expected one of .*, got 'COCO'"),
    "method None": ({"method": None}, "method: expected one of .*, got None"),
    **{
        f"{name} {value}": (
            {name: value},
            f"{name}: expected one array of rows for each image, got {value!r}",
        )
        for name, value in (("detections", None), ("detections", "x"), ("labels", 3))
    },
    "no labels": (
        {"labels": []},
        "expected equal lengths, got 1 images with detections, 0 with labels",
    ),
    **{
        f"detections {name}": ({"detections": value}, rf"detections\[0\]: {message}")
        for name, value, message in [
            ("without images", rows((0, 0.9, *BOX)), r"expected shape \(n, 6\), got \(6,\)"),
            ("rows of 5", [rows((0, *BOX))], r"expected shape .*, got \(1, 5\)"),
            ("rows of 4", [np.zeros((0, 4))], r"expected shape .*, got \(0, 4\)"),
            ("class 2", [rows((2, 0.9, *BOX))], r".* classes below 2, got \[2.0"),
            ("class 0.7", [rows((0.7, 0.9, *BOX))], "expected whole classes"),
            ("class nan", [rows((NAN, 0.9, *BOX))], "expected whole classes"),
            ("score nan", [rows((0, NAN, *BOX))], r"expected scores, got \[0.0, nan"),
        ]
    },
    **{
        f"labels {name}": ({"labels": [value]}, rf"labels\[0\]: {message}")
        for name, value, message in [
            ("rows of 4", rows((0, 1, 1, 1)), r"expected shape .* or .*, got \(1, 4\)"),
            ("rows of 8", np.zeros((1, 8)), r"expected shape .*, got \(1, 8\)"),
            ("ragged", [[0, 1], [0]], r"expected an array of numbers, got \[\[0"),
            ("text", [["0"] * 5], "expected an array of numbers, got"),
            ("None", None, "expected an array of numbers, got object None"),
            ("bool", np.ones((1, 5), bool), "expected an array of numbers, got bool"),
            ("complex", np.ones((1, 5), complex), ".* numbers, got complex128"),
            ("class 2", rows((0, *BOX), (2, *BOX)), r".* classes below 2, got \[2.0.* 1"),
            ("class 0.7", rows((0.7, *BOX)), r"expected whole classes .*, got \[0.69"),
            ("class nan", rows((NAN, *BOX)), r"expected whole classes .*, got \[nan"),
            ("class infinite", rows((INF, *BOX)), r"expected whole classes .*, got \[inf"),
            ("corner nan", rows((0, NAN, 0, 1, 1)), "expected finite corners, .*, got"),
            ("corner infinite", rows((0, 0, 0, INF, 1)), "expected finite corners, .*, got"),
            ("box inverted", rows((0, 1, 1, 0, 0)), ".* x1 <= x2, y1 <= y2, got"),
            ("flag 2", rows((0, *BOX, 2)), "expected difficult flags of 0 or 1, got"),
            ("flag nan", rows((0, *BOX, NAN)), "expected difficult flags of 0 or 1, got"),
        ]
    },
}


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_argument_of_average_precision_is_rejected(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.average_precision(**{**GOOD, **arguments})


@pytest.mark.parametrize("method", METHODS)
def test_flag_truncated_has_no_effect(method):
    found, labels = [rows((0, 0.9, *BOX))], [rows((0, *BOX, 0, 1), (0, *FAR, 1, 0))]
    assert metrics.average_precision(found, labels, 1, method=method) == pytest.approx(1)


# --- masks ----------------------------------------------------------------------------------------


def mask(*places, size=(4, 6)):
    """A mask with ones at the flat places."""
    pixels = np.zeros(size, np.uint8)
    pixels.flat[list(places)] = 1
    return pixels


#: Any box: boxes have no effect.
ANY = (0.0, 0.0, 0.0, 0.0)
#: Four pixels; three of them; one of them; four others.
FOUR, THREE, ONE, OTHER = (
    mask(0, 1, 6, 7),
    mask(0, 1, 6),
    mask(0),
    mask(10, 11, 16, 17),
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("found", "iou", "hit"),
    [(FOUR, 1, 1), (THREE, 0.75, 1), (THREE, 0.76, 0), (ONE, 0.25, 1), (OTHER, 1e-6, 0)],
    ids=["equal", "iou 3/4", "iou below 0.76", "iou 1/4", "elsewhere"],
)
def test_average_precision_of_masks_counts_their_pixels(found, iou, hit, method):
    value = metrics.mask_average_precision(
        [rows((0, 0.9, *ANY))], [found[None]], [rows((0, *ANY))], [FOUR[None]], 1, iou, method
    )
    assert value == pytest.approx(hit)


def test_average_precision_of_masks_equals_the_value_by_hand():
    """Right, wrong, right as in the boxes above. Class 1 has no object, class 2 no detection."""
    found = [rows((0, 0.9, *ANY)), rows((0, 0.8, *ANY), (0, 0.7, *ANY))]
    labels = [rows((0, *ANY), (2, *ANY)), rows((0, *ANY), (-1,) * 5)]
    shapes = [FOUR[None], np.stack([OTHER, FOUR])], [np.stack([FOUR, OTHER]), np.stack([FOUR] * 2)]
    for method, expected in (
        ("coco", (51 + 50 * 2 / 3) / 101),
        ("area", (1 + 2 / 3) / 2),
        ("11-point", (6 + 5 * 2 / 3) / 11),
    ):
        value = metrics.mask_average_precision(
            found, shapes[0], labels, shapes[1], 3, method=method
        )
        np.testing.assert_allclose(value, [expected, np.nan, 0], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_masks_of_rectangles_have_the_average_precision_of_their_boxes(method):
    rng = np.random.default_rng(0)
    found, labels, shapes, truths = [], [], [], []

    def boxes_of(count):
        corners = np.sort(rng.integers(0, 12, (count, 2, 2)), axis=1).reshape(-1, 4)
        return np.add(corners, (0, 0, 1, 1))

    def masks_of(boxes):
        pixels = np.zeros((len(boxes), 12, 12), np.float32)
        for one, (x1, y1, x2, y2) in zip(pixels, boxes):
            one[y1:y2, x1:x2] = 7
        return pixels

    for _ in range(30):
        boxes, objects = boxes_of(5), boxes_of(3)
        kinds, scores = rng.integers(0, 2, (5, 1)), rng.random((5, 1))
        found.append(np.column_stack([kinds, scores, boxes]))
        labels.append(np.column_stack([rng.integers(0, 2, (3, 1)), objects, [0, 0, 1]]))
        shapes.append(masks_of(boxes))
        truths.append(masks_of(objects))
    expected = metrics.average_precision(found, labels, 2, 0.3, method)
    value = metrics.mask_average_precision(found, shapes, labels, truths, 2, 0.3, method)
    assert (expected > 0.02).all()
    assert (expected < 0.9).all()
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("method", METHODS)
def test_object_without_a_mask_does_not_count(method):
    found, labels = [rows((0, 0.9, *ANY))], [rows((0, *ANY), (0, *ANY))]
    shapes = [np.stack([FOUR, 0 * FOUR])]
    value = metrics.mask_average_precision(found, [FOUR[None]], labels, shapes, 1, method=method)
    assert value == pytest.approx(1)
    shapes = [np.stack([FOUR, ONE])]
    value = metrics.mask_average_precision(found, [FOUR[None]], labels, shapes, 1, method=method)
    assert value < 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": [FOUR]}, r"masks\[0\]: expected shape \(n, height, width\), got \(4, 6\)"),
        ({"masks": None}, "masks: expected one array of rows for each image, got None"),
        ({"masks": []}, "masks, rows: expected equal lengths, got 0 images with masks, 1 with"),
        (
            {"detected_masks": [np.stack([FOUR] * 2)]},
            r"detected_masks\[0\]: expected 1 masks, one for each row, got 2",
        ),
        (
            {"detected_masks": [FOUR[None, 1:]]},
            r"masks\[0\]: expected the size of detected_masks, \(3, 6\), got \(4, 6\)",
        ),
        ({"detected_masks": ["x"]}, r"detected_masks\[0\]: expected an array of numbers, got"),
        ({"iou": 0}, "iou: expected a number above 0, got 0"),
    ],
    ids=["one mask", "None", "no image", "two masks", "another size", "text", "iou 0"],
)
def test_bad_masks_are_rejected(arguments, message):
    good = {"detections": [rows((0, 0.9, *ANY))], "labels": [rows((0, *ANY))]}
    good |= {"detected_masks": [FOUR[None]], "masks": [FOUR[None]], "num_classes": 1}
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.mask_average_precision(**{**good, **arguments})


def test_average_precision_of_masks_of_images_without_rows():
    empty = np.zeros((0, 4, 6))
    value = metrics.mask_average_precision(
        [rows((0, 0.9, *ANY)), []], [FOUR[None], []], [[], []], [empty, empty], 1
    )
    assert np.isnan(value)


# --- proposals ------------------------------------------------------------------------------------


def test_recall_of_proposals_equals_the_value_by_hand():
    """The IoUs of the four objects are 1, 0.8 (0.4 x 0.5 / 0.25), 0.4 and 0."""
    proposals = [
        rows(FAR, BOX, (NAN,) * 4, (1, 1, 0, 0)),
        rows((0, 0, 0.4, 0.5)),
        rows((0, 0, 0.2, 0.5)),
        [],
    ]
    labels = [
        rows((0, *BOX, 0), (1, 0, 0.9, 0.1, 1, 1), (-1,) * 6),
        rows((1, *BOX)),
        rows((0, *BOX)),
        rows((2, *BOX)),
    ]
    for iou, expected in ((0.3, 3 / 4), (0.5, 2 / 4), (0.9, 1 / 4)):
        assert metrics.proposal_recall(proposals, labels, iou) == expected
    assert math.isnan(metrics.proposal_recall([rows(BOX)], [[]]))


@pytest.mark.parametrize(
    ("proposals", "labels", "iou", "message"),
    [
        ([rows((0, *BOX))], [[]], 0.5, r"proposals\[0\]: expected shape \(n, 4\), got \(1, 5\)"),
        ([[]], [], 0.5, "got 1 images with proposals, 0 with labels"),
        ([[]], [rows((0, 1, 1, 0, 0))], 0.5, r"labels\[0\]: expected finite corners"),
        (3, [[]], 0.5, "proposals: expected one array of rows for each image, got 3"),
        ([[]], [[]], 0, "iou: expected a number above 0"),
    ],
    ids=["rows of 5", "lengths", "inverted", "number", "iou 0"],
)
def test_bad_proposals_are_rejected(proposals, labels, iou, message):
    with pytest.raises((TypeError, ValueError), match=message):
        metrics.proposal_recall(proposals, labels, iou)


# --- confusion matrices and errors of anchors -----------------------------------------------------


@pytest.mark.parametrize(
    "metric", [metrics.pixel_accuracy, metrics.mean_iou], ids=["pixel_accuracy", "mean_iou"]
)
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
    ids=["not square", "ragged", "text", "None", "bool", "nan", "infinite", "negative"],
)
def test_bad_confusion_matrix_is_rejected(metric, matrix, message):
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
    ids=[
        "anchors -1",
        "anchors 4.0",
        "right 5 of 4",
        "right nan",
        "error -1",
        "error nan",
        "error None",
    ],
)
def test_bad_anchor_errors_are_rejected(batch, message):
    for add in (metrics.AnchorErrors, metrics.AnchorErrors().add):
        with pytest.raises((TypeError, ValueError), match=message):
            add(*batch)


def test_anchor_errors_without_anchors_are_nan():
    errors = metrics.AnchorErrors()
    assert math.isnan(errors.class_error)
    assert math.isnan(errors.box_mae)


def test_anchor_errors_are_means_over_all_batches():
    errors = metrics.AnchorErrors()
    errors.add(anchors=6, right=6, offset_error=2)
    errors.add(anchors=4, right=3, offset_error=6)
    assert errors.class_error == pytest.approx(1 / 10)
    assert errors.box_mae == pytest.approx(8 / 40)


# --- the table of COCO, confusion of classes ------------------------------------------------------

#: An object of 100 x 100 pixels, and a detection of 62 % of it.
OBJECT, PART = (0, 0, 0, 100, 100), (0, 0.9, 0, 0, 100, 62)


def test_table_of_coco_counts_the_thresholds_that_a_detection_reaches():
    """An IoU of 0.62 reaches 0.5, 0.55 and 0.6 of the ten thresholds."""
    table = metrics.coco_metrics([[PART]], [[OBJECT]], 2)
    values = {name: table.values[name] for name in ("AP", "AP50", "AP75", "APl", "AR1", "AR100")}
    expected = {"AP": 0.3, "AP50": 1, "AP75": 0, "APl": 0.3, "AR1": 0.3, "AR100": 0.3}
    assert values == pytest.approx(expected)
    assert np.isnan([table.values["APs"], table.values["APm"]]).all()  # no such objects
    np.testing.assert_allclose(table.ap, [0.3, np.nan])
    np.testing.assert_allclose(table.ap50, [1, np.nan])


def test_table_of_coco_does_not_count_detections_of_difficult_objects():
    objects = [(*OBJECT, 0), (0, 200, 200, 300, 300, 1)]
    exact = [(0, 0.9, 200, 200, 300, 300), (0, 0.8, 0, 0, 100, 100)]
    assert metrics.coco_metrics([exact], [objects], 1).values["AP"] == pytest.approx(1)
    flags = [(*row[:5], 0) for row in objects]
    assert metrics.coco_metrics([exact[1:]], [flags], 1).values["AP"] == pytest.approx(51 / 101)


def test_table_of_coco_has_the_iou_of_masks():
    """The boxes are equal. The masks have an IoU of 1 / 2."""
    masks, detected = np.zeros((1, 10, 10)), np.zeros((1, 10, 10))
    masks[0, :, :], detected[0, :5, :] = 1, 1
    rows = [[(0, 0.9, 0, 0, 10, 10)]], [[(0, 0, 0, 10, 10)]]
    for shapes in (([detected], [masks]), ([metrics.encode_masks(detected)], [masks])):
        table = metrics.coco_metrics(*rows, 1, *shapes)
        assert (table.values["AP50"], table.values["AP75"]) == pytest.approx((1, 0))
    with pytest.raises(ValueError, match=r"masks\[0\]: expected 1 masks, one for each row, got 2"):
        metrics.coco_metrics(*rows, 1, [detected], [np.ones((2, 10, 10))])


def test_table_of_coco_without_objects_is_nan():
    table = metrics.coco_metrics([[PART]], [[]], 1)
    assert np.isnan(list(table.values.values())).all()


def test_confusion_of_classes():
    """Found: 0 as 0, 0 as 1, a false 1 at the same object, nothing at the second object of 1."""
    far, away = (1, 200, 200, 300, 300), (1, 400, 400, 500, 500)
    labels = [[OBJECT, far], [OBJECT, away]]
    detections = [
        [(0, 0.9, 0, 0, 100, 90), (1, 0.8, 0, 0, 100, 100), (0, 0.3, 200, 200, 300, 300)],
        [(1, 0.7, 0, 0, 100, 100), (1, 0.6, 400, 400, 500, 500), (-1, 0.9, 0, 0, 1, 1)],
    ]
    matrix = metrics.detection_confusion(detections, labels, 2)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_confusion_of_classes_omits_difficult_objects():
    labels = [[(*OBJECT, 1), (1, 200, 200, 300, 300, 1)]]
    twice = [[(0, 0.9, 0, 0, 100, 90), (1, 0.8, 0, 0, 100, 100)]]
    assert not metrics.detection_confusion(twice, labels, 2).any()


def test_iou_of_each_class():
    """Class 0: 3 of 3 + 1; class 1: 0 of 1; class 2 does not occur."""
    matrix = [[3, 0, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(metrics.class_iou(matrix), [0.75, 0, np.nan])
