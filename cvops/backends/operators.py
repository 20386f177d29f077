"""The table of the operators of ``libcvops.so``, which the frameworks register.

It has their names, their arguments, and MXNet's operators that they replace.
"""

from __future__ import annotations

from typing import NamedTuple


class Operator(NamedTuple):
    """One of our operators, and the operator of MXNet with the same signature."""

    #: The name in ``F.contrib.cvops_<name>``, and that of MXNet's operator.
    name: str
    #: The name in ``npx.cvops_<npx_name>``.
    npx_name: str
    inputs: tuple[str, ...]
    options: tuple[str, ...]
    #: True if a gradient is not zero.
    differentiable: bool = False
    #: The full names of MXNet's operator; empty if MXNet has no such operator.
    replaces: tuple[str, ...] = ()
    #: The name of MXNet's operator in ``contrib``, if MXNet has it in builds for GPUs only.
    gpu_name: str = ""
    #: The cast by AMP: to "float32", to the "widest" type of the inputs, or "" for none.
    amp: str = ""
    #: The last inputs that a call may omit.
    optional: tuple[str, ...] = ()
    #: The flag with which a call omits them; empty if other options decide.
    omitting: str = ""
    #: The options that MXNet's operator lacks, with the values for which both are equal.
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def full_name(self) -> str:
        """The name in MXNet's graphs."""
        return f"_contrib_cvops_{self.name}"


