// Tensors of other libraries on the CPU, described by DLPack's functions for C.
//
// A type with the attribute `__dlpack_c_exchange_api__` has such functions: they describe a tensor
// without an object of Python.
#pragma once
#include "ops.h"

namespace cvops {

// DLTensor of DLPack 1.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_number;
  std::int32_t num_axes;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;

  // The kind of element, as one number.
  std::uint32_t element() const { return code | bits << 8 | (std::uint32_t)lanes << 16; }
  bool is_contiguous() const;
};

// Fills in the description of a tensor; its memory is that of the tensor. Returns 0, or sets an
// error of Python.
using DescribeTensor = int (*)(void* tensor, DlTensor* to);

// A type of describe_by(). If `describe` is null, the attributes `dtype` and `shape` describe the
// instances whose attribute `flag` is True: an object that is compared by its identity, and a tuple
// of integers.
struct DescribedType {
  PyTypeObject* type;
  PyObject* flag;
  DescribeTensor describe;
};

// Null for another type.
const DescribedType* described_type(PyTypeObject* type);

// Describes a tensor of a type with `describe`. Returns false, without an error of Python, if it is
// not in the memory of the CPU.
bool describe_on_cpu(const DescribedType& type, PyObject* tensor, DlTensor* to);

}  // namespace cvops
