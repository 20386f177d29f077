"""The reader of images: the rule for each kind of file, and bad files."""

import io
import os
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("PIL")

from image_cases import save_on_its_side
from PIL import Image

from cvops import images

#: Six pixels of different colors. Each orientation gives a different image.
PIXELS = np.array(
    [
        [(250, 10, 20), (30, 240, 40), (50, 60, 230)],
        [(240, 230, 10), (10, 220, 210), (220, 30, 200)],
    ],
    np.uint8,
)


def save(path, image, **options):
    image.save(path, **options)
    return path


def rgb(image):
    return np.asarray(image).tolist()


# --- EXIF orientation -----------------------------------------------------------------------------

#: EXIF orientation -> the pixels in a file whose upright image is PIXELS.
STORED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS),
    7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90(PIXELS, -1),
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_image_is_turned_by_its_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    path = save(tmp_path / f"photo.{suffix}", stored, exif=exif, **options)
    image = images.read_image(path)
    assert rgb(image) == PIXELS.tolist()
    assert rgb(images.to_rgb(image)) == PIXELS.tolist()  # an upright image is not turned again
    assert images.image_size(path) == (2, 3)
    assert rgb(images.decode_image(path.read_bytes())) == PIXELS.tolist()
    with Image.open(path) as opened:
        assert rgb(images.to_rgb(opened)) == PIXELS.tolist()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_exif_orientation_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "photo.png", Image.fromarray(PIXELS), exif=exif)
    assert rgb(images.read_image(path)) == PIXELS.tolist()
    assert images.image_size(path) == (2, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "damage",
    [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish"],
    ids=["empty", "bad offset", "text"],
)
def test_damaged_exif_data_is_ignored(tmp_path, damage):
    path = save(tmp_path / "photo.jpg", Image.fromarray(PIXELS), exif=damage, quality=100)
    plain = save(tmp_path / "plain.jpg", Image.fromarray(PIXELS), quality=100)
    assert rgb(images.read_image(path)) == rgb(images.read_image(plain))
    assert images.image_size(path) == (2, 3)


# --- modes ----------------------------------------------------------------------------------------


def palette(transparent=None):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("L")
    image.putpalette([10, 20, 30, 200, 100, 50])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def array(values, dtype):
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (array([7, 200], np.uint8), "png", [(7,) * 3, (200,) * 3]),
        (array([0, 255], np.uint8).convert("1"), "png", [(0,) * 3, (255,) * 3]),
        (palette(), "png", [(10, 20, 30), (200, 100, 50)]),
        (palette(), "gif", [(10, 20, 30), (200, 100, 50)]),
        # (255 - 55) (255 - 51) / 255 = 160; (255 - 0) (255 - 51) / 255 = 204.
        (array([(55, 0, 255, 51)] * 2, np.uint8), "cmyk", [(160, 204, 0)] * 2),
        # Blended over white: 0.2 x 50 + 0.8 x 255 = 214.
        (array([(50, 0, 255, 51), (9, 9, 9, 0)], np.uint8), "png", [(214, 204, 255), (255,) * 3]),
        (array([(8, 255), (8, 0)], np.uint8), "la", [(8,) * 3, (255,) * 3]),
        (palette(transparent=1), "png", [(10, 20, 30), (255,) * 3]),
        # The high bytes are 256 -> 1, 511 -> 1, 65535 -> 255.
        (array([255, 256, 511, 65535], np.uint16), "png", [(v,) * 3 for v in (0, 1, 1, 255)]),
        (array([0, 32768, 65535], np.uint16), "tiff", [(v,) * 3 for v in (0, 128, 255)]),
        (array([0, 32768, 65535], np.int32), "tiff", [(v,) * 3 for v in (0, 128, 255)]),
        # 0.5 * 255 = 127.5, rounded to even.
        (array([0, 0.5, 0.2, 1], np.float32), "tiff", [(v,) * 3 for v in (0, 128, 51, 255)]),
    ],
    ids=[
        *("gray", "1 bit", "palette", "gif", "cmyk", "rgba", "gray alpha", "clear palette entry"),
        *("16-bit png", "16-bit tiff", "32-bit tiff", "float"),
    ],
)
def test_image_of_each_mode_becomes_rgb(tmp_path, image, suffix, expected):
    if suffix == "cmyk":
        image, suffix = Image.frombytes("CMYK", image.size, image.tobytes()), "tiff"
    if suffix == "la":
        image, suffix = Image.frombytes("LA", (2, 1), image.tobytes()), "png"
    path = save(tmp_path / f"image.{suffix}", image)
    for read in (
        images.read_image(path),
        images.decode_image(path.read_bytes()),
        images.to_rgb(image),
    ):
        assert read.mode == "RGB"
        assert rgb(read) == [list(map(list, expected))]


