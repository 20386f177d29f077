"""The sources of the kernels and NVRTC of CUDA 12.0, the oldest of the extra ``cuda12``."""

import ctypes
import functools

import pytest

from cvops._imports import wheel_folders
from cvops.backends import nvrtc


@functools.lru_cache(None)
def library():
    folders = wheel_folders("cuda_nvrtc")
    files = [file for folder in folders for file in folder.glob("libnvrtc.so.12")]
    return ctypes.CDLL(str(files[0])) if files else None


def compile_ptx(library, name):
    """Return the status and the log of a compilation. It runs no ptxas, which takes long."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [option.encode() for option in (*nvrtc.OPTIONS, "-arch=compute_90")]
    text = nvrtc.source(name).encode()
    made = library.nvrtcCreateProgram(ctypes.byref(program), text, name.encode(), 0, None, None)
    assert made == 0
    try:
        array = (ctypes.c_char_p * len(options))(*options)
        status = library.nvrtcCompileProgram(program, len(options), array)
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        return status, log.value.decode()
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@pytest.mark.parametrize("source", nvrtc.sources())
def test_source_compiles(source):
    if library() is None:
        pytest.skip("needs NVRTC of CUDA 12: pip install nvidia-cuda-nvrtc-cu12==12.0.*")
    status, log = compile_ptx(library(), source)
    assert status == 0, log
