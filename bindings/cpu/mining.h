// Hard negative mining, a step of multibox_target.
#pragma once
#include "target.h"

namespace cvops::cpu {

// Negatives of an image: some anchors, or all candidates.
struct Negatives {
  const int* anchors;
  int num;
  bool are_all;
};

// Mining of one image, and scratch memory for it.
class Mining {
 public:
  // With `parallel`, several threads share the anchors.
  Mining(TargetShape shape, TargetOptions options, bool parallel)
      : shape_(shape), options_(options), parallel_(parallel) {}
  void take(Workspace& memory);

  // `logits` (classes, anchors). The result is valid until the next call.
  Negatives mine(const float* logits, const Matches& matches);

 private:
  void score(const float* logits, const Matches& matches);
  void choose(const float* logits, int wanted);
  // Sets `keys` to the exact mining_keys of these anchors.
  void find_keys(const float* logits, const int* anchors, int num);

  const TargetShape shape_;
  const TargetOptions options_;
  const bool parallel_;
  float* scores_;  // per anchor: approximate 1 / (probability of class 0)
  int* chosen_;    // anchors
  uint64* keys_;
};

}  // namespace cvops::cpu
