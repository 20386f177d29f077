"""The machine code (SASS) of the kernels: instructions, loads and stores of the inner loops."""

import re

import pytest

from cvops.backends import nvrtc

SOURCES = nvrtc.sources()

pytestmark = pytest.mark.parametrize("arch", [80, 90])


def instructions(code):
    """Return the instructions of machine code."""
    return re.findall(r"/\*[0-9a-f]{4}\*/\s+(.*?);", code)


def basic_blocks(code):
    """Return the text between labels and branches."""
    return re.split(r"^\.L_\w+:|BRA ", code, flags=re.MULTILINE)


def count(code, prefix):
    """Return the number of instructions that begin with a prefix."""
    return sum(text.startswith(prefix) for text in code)


@pytest.mark.parametrize("source", SOURCES)
def test_kernels_have_no_local_memory_and_no_fused_multiply_add(sass, source, arch):
    for kernel, code in sass(source, arch).items():
        assert not re.search(r"\b(LDL|STL)\b", code), kernel
        # Divisions and square roots consist of FFMA, and round once.
        if not re.search(r"MUFU\.(RCP|RSQ)", code):
            assert "FFMA" not in code, kernel


#: The kernels with float64: exp, log, sines, angles, rotated boxes, positions of pixels.
WITH_DOUBLES = {
    "bilinear_resize",
    "bilinear_resize_backward",
    "box_angles",
    "box_decode",
    "box_encode",
    "box_iou_rotated",
    "matrix_nms_decay",
    "matrix_nms_key",
    "matrix_nms_overlap",
    "multibox_detection_block",
    "multibox_detection_gather",
    "multibox_detection_order",
    "multibox_detection_suppress",
    "multibox_detection_write",
    "multibox_target_refine",
    "multibox_target_write",
    "nms_rotated_gather",
    "nms_rotated_mask",
    "nms_rotated_suppress",
    "proposal_gather",
    "proposal_keys",
    "rcnn_target_write",
    "rpn_target_sample",
    "rroi_align_angles",
    "soft_nms",
}


@pytest.mark.parametrize("source", SOURCES)
def test_only_the_listed_kernels_have_float64_arithmetic(sass, source, arch):
    for kernel, code in sass(source, arch).items():
        if "f64" in kernel:  # some of them only copy doubles
            continue
        has = bool(re.search(r"\b(DADD|DMUL|DFMA|DSETP|DMNMX)\b", code))
        assert has == (kernel in WITH_DOUBLES), kernel


@pytest.mark.parametrize(
    ("kernel", "loops"),
    [("nms_chunk", 2), ("nms_classes", 1)],  # pairs in a chunk, and pairs of a chunk and later rows
    ids=["nms_chunk", "nms_classes"],
)
def test_pair_of_the_suppression_takes_at_most_15_instructions(sass, kernel, loops, arch):
    """The range begins with the load of four kept boxes, and ends with the result for a box.

    A pair takes ten instructions: minima and maxima 5, differences and the sum of the minimum
    overlaps 3, the product and its comparison 2. A division follows for the pairs near the
    threshold.
    """
    blocks = [instructions(block) for block in basic_blocks(sass("nms", arch)[kernel])]
    found = [block for block in blocks if sum("FSETP.GEU" in text for text in block) == 4]
    assert len(found) == loops
    for code in found:
        load = next(i for i, text in enumerate(code) if text.startswith("LDS.128"))
        assert count(code, "FMNMX") == 20
        assert not count(code, ("MUFU", "CALL"))
        assert len(code[load:]) <= 4 * 14 + 1  # and the load of the rule for sides in pixels


def test_step_of_the_sort_takes_at_most_36_instructions(sass, arch):
    """Four keys of 8 bytes are exchanged by shuffles, and the better key of each pair stays."""
    code = sass("sort", arch)["sort_tiles"]
    assert not re.search(r"\b(I2F|MUFU|CALL)\b", code)  # a division
    code = instructions(code)
    shuffles = [i for i, text in enumerate(code) if text.startswith("SHFL.BFLY")]
    assert len(shuffles) == 8
    end = next(i for i, text in enumerate(code) if i > shuffles[0] and "BRA" in text)
    assert end - shuffles[0] <= 8 + 8 + 8 + 12  # shuffles, comparisons, selections, others


def test_step_of_a_merge_loads_all_keys_before_it_compares(sass, arch):
    """One loop merges two runs, and two loops merge four runs."""
    code = sass("sort", arch)["sort_merge"]
    assert not re.search(r"\b(I2F|MUFU)\b", code)
    steps = [re.findall(r"LDG|ISETP\.\w+\.U32", block) for block in basic_blocks(code)]
    loads = sorted(step.count("LDG") for step in steps if step.count("LDG") and len(step) > 1)
    assert loads == [2, 4, 4]
    for step in steps:
        assert "LDG" not in step[step.count("LDG") :]


@pytest.mark.parametrize("kernel", ["box_nms_rank", "box_nms_block"])
def test_comparison_of_the_ranking_takes_at_most_4_instructions(sass, kernel, arch):
    """A step of the loop compares the score of a row with those of four times four others."""
    loops = [instructions(block) for block in basic_blocks(sass("box_nms", arch)[kernel])]
    found = [loop for loop in loops if count(loop, "LDS.128") == 4]
    assert found
    assert min(len(loop) for loop in found) <= 16 * 4


