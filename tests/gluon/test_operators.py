"""The operators inside MXNet: what they give, their gradients, and where MXNet can use them."""

import inspect
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from operator_cases import (
    ANCHORS,
    CASES,
    MODES,
    MXNETS,
    OPS,
    array,
    arrays,
    as_list,
    boxes,
    floats,
    function,
    network,
    on_arrays,
    theirs,
)

import cvops
from cvops import contrib

# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
def test_what_the_arrays_functions_give(mx, operators, op, mode):
    inputs, options = arrays(mx, op)
    net = network(mx, lambda F, *args: function(F, op)(*args, **options), mode)
    expected = as_list(on_arrays(op)(*inputs, **options))
    for _ in range(2):
        for got, want in zip(as_list(net(*inputs)), expected):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", MXNETS)
def test_what_mxnet_gives(mx, operators, op):
    inputs, options = arrays(mx, op)
    got = as_list(function(mx.nd, op)(*inputs, **options))
    want = as_list(theirs(mx.nd, op)(*inputs, **options))
    assert len(got) == len(want)
    for ours, mxnets in zip(got, want):
        # The logarithm of the targets may differ by 2 units in the last place.
        np.testing.assert_allclose(ours, mxnets, rtol=3e-7 if op.startswith("Multi") else 0)


@pytest.mark.parametrize(
    "option",
    [
        {"force_suppress": True},  # without id_index, as in GluonCV's region proposals
        {"force_suppress": False, "id_index": -1},
        {"background_id": 0},
        {"topk": 0},
        {"overlap_thresh": 2.0},
        {"valid_thresh": 0.5},
        {"in_format": "center"},
        {"out_format": "center"},
    ],
    ids=str,
)
def test_every_option_alone(mx, operators, option):
    data = array(mx, CASES["box_nms"][0][0])
    got = mx.nd.contrib.cvops_box_nms(data, **option)
    want = mx.nd.contrib.box_nms(data, **option)
    np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
def test_arrays_of_mx_np(mx, operators, op, mode):
    inputs, options = arrays(mx, op)
    npx_name = next(o.npx_name for o in operators.OPERATORS if o.name == op)
    net = network(mx, lambda F, *args: getattr(F.npx, f"cvops_{npx_name}")(*args, **options), mode)
    out = net(*(x.as_np_ndarray() for x in inputs))
    for got, want in zip(
        out if isinstance(out, (list, tuple)) else [out],
        as_list(function(mx.nd, op)(*inputs, **options)),
    ):
        assert isinstance(got, mx.np.ndarray)
        np.testing.assert_array_equal(got.asnumpy(), want)


@pytest.mark.parametrize("op", OPS)
def test_inputs_by_name_and_options_by_position(mx, operators, op):
    inputs, options = arrays(mx, op)
    spec = next(o for o in operators.OPERATORS if o.name == op)
    want = as_list(function(mx.nd, op)(*inputs, **options))
    by_name = function(mx.nd, op)(**dict(zip(spec.inputs, inputs)), **options)
    by_position = function(mx.nd, op)(
        *inputs, *(options.get(name, mx.base._Null) for name in spec.options)
    )
    for out in (by_name, by_position):
        for got, expected in zip(as_list(out), want):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("F", ["nd", "sym"])
@pytest.mark.parametrize("op", MXNETS)
def test_the_signature_is_mxnets(mx, operators, op, F):
    ours = inspect.signature(function(getattr(mx, F), op)).parameters
    mxnets = inspect.signature(theirs(getattr(mx, F), op)).parameters
    assert set(mxnets) - set(ours) == {"kwargs"}
    names = [name for name in mxnets if name not in ("kwargs", "out", "name", "attr")]
    assert [name for name in ours if name in names] == names


