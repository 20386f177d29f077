// memoized(function, arrays): `function`, with a memory of its results.
//
// It remembers a call whose arguments are of exactly these types: int, float, str, bool, None, and
// tuples of these. Such objects never change, and a comparison of two runs no Python code. Equal
// arguments have the same type and the same bits: 1 is neither True nor 1.0, and -0.0 is not 0.0.
// With `arrays`, the function reads the dtype and the shape of a NumPy array only, and equal arrays
// have the same ones. An error is not remembered.
#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "ops.h"

namespace {

using namespace cvops;

// A call with more is not remembered, so that the memory of a table has a bound.
constexpr Py_ssize_t kMaxObjects = 512, kMaxCharacters = 64;
constexpr int kMaxDepth = 4;

uint64 float_bits(PyObject* x) {
  const double value = PyFloat_AS_DOUBLE(x);
  uint64 bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// An array of exactly NumPy's type; null for another object.
const py::detail::PyArray_Proxy* as_array(PyObject* x) {
  const bool is_array = Py_TYPE(x) == py::detail::npy_api::get().PyArray_Type_;
  return is_array ? py::detail::array_proxy(x) : nullptr;
}

// Hash of the arguments of a call.
class Hash {
 public:
  explicit Hash(bool arrays) : arrays_(arrays) {}

  // Returns false if the object cannot be remembered.
  bool add(PyObject* x, int depth = 0) {
    PyTypeObject* const type = Py_TYPE(x);
    if (++objects_ > kMaxObjects) return false;
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
    } else if (type == &PyTuple_Type) {
      return add_elements(x, depth + 1);
    } else {
      const auto* array = arrays_ ? as_array(x) : nullptr;
      if (!array) return false;
      mix(reinterpret_cast<std::uintptr_t>(array->descr));
      mix((uint64)array->nd);
      for (int i = 0; i < array->nd; ++i) mix((uint64)array->dimensions[i]);
    }
    return true;
  }

  uint64 value() const { return value_; }

 private:
  bool add_elements(PyObject* tuple, int depth) {
    const Py_ssize_t num = PyTuple_GET_SIZE(tuple);
    if (depth > kMaxDepth) return false;
    for (Py_ssize_t i = 0; i < num; ++i) {
      if (!add(PyTuple_GET_ITEM(tuple, i), depth)) return false;
    }
    mix((uint64)num);
    return true;
  }

  void mix(uint64 bits) {
    value_ = (value_ ^ bits) * 0x9e3779b97f4a7c15;
    value_ ^= value_ >> 32;
  }

  const bool arrays_;
  uint64 value_ = 0;
  Py_ssize_t objects_ = 0;
};

// True if two objects, of which Hash accepts one, have the same type and the same bits.
bool same(PyObject* a, PyObject* b) {
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

// The arguments of a remembered call.
class Arguments {
 public:
  // `names` are the names of the last arguments, or null.
  Arguments(PyObject* const* args, Py_ssize_t num, PyObject* names)
      : names_(py::reinterpret_borrow<py::object>(names)) {
    for (Py_ssize_t i = 0; i < num; ++i) {
      const auto* array = as_array(args[i]);
      objects_.push_back(py::reinterpret_borrow<py::object>(array ? array->descr : args[i]));
      if (!array) continue;
      sizes_.push_back(array->nd);
      sizes_.insert(sizes_.end(), array->dimensions, array->dimensions + array->nd);
    }
  }

  bool equal(PyObject* const* args, Py_ssize_t num, PyObject* names) const {
    if ((std::size_t)num != objects_.size() || !equal_names(names)) return false;
    const Py_ssize_t* sizes = sizes_.data();
    for (Py_ssize_t i = 0; i < num; ++i) {
      PyObject* const own = objects_[(std::size_t)i].ptr();
      const auto* array = as_array(args[i]);
      if (!array) {
        if (!same(own, args[i])) return false;
        continue;
      }
      if (own != array->descr || *sizes++ != array->nd) return false;
      for (int axis = 0; axis < array->nd; ++axis) {
        if (*sizes++ != array->dimensions[axis]) return false;
      }
    }
    return true;
  }

 private:
  bool equal_names(PyObject* names) const {
    PyObject* const own = names_.ptr();
    return own == names || (own && names && same(own, names));
  }

  py::object names_;
  std::vector<py::object> objects_;  // an argument, or the dtype of an array
  std::vector<Py_ssize_t> sizes_;    // of each array the number of axes, and the axes
};

struct Entry {
  uint64 hash = 0;
  std::unique_ptr<const Arguments> arguments;  // null in an empty entry
  py::object result;
};

// The results of a function. A set has four entries, the newest first.
class Memo {
 public:
  Memo(py::object function, bool arrays) : function_(std::move(function)), arrays_(arrays) {}

  // Returns a new reference; null with an error of Python.
  PyObject* call(PyObject* const* args, Py_ssize_t num_positional, PyObject* names) {
    const Py_ssize_t num = num_positional + (names ? PyTuple_GET_SIZE(names) : 0);
    const auto call_function = [&] {
      return PyObject_Vectorcall(function_.ptr(), args, (std::size_t)num_positional, names);
    };
    Hash hash(arrays_);
    for (Py_ssize_t i = 0; i < num; ++i) {
      if (!hash.add(args[i])) return call_function();
    }
    auto& set = sets_[hash.value() % kSets];
    {
      const std::lock_guard lock(mutex_);
      for (const Entry& entry : set) {
        if (entry.hash == hash.value() && entry.arguments &&
            entry.arguments->equal(args, num, names)) {
          return entry.result.inc_ref().ptr();
        }
      }
    }
    const auto result = py::reinterpret_steal<py::object>(call_function());
    if (!result) return nullptr;
    Entry entry{hash.value(), std::make_unique<Arguments>(args, num, names), result};
    {
      const std::lock_guard lock(mutex_);
      for (Entry& place : set) std::swap(entry, place);
    }
    return result.inc_ref().ptr();  // the oldest entry dies here, without the lock
  }

 private:
  static constexpr std::size_t kSets = 64, kWays = 4;

  const py::object function_;
  const bool arrays_;
  // Guards the sets in an interpreter without the GIL. No code of Python runs under it.
  std::mutex mutex_;
  std::array<std::array<Entry, kWays>, kSets> sets_;
};

constexpr char kMemoName[] = "cvops.Memo";

PyObject* call_memo(PyObject* capsule, PyObject* const* args, Py_ssize_t num, PyObject* names) {
  auto* memo = static_cast<Memo*>(PyCapsule_GetPointer(capsule, kMemoName));
  try {
    return memo ? memo->call(args, num, names) : nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyMethodDef memo_method = {"memoized",
                           reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_memo)),
                           METH_FASTCALL | METH_KEYWORDS, nullptr};

py::object memoized(py::object function, bool arrays) {
  auto memo = std::make_unique<Memo>(std::move(function), arrays);
  const py::capsule owner(memo.get(), kMemoName, [](PyObject* capsule) {
    delete static_cast<Memo*>(PyCapsule_GetPointer(capsule, kMemoName));
  });
  memo.release();
  PyObject* made = PyCFunction_New(&memo_method, owner.ptr());
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

}  // namespace

void bind_memo(cvops::Ops& ops) {
  ops.module.def("memoized", &memoized, py::arg("function"), py::arg("arrays") = false);
}
