"""The operators in MXNet's graphs: inference of shapes, names, export."""

import numpy as np
import pytest
from operator_cases import MXNETS, OPS, arrays, as_list, network, ours, theirs

from cvops import contrib

# --- inference ------------------------------------------------------------------------------------


def test_shapes_and_types_of_outputs_are_inferred(mx, operators):
    out = mx.sym.contrib.cvops_MultiBoxTarget(
        anchor=mx.sym.var("a"), label=mx.sym.var("l"), cls_pred=mx.sym.var("p")
    )
    _, shapes, _ = out.infer_shape(a=(1, 40, 4), l=(3, 4, 5), p=(3, 2, 40))
    assert shapes == [(3, 160), (3, 160), (3, 40)]
    types, _, _ = out.infer_type(a=np.float32)
    assert types == [np.float32] * 3


@pytest.mark.parametrize("op", MXNETS)
def test_partial_shape_inference_equals_that_of_mxnets_operator(mx, operators, op):
    """Some of MXNet's operators raise an error for unknown shapes."""
    inputs, options = arrays(mx, op)

    def shapes(call, known):
        symbol = call(mx.sym, op)(*(mx.sym.var(f"x{i}") for i in range(len(inputs))), **options)
        try:
            return symbol.infer_shape_partial(**known)
        except mx.MXNetError:
            return "error"

    for known in ({}, *({f"x{i}": x.shape} for i, x in enumerate(inputs))):
        assert shapes(ours, known) == shapes(theirs, known)


def test_shape_is_inferred_through_a_layer_with_deferred_initialization(mx, operators):
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


# --- names ----------------------------------------------------------------------------------------


def test_missing_input_of_a_symbol_becomes_a_variable(mx, operators):
    out = mx.sym.contrib.cvops_ROIPooling(
        mx.sym.var("x"), pooled_size=(2, 2), spatial_scale=1, name="pool"
    )
    assert out.list_arguments() == ["x", "pool_rois"]
    assert out.list_outputs() == ["pool_output"]


def test_output_name_in_a_block_has_its_prefix_once(mx, operators):
    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return F.contrib.cvops_MultiBoxPrior(x)

    net = Net(prefix="ssd_")
    net.hybridize()
    net(mx.nd.zeros((1, 1, 2, 2)))
    assert net._cached_graph[1].list_outputs() == ["ssd_multiboxprior0_output"]


# --- execution ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_exported_network_gives_the_same_result_after_import(mx, operators, op, tmp_path):
    inputs, options = arrays(mx, op)
    net = network(mx, lambda F, *args: ours(F, op)(*args, **options), "hybridized")
    want = as_list(net(*inputs))
    net.export(str(tmp_path / "net"))
    names = ["data"] if len(inputs) == 1 else [f"data{i}" for i in range(len(inputs))]
    loaded = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), names)
    loaded.hybridize(static_alloc=True)
    for got, expected in zip(as_list(loaded(*inputs)), want):
        np.testing.assert_array_equal(got, expected)


def test_bound_symbol_equals_the_array_function(mx, operators):
    data = mx.sym.var("data")
    out = mx.sym.contrib.cvops_box_nms(data, overlap_thresh=0.3, id_index=0)
    inputs, _ = arrays(mx, "box_nms")
    executor = out.bind(mx.cpu(), {"data": inputs[0]})
    np.testing.assert_array_equal(
        executor.forward()[0].asnumpy(),
        contrib.box_nms(inputs[0], overlap_thresh=0.3, id_index=0).asnumpy(),
    )
