"""The fully convolutional networks: upsampling, scores, pretrained weights, loss."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import math
import re

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL")

from fcn_cases import make_net, random_array

from cvops._mxnet import mxnet
from cvops.models import FCN, fcn

mx = mxnet()
nn = mx.gluon.nn

# --- upsampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),  # 1 - 0.5 / 1
        (3, [0.5, 1, 0.5]),  # 1 - 1 / 2
        (4, [0.25, 0.75, 0.75, 0.25]),  # 1 - 1.5 / 2, 1 - 0.5 / 2
    ],
    ids=["size 1", "size 2", "size 3", "size 4"],
)
def test_bilinear_kernel_equals_the_values_by_hand(size, line):
    weight = fcn.bilinear_kernel(2, 2, size).asnumpy()
    assert weight.shape == (2, 2, size, size)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight[0, 0], np.outer(line, line))
    np.testing.assert_array_equal(weight[1, 1], np.outer(line, line))
    assert not weight[0, 1].any()
    assert not weight[1, 0].any()


def test_bilinear_kernel_rejects_unequal_channels():
    with pytest.raises(ValueError, match="out_channels: expected in_channels, 3, got 2"):
        fcn.bilinear_kernel(3, 2, 4)


def transposed(channels, scale):
    """The layer of the book."""
    size = 2 * scale - scale % 2
    layer = nn.Conv2DTranspose(channels, size, scale, scale // 2, in_channels=channels)
    layer.initialize()
    layer.weight.set_data(fcn.bilinear_kernel(channels, channels, size))
    return layer


@pytest.mark.parametrize("hybrid", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("scale", [1, 2, 3, 8, 32])
def test_upsampling_equals_the_transposed_convolution(ops, hybrid, scale):
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


def test_upsampling_equals_the_values_by_hand(ops):
    """Scale 2: 3/4 of the nearest pixel and 1/4 of the next one, which is 0 outside."""
    y = fcn.BilinearUpsample(1, 2, ops)(mx.nd.array([[[[16, 32]]]])).asnumpy()
    row = 0.75 * np.array([12, 12 + 8, 4 + 24, 24])
    np.testing.assert_array_equal(y[0, 0], [row, row])


def test_initializer_gives_the_bilinear_kernel():
    layer = nn.Conv2DTranspose(3, 8, 4, 2, in_channels=3, weight_initializer=fcn.BilinearKernel())
    layer.initialize(mx.init.Xavier())
    weight = layer.weight.data().asnumpy()
    np.testing.assert_array_equal(weight, fcn.bilinear_kernel(3, 3, 8).asnumpy())


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", ["bilinear", "transposed"])
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(64, 96), (32, 32), (70, 33), (9, 1)], ids=str)
def test_scores_have_the_size_of_the_image(upsample, stride, size):
    net = make_net(upsample=upsample, stride=stride)
    assert net(mx.nd.zeros((2, 3, *size))).shape == (2, 5, *size)


def test_features_and_scores_have_the_shapes_of_the_book():
    """An image of 320 x 480 has features of 512 x 10 x 15."""
    net = FCN()
    net.initialize()
    images = mx.nd.zeros((1, 3, 320, 480))
    assert net.features(images).shape == (1, 512, 10, 15)
    assert net(images).shape == (1, 21, 320, 480)


def test_fcn_32s_equals_the_sequence_of_the_book():
    net = make_net(upsample="transposed")
    book = nn.HybridSequential()
    book.add(*net.features, net.score, transposed(5, 32))
    x = random_array(1, 3, 64, 96)
    np.testing.assert_array_equal(net(x).asnumpy(), book(x).asnumpy())


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_hybridized_network_equals_the_plain_network(stride):
    net, x = make_net(stride=stride), random_array(2, 3, 45, 64)
    expected = net(x).asnumpy()
    net.hybridize(static_alloc=True)
    for _ in range(2):
        np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [16, 8])
def test_skip_connection_adds_the_upsampled_scores_of_its_map(stride):
    """The initial scores of a map are 0. The network upsamples them by the stride of the map."""
    net, x = make_net(stride=stride), random_array(1, 3, 64, 64)
    coarse = net.score(net.features(x))
    for _ in range(len(net.skip_scores)):
        coarse = fcn.BilinearUpsample(5, 2)(coarse)
    before = fcn.BilinearUpsample(5, stride)(coarse).asnumpy()
    np.testing.assert_allclose(net(x).asnumpy(), before, rtol=0, atol=1e-5)

    layers = 8 if stride == 16 else 7  # up to the stage whose map has this stride
    for i in range(layers):
        x = finer = net.features[i](x if i else random_array(1, 3, 64, 64))
    assert finer.shape[2:] == (64 // stride, 64 // stride)
    net.skip_scores[-1].weight.set_data(mx.nd.random.normal(shape=(5, finer.shape[1], 1, 1)))
    change = fcn.BilinearUpsample(5, stride)(net.skip_scores[-1](finer)).asnumpy()
    after = net(random_array(1, 3, 64, 64)).asnumpy()
    np.testing.assert_allclose(after - before, change, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_transposed_upsampling_starts_as_bilinear_upsampling(stride, tmp_path):
    fixed, trained = make_net(stride=stride), make_net(stride=stride, upsample="transposed")
    fixed.save_parameters(str(tmp_path / "fixed.params"))
    trained.load_parameters(str(tmp_path / "fixed.params"), allow_missing=True)
    x = random_array(1, 3, 64, 64)
    np.testing.assert_allclose(trained(x).asnumpy(), fixed(x).asnumpy(), rtol=0, atol=1e-5)
    # One weight and one bias for each of the 1, 2 or 3 upsamplings.
    more = len(trained.collect_params().keys()) - len(fixed.collect_params().keys())
    assert more == 2 * {32: 1, 16: 2, 8: 3}[stride]


def test_xavier_weights_cover_their_range():
    """Weights are uniform in +-sqrt(3 / (fan / 2)), where fan is (5 + 5) * 64 * 64."""
    net = make_net(upsample="transposed", init="xavier")
    weight = np.abs(net.upsample.weight.data().asnumpy())
    limit = np.sqrt(3 / (5 * 64 * 64))
    assert 0.99 * limit < weight.max() <= limit * 1.0001
    assert (weight > 0).mean() > 0.999


def test_every_parameter_has_a_gradient():
    net = make_net(stride=8, upsample="transposed")
    with mx.autograd.record():
        loss = fcn.SegmentationLoss()(net(random_array(2, 3, 64, 64)), mx.nd.ones((2, 64, 64)))
    loss.backward()
    for name, parameter in net.collect_params().items():
        if parameter.grad_req != "null":
            assert np.isfinite(parameter.grad().asnumpy()).all(), name
            assert parameter.grad().asnumpy().any(), name


def test_training_lowers_the_loss():
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


@pytest.mark.filterwarnings("ignore:.*Cannot decide type:UserWarning")  # each import warns
@pytest.mark.parametrize("stride", [32, 8])
def test_exported_network_gives_the_same_scores_after_import(tmp_path, ops, stride):
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
    ids=["num_classes 0", "upsample nearest", "stride 4", "init zeros", "ops torch"],
)
def test_bad_option_is_rejected(options, message):
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
def test_pretrained_weights_are_loaded(backbone, tmp_path, monkeypatch, by_path):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "resnet18_v2-a81db45f.params"  # the name in the model zoo
    backbone.save_parameters(str(file))
    net = make_net(pretrained=file if by_path else True)
    x = random_array(1, 3, 64, 64)
    expected = x
    for layer in list(backbone.features)[:-2]:
        expected = layer(expected)
    np.testing.assert_array_equal(net.features(x).asnumpy(), expected.asnumpy())
    assert net.score.weight.data().asnumpy().any()
    assert net(x).shape == (1, 5, 64, 64)


def test_missing_weights_are_reported_with_their_path(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"models/resnet18_v2-\w+.params: no such file"):
        FCN(pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"nowhere.params: no such file"):
        FCN(pretrained=tmp_path / "nowhere.params")


def test_weights_of_another_network_are_rejected(tmp_path):
    (tmp_path / "text.params").write_text("not parameters")
    mx.nd.save(str(tmp_path / "other.params"), {"some.weight": mx.nd.zeros((1,))})
    for name in ("text", "other"):
        net = FCN(pretrained=tmp_path / f"{name}.params")
        with pytest.raises(ValueError, match=f"{name}.params: not the parameters of resnet18_v2"):
            net.initialize()


def test_saved_network_is_loaded_with_its_classes(tmp_path):
    names = ["background", "bee", "frog", "wasp", "toad"]
    net, images = make_net(stride=16, classes=names), random_array(1, 3, 32, 40)
    net.save(tmp_path / "net.params")
    loaded = FCN.load(tmp_path / "net.params")
    assert (loaded.classes, loaded.options) == (tuple(names), net.options)
    np.testing.assert_array_equal(loaded(images).asnumpy(), net(images).asnumpy())
    (tmp_path / "net.json").write_text('{"model": "TinySSD"}')
    with pytest.raises(ValueError, match=r"net\.json: does not describe an FCN"):
        FCN.load(tmp_path / "net.params")
    with pytest.raises(ValueError, match="classes: expected 5 names, got"):
        make_net(classes=["background"])


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_loss_equals_the_value_by_hand(dtype):
    """Each pixel has the scores (ln 3, 0): class 0 has p = 3/4, class 1 has p = 1/4."""
    scores = mx.nd.array([[[[np.log(3)] * 4], [[0] * 4]]])
    label = mx.nd.array([[[0, 0, 1, 255]]], dtype=dtype)
    cost = 2 * np.log(4 / 3) + np.log(4)
    loss = fcn.SegmentationLoss(ignore_label=255)
    assert loss(scores, label).asscalar() == pytest.approx(cost / 4, rel=1e-6)
    loss = fcn.SegmentationLoss()
    assert loss(scores[:, :, :, :3], label[:, :, :3]).asscalar() == pytest.approx(cost / 3, 1e-6)


def test_class_weights_are_factors_of_the_loss_of_their_pixels():
    """Both classes have the loss log 2. The labels are 0, 1, ignored and 1."""
    scores, label = mx.nd.zeros((1, 2, 1, 4)), mx.nd.array([[[0, 1, 255, 1]]])
    for is_graph in (False, True):
        loss = fcn.SegmentationLoss(255, class_weights=(1, 3))
        loss.initialize()
        loss.hybridize(is_graph)
        assert loss(scores, label).asscalar() == pytest.approx(np.log(2) * 7 / 4, rel=1e-6)


WRONG_LABELS = {"int32": [3, 21, -1, 255], "float32": [3, 21, -1, 255, 1.5, math.nan]}


@pytest.mark.parametrize(
    ("dtype", "ignore", "wrong"),
    [
        (dtype, ignore, wrong)
        for dtype, labels in WRONG_LABELS.items()
        for ignore in (None, 255, -1)
        for wrong in labels
        if wrong != ignore
    ],
)
def test_unknown_class_of_a_pixel_is_rejected(dtype, ignore, wrong):
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
