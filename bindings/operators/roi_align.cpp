#include "roi_align.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct RoiAlignOp : Operator {
  static constexpr const char* kName = "ROIAlign";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;

  std::array<int, 2> pooled_size;
  float scale;
  int sample_ratio;
  bool position_sensitive, aligned;

  explicit RoiAlignOp(Options& options)
      : pooled_size(options.required("pooled_size").pair("pooled_size", 1, 1 << 30)),
        scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        sample_ratio(options.integer("sample_ratio", -1)),
        position_sensitive(options.boolean("position_sensitive", false)),
        aligned(options.boolean("aligned", false)) {
    if ((int64)pooled_size[0] * pooled_size[1] >= 1 << 30) {
      options.refuse("pooled_size", "less than 2^30 bins");
    }
    if (sample_ratio > 1024) options.refuse("sample_ratio", "an integer of at most 1024");
  }

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    const int64 bins = (pooled_size[0] * pooled_size[1]);
    if (position_sensitive && data[1] % bins != 0) {
      in.refuse(0, "a multiple of " + std::to_string(bins) + " channels, the number of bins");
    }
    const Shape& rois = in.expect(1, {"R", 5});
    const int64 channels = position_sensitive ? data[1] / bins : data[1];
    return {{rois[0], channels, pooled_size[0], pooled_size[1]}};
  }

  RoiAlign op(const Tensor& data) const {
    const auto& s = data.shape;
    const int step = position_sensitive ? pooled_size[0] * pooled_size[1] : 1;
    return {(int)s[0],          (int)s[1] / step, (int)s[2], (int)s[3],
            pooled_size[0],     pooled_size[1],   scale,     sample_ratio,
            position_sensitive, aligned};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::roi_align(device, out[0].data<T>(), in[0].data<T>(), in[1].data<T>(), in[1].shape[0],
                     op(in[0]));
  }

  template <typename T, typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2];
    cvops::roi_align_backward(device, out[0].data<T>(), out_grad.data<T>(), rois.data<T>(),
                              rois.shape[0], op(data));
    set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> RoiAlignOp::kInputs = {"data", "rois"};
Register<RoiAlignOp> registered;

}  // namespace
}  // namespace cvops::operators
