"""The command ``cvops``. A module adds one command, or a few that belong together."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence

from cvops import __version__
from cvops._imports import pip_command
from cvops.cli.common import Refused

#: The modules of the commands, in the order of the help.
COMMANDS = (
    "demos",
    "data",
    "train",
    "evaluate",
    "detect",
    "launch",
    "export",
    "convert",
    "warmup",
    "doctor",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cvops", description="Detection with the ops of cvops.")
    parser.add_argument("--version", action="version", version=f"cvops {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name in COMMANDS:
        importlib.import_module(f"cvops.cli.{name}").add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0, or 2 if the command cannot run with these arguments. ``cvops doctor`` returns 1
    if the ops do not work on the CPU. As in shells it is 130 after Ctrl-C, and 141 if the reader of
    the output has closed it, such as ``head``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have any bytes
    options = _parser().parse_args(arguments)
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("cvops: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _without_reader()
    except Refused as error:
        if isinstance(error.__cause__, BrokenPipeError):
            return _without_reader()
        print(f"cvops: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        needs = pip_command("demo", "mxnet")
        hint = "" if "pip install" in str(error) else f" (for this command: {needs})"
        print(f"cvops: {error}{hint}", file=sys.stderr)
        return 2
    except ImportError as error:  # an installed package cannot be loaded
        print(f"cvops: {error}", file=sys.stderr)
        return 2


def _without_reader() -> int:
    """Drop the rest of the output, whose flush would fail at the end; return the status."""
    with contextlib.suppress(OSError):  # of an output that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
