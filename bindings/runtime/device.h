// GPUs behind NVIDIA's driver, and the sources of the kernels' functions.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "driver.h"
#include "gpu.h"

namespace cvops::cuda {

// Driver functions of kernels, looked up once per device. Thread-safe.
class Functions {
 public:
  struct Function {
    void* handle;
    int64 max_dynamic;  // bytes of shared memory
    bool waits;         // true if the code has wait_for_earlier_launches()
  };
  // Returns the CUfunction of a kernel for the current device.
  using Find = std::function<void*(const char* kernel, int device)>;

  explicit Functions(Find find) : find_(std::move(find)) {}
  ~Functions();

  const Function& get(const Kernel& kernel, int device);

 private:
  static constexpr int kMaxKernels = 256;
  struct Row {
    std::atomic<const Function*> of[kMaxKernels] = {};
  };

  const Function& look_up(const Kernel& kernel, int device);

  Find find_;
  std::mutex mutex_;
  std::atomic<Row*> rows_[kMaxDevices] = {};
};

// Finds kernels in files of machine code, which `add` registers.
class Modules {
 public:
  // Registers a file with these kernels for sm_<arch>; 0 for a file with several architectures.
  void add(const std::string& file, const std::vector<std::string>& kernels, int arch);
  void* find(const char* kernel, int device);

 private:
  struct Loaded {
    std::string file;
    int device;
    void* module;
  };
  void* load(const std::string& file, int device);

  // Not held during calls of the driver: see find_driver().
  std::mutex mutex_;
  std::unordered_map<std::string, std::vector<std::pair<int, std::string>>> files_;
  std::vector<Loaded> loaded_;
};

// A launch of an op after its first is a programmatic dependent launch, if the GPU and the driver
// have these, unless the environment variable CVOPS_DEPENDENT_LAUNCHES is 0.
class DriverDevice : public Device {
 public:
  DriverDevice(int number, std::shared_ptr<Functions> functions);

  void launch(const Launch& launch, void* stream) override;
  void copy(void* to, const void* from, int64 bytes, void* stream) override;
  void set_to_zero(void* memory, int64 bytes, void* stream) override;
  int multiprocessors() override { return multiprocessors_; }
  int64 max_shared(const Kernel& kernel) override;
  void with_current(const std::function<void()>& body) override;

 private:
  Result launch(const Launch& launch, void* function, void* stream);
  Result launch_dependent(const Launch& launch, void* function, void* stream);

  const int number_;
  const std::shared_ptr<Functions> functions_;
  const int multiprocessors_;
  // False after a refusal of the driver.
  std::atomic<bool> dependent_launches_;
};

// GPU number `number`, for callers without Python such as MXNet's engine.
Device& default_device(int number);
// Sets the functions that default_device() uses, or one device for all numbers. Both live until the
// end of the process, as the threads of an engine do.
void set_default(std::shared_ptr<Functions> functions);
void set_default(std::shared_ptr<Device> device);

}  // namespace cvops::cuda
