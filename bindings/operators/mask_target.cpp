#include "mask_target.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct MaskTarget : Operator {
  static constexpr const char* kName = "mrcnn_mask_target";
  static const std::vector<const char*> kInputs;
  static constexpr int kOutputs = 2;

  MaskTargetOptions options;
  int num_rois;  // -1 if it is not given

  explicit MaskTarget(Options& o) : num_rois(o.integer_or_none("num_rois", -1)) {
    options.classes = o.required("num_classes").integer("num_classes", 1);
    if (options.classes < 1) o.refuse("num_classes", "a positive integer");
    const std::array<int, 2> size = o.required("mask_size").pair("mask_size", 1, 1 << 30);
    options.pooled_height = size[0], options.pooled_width = size[1];
    if (options.bins() >= 1 << 30) o.refuse("mask_size", "less than 2^30 bins");
    options.sample_ratio = o.integer("sample_ratio", 2);
    if (options.sample_ratio > 1024) o.refuse("sample_ratio", "an integer of at most 1024");
    options.aligned = o.boolean("aligned", false);
  }

  Shapes shapes(Inputs in) const {
    const Shape& rois = in.expect(0, {"B", "N", 4});
    const Shape& masks = in.expect(1, {"B", "M", "H", "W"});
    in.expect(2, {"B", "N"});
    in.expect(3, {"B", "N"});
    if (num_rois != -1 && rois[1] != num_rois) {
      in.refuse(0, "num_rois = " + std::to_string(num_rois) + " rois in shape (B, N, 4)");
    }
    if (masks[2] * masks[3] >= 1ll << 31) in.refuse(1, "masks of less than 2^31 pixels");
    const Shape out = {rois[0], rois[1], options.classes, options.pooled_height,
                       options.pooled_width};
    return {out, out};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& masks = in[1].shape;
    cvops::mask_target(
        device, out[0].data<float>(), out[1].data<float>(),
        {in[0].data<float>(), in[1].data<float>(), in[2].data<float>(), in[3].data<float>()},
        {(int)masks[0], (int)in[0].shape[1], (int)masks[1], (int)masks[2], (int)masks[3]}, options);
  }
};

const std::vector<const char*> MaskTarget::kInputs = {"rois", "gt_masks", "matches", "cls_targets"};
Register<MaskTarget> registered;

}  // namespace
}  // namespace cvops::operators
