// Planes of an image in shared memory, for kernels that pool RoIs.
#pragma once
#include "gpu.h"

namespace cvops::cuda {

// True if copies of the planes save more time than they take. `groups`: the planes of an image that
// a block copies are one of this number of groups. `bins`: those of all RoIs.
inline bool planes_pay(const Gpu& gpu, int64 images, int64 groups, int64 pixels, int64 bins) {
  // A multiprocessor reads the pixels of a bin in the time of eight copies of a pixel.
  constexpr int64 pixels_of_bin = 8;
  return bins >= images * pixels && pixels_of_bin * bins * groups >= gpu.multiprocessors() * pixels;
}

}  // namespace cvops::cuda
