"""Errors of the operators in MXNet: bad inputs, bad options, wrong Python arguments."""

import re
import threading

import pytest
from operator_cases import ANCHORS, network, ours

#: name -> operator, shapes of the inputs, options, the error.
BAD_CALLS = {
    "pooling of three axes": (
        "AdaptiveAvgPooling2D",
        [(1, 2, 3)],
        {},
        r"cvops_AdaptiveAvgPooling2D: data: expected shape \(N, C, H, W\), got \(1, 2, 3\)",
    ),
    **{
        f"output_size {text}": (
            "AdaptiveAvgPooling2D",
            [(1, 2, 3, 3)],
            {"output_size": text},
            f"output_size: expected .* integer.*, got '?{re.escape(text)}",
        )
        for text in ("0", "(2, 0)", "(1, 2, 3)", "1.5", "big", "(1,,2)")
    },
    "data of two axes": (
        "MultiBoxPrior",
        [(3, 4)],
        {},
        r"cvops_MultiBoxPrior: data: expected shape \(N, C, H, W, \.\.\.\)",
    ),
    "offset above 1": (
        "MultiBoxPrior",
        [(1, 1, 2, 2)],
        {"offsets": (2, 0)},
        r"offsets: .* in \[0, 1\], got \(2, 0\)",
    ),
    "sizes a word": (
        "MultiBoxPrior",
        [(1, 1, 2, 2)],
        {"sizes": "small"},
        "sizes: expected one number or more, got",
    ),
    **{
        f"sizes {name}": (
            "MultiBoxPrior",
            [(1, 1, 2, 2)],
            {"sizes": text},
            f"sizes: expected {expected}, got",
        )
        for name, text, expected in (
            ("empty text", "", "one number or more"),
            ("empty list", "[]", "one number or more"),
            ("without closing bracket", "(1, 2", "one number or more"),
            ("with two commas", "(1,,2)", "one number or more"),
            ("with two commas at the end", "(1, 2,,)", "one number or more"),
            ("a comma", ",", "one number or more"),
            ("above float64", "1e400", "a number that fits into float32"),
            ("above float32", "1e39", "a number that fits into float32"),
            ("nan", "nan", "a number"),
            ("hexadecimal", "0x1", "one number or more"),
        )
    },
    "clip 3": ("MultiBoxPrior", [(1, 1, 2, 2)], {"clip": 3}, "clip: expected True or False, got 3"),
    **{
        f"resize {name}": ("BilinearResize2D", [(1, 2, 4, 1)], options, message)
        for name, options, message in (
            ("height 0", {"height": 0}, "height: expected an integer of at least 1, got 0"),
            ("one factor", {"scale_height": 2}, "scale_width: expected a value, got none"),
            ("no factor", {"mode": "odd_scale"}, "scale_height: expected a value, got none"),
            (
                "factor None",
                {"mode": "odd_scale", "scale_height": "None"},
                "scale_height: expected a number, got None",
            ),
            (
                "unknown mode",
                {"mode": "up"},
                "mode: expected one of .'size', 'odd_scale', .*, got 'up'",
            ),
            ("to nothing", {"mode": "to_even_down"}, "data: expected maps of 1 to .* pixels"),
            ("like missing", {"mode": "like"}, "expects 2 inputs|Not enough argument"),
        )
    },
    "resize like three axes": (
        "BilinearResize2D",
        [(1, 2, 4, 1), (1, 2, 4)],
        {"mode": "like"},
        r"like: expected shape \(M, K, height, width\), got \(1, 2, 4\)",
    ),
    "resize like for another mode": (
        "BilinearResize2D",
        [(1, 2, 4, 1), (1, 2, 4, 4)],
        {},
        "expects 1 inputs|requires 1, provided 2",
    ),
    "label of two axes": (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 5), (2, 3, 8)],
        {},
        r"label: expected shape \(B, G, W\), got",
    ),
    "predictions of 9 for 8 anchors": (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 3, 5), (2, 3, 9)],
        {},
        r"cls_pred: expected shape \(B, C, A\) with A = 8 as in anchor, got \(2, 3, 9\)",
    ),
    "label rows of 4": (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 3, 4), (2, 3, 8)],
        {},
        "label: expected rows of 5 or more",
    ),
    "two variances": (
        "MultiBoxTarget",
        [(1, 8, 4), (2, 3, 5), (2, 3, 8)],
        {"variances": (1, 2)},
        r"variances: expected 4 numbers, got \(1, 2\)",
    ),
    "offsets of 30 for 8 anchors": (
        "MultiBoxDetection",
        [(2, 3, 8), (2, 30), (1, 8, 4)],
        {},
        r"loc_pred: expected shape \(B, 32\), got \(2, 30\)",
    ),
    "nms_topk 1.5": (
        "MultiBoxDetection",
        [(2, 3, 8), (2, 32), (1, 8, 4)],
        {"nms_topk": 1.5},
        "nms_topk: .* integer",
    ),
    "proposals of two images": (
        "Proposal",
        [(2, 24, 3, 3), (2, 48, 3, 3), (2, 3)],
        {},
        r"cls_prob: expected one image, got \(2, 24, 3, 3\)",
    ),
    "proposals with 8 channels": (
        "MultiProposal",
        [(2, 8, 3, 3), (2, 48, 3, 3), (2, 3)],
        {},
        r"cls_prob: expected shape \(B, 24, H, W\), got \(2, 8, 3, 3\)",
    ),
    "129 anchors of a cell": (
        "MultiProposal",
        [(1, 258, 3, 3), (1, 516, 3, 3), (1, 3)],
        {"scales": (1,) * 43},
        "scales: expected at most 128 anchors of a cell",
    ),
    "no proposals": (
        "Proposal",
        [(1, 24, 3, 3), (1, 48, 3, 3), (1, 3)],
        {"rpn_post_nms_top_n": 0},
        "rpn_post_nms_top_n: expected a positive integer, got 0",
    ),
    "matching without threshold": (
        "bipartite_matching",
        [(3, 4)],
        {},
        "cvops_bipartite_matching: threshold: expected a value, got none",
    ),
    "matching of one axis": (
        "bipartite_matching",
        [(4,)],
        {"threshold": 0},
        r"data: expected shape \(\.\.\., N, M\), got \(4,\)",
    ),
    "anchors of each image": (
        "box_decode",
        [(2, 3, 4), (2, 3, 4)],
        {},
        r"anchors: expected shape \(1, N, 4\), got \(2, 3, 4\)",
    ),
    "means of 3": (
        "box_encode",
        [(2, 3), (2, 3), (2, 3, 4), (2, 5, 4), (3,), (4,)],
        {},
        r"means: expected shape \(4,\), got \(3,\)",
    ),
    "boxes of 5": (
        "box_iou",
        [(3, 5), (3, 4)],
        {},
        r"lhs: expected shape \(\.\.\., 4\), got \(3, 5\)",
    ),
    "unknown format": (
        "box_iou",
        [(3, 4), (3, 4)],
        {"format": "middle"},
        "format: .* .'corner', 'center'., got 'middle'",
    ),
    "unknown kind": (
        "box_iou",
        [(3, 4), (3, 4)],
        {"kind": "IoU"},
        "kind: expected one of .'iou', 'giou', 'diou', 'ciou'., got 'IoU'",
    ),
    "rotated boxes of 4": (
        "box_iou_rotated",
        [(3, 5), (3, 4)],
        {},
        r"rhs: expected shape \(\.\.\., 5\), got \(3, 4\)",
    ),
    "unknown unit of angles": (
        "box_iou_rotated",
        [(3, 5), (3, 5)],
        {"angle": "turns"},
        "angle: .* .'degrees', 'radians'., got 'turns'",
    ),
    "score among the coordinates": (
        "box_nms",
        [(7, 6)],
        {"score_index": 2},
        "score_index: .* outside of the coordinates, got 2",
    ),
    "class in the score": (
        "soft_nms",
        [(7, 6)],
        {"id_index": 1},
        "cvops_soft_nms: id_index: expected a column of its own or -1, got 1",
    ),
    "sigma of 0": (
        "matrix_nms",
        [(7, 6)],
        {"sigma": 0},
        "cvops_matrix_nms: sigma: expected a positive number, got 0",
    ),
    "no models": (
        "weighted_boxes_fusion",
        [(7, 6)],
        {"num_models": 0},
        "num_models: expected a positive integer, got 0",
    ),
    "negative valid_thresh": (
        "soft_nms",
        [(7, 6)],
        {"valid_thresh": -1},
        "valid_thresh: expected a number in .0, inf., got -1",
    ),
    "topk a word": ("box_nms", [(7, 6)], {"topk": "many"}, "topk: expected an integer, got 'many'"),
    "offsets with no_trans": (
        "DeformablePSROIPooling",
        [(1, 8, 3, 3), (4, 5), (4, 2, 2, 2)],
        {"spatial_scale": 1, "output_dim": 2, "group_size": 2, "pooled_size": 2, "no_trans": True},
        "expects 2 inputs|requires 2, provided 3",
    ),
    "offsets of three classes": (
        "DeformablePSROIPooling",
        [(1, 8, 3, 3), (4, 5), (4, 6, 2, 2)],
        {"spatial_scale": 1, "output_dim": 2, "group_size": 2, "pooled_size": 2},
        r"trans: expected two offsets for each class, .* got \(4, 6, 2, 2\)",
    ),
    "offsets of one part": (
        "DeformablePSROIPooling",
        [(1, 8, 3, 3), (4, 5), (4, 2, 1, 1)],
        {"spatial_scale": 1, "output_dim": 2, "group_size": 2, "pooled_size": 2},
        r"trans: expected shape \(R, offsets, 2, 2\), got \(4, 2, 1, 1\)",
    ),
    "rows without an angle": (
        "nms_rotated",
        [(7, 5)],
        {},
        r"data: expected rows of a score and 5 coordinates or more, got \(7, 5\)",
    ),
    "five columns": (
        "nms_rotated",
        [(7, 7)],
        {"coord_start": 3, "score_index": 0},
        "coord_start: expected five columns, got 3 for rows of 7",
    ),
    "output_dim missing": (
        "PSROIPooling",
        [(1, 8, 3, 3), (4, 5)],
        {"spatial_scale": 1, "pooled_size": 2},
        "output_dim: expected a value, got none",
    ),
    "output_dim 0": (
        "PSROIPooling",
        [(1, 8, 3, 3), (4, 5)],
        {"spatial_scale": 1, "output_dim": 0, "pooled_size": 2},
        "output_dim: expected an integer of at least 1, got 0",
    ),
    "2^15 bins of an axis": (
        "PSROIPooling",
        [(1, 8, 3, 3), (4, 5)],
        {"spatial_scale": 1, "output_dim": 2, "pooled_size": 2**15, "group_size": 1},
        r"pooled_size: expected an integer in \[1, 32767\], got 32768",
    ),
    "negative group_size": (
        "PSROIPooling",
        [(1, 8, 3, 3), (4, 5)],
        {"spatial_scale": 1, "output_dim": 2, "pooled_size": 2, "group_size": -1},
        "group_size: expected an integer of at least 0, got -1",
    ),
    "too few channels": (
        "PSROIPooling",
        [(1, 7, 3, 3), (4, 5)],
        {"spatial_scale": 1, "output_dim": 2, "pooled_size": 2},
        r"data: expected at least output_dim \* group_size\^2 channels, got \(1, 7, 3, 3\)",
    ),
    "rotated rois of 5": (
        "RROIAlign",
        [(1, 2, 3, 3), (4, 5)],
        {"pooled_size": (2, 2), "spatial_scale": 1},
        r"rois: expected shape \(R, 6\), got \(4, 5\)",
    ),
    "1025 samples": (
        "RROIAlign",
        [(1, 2, 3, 3), (4, 6)],
        {"pooled_size": (2, 2), "spatial_scale": 1, "sampling_ratio": 1025},
        "sampling_ratio: expected an integer of at most 1024, got 1025",
    ),
    "ratio above 1": (
        "rpn_target",
        [(8, 4), (2, 3, 5), (2, 8)],
        {"pos_ratio": 1.5},
        r"pos_ratio: expected a number in \[0, 1\], got 1.5",
    ),
    "no samples": (
        "rpn_target",
        [(8, 4), (2, 3, 5), (2, 8)],
        {"num_sample": 0},
        "num_sample: expected a positive integer, got 0",
    ),
    "noise of 7 anchors": (
        "rpn_target",
        [(1, 8, 4), (2, 3, 5), (2, 7)],
        {},
        r"noise: expected shape \(B, A\) with B = 2 .*, A = 8 .*, got \(2, 7\)|noise: expected",
    ),
    "low threshold above the high one": (
        "match_anchors",
        [(8, 4), (2, 3, 4)],
        {"high_threshold": 0.4, "low_threshold": 0.5},
        "low_threshold: expected a number from 0 to high_threshold, got 0.5",
    ),
    "anchors of 3 images": (
        "match_anchors",
        [(3, 8, 4), (2, 3, 4)],
        {},
        r"anchors: expected shape \(A, 4\), \(1, A, 4\) or .*, got \(3, 8, 4\)",
    ),
    "mask_size missing": (
        "mrcnn_mask_target",
        [(1, 2, 4), (1, 3, 5, 5), (1, 2), (1, 2)],
        {"num_classes": 2},
        "mask_size: expected a value, got none",
    ),
    "num_rois 3": (
        "mrcnn_mask_target",
        [(1, 2, 4), (1, 3, 5, 5), (1, 2), (1, 2)],
        {"num_rois": 3, "num_classes": 2, "mask_size": (4, 4)},
        r"rois: expected num_rois = 3 rois in shape \(B, N, 4\), got \(1, 2, 4\)",
    ),
    "shape of one number": (
        "paste_masks",
        [(2, 5, 5), (2, 4)],
        {"shape": 9},
        "shape: expected two integers of at least 0, got 9",
    ),
    "noise of the proposals alone": (
        "rcnn_target",
        [(2, 8, 4), (2, 3, 5), (2, 8)],
        {},
        r"noise: expected shape \(B, 11\), got \(2, 8\)",
    ),
    "pooled_size missing": (
        "ROIPooling",
        [(1, 2, 3, 3), (4, 5)],
        {"spatial_scale": 1},
        "pooled_size: expected a value, got none",
    ),
    "spatial_scale 2": (
        "ROIPooling",
        [(1, 2, 3, 3), (4, 5)],
        {"pooled_size": (2, 2), "spatial_scale": 2},
        r"spatial_scale: expected a number in \[0, 1\], got 2",
    ),
    "rois of 4": (
        "ROIPooling",
        [(1, 2, 3, 3), (4, 4)],
        {"pooled_size": (2, 2), "spatial_scale": 1},
        r"rois: expected shape \(R, 5\), got \(4, 4\)",
    ),
}


