#include "arrays.h"
#include "nms_rule.cuh"

void bind_nms(py::module_& m) {
  using cvops::NmsRule;
  py::class_<NmsRule>(m, "NmsRule", py::module_local())
      .def(py::init([](float threshold, bool at_least, bool by_class, bool center) {
        return NmsRule{threshold, at_least, by_class, center};
      }));
}
