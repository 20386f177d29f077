"""Operators of MXNet in standard operators of ONNX.

A converter gets the graph and a :class:`Call`, and returns the name of the result. It has the name
of its operator. :mod:`cvops.onnx.detection` has the detection operators.
"""

from __future__ import annotations

import ast
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops.onnx.graph import Graph, Operand


class Call(NamedTuple):
    """A node of MXNet's graph."""

    inputs: list[str]
    #: The shapes of the inputs for one image.
    shapes: list[tuple[int, ...]]
    #: The attributes of the node, as values of Python where their text is one.
    options: dict[str, Any]

    def get(self, name: str, default: Any) -> Any:
        return self.options.get(name, default)

    def numbers(self, name: str, default: Any = ()) -> np.ndarray:
        """Return an option as float32 numbers. MXNet writes a single number without a comma."""
        return np.array(self.options.get(name, default), np.float32, ndmin=1)


def options(attributes: dict[str, str]) -> dict[str, Any]:
    """Return the attributes of a node with Python values."""

    def value(text: str) -> Any:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    return {name: value(text) for name, text in attributes.items()}


Converter = Callable[[Graph, Call], str]
CONVERTERS: dict[str, Converter] = {}


def converter(*names: str) -> Callable[[Converter], Converter]:
    """Register a converter for MXNet's operators of these names."""

    def register(function: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(names, function))
        return function

    return register


# --- layers ---------------------------------------------------------------------------------------


def _windows(call: Call) -> dict[str, Any]:
    """Return the attributes of a convolution or a pooling."""
    kernel = call.options["kernel"]
    pads = call.options.get("pad") or (0,) * len(kernel)
    strides = call.options.get("stride") or (1,) * len(kernel)
    return {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *pads]}


def _convolve(graph: Graph, operator: str, call: Call, **attributes: Any) -> str:
    dilations = call.options.get("dilate") or (1,) * len(call.options["kernel"])
    return graph.add(
        operator,
        *call.inputs,
        group=call.get("num_group", 1),
        dilations=dilations,
        **_windows(call),
        **attributes,
    )


@converter("Convolution")
def _convolution(graph: Graph, call: Call) -> str:
    return _convolve(graph, "Conv", call)


@converter("Deconvolution")
def _deconvolution(graph: Graph, call: Call) -> str:
    adjust = call.options.get("adj") or (0,) * len(call.options["kernel"])
    return _convolve(graph, "ConvTranspose", call, output_padding=adjust)


@converter("BatchNorm")
def _batch_norm(graph: Graph, call: Call) -> str:
    x, gamma, *others = call.inputs
    if call.get("fix_gamma", True):
        gamma = graph.constant(np.ones_like(graph.arrays[gamma]))
    return graph.add("BatchNormalization", x, gamma, *others, epsilon=call.get("eps", 1e-3))


@converter("Pooling")
def _pooling(graph: Graph, call: Call) -> str:
    average = {"max": False, "avg": True}[call.get("pool_type", "max")]
    if call.get("global_pool", False):
        return graph.add("GlobalAveragePool" if average else "GlobalMaxPool", *call.inputs)
    ceil_mode = int(call.get("pooling_convention", "valid") == "full")
    operator, more = "MaxPool", {}
    if average:
        operator, more = "AveragePool", {"count_include_pad": int(call.get("count_include_pad", 1))}
    return graph.add(operator, *call.inputs, ceil_mode=ceil_mode, **_windows(call), **more)


@converter("FullyConnected")
def _fully_connected(graph: Graph, call: Call) -> str:
    x, *others = call.inputs
    return graph.add("Gemm", graph.add("Flatten", x, axis=1), *others, transB=1)


@converter("Activation")
def _activation(graph: Graph, call: Call) -> str:
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    return graph.add(kinds[call.options["act_type"]], *call.inputs)


@converter("Pad")
def _pad(graph: Graph, call: Call) -> str:
    if call.options["mode"] != "edge":
        raise NotImplementedError("Pad")
    widths = np.array(call.options["pad_width"], np.int64).reshape(-1, 2)  # before, after
    return graph.add("Pad", *call.inputs, widths.T.reshape(-1), mode="edge")


