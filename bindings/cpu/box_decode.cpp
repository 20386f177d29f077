#include "box_decode.h"

#include <algorithm>

#include "boxes.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Decodes at most kMostBoxes boxes.
template <typename T>
void decode(T* out, const T* data, const T* anchors, int num, BoxDecode op) {
  Boxes<T> from, by, to;
  for (int i = 0; i < num; ++i) {
    from.set(i, decode_anchor(load_box(anchors, i), op.corner));
    by.set(i, load_box(data, i));
  }
  for (int i = 0; i < num; ++i) to.set(i, decode_box(from[i], by[i], op));
  for (int i = 0; i < num; ++i) store_box(out, i, to[i]);
}

}  // namespace

template <typename T>
void box_decode(const Cpu&, T* out, const T* data, const T* anchors, int64 batch, int64 num,
                BoxDecode op) {
  if (batch * num == 0) return;
  const int64 tiles = ceil_div(num, kMostBoxes);
  const bool streams = worth_streaming(out, 4 * sizeof(T) * batch * num);
  parallel_for(batch * tiles, 5.0 * std::min<int64>(num, kMostBoxes), [&](int64 part) {
    const int64 first = part % tiles * kMostBoxes, at = part / tiles * num + first;
    const int count = (int)std::min<int64>(num - first, kMostBoxes);
    T staged[4 * kMostBoxes], *to = out + 4 * at;
    simd<decode<T>>(streams ? staged : to, data + 4 * at, anchors + 4 * first, count, op);
    if (!streams) return;
    stream(to, staged, 4 * count);
    streamed();
  });
}

template void box_decode(const Cpu&, float*, const float*, const float*, int64, int64, BoxDecode);
template void box_decode(const Cpu&, double*, const double*, const double*, int64, int64,
                         BoxDecode);

}  // namespace cvops
