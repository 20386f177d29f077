#include "box_iou_rotated.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct BoxIouRotated : Operator {
  static constexpr const char* kName = "box_iou_rotated";
  static const std::vector<const char*> kInputs;

  RotatedFormat format;

  explicit BoxIouRotated(Options& o)
      : format{o.choice("angle", {"degrees", "radians"}) == 1, o.boolean("clockwise", false)} {}

  Shapes shapes(Inputs in) const {
    Shape out;
    for (int i = 0; i < 2; ++i) {
      if (in[i].size() < 2 || in[i].back() != kRotatedNumbers) in.refuse(i, "shape (..., 5)");
      out.insert(out.end(), in[i].begin(), in[i].end() - 1);
    }
    return {out};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::box_iou_rotated(device, out[0].data<float>(), in[0].data<float>(), in[1].data<float>(),
                           in[0].size() / kRotatedNumbers, in[1].size() / kRotatedNumbers, format);
  }
};

const std::vector<const char*> BoxIouRotated::kInputs = {"lhs", "rhs"};
Register<BoxIouRotated> registered;

}  // namespace
}  // namespace cvops::operators
