// The numbers of boxes that suppression compares.
#pragma once
#include "box.cuh"
#include "nms/rule.cuh"
#include "simd.h"

namespace cvops::cpu {

// Meaning of the numbers of a box: see NmsRule. The boxes of `rotated` and `doubles` are the bounds
// of rotated boxes and of boxes of doubles.
enum class Form { corner, center, pixels, rotated, doubles };

constexpr bool has_bounds(Form form) { return form == Form::rotated || form == Form::doubles; }

template <Form kForm>
CVOPS_INLINE float intersection(Box kept, Box other) {
  return kForm == Form::pixels ? pixel_intersection(kept, other)
                               : intersection(kept, other, kForm == Form::center);
}

}  // namespace cvops::cpu
