// The order of warps and lanes. CUDA guarantees no order, so a correct kernel gives one result for
// every seed. A kernel without a barrier that it needs gives another result for some seeds.
#pragma once

#include <cstdint>

namespace emulator {

// A permutation of 0 .. count-1 without memory: i -> (i * odd + start) mod 2^k takes each value
// below 2^k once. The caller skips the values from count up.
class Permutation {
 public:
  Permutation(std::uint64_t count, std::uint64_t odd, std::uint64_t start)
      : odd_(odd | 1), start_(start) {
    while (mask_ + 1 < count) mask_ = mask_ << 1 | 1;
  }
  std::uint64_t size() const { return mask_ + 1; }
  std::uint64_t operator[](std::uint64_t i) const { return (i * odd_ + start_) & mask_; }

 private:
  std::uint64_t odd_, start_, mask_ = 0;
};

// Seed 0 is first to last, seed 1 last to first. Any other seed shuffles at each step, and delays
// random warps.
class Schedule {
 public:
  Schedule(std::uint64_t seed, std::uint64_t stream) : seed_(seed), state_(seed << 32 ^ stream) {}

  Permutation order(std::uint64_t count) {
    if (seed_ == 0) return Permutation(count, 1, 0);
    if (seed_ == 1) return Permutation(count, ~0ull, ~0ull);
    const std::uint64_t random = next();
    return Permutation(count, random >> 32, random);
  }

  // Returns true if a ready warp does not run in this step.
  bool skips_warp() { return seed_ > 1 && next() % 4 == 0; }

 private:
  // SplitMix64 (Steele, Lea and Flood, 2014).
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }

  std::uint64_t seed_, state_;
};

}  // namespace emulator
