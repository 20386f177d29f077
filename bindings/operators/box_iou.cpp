#include "box_iou.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct BoxIou : Operator {
  static constexpr const char* kName = "box_iou";
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;

  bool center;
  IouKind kind;
  bool differentiates_iou;

  explicit BoxIou(Options& options)
      : center(options.choice("format", {"corner", "center"}) == 1),
        kind((IouKind)options.choice("kind", {"iou", "giou", "diou", "ciou"})),
        differentiates_iou(options.beyond_mxnet()) {}

  static std::vector<int> differentiable() { return {0, 1}; }
  bool has_gradient() const { return kind != IouKind::iou || differentiates_iou; }

  Shapes shapes(Inputs in) const {
    Shape out;
    for (int i = 0; i < 2; ++i) {
      if (in[i].size() < 2 || in[i].back() != 4) in.refuse(i, "shape (..., 4)");
      out.insert(out.end(), in[i].begin(), in[i].end() - 1);
    }
    return {out};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const int64 num_lhs = in[0].size() / 4, num_rhs = in[1].size() / 4;
    T *const result = out[0].data<T>(), *const lhs = in[0].data<T>(), *const rhs = in[1].data<T>();
    if (kind == IouKind::iou) {
      cvops::box_iou(device, result, lhs, rhs, num_lhs, num_rhs, center);
    } else {
      box_iou_kind(device, result, lhs, rhs, num_lhs, num_rhs, center, kind);
    }
  }

  // MXNet has a gradient of the kind iou, which is zero.
  template <typename T, typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    if (!has_gradient()) return Operator::backward(device, in, out);
    box_iou_backward(device, out[0].data<T>(), out[1].data<T>(), in[0].data<T>(), in[1].data<T>(),
                     in[2].data<T>(), in[1].size() / 4, in[2].size() / 4, center, kind);
  }
};

const std::vector<const char*> BoxIou::kInputs = {"lhs", "rhs"};
Register<BoxIou> registered;

}  // namespace
}  // namespace cvops::operators
