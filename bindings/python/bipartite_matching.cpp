#include "bipartite_matching.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::MatchingShape>
    : cvops::FromTuple<cvops::MatchingShape, int64_t, int64_t, int64_t> {};

template <>
struct pybind11::detail::type_caster<cvops::MatchingOptions>
    : cvops::FromTuple<cvops::MatchingOptions, float, bool, int> {};

void bind_bipartite_matching(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("bipartite_matching", [](Array<float> columns, Array<float> rows, Array<const float> data,
                                   MatchingShape shape, MatchingOptions options) {
    return [=](auto& device) {
      bipartite_matching(device, columns.data, rows.data, data.data, shape, options);
    };
  });
}
