"""install(): the names of MXNet that become ours, and the calls that stay MXNet's."""

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from operator_cases import CASES, MODES, MXNETS, as_list, network, theirs

import cvops
from cvops.backends.adapter import compiler

OPS = MXNETS
rng = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def uninstalled_after_each_test(operators):
    yield
    operators.uninstall()


def graph_of(net):
    return net._cached_graph[1].tojson()


# --- names ----------------------------------------------------------------------------------------

PLACES = [
    *(f"nd.contrib.{op}" for op in OPS if op != "ROIPooling"),
    *(f"sym.contrib.{op}" for op in OPS if op != "ROIPooling"),
    *(f"contrib.nd.{op}" for op in OPS if op != "ROIPooling"),
    *(f"contrib.ndarray.{op}" for op in OPS if op != "ROIPooling"),
    *(f"contrib.sym.{op}" for op in OPS if op != "ROIPooling"),
    *(f"contrib.symbol.{op}" for op in OPS if op != "ROIPooling"),
    *("nd.contrib.box_non_maximum_suppression", "sym.contrib.box_non_maximum_suppression"),
    *("nd.ROIPooling", "nd.op.ROIPooling", "sym.ROIPooling", "sym.op.ROIPooling"),
    *(
        f"{where}.{op}"
        for where in ("npx", "nd.numpy_extension", "sym.numpy_extension")
        for op in ("multibox_prior", "multibox_target", "multibox_detection", "roi_pooling")
    ),
]


def at(mx, place):
    value = mx
    for name in place.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("place", PLACES)
def test_install_replaces_each_name_and_uninstall_restores_it(mx, operators, place):
    before = at(mx, place)
    operators.install()
    operators.install()
    assert at(mx, place) is not before
    assert at(mx, place).__name__ == before.__name__
    operators.uninstall()
    assert at(mx, place) is before
    operators.uninstall()


ADDED = [f"{where}.contrib.mrcnn_mask_target" for where in ("nd", "sym")]
ADDED += [f"contrib.{where}.mrcnn_mask_target" for where in ("nd", "ndarray", "sym", "symbol")]


@pytest.mark.parametrize("place", ADDED)
def test_install_adds_a_name_that_mxnet_has_for_gpus_only(mx, operators, place):
    where, _, name = place.rpartition(".")
    assert not hasattr(at(mx, where), name)
    for _ in range(2):
        operators.install()
        operators.install()
        assert at(mx, place).__name__ == name
        operators.uninstall()
        assert not hasattr(at(mx, where), name)
        operators.uninstall()


@pytest.mark.parametrize("mode", MODES)
def test_block_with_an_added_name_runs_our_operator(mx, operators, mode):
    inputs, options = CASES["mrcnn_mask_target"]
    inputs = [mx.nd.array(x) for x in inputs]
    want = as_list(mx.nd.contrib.cvops_mrcnn_mask_target(*inputs, **options))
    net = network(mx, lambda F, *args: F.contrib.mrcnn_mask_target(*args, **options), mode)
    with operators.installed():
        got = as_list(net(*inputs))
    assert want[1].any()
    for ours, expected in zip(got, want):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
def test_block_with_mxnets_names_runs_our_operators(mx, operators, op, mode):
    inputs, options = CASES[op]
    inputs = [mx.nd.array(x.astype(np.float32)) for x in inputs]
    want = as_list(theirs(mx.nd, op)(*inputs, **options))
    net = network(mx, lambda F, *args: theirs(F, op)(*args, **options), mode)
    with operators.installed():
        got = as_list(net(*inputs))
    for ours, mxnets in zip(got, want):
        np.testing.assert_allclose(ours, mxnets, rtol=3e-7 if op.startswith("Multi") else 0)
    if MODES[mode] is not None:
        assert f'"_contrib_cvops_{op}"' in graph_of(net)


@pytest.mark.parametrize("name", ["npx", "nd.contrib"])
def test_eager_call_of_each_kind_of_array_runs_our_function(mx, operators, monkeypatch, name):
    numpy = name == "npx"
    calls = []
    ours = "cvops_multibox_prior" if numpy else "cvops_MultiBoxPrior"
    monkeypatch.setattr(at(mx, name), ours, lambda x: calls.append(x))
    x = (mx.np if numpy else mx.nd).zeros((1, 2, 3, 3))
    with operators.installed():
        at(mx, f"{name}.{'multibox_prior' if numpy else 'MultiBoxPrior'}")(x)
    assert len(calls) == 1


