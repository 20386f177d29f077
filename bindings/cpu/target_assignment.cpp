#include "target_assignment.h"

#include <functional>
#include <limits>
#include <utility>

#include "parallel.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Blocks whose bounds are tested together.
constexpr int kGroup = 8;
// From that number of IoUs in a block on, all are recorded together.
constexpr int kManyRecords = 6;
// Maximum number of keys that a search finds.
constexpr int kFound = 32;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

// Boxes that are not solid have no IoU above 0.
bool is_solid(SizedBox b) {
  return (b.box.x1 < b.box.x2) & (b.box.y1 < b.box.y2) & (b.area > 0) & (b.area <= kLargest);
}

// Reduction of a block, first per lane, then over the lanes. The compiler can vectorize this order.
template <typename Choose>
CVOPS_INLINE float over_block(const float* __restrict__ x, Choose choose) {
  float lanes[8];
  for (int k = 0; k < 8; ++k) lanes[k] = x[k];
  for (int i = 8; i < kBlock; i += 8) {
    for (int k = 0; k < 8; ++k) lanes[k] = choose(x[i + k], lanes[k]);
  }
  for (int k = 1; k < 8; ++k) lanes[0] = choose(lanes[k], lanes[0]);
  return lanes[0];
}

CVOPS_INLINE void split_block(const Anchors& to, int block, const float* __restrict__ anchor) {
  const int64 first = (int64)block * kBlock;
  float* __restrict__ x1 = to.x1 + first;
  float* __restrict__ y1 = to.y1 + first;
  float* __restrict__ x2 = to.x2 + first;
  float* __restrict__ y2 = to.y2 + first;
  float* __restrict__ area = to.area + first;
  float least[kBlock];
  CVOPS_INDEPENDENT
  for (int i = 0; i < kBlock; ++i) {
    const SizedBox b = signed_size(load_box(anchor, i));
    const bool solid = is_solid(b);
    x1[i] = solid ? b.box.x1 : kInfinity, y1[i] = solid ? b.box.y1 : kInfinity;
    x2[i] = solid ? b.box.x2 : -kInfinity, y2[i] = solid ? b.box.y2 : -kInfinity;
    area[i] = solid ? b.area : 0, least[i] = solid ? b.area : kInfinity;
  }
  to.bounds_x1[block] = over_block(x1, smaller<float>),
  to.bounds_y1[block] = over_block(y1, smaller<float>);
  to.bounds_x2[block] = over_block(x2, larger<float>),
  to.bounds_y2[block] = over_block(y2, larger<float>);
  to.least[block] = over_block(least, smaller<float>),
  to.most[block] = over_block(area, larger<float>);
}

void split_anchors(const Anchors& to, const float* anchor) {
  const int whole = to.num / kBlock;
  for (int block = 0; block < whole; ++block) split_block(to, block, anchor + 4 * kBlock * block);
  if (const int rest = to.num % kBlock) {
    float last[4 * kBlock];
    std::fill_n(std::copy_n(anchor + (int64)4 * kBlock * whole, 4 * rest, last),
                4 * (kBlock - rest), kNan);
    split_block(to, whole, last);
  }
  for (int block = to.full_blocks; block < to.blocks; ++block) {
    to.bounds_x1[block] = to.bounds_y1[block] = to.least[block] = kInfinity;
    to.bounds_x2[block] = to.bounds_y2[block] = -kInfinity;
    to.most[block] = 0;
  }
}

