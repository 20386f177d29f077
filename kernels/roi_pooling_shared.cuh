// The shared-memory version of roi_pooling: planes and bin edges in shared memory.
#pragma once
#include "roi.cuh"

namespace cvops {

// Words per RoI in shared memory: an even number, because the first two hold an int64.
CVOPS_HD int words_of_roi(int pooled_height, int pooled_width) {
  return 2 + (pooled_height + pooled_width + 1) / 2 * 2;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Sets best = value and at = i if value is larger. `at` holds the bits of an int that is no NaN
// pattern. A GPU has half the throughput for selects that it has for additions. Addition of -0.0
// changes no bit.
__device__ __forceinline__ void keep_larger(float& best, float& at, float value, float i) {
#ifdef __CUDA_ARCH__
  asm("{\n"
      "  .reg .pred larger;\n"
      "  setp.gt.f32 larger, %2, %0;\n"
      "  @larger add.f32 %0, %2, 0f80000000;\n"
      "  @larger add.f32 %1, %3, 0f80000000;\n"
      "}"
      : "+f"(best), "+f"(at)
      : "f"(value), "f"(i));
#else
  if (value > best) {
    best = value;
    at = i;
  }
#endif
}

// Shared memory of a block: the planes of kChannelsAtOnce channels, and RoIs.
struct SharedPlanes {
  Values* pixels;  // NaN and other values not above kLowestFloat are kLowestFloat
  Values* pairs;   // maximum of a pixel and the next one
  // An RoI is an int64, the offset of its first bin in channel 0 of `pooled`, then the edges of its
  // rows of bins and columns of bins.
  uint32* rois;
  int roi_words;
  unsigned char* second;  // per pixel and channel: 1 if the next pixel is larger
};

__device__ __forceinline__ uint32 packed(Range range) {
  return (uint32)range.begin | (uint32)range.end << 16;
}

__device__ __forceinline__ Range unpacked(uint32 range) {
  return {(int)(range & 0xffff), (int)(range >> 16)};
}

// Fills `shared` with `channels` planes, the first one at `first`.
__device__ __forceinline__ void load_planes(const SharedPlanes& shared,
                                            const float* __restrict__ first, int channels,
                                            int pixels) {
  for (int i = (int)threadIdx.x; i < pixels; i += (int)blockDim.x) {
    const int next = i + 1 < pixels ? i + 1 : i;
    Values pixel, pair;
    uint32 second = 0;
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      const float* plane = first + (k < channels ? k : 0) * pixels;
      pixel.of[k] = larger(plane[i], kLowestFloat);
      pair.of[k] = larger(plane[next], pixel.of[k]);
      second |= (uint32)(pair.of[k] > pixel.of[k]) << 8 * k;
    }
    shared.pixels[i] = pixel;
    shared.pairs[i] = pair;
    ((uint32*)shared.second)[i] = second;
  }
}

// Edges of the rows and columns of bins of an RoI. An RoI of an unknown image has empty rows.
__device__ __forceinline__ void find_edges(uint32* edges, const float* __restrict__ roi, bool known,
                                           const RoiPooling& op) {
  const RoiAxisOf<float> y = roi_axis(roi[2], roi[4], op.scale, op.pooled_height);
  const RoiAxisOf<float> x = roi_axis(roi[1], roi[3], op.scale, op.pooled_width);
#pragma unroll 1
  for (int i = 0; i < op.pooled_height; ++i) {
    *edges++ = known ? packed(bin_range(y, i, op.height)) : 0;
  }
#pragma unroll 1
  for (int j = 0; j < op.pooled_width; ++j) *edges++ = packed(bin_range(x, j, op.width));
}

// Maximum in a nonempty bin, and its position in the planes. `at` does not change if no value is
// above kLowestFloat.
template <bool kWithArgmax>
__device__ __forceinline__ void max_of_bin(const SharedPlanes& shared, Range rows, Range columns,
                                           int width, Values& best, int (&at)[kChannelsAtOnce]) {
  const int step = min(columns.end - columns.begin, 2);
  const bool paired = step == 2;
  const Values* const from = paired ? shared.pairs : shared.pixels;
  float where[kChannelsAtOnce];
#pragma unroll
  for (int k = 0; k < kChannelsAtOnce; ++k) {
    best.of[k] = kLowestFloat;
    where[k] = __int_as_float(at[k]);
  }
  auto visit = [&](int i) {
    const Values value = from[i];
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      keep_larger(best.of[k], where[k], value.of[k], __int_as_float(i));
    }
  };
  for (int row = rows.begin; row < rows.end; ++row) {
    const int last = row * width + columns.end - step;
#pragma unroll 1
    for (int i = row * width + columns.begin; i < last; i += step) visit(i);
    visit(last);  // may share a pixel with the previous pair, which has no effect
  }
#pragma unroll
  for (int k = 0; k < kChannelsAtOnce && kWithArgmax; ++k) {
    at[k] = __float_as_int(where[k]);
    if (paired && (uint32)at[k] < 1u << 16) at[k] += shared.second[kChannelsAtOnce * at[k] + k];
  }
}

// Pools all `num` RoIs of `shared`. `pooled` and `argmax` begin at the first of `channels`
// channels; its plane begins at `plane` in data.
template <bool kWithArgmax>
__device__ __forceinline__ void pool(const SharedPlanes& shared, int num,
                                     float* __restrict__ pooled, int* __restrict__ argmax,
                                     const RoiPooling& op, int plane, int channels) {
  const int width = op.pooled_width, bins = op.pooled_height * width;
  const int pixels = op.height * op.width, threads = (int)blockDim.x, me = (int)threadIdx.x;
  // Bin of this thread, and the increments to its next bin.
  const uint32* roi = shared.rois + me / bins * shared.roi_words;
  int row = me % bins / width, column = me % bins % width;
  const int next_roi = threads / bins * shared.roi_words;
  const int next_row = threads % bins / width, next_column = threads % bins % width;
  while (roi < shared.rois + num * shared.roi_words) {
    const Range rows = unpacked(roi[2 + row]);
    const Range columns = unpacked(roi[2 + op.pooled_height + column]);
    const int64 to = *(const int64*)roi + row * width + column;
    float* to_pooled = pooled + to;
    int* to_argmax = kWithArgmax ? argmax + to : nullptr;
    Values best = {};
    int at[kChannelsAtOnce];
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) at[k] = wrapping_subtract(-1 - plane, k * pixels);
    if (rows.begin < rows.end && columns.begin < columns.end) {
      max_of_bin<kWithArgmax>(shared, rows, columns, op.width, best, at);
    }
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      if (k >= channels) break;
      *to_pooled = best.of[k];
      to_pooled += bins;
      if (!kWithArgmax) continue;
      *to_argmax = plane + k * pixels + at[k];
      to_argmax += bins;
    }
    roi += next_roi;
    row += next_row;
    column += next_column;
    if (column >= width) {
      column -= width;
      ++row;
    }
    if (row >= op.pooled_height) {
      row -= op.pooled_height;
      roi += shared.roi_words;
    }
  }
}

}  // namespace cvops
#endif
