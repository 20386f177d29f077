"""The kernels of the emulator's tests."""

import shutil

import pytest

from .build import compiler
from .emulator import Module
from .example_kernels import KERNELS


@pytest.fixture(scope="session", autouse=True)
def _needs_compiler():
    if shutil.which(compiler()[0]) is None:
        pytest.skip("needs a C++ compiler")


@pytest.fixture(scope="session")
def kernels():
    return Module(KERNELS, "example")
