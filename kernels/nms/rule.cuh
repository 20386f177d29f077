// The suppression rule and the buffers of non-maximum suppression (NMS). box_nms,
// multibox_detection, multiclass_nms, nms_rotated and proposal share them.
#pragma once
#include "box.cuh"

namespace cvops {

// The rule by which a box suppresses another one.
struct NmsRule {
  float threshold;
  int at_least;  // if set, an IoU equal to the threshold suppresses, and the union must be positive
  int by_class;  // if set, a box suppresses boxes of its own class only
  int center;    // if set, boxes are in center format; an intersection with NaN depends on it
  int pixels = 0;  // if set, the corners are pixels of the box: a side is one longer
};

template <typename T>
CVOPS_HD bool suppresses(SizedBoxOf<T> kept, SizedBoxOf<T> other, NmsRule rule) {
  T overlap = rule.pixels ? pixel_intersection(kept.box, other.box)
                          : intersection(kept.box, other.box, rule.center);
  T all = kept.area + other.area - overlap;
  T iou = overlap / all;
  return rule.at_least ? all > 0 && iou >= rule.threshold : iou > rule.threshold;
}

// Columns of the score, the first coordinate and the class in a row of `width` numbers. id -1: no
// class.
struct NmsColumns {
  int width, score, coord, id;
};

// Buffers of one NMS run. Each of the B batch rows has N = `num` boxes in score order.
struct NmsBuffers {
  float *boxes, *areas;  // (B, N, 4), (B, N)
  int* classes;          // (B, N)
  uint32* suppressed;    // (B, ceil(N / 32)): one bit per box, set if it is suppressed
  uint64* kept;          // (B, ceil(N / 64)): one bit per box, set if it is kept
  int* kept_before;      // (B, ceil(N / 64) + 1): number of kept boxes before each word of `kept`
  int* counts;           // (B): number of boxes that take part
  int* progress;         // (B, 2): number of finished blocks, number of undecided boxes

#ifdef __CUDACC__
  // Initializes row `batch` with `count` undecided boxes. Threads i = 0, ..., ceil(num / 32) - 1 at
  // least must call it.
  __device__ __forceinline__ void begin(int batch, int num, int i, int count) const {
    if (i < ceil_div(num, 32)) suppressed[batch * ceil_div(num, 32) + i] = 0;
    if (i < ceil_div(num, 64)) kept[batch * ceil_div(num, 64) + i] = 0;
    if (i == 0) counts[batch] = count, progress[2 * batch] = 0, progress[2 * batch + 1] = count;
  }

  __device__ __forceinline__ void store(int64 at, const SizedBox& b, int of_class) const {
    reinterpret_cast<float4*>(boxes)[at] = make_float4(b.box.x1, b.box.y1, b.box.x2, b.box.y2);
    areas[at] = b.area;
    classes[at] = of_class;
  }
#endif
};

// Buffers of one chunk. See nms_chunk.
struct NmsChunk {
  int *list, *list_counts;  // (B, chunk), (B): kept boxes of the chunk
  uint32* mask;             // (B, chunk / 32, chunk): one bit per suppressor of each box
  unsigned char* words;     // (B, chunk, 8): one bit per nonzero word of the mask
};

// Number of blocks per batch row that compute the overlap mask of a chunk. Each block takes 256
// boxes and 64 later boxes.
CVOPS_HD int nms_mask_blocks(int chunk) {
  int groups = (chunk + 255) / 256;
  return 2 * groups * (groups + 1);
}

// Destination of a box in the output, and whether it is kept. Kept boxes come first, in score
// order.
struct OutputRow {
  int row;
  bool is_kept;
};

// Output row of box i, with `before` kept boxes before it.
CVOPS_HD OutputRow output_row(int i, bool is_kept, int before, int all_kept) {
  return {is_kept ? before : all_kept + i - before, is_kept};
}

#ifdef __CUDACC__
// Output row of box i of `count` that take part. `kept` and `kept_before` are those of the batch
// row; `all_kept` is the last element of `kept_before`.
__device__ __forceinline__ OutputRow output_row(const uint64* __restrict__ kept,
                                                const int* __restrict__ kept_before, int i,
                                                int count, int all_kept) {
  const int word = i / 64;
  const bool takes_part = i < count;
  const uint64 bits = takes_part ? kept[word] : 0;
  const bool is_kept = bits >> (i % 64) & 1;
  const int before =
      takes_part ? kept_before[word] + __popcll(bits & ((1ull << (i % 64)) - 1)) : all_kept;
  return output_row(i, is_kept, before, all_kept);
}
#endif

}  // namespace cvops
