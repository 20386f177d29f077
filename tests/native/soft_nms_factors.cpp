// Prints how many floats in [-128, -2^-30] it compares, and for how many of them the exponentials
// of Soft-NMS have other bits than exp_of.
#include "cpu/soft_nms_factors.h"

#include <cstdio>
#include <initializer_list>
#include <limits>

int main() {
  using namespace cvops;
  const uint32 first = bits_of(0x1p-30f), last = bits_of(128.0f), small = bits_of(0x1p-5f);
  int wrong = 0;
  for (uint32 bits = first; bits <= last; ++bits) {
    wrong += bits_of(cpu::exp_of_negative(-float_of(bits))) != bits_of(exp_of(-float_of(bits)));
  }
  for (uint32 bits = first; bits <= small; ++bits) {
    wrong += bits_of(cpu::exp_of_small(-float_of(bits))) != bits_of(exp_of(-float_of(bits)));
  }
  for (float x : {0.0f, -0.0f, -0x1p-149f, -0x1p-60f}) {
    wrong += cpu::exp_of_negative(x) != exp_of(x);
    wrong += cpu::exp_of_small(x) != exp_of(x);
  }
  wrong += cpu::exp_of_negative(-std::numeric_limits<float>::infinity()) != 0;
  std::printf("%u %d\n", last - first + 1, wrong);
}
