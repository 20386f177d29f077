#include "multibox_target.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iomanip>
#include <limits>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "mining.cuh"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"
#include "workspace.h"

namespace cvops {
namespace {

// Anchors per block. Adjacent anchors are close together in the image. A bounds test first excludes
// blocks without relevant pairs; most blocks have none. The tests are done for a group of blocks.
constexpr int kBlock = 32, kGroup = 8;
// Anchors per work item of the output, and of the scores.
constexpr int kTile = 1024, kScored = 8 * kTile;
// From this number of bytes on, outputs leave the caches before anyone reads them.
constexpr int64 kStreamed = 16 << 20;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

struct Memory {
  std::unique_ptr<char[]> bytes;

  // Allocates one piece of memory for all arrays that `parts` takes from a workspace.
  template <typename Parts>
  explicit Memory(Parts& parts) {
    Workspace size;
    parts.take(size);
    bytes.reset(new char[size.size()]);
    Workspace memory(bytes.get());
    parts.take(memory);
  }
};

// Anchors as a structure of arrays, which the compiler can vectorize. Anchors that are not solid
// become empty boxes.
struct Anchors {
  int num, full_blocks, blocks;  // the last blocks are empty, so that all groups are complete
  float *x1, *y1, *x2, *y2, *area;
  // Per block: the bounding box, and the smallest and the largest area.
  float *bounds_x1, *bounds_y1, *bounds_x2, *bounds_y2, *least, *most;

  explicit Anchors(int num)
      : num(num),
        full_blocks((int)ceil_div(num, kBlock)),
        blocks((int)ceil_div(full_blocks, kGroup) * kGroup) {}

  SizedBox at(int64 i) const { return {{x1[i], y1[i], x2[i], y2[i]}, area[i]}; }
  Box bounds_of(int64 i) const { return {bounds_x1[i], bounds_y1[i], bounds_x2[i], bounds_y2[i]}; }

