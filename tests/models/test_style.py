"""Style transfer: images, losses, features, and the training of the pixels."""

# ruff: noqa: E402 (imports below the skip, which is for what they need)

import sys

import numpy as np
import pytest
from requirements import skip_without

skip_without("mxnet", "PIL", "skimage")

from PIL import Image

from cvops._mxnet import mxnet
from cvops.datasets.drawing import photograph, stained_glass
from cvops.models import style
from cvops.models.style import LAYERS, Layers, StyleFeatures, StyleLoss, transfer

mx = mxnet()
nn = mx.gluon.nn

TWO = Layers((1,), (0, 1))


def two_layers(dtype="float32", last="tanh"):
    """Two convolutions with smooth activations and random weights."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, 3, padding=1, activation="tanh", in_channels=3),
        nn.Conv2D(8, 3, strides=2, padding=1, activation=last, in_channels=8),
    )
    net.initialize(mx.init.Xavier())
    net.cast(dtype)
    return net


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def random_array(*shape, seed=0, dtype="float64"):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


# --- images ---------------------------------------------------------------------------------------


def test_preprocessed_image_is_that_of_the_network():
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 255
    X = style.preprocess(image, (8, 10))
    assert X.shape == (1, 3, 8, 10)
    # red: (1 - mean) / std; green and blue: -mean / std
    for channel, value in enumerate((0.515 / 0.229, -0.456 / 0.224, -0.406 / 0.225)):
        np.testing.assert_allclose(X[0, channel].asnumpy(), value, rtol=1e-5)


def test_postprocess_inverts_preprocess():
    image = random_image(5, 7)
    np.testing.assert_array_equal(style.postprocess(style.preprocess(image, (5, 7))), image)
    assert style.postprocess(mx.nd.full((1, 3, 2, 2), 100)).min() == 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16", "F"])
def test_image_of_each_mode_is_rgb(mode):
    image = Image.new("RGB", (4, 3), "white").convert("L" if mode in ("F", "I;16") else mode)
    if mode == "I;16":
        image = Image.fromarray(np.full((3, 4), 65535, np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.ones((3, 4), np.float32))
    X = style.preprocess(image, (3, 4))
    np.testing.assert_array_equal(style.postprocess(X), 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"img: expected shape \(H, W, 3\), got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"img: expected shape \(H, W, 3\), got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"img: expected shape \(H, W, 3\), got \(0, 4, 3\)"),
        (np.full((4, 4, 3), np.nan), "img: expected finite pixels, got NaN or infinity"),
    ],
    ids=["gray", "four channels", "empty", "NaN"],
)
def test_bad_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        style.preprocess(image, (4, 4))


def test_stained_glass_has_colored_panes_and_dark_leads():
    image = stained_glass(60, 90, panes=20)
    assert (image.size, image.mode) == ((90, 60), "RGB")
    gray = np.asarray(image.convert("L"))
    assert 0.05 < (gray == 20).mean() < 0.5
    np.testing.assert_array_equal(np.asarray(stained_glass(60, 90, panes=20)), np.asarray(image))


# --- losses ---------------------------------------------------------------------------------------


def test_gram_is_the_product_of_channels_over_their_number_and_size():
    X = mx.nd.array([[[[1, 2]], [[3, 5]]]])  # two channels of 1 x 2
    # 1 * 1 + 2 * 2 = 5, 1 * 3 + 2 * 5 = 13, 3 * 3 + 5 * 5 = 34; divided by 2 * 1 * 2
    np.testing.assert_allclose(style.gram(X).asnumpy(), np.array([[5, 13], [13, 34]]) / 4)


def test_gram_does_not_change_with_the_order_of_the_pixels():
    X = random_array(1, 4, 6, 5)
    order = np.random.default_rng(1).permutation(30)
    shuffled = X.reshape((1, 4, 30))[:, :, mx.nd.array(order)].reshape((1, 4, 5, 6))
    np.testing.assert_allclose(style.gram(shuffled).asnumpy(), style.gram(X).asnumpy(), 1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (3, 4, 4)])
def test_gram_of_a_batch_is_refused(shape):
    with pytest.raises(ValueError, match=r"X: expected shape \(1, C, h, w\), got"):
        style.gram(mx.nd.zeros(shape))


def test_total_variation_of_a_constant_is_0_and_of_a_checkerboard_1():
    assert style.tv_loss(mx.nd.ones((1, 3, 4, 6))).asscalar() == 0
    rows, columns = np.mgrid[:4, :6]
    board = mx.nd.array(np.broadcast_to((rows + columns) % 2, (1, 3, 4, 6)))
    assert style.tv_loss(board).asscalar() == 1  # (1 + 1) / 2
    stripes = mx.nd.array(np.broadcast_to(rows % 2, (1, 3, 4, 6)))
    assert style.tv_loss(stripes).asscalar() == 0.5  # (1 + 0) / 2


def test_losses_of_the_targets_are_0():
    features = StyleFeatures(two_layers(), *TWO)
    content, glass = (random_array(1, 3, 8, 8, seed=i, dtype="float32") for i in (1, 2))
    loss_of = StyleLoss(features, content, glass)
    assert loss_of(content)[0].asscalar() == 0 < loss_of(content)[1].asscalar()
    assert loss_of(glass)[1].asscalar() == 0 < loss_of(glass)[0].asscalar()


def test_relative_loss_does_not_change_with_the_scale_of_the_features():
    """The second layer of ``scaled`` has features ten times those of ``net``."""
    images = [random_array(1, 3, 8, 8, seed=i, dtype="float32") for i in (1, 2, 3)]
    losses = []
    for scale in (1, 10):
        net = two_layers(last=None)
        net[1].weight.set_data(net[1].weight.data() * scale)
        loss_of = StyleLoss(StyleFeatures(net, [1], [1]), *images[:2], relative=True)
        losses.append([loss.asscalar() for loss in loss_of(images[2])])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
    "weights_", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["content", "style", "total variation"]
)
@pytest.mark.parametrize("relative", [False, True])
def test_gradient_of_each_loss_is_that_of_finite_differences(weights_, relative):
    features = StyleFeatures(two_layers("float64"), *TWO)
    content, glass, X = (random_array(1, 3, 6, 6, seed=i) for i in (1, 2, 3))
    loss_of = StyleLoss(features, content, glass, weights_, relative)
    total = lambda x: mx.nd.add_n(*loss_of(x))  # noqa: E731
    X.attach_grad()
    with mx.autograd.record():
        loss = total(X)
    loss.backward()
    step = 1e-5
    for direction in range(5):
        change = random_array(1, 3, 6, 6, seed=10 + direction)
        ends = [total(X + sign * step * change).asscalar() for sign in (1, -1)]
        expected = (X.grad * change).sum().asscalar()
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)


def test_gradient_through_a_maximum_pooling_is_that_of_float64():
    """In the mode of inference it is not, on MXNet 1.9.1 with oneDNN."""
    gradients = []
    for dtype in ("float32", "float64"):
        mx.random.seed(0)
        net = nn.HybridSequential()
        net.add(nn.Conv2D(8, 3, in_channels=3), nn.MaxPool2D(3, 2, ceil_mode=True), nn.Dropout(0.5))
        net.initialize()
        net.cast(dtype)
        content, glass, X = (random_array(1, 3, 12, 12, seed=i, dtype=dtype) for i in (1, 2, 3))
        generated = style.GeneratedImage(X.shape)
        generated.cast(dtype)
        generated.initialize()
        generated.weight.set_data(X)
        losses = StyleLoss(StyleFeatures(net, [2], [1]), content, glass)
        assert len(style._differentiate(losses, generated)) == 3
        gradients.append(generated.weight.grad().asnumpy())
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-4)


# --- features -------------------------------------------------------------------------------------


def test_features_are_those_of_the_layers_in_order():
    net = nn.HybridSequential()
    net.add(*(nn.HybridLambda(lambda F, x, k=k: x + k) for k in (1, 10, 100, 1000)))
    contents, styles = style.extract_features(net, mx.nd.zeros((1,)), [2, 0], [1])
    assert [x.asscalar() for x in (*contents, *styles)] == [111, 1, 11]


def test_network_is_cut_after_the_last_layer_and_has_no_gradients():
    net = mx.gluon.model_zoo.vision.vgg16()
    net.initialize()
    layers = LAYERS["vgg16"]
    features = StyleFeatures(net, *layers)
    assert len(features.layers) == 25
    assert {p.grad_req for p in features.collect_params().values()} == {"null"}
    assert net.output.weight.grad_req == "write"
    maps = features(mx.nd.zeros((1, 3, 32, 32)))
    contents, styles = features.split(maps)
    assert [x.shape for x in contents] == [(1, 512, 4, 4)]
    shapes = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)]
    assert [x.shape for x in styles] == [(1, c, side, side) for c, side in shapes]


@pytest.mark.parametrize("network", LAYERS)
def test_layers_of_the_networks_are_their_convolutions_or_fires(network):
    features = mx.gluon.model_zoo.vision.get_model(network.replace("1_1", "1.1")).features
    kinds = {type(features[i]).__name__ for i in (*LAYERS[network].content, *LAYERS[network].style)}
    expected = {"Activation", "HybridSequential"} if "squeeze" in network else {"Conv2D"}
    assert kinds == expected
    if "vgg" in network:
        channels = [features[i]._kwargs["num_filter"] for i in LAYERS[network].style]
        assert channels == [64, 128, 256, 512, 512]


@pytest.mark.parametrize(
    ("content", "glass", "error", "message"),
    [
        ([2], [0], ValueError, r"content_layers: expected an integer in \[0, 1\], got 2"),
        ([0], [-1], ValueError, r"style_layers: expected an integer in \[0, 1\], got -1"),
        ([0.5], [0], TypeError, "content_layers: expected an integer, got 0.5"),
        ([0], [], ValueError, r"style_layers: expected one layer or more, got \[\]"),
    ],
)
def test_bad_layers_are_refused(content, glass, error, message):
    with pytest.raises(error, match=message):
        StyleFeatures(two_layers(), content, glass)


# --- training of the pixels -----------------------------------------------------------------------

SMALL = {"image_shape": (32, 32), "weights": (1, 100, 0.1), "steps": 30, "rate": 0.05}


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_total_loss_falls_and_no_weight_changes(optimizer):
    if optimizer == "lbfgs":
        skip_without("scipy")
    net, reported = two_layers(), []
    content = random_image(32, 32) // 128 * 255  # at the ends of the range
    before = [p.data().copy() for p in net.collect_params().values()]
    image, history = transfer(
        content,
        photograph("coffee.png"),
        net,
        TWO,
        optimizer=optimizer,
        report=lambda step, losses: reported.append((step, losses)),
        **SMALL,
    )
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert history.shape == (31, 3)
    assert history[0, 0] == 0  # the initial image is the content
    totals = history.sum(axis=1)
    assert totals[0] > totals[10] > totals[20] > totals[30]
    # The losses of the result are the last ones: its pixels are rounded, not clipped.
    content_X, style_X, X = (
        style.preprocess(x, (32, 32)) for x in (content, photograph("coffee.png"), image)
    )
    losses = StyleLoss(StyleFeatures(net, *TWO), content_X, style_X, SMALL["weights"])(X)
    np.testing.assert_allclose([x.asscalar() for x in losses], history[-1], rtol=0.02)
    assert [step for step, _ in reported] == list(range(1, 31))
    np.testing.assert_array_equal([losses for _, losses in reported], history[1:])
    for parameter, value in zip(net.collect_params().values(), before):
        np.testing.assert_array_equal(parameter.data().asnumpy(), value.asnumpy())
        with pytest.raises(RuntimeError, match="grad_req='null'"):
            parameter.grad()


def test_learning_rate_decays_as_in_the_book(monkeypatch):
    rates, set_rate = [], mx.gluon.Trainer.set_learning_rate
    monkeypatch.setattr(
        mx.gluon.Trainer,
        "set_learning_rate",
        lambda trainer, rate: (rates.append(rate), set_rate(trainer, rate)),
    )
    options = {**SMALL, "steps": 9, "decay": 0.1, "decay_steps": 4}
    transfer(random_image(32, 32), random_image(32, 32, seed=1), two_layers(), TWO, **options)
    np.testing.assert_allclose(rates, [0.05 * 0.1, 0.05 * 0.01])  # before the steps 5 and 9


def test_result_continues_at_a_larger_size():
    """With a learning rate of 0 the result is the initial image."""
    init = random_image(16, 16)
    images = random_image(32, 32, seed=1), random_image(32, 32, seed=2)
    options = {**SMALL, "steps": 1, "rate": 0}
    image, _ = transfer(*images, two_layers(), TWO, init=init, **options)
    expected = Image.fromarray(init).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(image, np.asarray(expected))


def test_weights_of_0_give_a_result_without_the_term():
    images = random_image(32, 32), random_image(32, 32, seed=1)
    _, history = transfer(*images, two_layers(), TWO, **{**SMALL, "weights": (1, 0, 0)})
    assert not history.any()  # the content itself is the optimum


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer: expected one of"),
        ({"steps": 0}, "steps: expected an integer"),
        ({"decay_steps": 0}, "decay_steps: expected an integer"),
        ({"rate": -1}, "rate: expected a number"),
        ({"rate": float("nan")}, "rate: expected a number"),
        ({"rate": float("inf")}, "rate: expected a number"),
        ({"weights": (1, 1e39, 1)}, r"weights: expected finite losses, got \[0.0, (inf|nan), "),
        ({"decay": -1}, "decay: expected a number"),
        ({"weights": (1, 2)}, "weights: expected 3 numbers"),
        ({"weights": (1, -2, 1)}, "weights: expected a number"),
        ({"relative": "yes"}, "relative: expected True or False"),
        ({"image_shape": (32,)}, r"image_shape: expected \(height, width\)"),
        ({"image_shape": (1, 32)}, "image_shape: expected an integer"),
        ({"layers": ((9,), (0,))}, "content_layers: expected an integer"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_bad_option_is_refused(options, message):
    images = random_image(32, 32), random_image(32, 32)
    options = {"layers": TWO, **SMALL, **options}
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        transfer(*images, two_layers(), **options)


def test_image_that_is_too_small_for_the_layers_is_refused():
    net = mx.gluon.model_zoo.vision.squeezenet1_1()
    net.initialize()
    net.features(mx.nd.zeros((1, 3, 32, 32)))  # the shapes of the parameters
    images = random_image(32, 32), random_image(32, 32)
    message = r"image_shape: expected images that are large enough for the layers, got \(\(4, 4\)"
    with pytest.raises(ValueError, match=message):
        transfer(*images, net, LAYERS["squeezenet1_1"], (4, 4))


def test_missing_scipy_is_reported_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    images = random_image(32, 32), random_image(32, 32)
    with pytest.raises(ModuleNotFoundError, match=r'scipy.: pip install "cvops\[demo\]"'):
        transfer(*images, two_layers(), TWO, optimizer="lbfgs", **SMALL)
