"""The number of threads of an op on the CPU."""

from __future__ import annotations

import operator
import sys

from cvops.backends import extension


def get_num_threads() -> int:
    """Return the maximum number of threads of one call of an op on the CPU.

    The first of these that exists is used:

    - the number of :func:`set_num_threads`;
    - ``CVOPS_NUM_THREADS`` or ``OMP_NUM_THREADS`` of the environment, as of the first call;
    - the cores of the process (its affinity, and the CPU quota of its container).

    A process that ``fork`` or ``multiprocessing`` started, such as a DataLoader's worker, has 1
    until it calls :func:`set_num_threads`.

    Small inputs use fewer threads. Results do not depend on the number. Concurrent calls from
    several Python threads share these threads: one call uses them, and the others run on their own
    thread only.

    Returns:
        1 or more; 1 where the compiled extension is missing.
    """
    native = extension.native()
    return 1 if native is None else int(native.num_threads())


def set_num_threads(num_threads: int) -> None:
    """Set the maximum number of threads of an op on the CPU, in this process.

    Args:
        num_threads: from 1 to 1024. It has no effect where the compiled extension is missing.

    Raises:
        TypeError: ``num_threads`` is not an integer.
        ValueError: ``num_threads`` is below 1 or above 1024.
    """
    try:
        number = operator.index(num_threads)
    except TypeError:
        kind = type(num_threads).__name__
        raise TypeError(f"num_threads: expected an integer, got {kind}") from None
    if not 1 <= number <= 1024:
        raise ValueError(f"num_threads: expected 1 to 1024, got {number}")
    native = extension.native()
    if native is not None:
        native.set_num_threads(number)


def limit_spawned_workers() -> None:
    """Limit a process that ``multiprocessing`` spawned to one thread.

    The extension detects a fork by itself.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return
    # A spawned process does not have its parent process yet while it loads the main module.
    loading = getattr(process.current_process(), "_inheriting", False)
    if loading or process.parent_process() is not None:
        set_num_threads(1)
