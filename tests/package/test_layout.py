"""The shape of the repository: one name for each op, and folders that are layers."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from cases import OPS

import cvops
from cvops import contrib
from cvops._mxnet.operators import OPERATORS
from cvops.backends import nvrtc

ROOT = Path(__file__).parents[2]
CONTRIB = {
    "MultiBoxPrior": "multibox_prior",
    "MultiBoxTarget": "multibox_target",
    "MultiBoxDetection": "multibox_detection",
    "box_iou": "box_iou",
    "box_nms": "box_nms",
    "ROIPooling": "roi_pooling",
}


@pytest.mark.parametrize("op", OPS)
def test_one_op_has_one_name(op):
    for file in (
        f"kernels/{op}.cuh",
        f"bindings/{op}.h",
        f"bindings/cpu/{op}.cpp",
        f"bindings/cuda/{op}.cpp",
        f"bindings/python/{op}.cpp",
        f"bindings/mxnet/{op}.cpp",
        f"cvops/ops/{op}.py",
        f"tests/ops/test_{op}.py",
        f"benchmarks/bench_{op}.py",
    ):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_reference_and_a_native_implementation(op):
    module = __import__(f"cvops.ops.{op}", fromlist=["_OP"])
    assert set(module._OP.implementations) == {"numpy", "native"}


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_an_operator_of_mxnet(op):
    (operator,) = [operator for operator in OPERATORS if operator.npx_name == op]
    parameters = inspect.signature(getattr(cvops, op)).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [*operator.inputs, *operator.options] == names


@pytest.mark.parametrize(("name", "op"), CONTRIB.items())
def test_contrib_has_mxnets_names(name, op):
    assert getattr(contrib, name) is getattr(cvops, op)


@pytest.mark.parametrize("op", OPS)
def test_a_docstring_is_a_contract(op):
    text = inspect.getdoc(getattr(cvops, op))
    for part in ("MXNet 1.9.1", "Args:", "Returns:", "Raises:", "backend:"):
        assert part in text
    assert re.search("float32|int32", text)


DEFAULTS = {
    "bilinear_upsample": {},
    "confusion_matrix": {"ignore_label": None},
    "label_from_color": {"unknown": 0},
    "box_iou": {"format": "corner"},
    "multibox_prior": {
        **{"sizes": (1,), "ratios": (1,), "clip": False, "steps": (-1, -1), "offsets": (0.5, 0.5)}
    },
    "multibox_target": {
        **{"overlap_threshold": 0.5, "ignore_label": -1, "negative_mining_ratio": -1},
        **{"negative_mining_thresh": 0.5, "minimum_negative_samples": 0},
        **{"variances": (0.1, 0.1, 0.2, 0.2)},
    },
    "multibox_detection": {
        **{"clip": True, "threshold": 0.01, "background_id": 0, "nms_threshold": 0.5},
        **{"force_suppress": False, "variances": (0.1, 0.1, 0.2, 0.2), "nms_topk": -1},
    },
    "box_nms": {
        **{"overlap_thresh": 0.5, "valid_thresh": 0, "topk": -1, "coord_start": 2},
        **{"score_index": 1, "id_index": -1, "background_id": -1, "force_suppress": False},
        **{"in_format": "corner", "out_format": "corner"},
    },
    "multiclass_nms": {
        **{"overlap_thresh": 0.5, "valid_thresh": 0.01, "topk": 1000, "post_nms": -1},
        **{"background_id": -1, "force_suppress": False, "in_format": "corner"},
    },
    "roi_pooling": {},
}


@pytest.mark.parametrize("op", OPS)
def test_parameters_and_defaults_are_mxnets(op):
    parameters = inspect.signature(getattr(cvops, op)).parameters.values()
    by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    defaults = {p.name: p.default for p in by_position if p.default is not p.empty}
    assert defaults == DEFAULTS[op]


@pytest.mark.parametrize("name", CONTRIB)
def test_parameters_come_in_mxnets_order(mx, name):
    theirs = getattr(mx.nd, name, None) or getattr(mx.nd.contrib, name)
    text = inspect.signature(theirs).parameters
    skipped = {"out", "name", "kwargs"}
    ours = inspect.signature(getattr(contrib, name)).parameters.values()
    assert [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        p for p in text if p not in skipped
    ]


def test_the_kernels_include_no_standard_header():
    for file in nvrtc.KERNELS.glob("*.cuh"):
        lines = file.read_text().splitlines()
        includes = [line for line in lines if line.startswith("#include")]
        allowed = "#include <cmath>" if file.stem == "common" else None
        assert all('"' in line or line == allowed for line in includes), file


#: The packages and modules from the lowest layer up. Those of a row do not import each other.
LAYERS = [
    {"_imports", "images"},
    {"arrays"},
    {"backends"},
    {"ops", "_mxnet"},
    {"checkpoint", "datasets", "metrics", "mxnet", "plot"},
    {"contrib", "data", "models", "training", "voc"},
    {"demo", "demo_fcn"},
    {"cli"},
    {"__main__"},
]


def imported(file):
    """The modules of cvops that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_go_down_only():
    package = ROOT / "cvops"
    layers = {name: number for number, row in enumerate(LAYERS) for name in row}
    for file in package.rglob("*.py"):
        name = file.relative_to(package).with_suffix("").parts[0]
        if name == "__init__":
            continue
        for module in imported(file):
            root, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            if root == "cvops" and other in layers and other != name:
                assert layers[other] < layers[name], f"{file} imports {module}"


def test_every_module_has_a_layer():
    package = ROOT / "cvops"
    found = {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert found - {"__init__"} == set().union(*LAYERS)
