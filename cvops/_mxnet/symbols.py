"""Symbol files (JSON) from MXNet's operators to ours, and back."""

from __future__ import annotations

import json
from typing import Any

from cvops._mxnet.operators import OPERATORS, Operator

_OURS = {name: operator for operator in OPERATORS for name in operator.replaces}
_THEIRS = {operator.full_name: operator.replaces[0] for operator in OPERATORS if operator.replaces}
#: The copies that stand before our operators: see ``cvops._mxnet.register.apart``.
_MARK = "__cvops__"
#: An attribute of an operator of ours in the place of one of MXNet's: the name of that.
PLACE = "__cvops_for__"


def full_name(operator: Operator, name: str) -> str:
    """The name in a graph of MXNet's operator that is ``name`` in a module."""
    return next((full for full in operator.replaces if full.endswith(name)), operator.replaces[0])


def convert_symbol(text: str, to: str = "cvops") -> str:
    """The JSON of a symbol with MXNet's detection operators replaced by ours, or ours by MXNet's.

    A model that was exported with MXNet's operators runs on ours then, and one that was exported
    with ours loads in an MXNet without cvops. Parameters stay as they are.

    Args:
        text: the JSON that ``Symbol.save``, ``Symbol.tojson`` or ``HybridBlock.export`` gives.
        to: "cvops" or "mxnet".

    Returns:
        JSON; ``text`` itself if there is nothing to replace.

    Raises:
        ValueError: ``text`` is not the JSON of a symbol; it has an operator that MXNet does not
            have; ``to`` is neither.
    """
    if to not in ("cvops", "mxnet"):
        raise ValueError(f"to: expected 'cvops' or 'mxnet', got {to!r}")
    try:
        graph = json.loads(text)
        ops = {node["op"] for node in _all_nodes(graph)}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("text: expected the JSON of a symbol") from error
    if to == "mxnet":
        for name in ops:
            if name.startswith("_contrib_cvops_") and name not in _THEIRS:
                raise ValueError(f"text: MXNet has no operator for {name!r}")
    if not ops & (_OURS if to == "cvops" else _THEIRS).keys():
        return text
    _convert(graph, to)
    return json.dumps(graph, indent=2)


def as_loaded(text: str) -> str:
    """A symbol from a file, with ours in the places of MXNet's operators."""
    graph = json.loads(text)
    _convert(graph, "cvops", places=True)
    return json.dumps(graph)


def as_written(text: str) -> str:
    """A symbol for a file: MXNet's operators again where ours took their places."""
    if f'"{PLACE}"' not in text:
        return text
    graph = json.loads(text)
    _convert(graph, "mxnet", places=True)
    return json.dumps(graph, indent=2)


def with_mxnets(text: str) -> str:
    """A graph with MXNet's operators for all of ours that replace one."""
    graph = json.loads(text)
    _convert(graph, "mxnet")
    return json.dumps(graph)


def for_shapes(text: str) -> str:
    """A graph whose shapes are those of ``text``, with MXNet's operators for ours."""
    graph = json.loads(with_mxnets(text))
    for node in _all_nodes(graph):
        if node["op"] == "_contrib_cvops_bilinear_upsample":
            scale = node["attrs"]["scale"]
            node["op"] = "UpSampling"
            node["attrs"] = {"scale": scale, "sample_type": "nearest", "num_args": "1"}
    return json.dumps(graph)


def suits(text: str) -> bool:
    """Whether a symbol has operators that ours replace, and is of float32 as far as it says."""
    if not any(f'"{name}"' in text for name in _OURS):
        return False
    # MXNet's number of float32 is 0. What was saved in another type was made for MXNet's.
    nodes = _all_nodes(json.loads(text))
    return all(_attributes(node).get("__dtype__", "0") in ("0", "-1") for node in nodes)


def _all_nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a graph, with those of the graphs inside of them."""
    nodes = []
    for node in graph["nodes"]:
        nodes.append(node)
        for subgraph in node.get("subgraphs", []):
            nodes += _all_nodes(subgraph)
    return nodes


def _attributes(node: dict[str, Any]) -> dict[str, str]:
    """The attributes of a node; files of older versions of MXNet call them otherwise."""
    return next((node[key] for key in ("attrs", "attr", "param") if key in node), {})


def _set_attribute(node: dict[str, Any], name: str, value: str) -> None:
    key = next((key for key in ("attrs", "attr", "param") if key in node), "attrs")
    node.setdefault(key, {})[name] = value


def _convert(graph: dict[str, Any], to: str, places: bool = False) -> None:
    """Replace the operators of a graph; with ``places`` to write PLACE, and to follow it back."""
    nodes: list[dict[str, Any]] = []
    #: For each old node the entry that its outputs have now: a new node, or what it copied.
    place: list[Any] = []

    def entry(old: list[int]) -> list[int]:
        number, output, *version = old
        new = place[number]
        return [*new, *version] if isinstance(new, list) else [new, output, *version]

    def replaced(node: dict[str, Any]) -> bool:
        return node["op"] in _THEIRS and (not places or PLACE in _attributes(node))

    copies = {
        number for node in graph["nodes"] if replaced(node) for number, *_ in node["inputs"]
    } if to == "mxnet" else set()  # fmt: skip
    for i, node in enumerate(graph["nodes"]):
        for subgraph in node.get("subgraphs", []):
            _convert(subgraph, to, places)
        inputs = [entry(old) for old in node.get("inputs", [])]
        if i in copies and _MARK in _attributes(node):
            place.append(inputs[0][:2])
            continue
        operator = _OURS.get(node["op"])
        if to == "cvops" and operator is not None:
            if places:
                _set_attribute(node, PLACE, node["op"])
            node["op"] = operator.full_name
            inputs = [_copied(nodes, node, operator, *pair) for pair in enumerate(inputs)]
        elif to == "mxnet" and replaced(node):
            node["op"] = _attributes(node).pop(PLACE, _THEIRS[node["op"]])
            for key in ("attrs", "attr", "param"):
                if node.get(key) == {}:  # as MXNet writes a node without attributes
                    del node[key]
        place.append(len(nodes))
        nodes.append({**node, "inputs": inputs})
    graph["nodes"] = nodes
    graph["arg_nodes"] = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    graph["heads"] = [entry(old) for old in graph["heads"]]
    if "node_row_ptr" in graph:
        outputs = _counts(graph["node_row_ptr"], place, nodes)
        graph["node_row_ptr"] = [sum(outputs[:i]) for i in range(len(nodes) + 1)]


def _counts(row_ptr: list[int], place: list[Any], nodes: list[Any]) -> list[int]:
    """The number of outputs of each new node; a copy has one."""
    counts = [1] * len(nodes)
    for old, new in enumerate(place):
        if isinstance(new, int):
            counts[new] = row_ptr[old + 1] - row_ptr[old]
    return counts


def _copied(
    nodes: list[dict[str, Any]], node: dict[str, Any], operator: Operator, i: int, source: list[int]
) -> list[int]:
    """The entry of a new node that copies input ``i`` for ``node``."""
    name = f"{node['name']}_{operator.inputs[i]}_copy"
    op = "_copy" if operator.differentiable else "BlockGrad"
    nodes.append({"op": op, "name": name, "attrs": {_MARK: name}, "inputs": [source]})
    return [len(nodes) - 1, 0, 0]
