"""The fully convolutional networks, prediction with them, and their demo on a small scale."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import importlib.util
import math
import re

import numpy as np
import pytest

NEEDS = ("mxnet", "skimage", "PIL", "tqdm")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"no {', '.join(MISSING)} here", allow_module_level=True)

from PIL import Image

from cvops import checkpoint, cli, demo_fcn, plot, voc
from cvops._mxnet import mxnet
from cvops.models import FCN, fcn

mx = mxnet()
nn = mx.gluon.nn
OPS = ("cvops", "mxnet")


def make_net(seed=0, **options):
    mx.random.seed(seed)
    net = FCN(5, **options)
    net.initialize()
    return net


def random_array(*shape, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape))


# --- upsampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),  # 1 - 0.5 / 1
        (3, [0.5, 1, 0.5]),  # 1 - 1 / 2
        (4, [0.25, 0.75, 0.75, 0.25]),  # 1 - 1.5 / 2, 1 - 0.5 / 2
    ],
)
def test_bilinear_kernel_by_hand(size, line):
    weight = fcn.bilinear_kernel(2, 2, size).asnumpy()
    assert weight.shape == (2, 2, size, size)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight[0, 0], np.outer(line, line))
    np.testing.assert_array_equal(weight[1, 1], np.outer(line, line))
    assert not weight[0, 1].any()
    assert not weight[1, 0].any()


def test_bilinear_kernel_refuses_unequal_channels():
    with pytest.raises(ValueError, match="out_channels: expected in_channels, 3, got 2"):
        fcn.bilinear_kernel(3, 2, 4)


def transposed(channels, scale):
    """The book's layer."""
    size = 2 * scale - scale % 2
    layer = nn.Conv2DTranspose(channels, size, scale, scale // 2, in_channels=channels)
    layer.initialize()
    layer.weight.set_data(fcn.bilinear_kernel(channels, channels, size))
    return layer


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("scale", [1, 2, 3, 8, 32])
def test_upsampling_is_the_transposed_convolution(ops, hybrid, scale):
    x = random_array(2, 3, 4, 5)
    layers = fcn.BilinearUpsample(3, scale, ops), transposed(3, scale)
    results, gradients = [], []
    for layer in layers:
        layer.hybridize(hybrid)
        x.attach_grad()
        with mx.autograd.record():
            y = layer(x)
        y.backward(random_array(*y.shape, seed=1))
        results.append(y.asnumpy())
        gradients.append(x.grad.asnumpy())
    assert results[0].shape == (2, 3, 4 * scale, 5 * scale)
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("ops", OPS)
def test_upsampling_by_hand(ops):
    """Twice: each pixel is 3/4 of the near one and 1/4 of the next, which is 0 outside."""
    y = fcn.BilinearUpsample(1, 2, ops)(mx.nd.array([[[[16, 32]]]])).asnumpy()
    row = 0.75 * np.array([12, 12 + 8, 4 + 24, 24])
    np.testing.assert_array_equal(y[0, 0], [row, row])


def test_initializer_is_the_kernel():
    layer = nn.Conv2DTranspose(3, 8, 4, 2, in_channels=3, weight_initializer=fcn.BilinearKernel())
    layer.initialize(mx.init.Xavier())
    weight = layer.weight.data().asnumpy()
    np.testing.assert_array_equal(weight, fcn.bilinear_kernel(3, 3, 8).asnumpy())


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", ["bilinear", "transposed"])
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(64, 96), (32, 32), (70, 33), (9, 1)], ids=str)
def test_scores_are_of_the_images_size(upsample, stride, size):
    net = make_net(upsample=upsample, stride=stride)
    assert net(mx.nd.zeros((2, 3, *size))).shape == (2, 5, *size)


def test_shapes_of_the_book():
    """An image of 320 x 480 has features of 512 x 10 x 15."""
    net = FCN()
    net.initialize()
    images = mx.nd.zeros((1, 3, 320, 480))
    assert net.features(images).shape == (1, 512, 10, 15)
    assert net(images).shape == (1, 21, 320, 480)


