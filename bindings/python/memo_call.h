// A call as memoized() compares it.
#pragma once
#include <algorithm>
#include <array>
#include <cstring>

#include "tensors.h"

namespace cvops::memo {

// A call with more is not remembered, so that the memory of a table has a bound.
constexpr std::size_t kMaxArguments = 32, kMaxDescribed = 8, kMaxSizes = 128, kMaxObjects = 512;
constexpr Py_ssize_t kMaxCharacters = 64;
constexpr int kMaxDepth = 4;

inline uint64 float_bits(PyObject* x) {
  const double value = PyFloat_AS_DOUBLE(x);
  uint64 bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// True if two objects, which a Call accepts, have the same type and the same bits.
inline bool same(PyObject* a, PyObject* b) {
  if (a == b) return true;
  PyTypeObject* const type = Py_TYPE(a);
  if (type != Py_TYPE(b)) return false;
  if (type == &PyFloat_Type) return float_bits(a) == float_bits(b);
  if (type == &PyLong_Type || type == &PyUnicode_Type) {
    return PyObject_RichCompareBool(a, b, Py_EQ) == 1;
  }
  if (type != &PyTuple_Type || PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); ++i) {
    if (!same(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i))) return false;
  }
  return true;
}

// The arguments of a call in the form in which they are compared, and their hash.
class Call {
 public:
  // With `shapes`, the shapes of arrays count.
  explicit Call(bool arrays, bool shapes = true) : arrays_(arrays), shapes_(shapes) {}
  Call(const Call&) = delete;
  ~Call() {
    for (std::size_t i = 0; i < num_dtypes_; ++i) Py_DECREF(dtypes_[i]);
  }

  // Adds an argument. Returns false if the call cannot be remembered.
  bool add(PyObject* x) {
    if (num_ == kMaxArguments) return false;
    objects[num_++] = x;
    return add_object(x, 0) || (arrays_ && add_array(x));
  }

  // Adds all arguments. Returns false if the call cannot be remembered.
  bool add(PyObject* const* args, Py_ssize_t num) {
    return std::all_of(args, args + num, [&](PyObject* x) { return add(x); });
  }

  std::size_t num() const { return num_; }
  std::size_t num_sizes() const { return num_sizes_; }
  uint64 hash() const { return hash_; }

  // Returns the tuple of the shapes of the arrays; null with an error of Python.
  PyObject* shapes() const {
    PyObject* const shapes = PyTuple_New((Py_ssize_t)num_arrays_);
    std::size_t at = 0;
    for (std::size_t i = 0; shapes && i < num_arrays_; ++i) {
      at += kSizesOfType;
      const Py_ssize_t num = sizes[at++];
      PyObject* const shape = PyTuple_New(num);
      if (!shape) return Py_DECREF(shapes), nullptr;
      PyTuple_SET_ITEM(shapes, (Py_ssize_t)i, shape);
      for (Py_ssize_t k = 0; k < num; ++k) {
        PyObject* const size = PyLong_FromSsize_t(sizes[at++]);
        if (!size) return Py_DECREF(shapes), nullptr;
        PyTuple_SET_ITEM(shape, k, size);
      }
    }
    return shapes;
  }

  std::array<PyObject*, kMaxArguments> objects;  // an argument; the dtype of an array
  // The type of each array, the element of a tensor, the number of axes, and the axes.
  std::array<Py_ssize_t, kMaxSizes> sizes;

 private:
  bool add_object(PyObject* x, int depth) {
    PyTypeObject* const type = Py_TYPE(x);
    if (++num_objects_ > kMaxObjects) return false;
    mix(reinterpret_cast<std::uintptr_t>(type));
    if (type == &PyFloat_Type) {
      mix(float_bits(x));
    } else if (type == &PyLong_Type) {
      mix((uint64)PyObject_Hash(x));
    } else if (type == &PyUnicode_Type) {
      if (PyUnicode_GET_LENGTH(x) > kMaxCharacters) return false;
      mix((uint64)PyObject_Hash(x));
    } else if (type == &PyBool_Type || x == Py_None) {
      mix(reinterpret_cast<std::uintptr_t>(x));
    } else {
      return type == &PyTuple_Type && add_elements(x, depth + 1);
    }
    return true;
  }

