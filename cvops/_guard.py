"""The parent of one process of ``cvops launch``, on the machine of that process.

The launcher runs this file with the Python of that machine, and holds a pipe to its standard input.
Each byte in the pipe interrupts the process. The end of the pipe ends it: the launcher closed the
pipe, or does not exist anymore. The kernel kills the process if this parent is killed.

The exit status is that of the process, or 128 and the number of the signal that killed it.
"""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading

#: The seconds between SIGTERM and SIGKILL.
GRACE = 5
_PR_SET_PDEATHSIG = 1


def _prepare_child(parent: int) -> None:
    """Bind the life of the new process to its parent. The launcher may ignore SIGINT."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before the call
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _follow(process: "subprocess.Popen[bytes]") -> None:
    """Pass on interrupts; end the group of the process at the end of the pipe."""
    while os.read(0, 1):
        _signal_group(process, signal.SIGINT)
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)


def main() -> int:
    """Run the command in the arguments and return its exit status."""
    try:
        process = subprocess.Popen(
            sys.argv[1:],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=functools.partial(_prepare_child, os.getpid()),
        )
    except OSError as error:
        print(f"cvops: {sys.argv[1]}: cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_follow, args=(process,), daemon=True).start()
    status = process.wait()
    _signal_group(process, signal.SIGKILL)  # children that the process left
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the thread still reads the pipe