def test_fcn_32s_is_the_books_sequence():
    net = make_net(upsample="transposed")
    book = nn.HybridSequential()
    book.add(*net.features, net.score, transposed(5, 32))
    x = random_array(1, 3, 64, 96)
    np.testing.assert_array_equal(net(x).asnumpy(), book(x).asnumpy())


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_hybridizing_changes_nothing(stride):
    net, x = make_net(stride=stride), random_array(2, 3, 45, 64)
    expected = net(x).asnumpy()
    net.hybridize(static_alloc=True)
    for _ in range(2):
        np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [16, 8])
def test_skip_connections(stride):
    """0 at first; then each adds its own map's scores, upsampled by its own stride."""
    net, x = make_net(stride=stride), random_array(1, 3, 64, 64)
    coarse = net.score(net.features(x))
    for _ in range(len(net.skip_scores)):
        coarse = fcn.BilinearUpsample(5, 2)(coarse)
    before = fcn.BilinearUpsample(5, stride)(coarse).asnumpy()
    np.testing.assert_allclose(net(x).asnumpy(), before, rtol=0, atol=1e-5)

    layers = 8 if stride == 16 else 7  # through the stage whose map has this stride
    for i in range(layers):
        x = finer = net.features[i](x if i else random_array(1, 3, 64, 64))
    assert finer.shape[2:] == (64 // stride, 64 // stride)
    net.skip_scores[-1].weight.set_data(mx.nd.random.normal(shape=(5, finer.shape[1], 1, 1)))
    change = fcn.BilinearUpsample(5, stride)(net.skip_scores[-1](finer)).asnumpy()
    after = net(random_array(1, 3, 64, 64)).asnumpy()
    np.testing.assert_allclose(after - before, change, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_transposed_begins_as_bilinear(stride, tmp_path):
    fixed, trained = make_net(stride=stride), make_net(stride=stride, upsample="transposed")
    fixed.save_parameters(str(tmp_path / "fixed.params"))
    trained.load_parameters(str(tmp_path / "fixed.params"), allow_missing=True)
    x = random_array(1, 3, 64, 64)
    np.testing.assert_allclose(trained(x).asnumpy(), fixed(x).asnumpy(), rtol=0, atol=1e-5)
    # One weight and one bias for each of the 1, 2 or 3 upsamplings.
    more = len(trained.collect_params().keys()) - len(fixed.collect_params().keys())
    assert more == 2 * {32: 1, 16: 2, 8: 3}[stride]


def test_xavier():
    """Uniform in +-sqrt(3 / (fan / 2)) with a fan of (5 + 5) * 64 * 64; no weight is 0."""
    net = make_net(upsample="transposed", init="xavier")
    weight = np.abs(net.upsample.weight.data().asnumpy())
    limit = np.sqrt(3 / (5 * 64 * 64))
    assert 0.99 * limit < weight.max() <= limit * 1.0001
    assert (weight > 0).mean() > 0.999


def test_all_parameters_learn():
    net = make_net(stride=8, upsample="transposed")
    with mx.autograd.record():
        loss = fcn.SegmentationLoss()(net(random_array(2, 3, 64, 64)), mx.nd.ones((2, 64, 64)))
    loss.backward()
    for name, parameter in net.collect_params().items():
        if parameter.grad_req != "null":
            assert np.isfinite(parameter.grad().asnumpy()).all(), name
            assert parameter.grad().asnumpy().any(), name


def test_loss_falls():
    net = make_net(stride=8)
    x, label = random_array(2, 3, 32, 32), mx.nd.zeros((2, 32, 32), dtype=np.int32)
    label[:, 8:24, 8:24] = 3
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.001})
    losses = []
    for _ in range(8):
        with mx.autograd.record():
            loss = fcn.SegmentationLoss()(net(x), label)
        loss.backward()
        trainer.step(2)
        losses.append(loss.mean().asscalar())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.filterwarnings("ignore:.*Cannot decide type:UserWarning")  # of every import