def test_anchor_takes_at_most_40_instructions_and_no_division(sass, arch):
    """Two loops end with a store of 16 bytes: without clipping, and with 12 more instructions."""
    code = sass("multibox_prior", arch)["multibox_prior"]
    assert not re.search(r"\b(MUFU|CALL|F2I|I2F\.U32\.RP)\b", code)
    anchors = [instructions(loop) for loop in re.split(r"^\.L_x_\d+:$", code, flags=re.MULTILINE)]
    lengths = sorted(len(anchor) for anchor in anchors if any("STG" in x for x in anchor))
    assert len(re.findall(r"\bSTG\.E\.128\b", code)) == len(re.findall(r"\bSTG\b", code)) == 2
    assert lengths[0] <= 40
    assert lengths[1] <= 52


def test_pixel_of_the_pooling_takes_at_most_20_instructions(sass, arch):
    """The range begins with the load of the values of four channels.

    Each value takes a comparison and two selections: of its index, and of the value. The latter is
    a predicated addition, which has twice the throughput of a selection.
    """
    code = instructions(sass("roi_pooling", arch)["roi_pooling_staged"])
    load = next(i for i, text in enumerate(code) if text.startswith("LDS.128"))
    size = next(i for i, text in enumerate(code[load:]) if "BRA" in text)
    pixel = code[load : load + size]
    assert count(pixel, "FSETP.GT") == 4
    assert sum(bool(re.match(r"@!?P\d FADD", text)) for text in pixel) == 4
    assert size <= 20


def test_four_pairs_of_the_matching_take_at_most_155_instructions(sass, arch):
    """The range begins with the load of a ground truth, and ends with the best of four IoUs.

    A pair without overlap takes 8 instructions: minima and maxima 4, differences 2, comparisons 2.
    A pair with overlap takes 12 more, most of them for the division.
    """
    code = instructions(sass("multibox_target", arch)["multibox_target_match"])
    end = next(i for i, text in enumerate(code) if re.match(r"REDUX\.MAX(\.U32)? ", text))
    load = max(i for i in range(end) if code[i].startswith("LDS.128"))
    pairs = code[load:end]
    assert count(pairs, "MUFU.RCP") == 4
    assert sum("FMNMX" in text for text in pairs) == 4 * 4 + 3 + 4
    assert not any(re.search(r"\b(D[A-Z]+|FSEL)\b", text) for text in pairs)
    assert len(pairs) <= 155


def test_approximate_exponential_takes_one_product_and_two_sums(sass, arch):
    """The two sums are the difference of the scores, and the sum of the exponentials."""
    code = sass("mining", arch)["multibox_target_score"]
    exponentials = len(re.findall(r"MUFU\.EX2", code))
    assert len(re.findall(r"FMUL", code)) == exponentials
    assert len(re.findall(r"FADD", code)) <= 2 * exponentials + 16
    # Loops take five classes and then one, for rows aligned to 16 bytes and for other rows.
    assert exponentials >= 2 * 4 * 6


@pytest.mark.parametrize(
    ("source", "kernel", "instruction"),
    [
        ("bilinear_upsample", "bilinear_upsample", r"STG\.E\.128"),
        ("box_decode", "box_decode", r"LDG\.E\.128"),
        ("box_decode", "box_decode", r"STG\.E\.128"),
        ("box_encode", "box_encode", r"LDG\.E\.128"),
        ("box_encode", "box_encode", r"STG\.E\.128"),
        ("box_iou", "box_iou", r"LDG\.E\.128"),
        ("box_iou", "box_iou", r"STG\.E\.EF\.128"),
        ("confusion_matrix", "confusion_matrix", r"LDG\.E\.128"),
        ("label_from_color", "label_from_color", r"STG\.E\.128"),
        ("multibox_prior", "multibox_prior", r"STG\.E\.128"),
        ("nms", "nms_chunk", r"LDG\.E\.128"),
        ("nms", "nms_chunk", r"LDS\.128"),
        ("roi_pooling", "roi_pooling_staged", r"LDS\.128"),
        ("multibox_target", "multibox_target_match", r"LDG\.E\.128"),
        ("multibox_target", "multibox_target_match", r"LDS\.128"),
        ("multibox_target", "multibox_target_match", r"STG\.E\.128"),
        ("mining", "multibox_target_score", r"LDG\.E\.EF\.128"),
        ("mining", "multibox_target_score", r"STG\.E\.128"),
        ("mining", "multibox_target_refine", r"LDG\.E\.128"),
        ("multibox_target", "multibox_target_write", r"STG\.E\.128"),
        ("multibox_detection", "multibox_detection_write", r"STG\.E\.64"),
        ("multiclass_nms", "multiclass_nms_write", r"STG\.E\.64"),
    ],
    ids=lambda text: text.replace("\\", ""),
)
def test_loads_and_stores_are_wide(sass, source, kernel, instruction, arch):
    assert re.search(instruction, sass(source, arch)[kernel])


def test_thread_loads_64_bytes_of_scores_before_it_compares(sass, arch):
    code = instructions(sass("topk", arch)["topk_collect"])
    loads = [i for i, text in enumerate(code) if text.startswith("LDG.E.128")]
    assert len(loads) == 4
    assert loads[3] - loads[0] <= 6


@pytest.mark.parametrize("kernel", ["topk_sample", "topk_select"])
def test_selection_has_no_division_and_no_loop_of_compare_and_swap(sass, kernel, arch):
    """Shared memory has native atomics for 32 bits; others are loops of ATOMS.CAS."""
    assert not re.search(r"\b(I2F|MUFU)\b|\bATOMS\.CAS", sass("topk", arch)[kernel])
