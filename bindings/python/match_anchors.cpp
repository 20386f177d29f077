#include "match_anchors.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::MatchShape>
    : cvops::FromTuple<cvops::MatchShape, int, int, int, int> {};

template <>
struct pybind11::detail::type_caster<cvops::MatchOptions>
    : cvops::FromTuple<cvops::MatchOptions, float, float, bool, bool> {};

void bind_match_anchors(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("match_anchors", [](Array<int> out, Array<const float> anchors, Array<const float> boxes,
                              MatchShape shape, MatchOptions options) {
    return [=](auto& device) {
      match_anchors(device, out.data, anchors.data, boxes.data, shape, options);
    };
  });
}
