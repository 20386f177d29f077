"""The errors of the emulator: refused launches, and kernels that break a rule of CUDA."""

import numpy as np
import pytest

from . import backends
from .emulator import EmulatorError, Module

#: A kernel that breaks a rule -> the threads of a block, and the error.
BROKEN_RULES = {
    "two_barriers": (64, r"thread \(40, 0, 0\): waits at the barrier example:\d+ while"),
    "barrier_and_collective": (32, r"__syncwarp .* for lane 0, which waits at the barrier"),
    "exited_lane": (32, r"__shfl_sync .* lane 5.* has exited"),
    "partial_warp": (48, r"mask 0xffffffff, but lane 16 does not exist"),
    "two_collectives": (32, r"__a\w\w_sync called, but lane \d+ calls __a\w\w_sync"),
    "two_masks": (32, r"mask 0xffffffff.* lane \d+.* (has exited|with mask 0x00000003)"),
    "lane_not_in_mask": (32, r"lane that is not in its mask 0x00000002"),
    "invalid_width": (32, r"width 12, which is not a power of two"),
    "active_mask": (32, r"__activemask\(\)"),
    "trap": (32, r"__trap\(\)"),
}


@pytest.mark.parametrize("kernel", BROKEN_RULES)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_broken_rule_is_an_error(kernels, kernel, seed):
    threads, message = BROKEN_RULES[kernel]
    with pytest.raises(EmulatorError, match=message):
        kernels.launch(kernel, (2,), (threads,), (np.zeros(64, np.int32),), seed=seed)


#: name -> the kernel, the grid, the block, the bytes of dynamic shared memory, and the error.
BEYOND_LIMITS = {
    "1025 threads": ("empty", (1,), (1025,), 0, "at most 1024 threads"),
    "32 x 33 threads": ("empty", (1,), (32, 33), 0, "at most 1024 threads"),
    "65 threads along z": ("empty", (1,), (1, 1, 65), 0, "64 along z"),
    "65536 blocks along y": ("empty", (1, 65536), (1,), 0, "at most 2147483647 x 65535 x 65535"),
    "65536 blocks along z": ("empty", (1, 1, 65536), (1,), 0, "at most 2147483647 x 65535 x 65535"),
    "no blocks": ("empty", (0,), (1,), 0, r"grid: expected .*, got \(0, 1, 1\)"),
    "no threads": ("empty", (1,), (0,), 0, r"block: expected .*, got \(0, 1, 1\)"),
    "dynamic shared memory": ("empty", (1,), (1,), 227 * 1024 + 1, "at most 232448 bytes"),
    "static and dynamic shared memory": (
        "uninitialized",
        (1,),
        (1,),
        227 * 1024 - 7,
        "got 8 static and 232441 dynamic bytes",
    ),
    "launch bounds": ("reverse", (1,), (65,), 0, "at most 64 threads by __launch_bounds__"),
    "unknown kernel": ("absent", (1,), (1,), 0, "absent, .*: expected a kernel of the module"),
}


@pytest.mark.parametrize(
    ("kernel", "grid", "block", "shared", "message"), BEYOND_LIMITS.values(), ids=BEYOND_LIMITS
)
def test_launch_beyond_a_limit_is_refused(kernels, kernel, grid, block, shared, message):
    args = (np.zeros(2, np.int32),) if kernel == "uninitialized" else ()
    with pytest.raises(EmulatorError, match=message):
        kernels.launch(kernel, grid, block, args, shared)


READ_ONLY = np.zeros(4, np.float32)
READ_ONLY.flags.writeable = False
ARGUMENTS = {
    "array": np.zeros(8, np.float32),
    "misaligned": np.zeros(8, np.float32)[1:5],
    "strided": np.zeros(8, np.float32)[::2],
    "read-only": READ_ONLY,
    "int": 0,
    "float": np.float32(1),
    "double": np.float64(1),
    "long": np.int64(1),
}


#: name -> the kernel, the names of its arguments, and the error.
UNLIKE_PARAMETERS = {
    "number of arguments": ("scaled", "array", EmulatorError, "expected 3 arguments, got 1"),
    "Python int": (
        "scaled",
        "int int int",
        TypeError,
        "scaled: argument 0: expected a NumPy array or scalar, got <class 'int'>",
    ),
    "size of a value": (
        "scaled",
        "array array double",
        EmulatorError,
        "argument 2: expected 4 bytes, got 8",
    ),
    "array for a value": (
        "scaled",
        "array array array",
        EmulatorError,
        "argument 2: expected a value of 4 bytes, got an array",
    ),
    "value for a pointer": (
        "scaled",
        "float array float",
        EmulatorError,
        "argument 0: expected a pointer, got a value of 4 bytes",
    ),
    "misaligned array": (
        "scaled",
        "array misaligned float",
        EmulatorError,
        "argument 1: expected alignment to 16 bytes",
    ),
    "strided array": (
        "scaled",
        "array strided float",
        ValueError,
        "scaled: argument 1: expected a C-contiguous array",
    ),
    "read-only array": (
        "scaled",
        "read-only array float",
        EmulatorError,
        "argument 0: expected a writable array, got a read-only array",
    ),
    "size of a struct": (
        "on_line",
        "array double long",
        EmulatorError,
        "argument 1: expected 16 bytes, got 8",
    ),
}


@pytest.mark.parametrize(
    ("kernel", "args", "error", "message"), UNLIKE_PARAMETERS.values(), ids=UNLIKE_PARAMETERS
)
def test_argument_unlike_the_parameter_is_refused(kernels, kernel, args, error, message):
    with pytest.raises(error, match=message):
        kernels.launch(kernel, (1,), (1,), [ARGUMENTS[name] for name in args.split()])


def test_error_names_the_module_and_the_launch(kernels):
    with pytest.raises(EmulatorError, match=r"example: trap, grid \(2, 1, 1\), block \(3, 1"):
        kernels.launch("trap", (2,), (3,), (np.zeros(1, np.int32),))


def test_compiler_error_names_the_file_and_the_line():
    with pytest.raises(EmulatorError, match=r"broken\.cuh:2.*not declared"):
        Module('extern "C" __global__ void f(int* x) {\n  *x = y;\n}', "broken.cuh")


def test_access_to_a_misaligned_address_is_an_error(kernels):
    """A GPU stops at a misaligned float4; a CPU would read it."""
    out = backends.aligned((32,), np.float32)
    out[:] = 1
    kernels.launch("vector_read", (2,), (4,), (out, np.int32(4)))
    assert out[0] == 2
    message = r"block \(0, 0, 0\), thread \(0, 0, 0\): example:\d+: misaligned address .*float4"
    for shift in (1, 2, 3):
        with pytest.raises(EmulatorError, match=message):
            kernels.launch("vector_read", (2,), (4,), (out, np.int32(shift)))
