"""Conversion of symbols (JSON) from MXNet's operators to ours, and back."""

from __future__ import annotations

import json
from typing import Any, Callable

from cvops.backends.operators import OPERATORS, Operator

_THEIRS = {operator.full_name: operator.replaces[0] for operator in OPERATORS if operator.replaces}
#: Those that only an MXNet for GPUs can load.
_GPU_ONLY = {op.full_name: f"_contrib_{op.gpu_name}" for op in OPERATORS if op.gpu_name}
_OURS = {name: operator for operator in OPERATORS for name in operator.replaces}
_OURS.update({_GPU_ONLY[op.full_name]: op for op in OPERATORS if op.gpu_name})
_EXTRA = {operator.full_name: dict(operator.extra) for operator in OPERATORS}
#: The attribute of the copies before our operators: see ``register.gradient_copy``.
_MARK = "__cvops__"
#: An attribute of our operators: the name of MXNet's operator that one replaces.
REPLACED = "__cvops_for__"


def full_name(operator: Operator, name: str) -> str:
    """Return the name in a graph of MXNet's operator that is ``name`` in a module."""
    return next((full for full in operator.replaces if full.endswith(name)), operator.replaces[0])


def convert_symbol(text: str, to: str = "cvops") -> str:
    """Replace MXNet's detection operators in the JSON of a symbol by ours, or ours by MXNet's.

    A model that was exported with MXNet's operators then runs on ours. A model that was exported
    with ours loads in an MXNet without cvops; with ``mrcnn_mask_target``, in an MXNet for GPUs
    only. Parameters do not change.

    Args:
        text: the JSON of ``Symbol.save``, ``Symbol.tojson`` or ``HybridBlock.export``.
        to: "cvops" or "mxnet".

    Returns:
        JSON; ``text`` itself if there is no operator to replace.

    Raises:
        ValueError: ``text`` is not the JSON of a symbol; ``text`` has an operator without a
            counterpart in MXNet; ``to`` is unknown.
    """
    if to not in ("cvops", "mxnet"):
        raise ValueError(f"to: expected 'cvops' or 'mxnet', got {to!r}")
    try:
        graph = json.loads(text)
        _check_graph(graph)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"text: expected the JSON of a symbol: {error}") from error
    ops = {node["op"] for node in _all_nodes(graph)}
    theirs = {**_THEIRS, **_GPU_ONLY}
    if to == "mxnet":
        for name in ops:
            if name.startswith("_contrib_cvops_") and name not in theirs:
                raise ValueError(f"text: MXNet has no operator for {name!r}")
        for node in _all_nodes(graph):
            for key, value in _extra_options(node).items():
                raise ValueError(f"text: MXNet has no {key} {value!r} of {node['op']!r}")
    if not ops & (_OURS if to == "cvops" else theirs).keys():
        return text
    _convert(graph, to, theirs=theirs)
    return json.dumps(graph, indent=2)


def as_loaded(text: str, takes: Callable[[Operator, dict[str, str]], bool]) -> str:
    """Replace MXNet's operators in a symbol from a file by those of ours that take the options."""
    graph = json.loads(text)
    _convert(graph, "cvops", mark=True, takes=takes)
    return json.dumps(graph)


def as_written(text: str) -> str:
    """Replace our operators in a symbol for a file by those that they replaced."""
    if f'"{REPLACED}"' not in text:
        return text
    graph = json.loads(text)
    _convert(graph, "mxnet", mark=True)
    return json.dumps(graph, indent=2)


def with_mxnet_ops(text: str) -> str:
    """Replace each operator of ours that has a counterpart in MXNet."""
    graph = json.loads(text)
    _convert(graph, "mxnet")
    return json.dumps(graph)


def with_mxnet_shapes(text: str) -> str:
    """Return a graph of the same shapes, with MXNet's operators for ours."""
    graph = json.loads(text)
    for node in _all_nodes(graph):
        for key in _extra_options(node):
            del _attributes(node)[key]
    _convert(graph, "mxnet")
    for node in _all_nodes(graph):
        if node["op"] == "_contrib_cvops_bilinear_upsample":
            scale = node["attrs"]["scale"]
            node["op"] = "UpSampling"
            node["attrs"] = {"scale": scale, "sample_type": "nearest", "num_args": "1"}
    return json.dumps(graph)


def is_float32(text: str) -> bool:
    """Report if a symbol has operators to replace, and no type other than float32."""
    if not any(f'"{name}"' in text for name in _OURS):
        return False
    # MXNet's code of float32 is 0. A model of another type needs MXNet's operators.
    nodes = _all_nodes(json.loads(text))
    return all(_attributes(node).get("__dtype__", "0") in ("0", "-1") for node in nodes)


def has_choice(text: str) -> bool:
    """Report if a symbol has operators that both MXNet and this package have."""
    return any(f'"{name}"' in text for name in (*_OURS, *_THEIRS))


