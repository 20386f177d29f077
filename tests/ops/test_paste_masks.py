from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import paste_masks

SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -3e38, -5.0, 1e-40]


def f32(x):
    return np.array(x, np.float32)


def random_case(rng, num, cells, size, special=0.0):
    """Boxes of which some leave the image, are inverted or are smaller than a pixel."""
    low = rng.uniform(-0.3, 1, (num, 2)) * size[::-1]
    boxes = np.concatenate([low, low + rng.uniform(-0.1, 0.8, low.shape) * size[::-1]], axis=1)
    boxes[rng.random(boxes.shape) < special] = rng.choice(SPECIAL)
    masks = f32(rng.random((num, *cells)))
    masks[rng.random(masks.shape) < special / 9] = rng.choice(SPECIAL)
    return masks, f32(boxes), size


def check(run, args, threshold=0.5):
    np.testing.assert_array_equal(
        run(paste_masks, *args, threshold), paste_masks(*args, threshold, backend="numpy")
    )


class TestByHand:
    ONE = np.ones((1, 1, 1), np.float32)

    def paste(self, run, masks, box, shape, threshold=0.5):
        out = run(paste_masks, f32([masks]), f32([box]), shape, threshold)
        assert out.dtype == np.uint8
        return out[0].tolist()

    def test_box_of_the_size_of_the_mask_copies_it(self, run):
        # Each pixel center is the center of a cell.
        mask = [[0.4, 0.6, 0.5], [0.7, 0.1, 0.9]]
        got = self.paste(run, mask, [1, 2, 4, 4], (5, 5))
        assert got[:2] == [[0] * 5] * 2
        assert got[2:] == [[0, 0, 1, 1, 0], [0, 1, 0, 1, 0], [0] * 5]

    def test_pixel_between_cells_is_interpolated(self, run):
        # 4 pixels of 2 cells are at -0.25, 0.25, 0.75 and 1.25: 0.75 * 0.8, 0.75 * 0.8 +
        # 0.25 * 0.4, 0.25 * 0.8 + 0.75 * 0.4, 0.75 * 0.4.
        values = [0.6, 0.7, 0.5, 0.3]
        for threshold in (0.29, 0.35, 0.55, 0.65, 0.75):
            want = [[int(value >= threshold) for value in values]]
            assert self.paste(run, [[0.8, 0.4]], [0, 0, 4, 1], (1, 4), threshold) == want

    def test_equal_score_is_in_the_mask(self, run):
        mask, box = [[0.5, 0.25]], [0, 0, 2, 1]
        assert self.paste(run, mask, box, (1, 2)) == [[1, 0]]
        assert self.paste(run, mask, box, (1, 2), 0.25) == [[1, 1]]
        assert self.paste(run, mask, box, (1, 2), np.nextafter(f32(0.5), f32(1))) == [[0, 0]]

    def test_score_falls_to_half_at_the_edges(self, run):
        # One cell over 4 pixels: 0.5 + 1/8, 0.5 + 3/8 along an axis.
        for threshold, want in ((0.62, [1, 1, 1, 1]), (0.63, [0, 1, 1, 0]), (0.88, [0, 0, 0, 0])):
            assert self.paste(run, [[1]], [0, 0, 4, 1], (1, 4), threshold) == [want]

    def test_pixel_whose_center_is_on_the_left_edge_is_in_the_box(self, run):
        mask, shape = [[9.0]], (1, 4)
        assert self.paste(run, mask, [0.5, 0, 2.5, 1], shape) == [[1, 1, 0, 0]]
        assert self.paste(run, mask, [0.4, 0, 2.6, 1], shape) == [[1, 1, 1, 0]]
        assert self.paste(run, mask, [0.6, 0, 1.4, 1], shape) == [[0, 0, 0, 0]]

    def test_pixels_outside_are_0_at_each_threshold(self, run):
        assert self.paste(run, [[-9]], [1, 1, 2, 2], (3, 3), -10) == [[0] * 3, [0, 1, 0], [0] * 3]
        assert self.paste(run, [[1]], [1, 1, 2, 2], (3, 3), float("inf")) == [[0] * 3] * 3

    @pytest.mark.parametrize(
        "box",
        [
            [1, 1, 1, 3],
            [3, 1, 1, 3],
            [-1, -1, -1, -1],
            [np.nan, 0, 4, 4],
            [0, 0, 4, np.nan],
            [-np.inf, 0, 4, 4],
            [0, 0, np.inf, 4],
            [-3e38, 0, 3e38, 4],
            [4, 0, 8, 4],
            [-4, 0, 0, 4],
            [1e30, 0, 2e30, 4],
        ],
        ids=str,
    )
    def test_box_without_pixels_gives_zeros(self, run, box):
        assert self.paste(run, [[9, 9], [9, 9]], box, (4, 4)) == [[0] * 4] * 4

    def test_nan_score_is_not_in_the_mask(self, run):
        # The first pixel interpolates between the first cell and NaN, whose weight is 0.
        mask = [[9, np.nan, 9, 9, 9]]
        assert self.paste(run, mask, [0, 0, 5, 1], (1, 5)) == [[0, 0, 1, 1, 1]]

    @pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0)])
    def test_masks_without_cells_give_zeros(self, run, shape):
        boxes = f32([[0, 0, 4, 4]] * 2)
        out = run(paste_masks, np.zeros(shape, np.float32), boxes, (3, 5), -1)
        np.testing.assert_array_equal(out, np.zeros((2, 3, 5)))