def test_out_is_written(mx, operators):
    inputs, options = arrays(mx, "box_iou")
    out = mx.nd.zeros((3, 4, 2, 5))
    assert function(mx.nd, "box_iou")(*inputs, out=out, **options) is out
    np.testing.assert_array_equal(out.asnumpy(), contrib.box_iou(*inputs, **options).asnumpy())


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("box_nms", CASES["box_nms"][0], CASES["box_nms"][1]),
        ("box_iou", [boxes(4), ANCHORS[0, :4]], {}),
        ("ROIPooling", [floats(1, 2, 8, 8), [[0, 0, 0, 7, 5]]], {"pooled_size": (8, 8)}),
    ],
)
def test_out_may_be_an_input(mx, operators, op, inputs, options):
    """Which MXNet's own take without a word, and give something else for."""
    options = {**options, "spatial_scale": 1} if op == "ROIPooling" else options
    inputs = [mx.nd.array(x) for x in inputs]
    want = function(mx.nd, op)(*inputs, **options).asnumpy()
    function(mx.nd, op)(*inputs, out=inputs[0], **options)
    np.testing.assert_array_equal(inputs[0].asnumpy(), want)


@pytest.mark.parametrize("given", ["True", "true", "TRUE", "1", True, 1])
def test_the_ways_to_say_true(mx, operators, given):
    inputs, options = arrays(mx, "box_nms")
    np.testing.assert_array_equal(
        contrib.box_nms(*inputs, **options, force_suppress=True).asnumpy(),
        function(mx.nd, "box_nms")(*inputs, **options, force_suppress=given).asnumpy(),
    )


def test_slices_of_arrays(mx, operators):
    data = mx.nd.array(np.concatenate([floats(5, 7, 2), boxes(5, 7)], -1))[1:4]
    np.testing.assert_array_equal(
        mx.nd.contrib.cvops_box_nms(data).asnumpy(),
        contrib.box_nms(data.asnumpy()),
    )


def test_empty_arrays(mx, operators):
    with mx.util.np_shape(True):
        iou = mx.nd.contrib.cvops_box_iou(mx.nd.zeros((0, 4)), mx.nd.zeros((3, 4)))
        assert iou.shape == (0, 3)
        kept = mx.nd.contrib.cvops_box_nms(mx.nd.zeros((2, 0, 6)))
        assert kept.shape == (2, 0, 6)
        pooled = mx.nd.contrib.cvops_ROIPooling(
            mx.nd.ones((1, 2, 4, 4)), mx.nd.zeros((0, 5)), pooled_size=(2, 2), spatial_scale=1
        )
        assert pooled.shape == (0, 2, 2, 2)
        target = mx.nd.contrib.cvops_MultiBoxTarget(
            mx.nd.array(ANCHORS), mx.nd.zeros((2, 0, 5)), mx.nd.zeros((2, 3, 40))
        )
        assert (target[2].asnumpy() == -1).all()


def test_results_without_elements_come_at_once(mx, operators):
    """A loop over the other axes would take a minute."""
    many, zeros, contrib_ops = 2**30, mx.nd.zeros, mx.nd.contrib
    with mx.util.np_shape(True):
        data = zeros((many, 0, 6))
        data.attach_grad()
        begin = time.process_time()
        with mx.autograd.record():
            kept = contrib_ops.cvops_box_nms(data)
        kept.backward()
        results = [
            (kept, (many, 0, 6)),
            (data.grad, (many, 0, 6)),
            (contrib_ops.cvops_box_iou(zeros((many, 0, 4)), zeros((3, 4))), (many, 0, 3)),
            (
                contrib_ops.cvops_MultiBoxDetection(
                    zeros((many, 3, 0)), zeros((many, 0)), zeros((1, 0, 4))
                ),
                (many, 0, 6),
            ),
            (
                contrib_ops.cvops_multiclass_nms(zeros((0, 2**20, 4)), zeros((0, 8, 2**20)))[0],
                (0, 1000, 6),
            ),
            (
                contrib_ops.cvops_ROIPooling(
                    zeros((many, 0, 1, 1)), zeros((9, 5)), pooled_size=(7, 7), spatial_scale=1
                ),
                (9, 0, 7, 7),
            ),
            (contrib_ops.cvops_bilinear_upsample(zeros((many, 0, 2, 2)), scale=2), (many, 0, 4, 4)),
        ]
        mx.nd.waitall()
        assert time.process_time() - begin < 5
        assert [x.shape for x, _ in results] == [shape for _, shape in results]


# --- gradients ------------------------------------------------------------------------------------


