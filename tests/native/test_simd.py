"""The ops for each vector width, on the CPU of this machine and on an emulated ARM CPU."""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from cases import OPS
from emulator.build import compiler

import cvops
from cvops.backends import extension
from native import BINDINGS, check_compiles, core, program, run

#: Sources with explicit vectors.
VECTORS = [
    path.stem
    for path in sorted(BINDINGS.glob("cpu/*.cpp"))
    if re.search(r"\b(by_width|with_pixel|transpose|Four)\b", path.read_text("utf-8"))
]
CROSS_COMPILER, ARM = "aarch64-linux-gnu-g++", "qemu-aarch64"


@pytest.fixture(scope="module")
def native():
    if extension.native() is None:
        pytest.skip("needs the compiled extension cvops._native")
    return extension.native()


def hashes(text):
    """Return {op: {(width, threads): hash of the results}}."""
    found = defaultdict(dict)
    for line in text.splitlines():
        op, simd, threads, value = line.split()
        found[op][simd, int(threads)] = value
    return found


@pytest.fixture(scope="module")
def bits():
    return hashes(run(program("bits", *core())))


def test_every_op_runs_with_each_width_and_number_of_threads(bits, native):
    assert sorted(bits) == OPS
    for ways in bits.values():
        assert set(ways) == {(simd, n) for simd in native.simd_names() for n in (1, 2, 5)}


@pytest.mark.parametrize("op", OPS)
def test_results_do_not_depend_on_width_and_threads(bits, op):
    assert len(set(bits[op].values())) == 1, bits[op]


def test_functions_for_avx_call_no_functions_of_the_baseline(native):
    """A call that is not inlined would leave the loop in it without wide vectors."""
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump (on Debian: apt-get install binutils)")
    library = Path(native.__file__).parent / "lib" / "libcvops.so"
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wide, calls = 0, []
    for function in re.split(r"\n\n[0-9a-f]+ ", text):
        name = function.partition("\n")[0]
        if "as_avx" in name:
            wide += 1
            # A function of cvops, mangled; _ZZ is a lambda. A jump within the function has an
            # offset.
            called = re.findall(r"\b(?:call|jmp)q? .*<(_ZZ?NK?5cvops[^+>]*)>", function)
            calls += [(name, call) for call in called if "as_avx" not in call]
    if not wide:
        pytest.skip("needs an x86-64 CPU and a library with the names of its functions")
    assert not calls


@pytest.mark.parametrize("source", VECTORS)
def test_explicit_vectors_are_not_split_into_scalars(source):
    """GCC splits an operation, even a comparison in SSE2, on vectors wider than the target's."""
    flag = "-Werror=vector-operation-performance"
    if "Free Software Foundation" not in run(*compiler(), "--version"):
        pytest.skip(f"needs {flag} of g++")
    check_compiles(BINDINGS / "cpu" / f"{source}.cpp", flag)


def test_lanes_beyond_the_channels_are_zero():
    """A denormal in an unused lane would make the sums of an op many times as slow."""
    counts = [
        tuple(map(int, line.split())) for line in run(program("spare_lanes", *core())).splitlines()
    ]
    assert sum(spare for spare, _ in counts) > 5000
    assert {wrong for _, wrong in counts} == {0}


def test_exponentials_of_soft_nms_have_the_bits_of_the_kernels():
    num, wrong = map(int, run(program("soft_nms_factors")).split())
    assert num > 3e8
    assert wrong == 0


def test_arm_gives_the_same_results(bits):
    for command, package in ((CROSS_COMPILER, "g++-aarch64-linux-gnu"), (ARM, "qemu-user")):
        if shutil.which(command) is None:
            pytest.skip(f"needs {command} (on Debian: apt-get install {package})")
    sources = [*BINDINGS.glob("cpu/*.cpp"), *BINDINGS.glob("runtime/*.cpp")]
    arm = program("bits", "-static", *sources, compiler=CROSS_COMPILER)
    for op, ways in hashes(run(ARM, arm)).items():
        assert set(ways.values()) == set(bits[op].values()), op


class TestWidth:
    def test_widths_are_those_of_the_cpu(self, native):
        with open("/proc/cpuinfo", encoding="ascii") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), ())
        widths = ["baseline"]
        if {"avx2", "bmi2"} <= set(flags):
            widths.append("avx2")
            if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
                widths.append("avx512")
        assert native.simd_names() == widths

    @pytest.mark.parametrize(
        ("value", "selected"),
        [("baseline", 0), ("", -1), ("sse9", -1)],
        ids=["known", "empty", "unknown"],
    )
    def test_known_width_in_the_environment_replaces_the_widest(self, native, value, selected):
        code = "from cvops.backends import extension; print(extension.native().simd())"
        env = {**os.environ, "CVOPS_SIMD": value}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert out.stdout.strip() == native.simd_names()[selected], out.stderr

    def test_width_can_change_in_a_process(self, native):
        before = native.simd()
        boxes = np.random.default_rng(0).random((50, 4), np.float32)
        results = []
        try:
            for name in native.simd_names():
                native.set_simd(name)
                assert native.simd() == name
                results.append(cvops.box_iou(boxes, boxes, backend="native"))
        finally:
            native.set_simd(before)
        for result in results:
            np.testing.assert_array_equal(result, results[0])

    def test_width_that_the_cpu_lacks_is_refused(self, native):
        with pytest.raises(ValueError, match="simd: this machine cannot run 'avx1024'"):
            native.set_simd("avx1024")
