// Suppression by pairs: a search for all pairs of near boxes of which one can suppress the other,
// on several threads, and then a decision in the order of the boxes.
#pragma once
#include "nms_cells.h"
#include "nms_form.h"

namespace cvops::cpu {

// Sets is_kept for all boxes, and returns true. If there are too many pairs, returns false. Boxes
// of different classes are no pair.
template <Form kForm>
bool suppress_by_pairs(const BoxesInCells& boxes, uint8_t* is_kept, int threads);

// Estimates the number of pairs per box of a class, from a sample. `classes` may be null.
template <Form kForm>
double guess_pairs_per_box(const SizedBox* boxes, const int* classes, const int* order, int num,
                           NmsRule rule);

}  // namespace cvops::cpu
