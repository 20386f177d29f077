"""The adapter for the installed PyTorch. ``import cvops.torch`` builds it; this file does not."""

from __future__ import annotations

from pathlib import Path

from cvops.backends.adapter import Adapter


def recipe() -> Adapter:
    """Return the adapter for this PyTorch; compile nothing.

    Raises:
        ImportError: PyTorch is older than 2.6, and has another ABI of the C++ library.
    """
    import torch

    if not torch._C._GLIBCXX_USE_CXX11_ABI:
        raise ImportError(f"cvops.torch: expected PyTorch 2.6 or later, got {torch.__version__}")
    folder = Path(torch.__file__).parent
    include, lib = folder / "include", folder / "lib"
    api = include / "torch" / "csrc" / "api" / "include"
    return Adapter(
        module="cvops.torch",
        folder="torch",
        framework="PyTorch",
        flags=("-std=c++20", f"-isystem{include}", f"-isystem{api}"),
        abi=(torch.__version__,),
        libraries=tuple(lib / f"lib{name}.so" for name in ("torch_cpu", "c10")),
    )
