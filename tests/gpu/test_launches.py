"""The launches of each op for some shapes: kernel, grid, block and dynamic shared memory.

Launches follow from the shapes and the options alone. The GPU here has 132 multiprocessors with
227 KiB of shared memory. MODEL.md predicts the times of these launches.
"""

import re

import numpy as np
import pytest
from cases import OPS
from emulator import backends
from workloads import CALLS as SMALL
from workloads import (
    MINING,
    alignment,
    alignment_backward,
    anchor_matches,
    averaging,
    averaging_backward,
    call,
    confusion,
    decoding,
    deformed,
    deformed_backward,
    detection,
    encoding,
    iou,
    iou_backward,
    iou_rotated,
    labels,
    mask_targets,
    matching,
    nms,
    nms_backward,
    nms_of_classes,
    nms_rotated,
    pasting,
    pooling,
    pooling_backward,
    position_sensitive,
    position_sensitive_backward,
    proposals,
    region_proposals,
    resizing,
    resizing_backward,
    rotated,
    sampling,
    target,
    upsampling,
    zeros,
)

import cvops
from cvops.backends import extension


@pytest.fixture(autouse=True)
def h200(monkeypatch):
    monkeypatch.setattr(backends, "MULTIPROCESSORS", 132)


def priors(*maps):
    options = dict(sizes=[[0.1]] * len(maps), ratios=[[1, 2]] * len(maps))
    return call(cvops.multibox_priors, args=(list(maps),), **options)