def test_block_of_mx_np_arrays_runs_our_operators(mx, operators):
    """Later editions of the book have such blocks."""

    def forward(F, x):
        return F.npx.multibox_prior(x, sizes=(0.5,), ratios=(1,))

    x = mx.np.zeros((1, 2, 3, 3))
    want = forward(mx.nd, x)
    with operators.installed():
        net = network(mx, forward, "static")
        got = net(x)
        assert isinstance(mx.npx.multibox_prior(x), mx.np.ndarray)
    assert isinstance(got, mx.np.ndarray)
    np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())
    assert '"_contrib_cvops_MultiBoxPrior"' in graph_of(net)


def test_target_of_too_few_candidates_is_computed(mx, operators):
    """MXNet's own operator raises: it finds fewer candidates than it needs."""
    anchor = mx.nd.array([[[0, 0, 1, 1], [0, 0, 0.5, 0.5]]])
    label = mx.nd.array([[[0, 0, 0, 1, 1]]])
    cls_pred = mx.nd.zeros((1, 2, 2))
    args = {"negative_mining_ratio": 3, "negative_mining_thresh": 0.1}
    with operators.installed():
        target = mx.nd.contrib.MultiBoxTarget(anchor, label, cls_pred, **args)
        assert target[2].asnumpy().tolist() == [[1, -1]]
    with pytest.raises(mx.MXNetError):
        mx.nd.contrib.MultiBoxTarget(anchor, label, cls_pred, **args)[2].asnumpy()


# --- nesting, threads, other code -----------------------------------------------------------------


def test_installed_blocks_nest_and_overlap(mx, operators):
    before = mx.nd.contrib.box_iou
    with operators.installed():
        ours = mx.nd.contrib.box_iou
        with operators.installed():
            assert mx.nd.contrib.box_iou is ours
        assert mx.nd.contrib.box_iou is ours
        operators.uninstall()
        assert mx.nd.contrib.box_iou is ours
    assert mx.nd.contrib.box_iou is before
    operators.install()
    with operators.installed():
        pass
    assert mx.nd.contrib.box_iou is not before


def test_functions_of_the_same_name_in_other_modules_stay(mx, operators, monkeypatch):
    module = types.ModuleType("mxnet.contrib.onnx.translations")
    module.roi_pooling = lambda attrs, inputs, proto: "a translation"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with operators.installed():
        assert module.roi_pooling({}, [], None) == "a translation"


def test_error_in_an_installed_block_restores_the_names(mx, operators):
    before = mx.nd.contrib.box_iou
    with pytest.raises(KeyError), operators.installed():
        raise KeyError
    assert mx.nd.contrib.box_iou is before


def test_threads_with_installed_blocks_see_our_functions(mx, operators):
    before = mx.nd.contrib.box_iou
    box = mx.nd.array([[0, 0, 1, 1]])
    failures = []

    def work():
        for _ in range(50):
            with operators.installed():
                if mx.nd.contrib.box_iou is before or mx.nd.contrib.box_iou(box, box) != 1:
                    failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert mx.nd.contrib.box_iou is before


def test_later_wrapper_stays_and_calls_mxnets_after_uninstall(mx, operators, monkeypatch):
    """AMP wraps functions too. uninstall() keeps the patches of other code."""
    operators.install()
    ours = mx.nd.contrib.box_iou

    def wrapper(*args, **kwargs):
        return ours(*args, **kwargs)

    monkeypatch.setattr(mx.nd.contrib, "box_iou", wrapper)
    operators.uninstall()
    assert mx.nd.contrib.box_iou is wrapper
    with pytest.raises(mx.MXNetError) as error:
        mx.nd.contrib.box_iou(mx.nd.zeros((2, 3)), mx.nd.zeros((2, 4)))
    assert "cvops" not in str(error.value)
    monkeypatch.undo()
    operators.uninstall()


OTHER_LIBRARY = """
#include <mxnet/lib_api.h>
mxnet::ext::MXReturnValue initialize(int) { return mxnet::ext::MX_SUCCESS; }
"""


