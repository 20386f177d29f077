"""Export of the networks to ONNX, in standard operators only.

:func:`export` writes a model that any runtime of ONNX runs: images to detections, or to the classes
of pixels. It reads the graph of the Gluon block, and converts each operator. MXNet's own exporter
is not in use. A model needs neither MXNet nor cvops.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cvops
from cvops._files import replacing
from cvops._mxnet import mxnet
from cvops._networks import MAX_SIDE, MEAN, STD
from cvops.models import FCN, Detector, FasterRCNN, RCNNDetector, TinySSD
from cvops.onnx import detection as detection  # registers its converters
from cvops.onnx.graph import Graph
from cvops.onnx.operators import CONVERTERS, Call, options
from cvops.ops._check import integer, integers, number

mx = mxnet()

#: Height and width of the nodes' shapes for a model of any size: no converter of an FCN reads them.
_ANY = (64, 64)


class _Exported(NamedTuple):
    """The parts of a network that its model has."""

    block: Any
    outputs: list[str]
    num_classes: int
    #: The properties of the model.
    about: dict[str, Any]
    #: The block expects normalized images, and its output is the score of each class.
    segments: bool = False


def export(
    net: Any,
    path: str | Path,
    batch: int | None = None,
    size: Sequence[int] | None = None,
    threshold: float | None = None,
    nms_threshold: float | None = None,
) -> None:
    """Write a network as a model of ONNX: opset 13, format 7 (ONNX 1.8).

    The input ``images`` is float32 (B, 3, H, W), RGB of 0 to 255. The outputs are:

    - ``TinySSD``: ``detections``, float32 (B, A, 6), the rows of ``cvops.models.Detector``.
    - ``FasterRCNN``: ``detections``, float32 (B, 20, 6), the rows of ``cvops.models.RCNNDetector``;
      with masks also ``masks``, float32 (B, 20, 28, 28).
    - ``FCN``: ``scores``, float32 (B, classes, H, W), and ``classes``, int64 (B, H, W), the class
      of the maximum score, the first one of equal scores. The model normalizes the images.

    The results have the network's classes, order and padding. Scores and corners agree to about
    1e-5, because a runtime rounds and adds otherwise. Two scores or an IoU and its threshold that
    are that close can change places. The properties of the model have the name of the network, its
    classes as JSON if they have names, and the other arguments.

    An error leaves the previous file.

    Args:
        net: a ``TinySSD``, a ``FasterRCNN`` or an ``FCN`` with parameters.
        path: the file.
        batch: the number of images B; any number if None.
        size: height and width of the images. By default a detector has the size of its training
            images, and an FCN has any size. A detector needs 64 pixels or more.
        threshold: the minimum score of a detection, 0 to 1; by default that of the detector.
        nms_threshold: the IoU of the suppression, above 0 and at most 1; by default that of the
            detector.

    Raises:
        OSError: the file cannot be written.
        TypeError: ``net`` is another object, or an argument is not a number.
        ValueError: ``net`` has no parameters, or other ones than float32; it has an operator
            without a converter; the network does not accept the size; an argument is out of range,
            or has no meaning for an FCN.
    """
    path = Path(path)
    batch = None if batch is None else integer("batch", batch, 1)
    exported = _exported(net, threshold, nms_threshold)
    sides: tuple[int, int] | None = None
    if size is not None:
        smallest = 1 if exported.segments else 64
        height, width = integers("size", size, "(height, width)", smallest)
        if max(height, width) > MAX_SIDE:
            raise ValueError(f"size: expected at most {MAX_SIDE} pixels, got {tuple(size)}")
        sides = height, width
    elif not exported.segments:
        sides = net.side, net.side
    model = _model(net, exported, batch, sides)
    with replacing(path) as part:
        part.write_bytes(model.SerializeToString())


def _exported(net: Any, threshold: float | None, nms_threshold: float | None) -> _Exported:
    given: dict[str, Any] = {
        name: number(name, x, 0, 1)
        for name, x in (("threshold", threshold), ("nms_threshold", nms_threshold))
        if x is not None
    }
    if given.get("nms_threshold") == 0:
        raise ValueError("nms_threshold: expected a number above 0, got 0")
    if isinstance(net, FCN):
        for name, x in given.items():
            raise ValueError(f"{name}: expected none for an FCN, got {x}")
        about = {"model": "FCN", "num_classes": net.num_classes}
        about |= {"classes": net.classes} if net.classes else {}
        return _Exported(net, ["scores"], net.num_classes, about, segments=True)
    names = ["detections"]
    if isinstance(net, TinySSD):
        block: Any = Detector(net, **given)
        used = block.options
    elif isinstance(net, FasterRCNN):
        block = RCNNDetector(net, **given)
        used = {
            "threshold": block.options["valid_thresh"],
            "nms_threshold": block.options["overlap_thresh"],
        }
        names += ["masks"] if net.mask else []
    else:
        kind = type(net).__name__
        raise TypeError(f"net: expected a TinySSD, a FasterRCNN or an FCN, got {kind}")
    about = {"model": type(net).__name__, "classes": net.classes, "side": net.side, **used}
    return _Exported(block, names, len(net.classes), about)


def _parameters(net: Any) -> dict[str, tuple[str, np.ndarray]]:
    """Return the name in the structure and the array of each parameter, by its name in a graph."""
    found = {}
    for name, parameter in net._collect_params_with_prefix().items():
        try:
            array = parameter.list_data()[0].asnumpy()
        except RuntimeError as error:
            raise ValueError(f"net: expected parameters, got none for {name!r}") from error
        if array.dtype != np.float32:
            raise ValueError(f"net: expected float32 parameters, got {array.dtype} of {name!r}")
        found[parameter.name] = name, array
    return found


def _model(net: Any, exported: _Exported, batch: int | None, size: tuple[int, int] | None) -> Any:
    graph = Graph(exported.num_classes)
    images = _normalized(graph) if exported.segments else "images"
    results = _convert(graph, exported.block, _parameters(net), images, size or _ANY)

    rows: Any = "batch" if batch is None else batch
    sides: tuple[Any, ...] = size or ("height", "width")
    outputs: dict[str, tuple[str, Any, Sequence[Any]]] = {}
    for name, (value, shape) in zip(exported.outputs, results):
        rest = (shape[1], *sides) if exported.segments else shape[1:]
        outputs[name] = value, np.float32, (rows, *rest)
    if exported.segments:
        classes = graph.add("ArgMax", outputs["scores"][0], axis=1, keepdims=0)
        outputs["classes"] = classes, np.int64, (rows, *sides)
    about = {
        key: x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)
        for key, x in exported.about.items()
    }
    inputs = {"images": (rows, 3, *sides)}
    return graph.model(inputs, outputs, exported.about["model"], cvops.__version__, about)


def _convert(
    graph: Graph,
    block: Any,
    parameters: dict[str, tuple[str, np.ndarray]],
    images: str,
    size: tuple[int, int],
) -> list[tuple[str, tuple[int, ...]]]:
    """Add the operators of a block to the graph.

    Args:
        images: the value of the block's input.
        size: height and width of the images.

    Returns:
        The value of each output, and its shape for one image.
    """
    out = block(mx.sym.var("images"))
    symbol = mx.sym.Group(list(out)) if isinstance(out, (list, tuple)) else out
    internals = symbol.get_internals()
    try:
        _, shapes, _ = internals.infer_shape(images=(1, 3, *size))
    except mx.MXNetError as error:
        raise ValueError(f"size: the network has no graph for images of {size}") from error
    shape_of = dict(zip(internals.list_outputs(), shapes))
    content = json.loads(symbol.tojson(remove_amp_cast=False))

    #: The value and the shape of the first output of each node.
    found: list[tuple[str, tuple[int, ...]]] = []
    for node in content["nodes"]:
        name, operator = node["name"], node["op"]
        if name == "images":
            found.append((images, shape_of[name]))
        elif operator == "null":
            key, array = parameters[name]
            graph.arrays[key] = array
            found.append((key, array.shape))
        elif operator not in CONVERTERS:
            raise ValueError(f"net: no converter to ONNX for the operator {operator!r}")
        else:
            inputs = [found[source] for source, _, _ in node["inputs"]]
            values, known = [value for value, _ in inputs], [shape for _, shape in inputs]
            call = Call(values, known, options(node.get("attrs", {})))
            try:
                value = CONVERTERS[operator](graph, call)
            except NotImplementedError as error:
                raise ValueError(f"net: no converter to ONNX for {error}") from error
            names = f"{name}_output", f"{name}_output0"  # of one output, of several
            found.append((value, next(shape_of[x] for x in names if x in shape_of)))
    return [found[source] for source, _, _ in content["heads"]]


def _normalized(graph: Graph) -> str:
    mean, std = (x.reshape(1, 3, 1, 1) for x in (MEAN, STD))
    pixels = graph.add("Div", "images", np.float32(255))
    return graph.add("Div", graph.add("Sub", pixels, mean), std)
