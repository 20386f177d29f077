"""Unknown and bad shapes in MXNet: each gives an error, and no process crashes."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from emulator.extension import compile_operators
from operator_cases import CASES, MXNETS, OPS

from cvops.backends import adapter, nvrtc

START = f"""
import json, sys
import numpy as np
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import cvops.mxnet
from cvops._mxnet import mxnet
from operator_cases import CASES, array, ours, theirs
mx = mxnet()
kept = []


def scalar(dtype):
    with mx.util.np_shape(True):
        return mx.np.ones((), dtype=dtype).as_nd_ndarray()


def call(run):
    try:
        kept.append(run())
        mx.nd.waitall()
    except Exception as error:
        print(json.dumps(["error", op, type(error).__name__, str(error)]))
    else:
        print(json.dumps(["error", op, "no error", ""]))


for op in sys.argv[1:]:
    arrays = [array(mx, x) for x in CASES[op][0]]
    options = CASES[op][1]
    spec = next(o for o in cvops.mxnet.OPERATORS if o.name == op)
"""


def errors(ops, code, environment=None):
    """Run ``code`` for each op; return op -> the type and the text of the error of each ``call``.

    One new process runs all of it, because a crash ends the process. MXNet prints lines too.
    """
    code = START + textwrap.indent(code, "    ")
    command = [sys.executable, "-c", code, *ops]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('["error", ')]
    found = {op: [] for op in ops}
    for _, op, kind, text in map(json.loads, lines):
        found[op].append((kind, text))
    return found


#: Calls with one bad input, five for each input, or four without a function in ``mx.npx``.
EAGER = """
def with_input(i, x):
    return [*arrays[:i], x, *arrays[i + 1:]]

for i in range(len(arrays)):
    dtype = arrays[i].dtype
    inputs = with_input(i, scalar(dtype))
    call(lambda: ours(mx.nd, op)(*inputs, **options))
    with mx.autograd.record():
        call(lambda: ours(mx.nd, op)(*inputs, **options))
    if op not in ("label_from_color", "confusion_matrix"):
        on_numpy = getattr(mx.npx, "cvops_" + spec.npx_name)
        call(lambda: on_numpy(*(x.as_np_ndarray() for x in inputs), **options))
    with mx.util.np_shape(True):
        empty = mx.nd.zeros((2**32 + 1, 0, 4), dtype=dtype)
    call(lambda: ours(mx.nd, op)(*with_input(i, empty), **options))
    with mx.util.np_shape(True):
        call(lambda: ours(mx.nd, op)(*with_input(i, empty), **options))
"""


@pytest.fixture(scope="module")
def eager(operators):
    return errors(OPS, EAGER)


@pytest.mark.parametrize("op", OPS)
def test_bad_shape_in_an_eager_call_is_rejected_with_the_name_of_the_input(operators, eager, op):
    """The bad arrays have no axes, an empty axis, or an axis longer than 32 bits."""
    found = eager[op]
    names = next(o.inputs for o in operators.OPERATORS if o.name == op)[: len(CASES[op][0])]
    each = len(found) // len(names)
    for i, (kind, text) in enumerate(found):
        assert kind == "MXNetError", (i, text)
        assert f"cvops_{op}: {names[i // each]}: expected" in text, (i, text)


def test_bad_shape_in_a_call_by_mxnets_name_is_rejected(operators):
    found = errors(
        MXNETS,
        """
cvops.mxnet.install()
others = [mx.nd.ones((4,)) for _ in arrays[1:]]
call(lambda: theirs(mx.nd, op)(scalar("float32"), *others, **options))
""",
    )
    for op in MXNETS:
        [(kind, text)] = found[op]
        assert kind == "MXNetError"
        assert f"cvops_{op}: " in text


#: For each input: a graph without its shape, with four bad shapes, and a hybridized network.
GRAPHS = """
names = ["data"] if len(arrays) == 1 else [f"data{i}" for i in range(len(arrays))]
variables = [mx.sym.var(name) for name in names]
symbol = ours(mx.sym, op)(*variables, **options)
shapes = {name: x.shape for name, x in zip(names, arrays)}

class Net(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, *args):
        return ours(F, op)(*args, **options)

for i, name in enumerate(names):
    without = {key: shape for key, shape in shapes.items() if key != name}
    call(lambda: symbol.simple_bind(mx.cpu(), **without))
    for shape in ((), (0,), (0, 4), (2, 0, 4)):
        call(lambda: symbol.simple_bind(mx.cpu(), **without, **{name: shape}))
        for infer in (symbol.infer_shape, symbol.infer_shape_partial):
            call(lambda: infer(**without, **{name: shape}))
            call(lambda: infer(**without))
            call(lambda: infer(**{name: shape}))
    net = Net()
    net.hybridize()
    call(lambda: net(*arrays[:i], scalar(arrays[i].dtype), *arrays[i + 1:]))
