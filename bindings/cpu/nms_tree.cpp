#include "nms_tree.h"

namespace cvops::cpu {
namespace {

using Key = RotatedTree::Key;
using Member = RotatedTree::Member;

// Axis along which the members have the largest extent in units of the reach of a box.
int longest_axis(const Member* members, int num) {
  Key low = members[0].key, high = low, sum = {};
  for (int k = 0; k < num; ++k) {
    for (int axis = 0; axis < RotatedTree::kAxes; ++axis) {
      const double at = members[k].key.at[axis];
      low.at[axis] = std::min(low.at[axis], at);
      high.at[axis] = std::max(high.at[axis], at);
      sum.at[axis] += at;
    }
  }
  const double length = sum.at[RotatedTree::kLength] / num;
  const double width = sum.at[RotatedTree::kWidth] / num;
  double extents[RotatedTree::kAxes] = {};  // 0 for the area, which follows from the sides
  for (int axis : {RotatedTree::kX, RotatedTree::kY}) {
    extents[axis] = (high.at[axis] - low.at[axis]) / length;
  }
  constexpr int turns = RotatedTree::kDirection;
  extents[turns] = (high.at[turns] - low.at[turns]) * length / (8 * width);
  for (int axis : {RotatedTree::kLength, RotatedTree::kWidth}) {
    extents[axis] = high.at[axis] / low.at[axis];  // very different sizes are separated first
  }
  return (int)(std::max_element(extents, extents + RotatedTree::kAxes) - extents);
}

void divide(Member* members, int num, int node, int leaves) {
  if (node >= leaves) {
    for (int k = 0; k < num; ++k) members[k].leaf = node - leaves;
    return;
  }
  const int axis = longest_axis(members, num), middle = num / 2;
  std::nth_element(members, members + middle, members + num, [&](const Member& a, const Member& b) {
    return a.key.at[axis] < b.key.at[axis];
  });
  divide(members, middle, 2 * node, leaves);
  divide(members + middle, num - middle, 2 * node + 1, leaves);
}

}  // namespace

void RotatedTree::build(std::vector<Member>& members) {
  const int num = (int)members.size();
  leaves = 1;
  while (leaves * kLeaf < num) leaves *= 2;
  nodes_.reset(new Node[2 * leaves]);
  constexpr double kNone = std::numeric_limits<double>::infinity();
  for (int n = 0; n < 2 * leaves; ++n) {
    std::fill_n(nodes_[n].low.at, (int)kAxes, kNone);
    std::fill_n(nodes_[n].high.at, (int)kAxes, -kNone);
  }
  if (num > 0) divide(members.data(), num, 1, leaves);
}

}  // namespace cvops::cpu
