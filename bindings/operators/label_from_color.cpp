#include "label_from_color.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct LabelFromColor : Operator {
  static constexpr const char* kName = "label_from_color";
  static const std::vector<const char*> kInputs;
  static Dtype input_type(int) { return Dtype::uint8; }
  static Dtype output_type(int) { return Dtype::int32; }

  int unknown;

  explicit LabelFromColor(Options& options) : unknown(options.integer("unknown", 0)) {}

  Shapes shapes(Inputs in) const {
    const Shape &image = in[0], &colormap = in.expect(1, {"K", 3});
    if (image.size() < 2 || image.back() != 3) in.refuse(0, "shape (..., W, 3)");
    if (colormap[0] < 1 || colormap[0] > 65535) in.refuse(1, "1 to 65535 colors");
    return {{image.begin(), image.end() - 1}};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::label_from_color(device, out[0].data<int>(), in[0].data<unsigned char>(),
                            in[1].data<unsigned char>(), out[0].size(), (int)in[1].shape[0],
                            unknown);
  }
};

const std::vector<const char*> LabelFromColor::kInputs = {"image", "colormap"};
Register<LabelFromColor> registered;

}  // namespace
}  // namespace cvops::operators