// Upper bound of the IoU of each block from `first` to `end` (complete groups) with the truth.
// Returns the first block with the highest bound. An intersection is at most the intersection with
// the bounds of the block, and at most the largest area. Rounding is monotonic, so this also holds
// for floats. The union is at least the truth's area plus the rest of the smallest area. The factor
// covers the rounding of sums and quotients, here and in target_iou.
int bound_blocks(float* __restrict__ bounds, const Anchors& a, int first, int end, SizedBox truth) {
  const int num = (end - first) / kGroup * kGroup;
  int top = 0, at = num;
  CVOPS_VECTORIZED
  for (int i = 0; i < num; ++i) {
    const int b = first + i;
    const float overlap = smaller(intersection(a.bounds_of(b), truth.box), a.most[b]);
    const float all = (larger(a.least[b], overlap) - overlap) + truth.area;
    bounds[b] = overlap / all * 1.000002f;
    const int bits = (int)bits_of(bounds[b]);  // nonnegative floats sort like their bits
    top = bits > top ? bits : top;
  }
  CVOPS_VECTORIZED
  for (int i = 0; i < num; ++i) {
    const int place = (int)bits_of(bounds[first + i]) == top ? i : num;
    at = place < at ? place : at;
  }
  return first + at;
}

// Blocks in which a truth searches.
struct BlockRange {
  const Anchors& anchors;
  float* bounds;  // scratch memory, one element per block
  int first, end;
};

// Maximum IoU of a block, as integers, which have the same order. The compiler may not reorder a
// maximum of floats.
CVOPS_INLINE float greatest(const float* iou) {
  int top = 0;
  for (int i = 0; i < kBlock; ++i) {
    const int bits = (int)bits_of(iou[i]);
    top = bits > top ? bits : top;
  }
  return float_of((uint32)top);
}

// Index of the first anchor of a block with this IoU.
CVOPS_INLINE int first_of(const float* iou, float top) {
  int at = kBlock;
  for (int i = 0; i < kBlock; ++i) {
    const int place = iou[i] == top ? i : kBlock;
    at = place < at ? place : at;
  }
  return at;
}

// True if an IoU of a block and the truth exceeds about `least`. A product replaces the division.
CVOPS_INLINE bool has_relevant(const Anchors& a, int begin, SizedBox truth, float least) {
  const float rate = least * 0.999998f;
  int any = 0;
  for (int i = 0; i < kBlock; ++i) {
    const TargetPair pair = target_pair(a.at(begin + i), truth);
    any |= pair.overlap > rate * pair.all;
  }
  return any;
}

// Records the IoUs of at least `limit` of a block with truth k.
CVOPS_INLINE void record_block(Matches matches, int begin, const float* __restrict__ iou, int k,
                               float limit) {
  uint32 found = 0;
  for (int i = 0; i < kBlock; ++i) found |= (uint32)(iou[i] >= limit) << i;
  if (__builtin_popcount(found) < kManyRecords) {
    for (; found; found &= found - 1) {
      const int i = __builtin_ctz(found);
      matches.record(begin + i, iou[i], k);
    }
    return;
  }
  uint64& word = matches.touched[begin / 64];
  const uint32 is_new = ~(uint32)(word >> begin % 64);
  float* __restrict__ const old_iou = matches.iou + begin;
  int* __restrict__ const old_truth = matches.truth + begin;
  for (int i = 0; i < kBlock; ++i) {
    const int is_better = iou[i] > old_iou[i];
    const int records = (iou[i] >= limit) & ((int)(is_new >> i & 1) | is_better);
    old_iou[i] = records ? iou[i] : old_iou[i];
    old_truth[i] = records ? k : old_truth[i];
  }
  word |= (uint64)found << begin % 64;
}

// Sets the IoUs of the assigned anchors of a block to 0.
CVOPS_INLINE void exclude_assigned(float* iou, const Matches& matches, int begin) {
  const uint32 touched = (uint32)(matches.touched[begin / 64] >> begin % 64);
  for (int i = 0; i < kBlock; ++i) {
    const bool is_assigned = (touched >> i & 1) & (matches.truth[begin + i] < 0);
    iou[i] = is_assigned ? 0 : iou[i];
  }
}

