#include "box_decode.h"

#include <algorithm>

#include "boxes.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Decodes at most Boxes::kMost boxes.
void decode(float* out, const float* data, const float* anchors, int num, BoxDecode op) {
  Boxes from, by, to;
  for (int i = 0; i < num; ++i) {
    from.set(i, decode_anchor(load_box(anchors, i), op.corner));
    by.set(i, load_box(data, i));
  }
  for (int i = 0; i < num; ++i) to.set(i, decode_box(from[i], by[i], op));
  for (int i = 0; i < num; ++i) store_box(out, i, to[i]);
}

}  // namespace

void box_decode(const Cpu&, float* out, const float* data, const float* anchors, int64 batch,
                int64 num, BoxDecode op) {
  if (batch * num == 0) return;
  const int64 tiles = ceil_div(num, Boxes::kMost);
  const bool streams = worth_streaming(out, 16 * batch * num);
  parallel_for(batch * tiles, 5.0 * std::min<int64>(num, Boxes::kMost), [&](int64 part) {
    const int64 first = part % tiles * Boxes::kMost, at = part / tiles * num + first;
    const int count = (int)std::min<int64>(num - first, Boxes::kMost);
    float staged[4 * Boxes::kMost], *to = out + 4 * at;
    simd<decode>(streams ? staged : to, data + 4 * at, anchors + 4 * first, count, op);
    if (!streams) return;
    stream(to, staged, 4 * count);
    streamed();
  });
}

}  // namespace cvops