def test_another_library_that_is_loaded_keeps_our_functions(mx, operators, tmp_path):
    """MXNet makes all of its functions again then: ours would lose their sums of gradients."""
    wheel = Path(mx.__file__).parent
    source, library = tmp_path / "other.cpp", tmp_path / "other.so"
    source.write_text(OTHER_LIBRARY)
    sources = [source, wheel / "src" / "lib_api.cc"]
    flags = ["-std=c++17", "-O0", "-fPIC", "-shared", f"-isystem{wheel / 'include'}"]
    subprocess.run([*compiler(), *flags, *sources, "-o", library], check=True)
    code = f"""
import cvops.mxnet
from cvops._mxnet import mxnet
mx = mxnet()
cvops.mxnet.install()
mx.library.load({str(library)!r}, verbose=False)
x, rois = mx.nd.ones((1, 1, 4, 4)), mx.nd.array([[0, 0, 0, 3, 3]])
x.attach_grad("add")
for _ in range(2):
    with mx.autograd.record():
        y = mx.nd.contrib.cvops_ROIPooling(rois=rois, data=x, pooled_size=(1, 1), spatial_scale=1)
    y.backward()
print(x.grad.sum().asscalar())
box = mx.sym.var("box")
print("cvops" in mx.sym.contrib.box_iou(box, box).tojson())
cvops.mxnet.uninstall()
print("cvops" in mx.sym.contrib.box_iou(box, box).tojson())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2.0\nTrue\nFalse\n", done.stderr


# --- calls that stay MXNet's ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "ours"), [("float64", True), ("float16", False)])
def test_our_operators_run_float64_and_mxnets_run_float16(mx, operators, dtype, ours, mode):
    box = mx.nd.array([[0, 0, 1, 1], [0, 0, 1, 3]]).astype(dtype) / 3
    with operators.installed():
        net = network(mx, lambda F, x: F.contrib.box_iou(x, x * 2), mode)
        out = net(box)
        assert out.dtype == np.dtype(dtype)
        if MODES[mode] is not None:
            assert ("cvops" in graph_of(net)) == ours
    np.testing.assert_array_equal(out.asnumpy(), mx.nd.contrib.box_iou(box, box * 2).asnumpy())


@pytest.mark.parametrize("mode", MODES)
def test_mxnet_runs_float64_where_ours_is_float32(mx, operators, mode):
    x = mx.nd.random.uniform(shape=(1, 2, 4, 4), dtype="float64")
    with operators.installed():
        net = network(mx, lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=2), mode)
        out = net(x)
        assert out.dtype == np.float64
        if MODES[mode] is not None:
            assert "cvops" not in graph_of(net)


def test_block_cast_to_another_type_keeps_an_operator_that_takes_it(mx, operators):
    """The parameters determine the type of the operator's input."""

    class Net(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            self.dense = mx.gluon.nn.Dense(4)

        def hybrid_forward(self, F, x):
            box = self.dense(x)
            return F.contrib.box_iou(box, box)

    with operators.installed():
        for dtype, ours in (("float64", True), ("float32", True)):
            net = Net()
            net.initialize()
            net.cast(dtype)
            net.hybridize()
            out = net(mx.nd.ones((3, 4), dtype=dtype))
            assert out.dtype == np.dtype(dtype)
            assert ("cvops" in graph_of(net)) == ours


@pytest.mark.parametrize("mode", ["hybridized", "static"])
def test_block_accepts_inputs_of_one_type_after_another(mx, operators, mode):
    def forward(F, x, rois):
        return F.ROIPooling(x, rois, pooled_size=(2, 2), spatial_scale=0.5)

    data, rois = rng.random((1, 2, 8, 8)), np.array([[0, 1, 2, 14, 12]])
    net = network(mx, forward, mode)
    with operators.installed():
        for dtype in ("float32", "float16", "float32", "float64"):
            inputs = [mx.nd.array(x, dtype=dtype) for x in (data, rois)]
            out = net(*inputs)
            assert out.dtype == np.dtype(dtype)
            assert ("cvops" in graph_of(net)) == (dtype != "float16")
            np.testing.assert_array_equal(out.asnumpy(), forward(mx.nd, *inputs).asnumpy())
    np.testing.assert_array_equal(net(*inputs).asnumpy(), out.asnumpy())


#: Options that MXNet's operators accept, and ours do not.
ONLY_MXNETS = [
    ("box_nms", {"overlap_thresh": float("nan")}),
    ("box_nms", {"valid_thresh": "1e"}),
    ("MultiBoxDetection", {"nms_threshold": "NaN"}),
    ("MultiBoxTarget", {"overlap_threshold": float("nan")}),
    ("Proposal", {"scales": (1, 3), "ratios": (0.5, 1), "threshold": float("nan")}),
    ("bipartite_matching", {"threshold": float("nan")}),
    ("box_decode", {"clip": "NaN"}),
    ("PSROIPooling", {"spatial_scale": "1e", "output_dim": 3, "pooled_size": 2}),
    ("ROIPooling", {"pooled_size": (2, 2), "spatial_scale": "1e"}),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "options"), ONLY_MXNETS, ids=str)
