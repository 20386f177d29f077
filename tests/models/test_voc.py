"""The reading of VOC data: colors and class indices, files, the book's table of colors."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL")

from image_cases import save_on_its_side
from PIL import Image
from voc_cases import CAT, palette_image, plain, write_tree

from cvops import voc
from cvops._mxnet import mxnet

mx = mxnet()

# --- colors ---------------------------------------------------------------------------------------


def test_colors_are_those_of_voc():
    assert len(voc.VOC_CLASSES) == len(voc.VOC_COLORMAP) == 21
    for name, color in [
        ("background", (0, 0, 0)),
        ("aeroplane", (128, 0, 0)),
        ("cat", (64, 0, 0)),
        ("person", (192, 128, 128)),
        ("tv/monitor", (0, 64, 128)),
    ]:
        assert tuple(voc.VOC_COLORMAP[voc.VOC_CLASSES.index(name)]) == color
    assert tuple(voc.VOC_PALETTE[voc.VOC_VOID]) == (224, 224, 192)
    assert len({tuple(color) for color in voc.VOC_PALETTE}) == 256


@pytest.mark.parametrize("void", [0, 255])
def test_label_indices_are_those_of_the_colors(void):
    colors = np.array([[(0, 0, 0), (128, 0, 0)], [(224, 224, 192), (0, 64, 128)]], np.uint8)
    label = voc.voc_label_indices(colors, void=void)
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, [[0, 1], [void, 20]])
    again = voc.voc_label_indices(mx.nd.array(colors, dtype=np.uint8), void=void)
    assert again.dtype == np.int32
    np.testing.assert_array_equal(again.asnumpy(), label)


def test_label2image_inverts_voc_label_indices():
    label = np.random.default_rng(0).permutation([*range(21), voc.VOC_VOID]).reshape(2, 11)
    colors = voc.label2image(label)
    assert colors.dtype == np.uint8
    np.testing.assert_array_equal(voc.voc_label_indices(colors, void=voc.VOC_VOID), label)
    np.testing.assert_array_equal(voc.label2image(mx.nd.array(label)), colors)


@pytest.mark.parametrize("index", [-1, 21, 254, 256, 0.5])
def test_label2image_rejects_an_unknown_index(index):
    with pytest.raises(ValueError, match=f"label: expected class indices.*got {index}"):
        voc.label2image(np.array([0, index]))


# --- reading --------------------------------------------------------------------------------------


def every_class():
    index = np.arange(22).reshape(2, 11)
    index[1, 10] = voc.VOC_VOID
    return index


def reordered_palette(index):
    """A label image whose palette has the order of the first use, as image optimizers write it."""
    colors = Image.fromarray(voc.label2image(index))
    return colors.quantize(22, dither=Image.Dither.NONE)


LABELS = {
    "palette": palette_image,
    "reordered palette": reordered_palette,
    "rgb": lambda index: Image.fromarray(voc.label2image(index)),
    "rgba": lambda index: Image.fromarray(voc.label2image(index)).convert("RGBA"),
    "8-bit index": lambda index: Image.fromarray(index.astype(np.uint8)),
    "16-bit index": lambda index: Image.fromarray(index.astype(np.uint16)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_label_is_read_from_colors_and_from_indices(tmp_path, kind):
    index = every_class()
    write_tree(tmp_path, [(np.zeros((2, 11, 3), np.uint8), LABELS[kind](index))])
    (image,), (colors,) = voc.read_voc_images(tmp_path)
    assert image.shape == colors.shape == (2, 11, 3)
    assert image.dtype == colors.dtype == np.uint8
    np.testing.assert_array_equal(voc.label2image(index), colors.asnumpy())
    dataset = voc.VOCSegDataset(True, (2, 11), tmp_path, void=voc.VOC_VOID)
    np.testing.assert_array_equal(dataset[0][1], index)


def other_palette():
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).convert("L")
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    return image


def transparent():
    return Image.new("RGBA", (4, 1), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (other_palette, r"expected VOC's colors, got \(1, 1, 1\) in 3 pixels"),
        # (96, 64, 64) is between background and person.
        (
            lambda: Image.fromarray(
                np.array([[(0, 0, 0), (96, 64, 64), (192, 128, 128), (0, 0, 0)]], np.uint8)
            ),
            r"expected VOC's colors, got \(96, 64, 64\) in 1 pixels",
        ),
        (
            lambda: Image.fromarray(np.array([[0, 20, 255, 21]], np.uint8)),
            "expected VOC's class indices, 0 to 20 or 255, got 21 in 1 pixels",
        ),
        (
            lambda: Image.fromarray(np.array([[0, 300, 0, 0]], np.uint16)),
            "expected VOC's class indices, 0 to 20 or 255, got 300 in 1 pixels",
        ),
        (transparent, r"expected VOC's colors, got \(255, 255, 255\) in 4 pixels"),
        (lambda: Image.new("1", (4, 1)), "expected a label of .*, got mode 1"),
        (lambda: Image.new("LA", (4, 1)), "expected a label of .*, got mode LA"),
    ],
    ids=["palette", "antialiased", "index 21", "index 300", "transparent", "1-bit", "LA"],
)
def test_label_without_vocs_colors_is_rejected(tmp_path, label, message):
    write_tree(tmp_path, [(np.zeros((1, 4, 3), np.uint8), label())])
    dataset = voc.VOCSegDataset(True, (1, 4), tmp_path)
    for read in (
        lambda: dataset[0],
        lambda: dataset.image(0),
        lambda: voc.read_voc_images(tmp_path),
    ):
        with pytest.raises(ValueError, match=f"0.png: {message}"):
            read()


def test_image_is_turned_by_its_exif_orientation(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    index = np.zeros((16, 32), int)
    index[:, 16:] = CAT
    write_tree(tmp_path, [(image, palette_image(index))])
    save_on_its_side(tmp_path / "JPEGImages" / "0.jpg", Image.fromarray(image))
    dataset = voc.VOCSegDataset(True, (16, 32), tmp_path)
    pixels, label = dataset.image(0)
    np.testing.assert_array_equal(pixels[:, :, 0] > 127, label == CAT)
    np.testing.assert_array_equal(pixels, voc.read_voc_images(tmp_path)[0][0].asnumpy())
    palette_image(index.T).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected .* 16 x 32, got 32 x 16"):
        voc.VOCSegDataset(True, (16, 16), tmp_path)
    with pytest.raises(ValueError, match=r"0.png: expected .* 16 x 32, got 32 x 16"):
        voc.read_voc_images(tmp_path)


# --- files ----------------------------------------------------------------------------------------


def test_read_voc_images_keeps_the_order_of_the_split(tmp_path):
    write_tree(tmp_path, [plain(4, 4, gray) for gray in (10, 60, 200)])
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2\n0\n")
    train, val = (voc.read_voc_images(tmp_path, is_train)[0] for is_train in (True, False))
    assert [int(image[0, 0, 0].asscalar()) for image in train] == [10, 60, 200]
    assert [int(image[0, 0, 0].asscalar()) for image in val] == [200, 10]
    # ``root`` is the name of the argument in the first edition of the book.
    again = voc.read_voc_images(root=tmp_path)[0]
    assert [int(image[0, 0, 0].asscalar()) for image in again] == [10, 60, 200]


@pytest.mark.parametrize(
    "gone", ["ImageSets/Segmentation/train.txt", "JPEGImages/1.jpg", "SegmentationClass/1.png"]
)
def test_missing_file_is_reported_with_its_path(tmp_path, gone):
    write_tree(tmp_path, [plain(4, 4)] * 2)
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{gone}: no such file; voc_dir is the folder"):
        voc.VOCSegDataset(True, (4, 4), tmp_path)
    with pytest.raises(FileNotFoundError, match=gone):
        voc.read_voc_images(tmp_path)


@pytest.mark.parametrize("inside", ["VOC2012", "VOCdevkit/VOC2012"])
def test_parent_folder_is_rejected_with_the_right_folder(tmp_path, inside):
    write_tree(tmp_path / inside, [plain(4, 4)])
    with pytest.raises(FileNotFoundError, match=rf"voc_dir should be .*/{inside}$"):
        voc.VOCSegDataset(True, (4, 4), str(tmp_path))


def test_bad_file_is_rejected(tmp_path):
    voc_dir = write_tree(tmp_path, [plain(4, 4)])
    label = tmp_path / "SegmentationClass" / "0.png"
    palette_image(np.zeros((4, 5))).save(label)
    with pytest.raises(ValueError, match=r"0.png: expected .* 4 x 4, got 4 x 5"):
        voc.VOCSegDataset(True, (4, 4), voc_dir)
    names = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    names.write_bytes(b"\xff\xfe0\0")
    with pytest.raises(ValueError, match=r"val.txt: not a list of names in UTF-8"):
        voc.VOCSegDataset(False, (4, 4), voc_dir)
    names.write_bytes(b"\xef\xbb\xbf0\r\n")  # with a byte order mark and CRLF, as on Windows
    assert len(voc.VOCSegDataset(False, (4, 4), write_tree(tmp_path, [plain(4, 4)]))) == 1
    for content, message in ((b"not an image", "not an image that"), (b"", "an empty file")):
        label.write_bytes(content)
        with pytest.raises(ValueError, match=f"0.png: {message}"):
            voc.VOCSegDataset(True, (4, 4), voc_dir)


def test_damaged_image_is_rejected_when_its_item_is_read(tmp_path):
    """A truncated file has a good header, so the data set can be made."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_tree(tmp_path, [plain(64, 64), (noise, plain(64, 64)[1])])
    path = tmp_path / "JPEGImages" / "1.jpg"
    path.write_bytes(path.read_bytes()[:3000])
    dataset = voc.VOCSegDataset(True, (32, 32), tmp_path)
    assert dataset[0][0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match=r"1.jpg: not an image that can be read"):
        dataset[1]


