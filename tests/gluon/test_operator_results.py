"""Results of the operators in MXNet, against MXNet's operators and the functions for arrays."""

import inspect
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
    array_function,
    arrays,
    as_list,
    boxes,
    floats,
    network,
    option_names,
    ours,
    outputs,
    theirs,
)

from cvops import contrib

# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
def test_operator_equals_the_array_function(mx, operators, op, mode):
    inputs, options = arrays(mx, op)
    net = network(mx, lambda F, *args: ours(F, op)(*args, **options), mode)
    expected = as_list(array_function(op)(*inputs, **options))
    for _ in range(2):
        for got, want in zip(as_list(net(*inputs)), expected):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", MXNETS)
def test_operator_equals_mxnets_operator(mx, operators, op):
    inputs, options = arrays(mx, op)
    got = as_list(ours(mx.nd, op)(*inputs, **options))
    want = as_list(theirs(mx.nd, op)(*inputs, **options))
    assert len(got) == len(want)
    for our_output, their_output in zip(got, want):
        # The logarithm of the targets may differ by 2 units in the last place.
        tolerance = 3e-7 if op.startswith("Multi") else 0
        np.testing.assert_allclose(our_output, their_output, rtol=tolerance)


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
    ids=option_names,
)
def test_box_nms_with_one_option_equals_mxnets_operator(mx, operators, option):
    data = array(mx, CASES["box_nms"][0][0])
    got = mx.nd.contrib.cvops_box_nms(data, **option)
    want = mx.nd.contrib.box_nms(data, **option)
    np.testing.assert_array_equal(got.asnumpy(), want.asnumpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
def test_npx_operator_equals_the_nd_operator(mx, operators, op, mode):
    inputs, options = arrays(mx, op)
    npx_name = next(o.npx_name for o in operators.OPERATORS if o.name == op)
    net = network(mx, lambda F, *args: getattr(F.npx, f"cvops_{npx_name}")(*args, **options), mode)
    out = net(*(x.as_np_ndarray() for x in inputs))
    for got, want in zip(outputs(out), as_list(ours(mx.nd, op)(*inputs, **options))):
        assert isinstance(got, mx.np.ndarray)
        np.testing.assert_array_equal(got.asnumpy(), want)


def test_array_slice_gives_the_result_of_its_copy(mx, operators):
    data = mx.nd.array(np.concatenate([floats(5, 7, 2), boxes(5, 7)], -1))[1:4]
    np.testing.assert_array_equal(
        mx.nd.contrib.cvops_box_nms(data).asnumpy(),
        contrib.box_nms(data.asnumpy()),
    )


# --- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_inputs_by_name_and_options_by_position_give_the_same_result(mx, operators, op):
    inputs, options = arrays(mx, op)
    spec = next(o for o in operators.OPERATORS if o.name == op)
    want = as_list(ours(mx.nd, op)(*inputs, **options))
    by_name = ours(mx.nd, op)(**dict(zip(spec.inputs, inputs)), **options)
    absent = [None] * (len(spec.inputs) - len(inputs))  # optional inputs
    by_position = ours(mx.nd, op)(
        *inputs, *absent, *(options.get(name, mx.base._Null) for name in spec.options)
    )
    for out in (by_name, by_position):
        for got, expected in zip(as_list(out), want):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("F", ["nd", "sym"])
@pytest.mark.parametrize("op", MXNETS)
def test_signature_equals_that_of_mxnets_operator(mx, operators, op, F):
    our_names = inspect.signature(ours(getattr(mx, F), op)).parameters
    their_names = inspect.signature(theirs(getattr(mx, F), op)).parameters
    assert set(their_names) - set(our_names) == {"kwargs"}
    names = [name for name in their_names if name not in ("kwargs", "out", "name", "attr")]
    assert [name for name in our_names if name in names] == names


def test_out_argument_gets_the_result(mx, operators):
    inputs, options = arrays(mx, "box_iou")
    out = mx.nd.zeros((3, 4, 2, 5))
    assert ours(mx.nd, "box_iou")(*inputs, out=out, **options) is out
    np.testing.assert_array_equal(out.asnumpy(), contrib.box_iou(*inputs, **options).asnumpy())


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("box_nms", CASES["box_nms"][0], CASES["box_nms"][1]),
        ("box_iou", [boxes(4), ANCHORS[0, :4]], {}),
        ("ROIPooling", [floats(1, 2, 8, 8), [[0, 0, 0, 7, 5]]], {"pooled_size": (8, 8)}),
    ],
    ids=["box_nms", "box_iou", "ROIPooling"],
)
def test_out_argument_may_be_an_input(mx, operators, op, inputs, options):
    """MXNet's operators accept this too, but give another result."""
    options = {**options, "spatial_scale": 1} if op == "ROIPooling" else options
    inputs = [mx.nd.array(x) for x in inputs]
    want = ours(mx.nd, op)(*inputs, **options).asnumpy()
    ours(mx.nd, op)(*inputs, out=inputs[0], **options)
    np.testing.assert_array_equal(inputs[0].asnumpy(), want)


@pytest.mark.parametrize(
    "value",
    ["True", "true", "TRUE", "1", True, 1],
    ids=["True text", "true text", "TRUE text", "1 text", "True", "1"],
)
def test_boolean_option_accepts_each_form_of_true(mx, operators, value):
    inputs, options = arrays(mx, "box_nms")
    np.testing.assert_array_equal(
        contrib.box_nms(*inputs, **options, force_suppress=True).asnumpy(),
        ours(mx.nd, "box_nms")(*inputs, **options, force_suppress=value).asnumpy(),
    )


# --- empty arrays ---------------------------------------------------------------------------------


def test_empty_inputs_give_outputs_of_the_right_shape(mx, operators):
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


def test_outputs_without_elements_need_no_loop_over_the_other_axes(mx, operators):
    """Such a loop would take a minute."""
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
