// Warp collectives: the lanes of a mask wait for each other, and each gets a result.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "block.h"

namespace emulator {

template <typename T>
std::uint64_t to_bits(T value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int lane_id() { return static_cast<int>(current_thread->rank % 32); }

// Returns `value` of lane `source`. If the mask does not include that lane, the result is undefined
// in CUDA, and junk here.
template <typename T>
T shuffle(const char* call, unsigned mask, T value, int source) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8,
                "shuffles take 32-bit and 64-bit numbers");
  const auto combine = [](Thread* lanes, unsigned mask) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      Thread& lane = lanes[__builtin_ctz(rest)];
      lane.result = mask >> lane.source & 1 ? lanes[lane.source].value : 0xCDCDCDCDCDCDCDCD;
    }
  };
  return from_bits<T>(current_block->warp_collective(call, mask, to_bits(value), source, combine));
}

// The first lane of the caller's group of `width` lanes.
inline int group_begin(const char* call, int width) {
  if (width < 1 || width > 32 || width & (width - 1)) {
    current_block->fail(std::string(call) + " with width " + std::to_string(width) +
                        ", which is not a power of two from 1 to 32");
  }
  return lane_id() & ~(width - 1);
}

inline unsigned ballot(const char* call, unsigned mask, bool vote) {
  const auto combine = [](Thread* lanes, unsigned mask) {
    unsigned votes = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      votes |= static_cast<unsigned>(lanes[lane].value) << lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].result = votes;
  };
  return static_cast<unsigned>(current_block->warp_collective(call, mask, vote, 0, combine));
}

}  // namespace emulator

template <typename T>
auto __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int begin = emulator::group_begin("__shfl_sync", width);
  return emulator::shuffle("__shfl_sync", mask, +value, begin | (source & (width - 1)));
}

template <typename T>
auto __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulator::lane_id(), begin = emulator::group_begin("__shfl_up_sync", width);
  const bool inside = delta <= static_cast<unsigned>(lane - begin);
  return emulator::shuffle("__shfl_up_sync", mask, +value, inside ? lane - delta : lane);
}

template <typename T>
auto __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulator::lane_id(), begin = emulator::group_begin("__shfl_down_sync", width);
  const bool inside = delta < static_cast<unsigned>(begin + width - lane);
  return emulator::shuffle("__shfl_down_sync", mask, +value, inside ? lane + delta : lane);
}

// A lane may read from an earlier group, but not from a later group.
template <typename T>
auto __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = emulator::lane_id(), begin = emulator::group_begin("__shfl_xor_sync", width);
  const int source = lane ^ (lane_mask & 31);
  return emulator::shuffle("__shfl_xor_sync", mask, +value, source < begin + width ? source : lane);
}

inline void __syncwarp(unsigned mask = ~0u) { emulator::ballot("__syncwarp", mask, false); }

inline unsigned __ballot_sync(unsigned mask, int vote) {
  return emulator::ballot("__ballot_sync", mask, vote != 0);
}

inline int __any_sync(unsigned mask, int vote) {
  return emulator::ballot("__any_sync", mask, vote != 0) != 0;
}

inline int __all_sync(unsigned mask, int vote) {
  return emulator::ballot("__all_sync", mask, vote != 0) == mask;
}

template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8,
                "__match_any_sync takes 32-bit and 64-bit numbers");
  const auto combine = [](emulator::Thread* lanes, unsigned mask) {
    for (unsigned i = mask; i; i &= i - 1) {
      emulator::Thread& lane = lanes[__builtin_ctz(i)];
      lane.result = 0;
      for (unsigned j = mask; j; j &= j - 1) {
        const int other = __builtin_ctz(j);
        lane.result |= std::uint64_t{lanes[other].value == lane.value} << other;
      }
    }
  };
  return static_cast<unsigned>(emulator::current_block->warp_collective(
      "__match_any_sync", mask, emulator::to_bits(value), 0, combine));
}

inline unsigned __activemask() {
  emulator::current_block->fail(
      "__activemask() is not supported, because its result is not deterministic: pass a mask");
}

inline void __trap() { emulator::current_block->fail("__trap()"); }

// The position in the source text identifies a barrier.
#define EMULATOR_SITE \
  ::emulator::CallSite { __FILE__, __LINE__, __COUNTER__ }
#define __syncthreads() static_cast<void>(::emulator::current_block->barrier(EMULATOR_SITE, false))
#define __syncthreads_count(vote) \
  (::emulator::current_block->barrier(EMULATOR_SITE, (vote) != 0).count)
#define __syncthreads_or(vote) \
  (::emulator::current_block->barrier(EMULATOR_SITE, (vote) != 0).count != 0)
#define __syncthreads_and(vote) (::emulator::current_block->barrier(EMULATOR_SITE, (vote) != 0).all)