@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("stride", [32, 8])
def test_export_and_import(tmp_path, ops, stride):
    net, x = make_net(stride=stride, ops=ops), random_array(1, 3, 64, 64)
    net.hybridize()
    expected = net(x).asnumpy()
    net.export(str(tmp_path / "fcn"))
    again = mx.gluon.SymbolBlock.imports(
        str(tmp_path / "fcn-symbol.json"), ["data"], str(tmp_path / "fcn-0000.params")
    )
    np.testing.assert_array_equal(again(x).asnumpy(), expected)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    np.testing.assert_array_equal(fcn.predict(again, image), fcn.predict(net, image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes: expected an integer in .*, got 0"),
        ({"upsample": "nearest"}, "upsample: expected one of .*, got 'nearest'"),
        ({"stride": 4}, "stride: expected 32, 16 or 8, got 4"),
        ({"init": "zeros"}, "init: expected one of .*, got 'zeros'"),
        ({"ops": "torch"}, "ops: expected one of .*, got 'torch'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FCN(**options)


# --- pretrained weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone():
    mx.random.seed(3)
    net = mx.gluon.model_zoo.vision.resnet18_v2()
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 32, 32)))
    return net


@pytest.mark.parametrize("by_path", [True, False], ids=["path", "model zoo"])
def test_pretrained(backbone, tmp_path, monkeypatch, by_path):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "resnet18_v2-a81db45f.params"  # the model zoo's name for it
    backbone.save_parameters(str(file))
    net = make_net(pretrained=file if by_path else True)
    x = random_array(1, 3, 64, 64)
    expected = x
    for layer in list(backbone.features)[:-2]:
        expected = layer(expected)
    np.testing.assert_array_equal(net.features(x).asnumpy(), expected.asnumpy())
    assert net.score.weight.data().asnumpy().any()
    assert net(x).shape == (1, 5, 64, 64)


def test_weights_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"models/resnet18_v2-\w+.params: no such file"):
        FCN(pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"nowhere.params: no such file"):
        FCN(pretrained=tmp_path / "nowhere.params")


def test_weights_of_something_else_are_refused(tmp_path):
    (tmp_path / "text.params").write_text("not parameters")
    mx.nd.save(str(tmp_path / "other.params"), {"some.weight": mx.nd.zeros((1,))})
    for name in ("text", "other"):
        net = FCN(pretrained=tmp_path / f"{name}.params")
        with pytest.raises(ValueError, match=f"{name}.params: not the parameters of resnet18_v2"):
            net.initialize()


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_loss_by_hand(dtype):
    """Four pixels of two classes; scores (ln 3, 0): the first has a probability of 3/4."""
    scores = mx.nd.array([[[[np.log(3)] * 4], [[0] * 4]]])
    label = mx.nd.array([[[0, 0, 1, 255]]], dtype=dtype)
    cost = 2 * np.log(4 / 3) + np.log(4)
    loss = fcn.SegmentationLoss(ignore_label=255)
    assert loss(scores, label).asscalar() == pytest.approx(cost / 4, rel=1e-6)
    loss = fcn.SegmentationLoss()
    assert loss(scores[:, :, :, :3], label[:, :, :3]).asscalar() == pytest.approx(cost / 3, 1e-6)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("ignore", [None, 255, -1])
@pytest.mark.parametrize("wrong", [3, 21, -1, 255, 1.5, math.nan])
def test_labels_that_are_no_class(dtype, ignore, wrong):
    if wrong == ignore or (dtype == "int32" and wrong not in (3, 21, -1, 255)):
        return
    scores = mx.nd.array(np.random.default_rng(0).random((2, 3, 4, 5)))
    label = mx.nd.array(np.arange(40).reshape(2, 4, 5) % 3, dtype=dtype)
    if ignore is not None:
        label[0, 0] = ignore
    eager, graph = (fcn.SegmentationLoss(ignore) for _ in range(2))
    graph.hybridize()
    right = eager(scores, label).asnumpy()
    np.testing.assert_array_equal(graph(scores, label).asnumpy(), right)
    label[1, 2, 3] = wrong
    known = "" if ignore is None else f" or {ignore}"
    want = f"label: expected classes 0 to 2{known}, got {wrong:g} at (1, 2, 3)"
    with pytest.raises(ValueError, match=f"^{re.escape(want)}$"):
        eager(scores, label)
    scores.attach_grad()
    with mx.autograd.record():
        loss = graph(scores, label)
    loss.backward()
    np.testing.assert_array_equal(loss.asnumpy(), [right[0], np.nan])
    assert np.isnan(scores.grad[1].asnumpy()).any()
    assert np.isfinite(scores.grad[0].asnumpy()).all()


