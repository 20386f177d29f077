"""Launches under a sanitizer, in a child process."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .arena import Arena
from .build import EmulatorError
from .request import ADDRESS, ARRAY, VALUE, Request

#: The first line of a sanitizer's report.
_REPORT = re.compile(r"^.*(?:ERROR: |WARNING: |runtime error: ).*", re.MULTILINE)
#: A line about a function of the emulator, which the error leaves out.
_EMULATOR_FRAME = re.compile(r"^ *#\d+ .*\b(?:std|emulator)::")
#: The lines of a report that become the error.
_REPORT_LINES = 20
_OPTIONS = {
    # A failed thread never returns, so its allocations would be reported as leaks.
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def launch(runner: Path, request: Request, arena: Arena | None = None) -> None:
    """Run one launch and copy the writable arrays back; runner.cpp has the format of the files."""
    with tempfile.TemporaryDirectory() as folder:
        launch, results = Path(folder, "launch"), Path(folder, "results")
        with launch.open("wb") as file:
            kernel = request.kernel.encode()
            sizes = (*request.grid, *request.block)
            file.write(struct.pack("<I", len(kernel)) + kernel)
            file.write(struct.pack("<6I2Q", *sizes, request.shared, request.seed))
            file.write(struct.pack("<I", len(request.args)))
            for arg in request.args:
                # Without an arena, an address is invalid in the child, and is refused as a value.
                is_invalid = arg.kind == ADDRESS and arg.array and arena is None
                kind = VALUE if is_invalid else arg.kind
                file.write(struct.pack("<BQ", kind, arg.array.nbytes) + arg.array.tobytes())
            regions = arena.regions if arena else []
            path = arena.path.encode() if arena else b""
            where = (arena.base, arena.used) if arena else (0, 0)
            file.write(struct.pack("<I", len(path)) + path)
            file.write(struct.pack("<3Q", *where, len(regions)))
            for region in regions:
                file.write(struct.pack("<2Q", *region))
        _run([str(runner), str(launch), str(results)])
        with results.open("rb") as file:
            for arg in request.args:
                if arg.kind == ARRAY:
                    _fill(arg.array, file.read(arg.array.nbytes))


def _fill(array: np.ndarray, content: bytes) -> None:
    array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)


def _run(command: list[str]) -> None:
    environment = {**os.environ, **_OPTIONS}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        # An older ThreadSanitizer does not support the random addresses of a newer Linux.
        command = ["setarch", "--addr-no-randomize", *command]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        report = _REPORT.search(done.stderr)
        lines = done.stderr[report.start() if report else 0 :].splitlines()
        lines = [line for line in lines if not _EMULATOR_FRAME.match(line)]
        raise EmulatorError("\n".join(lines[:_REPORT_LINES]) or f"exit status {done.returncode}")
