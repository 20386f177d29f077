#include "soft_nms.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "simd.h"
#include "soft_nms_factors.h"
#include "soft_nms_steps.h"

namespace cvops {

using namespace cpu;

namespace {

// Kept boxes per vector step.
constexpr int kVector = 16;
// Factors per vector step.
constexpr int kStep = 8;
// Several threads apply that number of kept boxes to all candidates. From so many candidates on,
// that is faster than steps.
constexpr int kFlush = 512, kMinThreaded = 4 * kFlush;
// Candidates per task of a thread.
constexpr int kPart = 32;

// The kept boxes of a set, in order. The slots after them overlap nothing.
struct Kept {
  const SoftNms op;
  const MinOverlap part;
  const int64 capacity;
  const std::unique_ptr<float[]> floats = scratch<float>(6 * capacity);
  const std::unique_ptr<int[]> classes = scratch<int>(capacity);
  float *const x1 = floats.get(), *const y1 = x1 + capacity, *const x2 = y1 + capacity,
               *const y2 = x2 + capacity, *const area = y2 + capacity,
               *const min_overlap = area + capacity;
  int num = 0;

  Kept(SoftNms op, int64 num) : op(op), part(min_lowering_overlap(op)), capacity(num + kVector) {
    std::fill_n(min_overlap, capacity, std::numeric_limits<float>::infinity());
    std::fill_n(floats.get(), 5 * capacity, 0.0f);
    std::fill_n(classes.get(), capacity, 0);
  }

  void add(const SizedBox& b, int of_class) {
    x1[num] = b.box.x1, y1[num] = b.box.y1, x2[num] = b.box.x2, y2[num] = b.box.y2;
    area[num] = b.area, min_overlap[num] = part(b.area), classes[num] = of_class;
    ++num;
  }
};

// The score times the factors of `num` IoUs, in order, until it is not above `lowest`. A negative
// factor, of an IoU above 1, could raise it again; a Gaussian one could not. The IoUs from `num` to
// kMost are 0: their factor is 1.
template <int kMost, bool kGaussian>
CVOPS_INLINE float lowered(float score, float lowest, const float* ious, int num,
                           const SoftNms& op) {
  float factors[kMost];
  for (int k = 0; k < kMost; k += kStep) {
    soft_nms_factors<kStep, kGaussian>(factors + k, ious + k, op);
  }
  if (kGaussian) {
    for (int k = 0; k < kMost; ++k) score *= factors[k];  // without a branch on `num`
  } else {
    for (int k = 0; k < num && score > lowest; ++k) score *= factors[k];
  }
  return score;
}

// The IoUs of a candidate whose factors are not yet in its score, in order.
struct Batch {
  static constexpr int kSize = 16 * kVector;
  float ious[kSize];
  int begin = 0, end = 0;

  int num() const { return end - begin; }

  CVOPS_INLINE void add(const float* of_lanes, const int* passes) {
    for (int k = 0; k < kVector; ++k) {
      ious[end] = of_lanes[k];
      end += passes[k];
    }
  }