def pooling(F, op, x, rois, uses):
    """A sum of ``uses`` poolings of one tensor."""
    out = 0
    for i in range(uses):
        pool = F.ROIPooling if op == "theirs" else F.contrib.cvops_ROIPooling
        out = out + pool(x, rois, pooled_size=(2, 2), spatial_scale=1 / (1 + i)) * (i + 1)
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("uses", [1, 2, 7, 8, 9, 20])
@pytest.mark.parametrize("direct", [True, False], ids=["of an input", "of an inner tensor"])
def test_a_tensor_used_many_times(mx, operators, uses, grad_req, mode, direct):
    """From 8 uses on MXNet sums the gradients of a static graph in place."""
    data, rois = floats(1, 2, 8, 8), mx.nd.array([[0, 0, 0, 7, 7], [0, 2, 2, 5, 5]])

    def gradient(op, mode):
        def forward(F, x, rois):
            return pooling(F, op, x if direct else x * 2, rois, uses)

        net, x = network(mx, forward, mode), mx.nd.array(data)
        x.attach_grad(grad_req)
        for _ in range(2):
            with mx.autograd.record():
                out = net(x, rois)
            out.backward()
        return x.grad.asnumpy()

    np.testing.assert_allclose(
        gradient("ours", mode), gradient("theirs", "eager"), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", MXNETS)
def test_gradients_are_mxnets(mx, operators, op, mode):
    def gradients(call, grad_req):
        inputs, options = arrays(mx, op)
        net = network(mx, lambda F, *args: call(F, op)(*args, **options), mode)
        for x in inputs:
            x.attach_grad(grad_req)
            x.grad[:] = 7
        with mx.autograd.record():
            out = net(*inputs)
            out = out if isinstance(out, (list, tuple)) else [out]
            loss = sum((x * mx.nd.arange(x.size).reshape(x.shape)).sum() for x in out)
        loss.backward()
        return [x.grad.asnumpy() for x in inputs]

    want = gradients(theirs, "write")
    if op == "MultiBoxTarget":  # MXNet's own gives back memory as it finds it
        want = [np.zeros_like(x) for x in want]
    for got, expected in zip(gradients(function, "write"), want):
        np.testing.assert_array_equal(got, expected)
    # MXNet's own is no measure here: its box_nms overwrites what it should add to.
    for got, expected in zip(gradients(function, "add"), want):
        np.testing.assert_array_equal(got, expected + np.float32(7))


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_through_ops_without_one(mx, operators, mode):
    """What depends on the targets alone gets zeros, what does not its own gradient."""
    inputs, _ = arrays(mx, "MultiBoxTarget")
    cls_pred = inputs[2]
    cls_pred.attach_grad("add")

    def forward(F, anchor, label, cls_pred):
        target = F.contrib.cvops_MultiBoxTarget(anchor, label, cls_pred)
        return (cls_pred * 3).sum() + target[0].sum()

    net = network(mx, forward, mode)
    for _ in range(2):
        with mx.autograd.record():
            loss = net(*inputs)
        loss.backward()
    assert (cls_pred.grad.asnumpy() == 6).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_bilinear_upsample(mx, operators, mode):
    inputs, options = arrays(mx, "bilinear_upsample")
    net = network(mx, lambda F, x: F.contrib.cvops_bilinear_upsample(x, **options), mode)
    weights = mx.nd.array(floats(2, 3, 16, 20))
    inputs[0].attach_grad("add")
    inputs[0].grad[:] = 7
    with mx.autograd.record():
        loss = (net(*inputs) * weights).sum()
    loss.backward()
    np.testing.assert_array_equal(
        inputs[0].grad.asnumpy(),
        cvops.bilinear_upsample_backward(weights.asnumpy(), **options) + np.float32(7),
    )


# --- graphs ---------------------------------------------------------------------------------------


def test_shapes_and_types_are_inferred(mx, operators):
    out = mx.sym.contrib.cvops_MultiBoxTarget(
        anchor=mx.sym.var("a"), label=mx.sym.var("l"), cls_pred=mx.sym.var("p")
    )
    _, shapes, _ = out.infer_shape(a=(1, 40, 4), l=(3, 4, 5), p=(3, 2, 40))
    assert shapes == [(3, 160), (3, 160), (3, 40)]
    types, _, _ = out.infer_type(a=np.float32)
    assert types == [np.float32] * 3


@pytest.mark.parametrize("op", MXNETS)
def test_shapes_that_are_not_known(mx, operators, op):
    """As with MXNet's own, some of which refuse to say."""
    inputs, options = arrays(mx, op)

    def shapes(call, known):
        symbol = call(mx.sym, op)(*(mx.sym.var(f"x{i}") for i in range(len(inputs))), **options)
        try:
            return symbol.infer_shape_partial(**known)
        except mx.MXNetError:
            return "refused"

    for known in ({}, *({f"x{i}": x.shape} for i, x in enumerate(inputs))):
        assert shapes(function, known) == shapes(theirs, known)


def test_a_shape_that_comes_from_a_layer_not_yet_initialised(mx, operators):
    class Net(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.before = mx.gluon.nn.Conv2D(3, 1)
                self.after = mx.gluon.nn.Dense(2)

        def hybrid_forward(self, F, x):
            x = F.contrib.cvops_bilinear_upsample(self.before(x), scale=3)
            return self.after(F.concat(x.flatten(), F.contrib.cvops_MultiBoxPrior(x).flatten()))

    net = Net()
    net.initialize()
    net.hybridize()
    assert net(mx.nd.ones((1, 2, 2, 2))).shape == (1, 2)
    assert net.after.weight.shape == (2, 3 * 36 + 36 * 4)


def test_an_input_that_is_not_given_is_a_variable(mx, operators):
    out = mx.sym.contrib.cvops_ROIPooling(
        mx.sym.var("x"), pooled_size=(2, 2), spatial_scale=1, name="pool"
    )
    assert out.list_arguments() == ["x", "pool_rois"]
    assert out.list_outputs() == ["pool_output"]


def test_names_in_a_block_have_its_prefix_once(mx, operators):
    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return F.contrib.cvops_MultiBoxPrior(x)

    net = Net(prefix="ssd_")
    net.hybridize()
    net(mx.nd.zeros((1, 1, 2, 2)))
    assert net._cached_graph[1].list_outputs() == ["ssd_multiboxprior0_output"]


@pytest.mark.parametrize("op", OPS)
def test_export_and_import(mx, operators, op, tmp_path):
    inputs, options = arrays(mx, op)
    net = network(mx, lambda F, *args: function(F, op)(*args, **options), "hybridized")
    want = as_list(net(*inputs))
    net.export(str(tmp_path / "net"))
    names = ["data"] if len(inputs) == 1 else [f"data{i}" for i in range(len(inputs))]
    loaded = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), names)
    loaded.hybridize(static_alloc=True)
    for got, expected in zip(as_list(loaded(*inputs)), want):
        np.testing.assert_array_equal(got, expected)


