"""The cache of compiled files, and builds of extensions."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .build import cached
from .extension import build_extension


def test_concurrent_requests_for_a_file_make_it_once(monkeypatch, tmp_path):
    monkeypatch.setenv("CVOPS_EMULATOR_CACHE", str(tmp_path))
    made = []

    def make(path):
        made.append(path)
        time.sleep(0.1)
        path.write_text("made")

    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: cached("a", ".txt", ["key"], make), range(4)))
    assert len(made) == len(set(files)) == 1
    assert files[0].read_text() == "made"
    assert cached("a", ".txt", ["another key"], make) != files[0]


EXTENSION = {
    "bindings/python/module.cpp": """
        #include <pybind11/pybind11.h>
        #include "sum.h"

        PYBIND11_MODULE(CVOPS_MODULE_NAME, m) { m.def("sum", &sum); }
    """,
    "bindings/sum.h": "int sum(int x);",
    "bindings/cpu/sum.cpp": """
        #include "sum.h"
        #include "sum.cuh"

        int sum(int x) { return x + kConstant + CONSTANT_OF_FLAGS; }
    """,
    "kernels/sum.cuh": "constexpr int kConstant = 20;",
}


@pytest.mark.slow
def test_extension_is_built_again_for_another_header_or_flag(tmp_path):
    def write(file, text):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def build(name, constant):
        folders = tmp_path / "bindings", tmp_path / "kernels"
        return build_extension(*folders, name, ["-O0", f"-DCONSTANT_OF_FLAGS={constant}"])

    for file, text in EXTENSION.items():
        write(file, text)
    assert build("_native_first", 300).sum(1) == 321
    assert build("_native_other_flag", 400).sum(1) == 421
    write("kernels/sum.cuh", "constexpr int kConstant = 50;")
    assert build("_native_other_header", 300).sum(1) == 351
