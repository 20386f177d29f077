#include <algorithm>
#include <utility>

#include "nms.h"

namespace cvops::cpu {
namespace {

uint32 score_of(uint64 key) { return (uint32)(key >> 32); }

int bit_width(uint32 x) {
  int bits = 0;
  for (; x; x >>= 1) ++bits;
  return bits;
}

}  // namespace

const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 topk) {
  if (num < 64) {
    std::sort(keys, keys + num);
    return keys;
  }
  uint32 lowest = ~0u, highest = 0;
  for (int64 i = 0; i < num; ++i) {
    lowest = std::min(lowest, score_of(keys[i]));
    highest = std::max(highest, score_of(keys[i]));
  }
  constexpr int kMaxDigitBits = 11;
  uint32 starts[1 << kMaxDigitBits];
  int bits = bit_width(highest - lowest);
  if (topk < num) {
    // Drops the keys beyond the digit that contains the last wanted key.
    const int shift = std::max(0, bits - kMaxDigitBits);
    std::fill(starts, starts + (1 << std::min(bits, kMaxDigitBits)), 0);
    for (int64 i = 0; i < num; ++i) ++starts[(score_of(keys[i]) - lowest) >> shift];
    uint32 last = 0;
    for (int64 before = starts[0]; before < topk; before += starts[last]) ++last;
    int64 left = 0;
    for (int64 i = 0; i < num; ++i) {
      keys[left] = keys[i];
      left += (score_of(keys[i]) - lowest) >> shift <= last;
    }
    num = left;
    bits = std::min(bits, bit_width(last) + shift);
  }
  // LSD radix sort by the score. Each pass is stable, so equal scores stay in index order.
  const int passes = (int)ceil_div(bits, num < 2048 ? 8 : kMaxDigitBits);
  const int digit = passes ? (int)ceil_div(bits, passes) : 0;
  const uint32 mask = (1u << digit) - 1;
  for (int shift = 0; shift < passes * digit; shift += digit) {
    std::fill(starts, starts + mask + 1, 0);
    for (int64 i = 0; i < num; ++i) ++starts[(score_of(keys[i]) - lowest) >> shift & mask];
    for (uint32 d = 0, before = 0; d <= mask; ++d) before += std::exchange(starts[d], before);
    for (int64 i = 0; i < num; ++i) {
      other[starts[(score_of(keys[i]) - lowest) >> shift & mask]++] = keys[i];
    }
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace cvops::cpu
