// Check that runs before MXNet infers the shapes of an operator.
//
// MXNet 1.9.1 copies the shapes of the inputs to a buffer for an external operator. It counts an
// unknown shape as -1 axes, so the buffer is too short. It also truncates each axis to 32 bits. The
// check runs first and accepts only shapes that arrive unchanged.
//
// MXNet's function is a std::function. The compiler of MXNet's wheels (GCC 4.8) passes pointers to
// one by value, newer compilers by reference. The check therefore does not replace the object, but
// the pointer in it to the invoked code. The C++ interface of the wheels has std::string of the old
// ABI, and so has this file. The library with emulated kernels is not linked to MXNet.
#ifndef CVOPS_EMULATED
#define _GLIBCXX_USE_CXX11_ABI 0
#define MSHADOW_STAND_ALONE 1
#include <dlfcn.h>
#include <mxnet/tuple.h>
#include <nnvm/op.h>

#include <limits>
#include <map>
#include <sstream>

namespace {

using Shapes = std::vector<mxnet::TShape>;
// The arguments after the attributes: a pointer to the shapes, or to that pointer.
using Invoker = bool (*)(const void* function, const nnvm::NodeAttrs&, void* in, void* out);

// Layout of std::function in libstdc++.
struct Function {
  void* target[2];
  void* manager;
  Invoker invoker;
};

struct Checked {
  Invoker theirs;
  std::vector<std::string> inputs;
};

// Written while the library is loaded, read-only after that.
std::map<const nnvm::Op*, Checked> checked;
bool pointers_by_reference;

[[noreturn]] void refuse(const nnvm::Op& op, const std::string& what) {
  throw dmlc::Error(op.name.substr(std::string("_contrib_").size()) + ": " + what);
}

std::string text(const mxnet::TShape& shape) {
  if (!mxnet::ndim_is_known(shape)) return "()";
  std::ostringstream out;
  out << '(';
  for (int i = 0; i < shape.ndim(); ++i) {
    // An axis of unknown size is -1 in MXNet; its messages show it as 0 outside NumPy shapes.
    out << (i ? ", " : "") << std::max<int64_t>(shape[i], 0);
  }
  out << (shape.ndim() == 1 ? ",)" : ")");
  return out.str();
}

bool infer_shape(const void* function, const nnvm::NodeAttrs& attrs, void* in, void* out) {
  const Checked& op = checked.at(attrs.op);
  const Shapes& shapes = pointers_by_reference ? **(Shapes**)in : *(Shapes*)in;
  if (shapes.size() > op.inputs.size()) {  // the operator refuses a smaller number
    std::string names;
    for (const auto& name : op.inputs) names += (names.empty() ? "" : ", ") + name;
    refuse(*attrs.op,
           "inputs: expected " + names + ", got " + std::to_string(shapes.size()) + " inputs");
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    const mxnet::TShape& shape = shapes[i];
    if (!mxnet::shape_is_known(shape)) {
      // In a graph, another node can provide the shape later. An eager call has no name.
      if (!attrs.name.empty()) return false;
      refuse(*attrs.op,
             op.inputs[i] + ": expected a shape with axes of size 1 or more, got " + text(shape));
    }
    for (int axis = 0; axis < shape.ndim(); ++axis) {
      if (shape[axis] <= std::numeric_limits<int>::max()) continue;
      refuse(*attrs.op, op.inputs[i] + ": expected axes of size below 2^31, got " + text(shape));
    }
  }
  return op.theirs(function, attrs, in, out);
}

}  // namespace

// Installs the check before the shape inference of a loaded operator; `inputs` are the names of its
// inputs. Returns 0, or -1 if this MXNet has no such operator or function.
extern "C" int cvops_check_shapes(const char* operator_name, const char* const* inputs, int num) {
  static_assert(sizeof(Function) == sizeof(mxnet::FInferShape), "not libstdc++'s std::function");
  try {
    // A function of MXNet that takes a Graph by value.
    const char* by_value =
        "_ZNSt17_Function_handlerIFN4nnvm5GraphES1_EPFS1_OS1_EE9_M_invokeERKSt9_Any_dataS1_";
    pointers_by_reference =
        dlsym(dlopen("libmxnet.so", RTLD_LAZY | RTLD_NOLOAD), by_value) == nullptr;
    const nnvm::Op* op = nnvm::Op::Get(operator_name);
    const auto& theirs = nnvm::Op::GetAttr<mxnet::FInferShape>("FInferShape")[op];
    auto& function = *(Function*)&theirs;
    if (function.invoker == infer_shape) return 0;
    checked[op] = {function.invoker, {inputs, inputs + num}};
    function.invoker = infer_shape;
    return 0;
  } catch (const std::exception&) {
    return -1;
  }
}
#endif
