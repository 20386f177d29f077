// Functions of NVIDIA's driver, looked up at run time. Nothing links against CUDA.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace cvops::cuda {

using Result = int;  // CUresult

constexpr int kMaxDevices = 64;

// CUdevice_attribute and CUfunction_attribute.
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kSharedOptin = 97;
constexpr int kStaticShared = 1, kPtxVersion = 5, kMaxDynamicShared = 8;

// CUlaunchAttribute with the value of CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION.
struct LaunchAttribute {
  static constexpr int kProgrammaticStreamSerialization = 6;

  int id;
  alignas(8) int value;
  char rest_of_value[60];
};
static_assert(sizeof(LaunchAttribute) == 72, "see cuda.h");

// CUlaunchConfig.
struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  void* stream;
  const LaunchAttribute* attributes;
  unsigned num_attributes;
};
static_assert(sizeof(LaunchConfig) == 56, "see cuda.h");

struct Driver {
  Result (*init)(unsigned);
  Result (*device_count)(int*);
  Result (*device_attribute)(int*, int attribute, int device);
  Result (*primary_context)(void** context, int device);
  Result (*current_context)(void** context);
  Result (*set_context)(void* context);
  Result (*load_module)(void** module, const char* file);
  Result (*get_function)(void** function, void* module, const char* name);
  Result (*function_attribute)(int*, int attribute, void* function);
  Result (*set_function_attribute)(void* function, int attribute, int value);
  Result (*launch)(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   unsigned shared, void* stream, void** arguments, void** extra);
  // Null before CUDA 11.8.
  Result (*launch_with_attributes)(const LaunchConfig*, void* function, void** arguments,
                                   void** extra);
  Result (*copy)(unsigned long long to, unsigned long long from, std::size_t bytes, void* stream);
  Result (*fill)(unsigned long long to, unsigned char value, std::size_t bytes, void* stream);
  Result (*synchronize)(void* stream);
  Result (*version)(int*);
  Result (*error_text)(Result, const char** text);
};

// Throws if there is no driver.
const Driver& driver();

// Throws a std::runtime_error with `what` and the driver's text unless the result is success.
void check(Result result, const char* what);
std::string text_of(Result result);

// Number of GPUs; 0 if there is no driver.
int device_count();

int device_attribute(int device, int attribute);

// True if the driver has programmatic dependent launches, also in graphs.
bool has_dependent_launches();

// Makes the primary context of a GPU current for this thread. Returns the previous context, for
// set_context(), or nothing if it is the same.
std::optional<std::uintptr_t> enter_device(int device);
void set_context(std::uintptr_t context);

// Waits for the default stream.
void synchronize();

}  // namespace cvops::cuda
