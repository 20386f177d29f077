#include "psroi_pooling.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct PsroiPoolingOp : Operator {
  static constexpr const char* kName = "PSROIPooling";
  static const std::vector<const char*> kInputs;

  float scale;
  int output_dim, pooled_size, group_size;

  explicit PsroiPoolingOp(Options& options)
      : scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        output_dim(options.required("output_dim").integer("output_dim", 0)),
        pooled_size(options.required("pooled_size").integer("pooled_size", 0)),
        group_size(options.integer("group_size", 0)) {
    if (output_dim < 1) options.refuse("output_dim", "an integer of at least 1");
    if (pooled_size < 1 || pooled_size >= 1 << 15) {
      options.refuse("pooled_size", "an integer in [1, 32767]");
    }
    if (group_size < 0) options.refuse("group_size", "an integer of at least 0");
    if (group_size == 0) group_size = pooled_size;
  }

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    if ((double)output_dim * group_size * group_size > data[1]) {
      in.refuse(0, "at least output_dim * group_size^2 channels");
    }
    const Shape& rois = in.expect(1, {"R", 5});
    const int64 pooled = pooled_size;
    return {{rois[0], output_dim, pooled, pooled}};
  }

  Psroi op(const Tensor& data) const {
    const auto& s = data.shape;
    return {(int)s[0], (int)s[1], (int)s[2], (int)s[3], output_dim, pooled_size, group_size, scale};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::psroi_pooling(device, out[0].data<float>(), in[0].data<float>(), in[1].data<float>(),
                         in[1].shape[0], op(in[0]));
  }

  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2];
    cvops::psroi_pooling_backward(device, out[0].data<float>(), out_grad.data<float>(),
                                  rois.data<float>(), rois.shape[0], op(data));
    set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> PsroiPoolingOp::kInputs = {"data", "rois"};
Register<PsroiPoolingOp> registered;

}  // namespace
}  // namespace cvops::operators