  // Removes the first kVector IoUs. A move waits for the stores of add(): it should be rare.
  CVOPS_INLINE void remove_first() {
    begin += kVector;
    if (begin < kSize - 3 * kVector) return;
    std::copy(ious + begin, ious + end, ious);
    end -= begin, begin = 0;
  }
};

// Score of a candidate after the kept boxes from `first` on. It stops at `lowest`.
template <bool kCenter, bool kGaussian>
float decayed(const Kept& kept, int first, const SizedBox& b, int of_class, float score,
              float lowest) {
  const SoftNms op = {kept.op.threshold, kept.op.sigma, kGaussian, true, kCenter};
  const float least = kept.part(b.area);
  Batch batch;
  for (int at = first; at < kept.num; at += kVector) {
    int passes[kVector], any = 0;
    float overlaps[kVector];
    CVOPS_INDEPENDENT
    for (int k = 0; k < kVector; ++k) {
      const int i = at + k;
      const Box box = {kept.x1[i], kept.y1[i], kept.x2[i], kept.y2[i]};
      overlaps[k] = intersection(box, b.box, kCenter);
      passes[k] = (overlaps[k] > least + kept.min_overlap[i]) & (kept.classes[i] == of_class);
      any |= passes[k];
    }
    if (!any) continue;
    CVOPS_NOT_UNROLLED
    for (int k = 0; k < kVector; ++k) {
      overlaps[k] = overlaps[k] / (kept.area[at + k] + b.area - overlaps[k]);
    }
    const int last = kept.num - at;
    if (last <= kVector && batch.num() == 0) {
      // Most candidates come again after few more kept boxes. They need no batch.
      for (int k = 0; k < kVector; ++k) overlaps[k] = passes[k] ? overlaps[k] : 0.0f;
      return last > kStep ? lowered<kVector, kGaussian>(score, lowest, overlaps, last, op)
                          : lowered<kStep, kGaussian>(score, lowest, overlaps, last, op);
    }
    batch.add(overlaps, passes);
    if (batch.num() < kVector) continue;
    score = lowered<kVector, kGaussian>(score, lowest, batch.ious + batch.begin, kVector, op);
    if (!(score > lowest)) return score;
    batch.remove_first();
  }
  std::fill_n(batch.ious + batch.end, kStep, 0.0f);
  for (int k = batch.begin; k < batch.end; k += kStep) {
    score = lowered<kStep, kGaussian>(score, lowest, batch.ious + k, std::min(kStep, batch.end - k),
                                      op);
  }
  return score;
}

// Candidate with a key of an upper bound of its score.
struct Entry {
  uint64 key;
  int candidate;
};

// Binary heap whose top has the lowest key. std::priority_queue cannot replace its top, which is
// most of the work here; a lowered score often stays near the top.
class Queue {
 public:
  size_t size() const { return heap_.size(); }
  const Entry& top() const { return heap_[0]; }

  void push(const Entry& entry) {
    heap_.push_back(entry);
    std::push_heap(heap_.begin(), heap_.end(), is_after);
  }

  void pop() {
    const Entry last = heap_.back();
    heap_.pop_back();
    if (size()) replace_top(last);
  }

  void replace_top(const Entry& entry) {
    size_t at = 0;
    for (size_t child = 1; child < size(); child = 2 * at + 1) {
      if (child + 1 < size()) child += is_after(heap_[child], heap_[child + 1]);
      if (!is_after(entry, heap_[child])) break;
      heap_[at] = heap_[child], at = child;
    }
    heap_[at] = entry;
  }

 private:
  static bool is_after(const Entry& a, const Entry& b) { return a.key > b.key; }

  std::vector<Entry> heap_;
};

// Scores decrease only, so a candidate whose score is an upper bound waits until it is the best of
// all. Only then the boxes kept since its last turn lower its score, in order. The result has the
// bits of the algorithm that lowers all scores at each step.
class SoftNmsRun {
 public:
  SoftNmsRun(const NmsCandidates& found, const SoftNmsOptions& options, int threads)
      : found_(found),
        options_(options),
        threads_(threads),
        kept_(options.op, std::min(options.rows, found.count)),
        scores_(scratch<float>(found.count)),
        seen_(scratch<int>(found.count)) {
    for (int i = 0; i < found.count; ++i) scores_[i] = score_of(found.sorted[i]), seen_[i] = 0;
  }

