"""Drawings with Pillow, and the book's helpers for Matplotlib."""

import re
import sys

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from cvops import plot


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def rows(*values):
    return np.array(values, np.float32)


def test_draw_detections_skips_rows_without_a_class():
    image = Image.new("RGB", (100, 50), "white")
    drawn = plot.draw_detections(
        image, rows((1, 0.9, 10, 20, 90, 40), (-1, 0.9, 0, 0, 100, 50)), ("a", "b"), 2
    )
    assert drawn.size == (200, 100)
    color = Image.new("RGB", (1, 1), plot.COLORS[1]).getpixel((0, 0))
    assert drawn.getpixel((20, 60)) == drawn.getpixel((179, 79)) == color
    assert drawn.getpixel((100, 70)) == drawn.getpixel((0, 99)) == (255, 255, 255)


def test_draw_detections_tints_the_pixels_of_a_mask():
    """The mask of the second row has the right half. A row without a class has no mask."""
    image = Image.new("RGB", (40, 20), "white")
    masks = np.zeros((3, 20, 40))
    masks[1, :, 20:] = masks[2] = 1
    given = rows((0, 0.9, 0, 0, 1, 1), (1, 0.9, 0, 0, 1, 1), (-1, 0.5, 0, 0, 1, 1))
    drawn = np.asarray(plot.draw_detections(image, given, ("a", "b"), 4, masks))
    color = np.array(Image.new("RGB", (1, 1), plot.COLORS[1]).getpixel((0, 0)))
    tinted = 255 + (color - 255.0) * 120 / 255
    assert np.abs(drawn[70, 120:] - tinted).max() <= 2
    assert (drawn[70, 20:70] == 255).all()
    with pytest.raises(ValueError, match=r"masks: expected shape \(3, 20, 40\), got \(2, 20, 40\)"):
        plot.draw_detections(image, given, ("a", "b"), 4, masks[:2])


def test_draw_detections_has_the_texts_of_the_rows():
    """The text of a row without a class is left out, and the worse row is drawn first."""
    image = Image.new("RGB", (200, 100), "white")
    given = rows((0, 0.5, 10, 40, 90, 90), (-1, 0.9, 0, 0, 9, 9), (1, 0.9, 110, 40, 190, 90))
    plain = plot.draw_detections(image, given, ("a 0.50", "b 0.90"), texts=["a 0.50 0.50", "", "b"])
    same = plot.draw_detections(image, given, ("a 0.50", "b"), texts=["a 0.50 0.50", "other", "b"])
    scores = plot.draw_detections(image, given, ("a 0.50", "b"))
    assert plain.tobytes() == same.tobytes()
    left, right = (0, 0, 100, 100), (100, 0, 200, 100)
    assert plain.crop(left).tobytes() == scores.crop(left).tobytes()
    assert plain.crop(right).tobytes() != scores.crop(right).tobytes()
    with pytest.raises(ValueError, match="texts: expected 3 texts, got 1"):
        plot.draw_detections(image, given, ("a", "b"), texts=["a"])


def test_contact_sheet_has_each_image_in_a_square():
    """Images of 40 x 20 and of 10 x 40 pixels; the box of the first is its right half."""
    wide, high = np.zeros((20, 40, 3), np.uint8), np.zeros((40, 10, 3), np.uint8)
    labels, none = rows((1, 0.5, 0, 1, 1, 1)), np.zeros((0, 6), np.float32)
    scenes = [(wide, labels, None), (high, none, np.zeros((0, 40, 10)))]
    sheet = plot.contact_sheet(scenes, ("a", "b"), columns=4, side=80)
    assert sheet.size == (80 + 8 + 80, 80)
    drawn = np.asarray(sheet).astype(int)
    assert (drawn[[0, 19, 60, 79], 10] == 255).all()
    assert (drawn[20:60, 10] == 0).all()
    color = Image.new("RGB", (1, 1), plot.COLORS[1]).getpixel((0, 0))
    assert (drawn[59, 41:80] == color).all()
    assert (drawn[:, 88 + 30 : 88 + 50] == 0).all()
    assert (drawn[:, 88 : 88 + 30] == 255).all()
    thin = [(np.zeros((2, 2000, 3), np.uint8), labels, None)]
    assert plot.contact_sheet(thin, ("a", "b"), side=80).size == (80, 80)
    with pytest.raises(ValueError, match="pictures: expected one picture or more, got none"):
        plot.contact_sheet([], ("a",))


