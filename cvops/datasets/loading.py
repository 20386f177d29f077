"""Batches of a data set, whose order and random numbers do not depend on threads."""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, TypeVar

import numpy as np

from cvops.ops._check import integer

_Given = TypeVar("_Given")
_Loaded = TypeVar("_Loaded")

#: Groups that the threads load in advance.
_AHEAD = 2


def load_groups(
    load: Callable[[_Given], _Loaded], groups: Iterable[Sequence[_Given]], threads: int = 0
) -> Iterator[list[_Loaded]]:
    """Yield the results of ``load`` for each group, in order.

    Args:
        load: function of one item of a group. With threads it runs in several of them at once.
        groups: sequences of items; an iterator is read as far as its groups are loaded.
        threads: number of threads, 0 to 256; 0 loads a group when it is asked for.

    Raises:
        ValueError: ``threads`` is out of range.
    """
    threads = integer("threads", threads, 0, 256)
    if not threads:
        yield from ([load(item) for item in group] for group in groups)
        return
    waiting: collections.deque[list[Future[_Loaded]]] = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for group in groups:
            waiting.append([pool.submit(load, item) for item in group])
            if len(waiting) > _AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


class Loader:
    """Batches of the images of a data set, in another random order in each epoch.

    The images of an epoch are in a random order. Batch k has the images from number k ``parts``
    ``batch_size`` on; with several parts each part has its own ``batch_size`` of them. The last
    batch is filled up with the first images. The random numbers of an image depend on the seed, the
    epoch and its place in the order alone: an epoch can begin at any batch.

    Args:
        item: item(index, rng) returns the arrays of an image, whose shapes are those of the others.
            ``rng`` has the random numbers of the image.
        length: number of images, 1 or more.
        batch_size: images per batch and part, 1 or more.
        seed: seed of the order and of ``rng``.
        threads: threads that load images, 0 or more. The batches do not depend on it.
        part, parts: this part and the number of parts, for a training in several processes.
    """

    def __init__(
        self,
        item: Callable[[int, random.Random], tuple[np.ndarray, ...]],
        length: int,
        batch_size: int,
        seed: int,
        threads: int = 0,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        self._item, self._length = item, integer("length", length, 1)
        self._batch_size = integer("batch_size", batch_size, 1)
        self._seed = integer("seed", seed, -(2**63), 2**63)
        self._threads = integer("threads", threads, 0, 256)
        self._parts = integer("parts", parts, 1)
        self._part = integer("part", part, 0, self._parts - 1)
        #: Number of batches of an epoch.
        self.steps = math.ceil(length / (batch_size * parts))

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the batches of an epoch from number ``first`` on: stacked arrays of its images."""
        everything = range(self._length)
        order = random.Random(f"{self._seed} {epoch}").sample(everything, self._length)

        def load(place: int) -> tuple[np.ndarray, ...]:
            rng = random.Random(f"{self._seed} {epoch} {place}")
            return self._item(order[place % self._length], rng)

        starts = (
            (step * self._parts + self._part) * self._batch_size
            for step in range(first, self.steps)
        )
        groups = (range(start, start + self._batch_size) for start in starts)
        for items in load_groups(load, groups, self._threads):
            yield tuple(np.stack(column) for column in zip(*items))


def groups_of(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of ``size`` items in order; the last one may be shorter."""
    group: list[Any] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
