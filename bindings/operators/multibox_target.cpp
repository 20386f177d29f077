#include "multibox_target.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct MultiBoxTarget : Operator {
  static constexpr const char* kName = "MultiBoxTarget";
  static const std::vector<const char*> kInputs;
  static constexpr int kOutputs = 3;

  TargetOptions options;

  explicit MultiBoxTarget(Options& o) {
    const std::vector<float> variances = o.numbers("variances", {0.1, 0.1, 0.2, 0.2}, 4);
    options = {o.number("overlap_threshold", 0.5),
               o.number("ignore_label", -1),
               o.number("negative_mining_ratio", -1),
               o.number("negative_mining_thresh", 0.5),
               variances[0],
               variances[1],
               variances[2],
               variances[3]};
    o.integer("minimum_negative_samples", 0);  // not used, as in MXNet on the CPU
    if (options.mining_ratio > 0 && !(options.mining_threshold > 0)) {
      o.refuse("negative_mining_thresh", "a positive number");
    }
  }

  Shapes shapes(Inputs in) const {
    in.expect(0, {1, "A", 4});
    if (in.expect(1, {"B", "G", "W"})[2] < 5) in.refuse(1, "rows of 5 or more");
    const Shape& predicted = in.expect(2, {"B", "C", "A"});
    const int64 batch = predicted[0], num = predicted[2];
    if (num == 0 || num >= 1 << 30) in.refuse(0, "from 1 to 2^30 - 1 anchors");
    if (predicted[1] == 0) in.refuse(2, "one class or more");
    return {{batch, 4 * num}, {batch, 4 * num}, {batch, num}};
  }

  static TargetShape shape(const Tensors& in) {
    const auto &label = in[1].shape, &predicted = in[2].shape;
    return {(int)label[0], (int)predicted[2], (int)label[1], (int)label[2], (int)predicted[1]};
  }

  static TargetInputs inputs(Tensors& in) {
    return {in[0].data<float>(), in[1].data<float>(), in[2].data<float>()};
  }

  static TargetOutputs outputs(Tensors& out) {
    return {out[0].data<float>(), out[1].data<float>(), out[2].data<float>()};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::multibox_target(device, outputs(out), inputs(in), shape(in), options);
  }
};

const std::vector<const char*> MultiBoxTarget::kInputs = {"anchor", "label", "cls_pred"};
Register<MultiBoxTarget> registered;

}  // namespace
}  // namespace cvops::operators
