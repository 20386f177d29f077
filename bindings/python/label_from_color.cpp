#include "label_from_color.h"

#include "arrays.h"

void bind_label_from_color(py::module_& m) {
  using namespace cvops;
  m.def("label_from_color", [](Array<int> out, Array<const unsigned char> image,
                               Array<const unsigned char> colormap, int unknown) {
    py::gil_scoped_release release;
    cpu::label_from_color(out.data, image.data, colormap.data, out.size, (int)colormap.shape[0],
                          unknown);
  });
#ifdef CVOPS_CUDA
  m.def("label_from_color_workspace", &cuda::label_from_color_workspace);
  m.def(
      "label_from_color_cuda",
      [](std::uintptr_t out, std::uintptr_t image, std::uintptr_t colormap,
         std::uintptr_t workspace, int64 pixels, int num_colors, int unknown,
         std::uintptr_t stream) {
        cuda::label_from_color(pointer<int>(out), pointer<unsigned char>(image),
                               pointer<unsigned char>(colormap), pointer<void>(workspace), pixels,
                               num_colors, unknown, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
