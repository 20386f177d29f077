// Binding of an op as a function of the Python submodule `cpu`, for CPU arrays, and as a method of
// the class Gpu. Python has checked shapes, dtypes and alignment.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "buffer.h"
#include "gpu.h"

namespace py = pybind11;

namespace cvops {

// Memory of a C-contiguous NumPy array of T, or of a Buffer on a GPU; null for None. Other
// objects are rejected. So are read-only arrays unless T is const.
template <typename T>
struct Array {
  T* data = nullptr;
  int64 size = 0;
  std::array<int64, 3> shape = {};  // sizes of the first axes
  bool on_cpu = true, on_gpu = true;
};

// A NumPy array, even if the op runs on a GPU.
template <typename T>
struct HostArray : Array<T> {};

// Type caster of a struct from the tuple of its fields.
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

template <typename T>
void expect_on(const Cpu&, const Array<T>& x) {
  if (!x.on_cpu) throw py::type_error("expected arrays on the CPU");
}
template <typename T>
void expect_on(const Gpu&, const Array<T>& x) {
  if (!x.on_gpu) throw py::type_error("expected arrays on a GPU");
}
template <typename T>
void expect_on(const Gpu&, const HostArray<T>&) {}
template <typename Device, typename T>
void expect_on(const Device&, const T&) {}

class Ops {
 public:
  // Classes are local to the module: a process may have several builds of it.
  explicit Ops(py::module_& module)
      : module(module), gpu(module, "Gpu", py::module_local()), cpu_(module.def_submodule("cpu")) {}

  // `f` takes the arguments and returns the work, a function of the device: const Cpu& or Gpu&.
  template <typename F>
  void def(const char* name, F f) {
    def(name, f, &F::operator());
  }

  py::module_& module;
  py::class_<Gpu> gpu;

 private:
  py::module_ cpu_;

  template <typename F, typename Work, typename... Args>
  void def(const char* name, F f, Work (F::*)(Args...) const) {
    cpu_.def(name, [f](Args... args) {
      const Cpu cpu;
      (expect_on(cpu, args), ...);
      const auto work = f(args...);
      py::gil_scoped_release release;
      work(cpu);
    });
    gpu.def(name, [f](Gpu& gpu, Args... args) {
      (expect_on(gpu, args), ...);
      const auto work = f(args...);
      py::gil_scoped_release release;
      gpu.run([&] { work(gpu); });
    });
  }
};

}  // namespace cvops

// Replaces py::array_t, which would ask NumPy to convert each array.
template <typename T>
struct pybind11::detail::type_caster<cvops::Array<T>> {
  PYBIND11_TYPE_CASTER(cvops::Array<T>, const_name("numpy.ndarray"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;
    if (const cvops::Buffer* buffer = cvops::as_buffer(source.ptr())) return load(*buffer);
    if (!isinstance<array>(source)) return false;
    const auto x = reinterpret_borrow<array>(source);
    const char kind = std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
    if (x.dtype().kind() != kind || x.itemsize() != sizeof(T)) return false;
    if (!(x.flags() & array::c_style) || (!std::is_const_v<T> && !x.writeable())) return false;
    value = {static_cast<T*>(const_cast<void*>(x.data())), x.size(), {}, true, false};
    for (py::ssize_t i = 0; i < x.ndim() && i < 3; ++i) value.shape[i] = x.shape(i);
    return true;
  }

 private:
  bool load(const cvops::Buffer& buffer) {
    if (std::is_floating_point_v<T> && cvops::is_double(buffer) != (sizeof(T) == 8)) return false;
    value = {reinterpret_cast<T*>(buffer.pointer), 1, {}, false, true};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(buffer.shape); ++i) {
      const cvops::int64 size = PyLong_AsLongLong(PyTuple_GET_ITEM(buffer.shape, i));
      if (i < 3) value.shape[i] = size;
      value.size *= size;
    }
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
  }
};

template <typename T>
struct pybind11::detail::type_caster<cvops::HostArray<T>> {
  PYBIND11_TYPE_CASTER(cvops::HostArray<T>, const_name("numpy.ndarray"));

  bool load(handle source, bool convert) {
    make_caster<cvops::Array<T>> caster;
    if (!caster.load(source, convert)) return false;
    static_cast<cvops::Array<T>&>(value) = cast_op<cvops::Array<T>>(caster);
    return value.on_cpu;
  }
};
