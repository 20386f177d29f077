#include "rroi_align.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct RroiAlignOp : Operator {
  static constexpr const char* kName = "RROIAlign";
  static const std::vector<const char*> kInputs;

  std::array<int, 2> pooled_size;
  float scale;
  int sampling_ratio;

  explicit RroiAlignOp(Options& options)
      : pooled_size(options.required("pooled_size").pair("pooled_size", 1, 1 << 30)),
        scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        sampling_ratio(options.integer("sampling_ratio", -1)) {
    if ((int64)pooled_size[0] * pooled_size[1] >= 1 << 30) {
      options.refuse("pooled_size", "less than 2^30 bins");
    }
    if (sampling_ratio > 1024) options.refuse("sampling_ratio", "an integer of at most 1024");
  }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    const Shape& rois = in.expect(1, {"R", 6});
    return {{rois[0], data[1], pooled_size[0], pooled_size[1]}};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& s = in[0].shape;
    const RroiAlign op = {(int)s[0],      (int)s[1],      (int)s[2], (int)s[3],
                          pooled_size[0], pooled_size[1], scale,     sampling_ratio};
    cvops::rroi_align(device, out[0].data<float>(), in[0].data<float>(), in[1].data<float>(),
                      in[1].shape[0], op);
  }
};

const std::vector<const char*> RroiAlignOp::kInputs = {"data", "rois"};
Register<RroiAlignOp> registered;

}  // namespace
}  // namespace cvops::operators