@pytest.mark.parametrize("threshold", [0.5, -0.1, 0.9])
@pytest.mark.parametrize(
    ("num", "cells", "size"),
    [(1, (1, 1), (1, 1)), (3, (28, 28), (40, 57)), (9, (3, 5), (7, 3)), (2, (14, 7), (1, 130))],
)
def test_backend_gives_the_bits_of_the_reference(run_any_steps, num, cells, size, threshold):
    for special in (0.0, 0.1):
        check(run_any_steps, random_case(np.random.default_rng(num), num, cells, size, special))


@pytest.mark.parametrize("width", [1, 7, 8, 33, 640])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, width):
    args = random_case(np.random.default_rng(width), 9, (14, 14), (90, width), 0.02)
    want = paste_masks(*args, backend="numpy")
    for out in cpu_variants(partial(paste_masks, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


def smooth_masks(num, cells):
    """Masks of one blob: most pixels are far from the threshold, between cells on one side."""
    y, x = (np.linspace(-3, 3, count) for count in cells)
    distance = np.hypot(y[:, None], x) - np.linspace(0.5, 3.5, num)[:, None, None]
    return f32(1 / (1 + np.exp(4 * distance)))


@pytest.mark.parametrize("cells", [(28, 28), (5, 90), (90, 5)], ids=str)
@pytest.mark.parametrize("side", [0.03, 0.2, 1, 6])
def test_smooth_masks_of_each_scale_have_the_bits_of_the_reference(cpu_variants, cells, side):
    height, width = 150, 333
    low, size = np.linspace(0.4, 0, 8)[:, None] * (1 - side), f32([width, height])
    corners = np.concatenate([low, low], axis=1) * size
    boxes = np.concatenate([corners, corners + side * size], axis=1)
    args = smooth_masks(8, cells), f32(boxes), (height, width)
    want = paste_masks(*args, backend="numpy")
    assert 0 < want.mean() < 1
    for out in cpu_variants(partial(paste_masks, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("threshold", [0.7, 0.0, -0.7, 1e-40, 3e38])
def test_cells_next_to_the_threshold_have_the_bits_of_the_reference(cpu_variants, threshold):
    """The sum of two weights is rounded, so that equal cells have other interpolations."""
    cells = np.full(9, threshold, np.float32)
    for i in range(9):
        for _ in range(i // 2):
            cells[i] = np.nextafter(cells[i], f32(np.inf if i % 2 else -np.inf))
    masks = np.broadcast_to(cells[:, None, None], (9, 7, 7)).copy()
    args = masks, np.tile(f32([-11, -7, 181, 93]), (9, 1)), (90, 170), threshold
    want = paste_masks(*args, backend="numpy")
    for out in cpu_variants(partial(paste_masks, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("cell", [np.inf, -np.inf, 3.4e38, -3.4e38])
def test_cells_of_extreme_numbers_have_the_bits_of_the_reference(cpu_variants, cell):
    """An infinite cell with the weight 0 gives NaN, which is below each threshold."""
    # The centers of pixel 64 and of cell 1 are the same, in both axes.
    args = np.full((1, 8, 8), cell, np.float32), f32([[0, 0, 344, 344]]), (344, 344)
    want = paste_masks(*args, backend="numpy")
    assert want[0, 64, 100] == want[0, 100, 64] == (cell == 3.4e38)
    assert want[0, 100, 100] == (cell > 0)
    for out in cpu_variants(partial(paste_masks, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


def test_boxes_of_each_width_have_the_bits_of_the_reference(cpu_variants):
    """The number of cells per vector of pixels selects the loop."""
    widths = np.arange(2, 420, 3)
    boxes = np.stack([0 * widths, 0 * widths, widths, 0 * widths + 9], axis=1)
    masks = f32(np.random.default_rng(0).random((len(widths), 2, 28)))
    args = masks, f32(boxes), (9, 430)
    want = paste_masks(*args, backend="numpy")
    for out in cpu_variants(partial(paste_masks, *args, backend="native")):
        np.testing.assert_array_equal(out, want)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.sampled_from([0.0, 0.05, 0.6]))
def test_random_case_equals_the_reference(seed, special):
    rng = np.random.default_rng(seed)
    num, *sizes = rng.integers(1, [5, 30, 30, 60, 60]).tolist()
    args = random_case(rng, num, tuple(sizes[:2]), tuple(sizes[2:]), special)
    check(runner("cpu", "native"), args, float(rng.uniform(-0.2, 1.2)))


def test_masks_are_those_of_grid_sample(run):
    """detectron2 pastes by ``grid_sample`` of PyTorch. Its sums are in another order."""
    torch = pytest.importorskip("torch")
    masks, boxes, size = random_case(np.random.default_rng(5), 12, (28, 28), (70, 90))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    y, x = (torch.arange(n) + 0.5 for n in size)
    x1, y1, x2, y2 = (column[:, None] for column in torch.from_numpy(boxes).unbind(1))
    grid_y, grid_x = (y - y1) / (y2 - y1) * 2 - 1, (x - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(
        [grid_x[:, None].expand(-1, *size), grid_y[:, :, None].expand(-1, *size)], dim=3
    )
    scores = torch.nn.functional.grid_sample(
        torch.from_numpy(masks)[:, None], grid, align_corners=False
    )[:, 0].numpy()
    inside = (abs(grid_x) < 1)[:, None] & (abs(grid_y) < 1)[:, :, None]
    clear = abs(scores - 0.5) > 1e-4
    got = run(paste_masks, masks, boxes, size)
    assert (got == 1).sum() > 1000
    np.testing.assert_array_equal(got[clear], ((scores >= 0.5) & inside.numpy())[clear])


def test_sanitized(run_sanitized_small):
    check(run_sanitized_small, random_case(np.random.default_rng(2), 3, (4, 5), (11, 13), 0.1))


@pytest.mark.parametrize(("num", "shape"), [(0, (3, 4)), (2, (0, 4)), (2, (3, 0))])
def test_empty_inputs_give_empty_results(run, num, shape):
    masks, boxes = np.zeros((num, 2, 2), np.float32), np.zeros((num, 4), np.float32)
    assert run(paste_masks, masks, boxes, shape).shape == (num, *shape)


INPUTS = dict(
    masks=np.zeros((2, 3, 3), np.float32), boxes=np.zeros((2, 4), np.float32), shape=(5, 6)
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("masks", np.zeros((2, 3), "f"), ValueError, r"expected .*, got \(2, 3\)"),
        ("masks", np.zeros((2, 3, 3), "u1"), TypeError, "expected float32, got uint8"),
        ("boxes", np.zeros((3, 4), "f"), ValueError, r".* with n = 2 as in masks, got \(3, 4\)"),
        ("boxes", np.zeros((2, 5), "f"), ValueError, r"expected .*, got \(2, 5\)"),
        ("shape", 5, ValueError, r"expected a pair \(height, width\), got 5"),
        ("shape", (5, -1), ValueError, "expected an integer in .*, got -1"),
        ("shape", (5, 1.5), TypeError, "expected an integer, got 1.5"),
        ("threshold", None, TypeError, "expected a number, got None"),
        ("threshold", float("nan"), ValueError, "expected a number, got nan"),
    ],
)
def test_bad_argument_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        paste_masks(**{**INPUTS, name: value})
