// Memory filled by whole vectors.
#pragma once
#include <algorithm>

#include "common.cuh"
#include "simd.h"

namespace cvops::cpu {

// std::fill_n, with vectors of the width in use: aligned ones, but for the first and the last.
template <typename T>
void fill_rows(T* to, int64 num, T value) {
  by_width([&](auto width) __attribute__((always_inline)) {
    constexpr int kLanes = 4 * width / sizeof(T);
    if (num < kLanes) return (void)std::fill_n(to, num, value);
    T lanes[kLanes];
    for (T& lane : lanes) lane = value;
    Vector<T, width> vector;
    load<width>(vector, lanes);
    store<width>(to, vector);
    T* const end = to + num;
    const int64 before = kLanes - (int64)((std::uintptr_t)to / sizeof(T) % kLanes);
    for (to += before; to + kLanes <= end; to += kLanes) store<width>(to, vector);
    store<width>(end - kLanes, vector);
  });
}

}  // namespace cvops::cpu
