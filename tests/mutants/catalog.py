"""The mutants, and for each the test that must fail."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A fault in one file, and the test that must find it."""

    name: str
    #: A path from the root of the repository.
    file: str
    #: A text that occurs once in the file, and the text that replaces it.
    text: str
    replacement: str
    #: The test function: ``<file>::<name>``, both as in a node id of pytest.
    test: str
    #: An expression for ``-k``, such as "emulated": only these cases of the test run.
    cases: str = ""

    @property
    def needs_build(self) -> bool:
        """True if the extension must be compiled. Tests compile kernels and the pool themselves."""
        return self.file.startswith("bindings/") and self.test != _POOL


_POOL = "tests/native/test_threads.py::test_pool_passes_a_sanitizer"
_NMS_ON_CPU = "tests/ops/test_box_nms_on_cpu.py"
_NMS, _TARGET = "tests/ops/test_box_nms.py", "tests/ops/test_multibox_target.py"
_MINING, _MULTICLASS = "tests/ops/test_mining.py", "tests/ops/test_multiclass_nms.py"
_CONFUSION, _ALIGN = "tests/ops/test_confusion_matrix.py", "tests/ops/test_roi_align.py"
_POOLING, _CACHE = "tests/ops/test_roi_pooling.py", "tests/package/test_cache.py"
_PASTE = "tests/ops/test_paste_masks.py"
_COLORS = "tests/ops/test_label_from_color.py"

