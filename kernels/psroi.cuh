// Position-sensitive RoI pooling: the layout of the channels, and the axes of an RoI.
#pragma once
#include "roi.cuh"
#include "warp.cuh"

namespace cvops {

// First i < num with value(i) >= wanted, or num. `value` rises.
template <typename Value>
CVOPS_HD int first_of(int num, int wanted, const Value& value) {
  int begin = 0;
  for (int end = num; begin < end;) {
    const int middle = begin + (end - begin) / 2;
    if (value(middle) < wanted) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// Sizes of data (images, channels, height, width) and of the result (RoIs, output_dim, pooled,
// pooled), and the factor from RoI coordinates to pixels. A grid of group x group cells divides an
// RoI. A cell has its own plane for each output channel: plane (channel * group + row) * group +
// column. Data may have more channels, which no bin reads.
struct Psroi {
  int images, channels, height, width, output_dim, pooled, group;
  float scale;

  CVOPS_HD int bins() const { return pooled * pooled; }
  CVOPS_HD int pixels() const { return height * width; }
  CVOPS_HD int cells() const { return group * group; }
  CVOPS_HD int used_channels() const { return output_dim * cells(); }
  // Number of the plane in data.
  CVOPS_HD int plane(int image, int channel, int cell) const {
    return image * channels + channel * cells() + cell;
  }
  // Row or column of the cell of bin i. It rises with i.
  CVOPS_HD int cell(int i) const {
    return clamped((int)floorf((float)i * (float)group / (float)pooled), group - 1);
  }
  CVOPS_HD int cell_of_bin(int row, int column) const { return cell(row) * group + cell(column); }
  CVOPS_HD Range bins_of_cell(int c) const {
    auto of_bin = [&](int i) { return cell(i); };
    return {first_of(pooled, c, of_bin), first_of(pooled, c + 1, of_bin)};
  }
};

// One axis of an RoI, in pixels: its begin, its length, and the length of a bin.
struct PsroiAxis {
  float begin, size, bin;
};

// Axis from the first and last coordinate, which are rounded to pixels of the image.
CVOPS_HD PsroiAxis psroi_axis(float first, float last, float offset, const Psroi& op) {
  const float begin = roundf(first) * op.scale - offset;
  const float end = (roundf(last) + 1.0f) * op.scale - offset;
  float size = end - begin;
  if (size < 0.1f) size = 0.1f;
  return {begin, size, size / (float)op.pooled};
}

// Sizes of the backward kernel. kPsroiTile: side of a tile. kPsroiChannels: channels of a thread.
constexpr int kPsroiTile = CVOPS_STEP(16, 8), kPsroiThreads = kPsroiTile * kPsroiTile;
constexpr int kPsroiChannels = 8;

// Image of an RoI, or -1 if that does not exist.
CVOPS_HD int psroi_image(const float* roi, const Psroi& op) {
  const int image = truncated(roi[0]);
  return image >= 0 && image < op.images ? image : -1;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Work item of a backward kernel: a tile of an image, and some channels of a cell.
struct PsroiTile {
  int image, channel, channels, cell;
  Range pixel_rows, pixel_columns;
  Range bin_rows, bin_columns;

  // Output channels are in classes of `of_class` channels; a work item is within a class.
  __device__ __forceinline__ void set(int64 item, int of_class, const Psroi& op) {
    constexpr int side = kPsroiTile;
    const int down = (int)ceil_div(op.height, side), across = (int)ceil_div(op.width, side);
    const int groups_of_class = (int)ceil_div(of_class, kPsroiChannels);
    const int groups = groups_of_class * (op.output_dim / of_class);
    const int column = (int)(item % across);
    item /= across;
    const int row = (int)(item % down);
    item /= down;
    cell = (int)(item % op.cells());
    item /= op.cells();
    const int group = (int)(item % groups), in_class = group % groups_of_class * kPsroiChannels;
    channel = group / groups_of_class * of_class + in_class;
    channels = min(of_class - in_class, kPsroiChannels);
    image = (int)(item / groups);
    pixel_rows = {row * side, row * side + side};
    pixel_columns = {column * side, column * side + side};
    bin_rows = op.bins_of_cell(cell / op.group);
    bin_columns = op.bins_of_cell(cell % op.group);
  }

  __device__ __forceinline__ int num_bins() const {
    return (bin_rows.end - bin_rows.begin) * (bin_columns.end - bin_columns.begin);
  }
};

// Numbers the threads of a block for which `found` is true, in order. Returns the number of this
// thread; `num` is the number of all. in_warp has one element for each warp of kPsroiThreads.
__device__ __forceinline__ int number_in_block(bool found, int* in_warp, int& num) {
  const int warp = (int)threadIdx.x / 32, lane = lane_id();
  const uint32 lanes = __ballot_sync(kWarp, found);
  if (lane == 0) in_warp[warp] = __popc(lanes);
  __syncthreads();
  int at = lanes_before(lanes, lane);
  num = 0;
#pragma unroll
  for (int w = 0; w < kPsroiThreads / 32; ++w) {
    if (w < warp) at += in_warp[w];
    num += in_warp[w];
  }
  return at;
}

}  // namespace cvops
#endif