// Highest pair_key of truth k. Most blocks have no relevant pair; the test of their bounds excludes
// them. With `only_free`, assigned anchors are excluded. Otherwise all IoUs of at least `limit` are
// recorded in `matches`.
template <bool only_free>
uint64 best_key(const BlockRange& range, Matches matches, SizedBox truth, int k, float limit) {
  const Anchors& a = range.anchors;
  uint64 key = 0;
  float least = kMinIou;  // lowest IoU that can give a higher key
  // Lowest relevant IoU. Below these limits, bounds and products would lose bits.
  auto needed = [&] {
    const float iou = only_free ? least : smaller(least, limit);
    return truth.area < 1e-30f || iou < kMinIou ? 0.0f : iou;
  };
  auto visit = [&](int block) __attribute__((always_inline)) {
    const int begin = block * kBlock;
    if (!has_relevant(a, begin, truth, needed())) return;
    float iou[kBlock];
    CVOPS_INDEPENDENT
    for (int i = 0; i < kBlock; ++i) iou[i] = target_iou(a.at(begin + i), truth);
    float top = greatest(iou);
    if (!only_free && top >= limit) record_block(matches, begin, iou, k, limit);
    if (pair_key(top, begin) <= key) return;
    if (only_free) {
      exclude_assigned(iou, matches, begin);
      top = greatest(iou);
    }
    key = std::max(key, pair_key(top, begin + first_of(iou, top)));
    least = larger(top, least);
  };
  if (!is_solid(truth)) return 0;
  const int top = bound_blocks(range.bounds, a, range.first, range.end, truth);
  visit(top);
  const int end = std::min(range.end, a.full_blocks);
  float need = needed();
  for (int block = range.first; block < end; ++block) {
    if (range.bounds[block] < need || block == top) continue;
    visit(block);
    need = needed();
  }
  return key;
}

// Highest keys of free anchors with the truth, in descending order. Returns their number.
int best_free_keys(uint64* keys, const BlockRange& range, const Matches& matches, SizedBox truth) {
  const Anchors& a = range.anchors;
  const std::greater<uint64> above;
  int num = 0;
  float least = kMinIou;  // lowest IoU that can give one of the keys
  auto needed = [&] { return truth.area < 1e-30f ? 0.0f : least; };
  bound_blocks(range.bounds, a, range.first, range.end, truth);
  const int end = std::min(range.end, a.full_blocks);
  for (int block = range.first; block < end; ++block) {
    const int begin = block * kBlock;
    if (range.bounds[block] < needed() || !has_relevant(a, begin, truth, needed())) continue;
    float iou[kBlock];
    CVOPS_INDEPENDENT
    for (int i = 0; i < kBlock; ++i) iou[i] = target_iou(a.at(begin + i), truth);
    for (int i = 0; i < kBlock; ++i) {
      if (!(iou[i] >= least) || matches.is_assigned(begin + i)) continue;
      const uint64 key = pair_key(iou[i], begin + i);
      if (key == 0) continue;
      if (num == kFound) {
        if (key < keys[0]) continue;
        std::pop_heap(keys, keys + num--, above);
      }
      keys[num++] = key;
      std::push_heap(keys, keys + num, above);
      if (num == kFound) least = float_of((uint32)(keys[0] >> 32));
    }
  }
  std::sort_heap(keys, keys + num, above);
  return num;
}

}  // namespace

Anchors::Anchors(int num)
    : num(num),
      full_blocks((int)ceil_div(num, kBlock)),
      blocks((int)ceil_div(full_blocks, kGroup) * kGroup) {}

void Anchors::take(Workspace& memory) {
  for (float** field : {&x1, &y1, &x2, &y2, &area}) {
    *field = memory.take<float>((int64)full_blocks * kBlock);
  }
  for (float** field : {&bounds_x1, &bounds_y1, &bounds_x2, &bounds_y2, &least, &most}) {
    *field = memory.take<float>(blocks);
  }
}

void Anchors::fill(const float* anchor) const { simd<split_anchors>(*this, anchor); }

Bipartite::Bipartite(const Anchors& anchors, int max_truths, bool parallel)
    : anchors_(anchors),
      max_truths_(max_truths),
      num_ranges_(parallel ? std::min(num_threads(), (int)ceil_div(anchors.blocks, 16)) : 1),
      parallel_(parallel) {}