#: name -> (call, launches). A line has the kernel, the grid, the threads of a block, "+" and the
#: bytes of dynamic shared memory, "times" and the number of repetitions.
LAUNCHES = {
    # 4 blocks per multiprocessor have 2048 planes: 3 planes of 49 pixels and a pad each.
    "adaptive_avg_pooling, 2048 x 7 x 7 to 1": (
        lambda: averaging(2048, 7, 1),
        f"adaptive_avg_pooling 683 256 +{4 * 3 * 51}",
    ),
    # 8 columns of 4 planes and 8 rows: 512 planes / 4 x 60 / 8 rows x 60 columns / 256 threads.
    "adaptive_avg_pooling_backward, 512 x 60 x 60 to 6": (
        lambda: averaging_backward(512, 60, 6),
        "adaptive_avg_pooling_backward 240 256",
    ),
    # A thread writes 4 pixels of 8 rows: 8 x 21 maps x 480 / 8 x 480 / 4.
    "bilinear_resize, 8 x 21 x 60 x 60 to 480": (
        lambda: resizing(8, 60, 480),
        "bilinear_resize 4725 256",
    ),
    # A thread has a pixel of 4 planes: 8 x 21 / 4 x 60 x 60.
    "bilinear_resize_backward, 8 x 21 x 60 x 60 to 480": (
        lambda: resizing_backward(8, 60, 480),
        "bilinear_resize_backward 591 256",
    ),
    # A thread writes 4 pixels of 8 rows: 21 maps x (10 + 1) rows x 32 / 8 parts x 320 / 4.
    "bilinear_upsample, 21 x 10 x 10, 32 times": (
        lambda: upsampling(cvops.bilinear_upsample, 1, 10, 32),
        "bilinear_upsample 289 256",
    ),
    # A block has 10 columns of 256 / 10 rows out of 210: 25 x 88 sums, with 1 of padding per 32.
    "bilinear_upsample_backward, 21 x 80 x 80, 8 times": (
        lambda: upsampling(cvops.bilinear_upsample_backward, 1, 80, 8),
        f"bilinear_upsample_backward 9 256 +{4 * (2 * 8 + 25 * 90)}",
    ),
    # 256 columns and one row per step of a block: 4096 / 2 column tiles.
    "box_iou, 5444 x 300, giou": (
        lambda: call(cvops.box_iou, zeros(5444, 4), zeros(300, 4), kind="giou"),
        "box_iou_kind 2048x2 256",
    ),
    # A block has two boxes of a side.
    "box_iou_backward, 5444 x 64": (
        lambda: iou_backward(5444, 64),
        """box_iou_backward 2722 256
        box_iou_backward 32 256""",
    ),
    "box_iou_backward, 5444 x 64, ciou": (
        lambda: iou_backward(5444, 64, "ciou"),
        """box_angles 22 256
        box_angles 1 256
        box_iou_backward 2722 256
        box_iou_backward 32 256""",
    ),
    # 32 matrices of 64 pairs have one tile each. The results have 32 x 8 elements.
    "bipartite_matching, 32 x 8 x 8": (
        lambda: matching(32, 8, 8),
        """bipartite_matching_clear 1 256
        bipartite_matching_collect 32 256
        sort_tiles 32x1 32
        bipartite_matching_assign 32 1024""",
    ),
    # 2,456,400 pairs have 600 tiles of 4096 scores, and 1200 runs of 2048 keys. Each merge reduces
    # 16 runs to one, with at most 8192 blocks.
    "bipartite_matching, 24564 x 100": (
        lambda: matching(1, 24564, 100),
        """bipartite_matching_clear 96 256
        bipartite_matching_collect 600 256
        sort_tiles 1x1200 512
        sort_merge 1x8192 128 times 3
        bipartite_matching_assign 1 1024""",
    ),
    "bipartite_matching, no rows": (
        lambda: matching(2, 0, 300),
        "bipartite_matching_clear 3 256",
    ),
    # 5444 anchors have 22 tiles of 256.
    "box_decode, 32 x 5444": (lambda: decoding(32, 5444), "box_decode 22x32 256"),
    # 96 tiles of 86 images exceed 8192 blocks. A block has one image or two.
    "box_decode, 100 x 24564": (lambda: decoding(100, 24564), "box_decode 96x86 256"),
    "box_decode, 100,000 x 1": (lambda: decoding(100_000, 1), "box_decode 1x8192 256"),
    "box_decode, no images": (lambda: decoding(0, 5444), ""),
    "box_encode, 32 x 5444": (lambda: encoding(32, 5444, 8), "box_encode 22x32 256"),
    "box_encode, no anchors": (lambda: encoding(32, 0, 8), ""),
    # 25 threads write the 100 columns of a row. A block has 256 / 25 rows.
    "box_iou, 100 x 100": (lambda: iou(100, 100), "box_iou 10 256"),
    # A block has 1024 columns of a row.
    "box_iou, 3 x 5000": (lambda: iou(3, 5000), "box_iou 3x5 256"),
    # The grid has at most 4096 blocks for 100,000 rows.
    "box_iou, 100,000 x 1000": (lambda: iou(100_000, 1000), "box_iou 4096 256"),
    "box_iou, no rows": (lambda: iou(0, 100), ""),
    # A tile has 64 columns of 64 rows, with fewer columns more rows, at most 128.
    "box_iou_rotated, 1000 x 1000": (lambda: iou_rotated(1000, 1000), "box_iou_rotated 256 256"),
    "box_iou_rotated, 5000 x 40": (lambda: iou_rotated(5000, 40), "box_iou_rotated 50 256"),
    "box_iou_rotated, 5000 x 3": (lambda: iou_rotated(5000, 3), "box_iou_rotated 40 256"),
    "box_iou_rotated, no columns": (lambda: iou_rotated(5000, 0), ""),
    # One block for each set, four threads for each row.
    "box_nms, 7 x 100": (lambda: nms(7, 100), "box_nms_block 7 512"),
    "box_nms, 320": (lambda: nms(1, 320), "box_nms_block 1 1024"),
    # A block ranks 32 rows. A chunk of 4 x 256 rows has 2 x 4 x 5 blocks for pairs.
    "box_nms, 1000": (
        lambda: nms(1, 1000),
        """box_nms_rank 1x32 1024
        nms_chunk 1x40 512
        box_nms_write 1x4 256""",
    ),
    # Up to 5120 rows are ranked, more rows are sorted in tiles of 2048. A warp merges 32 keys of
    # few runs. Chunks have 8 x 256 rows, with 144 blocks for their pairs. The second chunk also has
    # 13 tiles of 256 later rows, in 264 / 26 parts. The third has 5 tiles, in at most 16 parts.
    "box_nms, 2 x 5121": (
        lambda: nms(2, 5121),
        f"""box_nms_score 2x21 256
        sort_compact 2x21 256
        sort_tiles 2x3 512
        sort_merge 2x41 128
        box_nms_gather 2x21 256
        nms_chunk 2x144 512
        nms_chunk 2x{144 + 13 * 10} 512
        nms_chunk 2x{144 + 5 * 16} 512
        box_nms_write 2x21 256""",
    ),
    # For many chunks, a second sort gives a spatial order. Each of the 79 tiles has 264 / 79 parts.
    "box_nms, 20,000 with classes": (
        lambda: nms(1, 20_000, id_index=0),
        f"""box_nms_score 1x79 256
        sort_compact 1x79 256
        sort_tiles 1x10 512
        sort_merge 1x625 128
        box_nms_gather 1x79 256
        nms_spatial_keys 1x79 256
        sort_tiles 1x10 512
        sort_merge 1x625 128
        nms_classes 1x79 512
        nms_chunk 1x144 512
        nms_chunk 1x{144 + 79 * 3} 512 times 9
        box_nms_write 1x79 256""",
    ),
    # The sort merges 49 runs of 2048 to 4 runs of 32768, and these to one run.
    "box_nms, 100,000": (
        lambda: nms(1, 100_000),
        f"""box_nms_score 1x391 256
        sort_compact 1x391 256
        sort_tiles 1x49 512
        sort_merge 1x3125 128
        sort_merge 1x782 128
        box_nms_gather 1x391 256
        nms_spatial_keys 1x391 256
        sort_tiles 1x49 512
        sort_merge 1x3125 128
        sort_merge 1x782 128
        nms_chunk 1x144 512
        nms_chunk 1x{144 + 391} 512 times 48
        box_nms_write 1x391 256""",
    ),
    # A block selects the best 1000 of 8400 rows and sorts them. They are one chunk.
    "box_nms, 32 x 8400, topk 1000": (
        lambda: nms(32, 8400, topk=1000),
        """box_nms_score 32x33 256
        box_nms_order 32 1024
        nms_chunk 32x40 512
        box_nms_write 32x33 256""",
    ),
    # Six threads copy a row.
    "box_nms, 1000, topk 0": (lambda: nms(1, 1000, topk=0), "box_nms_copy 24 256"),
    "box_nms_backward, 2000": (
        lambda: nms_backward(2000),
        """box_nms_backward_clear 8 256
        box_nms_backward_invert 8 256
        box_nms_backward 8 256""",
    ),
    # Shared memory has 21 x 21 cells. A block counts 4096 of 320 x 480 pixels.
    "confusion_matrix, 21 classes": (
        lambda: confusion(1),
        f"""confusion_matrix_clear 2 256
        confusion_matrix 38 256 +{4 * 21 * 21}""",
    ),
    # 200 x 200 cells do not fit into shared memory.
    "confusion_matrix, 200 classes": (
        lambda: call(cvops.confusion_matrix, *[zeros(5000, dtype=np.int32)] * 2, args=(200,)),
        """confusion_matrix_clear 157 256
        confusion_matrix 2 256""",
    ),
    # Shared memory has a table of 64 pairs of words for 21 colors. A block has 2048 pixels.
    "label_from_color, 21 colors": (lambda: labels(1), f"label_from_color 75 256 +{64 * 2 * 4}"),
    # The table of 1025 colors is in scratch memory.
    "label_from_color, 1025 colors": (
        lambda: call(
            cvops.label_from_color,
            zeros(100, 100, 3, dtype=np.uint8),
            np.arange(1025, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, :3].copy(),
        ),
        """label_from_color_table 1 1024
        label_from_color 5 256""",
    ),
    # One block for each image, four threads for each anchor.
    "multibox_detection, 8 x 100": (
        lambda: detection(8, 100, 21),
        "multibox_detection_block 8 512",
    ),
    # Tiles have 256 anchors, except in the sort. A block sorts the best 400 anchors and suppresses.
    "multibox_detection, 32 x 5444, topk 400": (
        lambda: detection(32, 5444, 21, nms_topk=400),
        """multibox_detection_score 32x22 256
        sort_compact 32x22 256
        multibox_detection_suppress 32 1024
        multibox_detection_write 32x22 256""",
    ),
    # A block sorts all anchors, which need not be compact. They are one chunk of 1024.
    "multibox_detection, 8 x 1000": (
        lambda: detection(8, 1000, 21),
        """multibox_detection_score 8x4 256
        multibox_detection_order 8 1024
        nms_chunk 8x40 512
        multibox_detection_write 8x4 256""",
    ),
    "multibox_detection, 32 x 5444": (
        lambda: detection(32, 5444, 21),
        f"""multibox_detection_score 32x22 256
        sort_compact 32x22 256
        sort_tiles 32x3 512
        sort_merge 32x43 128
        multibox_detection_gather 32x22 256
        nms_chunk 32x144 512
        nms_chunk 32x{144 + 14} 512
        nms_chunk 32x{144 + 6} 512
        multibox_detection_write 32x22 256""",
    ),
    "multibox_detection, 2 x 1000 without suppression": (
        lambda: detection(2, 1000, 3, nms_threshold=0),
        """multibox_detection_score 2x4 256
        sort_compact 2x4 256
        multibox_detection_write 2x4 256""",
    ),
    # A tile has up to 256 anchors of one map. The maps have 8192, 128 and 2 anchors.
    "multibox_priors, 64 x 64, 8 x 8, 1 x 1": (
        lambda: priors((64, 64), (8, 8), (1, 1)),
        "multibox_prior 34 256",
    ),
    # 1000 x 1000 x 2 anchors make 7813 tiles. The grid has at most 1024 blocks.
    "multibox_priors, 1000 x 1000": (lambda: priors((1000, 1000)), "multibox_prior 1024 256"),
    # A thread of match has 4 anchors, a thread of write has 1. assign has a block for each image.
    "multibox_target, 32 x 5444 x 64": (
        lambda: target(32, 5444, 64),
        """multibox_target_match 11x32 128
        multibox_target_assign 32 1024
        multibox_target_write 22x32 256""",
    ),
    # A thread of score has 8 anchors. refine has 256 blocks, 4 for each image.
    "multibox_target, 64 x 24564 x 8, mining": (
        lambda: target(64, 24564, 8, 21, **MINING),
        """multibox_target_match 48x64 128
        multibox_target_assign 64 1024
        multibox_target_score 12x64 256
        multibox_target_refine 4x64 512
        multibox_target_write 96x64 256""",
    ),
    # A block reads all 2000 scores of an image.
    "multiclass_nms, 32 x 20 x 100, topk 100": (
        lambda: nms_of_classes(32, 100, 20, topk=100),
        "multiclass_nms_block 32 1024",
    ),
    # 24,000 scores are in tiles of 4096.
    "multiclass_nms, 8 x 80 x 300, topk 300": (
        lambda: nms_of_classes(8, 300, 80, topk=300),
        f"""topk_sample 8 1024
        topk_collect {8 * 6} 256
        multiclass_nms_block 8 1024""",
    ),
    # 80 x 8400 scores are in tiles of 4096. A block sorts the best 1000.
    "multiclass_nms, 32 x 80 x 8400, topk 1000": (
        lambda: nms_of_classes(32, 8400, 80),
        f"""topk_sample 32 1024
        topk_collect {32 * 165} 256
        multiclass_nms_order 32 1024
        nms_chunk 32x40 512
        multiclass_nms_write 32x4 256""",
    ),
    # 20 tiles of candidates have 210 pairs.
    "matrix_nms, 5000": (
        lambda: nms(1, 5000, op=cvops.matrix_nms),
        """box_nms_rank 1x157 1024
        matrix_nms_clear 40 256
        matrix_nms_overlap 1x210 256
        matrix_nms_decay 1x210 256
        matrix_nms_key 1x20 256
        sort_compact 1x20 256
        sort_tiles 1x3 512
        sort_merge 1x40 128
        matrix_nms_write 1x118 256""",
    ),
    "soft_nms, 5000": (
        lambda: nms(1, 5000, op=cvops.soft_nms),
        """box_nms_rank 1x157 1024
        soft_nms 1 1024""",
    ),
    # The clusters may be as many as the boxes: their sort has three tiles and a merge.
    "weighted_boxes_fusion, 5000": (
        lambda: nms(1, 5000, op=cvops.weighted_boxes_fusion),
        """box_nms_rank 1x157 1024
        weighted_boxes_fusion 1 1024
        sort_tiles 1x3 512
        sort_merge 1x40 128
        weighted_boxes_fusion_write 1x118 256""",
    ),
    # 40,800 keys of an image take two merges. Three chunks have the best 6000.
    "proposal, 8 x 12 x 50 x 68": (
        lambda: proposals(8, 50, 68),
        """proposal_keys 8x160 256
        sort_tiles 8x20 512
        sort_merge 8x1024 128
        sort_merge 8x319 128
        proposal_gather 8x160 256
        nms_chunk 8x144 512
        nms_chunk 8x176 512
        nms_chunk 8x176 512
        proposal_write 8x24 256""",
    ),
    "multiclass_nms, 1 x 3 x 1000, topk 3000": (
        lambda: nms_of_classes(1, 1000, 3, topk=3000),
        """topk_select 1 1024
        sort_tiles 1x2 512
        sort_merge 1x24 128
        multiclass_nms_gather 1x12 256
        nms_chunk 1x144 512
        nms_chunk 1x208 512
        multiclass_nms_write 1x12 256""",
    ),
    "multiclass_nms, post_nms 0": (
        lambda: call(cvops.multiclass_nms, zeros(300, 9, 4), zeros(300, 2, 9), post_nms=0),
        "multiclass_nms_clear 2 256",
    ),
    # A chunk has 2048 rows: 144 blocks compare its pairs. The second chunk has 4 tiles of later
    # rows, which are compared with 8 x 256 rows of the first.
    "nms_rotated, 3000": (
        lambda: nms_rotated(1, 3000),
        """box_nms_rank 1x94 1024
        nms_rotated_gather 1x12 256
        nms_rotated_mask 1x144 256
        nms_rotated_resolve 1 512
        nms_rotated_suppress 1x4x8 256
        nms_rotated_mask 1x144 256
        nms_rotated_resolve 1 512
        box_nms_write 1x12 256""",
    ),
    "nms_rotated, no rows": (lambda: nms_rotated(3, 0), ""),
    # 300 x 49 bins in blocks of 256, and 6 groups of channels.
    "psroi_pooling, 300 rois of 21 x 7 x 7 x 38 x 63": (
        lambda: position_sensitive(300),
        "psroi_pooling 58x6 256",
    ),
    # 3 x 4 tiles, 49 cells, and 3 groups of 8 channels.
    "psroi_pooling_backward, 300 rois of 21 x 7 x 7 x 38 x 63": (
        lambda: position_sensitive_backward(300),
        "psroi_pooling_backward 1764 256",
    ),
    # As for psroi_pooling, and 300 x 49 parts in blocks of 64.
    "deformable_psroi_pooling, 300 rois of 21 x 7 x 7 x 38 x 63": (
        lambda: deformed(300),
        "deformable_psroi_pooling 58x6 256",
    ),
    "deformable_psroi_pooling_backward, 300 rois of 21 x 7 x 7 x 38 x 63": (
        lambda: deformed_backward(300),
        """deformable_psroi_pooling_backward 1764 256
        deformable_psroi_pooling_offsets 230 64""",
    ),
    # 1024 x 784 bins have 3136 blocks, more than 8 for each multiprocessor.
    "mask_target, 8 x 128 rois, 80 classes": (
        lambda: mask_targets(8, 128, 80),
        "mask_target 3136x1 256",
    ),
    # 10 x 784 bins have 31 blocks. The classes are divided into 8 * 132 / 31 parts.
    "mask_target, 10 rois, 80 classes": (
        lambda: mask_targets(1, 10, 80),
        "mask_target 31x34 256",
    ),
    "mask_target, no rois": (lambda: mask_targets(8, 0), ""),
    # A block has 4096 pixels.
    # A block has 512 anchors. One block per image assigns the best anchors.
    "match_anchors, 8 x 120000 x 16": (
        lambda: anchor_matches(8, 120_000, 16),
        "match_anchors_match 235x8 128",
    ),
    "match_anchors, 8 x 120000 x 16, low quality": (
        lambda: anchor_matches(8, 120_000, 16, allow_low_quality_matches=True),
        """match_anchors_clear 1 256
        match_anchors_match 235x8 128
        match_anchors_search 235x8 128""",
    ),
    "match_anchors, 8 x 8732 x 16, best anchors": (
        lambda: anchor_matches(8, 8732, 16, match_best_anchors=True),
        """match_anchors_clear 1 256
        match_anchors_match 18x8 128
        match_anchors_search 18x8 128
        match_anchors_assign 8 1024""",
    ),
    "match_anchors, no boxes": (
        lambda: anchor_matches(8, 600, 0, match_best_anchors=True),
        "match_anchors_match 2x8 128",
    ),
    "match_anchors, no anchors": (lambda: anchor_matches(8, 0), ""),
    "paste_masks, 100 x 800 x 1333": (lambda: pasting(100), "paste_masks 26036 256"),
    "paste_masks, no boxes": (lambda: pasting(0), ""),
    # A block of the match has 512 boxes. 2016 keys are one tile of the sort.
    "rcnn_target, 8 x 2000 x 16": (
        lambda: sampling(8, 2000, 16, num_sample=512),
        """rcnn_target_match 4x8 128
        sort_tiles 8x1 512
        rcnn_target_write 4x8 128""",
    ),
    "rcnn_target, no boxes": (lambda: sampling(8, 0, 0), "rcnn_target_write 1x8 128"),
    # 64 groups of channels. 3 blocks per multiprocessor fit, so a group has 6 splits: 132 * 3 / 64.
    # Shared memory has 16 bytes per pixel.
    "roi_align, 1000 rois of 256 x 50 x 68": (
        lambda: alignment(1000),
        f"roi_align 384 256 +{16 * 50 * 68}",
    ),
    # 49 x 30 bins are fewer than the pixels: 46 blocks of 32 threads for each group of channels.
    "roi_align, 30 rois of 8 x 50 x 68": (lambda: alignment(30, 8), "roi_align 92 32"),
    # 100 x 49 bins do not pay for copies of the planes: 77 blocks of 64 threads for each group.
    "roi_align, 100 rois of 16 x 50 x 68": (lambda: alignment(100, 16), "roi_align 308 64"),
    # 4 x 5 tiles, and 32 groups of 8 channels.
    "roi_align_backward, 1000 rois of 256 x 50 x 68": (
        lambda: alignment_backward(1000),
        "roi_align_backward 640 256",
    ),
    # 256 / 4 planes have 132 / 64 parts each. Shared memory has 36 bytes for each pixel, one word,
    # and 64 bytes for each of 500 rois: an int64 and 14 edges.
    "roi_pooling, 1000 rois of 256 x 50 x 68": (
        lambda: pooling(1000),
        f"roi_pooling_staged 128 1024 +{36 * 50 * 68 + 4 + 64 * 500}",
    ),
    # 49 x 30 bins are fewer than the pixels, so a block has 4 channels of a roi.
    "roi_pooling, 30 rois of 8 x 50 x 68": (lambda: pooling(30, 8), "roi_pooling 60 64"),
    "roi_pooling, 20 rois of 16 x 50 x 68": (lambda: pooling(20, 16), "roi_pooling 80 64"),
    # 256 / 49 threads with 4 channels each have 20 channels of a bin.
    "roi_pooling, 30 rois of 256 x 50 x 68": (lambda: pooling(30), "roi_pooling 390 256"),
    # The threads loop twice.
    "roi_pooling, 60 rois of 256 x 50 x 68": (lambda: pooling(60), "roi_pooling 420 256"),
    # 100 x 49 bins do not pay for copies of the planes.
    "roi_pooling, 100 rois of 16 x 50 x 68": (lambda: pooling(100, 16), "roi_pooling 400 64"),
    "roi_pooling, 1000 rois of 16 x 50 x 68": (
        lambda: pooling(1000, 16),
        f"roi_pooling_staged 132 1024 +{36 * 50 * 68 + 4 + 64 * 31}",
    ),
    # A block has one channel. Shared memory has its sums and a table.
    "roi_pooling_backward, 1000 rois of 256 x 50 x 68": (
        lambda: pooling_backward(1000),
        f"roi_pooling_backward 256 256 +{41984 + 4 * 50 * 68}",
    ),
    # As for roi_align.
    "rroi_align, 1000 rois of 256 x 50 x 68": (
        lambda: rotated(1000),
        f"""rroi_align_angles 4 256
        rroi_align 384 256 +{16 * 50 * 68}""",
    ),
    "rroi_align, 30 rois of 8 x 50 x 68": (
        lambda: rotated(30, 8),
        """rroi_align_angles 1 256
        rroi_align 92 32""",
    ),
    # A block of the match has 512 anchors, a tile of the selection 4096.
    "rpn_target, 8 x 36720 x 16": (
        lambda: region_proposals(8, 36720, 16),
        """rpn_target_clear 1148 256
        rpn_target_match 72x8 128
        rpn_target_label 9x8 1024
        rpn_target_sample 8 1024""",
    ),
    "rpn_target, no anchors": (lambda: region_proposals(8, 0), ""),
}


