// What the bindings take from Python. The Python side has checked shapes, dtypes and alignment.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "common.cuh"

namespace py = pybind11;

namespace cvops {

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<unsigned char, py::array::c_style>;
using Ints = py::array_t<int32_t, py::array::c_style>;
using Longs = py::array_t<long long, py::array::c_style>;

// Device memory and a stream come as numbers: of CuPy, PyTorch or MXNet, whose types are not known
// here.
template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace cvops