@converter("UpSampling")
def _upsampling(graph: Graph, call: Call) -> str:
    if call.options["sample_type"] != "nearest":
        raise NotImplementedError("UpSampling")
    scales = np.array([1, 1, *[call.options["scale"]] * 2], np.float32)
    operands: list[Operand] = [*call.inputs, "", scales]  # without a region of interest
    return graph.add(
        "Resize",
        *operands,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


@converter("_contrib_cvops_bilinear_upsample")
def _bilinear_upsample(graph: Graph, call: Call) -> str:
    scale, channels = call.options["scale"], call.shapes[0][1]
    size = 2 * scale - scale % 2
    line = np.float32(1) - np.abs(np.arange(size, dtype=np.float32) - (size - 1) / 2) / scale
    weight = np.tile(np.outer(line, line).astype(np.float32), (channels, 1, 1, 1))
    [x] = call.inputs
    operands: list[Operand] = [x, weight]
    return graph.add(
        "ConvTranspose",
        *operands,
        group=channels,
        kernel_shape=(size, size),
        strides=(scale, scale),
        pads=(scale // 2,) * 4,
    )


# --- arithmetic -----------------------------------------------------------------------------------


def _same(operator: str) -> Converter:
    return lambda graph, call: graph.add(operator, *call.inputs)


def _with_scalar(operator: str) -> Converter:
    return lambda graph, call: graph.add(operator, *call.inputs, np.float32(call.options["scalar"]))


def _compare(operator: str) -> Converter:
    """Return a converter for a comparison with a scalar, whose result is 0 or 1, float32."""
    convert = _with_scalar(operator)
    return lambda graph, call: graph.cast(convert(graph, call), np.float32)


for _names, _operator in (
    (("elemwise_add", "broadcast_add"), "Add"),
    (("elemwise_sub", "broadcast_sub"), "Sub"),
    (("elemwise_mul", "broadcast_mul"), "Mul"),
    (("sigmoid",), "Sigmoid"),
    (("relu",), "Relu"),
):
    converter(*_names)(_same(_operator))
for _name, _operator in (
    ("_plus_scalar", "Add"),
    ("_minus_scalar", "Sub"),
    ("_mul_scalar", "Mul"),
    ("_div_scalar", "Div"),
):
    converter(_name)(_with_scalar(_operator))
for _name, _operator in (
    ("_greater_scalar", "Greater"),
    ("_greater_equal_scalar", "GreaterOrEqual"),
    ("_equal_scalar", "Equal"),
):
    converter(_name)(_compare(_operator))


@converter("softmax")
def _softmax(graph: Graph, call: Call) -> str:
    return graph.add("Softmax", *call.inputs, axis=call.get("axis", -1))


@converter("clip")
def _clip(graph: Graph, call: Call) -> str:
    low, high = (np.float32(call.options[name]) for name in ("a_min", "a_max"))
    return graph.add("Clip", *call.inputs, low, high)


@converter("min")
def _min(graph: Graph, call: Call) -> str:
    keepdims = int(call.get("keepdims", False))
    return graph.add("ReduceMin", *call.inputs, axes=_axes(call), keepdims=keepdims)


@converter("prod")
def _prod(graph: Graph, call: Call) -> str:
    keepdims = int(call.get("keepdims", False))
    return graph.add("ReduceProd", *call.inputs, axes=_axes(call), keepdims=keepdims)


@converter("sum")
def _sum(graph: Graph, call: Call) -> str:
    keepdims = int(call.get("keepdims", False))
    return graph.add("ReduceSum", *call.inputs, _axes(call), keepdims=keepdims)


def _axes(call: Call, name: str = "axis") -> list[int]:
    return [int(axis) for axis in np.atleast_1d(call.options[name])]


@converter("where")
def _where(graph: Graph, call: Call) -> str:
    condition, *others = call.inputs
    return graph.add("Where", graph.cast(condition, bool), *others)


@converter("one_hot")
def _one_hot(graph: Graph, call: Call) -> str:
    kinds = np.arange(call.options["depth"], dtype=np.float32)
    # ONNX's OneHot counts negative classes from the end.
    found = graph.add("Equal", graph.unsqueeze(call.inputs[0], -1), kinds)
    return graph.cast(found, np.float32)


# --- shapes ---------------------------------------------------------------------------------------


@converter("_copy", "BlockGrad")
def _identity(graph: Graph, call: Call) -> str:
    return call.inputs[0]


@converter("Cast")
def _cast(graph: Graph, call: Call) -> str:
    return graph.cast(call.inputs[0], call.options["dtype"])


@converter("transpose")
def _transpose(graph: Graph, call: Call) -> str:
    return graph.add("Transpose", *call.inputs, perm=call.options["axes"])


@converter("Flatten")
def _flatten(graph: Graph, call: Call) -> str:
    return graph.add("Flatten", *call.inputs, axis=1)


@converter("Reshape")
def _reshape(graph: Graph, call: Call) -> str:
    shape = [int(size) for size in np.atleast_1d(call.options["shape"])]
    if min(shape) < -1:
        raise NotImplementedError(f"Reshape with the shape {tuple(shape)}")
    return graph.add("Reshape", *call.inputs, shape)


@converter("reshape_like")
def _reshape_like(graph: Graph, call: Call) -> str:
    x, like = call.inputs
    begin, end = call.get("lhs_begin", 0) or 0, call.get("lhs_end", None)
    target = graph.shape(like, call.get("rhs_begin", 0) or 0, call.get("rhs_end", None))
    parts = [target]
    if begin:
        parts.insert(0, graph.shape(x, 0, begin))
    if end is not None:
        parts.append(graph.shape(x, end))
    if len(parts) > 1:
        target = graph.add("Concat", *parts, axis=0)
    return graph.add("Reshape", x, target)


@converter("expand_dims")
def _expand_dims(graph: Graph, call: Call) -> str:
    return graph.unsqueeze(call.inputs[0], call.options["axis"])


@converter("Concat")
def _concat(graph: Graph, call: Call) -> str:
    return graph.add("Concat", *call.inputs, axis=call.get("dim", 1))


@converter("slice_axis")
def _slice_axis(graph: Graph, call: Call) -> str:
    axis, begin = call.options["axis"], call.options["begin"]
    return graph.slice(call.inputs[0], axis, begin, call.get("end", None))


@converter("slice_like")
def _slice_like(graph: Graph, call: Call) -> str:
    x, like = call.inputs
    axes = _axes(call, "axes")
    ends = graph.add("Gather", graph.shape(like), axes)
    return graph.add("Slice", x, [0] * len(axes), ends, axes)


@converter("broadcast_like")
def _broadcast_like(graph: Graph, call: Call) -> str:
    x, like = call.inputs
    if "lhs_axes" not in call.options:
        return graph.add("Expand", x, graph.shape(like))
    # Expand keeps the axes of size 1 in its shape.
    parts: list[Operand] = [[1]] * len(call.shapes[0])
    for axis, other in zip(_axes(call, "lhs_axes"), _axes(call, "rhs_axes")):
        parts[axis] = graph.shape(like, other, other + 1)
    return graph.add("Expand", x, graph.add("Concat", *parts, axis=0))


@converter("shape_array")
def _shape_array(graph: Graph, call: Call) -> str:
    return graph.shape(call.inputs[0])


@converter("_contrib_arange_like")
def _arange_like(graph: Graph, call: Call) -> str:
    axis = call.options["axis"]
    size = graph.add("Squeeze", graph.shape(call.inputs[0], axis, axis + 1))
    return graph.cast(graph.add("Range", np.int64(0), size, np.int64(1)), np.float32)


@converter("ones_like")
def _ones_like(graph: Graph, call: Call) -> str:
    return graph.full(graph.shape(call.inputs[0]), np.float32(1))


@converter("tile")
def _tile(graph: Graph, call: Call) -> str:
    return graph.add("Tile", *call.inputs, call.options["reps"])


@converter("repeat")
def _repeat(graph: Graph, call: Call) -> str:
    axis, shape = call.options["axis"], call.shapes[0]
    counts = [1] * (len(shape) + 1)
    counts[axis + 1] = call.options["repeats"]
    repeated = graph.add("Tile", graph.unsqueeze(call.inputs[0], axis + 1), counts)
    target = [0] * axis + [-1, *shape[axis + 1 :]]
    return graph.add("Reshape", repeated, target)
