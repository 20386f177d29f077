#include "proposal.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::ProposalOptions>
    : cvops::FromTuple<cvops::ProposalOptions, int, int, bool, int, int> {};

void bind_proposal(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("proposal", [](Array<float> out, Array<float> scores, Array<const float> cls_prob,
                         Array<const float> bbox_pred, Array<const float> im_info,
                         HostArray<const float> scales, HostArray<const float> ratios, int batch,
                         int height, int width, ProposalOptions options, float threshold) {
    const int num_scales = (int)scales.size, num_ratios = (int)ratios.size;
    const ProposalInputs in = {cls_prob.data,           bbox_pred.data, im_info.data, batch,
                               num_scales * num_ratios, height,         width};
    const ProposalAnchors anchors =
        proposal_anchors(scales.data, num_scales, ratios.data, num_ratios, options.stride);
    return [=](auto& device) {
      proposal(device, out.data, scores.data, in, anchors, options, threshold);
    };
  });
}
