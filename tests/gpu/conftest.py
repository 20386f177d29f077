"""Machine code of the kernels, compiled by NVRTC once for all tests."""

import functools
import pickle
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from emulator.build import cached

from cvops._imports import load_nvrtc
from cvops.backends import nvrtc


@pytest.fixture(scope="session")
def compiler():
    """CuPy's module of NVRTC."""
    pytest.importorskip("cupy")
    try:
        compiler = load_nvrtc()
        compiler.getVersion()  # loads NVRTC's library
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no NVRTC: {error}")
    return compiler


@pytest.fixture(scope="session")
def compiled(compiler):
    """compiled(source, arch): the cubin and the report of ptxas."""
    compile_cubin = nvrtc.compile_cubin  # tests may replace the attribute

    @functools.lru_cache(None)
    def compiled(source, arch):
        def make(path):
            made = compile_cubin(compiler, source, arch, ("--ptxas-options=-v",))
            path.write_bytes(pickle.dumps(made))

        key = nvrtc.source(source), *nvrtc.FLAGS, str(compiler.getVersion())
        return pickle.loads(cached(f"{source}-sm{arch}", ".pickle", key, make).read_bytes())

    return compiled


@pytest.fixture(scope="session")
def sass(compiled, tmp_path_factory):
    """sass(source, arch): the disassembled machine code of each kernel."""
    wheels = Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/bin/nvdisasm")
    tool = shutil.which("nvdisasm") or next(map(str, wheels), None)
    if tool is None:
        pytest.skip("no nvdisasm")

    @functools.lru_cache(None)
    def disassemble(source, arch):
        file = tmp_path_factory.mktemp("sass") / f"{source}.cubin"
        file.write_bytes(compiled(source, arch)[0])
        text = subprocess.run([tool, "-c", file], check=True, capture_output=True, text=True).stdout
        parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)[1:]
        code = dict(zip(parts[::2], parts[1::2]))
        assert set(code) == set(nvrtc.kernels(source))
        return code

    return disassemble
