"""Registers, spills and shared memory of the kernels, as the compilers report them."""

import re

import pytest
from emulator.driver import elf

from cvops.backends import nvrtc

#: ptxas has the code of 80 for 86 and 89, with other limits.
ARCHITECTURES = [75, 80, *(pytest.param(x, marks=pytest.mark.slow) for x in (86, 89)), 90, 100, 120]
SOURCES = nvrtc.sources()
#: Three blocks of 256 threads then fit on a multiprocessor of every architecture.
MAX_REGISTERS = 80
#: One block of 256 threads fits. A double takes two registers.
MAX_REGISTERS_OF_DOUBLES = 255


def resources(log):
    """Return {kernel: (bytes of stack, bytes of spills, registers)} from a report of ptxas."""
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        log,
        re.DOTALL,
    )
    return {
        name: (int(stack), int(stores) + int(loads), int(registers))
        for name, stack, stores, loads, registers in found
    }


def check(source, arch, log, record_property):
    """Check the resources of each kernel; the summary of the tests shows the registers."""
    used = resources(log)
    assert set(used) == set(nvrtc.kernels(source))
    for kernel, (stack, spills, registers) in sorted(used.items()):
        record_property(f"{kernel}, registers for {arch}", registers)
        assert (stack, spills) == (0, 0), kernel
        doubles = "f64" in kernel
        assert registers <= (MAX_REGISTERS_OF_DOUBLES if doubles else MAX_REGISTERS), kernel


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_nvrtc_compiles_without_spills(compiled, source, arch, record_property):
    cubin, log = compiled(source, arch)
    assert cubin[:4] == b"\x7fELF"
    assert "warning" not in log, log
    check(source, f"sm_{arch}", log, record_property)


@pytest.mark.parametrize("source", SOURCES)
def test_nvcc_compiles_without_spills(compiled_by_nvcc, source, record_property):
    for arch in (90, 100):
        if made := compiled_by_nvcc(source, arch):
            check(source, f"nvcc-sm_{arch}", made[1], record_property)


@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_with_dynamic_shared_memory_have_no_static_shared_memory(compiled, arch):
    """A launch with up to 48 KiB of dynamic shared memory then needs no attribute."""
    dynamic = []
    for source in SOURCES:
        text = nvrtc.source(source)
        kernels = elf.kernels(compiled(source, arch)[0])
        for part in re.split(r'^extern "C" __global__', text, flags=re.MULTILINE)[1:]:
            name = re.search(r"(\w+)\(\w", part.partition("__launch_bounds__")[2])[1]
            if "CVOPS_DYNAMIC_SHARED" in part:
                assert kernels[name].static_shared == 0, name
                dynamic.append(name)
    assert "roi_pooling_staged" in dynamic
    assert elf.kernels(compiled("sort", arch)[0])["sort_tiles"].static_shared == 2 * 2048 * 8
