#include "nms_rows.h"

namespace cvops::external {
namespace {

struct BoxNms : NmsRows {
  static constexpr const char* kName = "box_nms";

  explicit BoxNms(Options& o) : NmsRows(o, 0, -std::numeric_limits<double>::infinity()) {
    const int out_format = o.choice("out_format", {"corner", "center"});
    options.rule.threshold = o.number("overlap_thresh", 0.5);
    options.conversion = options.rule.center == out_format ? kNmsAsIs
                         : out_format == 1                 ? kNmsToCenter
                                                           : kNmsToCorner;
  }

  Shapes shapes(Inputs in) const { return {check(in)}; }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    cvops::box_nms(device, out[0].data<float>(), nullptr, in[0].data<float>(), size.batch, size.num,
                   options_for(size));
  }

  // The gradient needs the indices of the kept rows. The forward pass computes them again: see
  // ROIPooling.
  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1];
    const Sizes size = sizes(data);
    Scratch<Device> scratch(device);
    float* kept = scratch.template take<float>(data.size());
    int* index = scratch.template take<int>(size.batch * size.num);
    cvops::box_nms(device, kept, index, data.data<float>(), size.batch, size.num,
                   options_for(size));
    cvops::box_nms_backward(device, out[0].data<float>(), out_grad.data<float>(), index, size.batch,
                            size.num, size.width);
  }
};

Register<BoxNms> registered;

}  // namespace
}  // namespace cvops::external
