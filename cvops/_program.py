"""What a body does on a GPU, written down once, to be done in each call with other memory.

What a body asks for, memory and launches, follows from the shapes of its arrays and from its
options. So it runs once for them, on a :class:`Recorder`, where arrays have no memory yet but only
an :class:`Address`. What comes of it is a :class:`Program`: a call takes the memory, puts its
addresses in their places, and launches.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops import _kernels
from cvops._arrays import Buffer, Device
from cvops._gpu import Gpu, Kind
from cvops._launches import Launch, Launches

#: Kinds of what differs by call: the caller's arrays, results, scratch memory, and the stream.
_ARRAY, _RESULT, _SCRATCH, _STREAM = range(4)
#: Of how many bytes a part of the scratch memory is a multiple, and where it begins.
_ROOM = 256


class Address(NamedTuple):
    """What stands for an address, or the stream, of a call that is to come."""

    kind: int
    #: Which of its kind.
    number: int


class Program(NamedTuple):
    """What a body does."""

    #: Of the results.
    kinds: list[Kind]
    #: How many bytes of scratch memory it takes, and where its parts begin there.
    size: int
    parts: list[int]
    #: Queues the work, given the addresses of arrays, results and parts, and the stream.
    queue: Callable[[Sequence[int], int], None]
    #: What the body gives, of a list of the results.
    give: Callable[[list[Any]], Any]


class Recorder(Gpu):
    """Writes down what a body does with arrays of some shapes and dtypes."""

    def __init__(self, device: Device, arrays: Sequence[Kind]):
        self.device = device
        self.stream = Address(_STREAM, 0)
        self._arrays = [
            Buffer(Address(_ARRAY, i), shape, np.dtype(dtype))
            for i, (shape, dtype) in enumerate(arrays)
        ]
        self._kinds: list[Kind] = []
        self._parts: list[Part] = []
        self._clock = itertools.count()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        self._kinds.append((shape, np.dtype(dtype)))
        return Buffer(Address(_RESULT, len(self._kinds) - 1), *self._kinds[-1])

    def scratch(self, *kinds: Kind) -> tuple[Buffer, ...]:
        return tuple([self._scratch(shape, np.dtype(dtype)) for shape, dtype in kinds])

    def _scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        part = Part(math.prod(shape) * dtype.itemsize, next(self._clock))
        self._parts.append(part)
        held = _Held(part, self._clock)
        return Buffer(Address(_SCRATCH, len(self._parts) - 1), shape, dtype, held)

    def record(self, body: Callable[..., Any], options: tuple[Any, ...]) -> Program:
        out = body(self, *self._arrays, *options)
        ends = (len(self._arrays), len(self._kinds), len(self._parts))
        starts = list(itertools.accumulate(ends, initial=0))

        def place(address: Address) -> int:
            """In the order in which the addresses come, and then the stream."""
            return starts[address.kind] + address.number

        size = layout(self._parts)
        parts, queue = [part.first for part in self._parts], self._queue(place, starts[-1])
        several = type(out) is tuple
        numbers = [x.pointer.number for x in (out if several else (out,))]
        return Program(self._kinds, size, parts, queue, operator.itemgetter(*numbers))

    def _queue(
        self, place: Callable[[Address], int], count: int
    ) -> Callable[[Sequence[int], int], None]:
        """:attr:`Program.queue`, for ``count`` addresses and the stream."""
        raise NotImplementedError


class Part:
    """A part of the scratch memory: of ``size`` bytes, held from ``begin`` to ``end``."""

    def __init__(self, size: int, begin: int, end: float = math.inf):
        self.size, self.begin, self.end = -(-size // _ROOM) * _ROOM, begin, end
        #: Where it begins.
        self.first = 0


class _Held:
    """A part that a body holds, as long as it does."""

    def __init__(self, part: Part, clock: Iterator[int]):
        self._part, self._clock = part, clock

    def __del__(self) -> None:
        self._part.end = next(self._clock)


def layout(parts: Sequence[Part]) -> int:
    """Give each part its place; the size of all.

    Those that are not held at a time may have the same memory, since the work is done in order. The
    largest first: each has the first room between those placed before that it fits.
    """
    placed: list[Part] = []
    for part in sorted(parts, key=lambda part: -part.size):
        at_a_time = [x for x in placed if x.begin < part.end and part.begin < x.end]
        for other in sorted(at_a_time, key=lambda other: other.first):
            if other.first - part.first >= part.size:
                break
            part.first = max(part.first, other.first + other.size)
        placed.append(part)
    return max((part.first + part.size for part in parts), default=0)


class LaunchRecorder(Recorder):
    """Of a body that launches kernels itself: they go to the driver as CuPy binds it."""

    def __init__(self, device: Device, arrays: Sequence[Kind]):
        super().__init__(device, arrays)
        self._launches: list[tuple[Launch, tuple[Any, ...]]] = []

    @property
    def multiprocessors(self) -> int:
        return _kernels.attribute("MultiProcessorCount", self.device.number)

    @property
    def most_shared(self) -> int:
        return _kernels.attribute("MaxSharedMemoryPerBlockOptin", self.device.number)

    def _launch(self, source, kernel, grid, block, args, shared):  # type: ignore[no-untyped-def]
        number = self.device.number
        packed = _kernels.parameters(source, kernel).packed(args)
        function = _kernels.load(source, kernel, number)
        start = _kernels.start(function, grid, block, shared, number)
        self._launches.append((Launch(kernel, grid, block, shared, start), packed))

    def _queue(self, place: Callable[[Address], int], count: int) -> Launches:
        launches = [
            (launch, [place(x) if isinstance(x, Address) else x for x in packed])
            for launch, packed in self._launches
        ]
        return Launches(launches, count)


class CallRecorder(Recorder):
    """Of a body that calls the extension. What takes an address there is put off."""

    def __init__(self, device: Device, arrays: Sequence[Kind], extension: Any):
        super().__init__(device, arrays)
        self.module = _Module(extension)

    def _queue(
        self, place: Callable[[Address], int], count: int
    ) -> Callable[[Sequence[int], int], None]:
        calls = []
        for function, args in self.module.calls:
            values = [x for x in args if not isinstance(x, Address)]
            of_values = itertools.count(count + 1)
            places = [place(x) if isinstance(x, Address) else next(of_values) for x in args]
            calls.append((function, operator.itemgetter(*places), values))

        if len(calls) == 1:
            [(only, pick_all, all_values)] = calls
            return lambda addresses, stream: only(*pick_all([*addresses, stream, *all_values]))

        def queue(addresses: Sequence[int], stream: int) -> None:
            for function, pick, values in calls:
                function(*pick([*addresses, stream, *values]))

        return queue


class _Module:
    """The extension as far as it answers, and the calls that were put off."""

    def __init__(self, extension: Any):
        self._extension = extension
        self.calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self._extension, name)

        def call(*args: Any) -> Any:
            if not any(isinstance(x, Address) for x in args):
                return function(*args)
            self.calls.append((function, args))

        return call
