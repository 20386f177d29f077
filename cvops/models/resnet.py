"""ResNet-18 of "Dive into Deep Learning", in Gluon, for small images."""

from __future__ import annotations

from typing import Any

from cvops._mxnet import mxnet
from cvops.ops._check import flag, integer

mx = mxnet()
nn = mx.gluon.nn


class Residual(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Two 3 x 3 convolutions with batch normalization, and a connection around them.

    The result has ``num_channels`` channels, and a height and width that are divided by
    ``strides``, rounded up.

    Args:
        num_channels: number of channels of the result.
        use_1x1conv: the connection has a 1 x 1 convolution. It is necessary if the input has
            another shape than the result.
        strides: stride of the first convolution and of the connection.
    """

    def __init__(
        self, num_channels: int, use_1x1conv: bool = False, strides: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        channels, strides = integer("num_channels", num_channels, 1), integer("strides", strides, 1)
        self.conv1 = nn.Conv2D(channels, kernel_size=3, padding=1, strides=strides)
        self.conv2 = nn.Conv2D(channels, kernel_size=3, padding=1)
        self.conv3 = None
        if flag("use_1x1conv", use_1x1conv):
            self.conv3 = nn.Conv2D(channels, kernel_size=1, strides=strides)
        self.bn1, self.bn2 = nn.BatchNorm(), nn.BatchNorm()

    def hybrid_forward(self, F: Any, X: Any) -> Any:
        Y = F.Activation(self.bn1(self.conv1(X)), act_type="relu")
        Y = self.bn2(self.conv2(Y))
        return F.Activation(Y + (X if self.conv3 is None else self.conv3(X)), act_type="relu")


def resnet18(num_classes: int, channels: int = 64, stride: int = 1) -> Any:
    """Return a network from images (B, C, H, W) to scores (B, num_classes).

    It has no pooling before its residual blocks. Its structural parameter names are those of the
    book's network, whose files it loads.

    Args:
        num_classes: number of classes.
        channels: number of channels of the first layer; they double three times.
        stride: stride of the first layer.
    """
    num_classes, channels = integer("num_classes", num_classes, 1), integer("channels", channels, 1)
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(channels, kernel_size=3, strides=integer("stride", stride, 1), padding=1),
        nn.BatchNorm(),
        nn.Activation("relu"),
    )
    for stage in range(4):
        block = nn.HybridSequential()
        for number in range(2):
            halves = stage > 0 and number == 0
            block.add(Residual(channels << stage, use_1x1conv=halves, strides=1 + halves))
        net.add(block)
    net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net
