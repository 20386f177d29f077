"""C++ programs that call the ops, or their thread pool, without Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from emulator.build import cached, run_compiler

from cvops.backends import extension

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINDINGS = ROOT / "bindings"
#: The flags of CMakeLists.txt.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    *(f"-I{folder}" for folder in (BINDINGS, BINDINGS / "runtime", ROOT / "kernels")),
    "-pthread",
)


def program(name: str, *args: str | Path, compiler: str | None = None) -> Path:
    """Compile ``<name>.cpp`` with flags and more sources, if no cached program has their texts."""
    source = HERE / f"{name}.cpp"
    own = [source, *(arg for arg in args if isinstance(arg, Path))]
    headers = [
        *HERE.glob("*.h"),
        *BINDINGS.glob("*.h"),
        *BINDINGS.glob("cpu/*.h"),
        *BINDINGS.glob("runtime/*.h"),
        *(ROOT / "kernels").rglob("*.cuh"),
    ]
    texts = [path.read_text("utf-8") for path in sorted([*own, *headers])]

    def make(path: Path) -> None:
        run_compiler(*FLAGS, source, *args, "-o", path, command=compiler)

    return cached(name, "", [*texts, *map(str, args), str(compiler)], make)


def check_compiles(source: Path, *flags: str) -> None:
    """Compile a source with the flags of the library and more, unless its texts passed before."""
    headers = [*BINDINGS.rglob("*.h"), *(ROOT / "kernels").rglob("*.cuh")]
    texts = [path.read_text("utf-8") for path in sorted([source, *headers])]
    folder = f"-I{BINDINGS / 'operators'}"

    def make(path: Path) -> None:
        run_compiler(*FLAGS, folder, *flags, source, "-S", "-o", path)

    cached(source.stem, "", [*texts, *flags], make)


def core() -> tuple[str, ...]:
    """Return the flags that link a program to the installed ops; skip the test without them."""
    native = extension.native()
    if native is None:
        pytest.skip("needs the compiled extension cvops._native")
    folder = Path(native.__file__).parent / "lib"
    return f"-L{folder}", "-l:libcvops.so", f"-Wl,-rpath,{folder}"


def run(*command: str | Path) -> str:
    """Return the output of a program; its exit status must be 0."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
