"""Options of the ops accept the values that MXNet's operators accept, also as text."""

import contextlib
import functools
import math

import numpy as np
import pytest

import cvops
from cvops import contrib
from cvops.ops import _check

rng = np.random.default_rng(11)


def boxes(*shape):
    return np.sort(rng.random((*shape, 2, 2), np.float32), axis=-2).reshape(*shape, 4)


ANCHORS = boxes(1, 12)
ROWS = np.concatenate([rng.integers(0, 3, (1, 12, 1)), rng.random((1, 12, 1)), ANCHORS], axis=-1)
LABEL = np.array([[[1, 0.1, 0.1, 0.5, 0.5], [0, 0.4, 0.4, 0.9, 0.9]]])
INPUTS = {
    "AdaptiveAvgPooling2D": [rng.random((1, 2, 4, 6))],
    "BilinearResize2D": [rng.random((1, 2, 4, 6))],
    "MultiBoxPrior": [np.zeros((1, 3, 2, 3))],
    "MultiBoxTarget": [ANCHORS, LABEL, rng.random((1, 3, 12))],
    "MultiBoxDetection": [rng.random((1, 3, 12)), rng.random((1, 48)), ANCHORS],
    "Proposal": [rng.random((1, 8, 2, 3)), np.zeros((1, 16, 2, 3)), np.array([[32, 48, 1]])],
    "bipartite_matching": [rng.random((3, 4))],
    "box_decode": [rng.random((2, 12, 4)), ANCHORS],
    "box_iou": [ANCHORS[0], ANCHORS[0]],
    "box_nms": [ROWS],
    "DeformablePSROIPooling": [
        *(rng.random((1, 9, 8, 8)), np.array([[0, 0, 0, 6, 6]])),
        rng.random((1, 2, 2, 2)),
    ],
    "PSROIPooling": [rng.random((1, 9, 8, 8)), np.array([[0, 0, 0, 6, 6]])],
    "ROIAlign": [rng.random((1, 4, 8, 8)), np.array([[0, 0, 0, 6, 6]])],
    "ROIPooling": [rng.random((1, 2, 8, 8)), np.array([[0, 0, 0, 6, 6]])],
    "RROIAlign": [rng.random((1, 2, 8, 8)), np.array([[0, 3, 3, 6, 6, 0]])],
}
#: Required options of an op, unless a test sets them.
OTHERS = {
    "DeformablePSROIPooling": {
        **{"spatial_scale": 1.0, "output_dim": 1, "pooled_size": 2, "group_size": 2},
        "trans_std": 0.1,
    },
    "PSROIPooling": {"spatial_scale": 1.0, "output_dim": 1, "pooled_size": 2},
    "ROIAlign": {"pooled_size": (2, 2), "spatial_scale": 1.0},
    "Proposal": {"scales": (0.5, 1), "ratios": (1, 2), "rpn_post_nms_top_n": 5},
    "bipartite_matching": {"threshold": 0.25},
    "ROIPooling": {"pooled_size": (2, 2), "spatial_scale": 1.0},
    "RROIAlign": {"pooled_size": (2, 2), "spatial_scale": 1.0},
    "box_nms": {"id_index": 0},
}
OPTIONS = {
    "flag": [
        *(("MultiBoxPrior", "clip"), ("MultiBoxDetection", "clip")),
        *(("MultiBoxDetection", "force_suppress"), ("box_nms", "force_suppress")),
        *(("ROIAlign", "position_sensitive"), ("ROIAlign", "aligned")),
        *(("Proposal", "output_score"), ("Proposal", "iou_loss")),
        *(("bipartite_matching", "is_ascend"), ("BilinearResize2D", "align_corners")),
    ],
    "number": [
        *(("MultiBoxTarget", "overlap_threshold"), ("MultiBoxTarget", "ignore_label")),
        *(
            ("MultiBoxTarget", "negative_mining_ratio"),
            ("MultiBoxTarget", "negative_mining_thresh"),
        ),
        *(("MultiBoxDetection", "threshold"), ("MultiBoxDetection", "nms_threshold")),
        *(("box_nms", "overlap_thresh"), ("box_nms", "valid_thresh")),
        ("PSROIPooling", "spatial_scale"),
        *(("DeformablePSROIPooling", name) for name in ("spatial_scale", "trans_std")),
        *(("ROIAlign", "spatial_scale"), ("ROIPooling", "spatial_scale")),
        ("RROIAlign", "spatial_scale"),
        *(("box_decode", "std0"), ("box_decode", "std1")),
        *(("box_decode", "std2"), ("box_decode", "std3"), ("box_decode", "clip")),
        *(("bipartite_matching", "threshold"), ("Proposal", "threshold")),
    ],
    "integer": [
        *(("MultiBoxTarget", "minimum_negative_samples"), ("MultiBoxDetection", "nms_topk")),
        *(("MultiBoxDetection", "background_id"), ("box_nms", "topk")),
        ("box_nms", "background_id"),
        ("bipartite_matching", "topk"),
        *(("Proposal", "rpn_pre_nms_top_n"), ("Proposal", "rpn_min_size")),
    ],
    "numbers": [("MultiBoxPrior", "sizes"), ("MultiBoxPrior", "ratios")],
    "length": [("BilinearResize2D", "height"), ("BilinearResize2D", "width")],
    "grid": [("AdaptiveAvgPooling2D", "output_size")],
    "pair": [("MultiBoxPrior", "steps"), ("MultiBoxPrior", "offsets")],
    "four": [("MultiBoxTarget", "variances"), ("MultiBoxDetection", "variances")],
    "small integer": [("ROIAlign", "sample_ratio"), ("RROIAlign", "sampling_ratio")],
    "integers": [("ROIAlign", "pooled_size"), ("ROIPooling", "pooled_size")],
    "word": [
        ("BilinearResize2D", "mode"),
        *(("box_decode", "format"), ("box_iou", "format")),
        *(("box_nms", "in_format"), ("box_nms", "out_format")),
    ],
    # With many other columns MXNet reads out of bounds.
    "coord_start": [("box_nms", "coord_start")],
    "score_index": [("box_nms", "score_index")],
    "id_index": [("box_nms", "id_index")],
}
SCALARS = [
    *("True", "true", "TRUE", "tRue", "False", "false", True, False, np.True_, np.array(True)),
    *("1", "0", 1, 0, 2, -1, np.int64(1), np.array(1), "01", "+1", " 1", "--1", "- 1", "1 2", "1,"),
    *("yes", "no", "", " True", "True ", None, "None", b"1", 1 + 2j, "1_0", "0x1", "\t1\n"),
    *(1.0, 0.0, 0.5, "1.0", "5.", "1e0", "1e-1", np.float32(0.5), np.array(0.5), "-0.0", "abc"),
    *(2**31, 2**31 - 1, -(2**31), -(2**31) - 1, np.array([1]), np.array([True]), (1,), [1], (0.5,)),
]
TUPLES = [
    *("(1)", "[1]", "(1,)", "(1,2)", "[0.5, 0.25]", "(0.5,0.25]", "( 0.5 , 0.25 )", "(0.5,0.25,)"),
    *("(0.5 0.25)", "(0.5,,0.25)", "(,0.5)", "()", "[]", (), [], "(0.5,0.25", "0.5,0.25", "0.5 1"),
    *(
        " (0.5,0.25)",
        "(0.5,0.25) ",
        "(0.5,0.25)x",
        "((0.5,0.25))",
        "(True,1)",
        (True, 1),
        (None, 1),
    ),
    *((1, 1.5), (0.5, 0.25), (1, 1), [1, 1], (1.0, 1.0), (2, 2), "(2,2)", "[2,2]", (2, 2, 2)),
    *("(.1,.1,.2,.2)", (0.1, 0.1, 0.2, 0.2), [0.1, 0.1, 0.2, 0.2], (0.1, 0.1, 0.2), (0, 1)),
    *((np.float32(0.5), np.float64(0.25)), (np.int64(2), np.int64(2)), (1, (1,)), "(0x1,1)"),
    *("(1 ,1)", "(+1,1)", "(1e-1,1e0)", (-1, -1)),
]
WORDS = ["corner", "center", "Corner", " corner", "abc", np.str_("center"), b"corner", ["corner"]]
COLUMNS = [True, "1", 1, "2", 2, 1.0, "1.0", None, "x"]
#: Values that only MXNet accepts: NaN, and a number without an exponent, which it reads as 1.
REFUSED = ["nan", "NaN", math.nan, "1e"]
#: Values that only cvops accepts: limits, tiny numbers, spaces after a number, other sequences.
ACCEPTED = [
    *("inf", "infinity", math.inf, "(inf,1)", (math.inf, 1), 1e-50, "1e-45", "1e-400", "1 "),
    *(".5", "0.5f", "+1", "\t1\n", "1L", "(1L,2L)", ("2", "2"), range(1, 3), np.array([1.0, 1.0])),
    np.array([2, 2]),
]


