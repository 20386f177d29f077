#include "soft_nms.h"

#include "nms_rows.h"

namespace cvops::operators {
namespace {

struct SoftNmsRows : NmsRows {
  static constexpr const char* kName = "soft_nms";

  SoftNms op;
  int post_nms;

  explicit SoftNmsRows(Options& o)
      : NmsRows(o, 0.001, 0),
        op{o.number("overlap_thresh", 0.3), o.number("sigma", 0.5),
           o.choice("method", {"linear", "gaussian"}), options.rule.by_class, options.rule.center},
        post_nms(o.integer("post_nms", -1)) {
    if (!(op.sigma > 0)) o.refuse("sigma", "a positive number");
  }

  Shapes shapes(Inputs in) const { return with_indices(limited(in, post_nms)); }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    cvops::soft_nms(device, out[0].data<float>(), index(out), in[0].data<float>(), size.batch,
                    size.num, {options_for(size), op, (int)rows_of(size.num, post_nms)});
  }
};

Register<SoftNmsRows> registered;

}  // namespace
}  // namespace cvops::operators
