#include "matrix_nms.h"

#include <algorithm>

#include "nms.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

// Candidates j per vector step, and candidates i per task of a thread.
constexpr int kVector = 16, kPart = 32;

// Candidates of a set in the order of classes, then of scores. The slots after them overlap
// nothing.
struct Sorted {
  const int64 capacity;
  const std::unique_ptr<float[]> floats = scratch<float>(7 * capacity);
  float *const x1 = floats.get(), *const y1 = x1 + capacity, *const x2 = y1 + capacity,
               *const y2 = x2 + capacity, *const area = y2 + capacity,
               *const greatest = area + capacity,  // IoU with an earlier candidate
                   *const term = greatest + capacity;
  const std::unique_ptr<int[]> integers = scratch<int>(2 * capacity);
  int *const candidate = integers.get(), *const begin = candidate + capacity;  // of the class

  explicit Sorted(int num) : capacity(num + kVector) {
    std::fill_n(floats.get(), 7 * capacity, 0.0f);
  }

  SizedBox box(int i) const { return {{x1[i], y1[i], x2[i], y2[i]}, area[i]}; }
};

// The candidates in the order of their classes, which is stable.
void sort_by_class(Sorted& to, const NmsCandidates& from, bool by_class) {
  const auto keys = scratch<uint64>(from.count), other = scratch<uint64>(from.count);
  for (int i = 0; i < from.count; ++i) {
    keys[i] = (uint64)(by_class ? (uint32)from.classes[i] : 0u) << 32 | (uint32)i;
  }
  const uint64* sorted = sort_keys(keys.get(), other.get(), from.count, from.count);
  for (int i = 0; i < from.count; ++i) {
    const int at = (int)index_of(sorted[i]);
    const SizedBox& b = from.boxes[at];
    to.x1[i] = b.box.x1, to.y1[i] = b.box.y1, to.x2[i] = b.box.x2, to.y2[i] = b.box.y2;
    to.area[i] = b.area, to.candidate[i] = at;
    to.begin[i] = i > 0 && sorted[i] >> 32 == sorted[i - 1] >> 32 ? to.begin[i - 1] : i;
  }
}

// Calls use(k, j, iou) for each candidate j before i of i's class, in the lanes k of steps. The IoU
// of a candidate without an overlap is NaN. A branch on the overlaps would be hard to predict.
template <bool kCenter, typename Use>
CVOPS_INLINE void for_each_step(const Sorted& all, int i, const Use& use) {
  const SizedBox own = all.box(i);
  for (int at = all.begin[i]; at < i; at += kVector) {
    CVOPS_NOT_UNROLLED
    for (int k = 0; k < kVector; ++k) {
      const int j = at + k;
      const SizedBox other = {{all.x1[j], all.y1[j], all.x2[j], all.y2[j]}, all.area[j]};
      const float overlap = intersection(other.box, own.box, kCenter);
      const float iou = overlap / (other.area + own.area - overlap);
      use(k, j, ((overlap > 0) & (j < i)) ? iou : float_of(0x7fc00000u));
    }
  }
}

// Greatest IoU of the candidates [first, end) with earlier ones.
template <bool kCenter>
void find_greatest(const Sorted& all, int first, int end) {
  for (int i = first; i < end; ++i) {
    float most[kVector] = {};
    for_each_step<kCenter>(all, i,
                           [&](int k, int, float iou) { most[k] = iou > most[k] ? iou : most[k]; });
    all.greatest[i] = *std::max_element(most, most + kVector);
  }
}

// Least term of the candidates [first, end).
template <bool kCenter, bool kGaussian>
void find_term(const Sorted& all, int first, int end) {
  for (int i = first; i < end; ++i) {
    float least[kVector];
    std::fill_n(least, kVector, matrix_nms_neutral(kGaussian));
    for_each_step<kCenter>(all, i, [&](int k, int j, float iou) {
      const float term = matrix_nms_term(iou, all.greatest[j], kGaussian);
      least[k] = term < least[k] ? term : least[k];
    });
    all.term[i] = *std::min_element(least, least + kVector);
  }
}

template <bool kCenter>
void find_terms(const Sorted& all, int num, bool gaussian, int threads) {
  const auto in_parts = [&](auto find) {
    const auto part = [&](int64 p) {
      const int first = (int)p * kPart;
      find(first, std::min(num, first + kPart));
    };
    const int64 parts = ceil_div(num, kPart);
    if (threads > 1) return parallel_for(parts, kPart * 0.25 * num, part);
    for (int64 p = 0; p < parts; ++p) part(p);
  };
  in_parts([&](int first, int end) { simd<find_greatest<kCenter>>(all, first, end); });
  in_parts([&](int first, int end) {
    if (gaussian) {
      simd<find_term<kCenter, true>>(all, first, end);
    } else {
      simd<find_term<kCenter, false>>(all, first, end);
    }
  });
}

}  // namespace

void matrix_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                const MatrixNmsOptions& options) {
  if (batch * num * options.rows == 0) return;
  const NmsColumns columns = options.candidates.columns;
  const MatrixNms op = options.op;
  const int64 width = columns.width, rows = options.rows;
  for_each_image(batch, 1000.0 * num, [&](int64 b, int threads) {
    const float* const from = data + b * num * width;
    NmsCandidates found(from, num, options.candidates);
    found.take_boxes(from, options.candidates);
    Sorted sorted(found.count);
    sort_by_class(sorted, found, op.by_class);
    if (op.center) {
      find_terms<true>(sorted, found.count, op.gaussian, threads);
    } else {
      find_terms<false>(sorted, found.count, op.gaussian, threads);
    }
    // Keys in the order of the rows, which the sort needs.
    const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
    std::fill_n(other.get(), num, kNoKey);
    for (int i = 0; i < found.count; ++i) {
      const uint64 key = found.sorted[sorted.candidate[i]];
      const float score = score_of(key) * matrix_nms_factor(sorted.term[i], op);
      if (score > options.post_thresh) other[index_of(key)] = sort_key(score, index_of(key));
    }
    const int64 count =
        std::remove_copy(other.get(), other.get() + num, keys.get(), kNoKey) - keys.get();
    const uint64* const best = sort_keys(keys.get(), other.get(), count, rows);
    float* to = out + b * rows * width;
    for (int64 r = 0; r < rows; ++r, to += width) {
      if (r < count) {
        std::copy_n(from + (int64)index_of(best[r]) * width, width, to);
        to[columns.score] = score_of(best[r]);
      } else {
        std::fill_n(to, width, -1.0f);
      }
      if (index) index[b * rows + r] = r < count ? (int)index_of(best[r]) : -1;
    }
  });
}

}  // namespace cvops
