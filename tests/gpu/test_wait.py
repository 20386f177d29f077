"""Each kernel waits for the earlier launches before it accesses global memory.

A kernel that is a programmatic dependent launch begins before the end of the kernel before it. A
compiler may move loads of ``const __restrict__`` inputs, which it assumes constant, before the
wait. The machine code shows that none does so.
"""

import re

import pytest

from cvops.backends import nvrtc

#: The instruction of griddepcontrol.wait.
WAIT = "ACQBULK"
#: The instructions that may be before it: constants, indices, and arithmetic of integers. None of
#: them accesses memory other than the parameters, or branches. (HFMA2 makes small constants.)
HARMLESS = {
    *("CS2R", "LDC", "LDCU", "MOV", "S2R", "S2UR", "ULDC", "UMOV"),
    *("HFMA2", "IADD3", "IMAD", "ISETP", "LEA", "SHF", "UIADD3", "UIMAD", "ULEA", "USHF"),
}


def check(code):
    """Check the text of each kernel, of lines like ``/*0010*/  LDC R1, c[0x0][0x28] ;``."""
    for kernel, text in code.items():
        before, *after = text.split(WAIT)
        assert len(after) == 1, f"{kernel}: expected one {WAIT}, got {len(after)}"
        assert not re.search(r"^\.L\w+:", before, re.MULTILINE), f"{kernel}: a label"
        names = set(re.findall(r"/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+ +)?(\w+)", before))
        assert names <= HARMLESS, f"{kernel}: {names - HARMLESS} before the wait"


@pytest.mark.parametrize("arch", [90, 100, 120])
@pytest.mark.parametrize("source", nvrtc.sources())
def test_kernel_waits_before_it_accesses_memory(sass, source, arch):
    check(sass(source, arch))


@pytest.mark.parametrize("source", nvrtc.sources())
def test_kernel_of_nvcc_waits_before_it_accesses_memory(compiled_by_nvcc, disassembled, source):
    for arch in (90, 100):
        if made := compiled_by_nvcc(source, arch):
            check(disassembled(source, made[0]))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "/*0000*/ LDC R1, c[0x0][0x28] ;\n/*0010*/ @!P0 LDG.E R2, [R2] ;\n/*0020*/ ACQBULK ;",
            "LDG",
        ),
        ("/*0000*/ LDC R1, c[0x0][0x28] ;\n/*0010*/ @P0 EXIT ;\n/*0020*/ ACQBULK ;", "EXIT"),
        (".L_x_1:\n/*0000*/ ACQBULK ;", "a label"),
        ("/*0000*/ LDC R1, c[0x0][0x28] ;", "got 0"),
    ],
    ids=["load", "exit", "loop", "no wait"],
)
def test_check_finds_an_access_before_the_wait(text, error):
    with pytest.raises(AssertionError, match=error):
        check({"kernel": text})
