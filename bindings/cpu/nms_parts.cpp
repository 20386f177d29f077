#include "nms_parts.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstring>

#include "nms_broad_phase.h"
#include "nms_lanes.h"
#include "nms_shapes.h"

namespace cvops::cpu {
namespace {

constexpr int kSample = 128;  // boxes

// The longest run of zeros between two ones of `bits`: the places of these two.
struct Run {
  int before = 0, after = 0;

  template <std::size_t kNum>
  explicit Run(const std::bitset<kNum>& bits) {
    int last = -1;
    for (int i = 0; i < (int)kNum; ++i) {
      if (!bits[i]) continue;
      if (last >= 0 && i - last > length()) before = last, after = i;
      last = i;
    }
  }

  int length() const { return after - before; }
};

// The part of a box between the parts 0 and 1.
constexpr int kNeither = -1;

// A place along an axis that no box of a sample touches.
class Place {
 public:
  Place(const SizedBox* sample, int num, bool is_y, bool pixels)
      : is_y_(is_y), margin_(pixels ? 1.0f : 0.0f) {
    double low = kInfinity, high = -kInfinity;
    for (int i = 0; i < num; ++i) {
      low = std::min<double>(low, begin(sample[i])), high = std::max<double>(high, end(sample[i]));
    }
    if (!(low < high)) return;
    constexpr int kBins = 64;
    const double bins_per_unit = kBins / (high - low);
    auto bin = [&](float x) { return std::min((int)((x - low) * bins_per_unit), kBins - 1); };
    uint64 used = 0;
    for (int i = 0; i < num; ++i) {
      used |= (2ull << bin(end(sample[i]))) - (1ull << bin(begin(sample[i])));
    }
    const Run run{std::bitset<kBins>(used)};
    is_large = run.length() > kBins / 4;
    at_ = (float)(low + (run.before + run.after + 1) / 2.0 / bins_per_unit);
  }

  int part_of(const SizedBox& b) const {
    return end(b) < at_ - margin_ ? 0 : begin(b) > at_ + margin_ ? 1 : kNeither;
  }

  bool is_large = false;

 private:
  float begin(const SizedBox& b) const { return is_y_ ? b.box.y1 : b.box.x1; }
  float end(const SizedBox& b) const { return is_y_ ? b.box.y2 : b.box.x2; }

  bool is_y_;
  float margin_, at_ = 0;
};

// A range of areas, or of ratios of the sides, that no box of a sample has.
class Range {
 public:
  enum Of { kArea, kAspect };

  Range(Of of, const SizedBox* sample, int num, const NmsRule& rule)
      : of_(of), pixel_(rule.pixels ? 1.0f : 0.0f) {
    std::bitset<256> used;  // exponents
    for (int i = 0; i < num; ++i) used[exponent(number(sample[i]))] = true;
    const Run run(used);
    const double middle = std::exp2((run.before + 1 + run.after) / 2.0 - kBias);
    const double ratio =
        of == kArea ? max_ratio_of_areas(rule.threshold) : max_ratio_of_aspects(rule.threshold);
    const double factor = std::sqrt(ratio);
    low_ = (float)(middle / factor), high_ = (float)(middle * factor);
    is_large = run.length() > 6 && std::ldexp(1.0f, run.before + 1 - kBias) < low_ &&
               high_ < std::ldexp(1.0f, run.after - kBias);
  }

  int part_of(const SizedBox& b) const {
    const float own = number(b);
    return own < low_ ? 0 : own > high_ ? 1 : kNeither;
  }

  bool is_large;

 private:
  static constexpr int kBias = 127;

  float number(const SizedBox& b) const { return of_ == kArea ? b.area : aspect(b.box, pixel_); }

  static int exponent(float number) {
    uint32 bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits >> 23 & 255;
  }

  Of of_;
  float pixel_, low_, high_;
};

}  // namespace

int divide_at_gap(int* parts, const SizedBox* boxes, const int* order, int num, NmsRule rule) {
  if (!RuleBounds::suit(rule)) return 0;
  const BroadPhase broad_phase(rule, false);
  SizedBox sample[kSample];
  int sampled = 0;
  for (int i = 0; i < num; i += (int)ceil_div(num, kSample)) {
    const SizedBox& b = boxes[order[i]];
    if (broad_phase.kind_of_cell(b, rule) == kGridCell) sample[sampled++] = b;
  }
  if (sampled < kSample / 4) return 0;
  auto divide = [&](const auto& gap) {
    int first = 0, second = num;
    for (int i = 0; i < num; ++i) {
      const SizedBox& b = boxes[order[i]];
      const int kind = broad_phase.kind_of_cell(b, rule);
      if (kind == kOverflowCell) return 0;
      const int part = kind == kNoCell ? 0 : gap.part_of(b);
      if (part == kNeither) return 0;
      parts[part ? --second : first++] = order[i];
    }
    std::reverse(parts + first, parts + num);
    return first;
  };
  for (bool is_y : {false, true}) {
    const Place place(sample, sampled, is_y, rule.pixels);
    if (place.is_large) return divide(place);
  }
  for (auto of : {Range::kArea, Range::kAspect}) {
    const Range range(of, sample, sampled, rule);
    if (range.is_large) return divide(range);
  }
  return 0;
}

}  // namespace cvops::cpu
