#include "roi_pooling.h"

#include "operator.h"
#include "workspace.h"

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

  void forward(const Cpu&, Tensors& in, Tensors& out) const {
    cpu::roi_pooling(out[0].data<float>(), nullptr, in[0].data<float>(), in[1].data<float>(),
                     in[1].shape[0], op(in[0]));
  }

  // Where the largest values stand is found again: an output that holds it would be seen by the
  // graph's users, and be written in inference too.
  void backward(const Cpu& cpu, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2];
    const int64 num = out_grad.size();
    std::vector<float> pooled(num);
    std::vector<int> argmax(num);
    cpu::roi_pooling(pooled.data(), argmax.data(), data.data<float>(), rois.data<float>(),
                     rois.shape[0], op(data));
    cpu::roi_pooling_backward(out[0].data<float>(), out_grad.data<float>(), argmax.data(),
                              grad(data, rois));
    set_to_zero(cpu, out[1].data_ptr, bytes(out[1]));
  }

#ifdef CVOPS_CUDA
  void forward(const Gpu& gpu, Tensors& in, Tensors& out) const {
    cuda::roi_pooling(out[0].data<float>(), nullptr, in[0].data<float>(), in[1].data<float>(),
                      in[1].shape[0], op(in[0]), gpu.stream);
  }

  struct Scratch {
    float* pooled;
    int* argmax;
    Scratch(Workspace& workspace, int64 num)
        : pooled(workspace.take<float>(num)), argmax(workspace.take<int>(num)) {}
  };

  int64 backward_workspace(Tensors& in) const {
    Workspace workspace;
    Scratch(workspace, in[0].size());
    return workspace.size();
  }

  void backward(const Gpu& gpu, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2];
    Workspace workspace(gpu.workspace);
    Scratch scratch(workspace, out_grad.size());
    cuda::roi_pooling(scratch.pooled, scratch.argmax, data.data<float>(), rois.data<float>(),
                      rois.shape[0], op(data), gpu.stream);
    cuda::roi_pooling_backward(out[0].data<float>(), out_grad.data<float>(), scratch.argmax,
                               grad(data, rois), gpu.stream);
    set_to_zero(gpu, out[1].data_ptr, bytes(out[1]));
  }
#endif
};

const std::vector<const char*> RoiPoolingOp::kInputs = {"data", "rois"};
Register<RoiPoolingOp> registered;

}  // namespace
}  // namespace cvops::external
