#include "roi_pooling.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct RoiPoolingOp : Operator {
  static constexpr const char* kName = "ROIPooling";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;

  std::array<int, 2> pooled_size;
  float scale;
  bool with_argmax;

  explicit RoiPoolingOp(Options& options)
      : pooled_size(options.required("pooled_size").pair("pooled_size", 1, 1 << 30)),
        scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        with_argmax(options.beyond_mxnet()) {
    if ((int64)pooled_size[0] * pooled_size[1] >= 1 << 30) {
      options.refuse("pooled_size", "less than 2^30 bins");
    }
  }

  static Dtype output_type(int i) { return i == 0 ? Dtype::float32 : Dtype::int32; }
  int outputs() const { return with_argmax ? 2 : 1; }
  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    const Shape& rois = in.expect(1, {"R", 5});
    Shapes out(outputs(), {rois[0], data[1], pooled_size[0], pooled_size[1]});
    return out;
  }

  RoiPooling op(const Tensor& data) const {
    const auto& s = data.shape;
    return {(int)s[0], (int)s[1], (int)s[2], (int)s[3], pooled_size[0], pooled_size[1], scale};
  }

  RoiPoolingGrad grad(const Tensor& data, const Tensor& rois) const {
    const RoiPooling o = op(data);
    return {rois.shape[0], o.pooled_height * o.pooled_width, o.images, o.channels,
            o.height * o.width};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::roi_pooling(device, out[0].data<T>(), with_argmax ? out[1].data<int>() : nullptr,
                       in[0].data<T>(), in[1].data<T>(), in[1].shape[0], op(in[0]));
  }

  // The gradient needs the argmax. Without that output, the forward pass computes it again: in
  // MXNet's graphs the output would be visible, and inference would write it too.
  template <typename T, typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[outputs()], &rois = in[outputs() + 1];
    const int64 num = out_grad.size();
    Scratch<Device> scratch(device);
    int* argmax = with_argmax ? in[5].data<int>() : nullptr;
    if (!argmax) {
      T* pooled = scratch.template take<T>(num);
      argmax = scratch.template take<int>(num);
      cvops::roi_pooling(device, pooled, argmax, data.data<T>(), rois.data<T>(), rois.shape[0],
                         op(data));
    }
    cvops::roi_pooling_backward(device, out[0].data<T>(), out_grad.data<T>(), argmax,
                                grad(data, rois));
    set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> RoiPoolingOp::kInputs = {"data", "rois"};
Register<RoiPoolingOp> registered;

}  // namespace
}  // namespace cvops::operators