@pytest.mark.parametrize("mode", ["eager", "hybridized"])
@pytest.mark.parametrize(("op", "shapes", "options", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_argument_is_rejected_with_its_name_and_value(
    mx, operators, op, shapes, options, message, mode
):
    net = network(mx, lambda F, *args: ours(F, op)(*args, **options), mode)
    with pytest.raises(mx.MXNetError, match=message):
        net(*(mx.nd.zeros(shape) for shape in shapes))


def test_partly_padded_label_row_is_rejected(mx, operators):
    label = mx.nd.array([[[0, 0, 0, 1, 1], [-1, 0, 0, 1, 1]]])
    out = mx.nd.contrib.cvops_MultiBoxTarget(mx.nd.array(ANCHORS), label, mx.nd.zeros((1, 2, 40)))
    with pytest.raises(mx.MXNetError, match=r"label: expected corners of -1 .* image 0, row 1"):
        out[0].wait_to_read()


def test_match_out_of_range_is_rejected(mx, operators):
    one, box = mx.nd.ones((1, 1)), mx.nd.ones((1, 1, 4))
    out = mx.nd.contrib.cvops_box_encode(one, one, box, box, mx.nd.zeros(4), mx.nd.ones(4))
    with pytest.raises(mx.MXNetError, match=r"matches: expected an index of 1 refs .* anchor 0"):
        out[0].wait_to_read()


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float64", "rhs: expected float32 as lhs, got float64"),
        ("int32", "rhs: expected float32, float64, float16 or bfloat16, got int32"),
    ],
)
def test_input_of_another_type_is_rejected_with_its_name(mx, operators, dtype, message):
    box = mx.nd.zeros((3, 4))
    with pytest.raises(mx.MXNetError, match=f"cvops_box_iou: {message}"):
        mx.nd.contrib.cvops_box_iou(box, box.astype(dtype))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (["box"], {}, "misses the argument 'rhs'"),
        (["box", [1, 2, 3, 4]], {}, "rhs: expected an NDArray, got list"),
        (["box", "box"], {"formt": "corner"}, "unexpected argument 'formt'"),
        (["box", "box"], {"lhs": "box"}, "more than one value for 'lhs'"),
        (["box", "box", "corner", "iou", 1], {}, "at most 4 arguments, got 5"),
    ],
    ids=["input missing", "list", "unknown name", "input given twice", "too many"],
)
def test_wrong_python_arguments_are_rejected(mx, operators, args, kwargs, message):
    box = mx.nd.zeros((3, 4))
    put = lambda x: box if isinstance(x, str) and x == "box" else x  # noqa: E731
    with pytest.raises(TypeError, match=message):
        mx.nd.contrib.cvops_box_iou(*map(put, args), **{k: put(v) for k, v in kwargs.items()})


