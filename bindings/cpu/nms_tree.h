// A tree of the kept rotated boxes, for boxes that a grid of their bounds does not separate: thin
// boxes, sizes that differ widely, distant groups.
#pragma once
#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "nms_sides.h"

namespace cvops::cpu {

// Tree of rotated boxes by place, direction and size. Each node bounds the numbers of the inserted
// boxes below it, so that a search leaves out nodes without a box in reach.
class RotatedTree {
 public:
  // The numbers of a box that a node bounds.
  enum Axis { kX, kY, kDirection, kLength, kWidth, kArea, kAxes };
  struct Key {
    double at[kAxes];

    static Key of(const RotatedBox& b) {
      const LongSide side(b);
      return {{b.x, b.y, direction(side.cos, side.sin), side.length, side.width, b.area()}};
    }
  };

  // Necessary conditions for suppression of, or by, a box. The exact overlap exceeds the fraction
  // `part` of both areas. Except for very thin boxes, the overlap before rounding does so too, if
  // `part` is 0.95 of the threshold or less. Then, along each side of one box, the overlap is
  // longer than `part` of the side, and the diagonal of the other box is at least as long. The
  // strips along the longer sides have an overlap of width a * width b / sin of the angle between
  // them.
  class Query {
   public:
    Query(const RotatedBox& b, double part)
        : side_(b),
          key_(Key::of(b)),
          part_(part),
          least_area_(part * key_.at[kArea]),
          most_area_(key_.at[kArea] / part),
          ratio_(kDiagonal / part),
          turn_per_width_(kTurn / (part * side_.length)),
          max_turn_(std::min(kCircle, turn_per_width_ * ratio_ * side_.width)),
          cos_(absolute(side_.cos)),
          sin_(absolute(side_.sin)) {}

    // False if no box with numbers from `low` to `high` suppresses the box.
    CVOPS_INLINE bool may_reach(const Key& low, const Key& high) const {
      if ((high.at[kArea] < least_area_) | (low.at[kArea] > most_area_)) return false;
      const double length = side_.length, width = side_.width;
      double longest = high.at[kLength], widest = high.at[kWidth];
      double radius = half_diagonal(longest, widest);
      double along = 0.5 * length + radius, across = 0.5 * width + radius;
      if ((longest <= kMaxRatio * width) | (length <= kMaxRatio * low.at[kWidth])) {
        if ((longest * ratio_ < length) | (low.at[kLength] > ratio_ * length) |
            (widest * ratio_ < width) | (low.at[kWidth] > ratio_ * width)) {
          return false;
        }
        longest = std::min(longest, ratio_ * length), widest = std::min(widest, ratio_ * width);
        const double turn = std::min(max_turn_, turn_per_width_ * widest);
        const double from = absolute(key_.at[kDirection] - middle(low, high, kDirection));
        if (std::min(from, kCircle - from) > turn + half(low, high, kDirection) + 1e-12) {
          return false;
        }
        // Half the extents of the other box. The sine bounds that of its longer side across.
        radius = half_diagonal(longest, widest);
        along = (0.5 - part_) * length + radius;
        across = (0.5 - part_) * width + std::min(radius, 0.5 * (width / part_ + widest));
      }
      const double x = key_.at[kX] - middle(low, high, kX), half_x = half(low, high, kX);
      const double y = key_.at[kY] - middle(low, high, kY), half_y = half(low, high, kY);
      const double slack = 1e-12 * (absolute(x) + absolute(y) + half_x + half_y + along + across);
      const bool near_in_x = absolute(x) <= half_x + cos_ * along + sin_ * across + slack;
      const bool near_in_y = absolute(y) <= half_y + sin_ * along + cos_ * across + slack;
      const bool near_along =
          absolute(x * side_.cos + y * side_.sin) <= cos_ * half_x + sin_ * half_y + along + slack;
      const bool near_across =
          absolute(y * side_.cos - x * side_.sin) <= sin_ * half_x + cos_ * half_y + across + slack;
      return near_in_x & near_in_y & near_along & near_across;
    }

   private:
    static CVOPS_INLINE double middle(const Key& low, const Key& high, Axis axis) {
      return 0.5 * (low.at[axis] + high.at[axis]);
    }
    static CVOPS_INLINE double half(const Key& low, const Key& high, Axis axis) {
      return 0.5 * (high.at[axis] - low.at[axis]);
    }

    // A bound: the square root of 1 + x^2 is at most 1 + 0.4143 x for x up to 1.
    static CVOPS_INLINE double half_diagonal(double length, double width) {
      return 0.5 * (length + (kDiagonal - 1) * width);
    }

    const LongSide side_;
    const Key key_;
    const double part_, least_area_, most_area_;
    const double ratio_;           // maximum ratio of lengths, and of widths
    const double turn_per_width_;  // maximum difference of directions per width of the other box
    const double max_turn_, cos_, sin_;
  };

  int leaves = 0;  // 0: not in use

  // A box of the tree: its numbers, its index, and its leaf.
  struct Member {
    Key key;
    int index, leaf;
  };

  // Sets the leaf of each member, and reorders the members. The nodes are without boxes.
  void build(std::vector<Member>& members);

  CVOPS_INLINE void insert(const RotatedBox& b, int leaf) {
    const Key key = Key::of(b);
    for (int n = leaves + leaf; n; n /= 2) {
      Node& node = nodes_[n];
      for (int axis = 0; axis < kAxes; ++axis) {
        node.low.at[axis] = std::min(node.low.at[axis], key.at[axis]);
        node.high.at[axis] = std::max(node.high.at[axis], key.at[axis]);
      }
    }
  }

  // True if visit(leaf) is true for a leaf in reach.
  template <typename Visit>
  CVOPS_INLINE bool search(const Query& query, const Visit& visit) const {
    int stack[32], num = 0;
    stack[num++] = 1;
    while (num) {
      const int n = stack[--num];
      if (!query.may_reach(nodes_[n].low, nodes_[n].high)) continue;
      if (n >= leaves) {
        if (visit(n - leaves)) return true;
      } else {
        stack[num++] = 2 * n + 1, stack[num++] = 2 * n;
      }
    }
    return false;
  }

 private:
  static constexpr int kLeaf = 16;  // maximum number of boxes of a leaf
  // The exact overlap has an error below 4e-14 length a * length b. Up to this ratio of the length
  // of one box to the width of the other, that is below a fraction 0.03 of the minimum overlap for
  // thresholds from 0.1 on.
  static constexpr double kMaxRatio = 0x1p36;
  static constexpr double kDiagonal = 1.4143;  // of a square of side 1, or more
  // A half turn is kCircle; a turn is at most kTurn times the sine of its angle.
  static constexpr double kCircle = 4, kTurn = 3.1416;

  // Number from -1 to 3 for a direction and its opposite.
  static double direction(double cos, double sin) {
    return absolute(cos) >= absolute(sin) ? sin / cos : 2 - cos / sin;
  }

  struct Node {
    Key low, high;  // low > high if there is no box
  };

  std::unique_ptr<Node[]> nodes_;  // the children of n are 2 n and 2 n + 1; the root is 1
};

}  // namespace cvops::cpu
