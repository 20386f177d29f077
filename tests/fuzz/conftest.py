"""The extension under test."""

import os

import pytest

from cvops.backends import extension, nvrtc
from cvops.ops import _op

#: Flags of g++, such as -fsanitize=address,undefined. The process needs libasan preloaded.
FLAGS = os.environ.get("CVOPS_FUZZ_FLAGS", "").split()


@pytest.fixture(scope="session")
def native():
    """The installed extension, or with ``FLAGS`` one that is compiled with them."""
    if FLAGS:
        from emulator.backends import BINDINGS
        from emulator.extension import build_extension

        os.environ.pop("LD_PRELOAD", None)  # a compiler with a sanitizer is slow
        module = build_extension(BINDINGS, nvrtc.KERNELS, "_native_fuzzed", ["-g1", *FLAGS])
        extension.native = lambda: module
        _op.clear_caches()
        return module
    if extension.native() is None:
        pytest.skip(extension.missing_native())
    return extension.native()
