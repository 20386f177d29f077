import contextlib
import math
import mmap
import re

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import confusion_matrix
from cvops.metrics import mean_iou, pixel_accuracy


def i32(x):
    return np.array(x, np.int32)


class TestByHand:
    # The pairs (label, prediction) are (0, 0) twice, (0, 1), (1, 1), (2, 1), (2, 2).
    label = i32([[0, 0, 0], [1, 2, 2]])
    prediction = i32([[0, 1, 0], [1, 1, 2]])

    def test_rows_are_labels_and_columns_are_predictions(self, run):
        matrix = run(confusion_matrix, self.prediction, self.label, 3)
        assert matrix.dtype == np.int64
        assert matrix.tolist() == [[2, 1, 0], [0, 1, 0], [0, 1, 1]]

    def test_pixels_of_the_ignored_label_are_not_counted(self, run):
        matrix = run(confusion_matrix, self.prediction, self.label, 3, 0)
        assert matrix.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
        # Pixels of other labels count, also with this prediction.
        matrix = run(confusion_matrix, self.prediction, self.label, 3, ignore_label=1)
        assert matrix.tolist() == [[2, 1, 0], [0, 0, 0], [0, 1, 1]]

    @pytest.mark.parametrize("ignore_label", [None, 255, -1, 2**31 - 1, -(2**31)])
    def test_values_that_are_no_class_are_not_counted(self, run, ignore_label):
        low, high = -(2**31), 2**31 - 1
        label = i32([255, 2, -1, high, low, 1, 1, 1, 1, 1, 0])
        prediction = i32([0, 0, 1, 1, 1, 2, -1, high, low, 0, 255])
        matrix = run(confusion_matrix, prediction, label, 2, ignore_label)
        assert matrix.tolist() == [[0, 0], [1, 0]]

    def test_one_class_counts_all_pixels(self, run):
        zeros = np.zeros(1001, np.int32)
        assert run(confusion_matrix, zeros, zeros, 1).tolist() == [[1001]]