def _expect(name: str, value: Any, fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{name}: expected {what}, got {value!r:.60}")


def _check_graph(graph: Any) -> None:
    """Raise a ValueError for a JSON value that is not a graph of operators."""
    _expect("graph", graph, isinstance(graph, dict), "an object")
    nodes = graph.get("nodes")
    _expect("nodes", nodes, isinstance(nodes, list), "a list")
    for i, node in enumerate(nodes):
        _expect(f"node {i}", node, isinstance(node, dict), "an object")
        for key in ("op", "name"):
            _expect(f"node {i}: {key}", node.get(key), isinstance(node.get(key), str), "a text")
        _check_entries(f"node {i}: inputs", node.get("inputs", []), i)
        for key in ("attrs", "attr", "param"):
            value = node.get(key, {})
            _expect(f"node {i}: {key}", value, isinstance(value, dict), "an object")
        operator = _OURS.get(node["op"])
        if operator is not None and len(node.get("inputs", [])) > len(operator.inputs):
            want = f"{len(operator.inputs)} inputs or fewer"
            _expect(f"node {i}: inputs", node["inputs"], False, want)
        subgraphs = node.get("subgraphs", [])
        _expect(f"node {i}: subgraphs", subgraphs, isinstance(subgraphs, list), "a list")
        for subgraph in subgraphs:
            _check_graph(subgraph)
    _check_entries("heads", graph.get("heads"), len(nodes))
    ends = graph.get("node_row_ptr", [0] * (len(nodes) + 1))
    fits = isinstance(ends, list) and len(ends) == len(nodes) + 1
    fits = fits and all(type(end) is int for end in ends)
    _expect("node_row_ptr", ends, fits, f"{len(nodes) + 1} integers")


def _check_entries(name: str, entries: Any, before: int) -> None:
    """Refuse entries that are not [node, output] or [node, output, version] of earlier nodes."""
    _expect(name, entries, isinstance(entries, list), "a list")
    for entry in entries:
        fits = isinstance(entry, list) and len(entry) in (2, 3)
        fits = fits and all(type(number) is int for number in entry)
        _expect(name, entry, fits and 0 <= entry[0] < before, f"entries of nodes before {before}")


def _all_nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """List the nodes of a graph and of its subgraphs."""
    nodes = []
    for node in graph["nodes"]:
        nodes.append(node)
        for subgraph in node.get("subgraphs", []):
            nodes += _all_nodes(subgraph)
    return nodes


def _attributes(node: dict[str, Any]) -> dict[str, str]:
    """Return the attributes of a node; older versions of MXNet use other keys."""
    return next((node[key] for key in ("attrs", "attr", "param") if key in node), {})


def _extra_options(node: dict[str, Any]) -> dict[str, str]:
    """Return the options of our operator with which it differs from MXNet's."""
    given = _attributes(node)
    extra = _EXTRA.get(node["op"], {})
    return {key: given[key] for key, equal in extra.items() if given.get(key, equal) != equal}


def _set_attribute(node: dict[str, Any], name: str, value: str) -> None:
    key = next((key for key in ("attrs", "attr", "param") if key in node), "attrs")
    node.setdefault(key, {})[name] = value


def _convert(
    graph: dict[str, Any],
    to: str,
    mark: bool = False,
    takes: Callable[[Operator, dict[str, str]], bool] = lambda operator, options: True,
    theirs: dict[str, str] = _THEIRS,
) -> None:
    """Replace operators of a graph; with ``mark``, write REPLACED, or replace marked ones only."""
    nodes: list[dict[str, Any]] = []
    #: For each old node: the new node, or the entry that a removed copy had copied.
    node_map: list[Any] = []

    def entry(old: list[int]) -> list[int]:
        number, output, *version = old
        new = node_map[number]
        return [*new, *version] if isinstance(new, list) else [new, output, *version]

    def replaced(node: dict[str, Any]) -> bool:
        if node["op"] not in theirs or _extra_options(node):
            return False
        return not mark or REPLACED in _attributes(node)

    copies = {
        number for node in graph["nodes"] if replaced(node) for number, *_ in node["inputs"]
    } if to == "mxnet" else set()  # fmt: skip
    for i, node in enumerate(graph["nodes"]):
        for subgraph in node.get("subgraphs", []):
            _convert(subgraph, to, mark, takes, theirs)
        inputs = [entry(old) for old in node.get("inputs", [])]
        if i in copies and inputs and _MARK in _attributes(node):
            node_map.append(inputs[0][:2])
            continue
        operator = _OURS.get(node["op"])
        if to == "cvops" and operator is not None and takes(operator, _attributes(node)):
            if mark:
                _set_attribute(node, REPLACED, node["op"])
            node["op"] = operator.full_name
            inputs = [_copied(nodes, node, operator, *pair) for pair in enumerate(inputs)]
        elif to == "mxnet" and replaced(node):
            for key in _EXTRA[node["op"]]:
                _attributes(node).pop(key, None)
            node["op"] = _attributes(node).pop(REPLACED, theirs[node["op"]])
            for key in ("attrs", "attr", "param"):
                if node.get(key) == {}:  # MXNet omits empty attributes
                    del node[key]
        node_map.append(len(nodes))
        nodes.append({**node, "inputs": inputs})
    graph["nodes"] = nodes
    graph["arg_nodes"] = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    graph["heads"] = [entry(old) for old in graph["heads"]]
    if "node_row_ptr" in graph:
        outputs = _counts(graph["node_row_ptr"], node_map, nodes)
        graph["node_row_ptr"] = [sum(outputs[:i]) for i in range(len(nodes) + 1)]


def _counts(row_ptr: list[int], node_map: list[Any], nodes: list[Any]) -> list[int]:
    """Count the outputs of each new node; a copy has one."""
    counts = [1] * len(nodes)
    for old, new in enumerate(node_map):
        if isinstance(new, int):
            counts[new] = row_ptr[old + 1] - row_ptr[old]
    return counts


def _copied(
    nodes: list[dict[str, Any]], node: dict[str, Any], operator: Operator, i: int, source: list[int]
) -> list[int]:
    """Add a node that copies input ``i`` of ``node``; return its entry."""
    name = f"{node['name']}_{operator.inputs[i]}_copy"
    op = "_copy" if operator.differentiable else "BlockGrad"
    nodes.append({"op": op, "name": name, "attrs": {_MARK: name}, "inputs": [source]})
    return [len(nodes) - 1, 0, 0]
