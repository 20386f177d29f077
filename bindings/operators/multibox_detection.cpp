#include "multibox_detection.h"

#include "nms.h"
#include "operator.h"

namespace cvops::operators {
namespace {

struct MultiBoxDetection : Operator {
  static constexpr const char* kName = "MultiBoxDetection";
  static const std::vector<const char*> kInputs;

  DetectionOptions options;
  int topk;

  explicit MultiBoxDetection(Options& o) : topk(o.integer("nms_topk", -1)) {
    const float nms_threshold = o.number("nms_threshold", 0.5);
    const std::vector<float> v = o.numbers("variances", {0.1, 0.1, 0.2, 0.2}, 4);
    const bool by_class = !o.boolean("force_suppress", false);
    o.integer("background_id", 0);  // not used, as in MXNet: the background is class 0
    options = {o.boolean("clip", true),
               o.number("threshold", 0.01),
               {v[0], v[1], v[2], v[3]},
               {nms_threshold, true, by_class, false},
               nms_threshold > 0 && nms_threshold <= 1,
               0};
  }

  Shapes shapes(Inputs in) const {
    const Shape& prob = in.expect(0, {"B", "C", "A"});
    const int64 batch = prob[0], num = prob[2];
    if (num >= kMaxRows) in.refuse(0, "fewer than " + std::to_string(kMaxRows) + " anchors");
    in.expect(1, {"B", (int)(4 * num)});
    in.expect(2, {1, "A", 4});
    return {{batch, num, 6}};
  }

  static Predictions predictions(Tensors& in) {
    const auto& shape = in[0].shape;
    return {in[0].data<float>(),
            in[1].data<float>(),
            in[2].data<float>(),
            shape[0],
            shape[1],
            shape[2]};
  }

  DetectionOptions options_for(const Predictions& in) const {
    DetectionOptions own = options;
    own.topk = (int)(topk > 0 && topk < in.num ? topk : in.num);
    return own;
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Predictions p = predictions(in);
    cvops::multibox_detection(device, out[0].data<float>(), p, options_for(p));
  }
};

const std::vector<const char*> MultiBoxDetection::kInputs = {"cls_prob", "loc_pred", "anchor"};
Register<MultiBoxDetection> registered;

}  // namespace
}  // namespace cvops::operators
