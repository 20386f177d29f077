// Data that the steps of multibox_target share on the CPU.
#pragma once
#include <algorithm>
#include <cstdint>

#include "multibox_target.h"
#include "workspace.h"

namespace cvops::cpu {

// Anchors per block. Adjacent anchors are close together in the image.
constexpr int kBlock = 32;

// Matches of the anchors of an image. Only anchors with their `touched` bit set have an `iou` and a
// `truth`; most anchors have none.
struct Matches {
  float* iou;
  int* truth;       // its index; ~index if the anchor is assigned to the truth
  uint64* touched;  // one bit per anchor

  void take(Workspace& memory, int num_anchors) {
    iou = memory.take<float>(num_anchors);
    truth = memory.take<int>(num_anchors);
    touched = memory.take<uint64>(ceil_div(num_anchors, 64));
  }

  void clear(int num_anchors) { std::fill_n(touched, ceil_div(num_anchors, 64), 0); }

  bool is_touched(int a) const { return touched[a / 64] >> a % 64 & 1; }
  bool is_assigned(int a) const { return is_touched(a) && truth[a] < 0; }

  // The next functions are valid for touched anchors only.
  bool is_positive(int a, const TargetOptions& options) const {
    return cvops::is_positive(iou[a], truth[a], options);
  }
  bool is_candidate(int a, const TargetOptions& options) const {
    return !is_positive(a, options) && iou[a] < options.mining_threshold;
  }
  int truth_of(int a) const { return truth[a] < 0 ? ~truth[a] : truth[a]; }

  // Calls body(a) for each touched anchor from `first`, a multiple of 64, to `end`.
  template <typename Body>
  void for_each(int first, int end, const Body& body) const {
    for (int word = first / 64; word < ceil_div(end, 64); ++word) {
      for (uint64 bits = touched[word]; bits; bits &= bits - 1) {
        body(word * 64 + __builtin_ctzll(bits));
      }
    }
  }

  void record(int a, float new_iou, int new_truth) {
    if (!is_touched(a)) {
      touched[a / 64] |= 1ull << a % 64;
    } else if (!(new_iou > iou[a])) {
      return;
    }
    iou[a] = new_iou, truth[a] = new_truth;
  }

  void assign_to(int a, int new_truth) {
    if (!is_touched(a)) record(a, 0, new_truth);
    truth[a] = ~new_truth;
  }
};

}  // namespace cvops::cpu