def test_the_module_api(mx, operators):
    data = mx.sym.var("data")
    out = mx.sym.contrib.cvops_box_nms(data, overlap_thresh=0.3, id_index=0)
    inputs, _ = arrays(mx, "box_nms")
    executor = out.bind(mx.cpu(), {"data": inputs[0]})
    np.testing.assert_array_equal(
        executor.forward()[0].asnumpy(),
        contrib.box_nms(inputs[0], overlap_thresh=0.3, id_index=0).asnumpy(),
    )


# --- refusals -------------------------------------------------------------------------------------

REFUSED = [
    (
        "MultiBoxPrior",
        [(3, 4)],
        {},
        r"cvops_MultiBoxPrior: data: expected shape \(N, C, H, W, \.\.\.\)",
    ),
    (
        "MultiBoxPrior",
        [(1, 1, 2, 2)],
        {"offsets": (2, 0)},
        r"offsets: .* in \[0, 1\], got \(2, 0\)",
    ),
    (
        "MultiBoxPrior",
        [(1, 1, 2, 2)],
        {"sizes": "small"},
        "sizes: expected one number or more, got",
    ),
    *(
        ("MultiBoxPrior", [(1, 1, 2, 2)], {"sizes": text}, "sizes: expected one number or more")
        for text in ("", "[]", "(1, 2", "(1,,2)", "(1, 2,,)", ",", "1e400", "1e39", "nan", "0x1")
    ),
    ("MultiBoxPrior", [(1, 1, 2, 2)], {"clip": 3}, "clip: expected True or False, got 3"),
    (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 5), (2, 3, 8)],
        {},
        r"label: expected shape \(B, G, W\), got",
    ),
    (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 3, 5), (2, 3, 9)],
        {},
        r"cls_pred: expected shape \(B, C, A\) with A = 8 as in anchor, got \(2, 3, 9\)",
    ),
    ("MultiBoxTarget", [(1, 8, 4), (2, 3, 4), (2, 3, 8)], {}, "label: expected rows of 5 or more"),
    (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 3, 5), (2, 3, 8)],
        {"variances": (1, 2)},
        r"variances: expected 4 numbers, got \(1, 2\)",
    ),
    (
        "MultiBoxDetection",
        [(2, 3, 8), (2, 30), (1, 8, 4)],
        {},
        r"loc_pred: expected shape \(B, 32\), got \(2, 30\)",
    ),
    (
        "MultiBoxDetection",
        [(2, 3, 8), (2, 32), (1, 8, 4)],
        {"nms_topk": 1.5},
        "nms_topk: .* integer",
    ),
    ("box_iou", [(3, 5), (3, 4)], {}, r"lhs: expected shape \(\.\.\., 4\), got \(3, 5\)"),
    (
        "box_iou",
        [(3, 4), (3, 4)],
        {"format": "middle"},
        "format: .* 'corner' or 'center', got middle",
    ),
    ("box_nms", [(7, 6)], {"score_index": 2}, "score_index: .* outside of the coordinates, got 2"),
    ("box_nms", [(7, 6)], {"topk": "many"}, "topk: expected an integer, got many"),
    ("ROIPooling", [(1, 2, 3, 3), (4, 5)], {"spatial_scale": 1}, "pooled_size: is required"),
    (
        "ROIPooling",
        [(1, 2, 3, 3), (4, 5)],
        {"pooled_size": (2, 2), "spatial_scale": 2},
        r"spatial_scale: expected a number in \[0, 1\], got 2",
    ),
    (
        "ROIPooling",
        [(1, 2, 3, 3), (4, 4)],
        {"pooled_size": (2, 2), "spatial_scale": 1},
        r"rois: expected shape \(R, 5\), got \(4, 4\)",
    ),
]


