// Launches on a GPU through the Gpu class of the ops, for test_gpu_launch.py.
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

#include "box_iou.cuh"
#include "device.h"

struct Pair {
  int first;
  float second[2];
};
CVOPS_KERNEL echo(float* out, const float* missing, int i, long long l, float f, Pair pair);

using namespace cvops;
using Find = void* (*)(const char* kernel, int device);

// Runs body(gpu) on GPU 0, and writes the text of an exception into `error`, or an empty text.
template <typename Body>
static void run(Find find, char* error, const Body& body) {
  *error = 0;
  try {
    cuda::DriverDevice device(0, std::make_shared<cuda::Functions>(find));
    device.with_current([&] {
      Gpu gpu(device, nullptr, nullptr);
      gpu.run([&] { body(gpu); });
    });
  } catch (const std::exception& thrown) {
    std::strncpy(error, thrown.what(), 200);
  }
}

extern "C" void launch_echo(Find find, char* error, float* out) {
  run(find, error, [&](Gpu& gpu) {
    gpu.launch(KERNEL(echo), 1, 1, 0, out, nullptr, std::numeric_limits<int>::min(),
               (1ll << 40) + 1, 0.1f, Pair{7, {8, 9}});
  });
}

extern "C" void launch_box_iou(Find find, char* error, float* out, long long num, int threads) {
  run(find, error, [&](Gpu& gpu) {
    gpu.launch(KERNEL(box_iou), {1, 2}, threads, 16, out, out, out, num, 5, false);
  });
}