def test_grid_places_images_row_by_row():
    red, blue = (Image.new("RGB", (4, 3), name) for name in ("red", "blue"))
    sheet = plot.grid([red, blue, blue], columns=2, gap=1)
    assert sheet.size == (4 + 1 + 4, 3 + 1 + 3)
    colors = [sheet.getpixel(at) for at in ((0, 0), (5, 0), (0, 4), (5, 4), (4, 0))]
    assert colors == [(255, 0, 0), (0, 0, 255), (0, 0, 255), (255,) * 3, (255,) * 3]


def test_show_segmentation_places_image_prediction_and_label():
    image = np.full((4, 5, 3), 7, np.uint8)
    label = np.zeros((4, 5), np.int32)
    palette = np.zeros((256, 3), np.uint8)
    palette[1] = 128, 0, 0
    picture = plot.show_segmentation(image, label + 1, label, palette)
    assert picture.size == (3 * 5 + 2 * 4, 4)
    parts = [picture.getpixel((x, 3)) for x in (0, 4, 9, 13, 18, 22)]
    assert parts == [(7, 7, 7)] * 2 + [(128, 0, 0)] * 2 + [(0, 0, 0)] * 2
    assert picture.getpixel((5, 0)) == picture.getpixel((17, 0)) == (255, 255, 255)


def test_bbox_to_rect_gives_corner_and_size(pyplot):
    rect = plot.bbox_to_rect((60, 45, 378, 516), "blue")
    assert (rect.get_xy(), rect.get_width(), rect.get_height()) == ((60, 45), 318, 471)
    assert rect.get_edgecolor() == (0, 0, 1, 1)
    assert not rect.get_fill()
    assert rect.get_linewidth() == 2


def boxes_of(axes):
    return [(*p.get_xy(), p.get_width(), p.get_height()) for p in axes.patches]


def test_show_bboxes_draws_boxes_and_their_labels(pyplot):
    """The colors repeat after five boxes. Only the first two of six boxes have labels."""
    axes = pyplot.figure().add_subplot()
    boxes = np.array([[i, 2 * i, i + 10, 2 * i + 5] for i in range(6)], np.float32)
    plot.show_bboxes(axes, boxes, ["dog=0.9", "cat"])
    assert boxes_of(axes) == [(i, 2 * i, 10, 5) for i in range(6)]
    colors = [patch.get_edgecolor() for patch in axes.patches]
    assert len(set(colors)) == 5
    assert colors[0] == colors[5]
    texts = [(t.get_text(), t.get_position(), t.get_color()) for t in axes.texts]
    assert texts == [("dog=0.9", (0, 0), "w"), ("cat", (1, 2), "w")]


def test_show_bboxes_accepts_one_label_and_one_color(pyplot):
    axes = pyplot.figure().add_subplot()
    plot.show_bboxes(axes, [(0, 0, 1, 1), (1, 1, 2, 2)], "0.95", "w")
    assert {patch.get_edgecolor() for patch in axes.patches} == {(1, 1, 1, 1)}
    assert [(t.get_text(), t.get_color()) for t in axes.texts] == [("0.95", "k")]


def test_show_bboxes_accepts_an_array_of_mxnet(pyplot, mx):
    axes = pyplot.figure().add_subplot()
    plot.show_bboxes(axes, mx.nd.array([[1, 2, 4, 6]]) * 10)
    assert boxes_of(axes) == [(10, 20, 30, 40)]


