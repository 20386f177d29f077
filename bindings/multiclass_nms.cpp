#include "multiclass_nms.h"

#include <algorithm>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// As many scores are compared at once.
constexpr int kGroup = 32;

// The first place from `first` on, by steps of kGroup, whose group has a score above the cut; or
// where less than a group is left before `end`.
int64 next_group(const float* scores, int64 first, int64 end, float cut) {
  for (; first + kGroup <= end; first += kGroup) {
    int any = 0;
    for (int k = 0; k < kGroup; ++k) any |= scores[first + k] > cut;
    if (any) break;
  }
  return first;
}

// The keys of the best `most` candidates among `num` scores or fewer that it is shown, in the order
// of their indices, and of some more.
class Best {
 public:
  Best(int64 num, int most, float threshold)
      : most_(most),
        room_(std::min<int64>(num, 2ll * most + 4096) + kGroup),
        keys_(cpu::scratch<uint64>(room_)),
        other_(cpu::scratch<uint64>(room_)),
        cut_(threshold) {}

  // Scores [first, end) of an image's.
  void show(const float* scores, int64 first, int64 end) {
    while (first < end) {
      first = simd<next_group>(scores, first, end, cut_);
      if (num_ + kGroup > room_) leave_best();
      for (const int64 stop = std::min(end, first + kGroup); first < stop; ++first) {
        keys_[num_] = sort_key(scores[first], (uint32)first);
        num_ += scores[first] > cut_;
      }
    }
  }

  // What another one found in later scores, all of them together no more than `num`.
  void add(Best& later) {
    leave_best(), later.leave_best();
    std::copy_n(later.keys_.get(), later.num_, keys_.get() + num_);
    num_ += later.num_;
  }

  // The best `most` or fewer, sorted. Uses up the others.
  const uint64* sorted() { return cpu::sort_keys(keys_.get(), other_.get(), num_, most_); }
  int64 count() const { return std::min(num_, most_); }

 private:
  // What is found later has to be better than the last of the best: of equals the earlier counts.
  void leave_best() {
    if (num_ <= most_) return;
    std::copy_n(keys_.get(), num_, other_.get());
    std::nth_element(other_.get(), other_.get() + most_ - 1, other_.get() + num_);
    const uint64 last = other_[most_ - 1];
    int64 left = 0;
    for (int64 i = 0; i < num_; ++i) {
      keys_[left] = keys_[i];
      left += keys_[i] <= last;
    }
    num_ = left;
    cut_ = score_of(last);
  }

  int64 most_, room_, num_ = 0;
  std::unique_ptr<uint64[]> keys_, other_;
  float cut_;
};

// The best candidates of an image's `num` scores.
Best best_of(const float* scores, int64 num, const MulticlassOptions& options, int threads) {
  const auto [threshold, skip, skip_end] = options.candidates;
  const int64 parts = std::clamp<int64>(num / 50000, 1, threads);
  std::vector<Best> found;
  for (int64 p = 0; p < parts; ++p) {
    found.emplace_back(p == 0 ? num : ceil_div(num, parts), options.most, threshold);
  }
  const auto look = [&, skip = skip, skip_end = skip_end](int64 p) {
    const int64 first = p * num / parts, end = (p + 1) * num / parts;
    found[p].show(scores, first, std::min<int64>(end, skip));
    found[p].show(scores, std::max<int64>(first, skip_end), end);
  };
  parallel_for(parts, 0.2 * num / parts, look);
  for (int64 p = 1; p < parts; ++p) found[0].add(found[p]);
  return std::move(found[0]);
}

// A row of the output.
struct Row {
  float id, score;
  Box box;
};

}  // namespace

void cpu::multiclass_nms(float* out, int* counts, ClassScores in, MulticlassOptions options) {
  if (options.rows == 0) {
    std::fill_n(counts, in.batch, 0);
    return;
  }
  const int64 num = in.classes * in.num;
  for_each_image(in.batch, 0.2 * num + 100.0 * options.most, [&](int64 b, int threads) {
    const float *image = in.boxes + 4 * b * in.num, *scores = in.scores + b * num;
    Best best = best_of(scores, num, options, threads);
    const uint64* sorted = best.sorted();
    const int64 count = best.count();
    const auto boxes = scratch<SizedBox>(count);
    const auto classes = scratch<int>(count);
    for (int64 i = 0; i < count; ++i) {
      const int64 index = index_of(sorted[i]), id = index / in.num;
      boxes[i] = sized(load_box(image, index - id * in.num), options.rule.center);
      classes[i] = (int)id;
    }
    const auto kept = scratch<uint8_t>(count);
    suppress(kept.get(), boxes.get(), classes.get(), (int)count, options.rule, threads);

    Row *row = reinterpret_cast<Row*>(out) + b * options.rows, *end = row + options.rows;
    Row* const first = row;
    for (int64 i = 0; i < count && row < end; ++i) {
      if (!kept[i]) continue;
      const int64 index = index_of(sorted[i]);
      *row++ = {(float)classes[i], scores[index], load_box(image, index - classes[i] * in.num)};
    }
    counts[b] = (int)(row - first);
    std::fill(reinterpret_cast<float*>(row), reinterpret_cast<float*>(end), -1.0f);
  });
}

}  // namespace cvops
