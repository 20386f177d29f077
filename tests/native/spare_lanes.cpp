// Interleaves planes of ones into memory of denormals. Prints the number of lanes beyond the
// channels, and the number of lanes with a wrong value.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/interleaved.h"

namespace {

using namespace cvops;
using namespace cvops::cpu;

template <typename P>
void count_spare_lanes(int channels) {
  using T = typename P::T;
  constexpr int kHeight = 3, kColumns = 70;
  const Window window = {{1, kHeight}, {2, kColumns}};
  const std::vector<T> planes((int64)channels * kHeight * kColumns, T(1));
  const std::unique_ptr<P[]> pixels(new P[window.pixels()]);
  T* const lanes = (T*)pixels.get();
  const int64 num = window.pixels() * P::kLanes;
  std::fill_n(lanes, num, std::numeric_limits<T>::denorm_min());
  interleave<P::kWidth>(pixels.get(), planes.data(), (int64)kHeight * kColumns, kColumns, window,
                        channels);
  int spare = 0, wrong = 0;
  for (int64 i = 0; i < num; ++i) {
    const bool is_spare = (int)(i % P::kLanes) >= channels;
    spare += is_spare;
    wrong += lanes[i] != (is_spare ? T(0) : T(1));
  }
  std::printf("%d %d\n", spare, wrong);
}

template <typename T>
void count_for_each_size() {
  constexpr int kMax = kMaxLanesOf<T>;
  for (int channels : {1, 5, kMax / 4, kMax / 2 - 1, kMax / 2, kMax - 3, kMax}) {
    with_pixel<T>(lanes_for<T>(channels), [&](auto type) {
      count_spare_lanes<typename decltype(type)::Of>(std::min(channels, kMax));
    });
  }
}

}  // namespace

int main() {
  for (int simd = 0; simd <= (int)widest_simd(); ++simd) {
    set_simd((Simd)simd);
    count_for_each_size<float>();
    count_for_each_size<double>();
  }
}
