#include "rpn_target.h"

#include "sampling.h"

namespace cvops::operators {
namespace {

struct RpnTarget : Operator {
  static constexpr const char* kName = "rpn_target";
  static const std::vector<const char*> kInputs;
  static constexpr int kOutputs = 3;

  SampleOptions options;

  explicit RpnTarget(Options& o) {
    options.num = num_sample(o, 256);
    options.positive_iou = o.number("pos_iou_thresh", 0.7, 0, 1);
    options.negative_iou = o.number("neg_iou_thresh", 0.3, 0, 1);
    options.most_positive = most_positive(options.num, o.number("pos_ratio", 0.5, 0, 1));
    options.scale = {four_numbers(o, "means", {0, 0, 0, 0}), four_numbers(o, "stds", {1, 1, 1, 1})};
  }

  Shapes shapes(Inputs in) const {
    if (in[0].size() == 3) {
      in.expect(0, {1, "A", 4});
    } else {
      in.expect(0, {"A", 4});
    }
    if (in.expect(1, {"B", "M", "W"})[2] < 5) in.refuse(1, "rows of 5 or more");
    const Shape& noise = in.expect(2, {"B", "A"});
    if (noise[1] >= 1 << 30) in.refuse(0, "fewer than 2^30 anchors");
    const Shape boxes = {noise[0], noise[1], 4};
    return {noise, boxes, boxes};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto &label = in[1].shape, &noise = in[2].shape;
    cvops::rpn_target(device, {out[0].data<float>(), out[1].data<float>(), out[2].data<float>()},
                      {in[0].data<float>(), in[1].data<float>(), in[2].data<float>()},
                      {(int)noise[0], (int)noise[1], (int)label[1], (int)label[2]}, options);
  }
};

const std::vector<const char*> RpnTarget::kInputs = {"anchors", "labels", "noise"};
Register<RpnTarget> registered;

}  // namespace
}  // namespace cvops::operators
