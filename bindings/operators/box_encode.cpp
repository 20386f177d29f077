#include "box_encode.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct BoxEncode : Operator {
  static constexpr const char* kName = "box_encode";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;
  static constexpr int kOutputs = 2;

  explicit BoxEncode(Options&) {}

  Shapes shapes(Inputs in) const {
    in.expect(0, {"B", "N"});
    in.expect(1, {"B", "N"});
    const Shape& anchors = in.expect(2, {"B", "N", 4});
    in.expect(3, {"B", "M", 4});
    in.expect(4, {4});
    in.expect(5, {4});
    return {anchors, anchors};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const EncodeInputsOf<T> inputs = {in[0].data<T>(), in[1].data<T>(), in[2].data<T>(),
                                      in[3].data<T>(), in[4].data<T>(), in[5].data<T>()};
    cvops::box_encode(device, out[0].data<T>(), out[1].data<T>(), inputs, in[0].shape[0],
                      in[0].shape[1], in[3].shape[1]);
  }
};

const std::vector<const char*> BoxEncode::kInputs = {"samples", "matches", "anchors",
                                                     "refs",    "means",   "stds"};
Register<BoxEncode> registered;

}  // namespace
}  // namespace cvops::operators