KERNELS = [
    Mutant(
        "prefix sum without its second barrier",
        "kernels/nms/last_block.cuh",
        "    __syncthreads();  // all threads have read warp_sums\n",
        "",
        "tests/gpu/test_warp.py::test_prefix_sum_of_a_block_counts_the_bits_before_each_word",
    ),
    Mutant(
        "resolution of a chunk without a barrier between reads and writes",
        "kernels/nms/chunk.cuh",
        "    __syncthreads();  // all threads have read the shared words\n",
        "",
        f"{_NMS}::test_sanitizers_find_no_error",
        "thread",
    ),
    Mutant(
        "bound of the overlap above the rule",
        "kernels/nms/candidate.cuh",
        "t / (1 + t) * 0.9999f * area",
        "t / (1 + t) * 1.001f * area",
        f"{_NMS}::test_pairs_near_the_threshold_have_equal_bits",
        "emulated and not small",
    ),
    Mutant(
        "suppression at an equal IoU",
        "kernels/nms/rule.cuh",
        ": iou > rule.threshold",
        ": iou >= rule.threshold",
        f"{_MULTICLASS}::test_kept_rows_by_hand",
        "emulated",
    ),
    Mutant(
        "tiles of the sort without a second buffer",
        "kernels/sort_tile.cuh",
        "        side ^= 1;\n",
        "",
        "tests/gpu/test_warp.py::test_tile_of_keys_is_sorted",
    ),
    Mutant(
        "list of top-k with one candidate too few",
        "kernels/nms/score_filter.cuh",
        "(listed >= topk ||",
        "(listed >= topk - 1 ||",
        f"{_MULTICLASS}::test_bound_of_the_sample_that_excludes_one_candidate_loses_no_row",
        "emulated",
    ),
    Mutant(
        "last of equal truths",
        "kernels/target_assignment.cuh",
        "(key == own && other < k)",
        "(key == own && other > k)",
        f"{_TARGET}::test_repeated_ground_truth_equals_the_reference",
        "emulated",
    ),
    Mutant(
        "assignment of worse pairs than the best conflict",
        "kernels/target_assignment.cuh",
        "if (key && key >= best_conflict && ",
        "if (key && ",
        f"{_TARGET}::test_first_stage_is_a_stable_matching",
        "emulated",
    ),
    Mutant(
        "approximate scores without a bound of their error",
        "kernels/mining.cuh",
        "const float error = 3 * approx_error(num_classes);",
        "const float error = 0;",
        f"{_MINING}::test_order_of_nearly_equal_scores_is_that_of_exact_ones",
        "emulated and not small",
    ),
    Mutant(
        "bound of approximate scores too tight",
        "kernels/mining_scores.cuh",
        "return 0x1p-13f + 0x1p-21f * (float)num_classes;",
        "return 0x1p-24f;",
        f"{_MINING}::test_order_of_nearly_equal_scores_is_that_of_exact_ones",
        "emulated and not small",
    ),
    Mutant(
        "counts of a block added in 32 bits",
        "kernels/confusion_matrix.cuh",
        "atomicAdd(matrix + k, (uint64)shared[k])",
        "atomicAdd((uint32*)(matrix + k), shared[k])",
        f"{_CONFUSION}::test_kernel_counts_beyond_2_to_the_32",
    ),
    Mutant(
        "runs of pixels added in 32 bits",
        "kernels/confusion_matrix.cuh",
        "atomicAdd(counts.matrix + run.cell, (uint64)run.length)",
        "atomicAdd((uint32*)(counts.matrix + run.cell), (uint32)run.length)",
        f"{_CONFUSION}::test_kernel_counts_beyond_2_to_the_32",
    ),
    Mutant(
        "last of equal colors",
        "kernels/label_from_color.cuh",
        "atomicMin(&table.indices[slot], k)",
        "table.indices[slot] = k",
        f"{_COLORS}::TestByHand::test_equal_colors_give_the_lowest_index",
        "emulated",
    ),
    Mutant(
        "hash table without probing",
        "kernels/label_from_color.cuh",
        "if (table.colors[slot] == kNoColor) return unknown;",
        "return unknown;",
        f"{_COLORS}::test_colors_with_equal_hashes_are_found",
        "emulated",
    ),
    Mutant(
        "gradient of a sample at the edge without the second pixel",
        "kernels/roi_align.cuh",
        "            if (twice) sums[n] += top[n] * 0.0f;\n",
        "",
        f"{_ALIGN}::test_results_and_gradients_equal_the_reference",
        "emulated",
    ),
    Mutant(
        "samples in the pixel before the map are outside",
        "kernels/roi_samples.cuh",
        "position >= -1.0f",
        "position >= -0.5f",
        f"{_ALIGN}::TestByHand::test_samples_of_an_axis",
        "emulated",
    ),
    Mutant(
        "gradients of a group in reverse order",
        "kernels/roi_pooling_backward.cuh",
        "        const int first = __clz((int)in_group);\n",
        "        const int first = 32 - __ffs((int)in_group);\n",
        f"{_POOLING}::TestCollisions::test_outputs_at_one_pixel_are_summed_in_order",
        "emulated",
    ),
    Mutant(
        "term of the Taylor series of exp",
        "kernels/exp_log.cuh",
        "p = p * r + 1.0 / 720;",
        "p = p * r + 1.0 / 721;",
        "tests/ops/test_math.py::test_kernel_functions_have_the_bits_of_the_reference",
    ),
    Mutant(
        "factor of Soft-NMS for a NaN",
        "kernels/soft_nms.cuh",
        "return iou == iou ? factor : 1.0f;",
        "return factor;",
        "tests/ops/test_soft_nms.py::test_nan_and_empty_boxes_lower_no_score",
        "emulated",
    ),
    Mutant(
        "first of several boxes gets their best anchor",
        "kernels/match_anchors.cuh",
        "return kBetween - 1 - k;",
        "return -0x7fffffff + k;",
        "tests/ops/test_match_anchors.py::TestByHand::test_last_of_several_boxes_gets_their_best_anchor",
        "emulated",
    ),
    Mutant(
        "box whose IoU is the threshold joins a cluster",
        "kernels/weighted_boxes_fusion.cuh",
        "if (!(iou > most) ||",
        "if (!(iou >= most) ||",
        "tests/ops/test_weighted_boxes_fusion.py::TestByHand::"
        "test_iou_at_the_threshold_fuses_nothing",
        "emulated",
    ),
    Mutant(
        "side of a proposal without its last pixel",
        "kernels/proposal.cuh",
        "return high - low + 1.0f;",
        "return high - low;",
        "tests/ops/test_proposal.py::test_suppression_counts_both_corners",
        "emulated",
    ),
    Mutant(
        "kernel that does not wait for the earlier launches",
        "kernels/soft_nms.cuh",
        "  wait_for_earlier_launches();\n",
        "",
        "tests/gpu/test_wait.py::test_kernel_waits_before_it_accesses_memory",
        "soft_nms",
    ),
]

