#include "box_iou.h"

#include "operator.h"

namespace cvops::external {
namespace {

struct BoxIou : Operator {
  static constexpr const char* kName = "box_iou";
  static const std::vector<const char*> kInputs;

  bool center;

  explicit BoxIou(Options& options) : center(options.choice("format", {"corner", "center"}) == 1) {}

  Shapes shapes(Inputs in) const {
    Shape out;
    for (int i = 0; i < 2; ++i) {
      if (in[i].size() < 2 || in[i].back() != 4) in.refuse(i, "shape (..., 4)");
      out.insert(out.end(), in[i].begin(), in[i].end() - 1);
    }
    return {out};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::box_iou(device, out[0].data<float>(), in[0].data<float>(), in[1].data<float>(),
                   in[0].size() / 4, in[1].size() / 4, center);
  }
};

const std::vector<const char*> BoxIou::kInputs = {"lhs", "rhs"};
Register<BoxIou> registered;

}  // namespace
}  // namespace cvops::external
