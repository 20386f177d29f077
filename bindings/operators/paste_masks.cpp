#include "paste_masks.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct PasteMasks : Operator {
  static constexpr const char* kName = "paste_masks";
  static const std::vector<const char*> kInputs;

  static Dtype output_type(int) { return Dtype::uint8; }

  std::array<int, 2> size;
  float threshold;

  explicit PasteMasks(Options& o)
      : size(o.required("shape").pair("shape", 0, std::numeric_limits<int>::max())),
        threshold(o.number("threshold", 0.5)) {}

  Shapes shapes(Inputs in) const {
    const Shape& masks = in.expect(0, {"n", "h", "w"});
    in.expect(1, {"n", 4});
    return {{masks[0], size[0], size[1]}};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& masks = in[0].shape;
    cvops::paste_masks(device, out[0].data<unsigned char>(), in[0].data<float>(),
                       in[1].data<float>(),
                       {masks[0], (int)masks[1], (int)masks[2], size[0], size[1]}, threshold);
  }
};

const std::vector<const char*> PasteMasks::kInputs = {"masks", "boxes"};
Register<PasteMasks> registered;

}  // namespace
}  // namespace cvops::operators