  bool add_elements(PyObject* tuple, int depth) {
    const Py_ssize_t num = PyTuple_GET_SIZE(tuple);
    if (depth > kMaxDepth) return false;
    for (Py_ssize_t i = 0; i < num; ++i) {
      if (!add_object(PyTuple_GET_ITEM(tuple, i), depth)) return false;
    }
    mix((uint64)num);
    return true;
  }

  bool add_array(PyObject* x) {
    if (Py_TYPE(x) == py::detail::npy_api::get().PyArray_Type_) {
      const auto* array = py::detail::array_proxy(x);
      return add_type(x, array->descr, 0) && add_axes(array->dimensions, array->nd);
    }
    const DescribedType* const type = described_type(Py_TYPE(x));
    if (!type) return false;
    if (!type->describe) return add_described(x, *type);
    DlTensor tensor;
    return describe_on_cpu(*type, x, &tensor) &&
           add_type(x, reinterpret_cast<PyObject*>(Py_TYPE(x)), tensor.element()) &&
           add_axes(tensor.shape, tensor.num_axes);
  }

  bool add_described(PyObject* x, const DescribedType& described) {
    static PyObject* const dtype_name = PyUnicode_InternFromString("dtype");
    static PyObject* const shape_name = PyUnicode_InternFromString("shape");
    if (attribute(x, described.flag).ptr() != Py_True) return false;
    if (num_dtypes_ == kMaxDescribed) return false;
    PyObject* const dtype = attribute(x, dtype_name).release().ptr();
    if (!dtype) return false;
    dtypes_[num_dtypes_++] = dtype;
    const py::object shape = attribute(x, shape_name);
    if (!shape || !PyTuple_Check(shape.ptr())) return false;
    const Py_ssize_t num = PyTuple_GET_SIZE(shape.ptr());
    if (!add_type(x, dtype, 0)) return false;
    if (num > (Py_ssize_t)kMaxSizes) return false;
    std::array<Py_ssize_t, kMaxSizes> axes;
    for (Py_ssize_t i = 0; i < num; ++i) {
      PyObject* const size = PyTuple_GET_ITEM(shape.ptr(), i);
      if (!PyLong_CheckExact(size)) return false;
      axes[i] = PyLong_AsSsize_t(size);
    }
    return add_axes(axes.data(), num);
  }

  // Null if there is no such attribute.
  static py::object attribute(PyObject* x, PyObject* name) {
    PyObject* const value = PyObject_GetAttr(x, name);
    if (!value) PyErr_Clear();
    return py::reinterpret_steal<py::object>(value);
  }

  // Types of arrays live as long as the process.
  bool add_type(PyObject* array, PyObject* dtype, uint64 element) {
    objects[num_ - 1] = dtype;
    mix(reinterpret_cast<std::uintptr_t>(dtype));
    ++num_arrays_;
    return add_size((Py_ssize_t) reinterpret_cast<std::uintptr_t>(Py_TYPE(array))) &&
           add_size((Py_ssize_t)element);
  }

  template <typename Size>
  bool add_axes(const Size* axes, Py_ssize_t num) {
    return !shapes_ || (add_size(num) && std::all_of(axes, axes + num, [&](Size size) {
                          return add_size((Py_ssize_t)size);
                        }));
  }

  bool add_size(Py_ssize_t size) {
    if (num_sizes_ == kMaxSizes) return false;
    sizes[num_sizes_++] = size;
    mix((uint64)size);
    return true;
  }

  void mix(uint64 bits) {
    hash_ = (hash_ ^ bits) * 0x9e3779b97f4a7c15;
    hash_ ^= hash_ >> 32;
  }

  static constexpr std::size_t kSizesOfType = 2;  // those of add_type()

  const bool arrays_, shapes_;
  uint64 hash_ = 0;
  std::size_t num_ = 0, num_sizes_ = 0, num_objects_ = 0, num_arrays_ = 0, num_dtypes_ = 0;
  std::array<PyObject*, kMaxDescribed> dtypes_;  // owns those of attributes
};

}  // namespace cvops::memo
