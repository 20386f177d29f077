#include "deformable_psroi_pooling.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

struct DeformablePsroiPoolingOp : Operator {
  static constexpr const char* kName = "DeformablePSROIPooling";
  static const std::vector<const char*> kInputs, kWithoutTrans;

  float scale;
  int output_dim, group_size, pooled_size, part_size, samples;
  float trans_std;
  bool no_trans;

  explicit DeformablePsroiPoolingOp(Options& options)
      : scale(options.required("spatial_scale").number("spatial_scale", 0, 0, 1)),
        output_dim(options.required("output_dim").integer("output_dim", 0)),
        group_size(options.required("group_size").integer("group_size", 0)),
        pooled_size(options.required("pooled_size").integer("pooled_size", 0)),
        part_size(options.integer("part_size", 0)),
        samples(options.integer("sample_per_part", 1)),
        trans_std(options.number("trans_std", 0, 0, 1)),
        no_trans(options.boolean("no_trans", false)) {
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
    if (group_size == 0) group_size = pooled_size;
    if (part_size == 0) part_size = pooled_size;
  }

  static std::vector<int> differentiable() { return {0, 2}; }

  const std::vector<const char*>* input_names() const {
    return no_trans ? &kWithoutTrans : &kInputs;
  }

  Shapes shapes(Inputs in) const {
    const Shape& data = in.expect(0, {"N", "C", "H", "W"});
    double elements = 1;
    for (int64 axis : data) elements *= (double)std::max<int64>(axis, 1);
    if (elements >= 2147483648.0) in.refuse(0, "less than 2^31 elements");
    if ((double)output_dim * group_size * group_size > data[1]) {
      in.refuse(0, "at least output_dim * group_size^2 channels");
    }
    const Shape& rois = in.expect(1, {"R", 5});
    if (!no_trans) {
      const Shape& trans = in.expect(2, {"R", "offsets", part_size, part_size});
      if (trans[1] < 2 || trans[1] % 2 || output_dim % (trans[1] / 2)) {
        in.refuse(2, "two offsets for each class, and classes that divide output_dim = " +
                         std::to_string(output_dim));
      }
    }
    const int64 pooled = pooled_size;
    return {{rois[0], output_dim, pooled, pooled}};
  }

  // `in` begins with data, rois and trans.
  DeformablePsroi op(const Tensor* in) const {
    const auto& s = in[0].shape;
    const Psroi psroi = {(int)s[0],  (int)s[1],   (int)s[2],  (int)s[3],
                         output_dim, pooled_size, group_size, scale};
    return {psroi, part_size, samples, trans_std, no_trans ? 1 : (int)in[2].shape[1] / 2};
  }

  float* trans(Tensors& tensors, int i) const {
    return no_trans ? nullptr : tensors[i].data<float>();
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::deformable_psroi_pooling(device, out[0].data<float>(), in[0].data<float>(),
                                    in[1].data<float>(), trans(in, 2), in[1].shape[0], op(&in[0]));
  }

  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    cvops::deformable_psroi_pooling_backward(
        device, out[0].data<float>(), trans(out, 2), in[0].data<float>(), in[1].data<float>(),
        in[2].data<float>(), trans(in, 3), in[2].shape[0], op(&in[1]));
    set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> DeformablePsroiPoolingOp::kInputs = {"data", "rois", "trans"};
const std::vector<const char*> DeformablePsroiPoolingOp::kWithoutTrans = {"data", "rois"};
Register<DeformablePsroiPoolingOp> registered;

}  // namespace
}  // namespace cvops::operators
