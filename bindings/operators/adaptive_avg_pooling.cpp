#include "adaptive_avg_pooling.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct AdaptiveAvgPooling : Operator {
  static constexpr const char* kName = "AdaptiveAvgPooling2D";
  static const std::vector<const char*> kInputs;

  std::vector<int> size;

  explicit AdaptiveAvgPooling(Options& options) : size(options.integers("output_size")) {
    if (size.empty()) size = {1};
    if (size.size() > 2 || *std::min_element(size.begin(), size.end()) < 1) {
      options.refuse("output_size", "one or two integers of at least 1");
    }
  }

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& s = in.expect(0, {"N", "C", "H", "W"});
    const double height = s[2], width = s[3], rows = size.front(), columns = size.back();
    if (height * width == 0 && s[0] > 0 && s[1] > 0) in.refuse(0, "one pixel or more");
    if (height * width >= 1 << 30) in.refuse(0, "less than 2**30 pixels");
    if (rows * columns >= 1 << 30 || height * rows >= 2147483648.0 ||
        width * columns >= 2147483648.0) {
      in.refuse(0, "less pixels for the output_size");
    }
    return {{s[0], s[1], size.front(), size.back()}};
  }

  static int64 planes(const Tensor& data) { return data.shape[0] * data.shape[1]; }
  AdaptivePooling op(const Tensor& data) const {
    return {(int)data.shape[2], (int)data.shape[3], size.front(), size.back()};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::adaptive_avg_pooling(device, out[0].data<float>(), in[0].data<float>(), planes(in[0]),
                                op(in[0]));
  }
  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    cvops::adaptive_avg_pooling_backward(device, out[0].data<float>(), in[0].data<float>(),
                                         planes(in[1]), op(in[1]));
  }
};

const std::vector<const char*> AdaptiveAvgPooling::kInputs = {"data"};
Register<AdaptiveAvgPooling> registered;

}  // namespace
}  // namespace cvops::operators
