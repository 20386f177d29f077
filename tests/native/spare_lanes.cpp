// Interleaves planes of ones into memory of denormals. Prints the number of lanes beyond the
// channels, and the number of lanes with a wrong value.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <vector>

#include "cpu/interleaved.h"

namespace {

using namespace cvops;
using namespace cvops::cpu;

template <typename T, typename... Change>
void count_spare_lanes(int channels, const Change&... change) {
  constexpr int kHeight = 3, kColumns = 70, kVectors = 2, kAll = kVectors * kWidthOf<T>;
  const Window window = {{1, kHeight}, {2, kColumns}};
  const std::vector<T> planes((int64)channels * kHeight * kColumns, T(1));
  std::vector<T> memory(window.pixels() * kAll, std::numeric_limits<T>::denorm_min());
  interleave((Pixel<kVectors, T>*)memory.data(), planes.data(), (int64)kHeight * kColumns, kColumns,
             window, channels, change...);
  int spare = 0, wrong = 0;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const bool is_spare = (int)(i % kAll) >= channels;
    spare += is_spare;
    wrong += memory[i] != (is_spare ? T(0) : T(1));
  }
  std::printf("%d %d\n", spare, wrong);
}

}  // namespace

int main() {
  for (int channels : {1, 5, kWidth + 3, 2 * kWidth}) {
    count_spare_lanes<float>(channels);
    count_spare_lanes<float>(channels, [](Quad quad) { return quad; });
    count_spare_lanes<double>(std::min(channels, 2 * kWidthOf<double>));
  }
}
