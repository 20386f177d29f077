"""Plant each mutant in a copy of the checkout, run its test, and print which ones survive.

Arguments are parts of the names of mutants; without arguments all of them run. The exit status is 0
if the tests find all of them, 1 if a mutant survives, 2 if a mutant cannot be run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from cvops.backends import extension

from .catalog import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
#: The time of one test in seconds. A mutant that makes a test wait forever is found.
_LIMIT = 300
_BUILD = """
from emulator.backends import BINDINGS
from emulator.extension import build_extension
from cvops.backends import nvrtc
print(build_extension(BINDINGS, nvrtc.KERNELS, "_native").__file__)
"""
#: An error of g++: the mutant is no program.
_COMPILER = re.compile(r"\.(cuh|cpp|h):\d+:\d+: (fatal )?error: .*")


class Broken(Exception):
    """A mutant or its test cannot be run. The message gives the reason."""


def check(mutant: Mutant, root: Path = ROOT) -> None:
    """Raise Broken if the text or the test of a mutant is not there."""
    count = (root / mutant.file).read_text("utf-8").count(mutant.text)
    if count != 1:
        raise Broken(f"{mutant.name}: expected its text once in {mutant.file}, got {count}")
    file, *names = mutant.test.split("::")
    text = (root / file).read_text("utf-8")
    for name in names:
        if not re.search(rf"\b(def|class) {name}\b", text):
            raise Broken(f"{mutant.name}: expected {name} in {file}, got none")


class Checkout:
    """A copy of the checkout with its own environment, which has the packages of this one."""

    def __init__(self, root: Path):
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        cache = ROOT / "build" / "emulator"
        if cache.is_dir():
            unfinished = shutil.ignore_patterns("tmp*", "*.lock")
            shutil.copytree(cache, root / "build" / "emulator", ignore=unfinished)
        venv.create(root / ".venv")
        self.python = root / ".venv" / "bin" / "python"
        (packages,) = (root / ".venv" / "lib").glob("python*/site-packages")
        # The checkout comes first: the packages may have another cvops.
        paths = [root, *(path for path in sys.path if path.endswith("-packages"))]
        (packages / "checkout.pth").write_text("".join(f"{path}\n" for path in paths))
        native = extension.native()
        if native is None:
            raise Broken(extension.missing_native())
        self.native = root / "cvops" / Path(native.__file__).name
        shutil.copy2(native.__file__, self.native)
        shutil.copytree(Path(native.__file__).parent / "lib", root / "cvops" / "lib")

    def run(self, *arguments: str, limit: float | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root / "tests"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CVOPS_ALL_SANITIZERS": "1",
        }
        environment.pop("CVOPS_EMULATOR_CACHE", None)
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )

    def build(self) -> None:
        """Compile the extension. The cache has the objects of unchanged sources."""
        done = self.run("-c", _BUILD)
        if done.returncode:
            raise Broken(f"it does not compile:\n{done.stdout}")
        shutil.copy2(done.stdout.splitlines()[-1], self.native)

    def test(self, mutant: Mutant) -> bool:
        """Run the test of a mutant; return True if it fails."""
        shutil.rmtree(self.root / ".hypothesis", ignore_errors=True)  # earlier failing examples
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
        try:
            done = self.run(
                *("-m", "pytest", *options, "-m", "", mutant.test, "-k", mutant.cases), limit=_LIMIT
            )
        except subprocess.TimeoutExpired:
            return True
        error = _COMPILER.search(done.stdout)
        if error:
            raise Broken(f"it does not compile: {error[0]}")
        if done.returncode not in (0, 1) or not re.search(r"\d+ (passed|failed)", done.stdout):
            raise Broken(f"its test does not run:\n{done.stdout[-2000:]}")
        return done.returncode == 1

    def plant(self, mutant: Mutant) -> bool:
        """Run the test of a mutant with its fault; return True if the test finds it."""
        file = self.root / mutant.file
        text, native = file.read_text("utf-8"), self.native.read_bytes()
        file.write_text(text.replace(mutant.text, mutant.replacement), "utf-8")
        try:
            if mutant.needs_build:
                self.build()
            return self.test(mutant)
        finally:
            file.write_text(text, "utf-8")
            self.native.write_bytes(native)


def main(names: list[str]) -> int:
    chosen = [x for x in MUTANTS if not names or any(name in x.name for name in names)]
    survived, broken = [], []
    with tempfile.TemporaryDirectory(prefix="cvops-mutants-") as folder:
        checkout = Checkout(Path(folder))
        if any(mutant.needs_build for mutant in chosen):
            checkout.build()
        for mutant in chosen:
            start = time.monotonic()
            try:
                check(mutant, checkout.root)
                if checkout.test(mutant):
                    raise Broken("its test fails without it")
                found = checkout.plant(mutant)
                result = "found" if found else "SURVIVED"
                if not found:
                    survived.append(mutant.name)
            except Broken as error:
                result = f"BROKEN: {error}"
                broken.append(mutant.name)
            print(f"{mutant.name}: {result} ({time.monotonic() - start:.0f} s)", flush=True)
    num_found = len(chosen) - len(survived) - len(broken)
    print(f"\n{num_found} of {len(chosen)} mutants found")
    for title, those in (("survived", survived), ("broken", broken)):
        if those:
            print(f"{title}: {', '.join(those)}")
    return 2 if broken or not chosen else bool(survived)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