def parse(text):
    """Return the launches of a text as (kernel, grid, block, shared)."""
    found = []
    for line in text.splitlines():
        kernel, grid, block, shared, times = re.fullmatch(
            r" *(\w+) (\S+) (\d+)(?: \+(\d+))?(?: times (\d+))?", line
        ).groups()
        sizes = (*map(int, grid.split("x")), 1, 1)[:3]
        found += [(kernel, sizes, (int(block), 1, 1), int(shared or 0))] * int(times or 1)
    return found


def launches_of(call, launches):
    """Return the launches of a call; ``launches`` is the fixture that records them."""
    op, arrays, args, options = call
    launches.clear()
    op(*arrays, *args, **options, backend="listed")
    return [launch[:4] for launch in launches]


def test_every_op_has_a_list_of_launches():
    backward = [name for name in cvops.__dict__ if name.endswith("_backward")]
    listed = {name.partition(",")[0].replace("priors", "prior") for name in LAUNCHES}
    assert listed == {*OPS, *backward}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_match_the_list(launches, name):
    make, text = LAUNCHES[name]
    assert launches_of(make(), launches) == parse(text)


@pytest.mark.parametrize("name", SMALL)
def test_repeated_call_makes_the_launches_of_the_first_call(launches, name):
    first = launches_of(SMALL[name](7), launches)
    launches_of(SMALL[name](3), launches)
    assert launches_of(SMALL[name](7), launches) == first != []