OPERATORS = (
    Operator(
        "AdaptiveAvgPooling2D",
        "adaptive_avg_pooling",
        ("data",),
        ("output_size",),
        differentiable=True,
        replaces=("_contrib_AdaptiveAvgPooling2D",),
    ),
    Operator(
        "BilinearResize2D",
        "bilinear_resize",
        ("data", "like"),
        ("height", "width", "scale_height", "scale_width", "mode", "align_corners"),
        differentiable=True,
        replaces=("_contrib_BilinearResize2D",),
        optional=("like",),
    ),
    Operator(
        "MultiBoxPrior",
        "multibox_prior",
        ("data",),
        ("sizes", "ratios", "clip", "steps", "offsets"),
        replaces=("_contrib_MultiBoxPrior",),
        amp="float32",
    ),
    Operator(
        "MultiBoxTarget",
        "multibox_target",
        ("anchor", "label", "cls_pred"),
        (
            "overlap_threshold",
            "ignore_label",
            "negative_mining_ratio",
            "negative_mining_thresh",
            "minimum_negative_samples",
            "variances",
        ),
        replaces=("_contrib_MultiBoxTarget",),
        amp="float32",
    ),
    Operator(
        "MultiBoxDetection",
        "multibox_detection",
        ("cls_prob", "loc_pred", "anchor"),
        (
            "clip",
            "threshold",
            "background_id",
            "nms_threshold",
            "force_suppress",
            "variances",
            "nms_topk",
        ),
        replaces=("_contrib_MultiBoxDetection",),
        amp="float32",
    ),
    *(
        Operator(
            name,
            npx_name,
            ("cls_prob", "bbox_pred", "im_info"),
            (
                "rpn_pre_nms_top_n",
                "rpn_post_nms_top_n",
                "threshold",
                "rpn_min_size",
                "scales",
                "ratios",
                "feature_stride",
                "output_score",
                "iou_loss",
            ),
            replaces=(f"_contrib_{name}",),
            amp="widest",
        )
        for name, npx_name in (("MultiProposal", "multi_proposal"), ("Proposal", "proposal"))
    ),
    Operator(
        "bipartite_matching",
        "bipartite_matching",
        ("data",),
        ("is_ascend", "threshold", "topk"),
        replaces=("_contrib_bipartite_matching",),
    ),
    Operator(
        "box_decode",
        "box_decode",
        ("data", "anchors"),
        ("std0", "std1", "std2", "std3", "clip", "format"),
        replaces=("_contrib_box_decode",),
    ),
    Operator(
        "box_encode",
        "box_encode",
        ("samples", "matches", "anchors", "refs", "means", "stds"),
        (),
        replaces=("_contrib_box_encode",),
    ),
    Operator(
        "box_iou",
        "box_iou",
        ("lhs", "rhs"),
        ("format", "kind"),
        differentiable=True,
        replaces=("_contrib_box_iou",),
        amp="widest",
        extra=(("kind", "iou"),),
    ),
    Operator(
        "box_nms",
        "box_nms",
        ("data",),
        (
            "overlap_thresh",
            "valid_thresh",
            "topk",
            "coord_start",
            "score_index",
            "id_index",
            "background_id",
            "force_suppress",
            "in_format",
            "out_format",
        ),
        differentiable=True,
        replaces=("_contrib_box_nms", "_contrib_box_non_maximum_suppression"),
        amp="widest",
    ),
    Operator(
        "DeformablePSROIPooling",
        "deformable_psroi_pooling",
        ("data", "rois", "trans"),
        (
            "spatial_scale",
            "output_dim",
            "group_size",
            "pooled_size",
            "part_size",
            "sample_per_part",
            "trans_std",
            "no_trans",
        ),
        differentiable=True,
        replaces=("_contrib_DeformablePSROIPooling",),
        amp="float32",
        optional=("trans",),
        omitting="no_trans",
    ),
    Operator(
        "PSROIPooling",
        "psroi_pooling",
        ("data", "rois"),
        ("spatial_scale", "output_dim", "pooled_size", "group_size"),
        differentiable=True,
        replaces=("_contrib_PSROIPooling",),
        amp="widest",
    ),
    Operator(
        "ROIPooling",
        "roi_pooling",
        ("data", "rois"),
        ("pooled_size", "spatial_scale"),
        differentiable=True,
        replaces=("ROIPooling",),
    ),
    Operator(
        "ROIAlign",
        "roi_align",
        ("data", "rois"),
        ("pooled_size", "spatial_scale", "sample_ratio", "position_sensitive", "aligned"),
        differentiable=True,
        replaces=("_contrib_ROIAlign",),
        amp="widest",
    ),
    Operator(
        "RROIAlign",
        "rroi_align",
        ("data", "rois"),
        ("pooled_size", "spatial_scale", "sampling_ratio"),
        replaces=("_contrib_RROIAlign",),
    ),
    Operator(
        "bilinear_upsample",
        "bilinear_upsample",
        ("data",),
        ("scale",),
        differentiable=True,
        amp="float32",
    ),
    Operator(
        "matrix_nms",
        "matrix_nms",
        ("data",),
        (
            "method",
            "sigma",
            "valid_thresh",
            "post_thresh",
            "topk",
            "post_nms",
            "coord_start",
            "score_index",
            "id_index",
            "background_id",
            "force_suppress",
            "in_format",
        ),
        amp="float32",
    ),
    Operator(
        "soft_nms",
        "soft_nms",
        ("data",),
        (
            "method",
            "sigma",
            "overlap_thresh",
            "valid_thresh",
            "topk",
            "post_nms",
            "coord_start",
            "score_index",
            "id_index",
            "background_id",
            "force_suppress",
            "in_format",
        ),
        amp="float32",
    ),
    Operator(
        "multiclass_nms",
        "multiclass_nms",
        ("boxes", "scores"),
        (
            "overlap_thresh",
            "valid_thresh",
            "topk",
            "post_nms",
            "background_id",
            "force_suppress",
            "in_format",
        ),
        amp="float32",
    ),
    Operator(
        "box_iou_rotated",
        "box_iou_rotated",
        ("lhs", "rhs"),
        ("angle", "clockwise"),
        amp="float32",
    ),
    Operator(
        "mrcnn_mask_target",
        "mask_target",
        ("rois", "gt_masks", "matches", "cls_targets"),
        ("num_rois", "num_classes", "mask_size", "sample_ratio", "aligned"),
        gpu_name="mrcnn_mask_target",
        amp="float32",
    ),
    Operator(
        "match_anchors",
        "match_anchors",
        ("anchors", "boxes"),
        (
            "high_threshold",
            "low_threshold",
            "allow_low_quality_matches",
            "match_best_anchors",
        ),
        amp="float32",
    ),
    Operator("paste_masks", "paste_masks", ("masks", "boxes"), ("shape", "threshold")),
    Operator(
        "rcnn_target",
        "rcnn_target",
        ("proposals", "labels", "noise"),
        ("num_sample", "pos_iou_thresh", "pos_ratio", "means", "stds"),
        amp="float32",
    ),
    Operator(
        "rpn_target",
        "rpn_target",
        ("anchors", "labels", "noise"),
        (
            "num_sample",
            "pos_iou_thresh",
            "neg_iou_thresh",
            "pos_ratio",
            "means",
            "stds",
        ),
        amp="float32",
    ),
    Operator(
        "nms_rotated",
        "nms_rotated",
        ("data",),
        (
            "overlap_thresh",
            "valid_thresh",
            "topk",
            "coord_start",
            "score_index",
            "id_index",
            "background_id",
            "force_suppress",
            "angle",
            "clockwise",
        ),
        differentiable=True,
        amp="float32",
    ),
    Operator(
        "weighted_boxes_fusion",
        "weighted_boxes_fusion",
        ("data",),
        (
            "overlap_thresh",
            "num_models",
            "score_type",
            "valid_thresh",
            "topk",
            "post_nms",
            "coord_start",
            "score_index",
            "id_index",
            "background_id",
            "force_suppress",
            "in_format",
        ),
        amp="float32",
    ),
    Operator("label_from_color", "label_from_color", ("image", "colormap"), ("unknown",)),
    Operator(
        "confusion_matrix",
        "confusion_matrix",
        ("prediction", "label"),
        ("num_classes", "ignore_label"),
    ),
)
