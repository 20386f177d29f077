"""The command ``cvops``. A module adds one command, or a few that belong together."""

from __future__ import annotations

import argparse
import importlib
import io
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
    if the ops do not work on the CPU.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have any bytes
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except Refused as error:
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
