#include "weighted_boxes_fusion.h"

#include "nms_rows.h"

namespace cvops::operators {
namespace {

struct WeightedBoxesFusion : NmsRows {
  static constexpr const char* kName = "weighted_boxes_fusion";

  BoxFusion op;
  int post_nms;

  explicit WeightedBoxesFusion(Options& o)
      : NmsRows(o, 0, 0),
        op{o.number("overlap_thresh", 0.55, 0, 1), o.integer("num_models", 1),
           o.choice("score_type", {"avg", "max"}), options.rule.by_class, options.rule.center},
        post_nms(o.integer("post_nms", -1)) {
    if (op.num_models < 1) o.refuse("num_models", "a positive integer");
  }

  static Dtype output_type(int) { return Dtype::float32; }
  int outputs() const { return 1; }

  Shapes shapes(Inputs in) const { return {limited(in, post_nms)}; }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    cvops::weighted_boxes_fusion(device, out[0].data<float>(), in[0].data<float>(), size.batch,
                                 size.num,
                                 {options_for(size), op, (int)rows_of(size.num, post_nms)});
  }
};

Register<WeightedBoxesFusion> registered;

}  // namespace
}  // namespace cvops::operators
