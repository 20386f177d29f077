#include "multibox_prior.h"

#include <algorithm>

namespace cvops {
namespace {

Divisor divisor(uint32 number) {
  uint32 shift = 0;
  while ((uint64)1 << shift < number) ++shift;
  return {(uint32)(((((uint64)1 << shift) - number) << 32) / number) + 1, shift};
}

constexpr uint32 kMaxBlocks = CVOPS_STEP(1024, 3);  // maximum of concurrent blocks on a large GPU

// Builds launches: collects parts and shapes until one is full.
class Work {
 public:
  Work(Gpu& gpu, float* out, bool clip) : gpu_(gpu), out_(out), clip_(clip) {}

  // Adds `count` shapes, from `first` on, around each cell of `map`. Its anchors begin at
  // `first_anchor` in the result.
  void add(const PriorMap& map, uint32 first_anchor, const HalfSize* half, int first, int count) {
    if (parts_ == kPriorParts || shapes_ + count > kPriorShapes) launch();
    const auto anchors = (uint32)((int64)map.height * map.width * count);
    work_.part[parts_] = {map.step_y,
                          map.step_x,
                          map.offset_y,
                          map.offset_x,
                          (uint32)map.width,
                          (uint32)count,
                          divisor((uint32)map.width),
                          divisor((uint32)count),
                          (uint32)shapes_,
                          first_anchor + (uint32)first,
                          (uint32)map.shapes,
                          anchors,
                          tiles_};
    std::copy_n(half + first, count, work_.half + shapes_);
    shapes_ += count;
    tiles_ += (uint32)ceil_div(anchors, kPriorTile);
    std::fill(work_.end + parts_++, work_.end + kPriorParts, tiles_);
  }

  void launch() {
    gpu_.launch(KERNEL(multibox_prior), std::min(tiles_, kMaxBlocks), kPriorTile, 0, out_, work_,
                clip_);
    parts_ = shapes_ = 0, tiles_ = 0;
  }

 private:
  Gpu& gpu_;
  float* out_;
  bool clip_;
  PriorWork work_ = {};
  int parts_ = 0, shapes_ = 0;
  uint32 tiles_ = 0;
};

}  // namespace

void multibox_prior(Gpu& gpu, float* out, Priors priors, bool clip) {
  Work work(gpu, out, clip);
  int64 anchor = 0;
  const HalfSize* half = priors.half;
  for (int m = 0; m < priors.num; ++m) {
    const PriorMap& map = priors.maps[m];
    for (int first = 0; first < map.shapes; first += kPriorShapes) {
      work.add(map, (uint32)anchor, half, first, std::min(map.shapes - first, kPriorShapes));
    }
    anchor += map.anchors();
    half += map.shapes;
  }
  work.launch();
}

}  // namespace cvops
