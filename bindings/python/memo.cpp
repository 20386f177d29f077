// memoized(function, arrays): `function`, with a memory of its results.
//
// It remembers a call whose arguments are of exactly these types: int, float, str, bool, None, and
// tuples of these. Such objects never change, and a comparison of two runs no Python code. Equal
// arguments have the same type and the same bits: 1 is neither True nor 1.0, and -0.0 is not 0.0.
// An error is not remembered.
//
// With `arrays`, the function reads the types and the shapes of arrays only. Then a NumPy array,
// and an array of a type of describe_by(), is equal to another one of its type, dtype and shape.
//
// With `parts`, a pair of functions, function(...) is equal to second(first(...), shapes) with the
// shapes of all arrays, and first() does not read them. Its results are remembered apart, so that
// arrays of other shapes need the second function only.
#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "memo_call.h"

namespace {

using namespace cvops;
using memo::Call;

// The arguments and the result of a remembered call.
class Entry {
 public:
  // `names` are the names of the last arguments, or null.
  Entry(const Call& call, PyObject* names, py::object result)
      : hash_(call.hash()),
        names_(py::reinterpret_borrow<py::object>(names)),
        sizes_(call.sizes.begin(), call.sizes.begin() + call.num_sizes()),
        result_(std::move(result)) {
    objects_.reserve(call.num());
    for (std::size_t i = 0; i < call.num(); ++i) {
      objects_.push_back(py::reinterpret_borrow<py::object>(call.objects[i]));
    }
  }

  bool is_of(const Call& call, PyObject* names) const {
    if (hash_ != call.hash() || objects_.size() != call.num()) return false;
    for (std::size_t i = 0; i < call.num(); ++i) {
      if (!memo::same(objects_[i].ptr(), call.objects[i])) return false;
    }
    PyObject* const own = names_.ptr();
    return (own == names || (own && names && memo::same(own, names))) &&
           std::equal(sizes_.begin(), sizes_.end(), call.sizes.begin(),
                      call.sizes.begin() + call.num_sizes());
  }

  const py::object& result() const { return result_; }

 private:
  const uint64 hash_;
  const py::object names_;
  std::vector<py::object> objects_;
  const std::vector<Py_ssize_t> sizes_;
  const py::object result_;
};

// Remembered calls of a function. A set has four entries, the newest first.
class Table {
 public:
  // Returns the result of an equal call; null if there is none.
  py::object find(const Call& call, PyObject* names) {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : sets_[call.hash() % kSets]) {
      if (entry && entry->is_of(call, names)) return entry->result();
    }
    return {};
  }

  void add(const Call& call, PyObject* names, const py::object& result) {
    auto entry = std::make_unique<const Entry>(call, names, result);
    {
      const std::lock_guard lock(mutex_);
      for (auto& place : sets_[call.hash() % kSets]) std::swap(entry, place);
    }
  }  // the oldest entry dies here, without the lock

 private:
  static constexpr std::size_t kSets = 64, kWays = 4;

  // Guards the sets in an interpreter without the GIL. No code of Python runs under it.
  std::mutex mutex_;
  std::array<std::array<std::unique_ptr<const Entry>, kWays>, kSets> sets_;
};

// The function of memoized().
class Memo {
 public:
  Memo(py::object function, bool arrays, py::object of_types, py::object with_shapes)
      : function_(std::move(function)),
        of_types_(std::move(of_types)),
        with_shapes_(std::move(with_shapes)),
        arrays_(arrays) {}

  // Returns a new reference; null with an error of Python.
  PyObject* call(PyObject* const* args, Py_ssize_t num_positional, PyObject* names) {
    const auto call_of = [&](const py::object& function) {
      return py::reinterpret_steal<py::object>(
          PyObject_Vectorcall(function.ptr(), args, (std::size_t)num_positional, names));
    };
    const Py_ssize_t num = num_positional + (names ? PyTuple_GET_SIZE(names) : 0);
    Call call(arrays_);
    if (!call.add(args, num)) return call_of(function_).release().ptr();
    py::object result = calls_.find(call, names);
    if (result) return result.release().ptr();
    Call types(arrays_, false);
    if (of_types_ && types.add(args, num)) {
      py::object found = types_.find(types, names);
      if (!found && (found = call_of(of_types_))) types_.add(types, names, found);
      if (found) result = with_shapes(found, call);
    } else {
      result = call_of(function_);
    }
    if (result) calls_.add(call, names, result);
    return result.release().ptr();
  }

 private:
  py::object with_shapes(const py::object& of_types, const Call& call) const {
    const auto shapes = py::reinterpret_steal<py::object>(call.shapes());
    PyObject* const both[] = {of_types.ptr(), shapes.ptr()};
    if (!shapes) return {};
    return py::reinterpret_steal<py::object>(
        PyObject_Vectorcall(with_shapes_.ptr(), both, 2, nullptr));
  }

  const py::object function_, of_types_, with_shapes_;
  const bool arrays_;
  Table calls_, types_;
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

py::object memoized(py::object function, bool arrays, py::object parts) {
  py::object first, second;
  if (!parts.is_none()) {
    const auto pair = parts.cast<std::pair<py::object, py::object>>();
    first = pair.first, second = pair.second;
  }
  auto memo = std::make_unique<Memo>(std::move(function), arrays, first, second);
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
  ops.module.def("memoized", &memoized, py::arg("function"), py::arg("arrays") = false,
                 py::arg("parts") = py::none());
}