def test_option_that_only_mxnet_accepts_runs_mxnets_operator(mx, operators, op, options, mode):
    inputs = [mx.nd.array(x.astype(np.float32)) for x in CASES[op][0]]
    want = as_list(theirs(mx.nd, op)(*inputs, **options))
    net = network(mx, lambda F, *args: theirs(F, op)(*args, **options), mode)
    with operators.installed():
        got = as_list(net(*inputs))
    for ours, mxnets in zip(got, want):
        np.testing.assert_array_equal(ours, mxnets)


def test_option_that_nobody_accepts_is_refused(mx, operators):
    box = mx.nd.zeros((2, 6))
    with operators.installed(), pytest.raises(mx.MXNetError, match="overlap_thresh: expected"):
        mx.nd.contrib.box_nms(box, overlap_thresh="half")


def test_shape_that_ours_refuses_is_an_error_of_ours(mx, operators):
    box = mx.nd.zeros((2, 3))
    with operators.installed(), pytest.raises(mx.MXNetError, match="cvops_box_iou: lhs"):
        mx.nd.contrib.box_iou(box, box)


def test_loaded_model_keeps_mxnets_operator_for_an_option_of_its_own(mx, operators):
    x = mx.sym.var("x")
    both = [mx.sym.contrib.box_nms(x, overlap_thresh=option) for option in ("0.5", "nan")]
    text = mx.sym.Group(both).tojson()
    with operators.installed():
        loaded = json.loads(mx.sym.load_json(text).tojson())
    ops = {node["op"] for node in loaded["nodes"]}
    assert ops == {"null", "_copy", "_contrib_cvops_box_nms", "_contrib_box_nms"}


def test_sparse_arrays_run_mxnets_operators(mx, operators):
    box = mx.nd.array([[0, 0, 1, 1]]).tostype("row_sparse")
    with operators.installed():
        assert mx.nd.contrib.box_iou(box, box).asscalar() == 1


AMP = """
import sys
from cvops._mxnet import mxnet
mx = mxnet()
from mxnet.contrib import amp
order = sys.argv[1].split()
for step in order:
    if step == "amp":
        amp.init()
    elif step == "import":
        import cvops.mxnet
    elif step == "install":
        cvops.mxnet.install()

class Net(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x, scores, label, box, rois):
        anchor = F.contrib.MultiBoxPrior(x, sizes=(0.3,))
        target = F.contrib.MultiBoxTarget(anchor, label, scores)
        iou = F.contrib.box_iou(anchor.reshape((-1, 4)), box)
        kept = F.contrib.box_nms(F.concat(box, box, dim=1), coord_start=4)
        pooled = F.ROIPooling(x * 1, rois, pooled_size=(2, 2), spatial_scale=1)
        return anchor, target[0], target[2], iou, kept, pooled

x = mx.nd.arange(2 * 3 * 64).reshape((2, 3, 8, 8)) / 64
scores = mx.nd.arange(2 * 2 * 64).reshape((2, 2, 64)) / 16
label = mx.nd.array([[[0, 0.1, 0.1, 0.5, 0.5]], [[1, 0.2, 0.2, 0.9, 0.9]]])
box = mx.nd.array([[0.1, 0.1, 0.4, 0.5], [0.1, 0.2, 0.4, 0.5]])
rois = mx.nd.array([[0, 0, 0, 7, 7]])
net = Net()
net.hybridize()
out = net(*(a.astype("float16") for a in (x, scores, label, box, rois)))
print([(a.dtype.__name__, float(a.astype("float32").sum().asscalar())) for a in out])
print("cvops" in net._cached_graph[1].tojson())
"""