@pytest.mark.parametrize(
    ("num_rows", "num_cols"), [(2, 3), (1, 2), (1, 1)], ids=["2 x 3", "1 x 2", "1 x 1"]
)
def test_show_images_places_images_row_by_row(pyplot, num_rows, num_cols):
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(6)]
    axes = plot.show_images(images, num_rows, num_cols, scale=1.5)
    assert axes.shape == (num_rows, num_cols)
    size = axes[0, 0].figure.get_size_inches().tolist()
    assert size == [1.5 * num_cols, 1.5 * num_rows]
    for number, place in enumerate(axes.flatten()):
        assert (np.asarray(place.images[0].get_array()) == number).all()
        assert not place.xaxis.get_visible()


def test_show_images_rejects_too_few_images(pyplot):
    with pytest.raises(ValueError, match="imgs: expected 2 x 2 images or more, got 3"):
        plot.show_images([np.zeros((4, 4, 3))] * 3, 2, 2)


def test_apply_shows_results_of_a_transform(pyplot):
    counts = iter(range(100))
    image = np.zeros((4, 4, 3), np.uint8)
    axes = plot.apply(image, lambda x: x + np.uint8(next(counts)), num_rows=2, num_cols=3)
    assert axes[0, 0].figure.get_size_inches().tolist() == [4.5, 3]
    shown = [np.asarray(place.images[0].get_array()).max() for place in axes.flat]
    assert shown == [0, 1, 2, 3, 4, 5]
    assert plot.apply(image, lambda x: x).shape == (2, 4)


def test_draw_panels_has_a_panel_for_each_title(pyplot):
    panels = {"train": {"a": [3, 2, 1], "b": [1.5]}, "test": {"a": [4, 5]}}
    figure = plot.draw_panels(panels, "epoch")
    assert [axes.get_title() for axes in figure.axes] == ["train", "test"]
    for axes, curves in zip(figure.axes, panels.values()):
        assert axes.get_xlabel() == "epoch"
        for line, (label, values) in zip(axes.lines, curves.items()):
            assert line.get_label() == label
            assert line.get_xdata().tolist() == list(range(1, len(values) + 1))
            assert line.get_ydata().tolist() == values


def test_display_anchors_draws_the_anchors_of_each_cell(pyplot):
    """The 2 x 1 cells have centers (1/4, 1/2) and (3/4, 1/2) of 80 x 40, with 3 anchors each.

    The first anchor has sides of 0.5 of the height: 20 x 20.
    """
    axes = plot.display_anchors(np.zeros((40, 80, 3), np.uint8), fmap_w=2, fmap_h=1, s=[0.5])
    boxes = np.array(boxes_of(axes))
    assert boxes.shape == (6, 4)
    centers = boxes[:, :2] + boxes[:, 2:] / 2
    np.testing.assert_allclose(centers, [(20, 20)] * 3 + [(60, 20)] * 3, rtol=1e-5)
    np.testing.assert_allclose(boxes[0], (10, 10, 20, 20), rtol=1e-5)
    # The ratios of width to height are 1, 2 and 1/2.
    np.testing.assert_allclose(boxes[:3, 2] / boxes[:3, 3], [1, 2, 0.5], rtol=1e-5)


def test_display_draws_boxes_from_the_threshold_on(pyplot):
    found = rows(
        (0, 0.9, 1, 2, 4, 6), (1, 0.5, 0, 0, 3, 3), (-1, 0.9, 0, 0, 8, 8), (0, 0.4, *[1] * 4)
    )
    axes = plot.display(np.zeros((8, 8, 3), np.uint8), found, threshold=0.5)
    assert boxes_of(axes) == [(1, 2, 3, 4), (0, 0, 3, 3)]
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.50"]


def test_error_without_matplotlib_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "cvops[demo]"')):
        plot.bbox_to_rect((0, 0, 1, 1), "blue")


def test_curves_have_the_losses_and_their_names():
    pytest.importorskip("matplotlib")
    history = np.array([[1.0, 0.0], [0.5, 2.0]])
    axes = plot.curves(history, ["a", "b"])
    shown = [line.get_ydata() for line in axes.lines]
    np.testing.assert_array_equal(shown, [[1, 0.5], [np.nan, 2]])  # no logarithm of 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_yscale() == "log"


def test_curves_without_a_name_for_each_column_are_refused():
    with pytest.raises(ValueError, match=r"^history: expected"):
        plot.curves(np.ones((3, 2)), ["a"])
