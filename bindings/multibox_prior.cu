#include <algorithm>

#include "launch.h"
#include "multibox_prior.h"

void cvops::cuda::multibox_prior(float* out, PriorGrid grid, Shapes shapes, bool clip,
                                 cudaStream_t stream) {
  for (int first = 0; first < shapes.num; first += kPriorShapes) {
    int count = std::min(shapes.num - first, kPriorShapes);
    PriorShapes group = {};
    std::copy_n(shapes.size + first, count, group.size);
    std::copy_n(shapes.ratio + first, count, group.ratio);
    int64 blocks = ceil_div((int64)grid.height * grid.width * count, 256);
    launch("multibox_prior", ::multibox_prior, dim3((unsigned)std::min<int64>(blocks, 1 << 16)),
           256, 0, stream, out, grid, group, first, count, shapes.num, clip);
  }
}