def same(a, b):
    return type(a) is type(b) and repr(a) == repr(b)


def outcome(function, op, option, value, inputs):
    """The results of a call, or the text of its error."""
    options = {**OTHERS.get(op, {}), option: value}
    if option == "negative_mining_thresh":
        options["negative_mining_ratio"] = 1
    try:
        out = function(*inputs, **options)
        return [x.asnumpy() for x in (out if isinstance(out, (list, tuple)) else [out])]
    except Exception as error:  # MXNet raises a class of its own
        return str(error)


@pytest.fixture(scope="module")
def operators(mx):
    """The module ``cvops.mxnet``, which registers the operators."""
    import cvops.mxnet

    return cvops.mxnet


@pytest.fixture(scope="module")
def interfaces(mx, operators):
    """interfaces[name](op) calls an op: the function for arrays, or one of three operators."""

    def hybridized(op):
        class Block(mx.gluon.HybridBlock):
            def hybrid_forward(self, F, *args):
                return getattr(F.contrib, f"cvops_{op}")(*args, **self.options)

        def call(*args, **options):
            block = Block()
            block.options = options
            block.hybridize()
            return block(*args)

        return call

    return {
        "contrib": lambda op: getattr(contrib, op),
        "operator": lambda op: getattr(mx.nd.contrib, f"cvops_{op}"),
        "symbol": hybridized,
        "installed": functools.partial(theirs, mx),  # by MXNet's name
    }


