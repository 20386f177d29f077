#include "threads.h"

#include "ops.h"

void bind_threads(cvops::Ops& ops) {
  py::module_& m = ops.module;
  m.def("num_threads", &cvops::num_threads);
  m.def("set_num_threads", &cvops::set_num_threads);
}