  void take(Workspace& memory) {
    for (float** field : {&x1, &y1, &x2, &y2, &area}) {
      *field = memory.take<float>((int64)full_blocks * kBlock);
    }
    for (float** field : {&bounds_x1, &bounds_y1, &bounds_x2, &bounds_y2, &least, &most}) {
      *field = memory.take<float>(blocks);
    }
  }
};

// Boxes that are not solid have no IoU above 0.
bool is_solid(SizedBox b) {
  return (b.box.x1 < b.box.x2) & (b.box.y1 < b.box.y2) & (b.area > 0) & (b.area <= kLargest);
}

// Reduction of a block, first per lane, then over the lanes. The compiler can vectorize this order.
template <typename Choose>
float over_block(const float* __restrict__ x, Choose choose) {
  float lanes[8];
  for (int k = 0; k < 8; ++k) lanes[k] = x[k];
  for (int i = 8; i < kBlock; i += 8) {
    for (int k = 0; k < 8; ++k) lanes[k] = choose(x[i + k], lanes[k]);
  }
  for (int k = 1; k < 8; ++k) lanes[0] = choose(lanes[k], lanes[0]);
  return lanes[0];
}

void split_block(const Anchors& to, int block, const float* __restrict__ anchor) {
  const int64 first = (int64)block * kBlock;
  float* __restrict__ x1 = to.x1 + first;
  float* __restrict__ y1 = to.y1 + first;
  float* __restrict__ x2 = to.x2 + first;
  float* __restrict__ y2 = to.y2 + first;
  float* __restrict__ area = to.area + first;
  float least[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    const SizedBox b = signed_size(load_box(anchor, i));
    const bool solid = is_solid(b);
    x1[i] = solid ? b.box.x1 : kInfinity, y1[i] = solid ? b.box.y1 : kInfinity;
    x2[i] = solid ? b.box.x2 : -kInfinity, y2[i] = solid ? b.box.y2 : -kInfinity;
    area[i] = solid ? b.area : 0, least[i] = solid ? b.area : kInfinity;
  }
  to.bounds_x1[block] = over_block(x1, smaller), to.bounds_y1[block] = over_block(y1, smaller);
  to.bounds_x2[block] = over_block(x2, larger), to.bounds_y2[block] = over_block(y2, larger);
  to.least[block] = over_block(least, smaller), to.most[block] = over_block(area, larger);
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

// Matches of the anchors of an image. Only anchors with their `touched` bit set have a `best` and a
// `which`; most anchors have none.
struct Matches {
  float* best;
  int* which;
  uint64* touched;

  bool is_touched(int a) const { return touched[a / 64] >> a % 64 & 1; }
  bool is_assigned(int a) const { return is_touched(a) && which[a] < 0; }

  void record(int a, float iou, int truth) {
    if (!is_touched(a)) {
      touched[a / 64] |= 1ull << a % 64;
    } else if (!(iou > best[a])) {
      return;
    }
    best[a] = iou, which[a] = truth;
  }

  void assign_to(int a, int truth) {
    if (!is_touched(a)) record(a, 0, truth);
    which[a] = ~truth;
  }
};

// Upper bound of the IoU of each block from `first` to `end` (complete groups) with the truth.
// Returns the first block with the highest bound. An intersection is at most the intersection with
// the bounds of the block, and at most the largest area. Rounding is monotonic, so this also holds
// for floats. The union is at least the truth's area plus the rest of the smallest area. The factor
// covers the rounding of sums and quotients, here and in target_iou.
int bound_blocks(float* __restrict__ bounds, const Anchors& a, int first, int end, SizedBox truth) {
  const int num = (end - first) / kGroup * kGroup;
  int top = 0, at = num;
  for (int i = 0; i < num; ++i) {
    const int b = first + i;
    const float overlap = smaller(intersection(a.bounds_of(b), truth.box), a.most[b]);
    const float all = (larger(a.least[b], overlap) - overlap) + truth.area;
    bounds[b] = overlap / all * 1.000002f;
    const int bits = (int)bits_of(bounds[b]);  // nonnegative floats sort like their bits
    top = bits > top ? bits : top;
  }
  for (int i = 0; i < num; ++i) {
    const int place = (int)bits_of(bounds[first + i]) == top ? i : num;
    at = place < at ? place : at;
  }
  return first + at;
}

// The range of blocks that a truth searches.
struct Range {
  const Anchors& anchors;
  float* bounds;  // scratch memory, one element per block
  int first, end;
};

// Maximum IoU of a block, as integers, which have the same order. The compiler may not reorder a
// maximum of floats.
float greatest(const float* iou) {
  int top = 0;
  for (int i = 0; i < kBlock; ++i) {
    const int bits = (int)bits_of(iou[i]);
    top = bits > top ? bits : top;
  }
  return float_of((uint32)top);
}

int first_of(const float* iou, float top) {
  int at = kBlock;
  for (int i = 0; i < kBlock; ++i) {
    const int place = iou[i] == top ? i : kBlock;
    at = place < at ? place : at;
  }
  return at;
}

// Highest pair_key of truth k. With `only_free`, assigned anchors are excluded. Otherwise all IoUs
// of at least `limit` are recorded in `matches`.
template <bool only_free>
uint64 best_key(const Range& range, Matches matches, SizedBox truth, int k, float limit) {
  const Anchors& a = range.anchors;
  uint64 key = 0;
  float least = kMinIou;  // lowest IoU that can give a higher key
  // Lowest relevant IoU. Below these limits, bounds and products would lose bits.
  auto needed = [&] {
    const float iou = only_free ? least : smaller(least, limit);
    return truth.area < 1e-30f || iou < kMinIou ? 0.0f : iou;
  };
  auto visit = [&](int block) {
    const int begin = block * kBlock;
    const float rate = needed() * 0.999998f;
    int any = 0;
    for (int i = 0; i < kBlock; ++i) {
      const TargetPair pair = target_pair(a.at(begin + i), truth);
      any |= pair.overlap > rate * pair.all;
    }
    if (!any) return;
    float iou[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      iou[i] = target_iou(a.at(begin + i), truth);
    }
    if (only_free) {
      for (int i = 0; i < kBlock; ++i) iou[i] = matches.is_assigned(begin + i) ? 0 : iou[i];
    }
    const float top = greatest(iou);
    if (top >= least) {
      key = std::max(key, pair_key(top, begin + first_of(iou, top)));
      least = top;
    }
    if (only_free || !(top >= limit)) return;
    int num = 0, places[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      places[num] = i;
      num += iou[i] >= limit;
    }
    for (int i = 0; i < num; ++i) matches.record(begin + places[i], iou[places[i]], k);
  };
  if (!is_solid(truth)) return 0;
  const int top = bound_blocks(range.bounds, a, range.first, range.end, truth);
  visit(top);
  const int end = std::min(range.end, a.full_blocks);
  for (int block = range.first; block < end; ++block) {
    if (range.bounds[block] >= needed() && block != top) visit(block);
  }
  return key;
}

// Range of the exponent. The values are volatile: with unknown limits, the compiler emits min and
// max instructions.
struct Limits {
  float low, high;
};
volatile float kLow = -125, kHigh = 127;

// 2^x with a relative error below 1e-4; x is clamped to the limits. NaN becomes limits.high.
float approx_exp2(float x, Limits limits) {
  x = smaller(x, limits.high);
  x = larger(x, limits.low);
  const float shifted = x + 12582912.0f;  // rounds away the fraction
  const float f = x - (shifted - 12582912.0f);
  const float two_to_f = 0.9999281f + f * (0.693261f + f * (0.24261f + f * 0.05517123f));
  return float_of(bits_of(two_to_f) + (bits_of(shifted) << 23));
}

// Adds the exponentials of `kRows` classes, relative to that of class 0, to the sums.
template <int kRows>
void add_rows(float* __restrict__ sums, const float* __restrict__ own,
              const float* __restrict__ rows, int64 stride, int num, Limits limits) {
  for (int i = 0; i < num; ++i) {
    float sum = sums[i];
    for (int c = 0; c < kRows; ++c)
      sum += approx_exp2((rows[c * stride + i] - own[i]) * 1.442695f, limits);
    sums[i] = sum;
  }
}

// Sums beyond it are uncertain: an exponential was too large, infinite or NaN.
constexpr float kCertain = 0x1p100f;

// Approximate 1 / (probability of class 0) of `num` anchors; NaN if it is uncertain.
void approx_score(float* __restrict__ sums, const float* __restrict__ logits, int num_classes,
                  int64 stride, int num) {
  for (int i = 0; i < num; ++i) sums[i] = 1 + (logits[i] - logits[i]);
  const Limits limits = {kLow, kHigh};
  int c = 1;
  for (; c + 4 <= num_classes; c += 4)
    add_rows<4>(sums, logits, logits + c * stride, stride, num, limits);
  for (; c < num_classes; ++c) add_rows<1>(sums, logits, logits + c * stride, stride, num, limits);
  for (int i = 0; i < num; ++i) sums[i] = sums[i] < kCertain ? sums[i] : kNan;
}

// Rounded up to whole vectors, so that no scalar remainder is left.
int whole_vectors(int num) { return (num + 7) / 8 * 8; }

// Softmax of class 0 of at most kBlock anchors.
void exact_scores(float* __restrict__ background, const float* logits, int num_classes,
                  int64 stride, const int* anchors, int num) {
  float x[kBlock] = {}, top[kBlock], sum[kBlock];
  const int lanes = whole_vectors(num);
  auto take = [&](int c) {
    for (int i = 0; i < num; ++i) x[i] = logits[c * stride + anchors[i]];
  };
  take(0);
  for (int i = 0; i < lanes; ++i) background[i] = top[i] = x[i];
  for (int c = 1; c < num_classes; ++c) {
    take(c);
    for (int i = 0; i < lanes; ++i) top[i] = larger(x[i], top[i]);
  }
  for (int i = 0; i < lanes; ++i) sum[i] = background[i] = exp_of(background[i] - top[i]);
  for (int c = 1; c < num_classes; ++c) {
    take(c);
    for (int i = 0; i < lanes; ++i) sum[i] += exp_of(x[i] - top[i]);
  }
  for (int i = 0; i < lanes; ++i) background[i] /= sum[i];
}

int count_from(const float* x, int num, float least) {
  int count = 0;
  for (int i = 0; i < num; ++i) count += x[i] >= least;
  return count;
}

// Offsets (num, 4) of truths relative to anchors, both given as arrays of fields.
void encode_fields(float* out, const float (&anchor)[4][kBlock], const float (&truth)[4][kBlock],
                   int num, const TargetOptions& options) {
  const int lanes = whole_vectors(num);
  float x[kBlock], y[kBlock], width[kBlock], height[kBlock];
  for (int i = 0; i < lanes; ++i) {
    const Offsets offsets = encode({anchor[0][i], anchor[1][i], anchor[2][i], anchor[3][i]},
                                   {truth[0][i], truth[1][i], truth[2][i], truth[3][i]}, options);
    x[i] = offsets.x, y[i] = offsets.y, width[i] = offsets.width, height[i] = offsets.height;
  }
  for (int i = 0; i < num; ++i) {
    out[4 * i] = x[i], out[4 * i + 1] = y[i], out[4 * i + 2] = width[i], out[4 * i + 3] = height[i];
  }
}

// Writes `end - first` rows of 4: the rows at `places` from `rows`, the other rows 0. With
// `streams` it uses non-temporal stores: a normal store would first read the memory that it
// replaces.
void write_rows(float* out, int first, int end, const int* places, const float* rows, int num,
                bool streams) {
  if (streams) {
    const float zeros[4] = {};
    for (int i = 0, row = first; row < end; ++row) {
      for (const int until = i < num ? places[i] : end; row < until; ++row) {
        stream_four(out + 4 * (int64)row, zeros);
      }
      if (i < num) stream_four(out + 4 * (int64)row, rows + 4 * i++);
    }
    return;
  }
  std::fill(out + 4 * (int64)first, out + 4 * (int64)end, 0.0f);
  for (int i = 0; i < num; ++i) std::copy_n(rows + 4 * i, 4, out + 4 * (int64)places[i]);
}

// Targets of one image at a time. Steps and names are those of the kernels.
class Image {
 public:
  Image(const Anchors& anchors, TargetInputs in, TargetShape shape, TargetOptions options,
        TargetOutputs out, bool parallel)
      : anchors_(anchors),
        in_(in),
        shape_(shape),
        options_(options),
        out_(out),
        num_(shape.num_anchors),
        mining_(options.mining_ratio > 0),
        limit_(std::min(options.overlap_threshold > 0 ? options.overlap_threshold : kInfinity,
                        mining_ ? options.mining_threshold : kInfinity)),
        num_ranges_(parallel ? std::min(num_threads(), (int)ceil_div(anchors.blocks, 16)) : 1),
        parallel_(parallel),
        memory_(*this) {
    const int64 bytes = 9 * (int64)sizeof(float) * shape.num_images * num_;
    const auto places = (std::uintptr_t)out.loc_target | (std::uintptr_t)out.loc_mask;
    streams_ = bytes >= kStreamed && places % 16 == 0;
  }

  void take(Workspace& memory) {
    matches_.best = memory.take<float>(num_);
    matches_.which = memory.take<int>(num_);
    matches_.touched = memory.take<uint64>(ceil_div(num_, 64));
    bounds_ = memory.take<float>(anchors_.blocks);
    truths_ = memory.take<SizedBox>(shape_.num_truths);
    turns_ = memory.take<Turn>(shape_.num_truths);
    keys_ = memory.take<uint64>((int64)num_ranges_ * shape_.num_truths);
    if (mining_) {
      scores_ = memory.take<float>(num_);
      chosen_ = memory.take<int>(num_);
      order_ = memory.take<uint64>(num_);
    }
  }

  void run(int image) {
    image_ = image;
    label_ = in_.label + (int64)image * shape_.num_truths * shape_.label_width;
    num_truths_ = 0;
    while (num_truths_ < shape_.num_truths && *row(num_truths_) != -1) {
      truths_[num_truths_] = truth_at(label_, num_truths_, shape_.label_width);
      ++num_truths_;
    }
    std::fill_n(matches_.touched, ceil_div(num_, 64), 0);
    num_chosen_ = 0;
    rest_ = options_.ignore_label;
    if (num_truths_) {
      match();
      assign();
      if (mining_) {
        mine();
      } else {
        rest_ = 0;
      }
    }
    each_part(kTile, 0.6, [&](int first, int end) { write(first, end); });
    float* cls = out_.cls_target + (int64)image_ * num_;
    for (int i = 0; i < num_chosen_; ++i) cls[chosen_[i]] = 0;
  }

 private:
  struct Turn {
    uint64 key;
    int truth;
    bool operator<(const Turn& other) const {
      return key < other.key || (key == other.key && truth > other.truth);
    }
  };

  const float* row(int64 k) const { return label_ + k * shape_.label_width; }

  // Calls body(first, end) for parts of `size` anchors; `cost` is in ns per anchor.
  template <typename Body>
  void each_part(int size, double cost, const Body& body) const {
    parallel_for(ceil_div(num_, size), parallel_ ? cost * size : 0, [&](int64 part) {
      const int first = (int)part * size;
      body(first, std::min(num_, first + size));
    });
  }

  template <typename Body>
  void each_touched(int first, int end, const Body& body) const {
    for (int word = first / 64; word < ceil_div(end, 64); ++word) {
      for (uint64 bits = matches_.touched[word]; bits; bits &= bits - 1) {
        body(word * 64 + __builtin_ctzll(bits));
      }
    }
  }

  bool positive(int a) const { return is_positive(matches_.best[a], matches_.which[a], options_); }
  bool candidate(int a) const {
    return !positive(a) && matches_.best[a] < options_.mining_threshold;
  }

  Range all_blocks() const { return {anchors_, bounds_, 0, anchors_.blocks}; }

  void match() {
    const int groups = anchors_.blocks / kGroup, per_range = (int)ceil_div(groups, num_ranges_);
    const double cost = parallel_ ? 0.1 * per_range * kGroup * kBlock * num_truths_ : 0;
    parallel_for(num_ranges_, cost, [&](int64 i) {
      const Range range = {anchors_, bounds_, std::min((int)i * per_range, groups) * kGroup,
                           std::min((int)(i + 1) * per_range, groups) * kGroup};
      for (int k = 0; k < num_truths_; ++k) {
        keys_[i * num_truths_ + k] =
            range.first < range.end ? simd<best_key<false>>(range, matches_, truths_[k], k, limit_)
                                    : 0;
      }
    });
  }

  // Greedy assignment from a heap of the best pair per truth. A truth searches another anchor only
  // when its pair is on top and its anchor is assigned. The new pair is worse, so this is early
  // enough.
  void assign() {
    int num = 0;
    for (int k = 0; k < num_truths_; ++k) {
      uint64 key = 0;
      for (int i = 0; i < num_ranges_; ++i) key = std::max(key, keys_[i * num_truths_ + k]);
      if (key) turns_[num++] = {key, k};
    }
    std::make_heap(turns_, turns_ + num);
    while (num) {
      std::pop_heap(turns_, turns_ + num);
      Turn& turn = turns_[--num];
      const int anchor = anchor_of(turn.key);
      if (!matches_.is_assigned(anchor)) {
        matches_.assign_to(anchor, turn.truth);
        continue;
      }
      turn.key =
          simd<best_key<true>>(all_blocks(), matches_, truths_[turn.truth], turn.truth, kInfinity);
      if (turn.key) std::push_heap(turns_, turns_ + ++num);
    }
  }

  // Only few anchors are mined, and the exact exponential is slow. An approximate one resolves all
  // anchors but those near the limit.
  void mine() {
    int num_positive = 0, num_candidates = num_;
    each_touched(0, num_, [&](int a) {
      num_positive += positive(a);
      num_candidates -= !candidate(a);
    });
    const int wanted = mining_count(num_positive, num_, options_.mining_ratio);
    if (wanted == 0) return;
    if (num_candidates <= wanted) {
      rest_ = 0;
      return;
    }
    const float* logits = in_.cls_pred + (int64)image_ * shape_.num_classes * num_;
    each_part(parallel_ ? 2 * kTile : num_, 0.25 * shape_.num_classes, [&](int first, int end) {
      simd<approx_score>(scores_ + first, logits + first, shape_.num_classes, num_, end - first);
    });
    each_touched(0, num_, [&](int a) {
      if (!candidate(a)) scores_[a] = -1;
    });
    choose(logits, wanted);
  }

  // Selects the `wanted` highest scores. Approximate scores of candidates are at least 1, or NaN.
  void choose(const float* logits, int wanted) {
    // Bisection: at least `wanted` certain scores are >= low, at most `wanted` are >= high.
    float low = 0.5f, high = kCertain;
    if (count(low) < wanted) {
      high = kInfinity;
    }
    while (high != kInfinity && bits_of(high) - bits_of(low) > 1 << 13) {
      const float middle = float_of((bits_of(low) + bits_of(high)) / 2);
      const int reached = count(middle);
      if (reached >= wanted) low = middle;
      if (reached <= wanted) high = middle;
    }
    // Approximate and exact scores of two anchors differ in order only within this factor. It is
    // twice the error of the exponentials and of the sums: half an ulp per class.
    const double error = std::exp(1e-3 + 2.5e-7 * shape_.num_classes);
    const float least = (float)(low / error);
    int num = 0, certain = 0;
    bool all_certain = true;
    for (int a = 0; a < num_; ++a) {
      chosen_[num] = a;
      num += !(scores_[a] < least);
    }
    for (int i = 0; i < num; ++i) all_certain &= scores_[chosen_[i]] == scores_[chosen_[i]];
    const float most = all_certain ? (float)(high * error) : kInfinity;
    for (int i = 0; i < num; ++i) {
      if (scores_[chosen_[i]] > most) std::swap(chosen_[certain++], chosen_[i]);
    }
    score(logits, chosen_ + certain, num - certain);
    std::nth_element(order_, order_ + (wanted - certain), order_ + (num - certain));
    for (int i = certain; i < wanted; ++i) chosen_[i] = (int)(uint32)order_[i - certain];
    num_chosen_ = wanted;
  }

  int count(float least) const { return simd<count_from>(scores_, num_, least); }

  // mining_keys of these anchors.
  void score(const float* logits, const int* anchors, int num) {
    float background[kBlock];
    for (int first = 0; first < num; first += kBlock) {
      const int some = std::min(kBlock, num - first);
      simd<exact_scores>(background, logits, shape_.num_classes, num_, anchors + first, some);
      for (int i = 0; i < some; ++i) {
        order_[first + i] = mining_key(mining_score(background[i]), anchors[first + i]);
      }
    }
  }

  void write(int first, int end) const {
    int places[kTile], num = 0;
    float rows[4 * kTile];
    const int64 begin = (int64)image_ * num_;
    float* cls = out_.cls_target + begin;
    std::fill(cls + first, cls + end, rest_);
    each_touched(first, end, [&](int a) {
      if (positive(a)) {
        places[num++] = a;
        cls[a] = *row(truth_of(a)) + 1;
      } else if (mining_ && !candidate(a)) {
        cls[a] = options_.ignore_label;
      }
    });
    encode_rows(rows, places, num);
    write_rows(out_.loc_target + 4 * begin, first, end, places, rows, num, streams_);
    std::fill_n(rows, 4 * num, 1.0f);
    write_rows(out_.loc_mask + 4 * begin, first, end, places, rows, num, streams_);
    if (streams_) streamed();
  }

  int truth_of(int a) const {
    return matches_.which[a] < 0 ? ~matches_.which[a] : matches_.which[a];
  }

  void encode_rows(float* rows, const int* places, int num) const {
    float anchor[4][kBlock] = {}, truth[4][kBlock] = {};
    for (int first = 0; first < num; first += kBlock) {
      const int some = std::min(kBlock, num - first);
      for (int i = 0; i < some; ++i) {
        const int a = places[first + i];
        const Box own = anchors_.at(a).box, box = truths_[truth_of(a)].box;
        anchor[0][i] = own.x1, anchor[1][i] = own.y1, anchor[2][i] = own.x2, anchor[3][i] = own.y2;
        truth[0][i] = box.x1, truth[1][i] = box.y1, truth[2][i] = box.x2, truth[3][i] = box.y2;
      }
      simd<encode_fields>(rows + 4 * first, anchor, truth, some, options_);
    }
  }

  const Anchors& anchors_;
  const TargetInputs in_;
  const TargetShape shape_;
  const TargetOptions options_;
  const TargetOutputs out_;
  const int num_;
  const bool mining_;
  const float limit_;  // IoU above which an anchor is positive or no candidate
  const int num_ranges_;
  const bool parallel_;
  bool streams_;
  Matches matches_;
  float *bounds_, *scores_;
  SizedBox* truths_;
  Turn* turns_;
  uint64 *keys_, *order_;  // keys_: one per truth and range
  int* chosen_;
  Memory memory_;

  int image_, num_truths_, num_chosen_;
  const float* label_;
  float rest_;  // class of all other anchors
};

// Rejects a row of label (images, rows, width) whose class is -1, which ends the truths of an
// image, but whose corners are not.
void refuse_half_padding(const float* label, int64 images, int64 rows, int64 width) {
  for (int64 image = 0; image < images; ++image) {
    for (int64 i = 0; i < rows; ++i) {
      const float* row = label + (image * rows + i) * width;
      if (row[0] != -1) continue;
      if (row[1] == -1 && row[2] == -1 && row[3] == -1 && row[4] == -1) break;
      std::ostringstream message;
      message.imbue(std::locale::classic());
      message << std::setprecision(9)
              << "label: expected corners of -1 where the class is -1, got [" << row[1] << ", "
              << row[2] << ", " << row[3] << ", " << row[4] << "] in image " << image << ", row "
              << i;
      throw std::invalid_argument(message.str());
    }
  }
}

}  // namespace

void multibox_target(const Cpu&, TargetOutputs out, TargetInputs in, TargetShape shape,
                     TargetOptions options) {
  if (shape.num_images == 0) return;
  refuse_half_padding(in.label, shape.num_images, shape.num_truths, shape.label_width);
  Anchors anchors(shape.num_anchors);
  const Memory memory(anchors);
  simd<split_anchors>(anchors, in.anchor);
  // Threads share the images, or the anchors of each image if there are fewer images than threads.
  const int threads = num_threads(), images = shape.num_images;
  if (images < threads) {
    Image image(anchors, in, shape, options, out, true);
    for (int i = 0; i < images; ++i) image.run(i);
    return;
  }
  const double logits = options.mining_ratio > 0 ? 0.25 * shape.num_classes : 0;
  const double cost = shape.num_anchors * (0.1 * shape.num_truths + logits + 0.6);
  std::atomic<int> next{0};
  parallel_for(threads, cost * images / threads, [&](int64) {
    int i = next++;
    if (i >= images) return;
    Image image(anchors, in, shape, options, out, false);
    for (; i < images; i = next++) image.run(i);
  });
}

}  // namespace cvops