void Bipartite::take(Workspace& memory) {
  bounds_ = memory.take<float>(anchors_.blocks);
  pairs_ = memory.take<Pair>(max_truths_);
  keys_ = memory.take<uint64>((int64)num_ranges_ * max_truths_);
  path_ = memory.take<int>(max_truths_);
  is_free_ = memory.take<bool>(max_truths_);
  found_ = memory.take<Found>(max_truths_);
  found_keys_ = memory.take<uint64>((int64)kFound * max_truths_);
}

void Bipartite::match(const Matches& matches, const SizedBox* truths, int num, float limit) {
  const int groups = anchors_.blocks / kGroup, per_range = (int)ceil_div(groups, num_ranges_);
  const double cost = parallel_ ? 0.1 * per_range * kGroup * kBlock * num : 0;
  parallel_for(num_ranges_, cost, [&](int64 i) {
    const BlockRange range = {anchors_, bounds_, std::min((int)i * per_range, groups) * kGroup,
                              std::min((int)(i + 1) * per_range, groups) * kGroup};
    for (int k = 0; k < num; ++k) {
      keys_[i * num + k] =
          range.first < range.end ? simd<best_key<false>>(range, matches, truths[k], k, limit) : 0;
    }
  });
}

uint64 Bipartite::next_key(const Matches& matches, SizedBox truth, int k) {
  const BlockRange all = {anchors_, bounds_, 0, anchors_.blocks};
  Found& found = found_[k];
  // One more key is mostly enough, and faster to find than several.
  if (std::exchange(found.is_first, false)) {
    return simd<best_key<true>>(all, matches, truth, k, kInfinity);
  }
  uint64* const keys = found_keys_ + (int64)k * kFound;
  for (;;) {
    while (found.next < found.num) {
      const uint64 key = keys[found.next++];
      if (!matches.is_assigned(anchor_of(key))) return key;
    }
    if (found.is_last) return 0;
    found.next = 0;
    found.num = simd<best_free_keys>(keys, all, matches, truth);
    found.is_last = found.num < kFound;
  }
}

// Index of the free truth with the highest IoU, the first of equal ones.
int Bipartite::best_truth(int anchor, const SizedBox* truths, int num) const {
  const SizedBox own = anchors_.at(anchor);
  float best = 0;
  int found = -1;
  for (int k = 0; k < num; ++k) {
    const float iou = is_free_[k] ? target_iou(own, truths[k]) : 0;
    if (iou > best) best = iou, found = k;
  }
  return found;
}

// Assigns truths until truth k has an anchor, or none is free. A path goes from a truth to the free
// truth that its best anchor prefers, whose pair with it is better, and so on. Its last truth and
// that one's best anchor prefer each other: no other pair can take them before. There are at most
// two searches per truth.
void Bipartite::assign_path(Matches& matches, const SizedBox* truths, int num, int k) {
  int length = 0;
  path_[length++] = k;
  while (length) {
    k = path_[length - 1];
    uint64& key = keys_[k];
    if (matches.is_assigned(anchor_of(key))) key = next_key(matches, truths[k], k);
    const int next = key ? best_truth(anchor_of(key), truths, num) : k;
    if (next != k) {
      path_[length++] = next;
      continue;
    }
    if (key) matches.assign_to(anchor_of(key), k);
    is_free_[k] = false;
    --length;
  }
}

// Greedy assignment, the best pair first. Where the anchor is not free, a path replaces the pair.
void Bipartite::assign(Matches& matches, const SizedBox* truths, int num) {
  int size = 0;
  for (int k = 0; k < num; ++k) {
    for (int i = 1; i < num_ranges_; ++i) keys_[k] = std::max(keys_[k], keys_[i * num + k]);
    if (keys_[k]) pairs_[size++] = {keys_[k], k};
    is_free_[k] = keys_[k] != 0;
    found_[k] = {0, 0, true, false};
  }
  std::sort(pairs_, pairs_ + size);
  while (size) {
    const auto [key, k] = pairs_[--size];
    if (!is_free_[k]) continue;
    if (matches.is_assigned(anchor_of(key))) {
      assign_path(matches, truths, num, k);
    } else {
      matches.assign_to(anchor_of(key), k);
      is_free_[k] = false;
    }
  }
}

}  // namespace cvops::cpu