def theirs(mx, op):
    return getattr(mx.nd.contrib, op, None) or getattr(mx.nd, op)


def values(kind):
    if kind in ("coord_start", "score_index", "id_index"):
        return COLUMNS
    if kind == "small integer":  # MXNet aborts for millions of samples
        return [x for x in (*SCALARS, *TUPLES) if type(x) is not int or x < 1024]
    if kind == "length":  # MXNet allocates huge maps
        return [x for x in (*SCALARS, *TUPLES) if not isinstance(x, int) or x < 1024]
    if kind == "grid":  # MXNet accepts 0, ignores three numbers, and allocates huge grids
        kept = [x for x in (*SCALARS, *TUPLES) if not isinstance(x, int) or 0 < x < 1024]
        return [x for x in kept if repr(x) not in ("'0'", "(2, 2, 2)", "(0, 1)")]
    return WORDS if kind == "word" else [*SCALARS, *TUPLES]


@pytest.fixture(scope="module")
def expected(mx):
    """expected(kind, op, option): MXNet's outcome of each value. The interfaces share it."""

    @functools.lru_cache(None)
    def expected(kind, op, option):
        inputs = [mx.nd.array(x) for x in INPUTS[op]]
        return [outcome(theirs(mx, op), op, option, value, inputs) for value in values(kind)]

    return expected


@pytest.mark.parametrize("interface", ["contrib", "operator", "symbol", "installed"])
@pytest.mark.parametrize(
    ("kind", "op", "option"), [(kind, *pair) for kind, pairs in OPTIONS.items() for pair in pairs]
)
def test_values_of_mxnets_options_give_equal_results(
    mx, operators, interfaces, expected, kind, op, option, interface
):
    wanted = expected(kind, op, option)
    inputs = [mx.nd.array(x) for x in INPUTS[op]]
    with operators.installed() if interface == "installed" else contextlib.nullcontext():
        function = interfaces[interface](op)
        results = [outcome(function, op, option, value, inputs) for value in values(kind)]
    for value, got, want in zip(values(kind), results, wanted):
        if isinstance(got, str) or isinstance(want, str):
            wider = any(same(value, x) for x in ACCEPTED)
            assert isinstance(got, str) == isinstance(want, str) or wider, (value, got, want)
            # The error of a column may name the option with which it conflicts.
            name = "" if kind == option else option
            assert not isinstance(got, str) or f"{name}: expected" in got, (value, got)
            continue
        if option == "negative_mining_ratio" and value in (2**31, 2**31 - 1):
            continue  # the product with the number of positives overflows in MXNet
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=repr(value))


