// run_on_cpu: a call of an implementation on arrays in the memory of the CPU.
#include <vector>

#include "tensors.h"

namespace {

using namespace cvops;

// The dtype of NumPy for an element of DLPack; null for one that no op reads.
PyObject* dtype_of(const DlTensor& x) {
  static PyObject* const float32 = py::dtype::of<float>().release().ptr();
  static PyObject* const float64 = py::dtype::of<double>().release().ptr();
  static PyObject* const int32 = py::dtype::of<std::int32_t>().release().ptr();
  static PyObject* const uint8 = py::dtype::of<std::uint8_t>().release().ptr();
  enum { kInt, kUint, kFloat };
  if (x.lanes != 1) return nullptr;
  if (x.code == kFloat && x.bits == 32) return float32;
  if (x.code == kFloat && x.bits == 64) return float64;
  if (x.code == kInt && x.bits == 32) return int32;
  if (x.code == kUint && x.bits == 8) return uint8;
  return nullptr;
}

// True if PyTorch negates the values of a tensor when it reads them, or if it cannot be asked.
bool may_be_negated(PyObject* tensor) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  PyObject* const found = PyObject_CallMethodNoArgs(tensor, name);
  if (!found) PyErr_Clear();
  Py_XDECREF(found);
  return found != Py_False;
}

// Returns a tensor as an array that shares its memory; null, without an error, if it cannot.
PyObject* array_of_tensor(PyObject* tensor) {
  const DescribedType* const type = described_type(Py_TYPE(tensor));
  DlTensor x;
  if (!type || !type->describe || !describe_on_cpu(*type, tensor, &x) || !x.is_contiguous()) {
    return nullptr;
  }
  PyObject* const dtype = dtype_of(x);
  char* const data = static_cast<char*>(x.data) + x.byte_offset;
  if (!dtype || reinterpret_cast<std::uintptr_t>(data) % (x.bits / 8) || may_be_negated(tensor)) {
    return nullptr;
  }
  constexpr int kMaxAxes = 16;
  if (x.num_axes > kMaxAxes) return nullptr;
  Py_intptr_t sizes[kMaxAxes];
  std::copy_n(x.shape, x.num_axes, sizes);
  const auto& numpy = py::detail::npy_api::get();
  Py_INCREF(dtype);
  PyObject* const array = numpy.PyArray_NewFromDescr_(
      numpy.PyArray_Type_, dtype, x.num_axes, sizes, nullptr, data,
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
          py::detail::npy_api::NPY_ARRAY_WRITEABLE_,
      nullptr);
  if (!array) return PyErr_Clear(), nullptr;
  Py_INCREF(tensor);
  if (numpy.PyArray_SetBaseObject_(array, tensor) == 0) return array;
  PyErr_Clear();
  Py_DECREF(array);
  return nullptr;
}

// True for a NumPy array as the ops take it.
bool is_plain(PyObject* x) {
  if (Py_TYPE(x) != py::detail::npy_api::get().PyArray_Type_) return false;
  constexpr int kFlags =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  return (py::detail::array_proxy(x)->flags & kFlags) == kFlags;
}

py::object checked(PyObject* made) {
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::object numpy_array(PyObject* x, PyObject* to_numpy) {
  if (is_plain(x)) return py::reinterpret_borrow<py::object>(x);
  if (PyObject* const array = array_of_tensor(x)) return checked(array);
  return checked(PyObject_CallOneArg(to_numpy, x));
}

// The results as arrays of the caller's library.
py::object converted(py::object out, PyObject* from_numpy) {
  if (from_numpy == Py_None) return out;
  if (!PyTuple_CheckExact(out.ptr())) return checked(PyObject_CallOneArg(from_numpy, out.ptr()));
  const Py_ssize_t num = PyTuple_GET_SIZE(out.ptr());
  py::object made = checked(PyTuple_New(num));
  for (Py_ssize_t i = 0; i < num; ++i) {
    PyObject* const x = PyTuple_GET_ITEM(out.ptr(), i);
    PyTuple_SET_ITEM(made.ptr(), i, checked(PyObject_CallOneArg(from_numpy, x)).release().ptr());
  }
  return made;
}

// run_on_cpu(device, to_numpy, from_numpy, implementation, types, arrays, options)
PyObject* run_on_cpu(PyObject*, PyObject* const* args, Py_ssize_t num_args) {
  if (num_args != 7 || !PyTuple_Check(args[6])) {
    PyErr_SetString(PyExc_TypeError, "run_on_cpu: expected seven arguments, the last one a tuple");
    return nullptr;
  }
  PyObject *const device = args[0], *const to_numpy = args[1], *const from_numpy = args[2];
  try {
    const py::object arrays = checked(PySequence_Fast(args[5], "arrays: expected an iterable"));
    const Py_ssize_t num = PySequence_Fast_GET_SIZE(arrays.ptr());
    const Py_ssize_t num_options = PyTuple_GET_SIZE(args[6]);
    std::vector<py::object> held;
    std::vector<PyObject*> passed = {device};
    held.reserve(num);
    passed.reserve(1 + num + num_options);
    for (Py_ssize_t i = 0; i < num; ++i) {
      held.push_back(numpy_array(PySequence_Fast_GET_ITEM(arrays.ptr(), i), to_numpy));
      passed.push_back(held.back().ptr());
    }
    for (Py_ssize_t i = 0; i < num_options; ++i) passed.push_back(PyTuple_GET_ITEM(args[6], i));
    py::object out = checked(PyObject_Vectorcall(args[3], passed.data(), passed.size(), nullptr));
    return converted(std::move(out), from_numpy).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return nullptr;
}

constexpr char kRunDoc[] =
    "run_on_cpu(arg0: object, arg1: object, arg2: object, arg3: object, arg4: object, "
    "arg5: object, arg6: tuple) -> object\n";

PyMethodDef run_method = {"run_on_cpu",
                          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_on_cpu)),
                          METH_FASTCALL, kRunDoc};

}  // namespace

void bind_run_on_cpu(cvops::Ops& ops) {
  PyObject* function = PyCFunction_New(&run_method, nullptr);
  if (!function) throw py::error_already_set();
  ops.module.attr("run_on_cpu") = py::reinterpret_steal<py::object>(function);
}
