#include "multibox_prior.h"

#include "arrays.h"

template <>
struct pybind11::detail::type_caster<cvops::PriorGrid>
    : cvops::FromTuple<cvops::PriorGrid, int, int, float, float, float, float> {};

void bind_multibox_prior(py::module_& m) {
  using namespace cvops;
  m.def("multibox_prior", [](Array<float> out, PriorGrid grid, Array<const float> size,
                             Array<const float> ratio, bool clip) {
    py::gil_scoped_release release;
    cpu::multibox_prior(out.data, grid, {size.data, ratio.data, (int)size.size}, clip);
  });
#ifdef CVOPS_CUDA
  m.def("multibox_prior_cuda", [](std::uintptr_t out, PriorGrid grid, Array<const float> size,
                                  Array<const float> ratio, bool clip, std::uintptr_t stream) {
    cuda::multibox_prior(pointer<float>(out), grid, {size.data, ratio.data, (int)size.size}, clip,
                         pointer<CUstream_st>(stream));
  });
#endif
}