class TestArguments:
    """The arguments of a launch have the types of the kernel's parameters."""

    ROWS = extension.native().Buffer(256, (1,), np.dtype(np.float32))

    @pytest.fixture
    def ops(self, launches):
        return backends.ListedCall().ops

    @pytest.mark.parametrize("num", [2**31, 2**32 + 5])
    def test_integer_beyond_int32_is_refused(self, ops, launches, num):
        with pytest.raises(
            OverflowError, match=f"^box_nms_backward_invert: {num} does not fit its parameter$"
        ):
            ops.box_nms_backward(self.ROWS, self.ROWS, self.ROWS, 1, num, 6)
        assert [x.kernel for x in launches] == ["box_nms_backward_clear"]

    def test_largest_int32_is_passed(self, ops, launches):
        ops.box_nms_backward(self.ROWS, self.ROWS, self.ROWS, 1, 2**31 - 1, 6)
        invert = launches[1]
        assert np.frombuffer(invert.arguments[3], np.int32).tolist() == [2**31 - 1]

    def test_arguments_are_the_bytes_of_the_parameters(self, ops, launches):
        """The kernel takes three pointers, the numbers of boxes and a flag."""
        boxes = [extension.native().Buffer(256 * i, (3, 4), np.float32) for i in (1, 2, 3)]
        ops.box_iou(*boxes, True)
        arguments = launches[0].arguments
        assert [len(x) for x in arguments] == [8, 8, 8, 4, 4, 4]
        values = [int.from_bytes(x, "little") for x in arguments]
        assert values == [256, 512, 768, 3, 3, 1]
