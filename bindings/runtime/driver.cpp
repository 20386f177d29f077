#include "driver.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <stdexcept>

namespace cvops::cuda {
namespace {

// Looks up the functions by name; null if there is no driver.
const Driver* load_driver() {
  static std::mutex mutex;
  static Driver functions;
  static bool found = false;
  const std::lock_guard lock(mutex);
  if (found) return &functions;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  auto look_up = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    return function != nullptr;
  };
  Driver& f = functions;
  found = look_up(f.init, "cuInit") && look_up(f.device_count, "cuDeviceGetCount") &&
          look_up(f.device_attribute, "cuDeviceGetAttribute") &&
          look_up(f.primary_context, "cuDevicePrimaryCtxRetain") &&
          look_up(f.current_context, "cuCtxGetCurrent") &&
          look_up(f.set_context, "cuCtxSetCurrent") && look_up(f.load_module, "cuModuleLoad") &&
          look_up(f.get_function, "cuModuleGetFunction") &&
          look_up(f.function_attribute, "cuFuncGetAttribute") &&
          look_up(f.set_function_attribute, "cuFuncSetAttribute") &&
          look_up(f.launch, "cuLaunchKernel") && look_up(f.copy, "cuMemcpyDtoDAsync_v2") &&
          look_up(f.fill, "cuMemsetD8Async") && look_up(f.synchronize, "cuStreamSynchronize") &&
          look_up(f.version, "cuDriverGetVersion") && look_up(f.error_text, "cuGetErrorString");
  look_up(f.launch_with_attributes, "cuLaunchKernelEx");
  return found ? &functions : nullptr;
}

// Null if no driver works; a later call can find one. No lock is held during calls of the driver:
// the driver of the tests needs Python's lock, which the caller may hold.
const Driver* find_driver() {
  static std::atomic<const Driver*> ready{nullptr};
  if (const Driver* found = ready.load(std::memory_order_acquire)) return found;
  const Driver* loaded = load_driver();
  if (!loaded || loaded->init(0) != 0) return nullptr;
  ready.store(loaded, std::memory_order_release);
  return loaded;
}

}  // namespace

const Driver& driver() {
  const Driver* found = find_driver();
  if (!found) throw std::runtime_error("there is no NVIDIA driver (libcuda.so.1) that works");
  return *found;
}

std::string text_of(Result result) {
  const char* text = nullptr;
  if (driver().error_text(result, &text) != 0 || !text) text = "unknown error";
  return std::to_string(result) + " (" + text + ")";
}

void check(Result result, const char* what) {
  if (result != 0) throw std::runtime_error(std::string(what) + ": " + text_of(result));
}

int device_count() {
  const Driver* found = find_driver();
  int count = 0;
  return found && found->device_count(&count) == 0 ? count : 0;
}

int device_attribute(int device, int attribute) {
  int value = 0;
  check(driver().device_attribute(&value, attribute, device), "cuDeviceGetAttribute");
  return value;
}

bool has_dependent_launches() {
  constexpr int kCuda12_3 = 12030;
  int version = 0;
  return driver().launch_with_attributes && driver().version(&version) == 0 && version >= kCuda12_3;
}

std::optional<std::uintptr_t> enter_device(int device) {
  static std::atomic<void*> contexts[kMaxDevices];  // retained until the process ends
  if (device < 0 || device >= kMaxDevices) {
    throw std::runtime_error("there is no GPU " + std::to_string(device));
  }
  void *context = contexts[device].load(std::memory_order_acquire), *before = nullptr;
  if (!context) {
    // Two threads can do this concurrently: the driver returns the same context to both.
    check(driver().primary_context(&context, device), "cuDevicePrimaryCtxRetain");
    contexts[device].store(context, std::memory_order_release);
  }
  check(driver().current_context(&before), "cuCtxGetCurrent");
  if (before == context) return {};
  check(driver().set_context(context), "cuCtxSetCurrent");
  return reinterpret_cast<std::uintptr_t>(before);
}

void set_context(std::uintptr_t context) {
  check(driver().set_context(reinterpret_cast<void*>(context)), "cuCtxSetCurrent");
}

void synchronize() { check(driver().synchronize(nullptr), "cuStreamSynchronize"); }

}  // namespace cvops::cuda
