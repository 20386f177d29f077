"""A graph of ONNX under construction: nodes, constants and parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

from cvops._imports import optional

with optional():
    import onnx
    from onnx import helper, numpy_helper

#: The operator set, and the oldest format of files that has it.
OPSET, IR_VERSION = 13, 7

#: The name of a value, or a constant: an array, or integers, which become int64.
Operand = Union[str, np.ndarray, np.generic, int, Sequence[int]]


class Graph:
    """Nodes of ONNX in their order, with their constants.

    Values have names that depend on the graph only, so that a network always gives the same file.
    """

    def __init__(self, num_classes: int) -> None:
        #: The number of classes of detections, without the background.
        self.num_classes = num_classes
        #: The arrays of parameters and constants by name.
        self.arrays: dict[str, np.ndarray] = {}
        self._nodes: list[Any] = []
        self._counts: Counter[str] = Counter()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def _new_name(self, kind: str) -> str:
        name = f"{kind}_{self._counts[kind]}"
        self._counts[kind] += 1
        return name

    def constant(self, value: Operand) -> str:
        """Return the name of ``value``; the name of an equal constant if there is one."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if not isinstance(value, (np.ndarray, np.generic)):
            array = array.astype(np.int64)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self._new_name("constant")
            self.arrays[self._constants[key]] = array
        return self._constants[key]

    def add(self, operator: str, *inputs: Operand, **attributes: Any) -> str:
        """Add a node of one output, and return the output's name."""
        return self.add_all(operator, 1, *inputs, **attributes)[0]

    def add_all(
        self, operator: str, outputs: int, *inputs: Operand, **attributes: Any
    ) -> list[str]:
        """Add a node, and return the names of its outputs."""
        names = [self._new_name(operator.lower()) for _ in range(outputs)]
        given = [self.constant(x) for x in inputs]
        self._nodes.append(helper.make_node(operator, given, names, name=names[0], **attributes))
        return names

    # --- frequent nodes ---

    def cast(self, x: Operand, dtype: Any) -> str:
        """Return ``x`` in another dtype of NumPy."""
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def slice(self, x: Operand, axis: int, begin: int, end: int | None = None) -> str:
        """Return the part of ``x`` along an axis."""
        last = np.iinfo(np.int64).max if end is None else end
        return self.add("Slice", x, [begin], [last], [axis])

    def shape(self, x: Operand, begin: int = 0, end: int | None = None) -> str:
        """Return the sizes of axes ``begin`` to ``end`` of ``x``, int64 (n,)."""
        sizes = self.add("Shape", x)
        return sizes if (begin, end) == (0, None) else self.slice(sizes, 0, begin, end)

    def unsqueeze(self, x: Operand, axis: int) -> str:
        """Return ``x`` with an axis of length 1."""
        return self.add("Unsqueeze", x, [axis])

    def full(self, shape: Operand, value: Any) -> str:
        """Return an array of equal elements; ``value`` is a scalar of NumPy."""
        tensor = numpy_helper.from_array(np.array([value]))
        return self.add("ConstantOfShape", shape, value=tensor)

    # --- the model ---

    def model(
        self,
        inputs: Mapping[str, Sequence[Any]],
        outputs: Mapping[str, tuple[str, Any, Sequence[Any]]],
        name: str,
        version: str,
        about: dict[str, str],
    ) -> Any:
        """Return the model, which has passed ONNX's checker.

        Args:
            inputs: the shape of each float32 input; a text is the name of a size.
            outputs: the value, the dtype and the shape of each output.
            name: the name of the graph.
            version: the version of the producer.
            about: the properties of the model.
        """
        for output, (value, _, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [output], name=output))
        used = {x for node in self._nodes for x in node.input}

        def info(name: str, dtype: Any, shape: Sequence[Any]) -> Any:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return helper.make_tensor_value_info(name, kind, list(shape))

        graph = helper.make_graph(
            self._nodes,
            name,
            [info(x, np.float32, shape) for x, shape in inputs.items()],
            [info(x, dtype, shape) for x, (_, dtype, shape) in outputs.items()],
            [numpy_helper.from_array(x, key) for key, x in self.arrays.items() if key in used],
        )
        model = helper.make_model(
            graph,
            producer_name="cvops",
            producer_version=version,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, about)
        onnx.checker.check_model(model, full_check=True)
        return model
