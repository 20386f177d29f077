#include "device.h"

#include <algorithm>
#include <stdexcept>

#include "driver.h"

namespace cvops {

static std::atomic<int> num_kernels{0};

Kernel::Kernel(const char* name, const Parameter* parameters, int num_parameters)
    : name(name), parameters(parameters), num_parameters(num_parameters), number(num_kernels++) {}

std::string text_of(const Launch& launch) {
  auto text = [](Dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  return std::string(launch.kernel.name) + "<<<" + text(launch.grid) + ", " + text(launch.block) +
         ", " + std::to_string(launch.shared) + ">>>";
}

namespace cuda {
namespace {

// A kernel may have this much shared memory without asking.
constexpr int64 kSharedByDefault = 48 << 10;

unsigned long long address(const void* memory) {
  return reinterpret_cast<unsigned long long>(memory);
}

}  // namespace

Functions::~Functions() {
  for (auto& slot : rows_) {
    Row* row = slot.load();
    if (!row) continue;
    for (auto& function : row->of) delete function.load();
    delete row;
  }
}

const Functions::Function& Functions::get(const Kernel& kernel, int device) {
  if (device < kMaxDevices && kernel.number < kMaxKernels) {
    if (Row* row = rows_[device].load(std::memory_order_acquire)) {
      if (auto* found = row->of[kernel.number].load(std::memory_order_acquire)) return *found;
    }
  }
  return look_up(kernel, device);
}

const Functions::Function& Functions::look_up(const Kernel& kernel, int device) {
  if (device >= kMaxDevices || kernel.number >= kMaxKernels) {
    throw std::runtime_error("too many devices or kernels");
  }
  // Outside of the lock: what finds a function may wait for another thread.
  void* handle = find_(kernel.name, device);
  int used = 0;
  check(driver().function_attribute(&used, kStaticShared, handle), "cuFuncGetAttribute");
  const int64 dynamic = device_attribute(device, kSharedOptin) - used;
  // The limit does not depend on a launch, so that concurrent launches agree on it.
  if (dynamic > kSharedByDefault) {
    check(driver().set_function_attribute(handle, kMaxDynamicShared, (int)dynamic),
          "cuFuncSetAttribute");
  }
  const std::lock_guard lock(mutex_);
  Row* row = rows_[device].load();
  if (!row) {
    row = new Row;
    rows_[device].store(row, std::memory_order_release);
  }
  auto& slot = row->of[kernel.number];
  if (!slot.load()) slot.store(new Function{handle, dynamic}, std::memory_order_release);
  return *slot.load();
}

void Modules::add(const std::string& file, const std::vector<std::string>& kernels, int arch) {
  const std::lock_guard lock(mutex_);
  for (const auto& kernel : kernels) files_[kernel].emplace_back(arch, file);
}

void* Modules::find(const char* kernel, int device) {
  const int arch = 10 * device_attribute(device, kMajor) + device_attribute(device, kMinor);
  const std::lock_guard lock(mutex_);
  for (const auto& [built_for, file] : files_[kernel]) {
    if (built_for != 0 && built_for != arch) continue;
    auto found = std::find_if(loaded_.begin(), loaded_.end(), [&, &file = file](const Loaded& x) {
      return x.device == device && x.file == file;
    });
    if (found == loaded_.end()) {
      void* module = nullptr;
      const Result result = driver().load_module(&module, file.c_str());
      if (result != 0) {
        throw std::runtime_error("cannot load " + file + ": " + text_of(result) +
                                 ". Kernels cannot be loaded during graph capture: call the op "
                                 "once before capturing");
      }
      found = loaded_.insert(loaded_.end(), {file, device, module});
    }
    void* function = nullptr;
    check(driver().get_function(&function, found->module, kernel), kernel);
    return function;
  }
  throw std::runtime_error(std::string(kernel) + ": there is no machine code for sm_" +
                           std::to_string(arch) +
                           ": run 'cvops warmup' on this machine, and begin again");
}

DriverDevice::DriverDevice(int number, std::shared_ptr<Functions> functions)
    : number_(number),
      functions_(std::move(functions)),
      multiprocessors_(device_attribute(number, kMultiprocessors)) {}

void DriverDevice::launch(const Launch& l, void* stream) {
  const Result result = driver().launch(functions_->get(l.kernel, number_).handle, l.grid.x,
                                        l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z,
                                        (unsigned)l.shared, stream, l.arguments, nullptr);
  if (result != 0) throw std::runtime_error(text_of(l) + ": " + text_of(result));
}

void DriverDevice::copy(void* to, const void* from, int64 bytes, void* stream) {
  check(driver().copy(address(to), address(from), (std::size_t)bytes, stream), "cuMemcpyDtoDAsync");
}

void DriverDevice::set_to_zero(void* memory, int64 bytes, void* stream) {
  check(driver().fill(address(memory), 0, (std::size_t)bytes, stream), "cuMemsetD8Async");
}

int64 DriverDevice::max_shared(const Kernel& kernel) {
  return functions_->get(kernel, number_).max_dynamic;
}

void DriverDevice::with_current(const std::function<void()>& body) {
  const auto before = enter_device(number_);
  struct Restore {
    std::optional<std::uintptr_t> context;
    ~Restore() {
      if (context) driver().set_context(reinterpret_cast<void*>(*context));
    }
  } restore{before};
  body();
}

namespace {

std::mutex defaults_mutex;
std::shared_ptr<Functions> default_functions;
Device* the_default = nullptr;
std::unordered_map<int, std::unique_ptr<DriverDevice>> default_devices;

}  // namespace

Device& default_device(int number) {
  const std::lock_guard lock(defaults_mutex);
  if (the_default) return *the_default;
  if (!default_functions) throw std::runtime_error("no kernels are loaded for GPUs");
  auto& device = default_devices[number];
  if (!device) device = std::make_unique<DriverDevice>(number, default_functions);
  return *device;
}

void set_default(std::shared_ptr<Functions> functions) {
  const std::lock_guard lock(defaults_mutex);
  if (functions == default_functions) return;
  default_functions = std::move(functions);
  for (auto& [number, device] : default_devices) device.release();  // an engine may still use it
  default_devices.clear();
}

void set_default(Device* device) {
  const std::lock_guard lock(defaults_mutex);
  the_default = device;
}

}  // namespace cuda
}  // namespace cvops
