#include "simd.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

void bind_simd(pybind11::module_& m) {
  using namespace cvops;
  // Those that this machine can run, in rising order.
  m.def("simd_names",
        [] { return std::vector<std::string>(kSimdNames, kSimdNames + 1 + (int)widest_simd()); });
  m.def("simd", [] { return kSimdNames[(int)current_simd]; });
  m.def("set_simd", [](const std::string& name) {
    for (int i = 0; i <= (int)widest_simd(); ++i) {
      if (name == kSimdNames[i]) return set_simd((Simd)i);
    }
    throw pybind11::value_error("simd: this machine cannot run '" + name + "'");
  });
}