# --- the book's table -----------------------------------------------------------------------------


def table(colormap):
    """The book's table as a NumPy array: the class of each of 2**24 colors."""
    colormap2label = np.zeros(256**3)
    for i, color in enumerate(colormap):
        colormap2label[(color[0] * 256 + color[1]) * 256 + color[2]] = i
    return colormap2label


def test_table_of_vocs_colors_gives_the_same_labels(tmp_path):
    index = every_class()
    colors, book = voc.label2image(index), table(voc.VOC_COLORMAP)
    expected = np.where(index == voc.VOC_VOID, 0, index)
    for given in (colors, colors.astype(np.int32)):
        np.testing.assert_array_equal(voc.voc_label_indices(given, book), expected)
    label = voc.voc_label_indices(mx.nd.array(colors, dtype=np.uint8), mx.nd.array(book))
    assert isinstance(label, mx.nd.NDArray)
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label.asnumpy(), expected)
    write_tree(tmp_path, [(colors, palette_image(index))])
    for void in (0, voc.VOC_VOID):
        dataset = voc.VOCSegDataset(True, (2, 11), tmp_path, mx.nd.array(book), void=void)
        plain_set = voc.VOCSegDataset(True, (2, 11), tmp_path, void=void)
        np.testing.assert_array_equal(dataset[0][1], plain_set[0][1])
    other_palette().resize((11, 2)).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected VOC's colors, got \(1, 1, 1\)"):
        dataset[0]


