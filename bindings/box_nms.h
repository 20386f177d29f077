#pragma once
#include <memory>

#include "box_nms.cuh"
#include "gpu.h"
#include "nms/rule.cuh"
#include "result_pool.h"

namespace cvops {

// Arguments of the op in the form that its kernels take.
struct NmsOptions {
  NmsColumns columns;
  NmsRule rule;
  float valid_thresh, background_id;
  int conversion, topk;
};

// data (batch, num, width). A limit of 0 copies it. index (batch, num): the row of data, within its
// set, of each row of out, or -1. It may be null in box_nms, which then does not write it. The
// backward pass ignores an index that is no row. The last one of equal indices counts.
template <typename T>
void box_nms(const Cpu&, T* out, int* index, const T* data, int64 batch, int64 num,
             NmsOptions options);
template <typename T>
void box_nms(Gpu&, T* out, int* index, const T* data, int64 batch, int64 num, NmsOptions options);
template <typename T>
void box_nms_backward(const Cpu&, T* grad, const T* out_grad, const int* index, int64 batch,
                      int64 num, int width);
template <typename T>
void box_nms_backward(Gpu&, T* grad, const T* out_grad, const int* index, int64 batch, int64 num,
                      int width);

// The best valid rows of a set, which box_nms, matrix_nms, nms_rotated, soft_nms and
// weighted_boxes_fusion share: at most options.topk, in descending order of their scores.
namespace cpu {

template <typename T>
struct NmsCandidatesOf {
  PooledScratch<uint64> keys, other;
  const uint64* sorted;
  int count;
  std::unique_ptr<int[]> classes;      // only with options.rule.by_class
  PooledScratch<SizedBoxOf<T>> boxes;  // only after take_boxes()

  // `rows` (num, width), or rows of the numbers `some`, which ascend; these rows are valid.
  NmsCandidatesOf(const T* rows, int64 num, const NmsOptions& options, const int* some = nullptr);

  void take_boxes(const T* rows, const NmsOptions& options, int threads = 1);

  // The row of candidate i.
  const T* row(const T* rows, int i, NmsColumns columns) const {
    return rows + (int64)index_of(sorted[i]) * columns.width;
  }
};
using NmsCandidates = NmsCandidatesOf<float>;

}  // namespace cpu

namespace cuda {

class Nms;

// Launches that fill nms.sorted and nms.counts, the numbers of valid rows, from data (batch, num,
// width), and allocate nms.buffers. True if they fill nms.buffers too, as nms_candidates() does.
bool nms_order(Gpu& gpu, Nms& nms, const float* data, const NmsOptions& options);
// The same with nms.buffers. nms.buffers.counts has the numbers of candidates.
void nms_candidates(Gpu& gpu, Nms& nms, const float* data, const NmsOptions& options);

}  // namespace cuda

}  // namespace cvops