def amp(order):
    """Return the results of a block under AMP, and True if it has our operators."""
    # MXNet's MKL-DNN has no casts of float16 on a CPU.
    done = subprocess.run(
        [sys.executable, "-c", AMP, order],
        capture_output=True,
        text=True,
        env={**os.environ, "MXNET_MKLDNN_ENABLED": "0"},
    )
    assert done.returncode == 0, done.stderr
    *_, out, ours = done.stdout.splitlines()
    return out, ours == "True"


@pytest.fixture(scope="module")
def amp_alone():
    out, ours = amp("amp")
    assert not ours
    return out


@pytest.mark.parametrize(
    "order", ["amp import install", "import amp install", "import install amp"]
)
def test_our_operators_under_amp_give_mxnets_results(operators, amp_alone, order):
    out, ours = amp(order)
    assert ours
    assert out == amp_alone


# --- models in files ------------------------------------------------------------------------------


def test_loaded_model_runs_our_operators_while_installed(mx, operators, tmp_path):
    inputs, options = CASES["ROIPooling"]
    inputs = [mx.nd.array(x.astype(np.float32)) for x in inputs]
    net = network(mx, lambda F, *args: F.ROIPooling(*args, **options), "hybridized")
    want = net(*inputs)
    net.export(str(tmp_path / "net"))
    names = ["data0", "data1"]
    with operators.installed():
        loaded = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), names)
    assert '"_contrib_cvops_ROIPooling"' in graph_of(loaded)
    np.testing.assert_array_equal(loaded(*inputs).asnumpy(), want.asnumpy())
    plain = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), names)
    assert "cvops" not in graph_of(plain)


def test_loaded_model_of_float64_keeps_mxnets_operators(mx, operators):
    box = mx.sym.var("box", dtype="float64")
    text = mx.sym.contrib.box_iou(box, box).tojson()
    with operators.installed():
        assert "cvops" not in mx.sym.load_json(text).tojson()


def _two_ops(F, x, rois):
    pooled = F.ROIPooling(x, rois, pooled_size=(2, 2), spatial_scale=1)
    boxes = F.slice_axis(rois, axis=1, begin=1, end=5)
    kept = F.contrib.box_non_maximum_suppression(F.concat(rois, rois, dim=1))
    return pooled, F.contrib.box_iou(boxes, boxes), kept


@pytest.fixture
def two_ops(mx):
    inputs = mx.nd.array(rng.random((1, 3, 8, 8))), mx.nd.array([[0, 0, 0, 7, 7], [0, 2, 2, 5, 5]])
    return network(mx, _two_ops, "hybridized"), inputs


def test_saved_model_has_mxnets_operators(mx, operators, two_ops, tmp_path):
    """The model was made or loaded while installed, and is saved then or after uninstall()."""
    net, inputs = two_ops
    with operators.installed():
        want = net(*inputs)
        assert '"_contrib_cvops_box_iou"' in graph_of(net)
    net.export(str(tmp_path / "made"))
    with operators.installed():
        loaded = mx.gluon.SymbolBlock.imports(
            str(tmp_path / "made-symbol.json"), ["data0", "data1"]
        )
        loaded(*inputs)
        assert '"_contrib_cvops_ROIPooling"' in graph_of(loaded)
        loaded.export(str(tmp_path / "loaded"))
        mx.sym.load(str(tmp_path / "made-symbol.json")).save(str(tmp_path / "saved-symbol.json"))
    texts = [(tmp_path / f"{name}-symbol.json").read_text() for name in ("made", "loaded", "saved")]
    assert "cvops" not in texts[0]
    assert texts[0] == texts[1] == texts[2]
    plain = mx.gluon.SymbolBlock.imports(str(tmp_path / "made-symbol.json"), ["data0", "data1"])
    for a, b in zip(plain(*inputs), want):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


