#include <algorithm>
#include <limits>
#include <utility>

#include "nms.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Bits of a digit, at most. The digits of few keys have fewer: each digit needs a table.
constexpr int kMaxDigitBits = 11;

// Fewer keys have ranks instead.
constexpr int kMinForDigits = 64;

uint32 score_of(uint64 key) { return (uint32)(key >> 32); }

int bit_width(uint32 x) { return x ? 32 - __builtin_clz(x) : 0; }

// Sorts keys by two digits of score - lowest, from the bit `shift` on. Each pass is stable, so keys
// with equal digits keep their order.
void sort_by_two_digits(uint64* keys, uint64* other, int64 num, uint32 lowest, int shift,
                        int digit_bits) {
  uint32 starts[2][1 << kMaxDigitBits];
  const uint32 mask = (1u << digit_bits) - 1;
  const int shifts[] = {shift, shift + digit_bits};
  for (auto& of : starts) std::fill_n(of, mask + 1, 0);
  for (int64 i = 0; i < num; ++i) {
    const uint32 score = score_of(keys[i]) - lowest;
    ++starts[0][score >> shifts[0] & mask];
    ++starts[1][score >> shifts[1] & mask];
  }
  uint32 before[2] = {};
  for (uint32 d = 0; d <= mask; ++d) {
    for (int pass : {0, 1}) before[pass] += std::exchange(starts[pass][d], before[pass]);
  }
  for (int pass : {0, 1}) {
    for (int64 i = 0; i < num; ++i) {
      other[starts[pass][(score_of(keys[i]) - lowest) >> shifts[pass] & mask]++] = keys[i];
    }
    std::swap(keys, other);
  }
}

// Sorts keys that nearly are in order. Returns false if they are not, and leaves equal scores in
// their order.
bool insertion_sort(uint64* keys, int64 num) {
  int64 budget = 4 * num;
  for (int64 i = 1; i < num; ++i) {
    const uint64 key = keys[i];
    int64 at = i;
    for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
    budget -= i - at;
    if (budget < 0) return false;
  }
  return true;
}

// Writes each key at its rank: the number of lower keys. The loops have no branch on a key, which
// would be hard to predict. The order of signed integers needs fewer instructions.
void sort_by_rank(uint64* sorted, const uint64* keys, int num) {
  constexpr uint64 kSign = 1ull << 63;
  constexpr int kVector = 8;
  int64 of_keys[kMinForDigits];
  const int lanes = (int)ceil_div(num, kVector) * kVector;
  for (int i = 0; i < num; ++i) of_keys[i] = (int64)(keys[i] ^ kSign);
  std::fill(of_keys + num, of_keys + lanes, std::numeric_limits<int64>::max());
  for (int i = 0; i < num; ++i) {
    int64 rank = 0;
    const int64 own = of_keys[i];
    for (int k = 0; k < lanes; ++k) rank += of_keys[k] < own;
    sorted[rank] = keys[i];
  }
}

// Sorts many keys: see sort_keys().
const uint64* sort_many(uint64* keys, uint64* other, int64 num, int64 topk) {
  uint32 lowest = ~0u, highest = 0;
  for (int64 i = 0; i < num; ++i) {
    lowest = std::min(lowest, score_of(keys[i]));
    highest = std::max(highest, score_of(keys[i]));
  }
  int bits = bit_width(highest - lowest);
  if (topk < num) {
    // Drops the keys beyond the digit that contains the last wanted key.
    uint32 counts[1 << kMaxDigitBits];
    const int shift = std::max(0, bits - kMaxDigitBits);
    std::fill(counts, counts + (1 << std::min(bits, kMaxDigitBits)), 0);
    for (int64 i = 0; i < num; ++i) ++counts[(score_of(keys[i]) - lowest) >> shift];
    uint32 last = 0;
    for (int64 before = counts[0]; before < topk; before += counts[last]) ++last;
    int64 left = 0;
    for (int64 i = 0; i < num; ++i) {
      keys[left] = keys[i];
      left += (score_of(keys[i]) - lowest) >> shift <= last;
    }
    num = left;
    bits = std::min(bits, bit_width(last) + shift);
  }
  if (bits == 0) return keys;
  // The two highest digits bring nearly all keys into order.
  const int most_bits = std::clamp(bit_width((uint32)num) - 1, 6, kMaxDigitBits);
  const int digit_bits = std::min((bits + 1) / 2, most_bits);
  sort_by_two_digits(keys, other, num, lowest, std::max(0, bits - 2 * digit_bits), digit_bits);
  if (bits <= 2 * digit_bits || insertion_sort(keys, num)) return keys;
  // Many scores have equal high digits: a complete sort, by the lowest digits and then the highest.
  for (int shift : {0, std::max(0, bits - 2 * kMaxDigitBits)}) {
    sort_by_two_digits(keys, other, num, lowest, shift, kMaxDigitBits);
  }
  return keys;
}

}  // namespace

const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 topk) {
  if (num < kMinForDigits) {
    simd<sort_by_rank>(other, keys, (int)num);
    return other;
  }
  return simd<sort_many>(keys, other, num, topk);
}

}  // namespace cvops::cpu