@pytest.mark.parametrize("mode", ["eager", "hybridized"])
@pytest.mark.parametrize(("op", "shapes", "options", "message"), REFUSED)
def test_refused_with_the_argument_and_its_value(mx, operators, op, shapes, options, message, mode):
    net = network(mx, lambda F, *args: function(F, op)(*args, **options), mode)
    with pytest.raises(mx.MXNetError, match=message):
        net(*(mx.nd.zeros(shape) for shape in shapes))


def test_an_error_tells_of_itself_only(mx, operators):
    for rows in (5, 6):
        with pytest.raises(mx.MXNetError) as error:
            mx.nd.contrib.cvops_box_iou(mx.nd.zeros((3, rows)), mx.nd.zeros((3, 4)))
        assert str(error.value).count("lhs: expected") == 1
        assert f"got (3, {rows})" in str(error.value)


def test_errors_of_threads_are_their_own(mx, operators):
    wrong = []

    def work(rows):
        bad, box = mx.nd.zeros((3, rows)), mx.nd.zeros((3, 4))
        for _ in range(300):
            try:
                mx.nd.contrib.cvops_box_iou(bad, box)
            except mx.MXNetError as error:
                if str(error).count("cvops_box_iou: ") != 1 or f"got (3, {rows})" not in str(error):
                    wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(rows,)) for rows in range(5, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_half_padding_is_refused(mx, operators):
    label = mx.nd.array([[[0, 0, 0, 1, 1], [-1, 0, 0, 1, 1]]])
    out = mx.nd.contrib.cvops_MultiBoxTarget(mx.nd.array(ANCHORS), label, mx.nd.zeros((1, 2, 40)))
    with pytest.raises(mx.MXNetError, match=r"label: expected corners of -1 .* image 0, row 1"):
        out[0].wait_to_read()


def test_other_types_are_refused_by_name(mx, operators):
    box = mx.nd.zeros((3, 4))
    with pytest.raises(mx.MXNetError, match="cvops_box_iou: rhs: expected float32, got float64"):
        mx.nd.contrib.cvops_box_iou(box, box.astype("float64"))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (["box"], {}, "misses the argument 'rhs'"),
        (["box", [1, 2, 3, 4]], {}, "rhs: expected an NDArray, got list"),
        (["box", "box"], {"formt": "corner"}, "unexpected argument 'formt'"),
        (["box", "box"], {"lhs": "box"}, "more than one value for 'lhs'"),
        (["box", "box", "corner", 1], {}, "at most 3 arguments, got 4"),
    ],
)
def test_python_refuses_what_is_no_call(mx, operators, args, kwargs, message):
    box = mx.nd.zeros((3, 4))
    put = lambda x: box if isinstance(x, str) and x == "box" else x  # noqa: E731
    with pytest.raises(TypeError, match=message):
        mx.nd.contrib.cvops_box_iou(*map(put, args), **{k: put(v) for k, v in kwargs.items()})


