"""Jobs of the benchmarks, and comparisons of their results.

A job is one op on one input. A benchmark defines it once for all implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, NamedTuple, Optional

import numpy as np


def check_identical(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Raise unless all bits are the same."""
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs):
        assert x.dtype == y.dtype, f"{x.dtype} and {y.dtype}"
        bits = f"u{x.dtype.itemsize}"
        np.testing.assert_array_equal(x.view(bits), y.view(bits))


def check_scores(ours: np.ndarray, theirs: np.ndarray, share: float = 0.999) -> None:
    """Raise unless that share of the scores of kept boxes is the same.

    Scores identify boxes. Other roundings change a few decisions.
    """
    assert len(np.intersect1d(ours, theirs)) >= share * len(np.unique(ours))
    assert abs(len(ours) - len(theirs)) <= (1 - share) * len(ours)


def count_kept_pairs(out: list[np.ndarray]) -> int:
    """Count the pairs of kept boxes of one class, which NMS must compare.

    ``out`` is a result of box_nms or multibox_detection: rows that begin with the class, -1 for
    empty rows.
    """
    pairs = 0
    for rows in out[0].reshape(-1, *out[0].shape[-2:]):
        _, kept = np.unique(rows[rows[:, 0] >= 0, 0], return_counts=True)
        pairs += int((kept * (kept - 1) // 2).sum())
    return pairs


class Peer(NamedTuple):
    """A job in another library."""

    #: Returns the function to time, from the module and a function that makes its arrays.
    prepare: Callable[[Any, Callable[..., Any]], Callable[[], Any]]
    #: Raises if its results, the second argument, differ from ours by more than its rules allow.
    check: Callable[[list[np.ndarray], list[np.ndarray]], None] = check_identical


class InnerLoop(NamedTuple):
    """The innermost loop of a job whose time may depend on arithmetic."""

    #: One of ``limits.LOOPS``.
    name: str
    #: Returns the pairs of boxes that must be compared without pruning, from our results.
    pairs: Callable[[list[np.ndarray]], int]


@dataclass(eq=False)
class Job:
    """One op on one input."""

    op: str
    size: str
    #: The op of cvops: ``ours(*arrays, backend=...)``.
    ours: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    #: The amount of work, and its unit.
    work: tuple[int, str]
    #: Bytes of the results.
    written: int
    #: Bytes that must be read, each input once; by default all of the arrays.
    read: Optional[int] = None
    inner: Optional[InnerLoop] = None
    #: The peers, by the keys of ``LIBRARIES``.
    peers: dict[str, Peer] = field(default_factory=dict)
    #: Implementations that need more than about a second, by the keys of ``IMPLEMENTATIONS``.
    too_slow: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.read is None:
            self.read = sum(x.nbytes for x in self.arrays)

    @property
    def moved(self) -> int:
        """Bytes that must be read or written, each once."""
        assert self.read is not None
        return self.read + self.written

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """The results of our best implementation on the CPU."""
        return to_numpy(self.ours(*self.arrays, backend=None))


def flat(out: Any) -> list[Any]:
    """Return the results of a call as a list."""
    return list(out) if isinstance(out, (tuple, list)) else [out]


def to_numpy(out: Any) -> list[np.ndarray]:
    """Convert the results of an implementation to NumPy arrays."""

    def one(x: Any) -> np.ndarray:
        if isinstance(x, np.ndarray):
            return x
        if hasattr(x, "asnumpy"):
            return x.asnumpy()
        return x.get() if hasattr(x, "get") else x.detach().cpu().numpy()

    return [one(x) for x in flat(out)]