@pytest.mark.parametrize("interface", ["contrib", "operator"])
@pytest.mark.parametrize("value", REFUSED, ids=repr)
def test_nan_and_incomplete_numbers_are_refused(mx, interfaces, value, interface):
    for op, option in OPTIONS["number"]:
        inputs = [mx.nd.array(x) for x in INPUTS[op]]
        got = outcome(interfaces[interface](op), op, option, value, inputs)
        assert f"{option}: expected a number" in got


@pytest.mark.parametrize("value", ACCEPTED, ids=repr)
def test_functions_and_operators_accept_the_same_values(mx, interfaces, value):
    for op, option in [pair for kind, pairs in OPTIONS.items() if kind != "word" for pair in pairs]:
        if option in ("coord_start", "score_index", "id_index"):
            continue
        inputs = [mx.nd.array(x) for x in INPUTS[op]]
        a, b = (
            outcome(interfaces[name](op), op, option, value, inputs)
            for name in ("contrib", "operator")
        )
        assert isinstance(a, str) == isinstance(b, str), (op, option, a, b)
        if not isinstance(a, str):
            for x, y in zip(a, b):
                np.testing.assert_array_equal(x, y)


#: Flags that MXNet does not have: the op, its arguments.
FLAGS = {
    "return_index": (cvops.box_nms, [ROWS.astype("f")]),
    "return_argmax": (
        cvops.roi_pooling,
        [np.zeros((1, 1, 2, 2), "f"), np.zeros((1, 5), "f"), (1, 1), 1],
    ),
    "force_suppress": (cvops.multiclass_nms, [np.zeros((1, 2, 4), "f"), np.zeros((1, 1, 2), "f")]),
    "clip": (cvops.multibox_priors, [[(2, 2)], [1], [1]]),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_mxnet_lacks_have_the_same_rule(name):
    op, arguments = FLAGS[name]

    def results(value):
        out = op(*arguments, **{name: value})
        return list(map(np.asarray, out if isinstance(out, tuple) else (out,)))

    for text, value in (("False", False), ("0", False), ("true", True), (1, True)):
        for a, b in zip(results(text), results(value), strict=True):
            np.testing.assert_array_equal(a, b)
    for wrong in ("yes", 2, 0.0, None, [], np.ones(2)):
        with pytest.raises(ValueError, match=f"{name}: expected True or False, got"):
            results(wrong)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), b"1", np.array([1.0]), [1], "1_0", "one", None, {1}],
    ids=repr,
)
def test_value_that_is_no_number_is_refused(value):
    for check in (_check.number, _check.integer, _check.single):
        with pytest.raises(TypeError, match="x: expected a"):
            check("x", value)


@pytest.mark.parametrize("value", [1.0, np.float32(1), np.array(1.0), "1.0", "1e0"], ids=repr)
def test_float_is_no_integer(value):
    with pytest.raises(TypeError, match="x: expected an integer, got"):
        _check.integer("x", value)


def test_numbers_of_every_library_are_accepted():
    torch = pytest.importorskip("torch")
    for value in (2, np.int8(2), np.array(2), torch.tensor(2), "2", " 2 ", "+2"):
        assert _check.integer("x", value) == _check.number("x", value) == 2
    for value in (0.5, np.float16(0.5), np.array(0.5), torch.tensor(0.5), "0.5", ".5", "5e-1"):
        assert _check.number("x", value) == 0.5
    for value in ((1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2]), "(1, 2)", range(1, 3)):
        assert _check.numbers("x", value) == _check.integers("x", value, "(H, W)") == (1, 2)
    for wrong in (10**400, "1e39", (10**400,)):
        with pytest.raises((TypeError, ValueError), match="x: expected"):
            _check.numbers("x", wrong)