def test_ignored_pixels_have_no_gradient():
    scores = random_array(2, 3, 4, 4)
    label = mx.nd.zeros((2, 4, 4), dtype=np.int32)
    label[0, 1, 2] = 255
    scores.attach_grad()
    with mx.autograd.record():
        loss = fcn.SegmentationLoss(ignore_label=255)(scores, label)
    loss.backward()
    none = (scores.grad.asnumpy() == 0).all(axis=1)
    np.testing.assert_array_equal(none, label.asnumpy() == 255)


# --- prediction -----------------------------------------------------------------------------------


class Brightest(mx.gluon.HybridBlock):
    """Scores that depend on nothing but the pixel; the sizes of the images it was given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def hybrid_forward(self, F, images):
        self.sizes.append(images.shape[2:])
        return images


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (6, 15), (12, 16), (13, 17), (4, 3), (4, 20)])
def test_tiles_cover_every_pixel(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    net = Brightest()
    classes = fcn.predict(net, image, tile=(6, 8))
    assert classes.dtype == np.int32
    np.testing.assert_array_equal(classes, voc.normalize_image(image).argmax(axis=2))
    # As few as can be, all of one size, none larger than the tile.
    assert len(net.sizes) == -(-size[0] // 6) * -(-size[1] // 8)
    assert set(net.sizes) == {(min(size[0], 6), min(size[1], 8))}


class FirstColumn(mx.gluon.HybridBlock):
    """Class 0 scores 1 everywhere, class 1 scores 1.5 in the first column."""

    def hybrid_forward(self, F, images):
        zero = F.zeros_like(F.slice_axis(images, axis=1, begin=0, end=1))
        first = F.concat(F.ones_like(zero[:, :, :, :1]), zero[:, :, :, 1:], dim=3)
        return F.concat(zero + 1, 1.5 * first, dim=1)


def test_scores_add_up_where_tiles_overlap():
    """Tiles of 3 columns begin at 0 and 2 of 5. In column 2, 1 + 1 is more than 0 + 1.5."""
    image = np.zeros((1, 5, 3), np.uint8)
    np.testing.assert_array_equal(fcn.predict(FirstColumn(), image, (1, 3)), [[1, 0, 0, 0, 0]])
    # Tiles that fit begin at 0 and 2 of 4.
    np.testing.assert_array_equal(fcn.predict(FirstColumn(), image[:, :4], (1, 2)), [[1, 0, 1, 0]])


def test_prediction_is_the_networks_where_it_fits():
    net = make_net(stride=8)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    x = mx.nd.array(voc.normalize_image(image).transpose(2, 0, 1)[None])
    expected = net(x)[0].asnumpy().argmax(axis=0)
    for kind in (image, mx.nd.array(image, dtype=np.uint8), Image.fromarray(image)):
        np.testing.assert_array_equal(fcn.predict(net, kind), expected)
        np.testing.assert_array_equal(fcn.predict(net, kind, tile=(64, 70)), expected)
    left = net(x[:, :, :, :40])[0].asnumpy().argmax(axis=0)
    np.testing.assert_array_equal(fcn.predict(net, image, (50, 40))[:, :30], left[:, :30])


def test_prediction_reads_pillow_images_by_the_rules():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    on_its_side = Image.fromarray(image).transpose(Image.Transpose.ROTATE_90)
    on_its_side.getexif()[0x0112] = 6
    deep = Image.fromarray(image[:, :, 0] * np.uint16(256))
    gray = np.repeat(image[:, :, :1], 3, axis=2)
    net = make_net(stride=8)
    for given, upright in ((on_its_side, image), (deep, gray)):
        np.testing.assert_array_equal(fcn.predict(net, given), fcn.predict(net, upright))


@pytest.mark.parametrize(
    ("shape", "tile", "message"),
    [
        ((8, 8), None, r"image: expected shape \(H, W, 3\), got \(8, 8\)"),
        ((3, 8, 8), None, r"image: expected shape \(H, W, 3\), got \(3, 8, 8\)"),
        ((0, 8, 3), None, r"image: expected shape \(H, W, 3\), got \(0, 8, 3\)"),
        ((8, 8, 3), 8, r"tile: expected \(height, width\), got 8"),
        ((8, 8, 3), (8, 0), "tile: expected an integer in .*, got 0"),
    ],
)
def test_predict_refuses(shape, tile, message):
    with pytest.raises(ValueError, match=message):
        fcn.predict(Brightest(), np.zeros(shape, np.uint8), tile)


# --- drawing, and the demo ------------------------------------------------------------------------


def test_show_segmentation():
    image = np.full((4, 5, 3), 7, np.uint8)
    label = np.zeros((4, 5), np.int32)
    picture = plot.show_segmentation(image, label + 1, label, voc.VOC_PALETTE)
    assert picture.size == (3 * 5 + 2 * 4, 4)
    parts = [picture.getpixel((x, 3)) for x in (0, 4, 9, 13, 18, 22)]
    assert parts == [(7, 7, 7)] * 2 + [(128, 0, 0)] * 2 + [(0, 0, 0)] * 2
    assert picture.getpixel((5, 0)) == picture.getpixel((17, 0)) == (255, 255, 255)


def small(folder, epochs=2, **options):
    return demo_fcn.run(folder, epochs, 8, 3, crop_size=(32, 32), batch_size=4, **options)


def test_demo(tmp_path, capsys):
    accuracy = small(tmp_path)
    read, _, *lines, pixels, iou = capsys.readouterr().out.splitlines()
    assert read == "read 8 examples"
    assert re.match(r"epoch  1: loss \d+\.\d{3}, ", lines[0])
    assert re.fullmatch(rf"pixel accuracy +{accuracy:.2f} +0\.\d\d", pixels)
    assert re.fullmatch(r"mean IoU +0\.\d\d +0\.\d\d", iou)
    with Image.open(tmp_path / "segmentation.png") as picture:
        # Two images, each of them, its prediction and its label: 200 x 150.
        assert picture.size == (2 * (3 * 200 + 2 * 4) + 8, 150 + 8 + 150)
    net = FCN(stride=8)
    net.load_parameters(str(tmp_path / "fcn.params"))


def test_demo_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    """Stopped after the first of two epochs, and run again: the same weights as in one run."""
    small(tmp_path / "whole")
    saved, save = tmp_path / "saved", checkpoint.save

    def save_and_stop(*args, **state):
        save(*args, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "parts", saved=saved)
    monkeypatch.undo()
    small(tmp_path / "parts", saved=saved)
    whole, parts = (mx.nd.load(str(tmp_path / of / "fcn.params")) for of in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array.asnumpy(), parts[name].asnumpy())
    message = r"saved: expected a training with .*'epochs': 3.*, got .*'epochs': 2"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        small(tmp_path / "parts", epochs=3, saved=saved)


def test_training_needs_a_batch(tmp_path):
    dataset = voc.VOCSegDataset(True, (32, 32), voc.make_voc(tmp_path, 3, 1, size=(32, 32)))
    with pytest.raises(ValueError, match="dataset: expected 4 images or more, a batch, got 3"):
        demo_fcn.train(make_net(), dataset, 1, batch_size=4)


def test_command(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo_fcn, "run", lambda *args, **options: given.append((args, options)))
    output, saved = str(tmp_path / "out"), str(tmp_path / "saved")
    arguments = "--epochs", "3", "--train-images", "5", "--stride", "16", "--checkpoint", saved
    assert cli.main(["demo-fcn", "--output", output, *arguments]) == 0
    options = {"seed": 0, "saved": tmp_path / "saved", "stride": 16}
    assert given == [((tmp_path / "out", 3, 5), options)]
    assert (tmp_path / "out").is_dir()


def test_command_refuses(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["--output", str(tmp_path / "file")], "file: cannot make this folder: File exists"),
        (["--output", str(tmp_path), "--checkpoint", str(tmp_path / "no/saved")], "no such folder"),
    ]:
        assert cli.main(["demo-fcn", *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["demo-fcn", "--stride", "4"])
    assert "invalid choice: 4" in capsys.readouterr().err