def test_table_of_other_colors_replaces_vocs_colors(tmp_path):
    colors = np.array([[(255, 255, 255), (9, 8, 7), (0, 0, 1), (3, 3, 3)]], np.uint8)
    own = table(colors[0, :3])
    write_tree(tmp_path, [(colors, Image.fromarray(colors))])
    dataset = voc.VOCSegDataset(True, (1, 4), tmp_path, own)
    np.testing.assert_array_equal(dataset[0][1], [[0, 1, 2, 0]])
    with pytest.raises(ValueError, match="void: expected 0 with colormap2label, got 255"):
        voc.VOCSegDataset(True, (1, 4), tmp_path, own, void=255)
    Image.new("L", (4, 1)).save(tmp_path / "SegmentationClass" / "0.png")
    with pytest.raises(ValueError, match=r"0.png: expected colors, for colormap2label, got class"):
        dataset[0]


def test_bad_table_is_rejected(tmp_path):
    colors = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"colormap2label: expected shape \(16777216,\), got \(21"):
        voc.voc_label_indices(colors, voc.VOC_COLORMAP)
    with pytest.raises(ValueError, match="void: expected 0 with colormap2label, got 255"):
        voc.voc_label_indices(colors, table(voc.VOC_COLORMAP), void=255)
    with pytest.raises(ValueError, match="colormap: expected 0 to 255, got 0 to 256"):
        voc.voc_label_indices(np.full((1, 1, 3), (0, 0, 256)), table(voc.VOC_COLORMAP))
    with pytest.raises(ValueError, match=r"colormap: expected shape \(height, width, 3\), got \(2"):
        voc.voc_label_indices(colors[:, :, :2], table(voc.VOC_COLORMAP))