@pytest.mark.parametrize("backend", [["native"], 1, True, {}], ids=repr)
def test_backend_that_is_no_text_is_refused(backend):
    with pytest.raises(TypeError, match="backend: expected a name or None, got"):
        cvops.box_iou(ANCHORS[0], ANCHORS[0], backend=backend)


def test_true_is_refused_after_1_is_cached():
    for wrong, right in (((True,), (1,)), (True, 1), ([np.True_], [1.0])):
        cvops.multibox_prior((2, 2), sizes=right)
        with pytest.raises(TypeError, match="sizes: expected a number, got"):
            cvops.multibox_prior((2, 2), sizes=wrong)


# --- options of the models, the data sets and the plots -------------------------------------------

NOT_INTEGERS = [1.0, True, None, "x", math.nan, [1], np.ones(2)]
NOT_NUMBERS = [True, None, "x", math.nan, [1], np.ones(2)]
NOT_FLAGS = ["yes", 2, 0.5, None, [], np.ones(2)]


@pytest.fixture(scope="module")
def calls(mx, tmp_path_factory):
    """(kind, option) -> functions of the value. Their other arguments need no training."""
    pytest.importorskip("PIL")
    pytest.importorskip("skimage")
    import random

    from PIL import Image

    from cvops import checkpoint, classification, data, plot, voc
    from cvops.models import FCN, DetectionLoss, Detector, TinySSD, Training, fcn
    from cvops.models import classification as classifier
    from cvops.models.finetune import fine_tune
    from cvops.models.resnet import resnet18

    folder = tmp_path_factory.mktemp("options")
    image = Image.new("RGB", (64, 64))
    row = [[0, 0.5, 1, 1, 20, 20]]
    net, pixels = TinySSD(["a"]), np.zeros((4, 4, 3), np.uint8)
    record = folder / "some.rec"
    data.write_record(record, data.TEST_PHOTOS[:1], 1, 0, 64)
    voc_dir = voc.make_voc(folder, 1, 1, size=(32, 32))
    classes = np.zeros((2, 2), np.int32)
    return {
        ("integer", "side"): [
            lambda x: TinySSD(["a"], side=x),
            lambda x: data.draw("bee", x),
            lambda x: data.scene(image, random.Random(0), side=x),
            lambda x: data.write_record(folder / "a.rec", data.TEST_PHOTOS, 1, 0, side=x),
            lambda x: data.iterator(record, 1, side=x),
        ],
        ("integer", "num_classes"): [lambda x: FCN(num_classes=x), resnet18],
        ("integer", "stride"): [
            lambda x: FCN(stride=x),
            lambda x: resnet18(2, stride=x),
        ],
        ("integer", "channels"): [
            lambda x: fcn.BilinearUpsample(x, 2),
            lambda x: resnet18(2, channels=x),
        ],
        ("integer", "scale"): [lambda x: fcn.BilinearUpsample(1, x)],
        ("integer", "kernel_size"): [lambda x: fcn.bilinear_kernel(1, 1, x)],
        ("integer", "most"): [lambda x: data.scene(image, random.Random(0), most=x)],
        ("integer", "batch_size"): [lambda x: data.iterator(record, x)],
        ("integer", "count"): [
            lambda x: data.write_record(folder / "a.rec", data.TEST_PHOTOS, x, 0)
        ],
        ("integer", "seed"): [
            lambda x: checkpoint.seed_all(x, 0),
            lambda x: voc.make_voc(folder / "b", seed=x),
            lambda x: data.write_record(folder / "a.rec", data.TEST_PHOTOS, 1, x),
        ],
        ("integer", "epoch"): [lambda x: checkpoint.seed_all(0, x)],
        ("integer", "void"): [
            lambda x: voc.voc_label_indices(pixels, void=x),
            lambda x: voc.VOCSegDataset(True, (16, 16), voc_dir, void=x),
        ],
        ("integer", "height"): [lambda x: voc.voc_rand_crop(pixels, pixels, x, 1)],
        ("integer", "columns"): [lambda x: plot.grid([image], x)],
        ("integer", "num_rows"): [
            lambda x: plot.show_images([pixels], x, 1),
            lambda x: plot.apply(pixels, lambda image: image, x),
        ],
        ("integer", "train"): [
            lambda x: classification.make_cifar10(folder / "c", x),
            lambda x: classification.make_image_folders(folder / "c", train=x),
        ],
        ("integer", "num_epochs"): [
            lambda x: classifier.train([], [], net, None, None, mx.cpu(), x)
        ],
        ("number", "lr_mult"): [lambda x: fine_tune(net, net, lr_mult=x)],
        ("flag", "frozen"): [lambda x: fine_tune(net, net, frozen=x)],
        ("flag", "train"): [lambda x: classification.read_cifar10(folder / "c", x)],
        ("integer", "fmap_w"): [lambda x: plot.display_anchors(pixels, x, 1, [0.5])],
        ("number", "threshold"): [
            lambda x: Detector(net, threshold=x),
            lambda x: plot.display(image, row, x),
        ],
        ("number", "nms_threshold"): [lambda x: Detector(net, nms_threshold=x)],
        ("number", "negative_mining_ratio"): [lambda x: Training(net, negative_mining_ratio=x)],
        ("number", "negative_mining_thresh"): [lambda x: Training(net, negative_mining_thresh=x)],
        ("number", "alpha"): [lambda x: DetectionLoss(alpha=x)],
        ("number", "gamma"): [lambda x: DetectionLoss(gamma=x)],
        ("number", "scale"): [lambda x: plot.draw_detections(image, row, ["a"], scale=x)],
        ("flag", "is_train"): [
            lambda x: voc.read_voc_images(voc_dir, x),
            lambda x: voc.VOCSegDataset(x, (16, 16), voc_dir),
        ],
        ("flag", "augment"): [lambda x: data.iterator(record, 1, 64, x)],
        ("flag", "pretrained"): [lambda x: FCN(pretrained=x)],
        ("rows", "rows"): [
            lambda x: plot.draw_detections(image, x, ["a"]),
            lambda x: plot.display(image, x, 0.5),
        ],
        ("classes", "rows"): [lambda x: plot.draw_detections(image, x, ["a"])],
        ("pair", "crop_size"): [lambda x: voc.VOCSegDataset(True, x, voc_dir)],
        ("pair", "size"): [lambda x: voc.make_voc(folder / "b", size=x)],
        ("pair", "tile"): [lambda x: fcn.predict(mx.gluon.nn.Sequential(), pixels, x)],
        ("class map", "prediction"): [
            lambda x: plot.show_segmentation(pixels[:2, :2], x, classes, voc.VOC_PALETTE[:21])
        ],
        ("class map", "label"): [
            lambda x: plot.show_segmentation(pixels[:2, :2], classes, x, voc.VOC_PALETTE[:21])
        ],
    }


