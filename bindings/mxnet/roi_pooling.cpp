#include "roi_pooling.h"

#include "operator.h"

namespace cvops::external {
namespace {

struct RoiPoolingOp : Operator {
  static constexpr const char* kName = "ROIPooling";
  static const std::vector<const char*> kInputs;

  std::array<int, 2> pooled_size;
  float scale;

  explicit RoiPoolingOp(Options& options)
      : pooled_size(options.required("pooled_size").pair("pooled_size", 1, 1 << 30)),
        scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)) {
    if ((int64)pooled_size[0] * pooled_size[1] >= 1 << 30) {
      options.refuse("pooled_size", "less than 2^30 bins");
    }
  }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (unsigned axis : data) elements *= std::max(axis, 1u);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    const Shape& rois = in.expect(1, {"R", 5});
    return {{rois[0], data[1], (unsigned)pooled_size[0], (unsigned)pooled_size[1]}};
  }

  RoiPooling op(const mxnet::ext::MXTensor& data) const {
    const auto& s = data.shape;
    return {(int)s[0], (int)s[1], (int)s[2], (int)s[3], pooled_size[0], pooled_size[1], scale};
  }

  RoiPoolingGrad grad(const mxnet::ext::MXTensor& data, const mxnet::ext::MXTensor& rois) const {
    const RoiPooling o = op(data);
    return {rois.shape[0], o.pooled_height * o.pooled_width, o.images, o.channels,
            o.height * o.width};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::roi_pooling(device, out[0].data<float>(), nullptr, in[0].data<float>(),
                       in[1].data<float>(), in[1].shape[0], op(in[0]));
  }

  // The gradient needs the argmax. The forward pass computes it again: an output for it would be
  // visible in the graph, and inference would write it too.
  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2];
    const int64 num = out_grad.size();
    Scratch<Device> scratch(device);
    float* pooled = scratch.template take<float>(num);
    int* argmax = scratch.template take<int>(num);
    cvops::roi_pooling(device, pooled, argmax, data.data<float>(), rois.data<float>(),
                       rois.shape[0], op(data));
    cvops::roi_pooling_backward(device, out[0].data<float>(), out_grad.data<float>(), argmax,
                                grad(data, rois));
    set_to_zero(device, out[1].data_ptr, bytes(out[1]));
  }
};

const std::vector<const char*> RoiPoolingOp::kInputs = {"data", "rois"};
Register<RoiPoolingOp> registered;

}  // namespace
}  // namespace cvops::external