def random_case(seed, shape, num_classes, smooth):
    """A random prediction and label. Some values are no class."""
    rng = np.random.default_rng(seed)
    total = int(np.prod(shape))
    label = rng.integers(-1, num_classes + 1, -(-total // smooth)).repeat(smooth)[:total]
    right = rng.random(total) < 0.7
    prediction = np.where(right, label, rng.integers(-1, num_classes + 1, total))
    return i32(prediction.reshape(shape)), i32(label.reshape(shape))


CASES = {
    "one pixel": ((1,), 2, 1),
    "three pixels after groups of four": ((3, 41), 5, 3),
    "several blocks": ((2, 50, 83), 21, 7),
    "110 classes in shared memory": ((4, 300), 110, 5),
    "111 classes": ((4, 301), 111, 5),
    "65 classes without interleaved matrices": ((4099,), 65, 2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("ignore_label", [None, 1])
def test_results_equal_the_reference(run, case, ignore_label):
    shape, num_classes, smooth = case
    prediction, label = random_case(0, shape, num_classes, smooth)
    want = confusion_matrix(prediction, label, num_classes, ignore_label, backend="numpy")
    got = run(confusion_matrix, prediction, label, num_classes, ignore_label)
    np.testing.assert_array_equal(got, want)


def test_reference_equals_a_count_of_pairs():
    prediction, label = random_case(1, (20, 30), 4, 2)
    want = np.zeros((4, 4), int)
    for p, t in zip(prediction.flat, label.flat):
        if 0 <= p < 4 and 0 <= t < 4 and t != 3:
            want[t, p] += 1
    got = confusion_matrix(prediction, label, 4, 3, backend="numpy")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("num_classes", [21, 100])
def test_several_threads_give_equal_counts(num_classes):
    prediction, label = random_case(2, (5, 320, 480), num_classes, 9)
    want = confusion_matrix(prediction, label, num_classes, backend="numpy")
    got = runner("cpu", "native")(confusion_matrix, prediction, label, num_classes)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("num_classes", [1, 2, 21, 64, 65, 150])
@pytest.mark.parametrize("total", [1, 15, 17, 1023, 4099, 200_003])
@pytest.mark.parametrize("smooth", [1, 40])
def test_threads_and_vectors_do_not_change_a_count(cpu_variants, num_classes, total, smooth):
    prediction, label = random_case(6, (total,), num_classes, smooth)
    if smooth > 1:
        prediction = label.copy()  # groups of equal pixels
    want = confusion_matrix(prediction, label, num_classes, 0, backend="numpy")
    run = runner("cpu", "native")
    for got in cpu_variants(lambda: run(confusion_matrix, prediction, label, num_classes, 0)):
        np.testing.assert_array_equal(got, want)


def test_more_than_2_to_the_32_equal_pixels_are_counted():
    """The pages of a private mapping that nothing was written to are one page of zeros."""
    num, reserve_nothing = 2**32 + 70, 0x4000
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | reserve_nothing
    with mmap.mmap(-1, 4 * num, kind) as memory:
        with contextlib.suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        pixels = np.frombuffer(memory, np.int32)
        matrix = runner("cpu", "native")(confusion_matrix, pixels, pixels, 2)
        del pixels
    assert matrix.tolist() == [[num, 0], [0, 0]]


@pytest.mark.parametrize("num_classes", [3, 120])
def test_kernel_counts_beyond_2_to_the_32(num_classes):
    """Each cell begins with the count of other blocks, 2^32 - 2."""
    prediction, label = random_case(8, (2**12,), num_classes, 2)
    before = 2**32 - 2
    matrix = np.full((num_classes, num_classes), before, np.uint64)
    args = matrix, prediction, label, np.int64(label.size), np.int32(num_classes), np.int32(-1)
    shared = 4 * num_classes**2 if num_classes == 3 else 0
    backends.module("confusion_matrix").launch("confusion_matrix", (2,), (256,), args, shared)
    counts = confusion_matrix(prediction, label, num_classes, backend="numpy")
    assert counts.max() > 2
    np.testing.assert_array_equal(matrix - np.uint64(before), counts.astype(np.uint64))


@pytest.mark.parametrize("seed", range(3))
def test_order_of_threads_does_not_change_the_counts(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    prediction, label = random_case(3, (5000,), 3, 4)
    got = runner("cpu", "emulated")(confusion_matrix, prediction, label, 3)
    np.testing.assert_array_equal(got, confusion_matrix(prediction, label, 3, backend="numpy"))


@pytest.mark.parametrize("num_classes", [3, 120])
def test_sanitizers_find_no_error(run_sanitized, num_classes):
    prediction, label = random_case(4, (43, 101), num_classes, 2)
    want = confusion_matrix(prediction, label, num_classes, backend="numpy")
    got = run_sanitized(confusion_matrix, prediction, label, num_classes)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_no_pixels_give_zero_counts(run, shape):
    empty = np.zeros(shape, np.int32)
    matrix = run(confusion_matrix, empty, empty, 4)
    np.testing.assert_array_equal(matrix, np.zeros((4, 4), np.int64))
    assert matrix.dtype == np.int64


def test_arrays_without_axes_are_one_pixel(run):
    assert run(confusion_matrix, i32(1), i32(0), 2).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("backend", ["numpy", "native"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    total=st.integers(0, 3000),
    num_classes=st.integers(1, 30),
    smooth=st.integers(1, 20),
)
def test_counts_of_parts_add_up(backend, seed, total, num_classes, smooth):
    prediction, label = random_case(seed, (total,), num_classes, smooth)

    def count(*arrays):
        return confusion_matrix(*arrays, num_classes, backend=backend)

    matrix = count(prediction, label)
    half = total // 2
    parts = count(prediction[:half], label[:half]) + count(prediction[half:], label[half:])
    np.testing.assert_array_equal(matrix, parts)
    np.testing.assert_array_equal(matrix.T, count(label, prediction))
    inside = (label >= 0) & (label < num_classes) & (prediction >= 0) & (prediction < num_classes)
    assert matrix.sum() == inside.sum()
    assert matrix.trace() == (label == prediction)[inside].sum()


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_mxnet_arrays_give_an_mxnet_array(mx, backend):
    prediction, label = random_case(5, (4, 9), 3, 2)
    arrays = mx.nd.array(prediction, dtype="int32"), mx.nd.array(label, dtype="int32")
    matrix = confusion_matrix(*arrays, 3, backend=backend)
    assert type(matrix) is mx.nd.NDArray
    want = confusion_matrix(prediction, label, 3, backend="numpy")
    np.testing.assert_array_equal(matrix.asnumpy(), want)
    assert matrix.dtype is np.int64
    assert mean_iou(matrix) == mean_iou(want)


class TestRefusals:
    arguments = {
        "float64": ({"prediction": np.zeros((2, 3))}, "prediction: expected int32, got float64"),
        "uint8": ({"label": np.zeros((2, 3), "u1")}, "label: expected int32, got uint8"),
        "list": ({"label": [[0, 0, 0]]}, "label: expected an array"),
        "another shape": (
            {"label": np.zeros((3, 2), "i4")},
            "the shape (2, 3) of prediction, got (3, 2)",
        ),
        "one axis": ({"label": np.zeros(6, "i4")}, "the shape (2, 3) of prediction, got (6,)"),
        "no classes": (
            {"num_classes": 0},
            "num_classes: expected an integer in [1, 46340], got 0",
        ),
        "46341 classes": (
            {"num_classes": 46341},
            "num_classes: expected an integer in [1, 46340], got 46341",
        ),
        "num_classes is a float": (
            {"num_classes": 2.0},
            "num_classes: expected an integer, got 2.0",
        ),
        "ignore_label is 2^31": (
            {"ignore_label": 2**31},
            "ignore_label: expected an integer in [-2147483648,",
        ),
        "ignore_label is a float": (
            {"ignore_label": 0.5},
            "ignore_label: expected an integer, got 0.5",
        ),
    }

    @pytest.mark.parametrize(("arguments", "message"), arguments.values(), ids=arguments)
    def test_bad_arguments_are_refused(self, arguments, message):
        zeros = np.zeros((2, 3), np.int32)
        valid = {"prediction": zeros, "label": zeros, "num_classes": 3}
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            confusion_matrix(**{**valid, **arguments})

    @pytest.mark.parametrize("metric", [pixel_accuracy, mean_iou])
    @pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
    def test_matrix_that_is_not_square_is_refused(self, metric, shape):
        with pytest.raises(ValueError, match=re.escape(f"(classes, classes), got {shape}")):
            metric(np.zeros(shape, np.int64))


class TestMetrics:
    # 3 + 1 + 2 of 10 pixels are correct. The IoU is 3 / (3 + 1 + 2) for class 0, 1 / (1 + 1 + 1)
    # for class 1, 2 / (2 + 2 + 1) for class 2.
    matrix = np.int64([[3, 1, 0], [0, 1, 1], [2, 0, 2]])

    def test_pixel_accuracy_by_hand(self):
        assert pixel_accuracy(self.matrix) == 6 / 10

    def test_mean_iou_by_hand(self):
        assert mean_iou(self.matrix) == pytest.approx((3 / 6 + 1 / 3 + 2 / 5) / 3, rel=1e-15)

    def test_absent_class_is_not_averaged(self):
        wider = np.zeros((5, 5), np.int64)
        wider[np.ix_([0, 2, 3], [0, 2, 3])] = self.matrix
        assert mean_iou(wider) == mean_iou(self.matrix)
        assert pixel_accuracy(wider) == pixel_accuracy(self.matrix)

    def test_class_that_is_only_predicted_has_an_iou_of_0(self):
        assert mean_iou([[4, 4], [0, 0]]) == (4 / 8 + 0) / 2

    def test_all_correct_gives_1_and_all_wrong_gives_0(self):
        assert mean_iou(np.diag([5, 1, 9])) == pixel_accuracy(np.diag([5, 1, 9])) == 1
        assert mean_iou([[0, 3], [2, 0]]) == pixel_accuracy([[0, 3], [2, 0]]) == 0

    def test_scaled_matrix_gives_equal_metrics(self):
        assert mean_iou(self.matrix / 16) == mean_iou(self.matrix)
        assert pixel_accuracy(self.matrix / 16) == pixel_accuracy(self.matrix)

    def test_metrics_of_no_pixels_are_nan(self):
        assert math.isnan(mean_iou(np.zeros((3, 3))))
        assert math.isnan(pixel_accuracy(np.zeros((3, 3))))
