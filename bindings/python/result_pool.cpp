#include "result_pool.h"

#include "ops.h"

namespace {

using namespace cvops;

// The largest element of a result, in bytes.
constexpr int64 kMaxElement = 8;

// Upper bound of the bytes of an array of that shape; -1 if it is no shape, or too large.
int64 most_bytes(PyObject* shape) {
  constexpr int64 kTooLarge = (int64)1 << 56;
  if (!PyTuple_Check(shape)) return -1;
  int64 bytes = kMaxElement;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); ++i) {
    const Py_ssize_t size = PyNumber_AsSsize_t(PyTuple_GET_ITEM(shape, i), nullptr);
    if (size < 0 || __builtin_mul_overflow(bytes, (int64)size, &bytes)) {
      PyErr_Clear();
      return -1;
    }
  }
  return bytes < kTooLarge ? bytes : -1;
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

py::object checked_array(PyObject* array) {
  if (!array) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

// numpy.empty, in a block of the pool if the array is large.
py::object empty_array(PyObject* const* args, Py_ssize_t num) {
  static PyObject* const numpy_empty =
      py::object(py::module_::import("numpy").attr("empty")).release().ptr();
  if (num == 2 && most_bytes(args[0]) >= kMinPooled) {
    if (py::object array = pooled(args[0], args[1])) return array;
  }
  return checked_array(PyObject_Vectorcall(numpy_empty, args, (std::size_t)num, nullptr));
}

// An array that is a part of the memory of another one, from a byte on.
py::object part_of(const py::array& memory, int64 first, PyObject* shape, const py::dtype& dtype) {
  const auto sizes = py::reinterpret_borrow<py::tuple>(shape);
  std::vector<py::ssize_t> axes;
  for (const py::handle size : sizes) axes.push_back(size.cast<py::ssize_t>());
  return py::array(dtype, axes, {}, static_cast<const char*>(memory.data()) + first, memory);
}

// Several arrays, or parts of one array, which lives until the last part dies. That array gets huge
// pages: the first write to small ones may take longer than an op.
py::object empty_arrays(PyObject* const* types, Py_ssize_t num) {
  constexpr int64 kHuge = 1 << 22, kAlignment = 64;
  py::tuple made(num);
  int64 most = 0;
  bool has_no_size = false;
  for (Py_ssize_t i = 0; i < num; ++i) {
    if (!PyTuple_Check(types[i]) || PyTuple_GET_SIZE(types[i]) != 2) {
      throw py::type_error("empty_all: expected pairs of a shape and a dtype");
    }
    const int64 bytes = most_bytes(PyTuple_GET_ITEM(types[i], 0));
    most += bytes;
    has_no_size |= bytes < 0;
  }
  std::vector<py::dtype> dtypes;
  std::vector<int64> starts = {0};
  int64 total = 0, least = kHuge;
  if (most >= kHuge && !has_no_size) {
    for (Py_ssize_t i = 0; i < num; ++i) {
      dtypes.push_back(
          py::dtype::from_args(py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(types[i], 1))));
      const int64 bytes =
          most_bytes(PyTuple_GET_ITEM(types[i], 0)) / kMaxElement * dtypes.back().itemsize();
      total += bytes, least = std::min(least, bytes);
      starts.push_back(starts.back() + ceil_div(bytes, kAlignment) * kAlignment);
    }
  }
  if (total < kHuge || least >= kHuge) {
    for (Py_ssize_t i = 0; i < num; ++i) {
      made[i] = empty_array(reinterpret_cast<PyTupleObject*>(types[i])->ob_item, 2);
    }
    return std::move(made);
  }
  const auto shape = py::make_tuple(starts.back());
  const auto byte = py::dtype::of<std::uint8_t>();
  PyObject* const args[] = {shape.ptr(), byte.ptr()};
  const py::array memory = empty_array(args, 2);
  for (Py_ssize_t i = 0; i < num; ++i) {
    made[i] = part_of(memory, starts[i], PyTuple_GET_ITEM(types[i], 0), dtypes[i]);
  }
  return std::move(made);
}

// Calls make(args, num); its exceptions become errors of Python.
template <py::object (*make)(PyObject* const*, Py_ssize_t)>
PyObject* as_function(PyObject*, PyObject* const* args, Py_ssize_t num) {
  try {
    return make(args, num).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  }
  return nullptr;
}

template <py::object (*make)(PyObject* const*, Py_ssize_t)>
PyMethodDef method_of(const char* name, const char* doc) {
  PyObject* (*const function)(PyObject*, PyObject* const*, Py_ssize_t) = as_function<make>;
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL, doc};
}

// The documentation has the form of pybind11.
PyMethodDef methods[] = {
    method_of<empty_array>("empty", "empty(arg0: tuple, arg1: object) -> numpy.ndarray\n"),
    method_of<empty_arrays>("empty_all", "empty_all(*args) -> tuple\n"),
};

}  // namespace

void bind_result_pool(cvops::Ops& ops) {
  py::module_& m = ops.module;
  for (PyMethodDef& method : methods) {
    m.attr(method.ml_name) = checked_array(PyCFunction_New(&method, nullptr));
  }
  m.def("kept_result_bytes", &kept_result_bytes);
  m.def("result_pool_size", &result_pool_size);
  m.def("set_result_pool_size", &set_result_pool_size);
  m.def("release_results", &release_results);
}
