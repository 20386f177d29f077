// Memory of a GPU as a Python object: Buffer(pointer, shape, dtype, owner=None).
//
// A call makes one for each array. A subclass of tuple takes four times as long to make.
#pragma once
#include <Python.h>

#include <cstdint>

namespace cvops {

struct Buffer {
  PyObject_HEAD unsigned long long pointer;
  PyObject* shape;  // a tuple of integers
  PyObject* dtype;
  PyObject* owner;  // keeps the memory alive

  // The type in this module. A process may have several builds of it.
  static PyTypeObject* type;
};

// The buffer that `object` is; null for another object.
inline Buffer* as_buffer(PyObject* object) {
  return Py_TYPE(object) == Buffer::type ? reinterpret_cast<Buffer*>(object) : nullptr;
}

// True if the dtype is NumPy's float64, as a dtype or as a type.
bool is_double(const Buffer& buffer);

}  // namespace cvops
