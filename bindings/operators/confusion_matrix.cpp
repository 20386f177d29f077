#include "confusion_matrix.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct ConfusionMatrix : Operator {
  static constexpr const char* kName = "confusion_matrix";
  static const std::vector<const char*> kInputs;
  static Dtype input_type(int) { return Dtype::int32; }
  static Dtype output_type(int) { return Dtype::int64; }

  int num_classes, ignore_label;

  explicit ConfusionMatrix(Options& options)
      : num_classes(options.required("num_classes").integer("num_classes", 0)),
        ignore_label(options.integer_or_none("ignore_label", -1)) {
    if (num_classes < 1 || num_classes > 46340) {
      options.refuse("num_classes", "an integer in [1, 46340]");
    }
  }

  Shapes shapes(Inputs in) const {
    if (in[0] != in[1]) in.refuse(1, "the shape " + text(in[0]) + " of prediction");
    return {{num_classes, num_classes}};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::confusion_matrix(device, (int64*)out[0].data_ptr, in[0].data<int>(), in[1].data<int>(),
                            in[0].size(), num_classes, ignore_label);
  }
};

const std::vector<const char*> ConfusionMatrix::kInputs = {"prediction", "label"};
Register<ConfusionMatrix> registered;

}  // namespace
}  // namespace cvops::operators
