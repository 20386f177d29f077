"""The layout of the repository: the files of each op, its contract, and the layers of modules."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from cases import OPS

import cvops
from cvops import contrib
from cvops.backends import nvrtc
from cvops.backends.operators import OPERATORS

ROOT = Path(__file__).parents[2]
CONTRIB = {
    "AdaptiveAvgPooling2D": "adaptive_avg_pooling",
    "BilinearResize2D": "bilinear_resize",
    "DeformablePSROIPooling": "deformable_psroi_pooling",
    "MultiBoxPrior": "multibox_prior",
    "MultiBoxTarget": "multibox_target",
    "MultiBoxDetection": "multibox_detection",
    "bipartite_matching": "bipartite_matching",
    "box_decode": "box_decode",
    "box_encode": "box_encode",
    "box_iou": "box_iou",
    "box_nms": "box_nms",
    "MultiProposal": "multi_proposal",
    "Proposal": "proposal",
    "PSROIPooling": "psroi_pooling",
    "ROIAlign": "roi_align",
    "ROIPooling": "roi_pooling",
    "RROIAlign": "rroi_align",
}


@pytest.mark.parametrize("op", OPS)
def test_op_has_one_name_in_all_folders(op):
    for file in (
        f"kernels/{op}.cuh",
        f"bindings/{op}.h",
        f"bindings/cpu/{op}.cpp",
        f"bindings/cuda/{op}.cpp",
        f"bindings/python/{op}.cpp",
        f"bindings/operators/{op}.cpp",
        f"cvops/ops/{op}.py",
        f"tests/ops/test_{op}.py",
        f"benchmarks/bench_{op}.py",
    ):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("op", OPS)
def test_op_has_a_reference_and_a_native_implementation(op):
    module = __import__(f"cvops.ops.{op}", fromlist=["_OP"])
    assert set(module._OP.implementations) == {"numpy", "native"}


@pytest.mark.parametrize("op", OPS)
def test_op_has_an_operator_for_mxnet_with_the_same_parameters(op):
    (operator,) = [operator for operator in OPERATORS if operator.npx_name == op]
    parameters = inspect.signature(getattr(cvops, op)).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [*operator.inputs, *operator.options] == names


@pytest.mark.parametrize(("name", "op"), CONTRIB.items())
def test_contrib_has_the_ops_under_the_names_of_mxnet(name, op):
    assert getattr(contrib, name) is getattr(cvops, op)


@pytest.mark.parametrize("op", OPS)
def test_docstring_of_an_op_has_all_sections(op):
    text = inspect.getdoc(getattr(cvops, op))
    for part in ("MXNet 1.9.1", "Args:", "Returns:", "Raises:", "backend:"):
        assert part in text
    assert re.search("float32|int32", text)


DEFAULTS = {
    "adaptive_avg_pooling": {"output_size": ()},
    "bilinear_resize": {
        "like": None,
        "height": 1,
        "width": 1,
        "scale_height": None,
        "scale_width": None,
        "mode": "size",
        "align_corners": True,
    },
    "bilinear_upsample": {},
    "confusion_matrix": {"ignore_label": None},
    "label_from_color": {"unknown": 0},
    "bipartite_matching": {"is_ascend": False, "threshold": None, "topk": -1},
    "box_decode": {
        "std0": 1,
        "std1": 1,
        "std2": 1,
        "std3": 1,
        "clip": -1,
        "format": "center",
    },
    "box_encode": {},
    "box_iou": {"format": "corner", "kind": "iou"},
    "box_iou_rotated": {"angle": "degrees", "clockwise": False},
    "matrix_nms": {
        "method": "linear",
        "sigma": 2,
        "valid_thresh": 0,
        "post_thresh": 0,
        "topk": -1,
        "post_nms": -1,
        "coord_start": 2,
        "score_index": 1,
        "id_index": -1,
        "background_id": -1,
        "force_suppress": False,
        "in_format": "corner",
    },
    "multibox_prior": {
        "sizes": (1,),
        "ratios": (1,),
        "clip": False,
        "steps": (-1, -1),
        "offsets": (0.5, 0.5),
    },
    "multibox_target": {
        "overlap_threshold": 0.5,
        "ignore_label": -1,
        "negative_mining_ratio": -1,
        "negative_mining_thresh": 0.5,
        "minimum_negative_samples": 0,
        "variances": (0.1, 0.1, 0.2, 0.2),
    },
    "multibox_detection": {
        "clip": True,
        "threshold": 0.01,
        "background_id": 0,
        "nms_threshold": 0.5,
        "force_suppress": False,
        "variances": (0.1, 0.1, 0.2, 0.2),
        "nms_topk": -1,
    },
    "box_nms": {
        "overlap_thresh": 0.5,
        "valid_thresh": 0,
        "topk": -1,
        "coord_start": 2,
        "score_index": 1,
        "id_index": -1,
        "background_id": -1,
        "force_suppress": False,
        "in_format": "corner",
        "out_format": "corner",
    },
    "multiclass_nms": {
        "overlap_thresh": 0.5,
        "valid_thresh": 0.01,
        "topk": 1000,
        "post_nms": -1,
        "background_id": -1,
        "force_suppress": False,
        "in_format": "corner",
    },
    "nms_rotated": {
        "overlap_thresh": 0.5,
        "valid_thresh": 0,
        "topk": -1,
        "coord_start": 2,
        "score_index": 1,
        "id_index": -1,
        "background_id": -1,
        "force_suppress": False,
        "angle": "degrees",
        "clockwise": False,
    },
    "proposal": {
        "rpn_pre_nms_top_n": 6000,
        "rpn_post_nms_top_n": 300,
        "threshold": 0.7,
        "rpn_min_size": 16,
        "scales": (4, 8, 16, 32),
        "ratios": (0.5, 1, 2),
        "feature_stride": 16,
        "output_score": False,
        "iou_loss": False,
    },
    "deformable_psroi_pooling": {
        "part_size": 0,
        "sample_per_part": 1,
        "trans_std": 0.0,
        "no_trans": False,
    },
    "psroi_pooling": {"group_size": 0},
    "roi_align": {"sample_ratio": -1, "position_sensitive": False, "aligned": False},
    "roi_pooling": {},
    "soft_nms": {
        "method": "linear",
        "sigma": 0.5,
        "overlap_thresh": 0.3,
        "valid_thresh": 0.001,
        "topk": -1,
        "post_nms": -1,
        "coord_start": 2,
        "score_index": 1,
        "id_index": -1,
        "background_id": -1,
        "force_suppress": False,
        "in_format": "corner",
    },
    "rroi_align": {"sampling_ratio": -1},
    "mask_target": {
        "num_rois": None,
        "num_classes": None,
        "mask_size": None,
        "sample_ratio": 2,
        "aligned": False,
    },
    "match_anchors": {
        "high_threshold": 0.5,
        "low_threshold": None,
        "allow_low_quality_matches": False,
        "match_best_anchors": False,
    },
    "weighted_boxes_fusion": {
        "overlap_thresh": 0.55,
        "num_models": 1,
        "score_type": "avg",
        "valid_thresh": 0,
        "topk": -1,
        "post_nms": -1,
        "coord_start": 2,
        "score_index": 1,
        "id_index": -1,
        "background_id": -1,
        "force_suppress": False,
        "in_format": "corner",
    },
    "paste_masks": {"threshold": 0.5},
    "rcnn_target": {
        "num_sample": 128,
        "pos_iou_thresh": 0.5,
        "pos_ratio": 0.25,
        "means": (0, 0, 0, 0),
        "stds": (0.1, 0.1, 0.2, 0.2),
    },
    "rpn_target": {
        "num_sample": 256,
        "pos_iou_thresh": 0.7,
        "neg_iou_thresh": 0.3,
        "pos_ratio": 0.5,
        "means": (0, 0, 0, 0),
        "stds": (1, 1, 1, 1),
    },
}


@pytest.mark.parametrize("op", OPS)
def test_op_has_the_defaults_of_mxnet(op):
    parameters = inspect.signature(getattr(cvops, op)).parameters.values()
    by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    defaults = {p.name: p.default for p in by_position if p.default is not p.empty}
    assert defaults == DEFAULTS[op]


#: Parameters that MXNet adds to all operators.
NOT_OF_AN_OPERATOR = {"out", "name", "kwargs"}
#: Parameters that MXNet's operators do not have. They are the last ones.
ONLY_OURS = {"box_iou": ["kind"]}


@pytest.mark.parametrize("name", CONTRIB)
def test_op_has_its_parameters_in_the_order_of_mxnet(mx, name):
    operator = getattr(mx.nd, name, None) or getattr(mx.nd.contrib, name)
    expected = [p for p in inspect.signature(operator).parameters if p not in NOT_OF_AN_OPERATOR]
    parameters = inspect.signature(getattr(contrib, name)).parameters.values()
    expected += ONLY_OURS.get(name, [])
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == expected


def test_kernels_include_no_standard_header_except_cmath():
    for file in nvrtc.KERNELS.rglob("*.cuh"):
        lines = file.read_text().splitlines()
        includes = [line for line in lines if line.startswith("#include")]
        allowed = "#include <cmath>" if file.stem == "common" else None
        assert all('"' in line or line == allowed for line in includes), file


#: The packages and modules, from the lowest layer. Modules of one layer do not import each other.
LAYERS = [
    {"_files", "_guard", "_imports"},
    {"_pickles", "_pillow"},
    {"arrays", "images"},
    {"backends"},
    {"ops", "_mxnet"},
    {"_networks", "distributed"},
    {"checkpoint", "datasets", "launch", "metrics", "mxnet", "plot", "jax", "proposals", "torch"},
    {"weights"},
    {"classification", "contrib", "data", "models", "sets", "training", "voc"},
    {"recipes"},
    {"d2l", "demo", "demo_augmentation", "demo_fcn", "demo_finetune", "demo_rcnn", "demo_style"}
    | {"onnx", "ray"},
    {"cli"},
    {"__main__"},
]


def imported(file):
    """Yield the modules that a file imports, including imports in functions."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_module_imports_only_lower_layers():
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
