"""convert_symbol: symbol files with MXNet's operators, and with ours."""

import json

import numpy as np
import pytest
from operator_cases import floats

import cvops
from cvops import cli


@pytest.fixture
def model(mx):
    """A symbol with two of MXNet's operators, one with a gradient and used twice; its inputs."""
    x, rois = mx.sym.var("x"), mx.sym.var("rois")
    x = mx.sym.Activation(x, act_type="relu")
    pools = [
        mx.sym.ROIPooling(x, rois, pooled_size=(2, 2), spatial_scale=scale, name=f"pool{scale}")
        for scale in (0.5, 1)
    ]
    anchors = mx.sym.contrib.MultiBoxPrior(x, sizes="(0.3, 0.5)")
    symbol = mx.sym.Group([pools[0] + pools[1] * 2, anchors])
    return symbol, {"x": floats(1, 2, 6, 6), "rois": np.array([[0, 0, 0, 5, 5], [0, 1, 1, 4, 3]])}


def run(mx, symbol, inputs):
    """Return the results, and the gradient of x."""
    args = {k: mx.nd.array(v) for k, v in inputs.items()}
    grads = {"x": mx.nd.zeros(inputs["x"].shape)}
    executor = symbol.bind(mx.cpu(), args, grads, "add")
    for _ in range(2):
        out = executor.forward(is_train=True)
        executor.backward([mx.nd.ones(o.shape) for o in out])
    return [o.asnumpy() for o in out], grads["x"].asnumpy()


def test_converted_symbol_gives_the_same_results_and_converts_back(mx, operators, model):
    symbol, inputs = model
    text = symbol.tojson()
    ours = operators.convert_symbol(text)
    assert ours.count('"_contrib_cvops_') == 3
    assert '"ROIPooling"' not in ours
    converted = mx.sym.load_json(ours)
    assert converted.list_outputs() == symbol.list_outputs()
    assert converted.list_arguments() == symbol.list_arguments()
    got, want = run(mx, converted, inputs), run(mx, symbol, inputs)
    for a, b in zip([*got[0], got[1]], [*want[0], want[1]]):
        np.testing.assert_array_equal(a, b)
    back = json.loads(operators.convert_symbol(ours, to="mxnet"))
    assert back == json.loads(text)


def test_operator_that_mxnet_has_for_gpus_only_is_converted(mx, operators):
    names = ["rois", "gt_masks", "matches", "cls_targets"]
    options = {"num_classes": 3, "mask_size": (4, 5)}
    symbol = mx.sym.contrib.cvops_mrcnn_mask_target(*map(mx.sym.var, names), **options)
    theirs = json.loads(operators.convert_symbol(symbol.tojson(), to="mxnet"))
    ops = ["null"] * 4 + ["_contrib_mrcnn_mask_target"]
    assert [node["op"] for node in theirs["nodes"]] == ops
    ours = mx.sym.load_json(operators.convert_symbol(json.dumps(theirs)))
    assert ours.list_arguments() == names
    shapes = dict(zip(names, [(2, 6, 4), (2, 3, 9, 9), (2, 6), (2, 6)]))
    assert ours.infer_shape(**shapes)[1] == [(2, 6, 3, 4, 5)] * 2


def test_symbol_without_our_operators_is_unchanged(mx, operators):
    text = (mx.sym.var("x") + 1).tojson()
    assert operators.convert_symbol(text) == text
    assert operators.convert_symbol(text, to="mxnet") == text


def test_file_of_an_older_mxnet_is_converted(operators):
    """The attributes of a node are "param" or "attr", and there is no version."""
    text = json.dumps(
        {
            "nodes": [
                {"op": "null", "param": {}, "name": "x", "inputs": []},
                {
                    "op": "_contrib_MultiBoxPrior",
                    "param": {"sizes": "(0.5,)"},
                    "name": "prior",
                    "inputs": [[0, 0]],
                },
            ],
            "arg_nodes": [0],
            "heads": [[1, 0]],
        }
    )
    nodes = json.loads(operators.convert_symbol(text))["nodes"]
    assert [node["op"] for node in nodes] == ["null", "BlockGrad", "_contrib_cvops_MultiBoxPrior"]
    assert nodes[2]["inputs"] == [[1, 0, 0]]
    assert nodes[2]["param"] == {"sizes": "(0.5,)"}


def test_body_of_a_loop_is_converted(mx, operators):
    """The body of a control flow operator is a subgraph."""
    boxes = mx.sym.var("boxes")
    out, _ = mx.sym.contrib.foreach(
        lambda x, state: (mx.sym.contrib.box_iou(x, x), state), boxes, []
    )
    ours = operators.convert_symbol(out.tojson())
    assert '"_contrib_cvops_box_iou"' in ours
    data = {"boxes": mx.nd.array([[[0, 0, 1, 1], [0, 0, 1, 2]]] * 3)}
    got = mx.sym.load_json(ours).bind(mx.cpu(), data).forward()[0].asnumpy()
    np.testing.assert_array_equal(got, out.bind(mx.cpu(), data).forward()[0].asnumpy())


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"nodes": [{"name": "x"}]}'])
def test_text_that_is_not_a_symbol_is_refused(operators, text):
    with pytest.raises(ValueError, match="text: expected the JSON of a symbol"):
        operators.convert_symbol(text)