"""


@pytest.fixture(scope="module")
def graphs(operators):
    return errors(OPS, GRAPHS)


@pytest.mark.parametrize("op", OPS)
def test_graph_with_an_unknown_or_bad_shape_is_rejected(operators, graphs, op):
    """The bind of a graph raises an error. Inference may leave shapes unknown."""
    found = graphs[op]
    calls = 1 + 4 * 7 + 1  # for each input
    assert len(found) == calls * len(CASES[op][0])
    for i, (kind, text) in enumerate(found):
        place = i % calls
        if place == 0 or (place < calls - 1 and (place - 1) % 7 == 0):
            assert kind == "RuntimeError", (place, text)
            assert "data" in text, (place, text)
        elif place == calls - 1:  # the identity node before the operator has the input's name
            name = next(o.inputs for o in operators.OPERATORS if o.name == op)[i // calls]
            assert kind == "MXNetError", (place, text)
            assert f"{op.lower()}0_{name}" in text, (place, text)
        else:
            assert kind in ("MXNetError", "no error"), (place, text)
        assert "bad_alloc" not in text, (place, text)


def test_shape_that_depends_on_data_gives_the_eager_result(operators):
    """MXNet runs such a graph one node after the other."""
    found = errors(
        ["box_nms", "multiclass_nms"],
        """
class Net(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, mask, *args):
        args = [F.contrib.boolean_mask(x, mask) for x in args]
        return ours(F, op)(*args, **options)

mask = mx.nd.array([1, 0])
net = Net()
want = net(mask, *arrays)
net.hybridize()
def equal():
    got = net(mask, *arrays)
    for a, b in zip(*([x] if not isinstance(x, (list, tuple)) else x for x in (got, want))):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
call(equal)
""",
    )
    assert list(found.values()) == [[("no error", "")]] * 2


#: Graphs with a wrong number of inputs, an unknown option, and a bad value of an option.
EDITED = """
symbol = ours(mx.sym, op)(*(mx.sym.var(f"x{i}") for i in range(len(arrays))), **options)
named = {f"x{i}": x for i, x in enumerate(arrays)}
changes = "fewer inputs", "more inputs", "unknown option", "bad value"
for change in changes[:4 if spec.options else 3]:
    graph = json.loads(symbol.tojson())
    node = next(n for n in graph["nodes"] if n["op"] == spec.full_name)
    if change == "fewer inputs":
        node["inputs"].pop()
    elif change == "more inputs":
        node["inputs"].append(node["inputs"][0])
    elif change == "unknown option":
        node.setdefault("attrs", {})["nonsense"] = "1"
    else:
        node.setdefault("attrs", {})[spec.options[0]] = "@"
    def run():
        loaded = mx.sym.load_json(json.dumps(graph))
        kept = {key: x for key, x in named.items() if key in loaded.list_arguments()}
        loaded.bind(mx.cpu(), kept).forward()
    call(run)
"""


@pytest.fixture(scope="module")
def edited(operators):
    return errors(OPS, EDITED)


@pytest.mark.parametrize("op", OPS)
def test_edited_graph_is_rejected(operators, edited, op):
    options = next(o.options for o in operators.OPERATORS if o.name == op)
    parts = "inputs", "inputs", "nonsense", *(f"{option}: expected" for option in options[:1])
    assert len(edited[op]) == len(parts)
    for (kind, text), part in zip(edited[op], parts):
        assert kind == "MXNetError", text
        assert part in text


def test_number_of_anchors_above_64_bits_is_rejected(operators):
    found = errors(
        ["MultiBoxPrior"],
        """
side = 2**31 - 1
call(lambda: mx.sym.contrib.cvops_MultiBoxPrior(
    mx.sym.var("data"), sizes=(0.1, 0.2, 0.3), ratios=(1, 2)).infer_shape(data=(1, 1, side, side)))
""",
    )
    [(kind, text)] = found["MultiBoxPrior"]
    assert kind == "MXNetError"
    assert "data: expected fewer than 2^31 anchors" in text


@pytest.fixture
def address_sanitizer():
    """Environment of a process that builds and runs the operators with AddressSanitizer."""
    compiler = adapter.compiler()
    paths = []
    # AddressSanitizer finds the function that throws only if libstdc++ is loaded with it.
    for name in ("libasan.so", "libstdc++.so"):
        command = [*compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        if not os.path.isabs(path):
            pytest.skip(f"{compiler[0]} has no {name}")
        paths.append(os.path.realpath(path))
    flags = ["-fsanitize=address", "-g1"]
    # The operators of libcvops.so have no sanitizer: MXNet's library gets its own.
    objects = compile_operators(adapter.BINDINGS, nvrtc.KERNELS, [*flags, "-O0"])
    flags += [f"-Wl,{path}" for path in objects]
    return {
        **os.environ,
        "CXX": shlex.join([*compiler, *flags]),
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0:print_legend=0",
    }


@pytest.mark.slow
def test_bad_shapes_cause_no_memory_error_under_address_sanitizer(operators, address_sanitizer):
    found = errors(OPS, EAGER + GRAPHS + EDITED, address_sanitizer)
    assert all(found.values())
