// Best pairs of anchors and ground truths (truths), and their bipartite assignment: steps of
// multibox_target.
#pragma once
#include "target.h"

namespace cvops::cpu {

// Anchors as a structure of arrays, which the compiler can vectorize, in blocks of kBlock. Anchors
// that are not solid are empty boxes.
struct Anchors {
  int num, full_blocks, blocks;  // the last blocks are empty, so that all groups are complete
  float *x1, *y1, *x2, *y2, *area;
  // Per block: the bounding box, and the smallest and the largest area.
  float *bounds_x1, *bounds_y1, *bounds_x2, *bounds_y2, *least, *most;

  explicit Anchors(int num);
  void take(Workspace& memory);
  // `anchor` (num, 4)
  void fill(const float* anchor) const;

  SizedBox at(int64 i) const { return {{x1[i], y1[i], x2[i], y2[i]}, area[i]}; }
  Box bounds_of(int64 i) const { return {bounds_x1[i], bounds_y1[i], bounds_x2[i], bounds_y2[i]}; }
};

// Bipartite assignment of the anchors and truths of one image, and scratch memory for it.
class Bipartite {
 public:
  // With `parallel`, several threads share the anchors.
  Bipartite(const Anchors& anchors, int max_truths, bool parallel);
  void take(Workspace& memory);

  // Records all pairs with an IoU of at least `limit` in `matches`, and the best anchor per truth.
  void match(const Matches& matches, const SizedBox* truths, int num, float limit);
  // Assigns one anchor per truth, the best pair first.
  void assign(Matches& matches, const SizedBox* truths, int num);

 private:
  // A truth and its best anchor that was free when the pair was found.
  struct Pair {
    uint64 key;
    int truth;
    // The lower truth is the better one of equal pairs.
    bool operator<(const Pair& other) const {
      return key < other.key || (key == other.key && truth > other.truth);
    }
  };

  // Keys that a search found for a truth, for its next pairs.
  struct Found {
    int next, num;
    bool is_first, is_last;  // no search yet; no further keys
  };

  // The next pair_key of truth k; 0 if all its anchors are assigned.
  uint64 next_key(const Matches& matches, SizedBox truth, int k);
  int best_truth(int anchor, const SizedBox* truths, int num) const;
  void assign_path(Matches& matches, const SizedBox* truths, int num, int k);

  const Anchors& anchors_;
  const int max_truths_, num_ranges_;  // ranges of blocks that a thread takes
  const bool parallel_;
  float* bounds_;  // one per block
  Pair* pairs_;
  uint64* keys_;  // (num_ranges_, truths of the image); the first row is that of all ranges later
  int* path_;     // truths
  bool* is_free_;  // per truth: it has anchors, and none is assigned to it
  Found* found_;
  uint64* found_keys_;  // (max_truths_, kFound)
};

}  // namespace cvops::cpu
