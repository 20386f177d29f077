#include "simd.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "ops.h"

void bind_simd(cvops::Ops& ops) {
  py::module_& m = ops.module;
  using namespace cvops;
  // Names that this machine can run, in ascending order.
  m.def("simd_names",
        [] { return std::vector<std::string>(kSimdNames, kSimdNames + 1 + (int)widest_simd()); });
  m.def("simd", [] { return kSimdNames[(int)current_simd]; });
  m.def("set_simd", [](const std::string& name) {
    for (int i = 0; i <= (int)widest_simd(); ++i) {
      if (name == kSimdNames[i]) return set_simd((Simd)i);
    }
    throw py::value_error("simd: this machine cannot run '" + name + "'");
  });
}
