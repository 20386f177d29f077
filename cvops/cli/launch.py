"""The command ``cvops launch``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvops.cli import common
from cvops.cli.common import Refused


def _run(options: argparse.Namespace) -> int:
    from cvops import launch

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise Refused("command: expected the command of a worker after --, got none")
    try:
        return launch.run(
            command,
            options.workers,
            options.servers,
            launch.read_hosts(options.hosts) if options.hosts else (),
            options.ssh or launch.SSH,
            options.address,
            options.env,
        )
    except (OSError, ValueError) as error:
        raise Refused(error) from error


def add(commands: Any) -> None:
    """Add the command."""
    launch = commands.add_parser(
        "launch",
        help="train in several processes, on this machine or on several ones",
        description="Starts MXNet's scheduler, servers and workers, prints their output, and ends "
        "all of them when one fails. Example: cvops launch -n 2 -- cvops train set/ --kvstore "
        "dist_sync --output run/",
    )
    launch.add_argument("-n", "--workers", type=common.count, required=True, help="worker count")
    launch.add_argument(
        "-s", "--servers", type=common.count, default=1, help="server count (%(default)s)"
    )
    launch.add_argument(
        "--hosts",
        type=Path,
        help="text file with a machine in each line, its name for ssh and optionally its address; "
        "workers and servers take turns on them",
    )
    launch.add_argument("--ssh", help="command that runs a shell command on a machine")
    launch.add_argument("--address", help="address of this machine for the others")
    launch.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="environment variable that other machines get, besides CVOPS_*, MXNET_*, OMP_*, PS_*; "
        "may be repeated",
    )
    launch.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command of a worker")
    launch.set_defaults(run=_run)
