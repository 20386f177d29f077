// Suppression of few boxes: each kept box is compared with all later ones.
#pragma once
#include <cstdint>

#include "nms_form.h"

namespace cvops::cpu {

// Maximum number of boxes.
constexpr int kMaxAllLater = 512;

// Sets is_kept for `num` boxes of the indices `order`, the best first; at most `max_kept` are kept.
// The threshold must suit RuleBounds. Returns false if a box does not suit them.
template <Form kForm>
bool suppress_all_later(uint8_t* is_kept, const SizedBox* boxes, const int* order, int num,
                        NmsRule rule, int max_kept);

}  // namespace cvops::cpu
