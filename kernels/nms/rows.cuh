// Candidates among rows of numbers, which box_nms, nms_rotated, soft_nms, matrix_nms and
// weighted_boxes_fusion share.
#pragma once
#include "box.cuh"
#include "nms/rule.cuh"

namespace cvops {

// True if a row takes part in the suppression.
CVOPS_HD bool nms_is_valid(const float* row, NmsColumns columns, float valid_thresh,
                           float background_id) {
  return row[columns.score] > valid_thresh && (columns.id < 0 || row[columns.id] != background_id);
}

CVOPS_HD SizedBox nms_box(const float* row, NmsColumns columns, bool center) {
  const float* c = row + columns.coord;
  return sized({c[0], c[1], c[2], c[3]}, center);
}

}  // namespace cvops