def test_operator_with_our_name_is_saved_with_our_name(mx, operators, tmp_path):
    box = mx.sym.var("box")
    with operators.installed():
        both = mx.sym.Group(
            [mx.sym.contrib.cvops_box_iou(box, box), mx.sym.contrib.box_iou(box, box)]
        )
        both.save(str(tmp_path / "both.json"))
    text = (tmp_path / "both.json").read_text()
    assert text.count('"_contrib_cvops_box_iou"') == 1
    assert text.count('"_contrib_box_iou"') == 1
    mx.sym.load_json(text).bind(mx.cpu(), {"box": mx.nd.ones((1, 4))}).forward()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_loaded_model_without_types_accepts_each_type(mx, operators, two_ops, tmp_path, dtype):
    """A file without types gets our operators; arrays of float16 get MXNet's again."""
    net, inputs = two_ops
    net(*inputs)
    net.export(str(tmp_path / "net"))
    file, names = str(tmp_path / "net-symbol.json"), ["data0", "data1"]
    inputs = [x.astype(dtype) for x in inputs]
    want = mx.gluon.SymbolBlock.imports(file, names)(*inputs)
    types = dict(zip(names, (dtype, dtype)))
    with operators.installed():
        block = mx.gluon.SymbolBlock.imports(file, names)
        got = [block(*inputs)]
        assert ('"_contrib_cvops_' in graph_of(block)) == (dtype == "float64")
        symbol = mx.sym.load(file)
        assert "cvops" in symbol.tojson()
        assert symbol.infer_type(**types)[1] == [np.dtype(dtype).type] * 3
        got.append(symbol.bind(mx.cpu(), inputs).forward())
        got.append(symbol.bind(mx.cpu(), dict(zip(names, inputs))).forward())
        shapes = {name: x.shape for name, x in zip(names, inputs)}
        executor = symbol.simple_bind(mx.cpu(), type_dict=types, **shapes)
        got.append(executor.forward(**dict(zip(names, inputs))))
    for outs in got:
        for a, b in zip(outs, want):
            assert a.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


def test_sparse_symbols_get_mxnets_operators(mx, operators):
    box = mx.sym.var("box", stype="row_sparse")
    with operators.installed():
        assert "cvops" not in mx.sym.contrib.box_iou(box, box).tojson()


ONNX = """
import sys
import cvops
import mxnet as mx
import numpy as np
import mxnet.onnx
import onnx

if sys.argv[1] == "installed":
    import cvops.mxnet
    cvops.mxnet.install()
if sys.argv[1] == "ours":
    import cvops.mxnet
    nms, align = mx.sym.contrib.cvops_box_nms, mx.sym.contrib.cvops_ROIAlign
    pooling, decode = mx.sym.contrib.cvops_ROIPooling, mx.sym.contrib.cvops_box_decode
else:
    nms, align, pooling = mx.sym.contrib.box_nms, mx.sym.contrib.ROIAlign, mx.sym.ROIPooling
    decode = mx.sym.contrib.box_decode
x, rois = mx.sym.var("x"), mx.sym.var("rois")
for symbol, shapes in (
    (pooling(x, rois, pooled_size=(2, 3), spatial_scale=0.5, name="pool"), [(1, 2, 8, 8), (3, 5)]),
    (align(x, rois, pooled_size=(2, 3), spatial_scale=0.5, sample_ratio=2, name="align"),
     [(1, 2, 8, 8), (3, 5)]),
    (nms(x, overlap_thresh=0.5, coord_start=2, score_index=1, topk=9, force_suppress=True,
         name="nms"), [(1, 10, 6)]),
    (decode(x, rois, name="decode"), [(1, 9, 4), (1, 9, 4)]),
):
    for way in ("symbol", "file"):
        file = f"{sys.argv[2]}/model-symbol.json"
        symbol.save(file)
        mx.nd.save(f"{sys.argv[2]}/model-0000.params", {"arg:unused": mx.nd.ones((1,))})
        given = (symbol, {}) if way == "symbol" else (file, f"{sys.argv[2]}/model-0000.params")
        out = f"{sys.argv[2]}/model.onnx"
        mxnet.onnx.export_model(*given, shapes, [np.float32] * len(shapes), out)
        print(onnx.load(out).graph)
"""


def test_onnx_export_gives_the_same_graph_with_our_operators(operators, tmp_path):
    pytest.importorskip("onnx")
    graphs = {}
    for which in ("plain", "installed", "ours"):
        line = [sys.executable, "-c", ONNX, which, str(tmp_path)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        graphs[which] = done.stdout
    assert "MaxRoiPool" in graphs["plain"]
    assert "RoiAlign" in graphs["plain"]
    assert "NonMaxSuppression" in graphs["plain"]
    assert graphs["installed"] == graphs["ours"] == graphs["plain"]


def test_table_has_each_operator_of_the_package(operators):
    assert {o.name for o in operators.OPERATORS} == {
        *OPS,
        *(o.name for o in operators.OPERATORS if not o.replaces),
    }
    for operator in operators.OPERATORS:
        assert hasattr(cvops, operator.npx_name)