def places(value):
    """Yield the container and the key of each value inside a JSON value."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@pytest.mark.parametrize("odd", [None, -1, 2**70, "x", [], {}, [[9, 0, 0]], True, 0.5], ids=repr)
@pytest.mark.parametrize("to", ["cvops", "mxnet"])
def test_symbol_with_an_odd_value_is_converted_or_refused(mx, operators, to, odd):
    x = mx.sym.var("x")
    text = mx.sym.contrib.box_iou(x, mx.sym.contrib.MultiBoxPrior(x), format="center").tojson()
    graph = json.loads(operators.convert_symbol(text) if to == "mxnet" else text)
    refused = 0
    for container, key in places(graph):
        before, container[key] = container[key], odd
        try:
            assert json.loads(operators.convert_symbol(json.dumps(graph), to))
        except ValueError:  # any other error is a failure
            refused += 1
        container[key] = before
    assert refused > 10


def test_symbol_of_deep_nesting_is_refused(operators):
    with pytest.raises(ValueError, match="text: expected the JSON of a symbol"):
        operators.convert_symbol("[" * 100_000)


def test_unknown_direction_is_refused(operators):
    with pytest.raises(ValueError, match="to: expected 'cvops' or 'mxnet', got 'onnx'"):
        operators.convert_symbol("{}", to="onnx")


def test_operator_without_a_counterpart_in_mxnet_is_refused(mx, operators):
    text = mx.sym.contrib.cvops_bilinear_upsample(mx.sym.var("x"), scale=2).tojson()
    with pytest.raises(ValueError, match="no operator for '_contrib_cvops_bilinear_upsample'"):
        operators.convert_symbol(text, to="mxnet")


def test_option_without_a_counterpart_in_mxnet_is_refused(mx, operators):
    box = mx.sym.var("box")
    for kind in ("iou", "giou"):
        out = mx.sym.contrib.cvops_box_iou(box, box, kind=kind)
        if kind == "iou":
            text = operators.convert_symbol(out.tojson(), to="mxnet")
            assert '"_contrib_box_iou"' in text
            assert mx.sym.load_json(text).infer_shape(box=(3, 4))[1] == [(3, 3)]
        else:
            with pytest.raises(ValueError, match="text: MXNet has no kind 'giou' of '_contrib_cv"):
                operators.convert_symbol(out.tojson(), to="mxnet")


def test_saved_model_keeps_an_option_that_mxnet_lacks(mx, operators, tmp_path):
    with operators.installed():
        box = mx.sym.var("box")
        both = [mx.sym.contrib.box_iou(box, box, kind=kind) for kind in ("iou", "ciou")]
        mx.sym.Group(both).save(str(tmp_path / "model.json"))
    text = (tmp_path / "model.json").read_text()
    assert '"_contrib_box_iou"' in text
    assert '"_contrib_cvops_box_iou"' in text
    boxes = mx.nd.array([[0, 0, 4, 2], [6, 3, 7, 5]])
    outs = mx.sym.load(str(tmp_path / "model.json")).bind(mx.cpu(), {"box": boxes}).forward()
    for out, kind in zip(outs, ("iou", "ciou")):
        np.testing.assert_array_equal(
            out.asnumpy(), cvops.box_iou(boxes, boxes, kind=kind).asnumpy()
        )


def test_command_converts_files_and_reports_errors(mx, operators, model, tmp_path, capsys):
    symbol, _ = model
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    symbol.save(str(theirs))
    assert cli.main(["convert-symbol", str(theirs), str(ours)]) == 0
    assert "3 operators" in capsys.readouterr().out
    assert mx.sym.load(str(ours)).list_outputs() == symbol.list_outputs()
    assert cli.main(["convert-symbol", str(ours), str(ours), "--to", "mxnet"]) == 0
    assert mx.sym.load(str(ours)).tojson() == symbol.tojson()
    assert cli.main(["convert-symbol", str(tmp_path / "none.json"), str(ours)]) == 2
    assert "none.json: no such file" in capsys.readouterr().err
    text = tmp_path / "text.json"
    text.write_bytes(b"\xff\xfe")
    for given, message in [
        ((tmp_path, ours), f"{tmp_path}: cannot be read: Is a directory"),
        ((text, ours), f"{text}: 'utf-8' codec can't decode"),
        ((theirs, tmp_path), f"{tmp_path}: cannot be written: Is a directory"),
        ((theirs, tmp_path / "none" / "x.json"), "x.json: cannot be written: No such file"),
    ]:
        assert cli.main(["convert-symbol", *map(str, given)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
