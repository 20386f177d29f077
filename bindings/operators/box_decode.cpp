#include "box_decode.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct BoxDecodeOp : Operator {
  static constexpr const char* kName = "box_decode";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;

  BoxDecode op;

  explicit BoxDecodeOp(Options& options)
      : op{options.number("std0", 1),  options.number("std1", 1),
           options.number("std2", 1),  options.number("std3", 1),
           options.number("clip", -1), options.choice("format", {"center", "corner"})} {}

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"B", "N", 4});
    in.expect(1, {1, "N", 4});
    return {data};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::box_decode(device, out[0].data<T>(), in[0].data<T>(), in[1].data<T>(), in[0].shape[0],
                      in[0].shape[1], op);
  }
};

const std::vector<const char*> BoxDecodeOp::kInputs = {"data", "anchors"};
Register<BoxDecodeOp> registered;

}  // namespace
}  // namespace cvops::operators
