// Options that rpn_target and rcnn_target share.
#pragma once
#include <algorithm>
#include <cmath>

#include "operator.h"
#include "sampling.cuh"

namespace cvops::operators {

// num * ratio in float32, rounded to the nearest integer; a half goes to the even one.
inline int most_positive(int num, float ratio) {
  return (int)std::min<double>(num, std::nearbyint((float)num * ratio));
}

inline Box four_numbers(Options& o, const char* name, std::vector<double> fallback) {
  const std::vector<float> x = o.numbers(name, std::move(fallback), 4);
  return {x[0], x[1], x[2], x[3]};
}

// num_sample, from 1 on.
inline int num_sample(Options& o, int fallback) {
  const int num = o.integer("num_sample", fallback);
  if (num < 1) o.refuse("num_sample", "a positive integer");
  return num;
}

}  // namespace cvops::operators
