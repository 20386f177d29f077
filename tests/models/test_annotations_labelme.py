"""Annotations in LabelMe JSON: boxes, masks, groups, broken files."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "pycocotools")

from annotation_cases import (  # noqa: E402
    HEIGHT,
    WIDTH,
    labelme,
    objects,
    problems,
    read,
    splits,
    write,
    write_images,
)
from PIL import Image  # noqa: E402

from cvops.datasets.annotations import masks  # noqa: E402
from cvops.datasets.annotations.base import Object  # noqa: E402


def test_labelme_shapes_are_boxes_and_masks(tmp_path):
    """The corners of a rectangle are in any order. Two shapes of a group are one object."""
    write_images(tmp_path, "train/a.jpg", "train/b.jpg")
    ring, other = [[1, 2], [5, 2], [5, 8.5]], [[10, 10], [12, 10], [12, 12]]
    shapes = [
        ("bee", "rectangle", [[30, 15], [10, 5]], {"flags": {"difficult": True}}),
        ("frog", "polygon", ring, {"group_id": 1}),
        ("bee", "circle", [[20, 10], [23, 14]], {"group_id": None}),
        ("frog", "polygon", other, {"group_id": 1}),
    ]
    write(tmp_path / "train/a.json", labelme(*shapes, imagePath="..\\train\\a.jpg"))
    found = read(tmp_path)
    rectangle, frog, circle = objects(found)["a.jpg"]
    assert rectangle == Object("bee", (10, 5, 30, 15), True)
    assert frog.box == (1, 2, 12, 12)
    assert frog.mask.rings == [[1, 2, 5, 2, 5, 8.5], [10, 10, 12, 10, 12, 12]]
    np.testing.assert_allclose(circle.box, (15, 5, 25, 15))
    area = masks.render(circle.mask, (HEIGHT, WIDTH), (HEIGHT, WIDTH)).sum()
    assert abs(area - np.pi * 25) < 8
    assert splits(found) == {"a.jpg": "train"}
    assert found.images[0].size == (20, 40)
    assert problems(found) == [("image without an annotation", "b.jpg")]


def test_box_of_an_oriented_rectangle_is_around_its_corners(tmp_path):
    write_images(tmp_path, "a.jpg")
    corners = [[10, 2], [14, 6], [9, 11], [5, 7]]
    write(tmp_path / "a.json", labelme(("bee", "oriented_rectangle", corners, {})))
    assert objects(read(tmp_path)) == {"a.jpg": [Object("bee", (5, 2, 14, 11))]}


def png(pixels):
    """Return a picture as the text of LabelMe's masks."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


BOTTOM_LEFT = np.uint8([[0, 0, 0], [1, 1, 0]])


@pytest.mark.parametrize("value", [1, 255])
def test_labelme_mask_has_the_pixels_of_its_file(tmp_path, value):
    write_images(tmp_path, "a.jpg")
    mask = {"mask": png(value * BOTTOM_LEFT)}
    write(tmp_path / "a.json", labelme(("bee", "mask", [[7, 4], [9, 5]], mask)))
    (bee,) = objects(read(tmp_path))["a.jpg"]
    assert bee.box == (7, 4, 10, 6)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[5, 7:9] = True
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)


@pytest.mark.parametrize(
    ("x", "y", "rows", "columns"),
    [
        (-1, 4, (5,), (0,)),
        (-3, 4, (), ()),
        (-50, 4, (), ()),
        (39, -1, (0,), (39,)),
        (7, -1, (0,), (7, 8)),
        (7, 19, (), ()),
        (7, 90, (), ()),
        (90, 4, (), ()),
    ],
)
def test_pixels_of_a_labelme_mask_beyond_the_border_are_cut(tmp_path, x, y, rows, columns):
    """The box is that of the file: the checks of boxes report it."""
    write_images(tmp_path, "a.jpg")
    mask = {"mask": png(BOTTOM_LEFT)}
    write(tmp_path / "a.json", labelme(("bee", "mask", [[x, y], [x + 2, y + 1]], mask)))
    (bee,) = objects(read(tmp_path))["a.jpg"]
    assert bee.box == (x, y, x + 3, y + 2)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[np.ix_(rows, columns)] = bool(rows)
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)


