"""Types for a type checker: the stub of the extension, and overloads of public functions."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cvops.backends import extension

ROOT = Path(__file__).parents[2]
STUB = ast.parse((ROOT / "cvops" / "_native.pyi").read_text("utf-8"))
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
native = extension.native()
needs_native = pytest.mark.skipif(native is None, reason="needs the extension cvops._native")


def functions(body):
    """Return {name: function} of a module or a class in the stub."""
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def public(names):
    return {name for name in names if not name.startswith("_")}


def parameters(node):
    """Return the number of parameters of a function in the stub."""
    arguments = node.args
    return len(arguments.posonlyargs) + len(arguments.args)


@needs_native
def test_stub_has_the_names_of_the_extension():
    assert functions(STUB.body).keys() | CLASSES.keys() - {"Ops"} | {"cpu"} == public(dir(native))


@needs_native
@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"Ops"}))
def test_class_of_the_stub_has_the_names_of_the_class(name):
    names = public(functions(CLASSES[name].body))
    if name == "Gpu":
        names |= public(functions(CLASSES["Ops"].body))
    assert names == public(dir(getattr(native, name)))


@needs_native
@pytest.mark.parametrize("owner", ["module", "cpu", "Gpu"])
def test_function_of_the_stub_has_the_parameters_of_the_function(owner):
    body = STUB.body if owner == "module" else CLASSES["Ops"].body
    for name, node in functions(body).items():
        found = getattr(native if owner == "module" else getattr(native, owner), name)
        # The docstring begins with the signature: "box_iou(arg0: numpy.ndarray, ...) -> None". That
        # of an op for several dtypes numbers the signatures, whose parameters are the same.
        first, *lines = found.__doc__.splitlines()
        numbered = [line for line in lines if line.startswith("1. ")]
        signature = numbered[0] if numbered else first
        self_only_in_stub = owner == "cpu"
        assert parameters(node) - self_only_in_stub == len(re.findall(r"\w+: ", signature)), name


@needs_native
def test_cpu_has_the_ops_of_the_stub():
    assert public(functions(CLASSES["Ops"].body)) == public(dir(native.cpu))


#: call -> the type of its result, if x has the type A.
RESULTS = {
    "box_nms(x)": "A",
    "box_nms(x, 0.5, return_index=True)": "tuple[A, A]",
    "box_nms(x, return_index=flag)": "A | tuple[A, A]",
    "contrib.box_nms(x)": "A",
    "roi_pooling(x, x, (2, 2), 1.0)": "A",
    "roi_pooling(x, x, (2, 2), 1.0, return_argmax=True)": "tuple[A, A]",
    "roi_pooling(x, x, (2, 2), 1.0, return_argmax=flag)": "A | tuple[A, A]",
    "multibox_prior(x, 0.5)": "A",
    "multibox_prior((3, 4), [0.5, 0.2])": "numpy.ndarray[Any, Any]",
    "multibox_prior([3, 4], like=x)": "A",
    "multibox_priors([x, x], [0.5, 0.2], [1, 2])": "A",
    "multibox_priors([(3, 4)], [(0.5,)], [1])": "numpy.ndarray[Any, Any]",
    "multibox_priors([(3, 4)], [(0.5,)], [1], like=x)": "A",
}


def test_type_checker_infers_the_types_of_results(tmp_path):
    pytest.importorskip("mypy")
    lines = ["from cvops import *", "from cvops import contrib", "class A: ...", "x = A()"]
    lines += ["def calls(flag: bool) -> None:", *(f"    reveal_type({call})" for call in RESULTS)]
    file = tmp_path / "calls.py"
    file.write_text("\n".join(lines))
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r'Revealed type is "(.*)"', done.stdout.replace("calls.A", "A"))
    assert dict(zip(RESULTS, found)) == RESULTS, done.stdout + done.stderr