#: Values of each kind that are refused.
WRONG = {
    "integer": NOT_INTEGERS,
    "number": NOT_NUMBERS,
    "flag": NOT_FLAGS,
    "rows": [
        [[0, 0.5, 1, 1]],
        [0, 0.5, 1, 1, 2, 2],
        "x",
        None,
        [[0, 1], [2]],
        np.ones((1, 6), bool),
    ],
    "classes": [[[1, 0.5, 1, 1, 2, 2]], [[0.5] * 6], [[math.nan] * 6], [[0, 1, 1, 1, math.inf, 2]]],
    "pair": [(16,), (16, 16, 16), 16, "16", (16.0, 16), (0, 16), (True, 16), None, (math.nan, 16)],
    "class map": [np.full((2, 2), x) for x in (21, -1, 255, 0.5, math.nan)] + [None, "x"],
}
#: A tile of None is the whole image. A text for ``pretrained`` is the path of a file.
LEGAL = [("tile", None), ("pretrained", "yes")]


def test_bad_options_of_models_data_sets_and_plots_are_refused_by_name(calls):
    for (kind, option), functions in calls.items():
        for function in functions:
            for value in WRONG[kind]:
                if any(option == key and value is x for key, x in LEGAL):
                    continue
                with pytest.raises((TypeError, ValueError), match=rf"^{option}: expected"):
                    function(value)


def test_flags_of_data_sets_accept_text(calls):
    _, dataset = calls["flag", "is_train"]
    assert dataset("False")._pairs == dataset(False)._pairs == dataset(0)._pairs
    assert dataset("1")._pairs == dataset(np.True_)._pairs != dataset("0")._pairs
