// What the bindings take from Python, whose side has checked shapes, dtypes and alignment.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "common.cuh"

namespace py = pybind11;

namespace cvops {

// The memory of a C-contiguous NumPy array of T, for as long as the call lasts; no memory for None.
// Any other object is refused, and a read-only array where T is not const.
template <typename T>
struct Array {
  T* data = nullptr;
  const py::ssize_t* shape = nullptr;
  int64 size = 0;
};

// Device memory and a stream come as numbers: of CuPy, PyTorch or MXNet, whose types are not known
// here.
template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// A struct, which comes as the tuple of its fields: the base of its type_caster.
template <typename Struct, typename... Fields>
struct FromTuple {
  PYBIND11_TYPE_CASTER(Struct, py::detail::const_name("tuple"));

  bool load(py::handle source, bool convert) {
    if (!PyTuple_Check(source.ptr()) || PyTuple_GET_SIZE(source.ptr()) != sizeof...(Fields)) {
      return false;
    }
    return load(source.ptr(), convert, std::index_sequence_for<Fields...>());
  }

 private:
  template <std::size_t... I>
  bool load(PyObject* fields, bool convert, std::index_sequence<I...>) {
    std::tuple<py::detail::make_caster<Fields>...> casters;
    if (!(std::get<I>(casters).load(PyTuple_GET_ITEM(fields, I), convert) && ...)) return false;
    value = {py::detail::cast_op<Fields>(std::get<I>(casters))...};
    return true;
  }
};

}  // namespace cvops

// In place of py::array_t, which asks NumPy to convert each array, as if it were another.
template <typename T>
struct pybind11::detail::type_caster<cvops::Array<T>> {
  PYBIND11_TYPE_CASTER(cvops::Array<T>, const_name("numpy.ndarray"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;
    if (!isinstance<array>(source)) return false;
    const auto x = reinterpret_borrow<array>(source);
    const char kind = std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
    if (x.dtype().kind() != kind || x.itemsize() != sizeof(T)) return false;
    if (!(x.flags() & array::c_style) || (!std::is_const_v<T> && !x.writeable())) return false;
    value = {static_cast<T*>(const_cast<void*>(x.data())), x.shape(), x.size()};
    return true;
  }
};