def write_png(path, width, bits, color_type, row):
    """Write one row of pixels in a form that Pillow cannot write."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, color_type, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )
    return path


def test_16_bit_color_becomes_its_high_byte(tmp_path):
    path = write_png(tmp_path / "deep.png", 1, 16, 2, struct.pack(">HHH", 1000, 32768, 65535))
    assert rgb(images.read_image(path)) == [[[3, 128, 255]]]


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_2_and_4_bits_is_an_image_but_no_label(tmp_path, bits):
    """The pixels are 1 and 0. In an image, 1 becomes 255 / (2**bits - 1)."""
    path = write_png(tmp_path / "gray.png", 2, bits, 0, bytes([1 << (8 - bits)]))
    assert rgb(images.read_image(path)) == [[[255 // (2**bits - 1)] * 3, [0] * 3]]
    with pytest.raises(
        ValueError, match=f"gray.png: expected a label of 8 or 16 bits, got L;{bits}"
    ):
        images.read_label(path)


def test_first_of_several_frames_is_read(tmp_path):
    frames = [Image.new("RGB", (2, 1), color) for color in ("red", "blue")]
    path = save(tmp_path / "two.tiff", frames[0], save_all=True, append_images=frames[1:])
    assert rgb(images.read_image(path)) == [[[255, 0, 0]] * 2]


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([0, 255], np.float32, "expected float pixels of 0 to 1, got 0.0 to 255.0"),
        ([-0.5, 1], np.float32, "expected float pixels of 0 to 1, got -0.5 to 1.0"),
        ([np.nan, 1], np.float32, "expected float pixels of 0 to 1, got nan to nan"),
        ([0, 65536], np.int32, "expected integer pixels of 0 to 65535, got 0 to 65536"),
        ([-1, 5], np.int32, "expected integer pixels of 0 to 65535, got -1 to 5"),
    ],
    ids=["float 255", "negative float", "nan", "integer 65536", "negative integer"],
)
def test_pixels_without_a_rule_are_rejected(tmp_path, values, dtype, message):
    path = save(tmp_path / "odd.tiff", array(values, dtype))
    with pytest.raises(ValueError, match=f"odd.tiff: {message}"):
        images.read_image(path)
    with pytest.raises(ValueError, match=f"image: {message}"):
        images.to_rgb(array(values, dtype))


def test_mode_without_a_conversion_is_rejected():
    with pytest.raises(ValueError, match="image: mode La has no conversion to RGB"):
        images.to_rgb(Image.new("La", (2, 2)))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tiff", "webp", "bmp"])
def test_truncated_file_is_rejected_with_its_path(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"image.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    for length in (1, 10, 40, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"image.{suffix}: not an image that can be read"):
            images.read_image(path)


def test_file_that_is_no_image_is_rejected_with_its_path(tmp_path):
    path = tmp_path / "photo.jpg"
    for read in (images.read_image, images.image_size, images.read_label):
        with pytest.raises(FileNotFoundError, match=r"photo.jpg: no such file"):
            read(path)
        with pytest.raises(
            IsADirectoryError, match=f"{tmp_path.name}: a folder, not an image file"
        ):
            read(tmp_path)
    for content, message in ((b"", "an empty file"), (b"%PDF-1.4 text", "not an image that can")):
        path.write_bytes(content)
        for read in (images.read_image, images.image_size, images.read_label):
            with pytest.raises(ValueError, match=f"photo.jpg: {message}"):
                read(path)
        with pytest.raises(ValueError, match=f"record 3: {message}"):
            images.decode_image(content, "record 3")


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_device_and_pipe_are_rejected(tmp_path, kind):
    path = "/dev/zero"
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
        pipe = os.open(path, os.O_RDWR)  # a reader would wait for a writer
        os.write(pipe, b"x")
    with pytest.raises(ValueError, match=f"{path}: expected a file, got a device or pipe"):
        images.read_image(path)


def test_image_above_the_limit_is_rejected_with_its_path(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = save(tmp_path / "large.png", Image.new("1", (10, 11)))
    for read in (images.read_image, images.image_size):
        with pytest.raises(ValueError, match=r"large.png: .*110 pixels.*MAX_IMAGE_PIXELS sets the"):
            read(path)


def test_error_about_a_large_image_is_one_line(tmp_path):
    """The file has the header of an image of 14000 x 14000 pixels."""
    path = tmp_path / "large.png"
    encoded = io.BytesIO()
    Image.new("1", (8, 8)).save(encoded, "PNG")
    content = encoded.getvalue()
    header = b"IHDR" + struct.pack(">II", 14000, 14000) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(ValueError, match=r"large.png: .*196000000 pixels") as refused:
        images.read_image(path)
    assert "\n" not in str(refused.value)


def test_format_of_an_image_that_each_library_reads_alike(tmp_path):
    """Rotated, wide, transparent, palette, CMYK and other files are read in several ways."""
    rgb, gray = Image.new("RGB", (4, 3), "red"), Image.new("L", (4, 3), 7)
    clear = Image.new("P", (4, 3))
    clear.info["transparency"] = 0
    cases = {
        "a.jpg": (rgb, "JPEG"),
        "b.jpg": (gray, "JPEG"),
        "c.png": (rgb, "PNG"),
        "d.png": (gray, "PNG"),
        "e.bmp": (rgb, None),
        "f.jpg": (rgb.convert("CMYK"), None),
        "g.png": (clear, None),
        "h.png": (rgb.convert("RGBA"), None),
        "i.png": (Image.new("I;16", (4, 3)), None),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        assert images.plain_format((tmp_path / name).read_bytes()) == expected, name
    save_on_its_side(tmp_path / "j.jpg", rgb, "JPEG")
    content = (tmp_path / "j.jpg").read_bytes()
    assert images.plain_format(content) is None
    assert images.encoded_size(content) == images.image_size(tmp_path / "j.jpg") == (3, 4)
    with pytest.raises(ValueError, match="image: not an image"):
        images.plain_format(b"text")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((2, 2, 3), np.uint8),
            r"got ndarray: convert it by PIL\.Image\.fromarray\(image\)$",
        ),
        ("photo.jpg", "got str$"),
    ],
)
def test_other_objects_are_no_images(image, message):
    with pytest.raises(TypeError, match=f"^image: expected an image of Pillow, {message}"):
        images.to_rgb(image)
