#include "proposal.h"

#include "nms.h"
#include "operator.h"

namespace cvops::operators {
namespace {

struct MultiProposal : Operator {
  static constexpr const char* kName = "MultiProposal";
  static const std::vector<const char*> kInputs;

  ProposalOptions options;
  float threshold;
  std::vector<float> scales, ratios;
  bool output_score;

  explicit MultiProposal(Options& o)
      : options{o.integer("feature_stride", 16), o.integer("rpn_min_size", 16),
                o.boolean("iou_loss", false), o.integer("rpn_pre_nms_top_n", 6000),
                o.integer("rpn_post_nms_top_n", 300)},
        threshold(o.number("threshold", 0.7)),
        scales(o.numbers("scales", {4, 8, 16, 32})),
        ratios(o.numbers("ratios", {0.5, 1, 2})),
        output_score(o.beyond_mxnet() || o.boolean("output_score", false)) {
    if (options.stride < 1) o.refuse("feature_stride", "a positive integer");
    if (options.rows < 1) o.refuse("rpn_post_nms_top_n", "a positive integer");
    if (scales.size() * ratios.size() > kProposalAnchors) {
      o.refuse("scales", "at most " + std::to_string(kProposalAnchors) + " anchors of a cell");
    }
  }

  int outputs() const { return output_score ? 2 : 1; }
  int anchors() const { return (int)(scales.size() * ratios.size()); }

  Shapes shapes(Inputs in) const {
    const Shape& prob = in.expect(0, {"B", 2 * anchors(), "H", "W"});
    in.expect(1, {"B", 4 * anchors(), "H", "W"});
    in.expect(2, {"B", 3});
    const double num = (double)anchors() * prob[2] * prob[3];
    if (num < 1 || num >= (double)kMaxRows) {
      in.refuse(0, "a cell or more, and fewer than " + std::to_string(kMaxRows) + " anchors");
    }
    if ((double)prob[0] * options.rows >= 2147483648.0) in.refuse(0, "fewer than 2^31 proposals");
    const int64 rows = prob[0] * options.rows;
    Shapes out = {{rows, 5}, {rows, 1}};
    out.resize(outputs());
    return out;
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& shape = in[0].shape;
    const ProposalInputs inputs = {in[0].data<float>(), in[1].data<float>(), in[2].data<float>(),
                                   (int)shape[0],       anchors(),           (int)shape[2],
                                   (int)shape[3]};
    ProposalOptions own = options;
    if (own.topk <= 0) own.topk = inputs.candidates();
    cvops::proposal(device, out[0].data<float>(), output_score ? out[1].data<float>() : nullptr,
                    inputs,
                    proposal_anchors(scales.data(), (int)scales.size(), ratios.data(),
                                     (int)ratios.size(), own.stride),
                    own, threshold);
  }
};

struct Proposal : MultiProposal {
  static constexpr const char* kName = "Proposal";
  using MultiProposal::MultiProposal;

  Shapes shapes(Inputs in) const {
    if (in.expect(0, {"B", 2 * anchors(), "H", "W"})[0] != 1) in.refuse(0, "one image");
    return MultiProposal::shapes(in);
  }
};

const std::vector<const char*> MultiProposal::kInputs = {"cls_prob", "bbox_pred", "im_info"};
Register<MultiProposal> registered_multi;
Register<Proposal> registered;

}  // namespace
}  // namespace cvops::operators
