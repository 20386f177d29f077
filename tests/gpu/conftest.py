"""Machine code of the kernels, compiled once for all tests."""

import ctypes
import functools
import pickle
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import native
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
def compiled_by_nvcc():
    """compiled_by_nvcc(source, arch): as ``compiled``; None if this nvcc does not know ``arch``."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")

    def ask(*options):
        return subprocess.run([nvcc, *options], check=True, capture_output=True, text=True).stdout

    version, known = ask("--version"), ask("--list-gpu-code")

    @functools.lru_cache(None)
    def compiled(source, arch):
        if f"sm_{arch}\n" not in known:
            return None
        flags = [*nvrtc.FLAGS, f"-arch=sm_{arch}", "-Xptxas=-v", "-cubin"]

        def make(path):
            code, cubin = path.with_suffix(".cu"), path.with_suffix(".cubin")
            code.write_text(nvrtc.source(source))
            run = subprocess.run([nvcc, *flags, "-o", cubin, code], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            path.write_bytes(pickle.dumps((cubin.read_bytes(), run.stderr)))

        key = nvrtc.source(source), *flags, version
        return pickle.loads(cached(f"{source}-nvcc-sm{arch}", ".pickle", key, make).read_bytes())

    return compiled


@pytest.fixture(scope="session")
def disassembled(tmp_path_factory):
    """disassembled(source, cubin): the text of each kernel."""
    wheels = Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/bin/nvdisasm")
    tool = shutil.which("nvdisasm") or next(map(str, wheels), None)
    if tool is None:
        pytest.skip("no nvdisasm")

    def disassemble(source, cubin):
        file = tmp_path_factory.mktemp("sass") / f"{source}.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([tool, "-c", file], check=True, capture_output=True, text=True).stdout
        parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)[1:]
        code = dict(zip(parts[::2], parts[1::2]))
        assert set(code) == set(nvrtc.kernels(source))
        return code

    return disassemble


@pytest.fixture(scope="session")
def sass(compiled, disassembled):
    """sass(source, arch): the disassembled machine code of each kernel."""
    return functools.lru_cache(None)(
        lambda source, arch: disassembled(source, compiled(source, arch)[0])
    )


@pytest.fixture
def launch():
    """launch(name, *arguments): call a function of native/launch.cpp; return its error."""
    library = ctypes.CDLL(str(native.program("launch", "-shared", "-fPIC", *native.core())))

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    def find(kernel, device):
        return nvrtc.load(kernel.decode(), device)

    def launch(name, *arguments):
        error = ctypes.create_string_buffer(256)
        library[name](find, error, *arguments)
        return error.value.decode()

    return launch