def test_labelme_group_has_the_pixels_of_all_its_masks(tmp_path):
    """A shape of another label or group is another object. A rectangle has no mask."""
    write_images(tmp_path, "a.jpg")
    mask, other = [{"mask": png(BOTTOM_LEFT), "group_id": group} for group in (1, 2)]
    square, far = [[10, 10], [14, 10], [14, 14], [10, 14]], [[30, 10], [34, 14]]
    shapes = [
        ("bee", "mask", [[7, 4], [9, 5]], mask),
        ("frog", "mask", [[7, 4], [9, 5]], mask),
        ("bee", "polygon", square, {"group_id": 1, "flags": {"difficult": True}}),
        ("bee", "mask", [[8, 4], [10, 5]], mask),
        ("bee", "mask", [[20, 4], [22, 5]], other),
        ("bee", "rectangle", far, {"group_id": 2}),
    ]
    write(tmp_path / "a.json", labelme(*shapes))
    bee, frog, second = objects(read(tmp_path))["a.jpg"]
    assert [x.name for x in (bee, frog, second)] == ["bee", "frog", "bee"]
    assert (bee.box, bee.difficult) == ((7, 4, 14, 14), True)
    assert (frog.box, frog.difficult) == ((7, 4, 10, 6), False)
    assert (second.box, second.mask) == ((20, 4, 34, 14), None)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[5, 7:10] = want[10:14, 10:14] = True
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)
    half = masks.render(bee.mask, (HEIGHT // 2, WIDTH // 2), want.shape)
    np.testing.assert_array_equal(half[5:7, 4:8], [[0, 1, 1, 0], [0, 1, 1, 0]])


@pytest.mark.parametrize("mode", ["P", "I;16", "RGB", "LA"])
def test_labelme_mask_may_have_another_mode(tmp_path, mode):
    """A pixel of one channel is in the mask if its number is not 0, as in LabelMe."""
    write_images(tmp_path, "a.jpg")
    picture = Image.fromarray(BOTTOM_LEFT * np.uint8(1 if mode in ("P", "I;16") else 255))
    if mode == "P":
        picture.putpalette([0, 0, 0] * 256)
    file = io.BytesIO()
    (picture if mode == "P" else picture.convert(mode)).save(file, "PNG")
    mask = {"mask": base64.b64encode(file.getvalue()).decode()}
    write(tmp_path / "a.json", labelme(("bee", "mask", [[7.9, 4.6], [9.9, 5.6]], mask)))
    (bee,) = objects(read(tmp_path))["a.jpg"]
    assert bee.box == (7, 4, 10, 6)
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[5, 7:9] = True
    np.testing.assert_array_equal(masks.render(bee.mask, want.shape, want.shape), want)


@pytest.mark.parametrize("density", [0, 0.5, 0.9, 1])
def test_run_lengths_are_those_of_the_pixels_in_the_image(density):
    rng = np.random.default_rng(1)
    for _ in range(200):
        size, (height, width) = rng.integers(1, 6, 2), rng.integers(1, 8, 2)
        top, left = rng.integers(-9, 9, 2)
        pixels = rng.random((height, width)) < density
        canvas = np.zeros((30, 30), bool)
        canvas[10 + top : 10 + top + height, 10 + left : 10 + left + width] = pixels
        inside = canvas[10 : 10 + size[0], 10 : 10 + size[1]]
        code = masks.run_lengths(pixels, (int(top), int(left)), tuple(size.tolist()))
        assert 0 not in code.counts[1:]
        masks.check_run_lengths(code, "mask")
        np.testing.assert_array_equal(masks.render(code, inside.shape, inside.shape), inside)


def test_small_mask_of_a_large_image_needs_little_memory():
    code = masks.run_lengths(np.ones((2, 2), bool), (5, 3), (60_000, 70_000))
    assert code.counts == [180_005, 2, 59_998, 2, 60_000 * 70_000 - 240_007]
    assert masks.run_lengths(np.ones((2, 2), bool), (10**300, -(10**300)), (2, 3)).counts == [6]


def chunk(kind, content):
    """Return a chunk of a PNG file."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


MASK = {"mask": png(BOTTOM_LEFT)}
#: A mask of 2^32 pixels, whose file has none of them.
LARGE = base64.b64encode(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**16, 2**16, 1, 0, 0, 0, 0))
    + chunk(b"IDAT", b"")
).decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (labelme(("bee", "mask", [[1, 2], [3, 3]], {})), "expected a mask in base64, got None"),
        (labelme(("bee", "mask", [[1, 2], [3, 3]], {"mask": "?"})), "expected a PNG file"),
        (
            labelme(("bee", "mask", [[1, 2], [3, 3]], {"mask": "AAAA"})),
            "cannot identify image file",
        ),
        (
            labelme(("bee", "mask", [[1, 2], [3, 3]], MASK), imageHeight=None),
            "expected imageHeight and imageWidth",
        ),
        (
            labelme(("bee", "mask", [[1, 2], [3, 3]], MASK), imageHeight=2**16, imageWidth=2**16),
            "expected imageHeight and imageWidth with a mask, got 65536 and 65536",
        ),
        (
            labelme(("bee", "mask", [[1, 2], [3, 3]], {"mask": LARGE})),
            "expected a PNG file as its mask: Image size",
        ),
        (labelme(("bee", "line", [[1, 2], [3, 4]], {})), "got 'line' of 2"),
        (labelme(("bee", "polygon", [[1, 2], [3, 4]], {})), "got 'polygon' of 2"),
        (labelme(("bee", "oriented_rectangle", [[1, 2], [3, 4]], {})), "got 'oriented_rectangle'"),
        (labelme(("", "rectangle", [[1, 2], [3, 4]], {})), "shape 0: expected a label, got ''"),
        (labelme(("bee", "rectangle", [[1, 2], [3]], {})), "expected 2 finite numbers, got"),
        (labelme(("bee", "rectangle", None, {})), "expected points, got None"),
        ({"shapes": [3]}, "expected an object, got 3"),
        ({"shapes": 3}, "expected a list 'shapes'"),
    ],
)
def test_broken_file_of_labelme_is_a_problem(tmp_path, content, message):
    write_images(tmp_path, "a.jpg")
    write(tmp_path / "a.json", content)
    found = read(tmp_path)
    assert problems(found) == [("annotation cannot be read", "a.json")]
    assert message in found.problems[0].message
    assert found.images == []
