"""Models with a single operator of ONNX, without the onnx package.

A model is a protobuf message. A model of one node needs only a few fields of onnx.proto; the field
numbers are below. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import Any, Callable, Union

import numpy as np

#: Values of TensorProto.DataType.
DTYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
#: Values of AttributeProto.AttributeType.
FLOAT, INT, STRING, INTS = 1, 2, 3, 7
IR_VERSION, OPSET = 8, 16


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: Union[int, float, str, bytes]) -> bytes:
    """Return a field of a message: a varint, a 32-bit float, or text or a message with length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, dtype: Any) -> bytes:
    """Return a ValueInfoProto of any shape."""
    return _field(1, name) + _field(2, _field(1, _field(1, DTYPES[np.dtype(dtype)])))


def _attribute(name: str, value: Union[float, int, str, tuple[int, ...]]) -> bytes:
    for kind, number, of_type in ((float, 2, FLOAT), (int, 3, INT), (str, 4, STRING)):
        if isinstance(value, kind):
            return _field(1, name) + _field(number, value) + _field(20, of_type)
    return _field(1, name) + b"".join(_field(8, x) for x in value) + _field(20, INTS)


def model(op: str, inputs: dict[str, Any], output: Any, **attributes: Any) -> bytes:
    """Return a ModelProto of one node, from the dtypes of its inputs and of its output "out"."""
    node = b"".join(_field(1, name) for name in inputs) + _field(2, "out") + _field(4, op)
    node += b"".join(_field(5, _attribute(*item)) for item in attributes.items())
    graph = _field(1, node) + _field(2, op)
    graph += b"".join(_field(11, _tensor(*item)) for item in inputs.items())
    graph += _field(12, _tensor("out", output))
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(2, OPSET))


@lru_cache(maxsize=8)
def _session(text: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])


def call(
    op: str, inputs: dict[str, np.ndarray], output: Any, **attributes: Any
) -> Callable[[], list[np.ndarray]]:
    """Return a function that runs the op on these inputs, with ONNX Runtime's default threads."""
    text = model(op, {name: x.dtype for name, x in inputs.items()}, output, **attributes)
    return partial(_session(text).run, None, inputs)
