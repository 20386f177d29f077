#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "nms.h"
#include "nms_lanes.h"
#include "result_pool.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Bits of a digit, at most. The digits of few keys have fewer: each digit needs a table.
constexpr int kMaxDigitBits = 11;

constexpr uint32 kSign = 1u << 31;

// Maximum number of keys of a sort in buckets.
constexpr int kMaxInBuckets = 8192;

// Fewer keys have ranks instead.
constexpr int kMinForDigits = 64;

CVOPS_INLINE uint32 score_of(uint64 key) { return (uint32)(key >> 32); }

int bit_width(uint32 x) { return x ? 32 - __builtin_clz(x) : 0; }

// Sorts keys by two digits of score - lowest, from the bit `shift` on. Each pass is stable, so keys
// with equal digits keep their order.
CVOPS_INLINE void sort_by_two_digits(uint64* keys, uint64* other, int64 num, uint32 lowest,
                                     int shift, int digit_bits) {
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
CVOPS_INLINE bool insertion_sort(uint64* keys, int64 num) {
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

// True if buckets suit: with the narrowest vectors, digits are faster.
constexpr bool suits_buckets(int width, int64 num) {
  return width > 4 && num >= kMinForDigits && num <= kMaxInBuckets;
}

// Integers that sort_in_buckets() sorts, and memory for it. Their capacity may be 0.
struct Buckets {
  // Maximum number of integers of a bucket.
  static constexpr int kMaxCount = 15;

  const int num;
  const PooledScratch<int> integers = pooled_scratch<int>(num ? 3 * (int64)num + 2 * kMaxCount : 0);
  int *const numbers = integers.get(), *const placed = numbers + num + kMaxCount;
  uint16_t *const bucket_of = (uint16_t*)(placed + num + kMaxCount), *const index_of =
                                                                         bucket_of + num;

  explicit Buckets(int64 num)
      : num(current_simd != Simd::baseline && suits_buckets(8, num) ? (int)num : 0) {}
};

// True if a bucket has different integers of a sample.
CVOPS_INLINE bool have_different(const int* numbers, const uint16_t* bucket_of, int num) {
  constexpr int kSample = 128, kMostDistances = 64;
  int sample[kSample + kMostDistances], of_sample[kSample + kMostDistances];
  const int distances = std::min(num / (kSample / 2), kMostDistances);
  for (int k = 0; k < kSample; ++k) {
    const int i = (int)((int64)k * num / kSample);
    sample[k] = numbers[i], of_sample[k] = bucket_of[i];
  }
  std::copy_n(sample, kMostDistances, sample + kSample);
  std::copy_n(of_sample, kMostDistances, of_sample + kSample);
  int found[kSample] = {};
  for (int d = 1; d <= distances; ++d) {
    for (int k = 0; k < kSample; ++k) {
      found[k] += (of_sample[k + d] == of_sample[k]) & (sample[k + d] != sample[k]);
    }
  }
  return any(found);
}

// Sorts the integers: calls put(place, i) for each one; equal ones keep their order. Returns false,
// and calls nothing, if a bucket has many different ones; else it overwrites them. Few branches
// depend on one.
template <int kWidth, typename Put>
CVOPS_INLINE bool sort_in_buckets(const Buckets& memory, int num, const Put& put) {
  // Buckets are in segments: a step of the sum over buckets adds one of each segment.
  constexpr int kSegments = 2 * kWidth, kMaxBuckets = 1 << 14;
  constexpr int kMaxCount = Buckets::kMaxCount, kDistances = 3;
  typedef Vector<uint16_t, kWidth> Counts;
  int *const numbers = memory.numbers, *const placed = memory.placed;
  uint16_t *const bucket_of = memory.bucket_of, *const index_of = memory.index_of;
  int lowest = numbers[0], highest = numbers[0];
  for (int i = 0; i < num; ++i) {
    lowest = numbers[i] < lowest ? numbers[i] : lowest;
    highest = numbers[i] > highest ? numbers[i] : highest;
  }
  const int bits = std::min(bit_width((uint32)num - 1) + 2, bit_width(kMaxBuckets - 1));
  const int row_bits = bits - bit_width(kSegments - 1);
  const int rows = 1 << row_bits, last = rows * kSegments - 1;
  const uint32 range = ((uint32)highest - (uint32)lowest) / 2;
  const float per_number = (float)last / (float)(int)std::max(range, 1u);
  for (int i = 0; i < num; ++i) {
    const uint32 above = ((uint32)numbers[i] - (uint32)lowest) / 2;
    const int bucket = (int)((float)(int)above * per_number);
    bucket_of[i] = (uint16_t)((bucket & (rows - 1)) * kSegments + (bucket >> row_bits));
  }
  Counts counts[kMaxBuckets / kSegments], sum = {}, most = {};
  uint16_t* const next = (uint16_t*)counts;
  std::memset(counts, 0, rows * sizeof(Counts));
  for (int i = 0; i < num; ++i) ++next[bucket_of[i]];
  for (int r = 0; r < rows; ++r) sum += counts[r], most |= counts[r];
  // The numbers of bits bound the largest count.
  int count = 0, before = 0;
  for (int s = 0; s < kSegments; ++s) {
    const int own = sum[s];
    count |= most[s], sum[s] = (uint16_t)before;
    before += own;
  }
  const bool is_crowded = count > kMaxCount;
  if (is_crowded && have_different(numbers, bucket_of, num)) return false;
  for (int r = 0; r < rows; ++r) {
    const Counts own = counts[r];
    counts[r] = sum, sum += own;
  }
  for (int i = 0; i < num; ++i) {
    const int place = next[bucket_of[i]]++;
    placed[place] = numbers[i], index_of[place] = (uint16_t)i;
  }
  if (is_crowded) {
    // Buckets of equal integers are in order.
    int later_lower = 0;
    for (int i = 1; i < num; ++i) later_lower |= placed[i] < placed[i - 1];
    if (later_lower) return false;
    count = 1;
  }
  std::fill_n(placed - kMaxCount, kMaxCount, std::numeric_limits<int>::min());
  std::fill_n(placed + num, kMaxCount, std::numeric_limits<int>::max());
  // Each one moves by the numbers of later lower ones and of earlier higher ones of its bucket.
  int* const to = numbers;
  for (int i = 0; i < num; ++i) to[i] = i;
  for (int first = 1; first < count; first += kDistances) {
    for (int i = 0; i < num; ++i) {
      int moved = to[i];
      for (int d = first; d < first + kDistances; ++d) {
        moved += placed[i + d] < placed[i];
        moved -= placed[i - d] > placed[i];
      }
      to[i] = moved;
    }
  }
  for (int i = 0; i < num; ++i) put(to[i], index_of[i]);
  return true;
}

// The same for keys: the result is in `other`.
template <int kWidth>
CVOPS_INLINE bool sort_keys_in_buckets(const Buckets& memory, const uint64* keys, uint64* other,
                                       int num) {
  for (int i = 0; i < num; ++i) memory.numbers[i] = (int)(score_of(keys[i]) ^ kSign);
  return sort_in_buckets<kWidth>(memory, num, [&](int place, int i) __attribute__((always_inline)) {
    other[place] = keys[i];
  });
}

// The range of the scores of keys.
struct ScoreRange {
  uint32 lowest = ~0u, highest = 0;

  CVOPS_INLINE ScoreRange(const uint64* keys, int64 num) {
    for (int64 i = 0; i < num; ++i) {
      lowest = std::min(lowest, score_of(keys[i]));
      highest = std::max(highest, score_of(keys[i]));
    }
  }

  int bits() const { return bit_width(highest - lowest); }
};

// Drops the keys beyond the digit that contains the last wanted key. Returns the number of the
// rest.
CVOPS_INLINE int64 drop_later(uint64* keys, int64 num, int64 topk) {
  const ScoreRange range(keys, num);
  uint32 counts[1 << kMaxDigitBits];
  const int shift = std::max(0, range.bits() - kMaxDigitBits);
  std::fill(counts, counts + (1 << std::min(range.bits(), kMaxDigitBits)), 0);
  for (int64 i = 0; i < num; ++i) ++counts[(score_of(keys[i]) - range.lowest) >> shift];
  uint32 last = 0;
  for (int64 before = counts[0]; before < topk; before += counts[last]) ++last;
  int64 left = 0;
  for (int64 i = 0; i < num; ++i) {
    keys[left] = keys[i];
    left += (score_of(keys[i]) - range.lowest) >> shift <= last;
  }
  return left;
}

// Sorts many keys: see sort_keys().
template <int kWidth>
CVOPS_INLINE const uint64* sort_many(uint64* keys, uint64* other, int64 num, int64 topk,
                                     const Buckets& memory) {
  if (topk < num) num = drop_later(keys, num, topk);
  const bool suits = suits_buckets(kWidth, num) && num <= memory.num;
  if (suits && sort_keys_in_buckets<kWidth>(memory, keys, other, (int)num)) return other;
  const ScoreRange range(keys, num);
  const int bits = range.bits();
  if (bits == 0) return keys;
  // The two highest digits bring nearly all keys into order.
  const int most_bits = std::clamp(bit_width((uint32)num) - 1, 6, kMaxDigitBits);
  const int digit_bits = std::min((bits + 1) / 2, most_bits), shift = bits - 2 * digit_bits;
  sort_by_two_digits(keys, other, num, range.lowest, std::max(0, shift), digit_bits);
  if (shift <= 0 || insertion_sort(keys, num)) return keys;
  // Many scores have equal high digits: a complete sort, by the lowest digits and then the highest.
  for (int first : {0, std::max(0, bits - 2 * kMaxDigitBits)}) {
    sort_by_two_digits(keys, other, num, range.lowest, first, kMaxDigitBits);
  }
  return keys;
}

template <int kWidth>
CVOPS_INLINE bool sort_scores_in_buckets(const Buckets& memory, int* order, const float* scores,
                                         int num) {
  for (int i = 0; i < num; ++i) {
    int bits;
    const float score = scores[i] + 0.0f;  // see sort_key()
    std::memcpy(&bits, &score, sizeof bits);
    memory.numbers[i] = ~(bits ^ (bits >> 31 & 0x7fffffff));
  }
  return sort_in_buckets<kWidth>(
      memory, num, [&](int place, int i) __attribute__((always_inline)) { order[place] = i; });
}

}  // namespace

void sort_scores(int* order, const float* scores, int num) {
  const Buckets memory(num);
  const bool is_done =
      memory.num && by_width([&](auto width) {
        return width > 4 && sort_scores_in_buckets<width>(memory, order, scores, num);
      });
  if (is_done) return;
  const auto keys = pooled_scratch<uint64>(2 * (int64)num);
  for (int i = 0; i < num; ++i) keys[i] = sort_key(scores[i], (uint32)i);
  uint64* const other = keys.get() + num;
  // Buckets do not suit.
  const uint64* const sorted =
      num < kMinForDigits ? sort_keys(keys.get(), other, num, num) : by_width([&](auto width) {
        return sort_many<width>(keys.get(), other, num, num, Buckets(0));
      });
  for (int i = 0; i < num; ++i) order[i] = (int)index_of(sorted[i]);
}

const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 topk) {
  if (num < kMinForDigits) {
    simd<sort_by_rank>(other, keys, (int)num);
    return other;
  }
  const Buckets memory(std::min(num, topk));
  return by_width([&](auto width) { return sort_many<width>(keys, other, num, topk, memory); });
}

}  // namespace cvops::cpu
