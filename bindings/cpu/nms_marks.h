// Suppression by marks: each kept box marks the later boxes near it that it suppresses.
#pragma once
#include "nms_cells.h"
#include "nms_form.h"

namespace cvops::cpu {

// Sets is_kept for the first boxes; at most `max_kept` boxes are kept. Returns the number of boxes
// that are decided: all, or fewer if boxes have many near ones. Removes boxes from `boxes`.
template <Form kForm>
int suppress_by_marks(BoxesInCells& boxes, uint8_t* is_kept, int max_kept);

}  // namespace cvops::cpu
