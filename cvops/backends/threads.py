"""How many threads the native CPU path uses."""

from __future__ import annotations

import operator
import sys

from cvops.backends import extension


def get_num_threads() -> int:
    """How many threads one call of an op on the CPU may use.

    What :func:`set_num_threads` said; else the environment's ``CVOPS_NUM_THREADS`` or
    ``OMP_NUM_THREADS`` as it was at the first call; else the cores that the process may run on (its
    affinity, and the CPU quota of its container). In a process that ``fork`` or ``multiprocessing``
    started, such as a DataLoader's worker: 1, until :func:`set_num_threads` is called there.

    Small inputs take fewer. Results do not depend on it. Calls from several threads of Python at a
    time share these threads: one call has them, the others run alone.

    Returns:
        1 or more; 1 where the compiled extension is missing.
    """
    native = extension.native()
    return 1 if native is None else int(native.num_threads())


def set_num_threads(num_threads: int) -> None:
    """Use up to ``num_threads`` threads from now on, in this process, for every op on the CPU.

    Args:
        num_threads: from 1 on. Nothing changes where the compiled extension is missing.

    Raises:
        TypeError: ``num_threads`` is not an integer.
        ValueError: it is below 1 or above 1024.
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


def begin() -> None:
    """In a process of ``multiprocessing`` that is no fork, such as a spawned worker: one thread.

    A fork is noticed by the extension itself.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return
    # While a spawned process still loads what it will run, it does not know its parent yet.
    loading = getattr(process.current_process(), "_inheriting", False)
    if loading or process.parent_process() is not None:
        set_num_threads(1)