BINDINGS = [
    Mutant(
        "bound of the overlap of Soft-NMS and fusion above the rule",
        "bindings/cpu/min_overlap.h",
        "0.9999 * t / (1 + t)",
        "1.001 * t / (1 + t)",
        "tests/ops/test_weighted_boxes_fusion.py::"
        "test_box_joins_a_cluster_if_their_iou_is_above_the_threshold_by_one_bit",
    ),
    Mutant(
        "last term of an exponential of Soft-NMS lost",
        "bindings/cpu/soft_nms_factors.h",
        "r4 * (1.0 / 479001600)",
        "r4 * 0.0",
        "tests/native/test_simd.py::test_exponentials_of_soft_nms_have_the_bits_of_the_kernels",
    ),
    Mutant(
        "IoUs of Soft-NMS on the CPU that a move loses",
        "bindings/cpu/soft_nms.cpp",
        "end -= begin, begin = 0;",
        "end = begin = 0;",
        "tests/ops/test_soft_nms.py::"
        "test_hundreds_of_overlaps_of_a_box_have_the_bits_of_the_reference",
    ),
    Mutant(
        "approximate scores on the CPU without a bound of their error",
        "bindings/cpu/mining.cpp",
        "std::exp(1e-3 + 2.5e-7 * shape_.num_classes)",
        "1.0",
        f"{_MINING}::test_order_of_nearly_equal_scores_is_that_of_exact_ones",
        "native",
    ),
    Mutant(
        "top-k on the CPU with one candidate too few",
        "bindings/cpu/multiclass_nms.cpp",
        "if (best.count() == options.topk ||",
        "if (best.count() >= options.topk - 1 ||",
        f"{_MULTICLASS}::test_bound_of_the_sample_that_excludes_one_candidate_loses_no_row",
        "native",
    ),
    Mutant(
        "candidates at the cut dropped",
        "bindings/cpu/multiclass_nms.cpp",
        "left += keys_[i] <= last;",
        "left += keys_[i] < last;",
        f"{_MULTICLASS}::test_output_is_in_order_of_scores",
        "native",
    ),
    Mutant(
        "counts of all parts added in 32 bits",
        "bindings/cpu/confusion_matrix.cpp",
        "matrix[k] += counts[k];",
        "matrix[k] = (uint32)(matrix[k] + counts[k]);",
        f"{_CONFUSION}::test_more_than_2_to_the_32_equal_pixels_are_counted",
    ),
    Mutant(
        "reach of the spatial grid too short",
        "bindings/cpu/nms_broad_phase.h",
        "1.01 * (1 - part)",
        "0.9 * (1 - part)",
        f"{_NMS}::test_most_distant_box_above_the_threshold_is_suppressed",
    ),
    Mutant(
        "reach of the levels of sizes too short",
        "bindings/cpu/nms_levels.h",
        "return 1.01 * std::max(distance(",
        "return 0.8 * std::max(distance(",
        f"{_NMS}::test_most_distant_box_in_levels_of_sizes_is_suppressed",
    ),
    Mutant(
        "anchors after the first that a search finds lost",
        "bindings/cpu/target_assignment.cpp",
        "found.is_last = found.num < kFound;",
        "found.is_last = found.num <= kFound;",
        f"{_TARGET}::test_ground_truths_that_compete_for_anchors_do_not_change_a_bit",
    ),
    Mutant(
        "memory of a live result given to another one",
        "bindings/runtime/result_pool.cpp",
        "blocks_.erase(std::next(found).base());",
        "",
        "tests/native/test_result_pool.py::test_live_results_never_share_memory",
    ),
    Mutant(
        "bound of the overlap on the CPU above the rule",
        "bindings/cpu/min_overlap.h",
        "0.9999 * t / (1 + t)",
        "1.001 * t / (1 + t)",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "boxes that pass the bound of the overlap suppressed without the rule",
        "bindings/cpu/nms.cpp",
        "found |= passes[k] & (int)suppresses(other, b, rule);",
        "found |= passes[k];",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "boxes within the bounds of the rule kept without the rule",
        "bindings/cpu/nms_lanes.h",
        "maybe = overlap > bounds.low * all",
        "maybe = surely",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "equal scores in the order of the lanes",
        "bindings/cpu/nms_few.cpp",
        " | ((score == highest) & (at < best))",
        "",
        f"{_NMS_ON_CPU}::test_few_boxes_in_groups",
    ),
    Mutant(
        "rows after the first steps lost",
        "bindings/cpu/nms_few.cpp",
        "count.left = write_left(numbers + count.kept, blocks, num);",
        "count.left = 0;",
        f"{_NMS_ON_CPU}::test_few_boxes_in_groups_and_alone",
    ),
    Mutant(
        "boxes near the threshold removed by a guess",
        "bindings/cpu/nms_guesses.h",
        "compare<kForm>(guessed.at(k), b, rows.bounds).surely & suits",
        "may_suppress<kForm>(guessed.at(k), b, rows.bounds) & suits",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "boxes near the threshold removed by a list",
        "bindings/cpu/nms_kept_lists.h",
        "if (any(found)) return true;",
        "return true;",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "rows that are no candidates left in groups",
        "bindings/cpu/nms_groups.cpp",
        "(own[k] > -kInfinity) & (own[k] < least)",
        "own[k] < least",
        f"{_NMS_ON_CPU}::test_groups_whose_best_boxes_come_first",
    ),
    Mutant(
        "boxes near the threshold not compared with the kept boxes of groups",
        "bindings/cpu/nms_marked_block.h",
        "if (!any(unsure)) continue;",
        "continue;",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "boxes of a class near the threshold not compared by the rule",
        "bindings/cpu/nms_all_later.cpp",
        "if (!any(unsure)) continue;",
        "continue;",
        f"{_NMS_ON_CPU}::test_pairs_of_a_small_class_near_the_threshold",
    ),
    Mutant(
        "slots of removed boxes not moved",
        "bindings/cpu/nms_marks.cpp",
        "boxes.slot_of[box] = is_marked ? boxes.removed_slot : to;",
        "",
        f"{_NMS_ON_CPU}::test_dense_groups_of_the_best_boxes",
    ),
    Mutant(
        "pairs of boxes near the threshold lost",
        "bindings/cpu/nms_pairs.cpp",
        "if (verdict.unsure)",
        "if (false)",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "pairs decided in the order of the slots",
        "bindings/cpu/nms_pairs.cpp",
        "{std::min(i, j), std::max(i, j)}",
        "{i, j}",
        f"{_NMS_ON_CPU}::test_boxes_of_many_sizes",
    ),
    Mutant(
        "pairs with the slots after the last box",
        "bindings/cpu/nms_lanes.h",
        "{{2, 2, -2, -2}, 1}",
        "{{0, 0, 0, 0}, 1}",
        "tests/ops/test_proposal.py::test_wide_box_at_the_origin_suppresses_the_boxes_inside_only",
    ),
    Mutant(
        "pairs of boxes of two classes",
        "bindings/cpu/nms_pairs.cpp",
        "maybe[k] &= class_of_slot[i] == of_class;",
        "maybe[k] &= of_class == of_class;",
        f"{_NMS_ON_CPU}::test_pairs_of_classes",
    ),
    Mutant(
        "pairs in distant rows of cells lost",
        "bindings/cpu/nms_pairs.cpp",
        "for (int i = kRows; i < num_rows; ++i)",
        "for (int i = kRows; i < 0; ++i)",
        f"{_NMS_ON_CPU}::test_boxes_of_many_sizes",
    ),
    Mutant(
        "pairs in long rows of cells lost",
        "bindings/cpu/nms_pairs.cpp",
        "if (at + 2 * kStep < end)",
        "if (false)",
        f"{_NMS_ON_CPU}::test_boxes_of_many_sizes",
    ),
    Mutant(
        "pairs in strips near the threshold taken without the rule",
        "bindings/cpu/nms_strips.cpp",
        "if (verdict.unsure) is_pair = suppresses_by_rule<kForm>(a, b, rule);",
        "is_pair |= verdict.unsure;",
        f"{_NMS_ON_CPU}::test_pairs_near_the_threshold",
    ),
    Mutant(
        "pairs in strips decided in the order of the slots",
        "bindings/cpu/nms_strips.cpp",
        "if (rows.key(other) < rows.key(better)) std::swap(better, other);",
        "",
        f"{_NMS_ON_CPU}::test_spread_boxes",
    ),
    Mutant(
        "boxes of two strips in the first one only",
        "bindings/cpu/nms_strips.cpp",
        "found += more[k] > 0;",
        "found += 0;",
        f"{_NMS_ON_CPU}::test_spread_boxes",
    ),
    Mutant(
        "pairs of distant slots of a strip lost",
        "bindings/cpu/nms_strips.cpp",
        "at <= last; at += kBits",
        "at <= last; at += 2 * kBits",
        f"{_NMS_ON_CPU}::test_pairs_of_wide_boxes_among_spread_ones",
    ),
    Mutant(
        "boxes that do not suit the strips",
        "bindings/cpu/nms_strips.cpp",
        "if (any(unsuited) || crowd",
        "if (crowd",
        f"{_NMS_ON_CPU}::test_spread_boxes",
    ),
    Mutant(
        "kept boxes lost where a search takes over from marks",
        "bindings/cpu/nms.cpp",
        "kept.insert_first(first, is_kept);",
        "",
        f"{_NMS_ON_CPU}::test_groups_that_are_far_from_each_other",
    ),
    Mutant(
        "box in the gap of a place",
        "bindings/cpu/nms_parts.cpp",
        "begin(b) > at_ + margin_ ? 1 : kNeither",
        "1",
        f"{_NMS_ON_CPU}::test_parts_with_a_gap",
    ),
    Mutant(
        "box in the range of areas",
        "bindings/cpu/nms_parts.cpp",
        "b.area > high_ ? 1 : kNeither",
        "1",
        f"{_NMS_ON_CPU}::test_parts_with_a_gap",
    ),
    Mutant(
        "areas that are too close",
        "bindings/cpu/nms_parts.cpp",
        "std::sqrt(0.9 * threshold)",
        "std::sqrt(90 * threshold)",
        f"{_NMS_ON_CPU}::test_parts_with_a_gap",
    ),
    Mutant(
        "keys with equal high digits not sorted",
        "bindings/cpu/sort.cpp",
        "insertion_sort(keys, num)) return keys;",
        "insertion_sort(keys, num) || true) return keys;",
        f"{_NMS_ON_CPU}::test_scores_with_equal_high_digits",
    ),
    Mutant(
        "last box of a part not compared with old boxes",
        "bindings/cpu/nms.cpp",
        "std::min(end, begin + kPart)",
        "std::min(end, begin + kPart - 1)",
        f"{_NMS}::test_threads_that_share_a_set_do_not_change_a_bit",
    ),
    Mutant(
        "no slack between certain pixels and the threshold",
        "bindings/cpu/paste_masks.cpp",
        "std::abs(threshold) * 0x1p-20f + 0x1p-100f",
        "std::abs(threshold) * 0x1p-60f",
        f"{_PASTE}::test_cells_next_to_the_threshold_have_the_bits_of_the_reference",
    ),
    Mutant(
        "infinite cells give certain pixels",
        "bindings/cpu/paste_masks.cpp",
        "x >= one && x <= max",
        "x >= one",
        f"{_PASTE}::test_cells_of_extreme_numbers_have_the_bits_of_the_reference",
    ),
    Mutant(
        "high cell of a window beyond the vector",
        "bindings/cpu/paste_masks.cpp",
        "return last + 1 < lanes;",
        "return last < lanes;",
        f"{_PASTE}::test_boxes_of_each_width_have_the_bits_of_the_reference",
    ),
    Mutant(
        "last call of a turn skipped",
        "bindings/runtime/parallel.h",
        "std::min(work.count, first + work.turn)",
        "std::min(work.count - 1, first + work.turn)",
        _POOL,
        "address",
    ),
    Mutant(
        "threads of a parent used after a fork",
        "bindings/runtime/threads.cpp",
        "    pthread_atfork(nullptr, nullptr, after_fork);\n",
        "    (void)after_fork;\n",
        "tests/native/test_threads.py::test_worker_starts_with_one_thread",
    ),
]

