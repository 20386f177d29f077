#include "device.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

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

// Dynamic shared memory of a kernel that needs no attribute, in bytes.
constexpr int64 kSharedByDefault = 48 << 10;
// Kernels wait from this architecture on, also if the driver compiles their PTX: see common.cuh.
constexpr int kWaitingPtx = 90;

bool allows_dependent_launches() {
  const char* wanted = std::getenv("CVOPS_DEPENDENT_LAUNCHES");
  return !(wanted && std::string_view(wanted) == "0") && has_dependent_launches();
}

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
  // Outside the lock: find_ may wait for another thread.
  void* handle = find_(kernel.name, device);
  int used = 0;
  check(driver().function_attribute(&used, kStaticShared, handle), "cuFuncGetAttribute");
  const int64 dynamic = device_attribute(device, kSharedOptin) - used;
  // The limit does not depend on the launch, so that concurrent launches agree on it.
  if (dynamic > kSharedByDefault) {
    check(driver().set_function_attribute(handle, kMaxDynamicShared, (int)dynamic),
          "cuFuncSetAttribute");
  }
  int ptx = 0;
  if (driver().function_attribute(&ptx, kPtxVersion, handle) != 0) ptx = 0;
  const std::lock_guard lock(mutex_);
  Row* row = rows_[device].load();
  if (!row) {
    row = new Row;
    rows_[device].store(row, std::memory_order_release);
  }
  auto& slot = row->of[kernel.number];
  if (!slot.load()) {
    slot.store(new Function{handle, dynamic, ptx >= kWaitingPtx}, std::memory_order_release);
  }
  return *slot.load();
}

void Modules::add(const std::string& file, const std::vector<std::string>& kernels, int arch) {
  const std::lock_guard lock(mutex_);
  for (const auto& kernel : kernels) files_[kernel].emplace_back(arch, file);
}

void* Modules::find(const char* kernel, int device) {
  const int arch = 10 * device_attribute(device, kMajor) + device_attribute(device, kMinor);
  std::string file;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [built_for, name] : files_[kernel]) {
      if (file.empty() && (built_for == 0 || built_for == arch)) file = name;
    }
  }
  if (file.empty()) {
    throw std::runtime_error(std::string(kernel) + ": there is no machine code for sm_" +
                             std::to_string(arch) +
                             ": run 'cvops warmup' on this machine, and begin again");
  }
  void* function = nullptr;
  check(driver().get_function(&function, load(file, device), kernel), kernel);
  return function;
}

void* Modules::load(const std::string& file, int device) {
  // Null if the file is not loaded for the device.
  auto find_module = [&]() -> void* {
    for (const Loaded& x : loaded_) {
      if (x.device == device && x.file == file) return x.module;
    }
    return nullptr;
  };
  {
    const std::lock_guard lock(mutex_);
    if (void* module = find_module()) return module;
  }
  void* module = nullptr;
  const Result result = driver().load_module(&module, file.c_str());
  if (result != 0) {
    throw std::runtime_error("cannot load " + file + ": " + text_of(result) +
                             ". Kernels cannot be loaded during graph capture: call the op once "
                             "before capturing");
  }
  const std::lock_guard lock(mutex_);
  // Another thread can load the module at the same time. Both modules stay loaded, and the
  // functions of both work.
  if (!find_module()) loaded_.push_back({file, device, module});
  return find_module();
}

DriverDevice::DriverDevice(int number, std::shared_ptr<Functions> functions)
    : number_(number),
      functions_(std::move(functions)),
      multiprocessors_(device_attribute(number, kMultiprocessors)),
      dependent_launches_(allows_dependent_launches()) {}

void DriverDevice::launch(const Launch& l, void* stream) {
  const Functions::Function& function = functions_->get(l.kernel, number_);
  const bool dependent =
      l.dependent && function.waits && dependent_launches_.load(std::memory_order_relaxed);
  if (dependent && launch_dependent(l, function.handle, stream) == 0) return;
  const Result result = launch(l, function.handle, stream);
  if (result != 0) throw std::runtime_error(text_of(l) + ": " + text_of(result));
  // Only the attribute was refused.
  if (dependent) dependent_launches_.store(false, std::memory_order_relaxed);
}

Result DriverDevice::launch(const Launch& l, void* function, void* stream) {
  return driver().launch(function, l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z,
                         (unsigned)l.shared, stream, l.arguments, nullptr);
}

Result DriverDevice::launch_dependent(const Launch& l, void* function, void* stream) {
  const LaunchAttribute attribute = {LaunchAttribute::kProgrammaticStreamSerialization, 1, {}};
  const LaunchConfig config = {{l.grid.x, l.grid.y, l.grid.z},
                               {l.block.x, l.block.y, l.block.z},
                               (unsigned)l.shared,
                               stream,
                               &attribute,
                               1};
  return driver().launch_with_attributes(&config, function, l.arguments, nullptr);
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

// Never destroyed: at the end of the process, an engine can still run after Python's end.
struct Defaults {
  std::mutex mutex;
  std::shared_ptr<Functions> functions;
  std::shared_ptr<Device> device;
  std::unordered_map<int, DriverDevice*> devices;
};

Defaults& defaults() {
  static auto* const defaults = new Defaults;
  return *defaults;
}

}  // namespace

Device& default_device(int number) {
  Defaults& d = defaults();
  std::shared_ptr<Functions> functions;
  {
    const std::lock_guard lock(d.mutex);
    if (d.device) return *d.device;
    if (!d.functions) throw std::runtime_error("no kernels are loaded for GPUs");
    if (auto found = d.devices.find(number); found != d.devices.end()) return *found->second;
    functions = d.functions;
  }
  auto made = std::make_unique<DriverDevice>(number, functions);  // asks the driver
  const std::lock_guard lock(d.mutex);
  const auto [place, is_new] = d.devices.try_emplace(number, made.get());
  if (is_new) made.release();
  return *place->second;
}

void set_default(std::shared_ptr<Functions> functions) {
  Defaults& d = defaults();
  const std::lock_guard lock(d.mutex);
  if (functions == d.functions) return;
  // Existing devices keep their functions, because an engine may still use them.
  d.functions = std::move(functions);
  d.devices.clear();
}

void set_default(std::shared_ptr<Device> device) {
  Defaults& d = defaults();
  const std::lock_guard lock(d.mutex);
  static auto* const before = new std::vector<std::shared_ptr<Device>>;
  if (d.device) before->push_back(d.device);
  d.device = std::move(device);
}

}  // namespace cuda
}  // namespace cvops
