#include <pybind11/stl.h>

#include "device.h"
#include "driver.h"
#include "ops.h"

namespace cvops {
namespace {

py::tuple sizes(Dim3 d) { return py::make_tuple(d.x, d.y, d.z); }

// Device that passes its launches to Python: to the emulator of the tests, or to a list.
class CallbackDevice : public Device {
 public:
  CallbackDevice(py::function launch, int multiprocessors, int64 max_shared, int64 scratch_gap,
                 py::object on_scratch)
      : launch_(std::move(launch)),
        on_scratch_(std::move(on_scratch)),
        multiprocessors_(multiprocessors),
        max_shared_(max_shared),
        scratch_gap_(scratch_gap) {}

  // Calls launch(kernel, grid, block, shared, arguments, pointers, stream). `arguments` has the
  // bytes of each argument; `pointers` is true for those that are pointers.
  void launch(const Launch& l, void* stream) override {
    py::gil_scoped_acquire acquire;
    py::list arguments, pointers;
    for (int i = 0; i < l.kernel.num_parameters; ++i) {
      const auto& parameter = l.kernel.parameters[i];
      arguments.append(py::bytes(static_cast<const char*>(l.arguments[i]), parameter.size));
      pointers.append(parameter.is_pointer);
    }
    launch_(l.kernel.name, sizes(l.grid), sizes(l.block), l.shared, arguments, pointers,
            reinterpret_cast<std::uintptr_t>(stream));
  }
  void copy(void* to, const void* from, int64 bytes, void*) override {
    __builtin_memcpy(to, from, (std::size_t)bytes);
  }
  void set_to_zero(void* memory, int64 bytes, void*) override {
    __builtin_memset(memory, 0, (std::size_t)bytes);
  }
  int multiprocessors() override { return multiprocessors_; }
  int64 max_shared(const Kernel&) override { return max_shared_; }
  int64 scratch_gap() override { return scratch_gap_; }
  void on_scratch(void* memory, int64 bytes) override {
    py::gil_scoped_acquire acquire;
    if (!on_scratch_.is_none()) on_scratch_(reinterpret_cast<std::uintptr_t>(memory), bytes);
  }

 private:
  py::function launch_;
  py::object on_scratch_;
  int multiprocessors_;
  int64 max_shared_, scratch_gap_;
};

// Another device, each of whose launches Python does: the benchmarks time them one by one. A launch
// begins after the end of the one before it.
class AroundDevice : public Device {
 public:
  AroundDevice(std::shared_ptr<Device> device, py::function around)
      : device_(std::move(device)), around_(std::move(around)) {}

  // Calls around(kernel, launch), which is to call launch().
  void launch(const Launch& l, void* stream) override {
    py::gil_scoped_acquire acquire;
    Launch alone = l;
    alone.dependent = false;
    around_(l.kernel.name, py::cpp_function([&] {
              py::gil_scoped_release release;
              device_->launch(alone, stream);
            }));
  }
  void copy(void* to, const void* from, int64 bytes, void* stream) override {
    device_->copy(to, from, bytes, stream);
  }
  void set_to_zero(void* memory, int64 bytes, void* stream) override {
    device_->set_to_zero(memory, bytes, stream);
  }
  int multiprocessors() override { return device_->multiprocessors(); }
  int64 max_shared(const Kernel& kernel) override { return device_->max_shared(kernel); }

 private:
  std::shared_ptr<Device> device_;
  py::function around_;
};

Gpu make_gpu(Device& device, std::uintptr_t stream, py::function allocate) {
  return Gpu(device, reinterpret_cast<void*>(stream), [allocate](int64 bytes) {
    py::gil_scoped_acquire acquire;
    return reinterpret_cast<void*>(py::cast<std::uintptr_t>(allocate(bytes)));
  });
}

std::shared_ptr<cuda::Functions> functions_of(py::function find) {
  return std::make_shared<cuda::Functions>([find](const char* kernel, int device) {
    py::gil_scoped_acquire acquire;
    return reinterpret_cast<void*>(py::cast<std::uintptr_t>(find(kernel, device)));
  });
}

std::shared_ptr<cuda::Functions> functions_of_modules(std::shared_ptr<cuda::Modules> modules) {
  return std::make_shared<cuda::Functions>(
      [modules](const char* kernel, int device) { return modules->find(kernel, device); });
}

}  // namespace
}  // namespace cvops

void bind_gpu(cvops::Ops& ops) {
  using namespace cvops;
  py::module_& m = ops.module;
  m.def("device_count", &cuda::device_count);
  // Returns the previous context, for set_context; None if nothing changed.
  m.def("enter_device", &cuda::enter_device);
  m.def("set_context", &cuda::set_context);
  m.def("synchronize", &cuda::synchronize, py::call_guard<py::gil_scoped_release>());
  m.def("device_attribute", &cuda::device_attribute);

  py::class_<cuda::Functions, std::shared_ptr<cuda::Functions>>(m, "Functions", py::module_local())
      .def(py::init(&functions_of), py::arg("find"))
      .def(py::init(&functions_of_modules), py::arg("modules"));
  py::class_<cuda::Modules, std::shared_ptr<cuda::Modules>>(m, "Modules", py::module_local())
      .def(py::init<>())
      .def("add", &cuda::Modules::add, py::arg("file"), py::arg("kernels"), py::arg("arch"));
  py::class_<Device, std::shared_ptr<Device>>(m, "Device", py::module_local());
  py::class_<cuda::DriverDevice, Device, std::shared_ptr<cuda::DriverDevice>>(m, "DriverDevice",
                                                                              py::module_local())
      .def(py::init<int, std::shared_ptr<cuda::Functions>>(), py::arg("number"),
           py::arg("functions"));
  py::class_<CallbackDevice, Device, std::shared_ptr<CallbackDevice>>(m, "CallbackDevice",
                                                                      py::module_local())
      .def(py::init<py::function, int, int64, int64, py::object>(), py::arg("launch"),
           py::arg("multiprocessors"), py::arg("max_shared"), py::arg("scratch_gap") = 0,
           py::arg("on_scratch") = py::none());
  py::class_<AroundDevice, Device, std::shared_ptr<AroundDevice>>(m, "AroundDevice",
                                                                  py::module_local())
      .def(py::init<std::shared_ptr<Device>, py::function>(), py::arg("device"), py::arg("around"));
  m.def("set_default_functions",
        [](std::shared_ptr<cuda::Functions> functions) { cuda::set_default(functions); });
  m.def("set_default_device",
        [](std::shared_ptr<Device> device) { cuda::set_default(std::move(device)); });

  ops.gpu
      .def(py::init(&make_gpu), py::arg("device"), py::arg("stream"), py::arg("allocate"),
           py::keep_alive<1, 2>())
      .def_property_readonly("scratch_bytes", &Gpu::scratch_bytes);
}