PYTHON = [
    Mutant(
        "checkpoint without a wait for running means",
        "cvops/checkpoint/__init__.py",
        "    mx.nd.waitall()  # a static graph writes running means",
        "    # a static graph writes running means",
        "tests/models/test_checkpoint.py::test_checkpoint_after_a_backward_has_its_running_means",
    ),
    Mutant(
        "another number of words of numpy.random",
        "cvops/checkpoint/_checks.py",
        "_WORDS = 624",
        "_WORDS = 623",
        "tests/models/test_checkpoint.py::test_load_restores_the_random_generators",
    ),
    Mutant(
        "failed write that leaves its file",
        "cvops/_files.py",
        "    finally:\n        part.unlink(missing_ok=True)\n",
        "    finally:\n        pass\n",
        "tests/models/test_checkpoint.py::test_failed_save_keeps_the_old_file",
    ),
    Mutant(
        "cached file that others can write",
        "cvops/backends/cache.py",
        "                if info.st_mode & _OTHERS_WRITE:\n                    continue\n",
        "",
        f"{_CACHE}::test_file_that_others_can_write_is_not_loaded",
    ),
    Mutant(
        "cached file of another user",
        "cvops/backends/cache.py",
        "if not stat.S_ISREG(info.st_mode) or _is_foreign(info):",
        "if not stat.S_ISREG(info.st_mode):",
        f"{_CACHE}::test_files_of_another_user_are_not_loaded",
    ),
    Mutant(
        "orientation 8 unknown",
        "cvops/images.py",
        "orientation in range(2, 9)",
        "orientation in range(2, 8)",
        "tests/models/test_images.py::test_image_is_turned_by_its_exif_orientation",
    ),
    Mutant(
        "boxes of VOC from pixel 1",
        "cvops/datasets/voc_annotations.py",
        "(x1 - 1, y1 - 1, x2, y2)",
        "(x1, y1, x2, y2)",
        "tests/models/test_voc_instances.py::test_annotation_of_voc_gives_its_objects",
    ),
    Mutant(
        "masks by the best overlap before their numbers",
        "cvops/datasets/voc_instances.py",
        "for pairs, least in ((own, 0.5), (others, _SAME), (own, 1e-9)):",
        "for pairs, least in ((others, _SAME), (own, 0.5), (own, 1e-9)):",
        "tests/models/test_voc_instances.py::test_objects_with_similar_boxes_keep_their_numbers",
    ),
    Mutant(
        "header that joins records",
        "cvops/datasets/recordio.py",
        "if place not in expected:",
        "if place > _LAST:",
        "tests/models/test_data.py::test_header_that_joins_records_is_rejected",
    ),
    Mutant(
        "length that joins records",
        "cvops/datasets/recordio.py",
        'int.from_bytes(_MAGIC, "little")).any()',
        'int.from_bytes(_MAGIC, "little")).all()',
        "tests/models/test_data.py::test_header_that_joins_records_is_rejected",
    ),
    Mutant(
        "group of shapes without its masks",
        "cvops/datasets/annotations/labelme.py",
        "pixels = [x.mask for x in things if isinstance(x.mask, RunLengths)]",
        "pixels = [x.mask for x in things[:1] if isinstance(x.mask, RunLengths)]",
        "tests/models/test_annotations_labelme.py::test_labelme_group_has_the_pixels_of_all_its_masks",
    ),
    Mutant(
        "records with boxes in pixels",
        "cvops/datasets/records.py",
        "outside = (abs(boxes) > 2).any(axis=1)",
        "outside = (abs(boxes) > 2e9).any(axis=1)",
        "tests/models/test_data.py::test_label_that_is_not_for_detection_is_rejected",
    ),
    Mutant(
        "object found twice",
        "cvops/metrics/_detection.py",
        "                free[overlaps.argmax()] = False\n",
        "                pass\n",
        "tests/models/test_metrics.py::test_average_precision_of_voc_equals_the_value_by_hand",
    ),
    Mutant(
        "recall of 3 / 10 below 0.3",
        "cvops/metrics/_detection.py",
        "best[10 * count >= tenth * total]",
        "best[10 * count > tenth * total]",
        "tests/models/test_metrics.py::test_average_precision_of_voc_equals_the_value_by_hand",
    ),
    Mutant(
        "option of NaN",
        "cvops/ops/_check.py",
        "    if not low <= x <= high:\n        limits",
        "    if x < low or x > high:\n        limits",
        f"{_MULTICLASS}::test_bad_arguments_are_refused",
    ),
    Mutant(
        "arrays with strides passed as they are",
        "cvops/arrays/base.py",
        'return np.require(np.asarray(x), requirements=("C", "A"))',
        "return np.asarray(x)",
        "tests/arrays/test_arrays.py::test_strided_views_give_the_same_result",
    ),
]

MUTANTS = [*KERNELS, *BINDINGS, *PYTHON]
