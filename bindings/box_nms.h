#pragma once
#include <memory>

#include "box_nms.cuh"
#include "gpu.h"
#include "nms/rule.cuh"

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
// backward pass ignores an index that is no row. Of equal indices the last one counts.
void box_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options);
void box_nms(Gpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options);
void box_nms_backward(const Cpu&, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width);
void box_nms_backward(Gpu&, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width);

// The best valid rows of a set, which box_nms, matrix_nms, nms_rotated, soft_nms and
// weighted_boxes_fusion share: at most options.topk, in descending order of their scores.
namespace cpu {

struct NmsCandidates {
  std::unique_ptr<uint64[]> keys, other;
  const uint64* sorted;
  int count;
  std::unique_ptr<int[]> classes;     // only with options.rule.by_class
  std::unique_ptr<SizedBox[]> boxes;  // only after take_boxes()

  // `rows` (num, width).
  NmsCandidates(const float* rows, int64 num, const NmsOptions& options);

  void take_boxes(const float* rows, const NmsOptions& options);

  // The row of candidate i.
  const float* row(const float* rows, int i, NmsColumns columns) const {
    return rows + (int64)index_of(sorted[i]) * columns.width;
  }
};

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