  // Calls use(row, score) for each kept row.
  template <typename Use>
  void run(const Use& use) {
    const float lowest = options_.candidates.valid_thresh;
    while (kept_.num < options_.rows) {
      const bool from_queue =
          queue_.size() && (next_ == found_.count || queue_.top().key < found_.sorted[next_]);
      if (!from_queue && next_ == found_.count) return;
      const Entry best = from_queue ? queue_.top() : Entry{found_.sorted[next_], next_};
      next_ += !from_queue;
      const int i = best.candidate;
      update(i);
      const bool is_left = scores_[i] > lowest;
      const uint64 key = sort_key(scores_[i], index_of(best.key));
      if (is_left && key != best.key) {
        from_queue ? queue_.replace_top({key, i}) : queue_.push({key, i});
        continue;
      }
      if (from_queue) queue_.pop();
      if (!is_left) continue;
      use((int)index_of(key), scores_[i]);
      kept_.add(found_.boxes[i], class_of(i));
      seen_[i] = std::numeric_limits<int>::max();
      if (threads_ > 1 && kept_.num % kFlush == 0 && options_.rows - kept_.num > kFlush) flush();
    }
  }

 private:
  int class_of(int i) const { return options_.op.by_class ? found_.classes[i] : 0; }

  void update(int i) {
    if (seen_[i] >= kept_.num) return;
    const float lowest = options_.candidates.valid_thresh;
    const auto lower = [&](auto run) {
      scores_[i] = run(kept_, seen_[i], found_.boxes[i], class_of(i), scores_[i], lowest);
    };
    if (options_.op.center) {
      if (options_.op.gaussian) {
        lower([](auto&&... args) { return simd<decayed<true, true>>(args...); });
      } else {
        lower([](auto&&... args) { return simd<decayed<true, false>>(args...); });
      }
    } else if (options_.op.gaussian) {
      lower([](auto&&... args) { return simd<decayed<false, true>>(args...); });
    } else {
      lower([](auto&&... args) { return simd<decayed<false, false>>(args...); });
    }
    seen_[i] = kept_.num;
  }

  // Lowers the scores of all candidates that are not kept or below the threshold.
  void flush() {
    parallel_for(ceil_div(found_.count, kPart), kPart * 0.5 * kFlush, [&](int64 p) {
      const int first = (int)p * kPart, end = std::min(found_.count, first + kPart);
      for (int i = first; i < end; ++i) {
        if (scores_[i] > options_.candidates.valid_thresh) update(i);
      }
    });
  }

  const NmsCandidates& found_;
  const SoftNmsOptions& options_;
  const int threads_;
  Kept kept_;
  const std::unique_ptr<float[]> scores_;  // of the candidates, after the first `seen_` kept boxes
  const std::unique_ptr<int[]> seen_;
  int next_ = 0;  // first candidate that is not in the queue
  Queue queue_;
};

}  // namespace

void soft_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
              const SoftNmsOptions& options) {
  if (batch * num * options.rows == 0) return;
  const NmsColumns columns = options.candidates.columns;
  const int64 width = columns.width, rows = options.rows;
  for_each_image(batch, 1000.0 * num, [&](int64 b, int threads) {
    const float* const from = data + b * num * width;
    NmsCandidates found(from, num, options.candidates);
    found.take_boxes(from, options.candidates);
    float *to = out + b * rows * width, *const end = to + rows * width;
    int *at = index ? index + b * rows : nullptr, *const end_index = at ? at + rows : nullptr;
    auto use = [&](int row, float score) {
      std::copy_n(from + row * width, width, to);
      to[columns.score] = score;
      to += width;
      if (at) *at++ = row;
    };
    // Steps of linear factors take less time than a queue on two threads.
    const int useful = options.op.gaussian ? 1 : 2;
    const bool uses_threads = threads > useful && found.count > kMinThreaded;
    if (!uses_threads && suits_steps(found, options.op)) {
      const auto kept = pooled_scratch<int>(std::min(options.rows, found.count));
      const auto scores = pooled_scratch<float>(std::min(options.rows, found.count));
      const int count = keep_by_steps(kept.get(), scores.get(), found, options);
      for (int i = 0; i < count; ++i) use(kept[i], scores[i]);
    } else {
      SoftNmsRun(found, options, threads).run(use);
    }
    std::fill(to, end, -1.0f);
    std::fill(at, end_index, -1);
  });
}

}  // namespace cvops
