#include "box_encode.h"

#include <algorithm>
#include <iomanip>
#include <locale>
#include <sstream>
#include <stdexcept>

#include "boxes.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Sets `wrong` if the match of a positive sample is out of range.
template <typename T>
void check_matches(bool& wrong, const T* samples, const T* matches, int64 num, int64 num_refs) {
  int found = 0;
  for (int64 i = 0; i < num; ++i) {
    const bool known = (uint32)truncated(matches[i]) < (uint32)num_refs;
    found |= is_positive(samples[i]) & !known;
  }
  wrong = found;
}

template <typename T>
void refuse_unknown_matches(EncodeInputsOf<T> in, int64 batch, int64 num, int64 num_refs) {
  bool wrong;
  simd<check_matches<T>>(wrong, in.samples, in.matches, batch * num, num_refs);
  if (!wrong) return;
  for (int64 row = 0; row < batch * num; ++row) {
    if (!is_positive(in.samples[row])) continue;
    const int match = truncated(in.matches[row]);
    if (match >= 0 && match < num_refs) continue;
    std::ostringstream message;
    message.imbue(std::locale::classic());
    message << std::setprecision(9) << "matches: expected an index of " << num_refs
            << " refs where samples is positive, got " << in.matches[row] << " in image "
            << row / num << ", anchor " << row % num;
    throw std::invalid_argument(message.str());
  }
}

// Offsets of `num` positives: see encode_box.
template <typename T>
void encode(Boxes<T>& to, const Boxes<T>& anchors, const Boxes<T>& refs, int num,
            EncodeScaleOf<T> scale) {
  for (int i = 0; i < num; ++i) to.set(i, encode_box(anchors[i], refs[i], scale));
}

// Encodes `count` anchors of an image from row `first` on, at most kMostBoxes.
template <typename T>
void encode_tile(T* targets, T* masks, EncodeInputsOf<T> in, const T* refs, int64 first, int count,
                 EncodeScaleOf<T> scale) {
  Boxes<T> from, matched, to;
  int rows[kMostBoxes], num = 0;
  for (int i = 0; i < count; ++i) {
    rows[num] = i;
    num += is_positive(in.samples[first + i]);
  }
  for (int k = 0; k < num; ++k) {
    from.set(k, load_box(in.anchors, first + rows[k]));
    matched.set(k, load_box(refs, truncated(in.matches[first + rows[k]])));
  }
  std::fill_n(targets, 4 * count, T(0));
  std::fill_n(masks, 4 * count, T(0));
  simd<encode<T>>(to, from, matched, num, scale);
  for (int k = 0; k < num; ++k) {
    store_box(targets, rows[k], to[k]);
    store_box(masks, rows[k], {1, 1, 1, 1});
  }
}

}  // namespace

template <typename T>
void box_encode(const Cpu&, T* targets, T* masks, EncodeInputsOf<T> in, int64 batch, int64 num,
                int64 num_refs) {
  if (batch * num == 0) return;
  refuse_unknown_matches(in, batch, num, num_refs);
  const EncodeScaleOf<T> scale = encode_scale(in);
  const int64 tiles = ceil_div(num, kMostBoxes);
  const bool streams = worth_streaming(targets, 4 * sizeof(T) * batch * num);
  parallel_for(batch * tiles, 8.0 * std::min<int64>(num, kMostBoxes), [&](int64 part) {
    const int64 image = part / tiles, begin = part % tiles * kMostBoxes;
    const int64 first = image * num + begin;
    const int count = (int)std::min<int64>(num - begin, kMostBoxes);
    T staged[2][4 * kMostBoxes], *target = targets + 4 * first, *mask = masks + 4 * first;
    encode_tile(streams ? staged[0] : target, streams ? staged[1] : mask, in,
                in.refs + 4 * image * num_refs, first, count, scale);
    if (!streams) return;
    stream(target, staged[0], 4 * count);
    stream(mask, staged[1], 4 * count);
    streamed();
  });
}

template void box_encode(const Cpu&, float*, float*, EncodeInputsOf<float>, int64, int64, int64);
template void box_encode(const Cpu&, double*, double*, EncodeInputsOf<double>, int64, int64, int64);

}  // namespace cvops
