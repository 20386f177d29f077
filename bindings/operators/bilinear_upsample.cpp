#include "bilinear_upsample.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct BilinearUpsample : Operator {
  static constexpr const char* kName = "bilinear_upsample";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;

  int scale;

  explicit BilinearUpsample(Options& options)
      : scale(options.required("scale").integer("scale", 0)) {
    if (scale < 1 || scale > 1024) options.refuse("scale", "an integer in [1, 1024]");
  }

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& s = in.expect(0, {"N", "C", "H", "W"});
    const double elements =
        (double)std::max<int64>(s[2], 1) * (double)std::max<int64>(s[3], 1) * scale * scale;
    if (elements >= 1 << 30) {
      in.refuse(0, "maps that have less than 2**30 elements when enlarged " +
                       std::to_string(scale) + " times");
    }
    return {{s[0], s[1], s[2] * scale, s[3] * scale}};
  }

  static int64 planes(const Tensor& data) { return data.shape[0] * data.shape[1]; }
  static int height(const Tensor& data) { return (int)data.shape[2]; }
  static int width(const Tensor& data) { return (int)data.shape[3]; }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::bilinear_upsample(device, out[0].data<T>(), in[0].data<T>(), planes(in[0]),
                             height(in[0]), width(in[0]), scale);
  }
  template <typename T, typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    cvops::bilinear_upsample_backward(device, out[0].data<T>(), in[0].data<T>(), planes(in[1]),
                                      height(in[1]), width(in[1]), scale);
  }
};

const std::vector<const char*> BilinearUpsample::kInputs = {"data"};
Register<BilinearUpsample> registered;

}  // namespace
}  // namespace cvops::operators
