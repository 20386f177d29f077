#include "buffer.h"

#include <structmember.h>

#include "ops.h"

namespace cvops {

PyTypeObject* Buffer::type = nullptr;

bool is_double(const Buffer& buffer) {
  static PyObject* const dtype = py::dtype::of<double>().release().ptr();
  static PyObject* const type =
      py::object(py::module_::import("numpy").attr("float64")).release().ptr();
  return buffer.dtype == dtype || buffer.dtype == type;
}

namespace {

PyObject* new_buffer(PyObject* pointer, PyObject* shape, PyObject* dtype, PyObject* owner) {
  if (!PyTuple_Check(shape)) {
    return PyErr_Format(PyExc_TypeError, "shape: expected a tuple, got %R", shape);
  }
  const unsigned long long address = PyLong_AsUnsignedLongLong(pointer);
  if (address == (unsigned long long)-1 && PyErr_Occurred()) return nullptr;
  Buffer* buffer = PyObject_New(Buffer, Buffer::type);
  if (!buffer) return nullptr;
  Py_INCREF(shape), Py_INCREF(dtype), Py_INCREF(owner);
  buffer->pointer = address;
  buffer->shape = shape, buffer->dtype = dtype, buffer->owner = owner;
  return reinterpret_cast<PyObject*>(buffer);
}

// Buffer(pointer, shape, dtype, owner=None)
PyObject* vectorcall(PyObject*, PyObject* const* args, std::size_t flags, PyObject* names) {
  const Py_ssize_t num = PyVectorcall_NARGS(flags);
  if (num < 3 || num > 4 || names) {
    PyErr_SetString(PyExc_TypeError, "Buffer: expected pointer, shape, dtype and owner");
    return nullptr;
  }
  return new_buffer(args[0], args[1], args[2], num == 4 ? args[3] : Py_None);
}

void deallocate(PyObject* self) {
  auto* buffer = reinterpret_cast<Buffer*>(self);
  Py_DECREF(buffer->shape), Py_DECREF(buffer->dtype), Py_DECREF(buffer->owner);
  PyTypeObject* type = Py_TYPE(self);
  PyObject_Free(self);
  Py_DECREF(type);
}

PyObject* size(PyObject* self, void*) {
  PyObject* shape = reinterpret_cast<Buffer*>(self)->shape;
  PyObject* product = PyLong_FromLong(1);
  for (Py_ssize_t i = 0; product && i < PyTuple_GET_SIZE(shape); ++i) {
    PyObject* next = PyNumber_Multiply(product, PyTuple_GET_ITEM(shape, i));
    Py_DECREF(product);
    product = next;
  }
  return product;
}

PyMemberDef members[] = {
    {"pointer", T_ULONGLONG, offsetof(Buffer, pointer), READONLY, nullptr},
    {"shape", T_OBJECT_EX, offsetof(Buffer, shape), READONLY, nullptr},
    {"dtype", T_OBJECT_EX, offsetof(Buffer, dtype), READONLY, nullptr},
    {"owner", T_OBJECT_EX, offsetof(Buffer, owner), READONLY, nullptr},
    {},
};

PyGetSetDef properties[] = {{"size", size, nullptr, nullptr, nullptr}, {}};

PyType_Slot slots[] = {
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
    {0, nullptr},
};

PyType_Spec spec = {"cvops._native.Buffer", sizeof(Buffer), 0, Py_TPFLAGS_DEFAULT, slots};

}  // namespace
}  // namespace cvops

void bind_buffer(cvops::Ops& ops) {
  using namespace cvops;
  PyObject* type = PyType_FromSpec(&spec);
  if (!type) throw py::error_already_set();
  Buffer::type = reinterpret_cast<PyTypeObject*>(type);
  Buffer::type->tp_new = nullptr;
  Buffer::type->tp_vectorcall = vectorcall;
  ops.module.attr("Buffer") = py::reinterpret_steal<py::object>(type);
}
