#include "multiclass_nms.h"

#include <algorithm>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Scores compared per vector step.
constexpr int kGroup = 32;

// Minimum number of scores for a sample.
constexpr int64 kMinSampled = 1 << 16;

// Appends the keys of scores[first], ..., scores[end - 1] above the cut. It stops if the capacity
// does not allow another group. `first` becomes the first score that is not processed.
int64 collect(uint64* keys, int64 num, int64 capacity, const float* scores, int64& first, int64 end,
              float cut) {
  int64 at = first;
  for (; at + kGroup <= end; at += kGroup) {
    int any = 0;
    for (int k = 0; k < kGroup; ++k) any |= scores[at + k] > cut;
    if (!any) continue;
    if (num + kGroup > capacity) break;
    uint32 bits = 0;
    for (int k = 0; k < kGroup; ++k) bits |= (uint32)(scores[at + k] > cut) << k;
    for (; bits; bits &= bits - 1) {
      const int64 i = at + __builtin_ctz(bits);
      keys[num++] = sort_key(scores[i], (uint32)i);
    }
  }
  if (at + kGroup > end && num + kGroup <= capacity) {
    for (; at < end; ++at) {
      if (scores[at] > cut) keys[num++] = sort_key(scores[at], (uint32)at);
    }
  }
  first = at;
  return num;
}

// Collects the keys of the best `topk` candidates of at most `num` scores, in index order, and some
// more keys.
class Best {
 public:
  Best(int64 num, int topk, float cut)
      : topk_(topk),
        capacity_(std::min<int64>(num, 2ll * topk + 4096) + kGroup),
        keys_(scratch<uint64>(capacity_)),
        other_(scratch<uint64>(capacity_)),
        cut_(cut) {}

  // Adds scores [first, end) of an image.
  void add_scores(const float* scores, int64 first, int64 end) {
    while (first < end) {
      if (num_ + kGroup > capacity_) drop_worse();
      num_ = simd<collect>(keys_.get(), num_, capacity_, scores, first, end, cut_);
    }
  }

  // Adds the keys of a collector of later scores. All collectors together have at most `num`
  // scores.
  void add(Best& later) {
    drop_worse(), later.drop_worse();
    std::copy_n(later.keys_.get(), later.num_, keys_.get() + num_);
    num_ += later.num_;
  }

  // The best `topk` keys or fewer, sorted. It overwrites the other keys.
  const uint64* sorted() { return sort_keys(keys_.get(), other_.get(), num_, topk_); }
  int64 count() const { return std::min(num_, topk_); }

 private:
  // Later keys must be better than the last of the best: of equal scores the earlier one counts.
  void drop_worse() {
    if (num_ <= topk_) return;
    std::copy_n(keys_.get(), num_, other_.get());
    std::nth_element(other_.get(), other_.get() + topk_ - 1, other_.get() + num_);
    const uint64 last = other_[topk_ - 1];
    int64 left = 0;
    for (int64 i = 0; i < num_; ++i) {
      keys_[left] = keys_[i];
      left += keys_[i] <= last;
    }
    num_ = left;
    cut_ = score_of(last);
  }

  int64 topk_, capacity_, num_ = 0;
  std::unique_ptr<uint64[]> keys_, other_;
  float cut_;
};

// Score below which the best candidates certainly are not, unless the sample is misleading: see
// topk.cuh.
float sampled_cut(const float* scores, int num, const MulticlassOptions& options) {
  const int rank = num < kMinSampled ? 0 : Sampling(num, options.topk).rank;
  if (rank == 0) return options.filter.threshold;
  uint64 sample[kSamples], *end = sample;
  for (int j = 0; j < kSamples; ++j) {
    *end = candidate_key(scores, sample_position(j, num), options.filter);
    end += *end != kNoKey;
  }
  if (end - sample <= rank) return options.filter.threshold;
  std::nth_element(sample, sample + rank - 1, end);
  return score_of(sample[rank - 1]);
}

