#include "multibox_prior.h"

#include <algorithm>
#include <memory>

#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// Anchors around one row of cells, from the anchors around a row at y = 0. The 0 that is added to
// each x has no effect, because no x is -0.
template <bool kClip, int kWidth>
CVOPS_INLINE void shifted_row(float* __restrict__ out, const float* __restrict__ at_zero, int64 num,
                              float y) {
  Vector<float, kWidth> shift = {};
  for (int k = 0; k < kWidth; ++k) shift[k] = k % 2 ? y : 0;
  int64 i = 0;
  for (; i + kWidth <= num; i += kWidth) {
    Vector<float, kWidth> moved;
    load<kWidth>(moved, at_zero + i);
    moved += shift;
    for (int k = 0; kClip && k < kWidth; ++k) moved[k] = clip_to_unit(moved[k]);
    store<kWidth>(out + i, moved);
  }
  for (; i < num; ++i) {
    const float moved = at_zero[i] + (i % 2 ? y : 0);
    out[i] = kClip ? clip_to_unit(moved) : moved;
  }
}

}  // namespace

PriorLayout prior_layout(const PriorMap* maps, int num, const PriorShape* shapes) {
  PriorLayout layout = {{maps, maps + num}, {}};
  for (PriorMap& map : layout.maps) {
    if (!(map.step_y > 0 && map.step_x > 0)) {
      map.step_y = 1.0f / (float)map.height, map.step_x = 1.0f / (float)map.width;
    }
    for (const PriorShape* const end = shapes + map.shapes; shapes < end; ++shapes) {
      layout.half.push_back(prior_half_size(map, shapes->size, shapes->ratio));
    }
  }
  return layout;
}

void multibox_prior(const Cpu&, float* out, Priors priors, bool clip) {
  constexpr int64 few = 256, at_once = 1 << 12;
  const PriorMap* const end = priors.maps + priors.num;
  auto of_row = [](const PriorMap& map) { return (int64)map.width * map.shapes; };
  // Number of work items per map.
  auto rows = [&](const PriorMap& map) { return ceil_div(at_once, of_row(map)); };
  auto parts = [&](const PriorMap& map) { return ceil_div(map.height, rows(map)); };
  int64 of_rows = 0, all_parts = 0, anchors = 0;
  for (const PriorMap* map = priors.maps; map < end; ++map) {
    of_rows += of_row(*map), all_parts += parts(*map), anchors += map->anchors();
  }

  float on_stack[4 * few];
  std::unique_ptr<float[]> on_heap(of_rows > few ? new float[4 * of_rows] : nullptr);
  float* const at_zero = on_heap ? on_heap.get() : on_stack;
  float* to = at_zero;
  const HalfSize* half = priors.half;
  for (const PriorMap* map = priors.maps; map < end; half += map++->shapes) {
    for (int column = 0; column < map->width; ++column) {
      const float x = prior_center(column, map->offset_x, map->step_x);
      for (int s = 0; s < map->shapes; ++s, to += 4) {
        const Box b = prior_around(x, 0, half[s]);
        to[0] = b.x1, to[1] = b.y1, to[2] = b.x2, to[3] = b.y2;
      }
    }
  }

  parallel_for(all_parts, 0.5 * anchors / all_parts, [&](int64 part) {
    const PriorMap* map = priors.maps;
    const float* from = at_zero;
    float* to = out;
    for (int64 count; part >= (count = parts(*map)); part -= count, ++map) {
      from += 4 * of_row(*map), to += 4 * map->anchors();
    }
    const int64 num = 4 * of_row(*map), first = part * rows(*map);
    const int64 last = std::min<int64>(first + rows(*map), map->height);
    for (int64 row = first; row < last; ++row) {
      const float y = prior_center((int)row, map->offset_y, map->step_y);
      by_width([&](auto width) __attribute__((always_inline)) {
        if (clip) {
          shifted_row<true, width>(to + row * num, from, num, y);
        } else {
          shifted_row<false, width>(to + row * num, from, num, y);
        }
      });
    }
  });
}

}  // namespace cvops
