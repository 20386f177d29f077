"""The command ``cvops warmup``."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from cvops.cli.common import Refused, count


def _warmup(options: argparse.Namespace) -> None:
    from cvops.backends import nvrtc

    if importlib.util.find_spec("cupy") is not None:
        arches = options.arch or nvrtc.architectures()
        for arch in arches:
            try:
                for source in nvrtc.sources():
                    print(nvrtc.cubin_file(source, arch))
            except (OSError, RuntimeError) as error:
                raise Refused(f"the kernels for sm_{arch}: {error}") from error
        if not arches:
            print("kernels: not compiled, there is no GPU here; --arch 90 compiles them for sm_90")
    elif options.arch:
        raise Refused(
            '--arch: compiling kernels needs CuPy: pip install "cvops[cuda12]" or "cvops[cuda13]"'
        )
    for package, module in (
        ("mxnet", "cvops._mxnet.build"),
        ("torch", "cvops.torch.build"),
        ("jax", "cvops.jax.build"),
    ):
        if importlib.util.find_spec(package) is not None:
            print(importlib.import_module(module).build())


def add(commands: Any) -> None:
    """Add the command."""
    warmup = commands.add_parser(
        "warmup",
        help="compile in advance: the kernels for the GPUs of this machine, and the operators for "
        "MXNet, PyTorch and JAX",
    )
    warmup.add_argument(
        "--arch",
        type=count,
        nargs="+",
        help="GPU architectures to compile the kernels for, such as: 80 90",
    )
    warmup.set_defaults(run=_warmup)
