#include "deformable_psroi_pooling.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct DeformablePsroiPoolingOp : Operator {
  static constexpr const char* kName = "DeformablePSROIPooling";
  static const std::vector<const char*> kInputs;

  float scale;
  int output_dim, group_size, pooled_size, part_size, samples;
  float trans_std;

  explicit DeformablePsroiPoolingOp(Options& options)
      : scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        output_dim(options.required("output_dim").integer("output_dim", 0)),
        group_size(options.required("group_size").integer("group_size", 0)),
        pooled_size(options.required("pooled_size").integer("pooled_size", 0)),
        part_size(options.integer("part_size", 0)),
        samples(options.integer("sample_per_part", 1)),
        trans_std(options.number("trans_std", 0, 0, 1)) {
    if (output_dim < 1) options.refuse("output_dim", "an integer of at least 1");
    if (group_size < 0) options.refuse("group_size", "an integer of at least 0");
    if (pooled_size < 1 || pooled_size >= 1 << 15) {
      options.refuse("pooled_size", "an integer in [1, 32767]");
    }
    if (part_size < 0 || part_size >= 1 << 15) {
      options.refuse("part_size", "an integer in [0, 32767]");
    }
    if (samples < 1 || samples > 1024) {
      options.refuse("sample_per_part", "an integer in [1, 1024]");
    }
    // An operator has a fixed number of inputs here.
    if (options.boolean("no_trans", false)) options.refuse("no_trans", "False");
    if (group_size == 0) group_size = pooled_size;
    if (part_size == 0) part_size = pooled_size;
  }

  static std::vector<int> differentiable() { return {0, 2}; }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    if ((double)output_dim * group_size * group_size > data[1]) {
      in.refuse(0, "at least output_dim * group_size^2 channels");
    }
    const Shape& rois = in.expect(1, {"R", 5});
    const Shape& trans = in.expect(2, {"R", "offsets", part_size, part_size});
    if (trans[1] < 2 || trans[1] % 2 || output_dim % (trans[1] / 2)) {
      in.refuse(2, "two offsets for each class, and classes that divide output_dim = " +
                       std::to_string(output_dim));
    }
    const int64 pooled = pooled_size;
    return {{rois[0], output_dim, pooled, pooled}};
  }

  DeformablePsroi op(const Tensor& data, const Tensor& trans) const {
    const auto& s = data.shape;
    const Psroi psroi = {(int)s[0],  (int)s[1],   (int)s[2],  (int)s[3],
                         output_dim, pooled_size, group_size, scale};
    return {psroi, part_size, samples, trans_std, (int)trans.shape[1] / 2};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    auto &data = in[0], &rois = in[1], &trans = in[2];
    cvops::deformable_psroi_pooling(device, out[0].data<float>(), data.data<float>(),
                                    rois.data<float>(), trans.data<float>(), rois.shape[0],
                                    op(data, trans));
  }

  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1], &rois = in[2], &trans = in[3];
    cvops::deformable_psroi_pooling_backward(device, out[0].data<float>(), out[2].data<float>(),
                                             out_grad.data<float>(), data.data<float>(),
                                             rois.data<float>(), trans.data<float>(), rois.shape[0],
                                             op(data, trans));
    set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> DeformablePsroiPoolingOp::kInputs = {"data", "rois", "trans"};
Register<DeformablePsroiPoolingOp> registered;

}  // namespace
}  // namespace cvops::operators