// The best candidates above the cut among the `num` scores of an image.
Best best_above(float cut, const float* scores, int64 num, const MulticlassOptions& options,
                int threads) {
  const int64 skip = options.filter.skip, skip_end = options.filter.skip_end;
  const int64 parts = std::clamp<int64>(num / kMinSampled, 1, threads);
  std::vector<Best> found;
  for (int64 p = 0; p < parts; ++p) {
    found.emplace_back(p == 0 ? num : ceil_div(num, parts), options.topk, cut);
  }
  parallel_for(parts, 0.2 * num / parts, [&](int64 p) {
    const int64 first = p * num / parts, end = (p + 1) * num / parts;
    found[p].add_scores(scores, first, std::min(end, skip));
    found[p].add_scores(scores, std::max(first, skip_end), end);
  });
  for (int64 p = 1; p < parts; ++p) found[0].add(found[p]);
  return std::move(found[0]);
}

Best best_of(const float* scores, int64 num, const MulticlassOptions& options, int threads) {
  const float cut = sampled_cut(scores, (int)num, options);
  Best best = best_above(cut, scores, num, options, threads);
  if (best.count() == options.topk || cut == options.filter.threshold) return best;
  return best_above(options.filter.threshold, scores, num, options, threads);
}

// The best candidates, at most topk, of scores of doubles: their indices, the best first.
std::vector<uint64> sorted_doubles(const double* scores, int64 num,
                                   const MulticlassOptions& options) {
  std::vector<uint64> found;
  for (int64 i = 0; i < num; ++i) {
    if (options.filter.passes(scores[i], (int)i)) found.push_back((uint64)i);
  }
  const int64 most = std::min<int64>((int64)found.size(), options.topk);
  std::partial_sort(found.begin(), found.begin() + most, found.end(), [&](uint64 a, uint64 b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  found.resize(most);
  return found;
}

// One row of the output.
template <typename T>
struct Row {
  T id, score;
  BoxOf<T> box;
};

// Suppression among `count` candidates of an image in the order `sorted`; writes its rows, and
// returns their number.
template <typename T>
int write_kept(T* out, const T* image, const T* scores, const uint64* sorted, int64 count,
               int64 num, const MulticlassOptions& options, int threads) {
  const auto boxes = scratch<SizedBoxOf<T>>(count);
  const auto classes = scratch<int>(count);
  for (int64 i = 0; i < count; ++i) {
    const int64 index = index_of(sorted[i]), id = index / num;
    boxes[i] = sized(load_box(image, index - id * num), options.rule.center);
    classes[i] = (int)id;
  }
  const auto kept = scratch<uint8_t>(count);
  if constexpr (std::is_same_v<T, double>) {
    const auto bounds = scratch<SizedBox>(count);
    for (int64 i = 0; i < count; ++i) bounds[i] = nms_bounds(boxes[i]);
    suppress_exactly(kept.get(), bounds.get(), boxes.get(), classes.get(), (int)count, options.rule,
                     threads);
  } else {
    suppress(kept.get(), boxes.get(), classes.get(), (int)count, options.rule, threads);
  }
  Row<T>*row = reinterpret_cast<Row<T>*>(out), *end = row + options.rows;
  Row<T>* const first = row;
  for (int64 i = 0; i < count && row < end; ++i) {
    if (!kept[i]) continue;
    const int64 index = index_of(sorted[i]);
    *row++ = {(T)classes[i], scores[index], load_box(image, index - classes[i] * num)};
  }
  std::fill(reinterpret_cast<T*>(row), reinterpret_cast<T*>(end), T(-1));
  return (int)(row - first);
}

}  // namespace

template <typename T>
void multiclass_nms(const Cpu&, T* out, int* counts, ClassScores<T> in, MulticlassOptions options) {
  if (options.rows == 0) {
    std::fill_n(counts, in.batch, 0);
    return;
  }
  const int64 num = in.classes * in.num;
  for_each_image(in.batch, 0.2 * num + 100.0 * options.topk, [&](int64 b, int threads) {
    const T *image = in.boxes + 4 * b * in.num, *scores = in.scores + b * num;
    T* const rows = out + 6 * b * options.rows;
    if constexpr (std::is_same_v<T, double>) {
      const auto sorted = sorted_doubles(scores, num, options);
      counts[b] = write_kept(rows, image, scores, sorted.data(), (int64)sorted.size(), in.num,
                             options, threads);
    } else {
      Best best = best_of(scores, num, options, threads);
      const uint64* sorted = best.sorted();
      counts[b] = write_kept(rows, image, scores, sorted, best.count(), in.num, options, threads);
    }
  });
}

#define CVOPS_INSTANTIATE(T) \
  template void multiclass_nms(const Cpu&, T*, int*, ClassScores<T>, MulticlassOptions);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
