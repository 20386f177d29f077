// A GPU as ops use it: scratch memory and launches on one stream.
//
// An op is one function that takes a Gpu&, its outputs and its inputs. Gpu::run() calls it twice:
// first to count the scratch memory, then to launch. Both calls must do the same.
#pragma once
#include <array>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "common.cuh"

namespace cvops {

// The CPU as the first argument of an op.
struct Cpu {};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(int64 x = 1, int64 y = 1, int64 z = 1)
      : x((unsigned)x), y((unsigned)y), z((unsigned)z) {}
};

// Name and parameters of a kernel. Each kernel has one, with a unique number.
struct Kernel {
  struct Parameter {
    std::size_t size;
    bool is_pointer;
  };

  Kernel(const char* name, const Parameter* parameters, int num_parameters);

  const char* const name;
  const Parameter* const parameters;
  const int num_parameters;
  const int number;
};

template <typename Function>
struct TypedKernel;

template <typename... Params>
struct TypedKernel<void(Params...)> : Kernel {
  static constexpr std::array<Parameter, sizeof...(Params)> kParameters = {
      Parameter{sizeof(Params), std::is_pointer_v<Params>}...};

  explicit TypedKernel(const char* name) : Kernel(name, kParameters.data(), sizeof...(Params)) {}
};

// A kernel by its prototype in kernels/*.cuh. The function itself is not linked.
#define KERNEL(name)                                                   \
  ([]() -> const auto& {                                               \
    static const ::cvops::TypedKernel<decltype(::name)> kernel(#name); \
    return kernel;                                                     \
  }())

// A kernel for arrays of T, float or double. The kernel for double has the suffix _f64.
template <typename T, typename Single, typename Double>
const auto& kernel_of(const Single& single, const Double& for_double) {
  if constexpr (std::is_same_v<T, double>) {
    return for_double;
  } else {
    return single;
  }
}
#define KERNEL_OF(T, name) (::cvops::kernel_of<T>(KERNEL(name), KERNEL(name##_f64)))

struct Launch {
  const Kernel& kernel;
  Dim3 grid, block;
  std::size_t shared;  // bytes of dynamic shared memory
  void** arguments;    // address of each argument
  // The previous work of the op is a kernel. This one may begin before its end, because each kernel
  // begins with wait_for_earlier_launches().
  bool dependent = false;
};

// `arg` converted to the parameter's type. An integer out of range is an error.
template <typename Param, typename Arg>
Param exactly(const Kernel& kernel, Arg arg) {
  const auto converted = static_cast<Param>(arg);
  if constexpr (std::is_integral_v<Param> && std::is_integral_v<Arg>) {
    if (static_cast<Arg>(converted) != arg) {
      throw std::overflow_error(std::string(kernel.name) + ": " + std::to_string(arg) +
                                " does not fit its parameter");
    }
  }
  return converted;
}

// "name<<<grid, block, shared>>>"
std::string text_of(const Launch& launch);

// Executes the launches of a GPU. Streams are those of the driver.
class Device {
 public:
  virtual ~Device() = default;

  virtual void launch(const Launch& launch, void* stream) = 0;
  virtual void copy(void* to, const void* from, int64 bytes, void* stream) = 0;
  virtual void set_to_zero(void* memory, int64 bytes, void* stream) = 0;
  virtual int multiprocessors() = 0;
  // Maximum dynamic shared memory of a block of the kernel, in bytes.
  virtual int64 max_shared(const Kernel& kernel) = 0;
  // Bytes between two pieces of scratch memory, and a callback for each piece. For tests.
  virtual int64 scratch_gap() { return 0; }
  virtual void on_scratch(void*, int64) {}
  // Calls `body` with the device current for this thread.
  virtual void with_current(const std::function<void()>& body) { body(); }
};

class Gpu {
 public:
  // `allocate` returns memory of that size, aligned to kAlignment, valid until the stream no longer
  // uses it.
  using Allocate = std::function<void*(int64 bytes)>;
  static constexpr int64 kAlignment = 256;

  Gpu(Device& device, void* stream, Allocate allocate)
      : device_(device),
        stream_(stream),
        allocate_(std::move(allocate)),
        gap_(device.scratch_gap()) {}

  // Runs an op: body() calls it with this Gpu.
  template <typename Body>
  void run(const Body& body) {
    counting_ = true, used_ = most_ = 0, memory_ = nullptr;
    body();
    counting_ = false, used_ = 0, after_launch_ = false;
    if (most_) memory_ = static_cast<char*>(allocate_(most_));
    body();
  }

  // Scratch memory of the last run(), in bytes.
  int64 scratch_bytes() const { return most_; }

  // Uninitialized scratch memory for `num` elements, valid until the end of the Scope.
  template <typename T>
  T* scratch(int64 num) {
    const int64 bytes = num * (int64)sizeof(T);
    char* here = memory_ ? memory_ + used_ : nullptr;
    used_ += ceil_div(bytes, kAlignment) * kAlignment + gap_;
    if (used_ > most_) most_ = used_;
    if (!counting_) device_.on_scratch(here, bytes);
    return reinterpret_cast<T*>(here);
  }

  // The end of a Scope frees the scratch memory that was taken in its lifetime.
  class Scope {
   public:
    explicit Scope(Gpu& gpu) : gpu_(gpu), used_(gpu.used_) {}
    ~Scope() { gpu_.used_ = used_; }
    Scope(const Scope&) = delete;

   private:
    Gpu& gpu_;
    int64 used_;
  };

  // Queues kernel<<<grid, block, shared>>>(args...). Each argument is converted to the parameter's
  // type. An empty grid launches nothing.
  template <typename... Params, typename... Args>
  void launch(const TypedKernel<void(Params...)>& kernel, Dim3 grid, Dim3 block, int64 shared,
              Args... args) {
    static_assert(sizeof...(Params) == sizeof...(Args), "one argument for each parameter");
    if (counting_ || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    std::tuple<Params...> values(exactly<Params>(kernel, args)...);
    queue(kernel, grid, block, shared, values, std::index_sequence_for<Params...>());
  }

  void copy(void* to, const void* from, int64 bytes) {
    if (counting_ || !bytes) return;
    device_.copy(to, from, bytes, stream_);
    after_launch_ = false;
  }
  void set_to_zero(void* memory, int64 bytes) {
    if (counting_ || !bytes) return;
    device_.set_to_zero(memory, bytes, stream_);
    after_launch_ = false;
  }

  int multiprocessors() const { return device_.multiprocessors(); }
  int64 max_shared(const Kernel& kernel) const { return device_.max_shared(kernel); }

 private:
  template <typename... Params, std::size_t... I>
  void queue(const Kernel& kernel, Dim3 grid, Dim3 block, int64 shared,
             std::tuple<Params...>& values, std::index_sequence<I...>) {
    void* arguments[] = {&std::get<I>(values)...};
    device_.launch({kernel, grid, block, (std::size_t)shared, arguments, after_launch_}, stream_);
    after_launch_ = true;
  }

  Device& device_;
  void* stream_;
  Allocate allocate_;
  int64 gap_;
  char* memory_ = nullptr;
  int64 used_ = 0, most_ = 0;
  bool counting_ = false;
  bool after_launch_ = false;  // the previous work of the op is a kernel
};

inline void set_to_zero(const Cpu&, void* memory, int64 bytes) {
  if (bytes) __builtin_memset(memory, 0, (std::size_t)bytes);
}
inline void set_to_zero(Gpu& gpu, void* memory, int64 bytes) { gpu.set_to_zero(memory, bytes); }

}  // namespace cvops
