#include "result_pool.h"

#include "ops.h"

namespace {

using namespace cvops;

// The largest element of a result, in bytes.
constexpr int64 kMaxElement = 8;

// Upper bound of the bytes of an array of that shape; 0 if it is no shape, or too large.
int64 most_bytes(PyObject* shape) {
  if (!PyTuple_Check(shape)) return 0;
  int64 bytes = kMaxElement;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); ++i) {
    const Py_ssize_t size = PyNumber_AsSsize_t(PyTuple_GET_ITEM(shape, i), nullptr);
    if (size < 0 || __builtin_mul_overflow(bytes, (int64)size, &bytes)) {
      PyErr_Clear();
      return 0;
    }
  }
  return bytes;
}

// Keeps a block alive, as the base of an array.
void give(void* pointer) {
  const std::unique_ptr<ResultBlock> block(static_cast<ResultBlock*>(pointer));
  give_result(*block);
}

// Returns an array in a block of the pool; none if the pool has no block for it.
py::object pooled(PyObject* shape, PyObject* type) {
  const auto dtype = py::dtype::from_args(py::reinterpret_borrow<py::object>(type));
  const int64 bytes = most_bytes(shape) / kMaxElement * dtype.itemsize();
  if (bytes < kMinPooled || dtype.itemsize() > kMaxElement) return {};
  auto block = std::make_unique<ResultBlock>(take_result(bytes));
  if (!block->memory) return {};
  void* const memory = block->memory;
  const py::capsule owner(block.release(), give);
  const auto sizes = py::reinterpret_borrow<py::tuple>(shape);
  std::vector<py::ssize_t> axes;
  for (const py::handle size : sizes) axes.push_back(size.cast<py::ssize_t>());
  return py::array(dtype, axes, {}, memory, owner);
}

// empty(shape, dtype): numpy.empty, in a block of the pool if the array is large.
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t num) {
  static PyObject* const numpy_empty =
      py::object(py::module_::import("numpy").attr("empty")).release().ptr();
  try {
    if (num == 2 && most_bytes(args[0]) >= kMinPooled) {
      if (py::object array = pooled(args[0], args[1])) return array.release().ptr();
    }
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
    return nullptr;
  }
  return PyObject_Vectorcall(numpy_empty, args, (std::size_t)num, nullptr);
}

// The form of pybind11.
constexpr char kDoc[] = "empty(arg0: tuple, arg1: object) -> numpy.ndarray\n";

PyMethodDef method = {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)),
                      METH_FASTCALL, kDoc};

}  // namespace

void bind_result_pool(cvops::Ops& ops) {
  py::module_& m = ops.module;
  PyObject* function = PyCFunction_New(&method, nullptr);
  if (!function) throw py::error_already_set();
  m.attr("empty") = py::reinterpret_steal<py::object>(function);
  m.def("kept_result_bytes", &kept_result_bytes);
  m.def("result_pool_size", &result_pool_size);
  m.def("set_result_pool_size", &set_result_pool_size);
  m.def("release_results", &release_results);
}
