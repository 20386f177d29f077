#include "match_anchors.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct MatchAnchors : Operator {
  static constexpr const char* kName = "match_anchors";
  static const std::vector<const char*> kInputs;

  MatchOptions options;

  explicit MatchAnchors(Options& o) {
    options.high = o.number("high_threshold", 0.5, 0, 1);
    options.low = o.number_or_none("low_threshold").value_or(options.high);
    if (!(options.low >= 0 && options.low <= options.high)) {
      o.refuse("low_threshold", "a number from 0 to high_threshold");
    }
    options.allow_low_quality = o.boolean("allow_low_quality_matches", false);
    options.match_best = o.boolean("match_best_anchors", false);
  }

  static Dtype output_type(int) { return Dtype::int32; }

  Shapes shapes(Inputs in) const {
    const Shape &anchors = in[0], &boxes = in[1];
    if (boxes.size() < 2 || boxes.back() != 4) in.refuse(1, "shape (..., M, 4)");
    if (boxes[boxes.size() - 2] >= 1 << 30) in.refuse(1, "fewer than 2^30 boxes of an image");
    Shape out(boxes.begin(), boxes.end() - 2);
    const bool has_axes = anchors.size() >= 2 && anchors.back() == 4;
    const Shape leading(anchors.begin(), has_axes ? anchors.end() - 2 : anchors.end());
    if (!has_axes || !(leading.empty() || leading == Shape{1} || leading == out)) {
      in.refuse(0, "shape (A, 4), (1, A, 4) or (..., A, 4) with the leading axes of boxes");
    }
    out.push_back(anchors[anchors.size() - 2]);
    return {out};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const int64 size = out[0].size(), num = out[0].shape.back();
    if (size == 0) return;
    const int sets = (int)(in[0].size() / (4 * num)), truths = (int)*(in[1].shape.end() - 2);
    cvops::match_anchors(device, out[0].data<int>(), in[0].data<float>(), in[1].data<float>(),
                         {(int)(size / num), (int)num, truths, sets}, options);
  }
};

const std::vector<const char*> MatchAnchors::kInputs = {"anchors", "boxes"};
Register<MatchAnchors> registered;

}  // namespace
}  // namespace cvops::operators
