"""Fine-tuning: a network with the features of another one and a new output layer.

The networks have the parts ``features`` and ``output``, as those of Gluon's model zoo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops import weights
from cvops._mxnet import mxnet
from cvops.models.steps import freeze
from cvops.ops._check import flag, integer, number

mx = mxnet()
nn = mx.gluon.nn


def network(name: str, classes: int) -> Any:
    """Return a network of Gluon's model zoo with ``classes`` classes, without weights.

    The output of SqueezeNet is for images of any size: a 1 x 1 convolution and the mean over the
    positions. That of the zoo is for 224 x 224 pixels.

    Args:
        name: as for ``cvops.weights``.
        classes: number of classes, 1 or more.

    Raises:
        ValueError: ``name`` is not a network of the zoo.
    """
    name, classes = weights.zoo_name(name), integer("classes", classes, 1)
    net = mx.gluon.model_zoo.vision.get_model(name, classes=classes)
    if isinstance(net, mx.gluon.model_zoo.vision.SqueezeNet):
        with net.name_scope():
            net.output = nn.HybridSequential(prefix="")
            net.output.add(nn.Conv2D(classes, kernel_size=1), nn.GlobalAvgPool2D(), nn.Flatten())
    return net


def fine_tune(
    net: Any,
    source: Any,
    lr_mult: float = 10.0,
    frozen: bool = False,
    rows: Sequence[int] | None = None,
    ctx: Any = None,
) -> Any:
    """Initialize ``net`` for fine-tuning, and return it.

    The features get copies of the weights of ``source``, so that a training changes ``net`` only.
    The output gets random weights of Xavier's initializer.

    Args:
        net: a new network with the architecture of ``source`` and its own number of classes.
        source: a network with weights.
        lr_mult: ratio of the learning rates of the output and of the features, 0 or more.
        frozen: do not train the features. Their batch normalization uses its running means and
            keeps them.
        rows: for each class of ``net`` the class of ``source`` whose weights the output begins
            with; by default the output is random.
        ctx: a context or a list of contexts, the CPU by default.

    Raises:
        ValueError: ``source`` has another architecture or no weights, or ``rows`` are not its
            classes.
    """
    lr_mult, frozen = number("lr_mult", lr_mult, 0), flag("frozen", frozen)
    copies = _values("features", net.features, source.features)
    if rows is not None:
        rows = [integer("rows", row, 0) for row in rows]
        copies += _values("output", net.output, source.output, rows)
    for parameter, values in copies:
        parameter.shape = values.shape  # so that the initialization is not deferred
    net.initialize(mx.init.Xavier(), ctx=ctx, force_reinit=True)
    for parameter, values in copies:
        parameter.set_data(mx.nd.array(values, dtype=values.dtype))
    net.output.collect_params().setattr("lr_mult", lr_mult)
    if frozen:
        freeze(net.features)
    return net


def _values(
    part: str, net: Any, source: Any, rows: Sequence[int] | None = None
) -> list[tuple[Any, np.ndarray]]:
    """Return each parameter of a block, and its values (or some rows) in a similar block."""
    ours, theirs = net._collect_params_with_prefix(), source._collect_params_with_prefix()
    if ours.keys() != theirs.keys():
        only = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(
            f"source: expected the {part} of net, got others: only one of them has {only[0]}"
        )
    found = []
    for name, parameter in ours.items():
        try:
            values = theirs[name].data(theirs[name].list_ctx()[0]).asnumpy()
        except (RuntimeError, mx.MXNetError) as error:  # not initialized, or not yet
            raise ValueError(
                f"source: expected a network with weights, got none in {name}"
            ) from error
        if rows is not None:
            if max(rows, default=0) >= len(values):
                raise ValueError(
                    f"rows: expected classes of source, 0 to {len(values) - 1}, got {list(rows)}"
                )
            values = values[list(rows)]
        wanted, got = parameter.shape, values.shape
        if len(wanted) != len(got) or any(a not in (0, b) for a, b in zip(wanted, got)):
            raise ValueError(
                f"{'source' if rows is None else 'rows'}: expected {part} of shape {wanted} "
                f"in {name}, got {got}"
            )
        found.append((parameter, values))
    return found
