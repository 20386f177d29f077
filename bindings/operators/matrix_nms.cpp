#include "matrix_nms.h"

#include "nms_rows.h"

namespace cvops::operators {
namespace {

struct MatrixNmsRows : NmsRows {
  static constexpr const char* kName = "matrix_nms";

  MatrixNms op;
  float post_thresh;
  int post_nms;

  explicit MatrixNmsRows(Options& o)
      : NmsRows(o, 0, 0),
        op{o.number("sigma", 2), o.choice("method", {"linear", "gaussian"}), options.rule.by_class,
           options.rule.center},
        post_thresh(o.number("post_thresh", 0, 0)),
        post_nms(o.integer("post_nms", -1)) {
    if (!(op.sigma > 0)) o.refuse("sigma", "a positive number");
  }

  Shapes shapes(Inputs in) const { return with_indices(limited(in, post_nms)); }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    cvops::matrix_nms(device, out[0].data<float>(), index(out), in[0].data<float>(), size.batch,
                      size.num,
                      {options_for(size), op, post_thresh, (int)rows_of(size.num, post_nms)});
  }
};

Register<MatrixNmsRows> registered;

}  // namespace
}  // namespace cvops::operators
