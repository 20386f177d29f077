// Position-sensitive RoI pooling: the layout of the channels, and the axes of an RoI.
#pragma once
#include "roi.cuh"

namespace cvops {

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
  // First bin whose cell is c or a later one.
  CVOPS_HD int first_bin(int c) const {
    int begin = 0;
    for (int end = pooled; begin < end;) {
      const int middle = begin + (end - begin) / 2;
      if (cell(middle) < c) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }
  CVOPS_HD Range bins_of_cell(int c) const { return {first_bin(c), first_bin(c + 1)}; }
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

// Image of an RoI, or -1 if that does not exist.
CVOPS_HD int psroi_image(const float* roi, const Psroi& op) {
  const int image = truncated(roi[0]);
  return image >= 0 && image < op.images ? image : -1;
}

}  // namespace cvops
