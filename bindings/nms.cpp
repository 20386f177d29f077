#include "nms.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "parallel.h"
#include "simd.h"

namespace cvops::cpu {

void sort_keys(std::vector<uint64>& keys) {
  if (keys.size() < 256) {
    std::sort(keys.begin(), keys.end());
    return;
  }
  // By the bytes of the score, from the lowest; each pass keeps the order of what it finds equal,
  // so that equal scores stay in the order of their indices.
  std::vector<uint64> other(keys.size());
  for (int shift = 32; shift < 64; shift += 8) {
    size_t starts[257] = {};
    for (uint64 key : keys) ++starts[(key >> shift & 255) + 1];
    if (*std::max_element(starts, starts + 257) == keys.size()) continue;  // all alike
    std::partial_sum(starts, starts + 257, starts);
    for (uint64 key : keys) other[starts[key >> shift & 255]++] = key;
    keys.swap(other);
  }
}

namespace {

constexpr int kGroup = 32;

// Kept boxes as arrays of fields, of which whole groups are compared at once. The last group is
// filled up with boxes of NaN, which suppress nothing.
class KeptBoxes {
 public:
  explicit KeptBoxes(int64 most)
      : fields_(5 * (most + kGroup), std::numeric_limits<float>::quiet_NaN()) {
    const int64 stride = most + kGroup;
    for (int f = 0; f < 5; ++f) field_[f] = fields_.data() + f * stride;
  }

  void push(SizedBox b) {
    const float values[] = {b.box.x1, b.box.y1, b.box.x2, b.box.y2, b.area};
    for (int f = 0; f < 5; ++f) field_[f][size_] = values[f];
    ++size_;
  }

  SizedBox operator[](int64 i) const {
    return {{field_[0][i], field_[1][i], field_[2][i], field_[3][i]}, field_[4][i]};
  }

  int64 size() const { return size_; }
  const float* field(int f) const { return field_[f]; }

 private:
  std::vector<float> fields_;
  float* field_[5];
  int64 size_ = 0;
};

// The first box from `first` on whose group may hold one that suppresses `other`; kept.size() or
// more if there is none. A group passes if any overlap comes near the threshold, which takes no
// division and leaves nothing out: 0.9999 stands for what the roundings could add.
template <bool center>
inline __attribute__((always_inline)) int64 next_group(const float* __restrict__ x1,
                                                       const float* __restrict__ y1,
                                                       const float* __restrict__ x2,
                                                       const float* __restrict__ y2,
                                                       const float* __restrict__ area, int64 first,
                                                       int64 size, SizedBox other, float near) {
  for (; first < size; first += kGroup) {
    int passes = 0;
    for (int64 i = first; i < first + kGroup; ++i) {
      float overlap = intersection({x1[i], y1[i], x2[i], y2[i]}, other.box, center);
      passes |= overlap >= near * (area[i] + other.area - overlap);
    }
    if (passes) break;
  }
  return first;
}

int64 next_group_of_corners(const KeptBoxes& k, int64 first, SizedBox other, float near) {
  return next_group<false>(k.field(0), k.field(1), k.field(2), k.field(3), k.field(4), first,
                           k.size(), other, near);
}

int64 next_group_of_centers(const KeptBoxes& k, int64 first, SizedBox other, float near) {
  return next_group<true>(k.field(0), k.field(1), k.field(2), k.field(3), k.field(4), first,
                          k.size(), other, near);
}

bool is_suppressed(const KeptBoxes& kept, SizedBox other, NmsRule rule) {
  // Below 0 even boxes that do not touch suppress each other, and every group must be looked at.
  const bool filters = rule.threshold >= 0;
  const float near = 0.9999f * rule.threshold;
  for (int64 first = 0; first < kept.size(); first += kGroup) {
    if (filters) {
      first = rule.center ? simd<next_group_of_centers>(kept, first, other, near)
                          : simd<next_group_of_corners>(kept, first, other, near);
    }
    for (int64 i = first; i < std::min(first + kGroup, kept.size()); ++i) {
      if (suppresses(kept[i], other, rule)) return true;
    }
  }
  return false;
}

// The boxes of one class of one item of the batch, or all of the item's.
struct Run {
  SortedBoxes* item;
  std::vector<int> indices;
};

}  // namespace

void suppress(std::vector<SortedBoxes>& batch, NmsRule rule) {
  std::vector<Run> runs;
  int64 longest = 0;
  for (SortedBoxes& item : batch) {
    const int num = (int)item.boxes.size();
    item.kept.assign(num, 0);
    std::vector<int> order(num);
    std::iota(order.begin(), order.end(), 0);
    if (rule.by_class) {
      std::stable_sort(order.begin(), order.end(),
                       [&](int i, int j) { return item.classes[i] < item.classes[j]; });
    }
    for (int begin = 0, end; begin < num; begin = end) {
      auto differs = [&](int i) { return item.classes[i] != item.classes[order[begin]]; };
      end = rule.by_class
                ? (int)(std::find_if(order.begin() + begin, order.end(), differs) - order.begin())
                : num;
      runs.push_back({&item, {order.begin() + begin, order.begin() + end}});
      longest = std::max<int64>(longest, end - begin);
    }
  }
  // A guess at the time: each box is compared with half of those before it.
  parallel_for((int64)runs.size(), 0.1 * longest * longest, [&](int64 r) {
    const Run& run = runs[r];
    KeptBoxes kept((int64)run.indices.size());
    for (int i : run.indices) {
      if (is_suppressed(kept, run.item->boxes[i], rule)) continue;
      run.item->kept[i] = 1;
      kept.push(run.item->boxes[i]);
    }
  });
}

}  // namespace cvops::cpu
