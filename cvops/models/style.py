"""Neural style transfer (Gatys, Ecker and Bethge, 2016), as in "Dive into Deep Learning".

The pixels of an image are trained: their features are to be those of a content image, and the
correlations of their features those of a style image. The network itself is fixed.

Images are RGB. As the network's input they are normalized, float32 (1, 3, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._imports import optional
from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.datasets.transforms import MEAN, STD, as_pixels, normalize_image
from cvops.models.steps import contexts, freeze
from cvops.ops._check import choice, elements, flag, integer, integers, number, numbers

mx = mxnet()
nd, nn = mx.nd, mx.gluon.nn


class Layers(NamedTuple):
    """Indices into a network's ``features``."""

    content: tuple[int, ...]
    style: tuple[int, ...]


#: Layers by the network's name in MXNet's model zoo. VGG: the convolutions 1_1, 2_1, 3_1, 4_1 and
#: 5_1 for the style, and the last one of block 4 for the content, before their ReLU.
LAYERS = {
    "squeezenet1_1": Layers((6,), (1, 3, 4, 6, 7, 9)),
    "vgg16": Layers((21,), (0, 5, 10, 17, 24)),
    "vgg19": Layers((25,), (0, 5, 10, 19, 28)),
}

#: The normalized values of black and white, (3,) each.
_RANGE = -MEAN / STD, (1 - MEAN) / STD

# --- images ---------------------------------------------------------------------------------------


def preprocess(img: Any, image_shape: tuple[int, int]) -> Any:
    """Resize and normalize an image.

    Args:
        img: RGB of 0 to 255, (H, W, 3), an array of NumPy or MXNet, or a Pillow image, which is
            read by the rules of ``cvops.images``. Other values of an array are clipped.
        image_shape: height and width of the result.

    Returns:
        float32 (1, 3, height, width), an array of MXNet on the CPU.

    Raises:
        ValueError: ``img`` is not (H, W, 3) or not finite, or ``image_shape`` is not two sizes.
    """
    height, width = integers("image_shape", image_shape, "(height, width)", 1)
    pixels = as_pixels("img", img)
    if not np.isfinite(pixels).all():
        raise ValueError("img: expected finite pixels, got NaN or infinity")
    image = Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return nd.array(normalize_image(image).transpose(2, 0, 1)[None])


def postprocess(img: Any) -> np.ndarray:
    """Return the pixels of a normalized image, (1, 3, H, W), as uint8 (H, W, 3), clipped."""
    pixels = img[0].asnumpy().transpose(1, 2, 0) * STD + MEAN
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


# --- features and losses --------------------------------------------------------------------------


