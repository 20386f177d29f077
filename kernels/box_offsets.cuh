// Offsets (x, y, width, height) from a box to another one, as the target of a regression.
#pragma once
#include "box.cuh"
#include "exp_log.cuh"

namespace cvops {

// Means and standard deviations of the offsets.
template <typename T>
struct EncodeScaleOf {
  BoxOf<T> mean, std;
};

// Offset of a width or height, which MXNet computes in double and rounds once.
template <typename T>
CVOPS_HD T encode_size(T ref, T anchor, T mean, T std) {
  return (T)((log_in_double(ref / anchor) - mean) / std);
}

// Offsets from an anchor to a box, both in corner format. The order of operations is MXNet's.
template <typename T>
CVOPS_HD BoxOf<T> encode_box(BoxOf<T> anchor, BoxOf<T> ref, EncodeScaleOf<T> scale) {
  const T ref_width = ref.x2 - ref.x1, ref_height = ref.y2 - ref.y1;
  const T width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  const T ref_x = ref.x1 + ref_width * 0.5f, ref_y = ref.y1 + ref_height * 0.5f;
  const T x = anchor.x1 + width * 0.5f, y = anchor.y1 + height * 0.5f;
  return {((ref_x - x) / width - scale.mean.x1) / scale.std.x1,
          ((ref_y - y) / height - scale.mean.y1) / scale.std.y1,
          encode_size(ref_width, width, scale.mean.x2, scale.std.x2),
          encode_size(ref_height, height, scale.mean.y2, scale.std.y2)};
}

}  // namespace cvops
