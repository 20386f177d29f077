// Launches on a GPU through the Gpu class of the ops, for test_gpu_launch.py.
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "box_iou.cuh"
#include "device.h"

struct Pair {
  int first;
  float second[2];
};
CVOPS_KERNEL echo(float* out, const float* missing, int i, long long l, float f, Pair pair);

using namespace cvops;
using Find = void* (*)(const char* kernel, int device);

// Runs body(gpu) on GPU 0, several times, and writes the text of an exception into `error`, or an
// empty text.
template <typename Body>
static void run(Find find, char* error, const Body& body, int times = 1) {
  *error = 0;
  try {
    cuda::DriverDevice device(0, std::make_shared<cuda::Functions>(find));
    device.with_current([&] {
      Gpu gpu(device, nullptr, nullptr);
      for (int i = 0; i < times; ++i) gpu.run([&] { body(gpu); });
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

static void launch_one(Gpu& gpu, float* out, int threads = 32) {
  gpu.launch(KERNEL(box_iou), 1, threads, 0, out, out, out, 1, 1, false);
}

// Two calls of an op with launches, a fill and a copy.
extern "C" void launch_among_copies(Find find, char* error, float* out) {
  auto op = [&](Gpu& gpu) {
    for (int i = 0; i < 2; ++i) launch_one(gpu, out);
    gpu.set_to_zero(out, 4);
    for (int i = 0; i < 2; ++i) launch_one(gpu, out);
    gpu.copy(out, out + 1, 4);
    for (int i = 0; i < 2; ++i) launch_one(gpu, out);
  };
  run(find, error, op, 2);
}

// An op whose second launch has too many threads, and an op with two launches.
extern "C" void launch_with_error(Find find, char* error, float* out) {
  std::string refused;
  auto op = [&](Gpu& gpu) {
    launch_one(gpu, out);
    try {
      launch_one(gpu, out, refused.empty() ? 2048 : 32);
    } catch (const std::runtime_error& thrown) {
      refused = thrown.what();
    }
  };
  run(find, error, op, 2);
  std::strncpy(error, refused.c_str(), 200);
}