def extract_features(
    net: Any, X: Any, content_layers: Sequence[int], style_layers: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """Return the outputs of some layers of a sequence, in the order of the arguments.

    Args:
        net: sequence of blocks. Those after the last wanted one are not computed.
        X: the input of the first block, an array or a symbol.
        content_layers, style_layers: indices into ``net``.
    """
    outputs = []
    for layer in list(net)[: max([*content_layers, *style_layers]) + 1]:
        X = layer(X)
        outputs.append(X)
    return [outputs[i] for i in content_layers], [outputs[i] for i in style_layers]


class StyleFeatures(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Images (1, 3, H, W) to features of ``content_layers``, and then those of ``style_layers``.

    Args:
        net: a network of the model zoo, whose ``features`` are used, or a sequence of blocks.
            Layers after the last one of use are dropped, and each dropout. The other layers are
            shared, and frozen: no gradient of a weight is computed.
        content_layers, style_layers: indices into the features, one or more each.

    Raises:
        TypeError, ValueError: an index is not an integer, or is not one of a layer.
    """

    def __init__(
        self, net: Any, content_layers: Sequence[int], style_layers: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        layers = list(getattr(net, "features", net))
        self._content = _indices("content_layers", content_layers, len(layers))
        self._style = _indices("style_layers", style_layers, len(layers))
        self.layers = nn.HybridSequential()
        for layer in layers[: max(self._content + self._style) + 1]:
            # The pixels are trained in the mode of training, in which a dropout acts.
            self.layers.add(nn.HybridLambda("identity") if isinstance(layer, nn.Dropout) else layer)
        freeze(self.layers)

    def hybrid_forward(self, F: Any, X: Any) -> list[Any]:
        contents, styles = extract_features(self.layers, X, self._content, self._style)
        return contents + styles

    def split(self, features: list[Any]) -> tuple[list[Any], list[Any]]:
        """Split the result into the features of the content layers and of the style layers."""
        count = len(self._content)
        return features[:count], features[count:]


def _indices(name: str, layers: Sequence[int], count: int) -> list[int]:
    indices = [integer(name, layer, 0, count - 1) for layer in elements(layers)]
    if not indices:
        raise ValueError(f"{name}: expected one layer or more, got {layers!r}")
    return indices


def content_loss(Y_hat: Any, Y: Any) -> Any:
    """Return the mean squared difference of two arrays of features, (1,)."""
    return (Y_hat - Y).square().mean()


def gram(X: Any) -> Any:
    """Return the Gram matrix of features.

    Args:
        X: (1, C, h, w).

    Returns:
        (C, C): the sum over all cells of the product of two channels, divided by C * h * w.

    Raises:
        ValueError: ``X`` has another shape.
    """
    if X.ndim != 4 or X.shape[0] != 1:
        raise ValueError(f"X: expected shape (1, C, h, w), got {X.shape}")
    channels = X.reshape((X.shape[1], -1))
    return nd.dot(channels, channels, transpose_b=True) / X.size


def style_loss(Y_hat: Any, gram_Y: Any) -> Any:
    """Return the mean squared difference of the Gram matrix of features and another one, (1,)."""
    return (gram(Y_hat) - gram_Y).square().mean()


def tv_loss(Y_hat: Any) -> Any:
    """Return the total variation of images (1, C, H, W), H and W 2 or more, (1,).

    It is half the sum of the mean absolute differences of vertical and horizontal neighbors.
    """
    return 0.5 * (
        (Y_hat[:, :, 1:, :] - Y_hat[:, :, :-1, :]).abs().mean()
        + (Y_hat[:, :, :, 1:] - Y_hat[:, :, :, :-1]).abs().mean()
    )


class StyleLoss:
    """The weighted losses of an image, for a content image and a style image.

    Args:
        features: the network. Its parameters are on the device of the images.
        content: the content image, normalized.
        style: the style image, normalized, of any size.
        weights: weights of content, style and total variation, 0 or more each.
        relative: True divides the loss of each layer by the mean square of its target. The weights
            then have the same effect in each network.

    Raises:
        TypeError, ValueError: ``weights`` are not three numbers of 0 or more, or an image is too
            small for the layers.
    """

    def __init__(
        self,
        features: StyleFeatures,
        content: Any,
        style: Any,
        weights: Sequence[float] = (1, 1e3, 10),
        relative: bool = False,
    ) -> None:
        self.weights = numbers("weights", weights, 3)
        for weight in self.weights:
            number("weights", weight, 0)
        self._features = features
        try:
            self._contents = features.split(features(content))[0]
            self._grams = [gram(y) for y in features.split(features(style))[1]]
            nd.waitall()
        except (mx.MXNetError, ValueError) as error:
            shapes = content.shape[2:], style.shape[2:]
            raise ValueError(
                f"image_shape: expected images that are large enough for the layers, got {shapes}"
            ) from error
        relative = flag("relative", relative)
        self._scales = [_scale(y) if relative else 1.0 for y in (*self._contents, *self._grams)]

    def __call__(self, X: Any) -> list[Any]:
        """Return the weighted losses of content, style and total variation of an image, (1,) each.

        The loss of content, and that of style, is the sum over its layers.
        """
        contents, styles = self._features.split(self._features(X))
        losses = [content_loss(y, target) for y, target in zip(contents, self._contents)]
        losses += [style_loss(y, target) for y, target in zip(styles, self._grams)]
        losses = [loss * scale for loss, scale in zip(losses, self._scales)]
        content, style = self._features.split(losses)
        sums = nd.add_n(*content), nd.add_n(*style), tv_loss(X)
        return [weight * loss for weight, loss in zip(self.weights, sums)]


def _scale(target: Any) -> float:
    square = float(target.square().mean().asscalar())
    return 1 / square if square > 0 else 1.0


# --- training of the pixels -----------------------------------------------------------------------


class GeneratedImage(mx.gluon.Block):  # type: ignore[misc, name-defined]
    """A block without input that returns its only parameter, a normalized image."""

    def __init__(self, img_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=img_shape)

    def forward(self) -> Any:
        return self.weight.data()

    def clip(self) -> None:
        """Move each pixel into the range of colors."""
        pixels = self.weight.data()
        low, high = (nd.array(x.reshape(1, 3, 1, 1), pixels.context) for x in _RANGE)
        nd.broadcast_maximum(nd.broadcast_minimum(pixels, high), low, out=pixels)


def transfer(
    content: Any,
    style: Any,
    net: Any,
    layers: Layers = LAYERS["vgg19"],
    image_shape: tuple[int, int] = (150, 225),
    init: Any = None,
    *,
    weights: Sequence[float] = (1, 1e3, 10),
    relative: bool = False,
    optimizer: str = "adam",
    steps: int = 500,
    rate: float = 0.01,
    decay: float = 0.1,
    decay_steps: int = 200,
    report: Callable[[int, list[float]], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make an image with the content of one image and the style of another.

    The defaults are the book's for VGG-19. Unlike the book, each step keeps the pixels in the range
    of colors. For finer details, pass a result as ``init`` with a larger ``image_shape``.

    Args:
        content, style: images, as in :func:`preprocess`.
        net: as in :class:`StyleFeatures`, with weights. The images are processed on its device.
        layers: indices into its features, for content and style.
        image_shape: height and width of the result.
        init: initial image, as in :func:`preprocess`; ``content`` by default.
        weights, relative: as in :class:`StyleLoss`.
        optimizer: "adam", or "lbfgs" (L-BFGS of SciPy with 10 corrections), which has no learning
            rate.
        steps: maximum number of steps, 1 or more. L-BFGS may stop before.
        rate: learning rate of Adam, 0 to 1000.
        decay: factor of the learning rate after each ``decay_steps`` steps, 0 to 1.
        decay_steps: 1 or more.
        report: called after each step with the number of steps and the three losses.

    Returns:
        The image, uint8 (height, width, 3), and float64 (n + 1, 3): the weighted losses of content,
        style and total variation of the initial image and after each of n steps. They are those of
        images that are not rounded.

    Raises:
        ModuleNotFoundError: "lbfgs" without SciPy.
        TypeError, ValueError: an argument has another type or value, an image is too small for the
            layers, or a loss is infinite at these ``weights``.
    """
    optimizer = choice("optimizer", optimizer, ("adam", "lbfgs"))
    steps, decay_steps = integer("steps", steps, 1), integer("decay_steps", decay_steps, 1)
    rate, decay = number("rate", rate, 0, 1000), number("decay", decay, 0, 1)
    height, width = integers("image_shape", image_shape, "(height, width)", 2)
    features = StyleFeatures(net, *layers)
    features.hybridize(static_alloc=True)
    ctx = contexts(features)[0]
    content_X, style_X, X = (
        preprocess(image, (height, width)).as_in_context(ctx)
        for image in (content, style, content if init is None else init)
    )
    generated = GeneratedImage(X.shape)
    generated.initialize(ctx=ctx)
    generated.weight.set_data(X)
    loss_of = StyleLoss(features, content_X, style_X, weights, relative)
    history: list[list[float]] = []

    def differentiate() -> list[float]:
        return _differentiate(loss_of, generated)

    def record(losses: list[float]) -> None:
        if not np.isfinite(losses).all():
            raise ValueError(f"weights: expected finite losses, got {losses} with {weights}")
        if history and report is not None:
            report(len(history), losses)
        history.append(losses)

    record(differentiate())
    if optimizer == "adam":
        trainer = mx.gluon.Trainer(generated.collect_params(), "adam", {"learning_rate": rate})
        for step in range(steps):
            if step and step % decay_steps == 0:
                trainer.set_learning_rate(trainer.learning_rate * decay)
            trainer.step(1)
            generated.clip()
            record(differentiate())
    else:
        _minimize(generated, differentiate, record, steps)
    return postprocess(generated()), np.array(history)


def _differentiate(loss_of: StyleLoss, generated: GeneratedImage) -> list[float]:
    """Return the losses of an image, and set the gradient of its pixels."""
    # In the mode of inference, MXNet's oneDNN leaves out what the gradient of a pooling needs.
    with mx.autograd.record():
        losses = loss_of(generated())
        total = nd.add_n(*losses)
    total.backward()
    return [float(loss.asscalar()) for loss in losses]


def _minimize(
    generated: GeneratedImage,
    differentiate: Callable[[], list[float]],
    record: Callable[[list[float]], None],
    steps: int,
) -> None:
    """Run L-BFGS-B, which keeps the pixels in the range of colors.

    ``differentiate`` returns the losses of the image and sets the gradient of its pixels.
    ``record`` gets the losses after each step.
    """
    with optional():
        from scipy import optimize
    image, losses = generated.weight, [0.0]
    low, high = (np.broadcast_to(x.reshape(3, 1, 1), image.shape).ravel() for x in _RANGE)

    def evaluate(pixels: np.ndarray) -> tuple[float, np.ndarray]:
        image.set_data(nd.array(pixels.reshape(image.shape)))
        losses[:] = differentiate()
        return sum(losses), image.grad().asnumpy().astype(np.float64).ravel()

    found = optimize.minimize(
        evaluate,
        image.data().asnumpy().astype(np.float64).ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=optimize.Bounds(low, high),
        # The last evaluation of a step is that of its image.
        callback=lambda _: record(list(losses)),
        options={"maxiter": steps, "maxfun": 25 * steps, "maxcor": 10},
    )
    image.set_data(nd.array(found.x.reshape(image.shape)))
    generated.clip()  # of rounding errors
