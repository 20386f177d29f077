#include "threads.h"

#include <pybind11/pybind11.h>

void bind_threads(pybind11::module_& m) {
  m.def("num_threads", &cvops::num_threads);
  m.def("set_num_threads", &cvops::set_num_threads);
}