# --- in other processes and threads ---------------------------------------------------------------


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_naive_engine(operators):
    done = python(
        """
import cvops.mxnet
from cvops._mxnet import mxnet
mx = mxnet()
boxes = mx.nd.array([[0, 0, 2, 2], [1, 1, 3, 3]])
boxes.attach_grad()
with mx.autograd.record():
    iou = mx.nd.contrib.cvops_box_iou(boxes, boxes)
iou.backward()
print(iou.asnumpy().tolist()[0], boxes.grad.asnumpy().any())
""",
        MXNET_ENGINE_TYPE="NaiveEngine",
    )
    assert done.stdout == f"[1.0, {float(np.float32(1) / np.float32(7))}] False\n", done.stderr


class Labelled:
    """A data set whose items are made by an operator, in the loader's workers."""

    def __init__(self, mx):
        self.mx = mx

    def __len__(self):
        return 16

    def __getitem__(self, i):
        box = self.mx.nd.array([[0, 0, i + 1, 1]])
        return self.mx.nd.contrib.cvops_box_iou(box, self.mx.nd.array([[0, 0, 1, 1]]))


@pytest.mark.parametrize(("workers", "threads"), [(2, True), (2, False), (0, False)])
def test_a_data_loader(mx, operators, workers, threads):
    loader = mx.gluon.data.DataLoader(
        Labelled(mx), batch_size=4, num_workers=workers, thread_pool=threads
    )
    got = np.concatenate([batch.asnumpy().ravel() for batch in loader])
    np.testing.assert_array_equal(got, np.float32(1) / np.arange(1, 17, dtype=np.float32))


def test_without_a_compiler_it_says_what_to_do(operators, tmp_path):
    done = python(
        """
import numpy as np, cvops
box = np.array([[0, 0, 1, 1]], np.float32)
assert cvops.box_iou(box, box) == 1
from cvops._mxnet import mxnet
assert cvops.box_iou(mxnet().nd.array(box), mxnet().nd.array(box)).asscalar() == 1
try:
    import cvops.mxnet
except ImportError as error:
    print(error)
""",
        CXX="/nowhere/g++",
        CVOPS_CACHE_DIR=str(tmp_path),
    )
    assert "apt-get install g++" in done.stdout, done.stderr
    assert "take MXNet's arrays without it" in done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CXX": 'g++ "'}, "CXX=.* is not a command: No closing quotation"),
        ({"CVOPS_CACHE_DIR": "{file}/x"}, "cannot be written .* CVOPS_CACHE_DIR"),
    ],
)
def test_an_environment_it_cannot_build_in(operators, tmp_path, environment, message):
    file = tmp_path / "file"
    file.touch()
    environment = {key: value.format(file=file) for key, value in environment.items()}
    done = python("import cvops.mxnet", **{"CVOPS_CACHE_DIR": str(tmp_path), **environment})
    assert re.search(f"ImportError: .*{message}", done.stderr), done.stderr


def test_an_exported_model_needs_the_import(mx, operators, tmp_path):
    net = network(mx, lambda F, x: F.contrib.cvops_MultiBoxPrior(x), "hybridized")
    net(mx.nd.zeros((1, 1, 2, 2)))
    net.export(str(tmp_path / "net"))
    code = f"""
from cvops._mxnet import mxnet
mx = mxnet()
{{}}
print(mx.sym.load({str(tmp_path / "net-symbol.json")!r}).list_outputs())
"""
    done = python(code.format(""))
    assert "_contrib_cvops_MultiBoxPrior" in done.stderr, done.stdout
    done = python(code.format("import cvops.mxnet"))
    assert done.returncode == 0, done.stderr
