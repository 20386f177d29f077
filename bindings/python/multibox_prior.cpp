#include "multibox_prior.h"

#include "arrays.h"

namespace cvops {
namespace {

// Of PriorMap and HalfSize, field by field.
using Maps = Array<const int>;
using Halves = Array<const float>;

Priors priors(Maps maps, Halves half) {
  return {reinterpret_cast<const PriorMap*>(maps.data), (int)maps.shape[0],
          reinterpret_cast<const HalfSize*>(half.data)};
}

}  // namespace
}  // namespace cvops

void bind_multibox_prior(py::module_& m) {
  using namespace cvops;
  m.def("multibox_prior", [](Array<float> out, Maps maps, Halves half, bool clip) {
    py::gil_scoped_release release;
    cpu::multibox_prior(out.data, priors(maps, half), clip);
  });
#ifdef CVOPS_CUDA
  m.def(
      "multibox_prior_cuda",
      [](std::uintptr_t out, Maps maps, Halves half, bool clip, std::uintptr_t stream) {
        cuda::multibox_prior(pointer<float>(out), priors(maps, half), clip,
                             pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
