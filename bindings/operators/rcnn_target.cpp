#include "rcnn_target.h"

#include "sampling.h"

namespace cvops::operators {
namespace {

struct RcnnTarget : Operator {
  static constexpr const char* kName = "rcnn_target";
  static const std::vector<const char*> kInputs;
  static constexpr int kOutputs = 5;

  SampleOptions options;

  explicit RcnnTarget(Options& o) {
    options.num = num_sample(o, 128);
    options.positive_iou = o.number("pos_iou_thresh", 0.5, 0, 1);
    options.negative_iou = 0;  // not used
    options.most_positive = most_positive(options.num, o.number("pos_ratio", 0.25, 0, 1));
    options.scale = {four_numbers(o, "means", {0, 0, 0, 0}),
                     four_numbers(o, "stds", {0.1, 0.1, 0.2, 0.2})};
  }

  Shapes shapes(Inputs in) const {
    const Shape& proposals = in.expect(0, {"B", "N", 4});
    const Shape& labels = in.expect(1, {"B", "M", "W"});
    if (labels[2] < 5) in.refuse(1, "rows of 5 or more");
    in.expect(2, {"B", "N + M"});
    const int64 num = proposals[1] + labels[1];
    if (in[2][1] != num) in.refuse(2, "shape (B, " + std::to_string(num) + ")");
    if (num > kMaxCandidates) in.refuse(0, "at most " + std::to_string(kMaxCandidates) + " boxes");
    const int64 batch = proposals[0], samples = options.num;
    const Shape boxes = {batch, samples, 4}, rows = {batch, samples};
    return {boxes, rows, rows, boxes, boxes};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto &proposals = in[0].shape, &labels = in[1].shape;
    cvops::rcnn_target(device,
                       {out[0].data<float>(), out[1].data<float>(), out[2].data<float>(),
                        out[3].data<float>(), out[4].data<float>()},
                       {in[0].data<float>(), in[1].data<float>(), in[2].data<float>()},
                       {(int)proposals[0], (int)proposals[1], (int)labels[1], (int)labels[2]},
                       options);
  }
};

const std::vector<const char*> RcnnTarget::kInputs = {"proposals", "labels", "noise"};
Register<RcnnTarget> registered;

}  // namespace
}  // namespace cvops::operators