def test_deformable_pooling_misses_its_offsets_unless_no_trans(mx, operators):
    options = {"spatial_scale": 1, "output_dim": 2, "group_size": 2, "pooled_size": 2}
    data, rois = mx.sym.var("data"), mx.sym.var("rois")
    call = mx.sym.contrib.cvops_DeformablePSROIPooling
    assert call(data, rois, name="pool", **options).list_arguments()[2:] == ["pool_trans"]
    assert call(data, rois, no_trans="true", **options).list_arguments() == ["data", "rois"]
    data, rois = mx.nd.zeros((1, 8, 3, 3)), mx.nd.zeros((4, 5))
    with pytest.raises(TypeError, match="misses the argument 'trans'"):
        mx.nd.contrib.cvops_DeformablePSROIPooling(data, rois, **options)


# --- messages -------------------------------------------------------------------------------------


def test_error_message_has_no_text_of_an_earlier_error(mx, operators):
    for rows in (5, 6):
        with pytest.raises(mx.MXNetError) as error:
            mx.nd.contrib.cvops_box_iou(mx.nd.zeros((3, rows)), mx.nd.zeros((3, 4)))
        assert str(error.value).count("lhs: expected") == 1
        assert f"got (3, {rows})" in str(error.value)


def test_error_messages_of_concurrent_threads_are_separate(mx, operators):
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
