#include "tensors.h"

#include <vector>

namespace cvops {

bool DlTensor::is_contiguous() const {
  std::int64_t step = 1;
  for (int i = num_axes - 1; i >= 0; --i) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

namespace {

// DLPackExchangeAPI of DLPack 1.
struct ExchangeApi {
  std::uint32_t major, minor;
  const ExchangeApi* older;
  void (*allocate)(), (*export_tensor)(), (*import_tensor)();
  DescribeTensor describe;
};

std::vector<DescribedType>& described_types() {
  static std::vector<DescribedType> types;
  return types;
}

// Returns the function that describes tensors of a type; null for a type without one.
DescribeTensor describe_function(py::handle type) {
  constexpr char kName[] = "dlpack_exchange_api";
  const auto capsule = py::getattr(type, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), kName)) return nullptr;
  const auto* api = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), kName));
  while (api && api->major != 1) api = api->older;
  return api ? api->describe : nullptr;
}

// Types live as long as the process.
void describe_by(py::type type, py::str flag) {
  const DescribeTensor describe = describe_function(type);
  PyObject* name = flag.release().ptr();
  PyUnicode_InternInPlace(&name);
  described_types().push_back(
      {reinterpret_cast<PyTypeObject*>(type.release().ptr()), name, describe});
}

}  // namespace

const DescribedType* described_type(PyTypeObject* type) {
  for (const DescribedType& known : described_types()) {
    if (known.type == type) return &known;
  }
  return nullptr;
}

bool describe_on_cpu(const DescribedType& type, PyObject* tensor, DlTensor* to) {
  constexpr std::int32_t kCpu = 1;
  if (type.describe(tensor, to) == 0) return to->device_type == kCpu;
  PyErr_Clear();
  return false;
}

}  // namespace cvops

void bind_tensors(cvops::Ops& ops) { ops.module.def("describe_by", &cvops::describe_by); }
