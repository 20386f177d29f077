"""Steps of a training on one or more devices, for the blocks that return losses; frozen blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvops._mxnet import mxnet
from cvops.distributed import share_parameters
from cvops.ops._check import flag

mx = mxnet()


def contexts(net: Any) -> list[Any]:
    """Return the devices of the parameters of ``net``."""
    return next(iter(net.collect_params().values())).list_ctx()


def step(
    training: Any,
    trainer: Any,
    batch: Sequence[Any],
    devices: Sequence[Any],
    some_parameters: bool = False,
) -> list[Any]:
    """Run forward, backward, and an update of the weights.

    Args:
        training: block from the arrays of ``batch`` to outputs; the first one is the loss of each
            image, (B,).
        trainer: a ``gluon.Trainer`` of the parameters.
        batch: arrays whose first axis is the images, on any device. The workers of a distributed
            store have batches of the same size.
        devices: MXNet's contexts. The batch is split over them evenly or nearly so.
        some_parameters: True if the loss depends on some of the parameters only. The others keep
            their values.

    Returns:
        The outputs of ``training`` on each device.

    Raises:
        ValueError: the batch has fewer images than devices.
    """
    if len(batch[0]) < len(devices):
        raise ValueError(
            f"images: expected {len(devices)} or more, one per device, got {len(batch[0])}"
        )
    split = mx.gluon.utils.split_and_load
    parts = [split(given, list(devices), even_split=False) for given in batch]
    with mx.autograd.record():
        results = [training(*part) for part in zip(*parts)]
    mx.autograd.backward([loss for loss, *_ in results])
    if not trainer._kv_initialized:
        share_parameters(trainer)
    # The gradients are sums over the workers of a distributed store.
    workers = 1 if trainer._kvstore is None else trainer._kvstore.num_workers
    trainer.step(len(batch[0]) * workers, ignore_stale_grad=some_parameters)
    return results


def freeze(block: Any, frozen: bool = True) -> None:
    """Stop, or resume, the training of all parameters below ``block``.

    A batch normalization of a frozen block uses its running mean and variance, and keeps them. Call
    it before the block is hybridized, or hybridize again.
    """
    frozen = flag("frozen", frozen)
    for parameter in block.collect_params().values():
        if "running" not in parameter.name:
            parameter.grad_req = "null" if frozen else "write"

    def visit(part: Any) -> None:
        if isinstance(part, mx.gluon.nn.BatchNorm):
            part._kwargs["use_global_stats"] = frozen

    block.apply(visit)
