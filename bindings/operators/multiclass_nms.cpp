#include "multiclass_nms.h"

#include <algorithm>

#include "nms.h"
#include "operator.h"

namespace cvops::operators {
namespace {

struct MulticlassNms : Operator {
  static constexpr const char* kName = "multiclass_nms";
  static constexpr int kOutputs = 2;
  static const std::vector<const char*> kInputs;
  static constexpr bool kAnyFloat = true;
  static Dtype output_type(int i) { return i == 0 ? Dtype::float32 : Dtype::int32; }

  float valid_thresh;
  NmsRule rule;
  int topk, post_nms, background_id;

  explicit MulticlassNms(Options& o)
      : valid_thresh(o.number("valid_thresh", 0.01)),
        rule{o.number("overlap_thresh", 0.5), false, !o.boolean("force_suppress", false),
             o.choice("in_format", {"corner", "center"}) == 1},
        topk(o.integer("topk", 1000)),
        post_nms(o.integer("post_nms", -1)),
        background_id(o.integer("background_id", -1)) {
    if (topk < 1) o.refuse("topk", "a positive integer");
  }

  MulticlassOptions options_for(int64 classes, int64 num) const {
    const int most = (int)std::min<int64>(topk, classes * num);
    const bool skips = background_id >= 0 && background_id < classes;
    const int skip = skips ? (int)(background_id * num) : 0;
    const int rows = post_nms < 0 ? most : std::min(post_nms, most);
    return {{valid_thresh, skip, skips ? skip + (int)num : 0}, rule, most, rows};
  }

  Shapes shapes(Inputs in) const {
    in.expect(0, {"B", "N", 4});
    const Shape& scores = in.expect(1, {"B", "C", "N"});
    const int64 classes = scores[1], num = scores[2];
    if (classes > 1 << 24 || classes * num >= 1ll << 31) {
      in.refuse(1, "at most 2**24 classes, and fewer than 2**31 scores of an image");
    }
    const MulticlassOptions options = options_for(classes, num);
    if (options.topk >= kMaxRows) {
      in.refuse(1,
                "fewer than " + std::to_string(kMaxRows) + " scores of an image, or a lower topk");
    }
    return {{scores[0], options.rows, 6}, {scores[0]}};
  }

  template <typename T, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& shape = in[1].shape;
    const ClassScores<T> s = {in[0].data<T>(), in[1].data<T>(), shape[0], shape[1], shape[2]};
    cvops::multiclass_nms(device, out[0].data<T>(), out[1].data<int>(), s,
                          options_for(s.classes, s.num));
  }
};

const std::vector<const char*> MulticlassNms::kInputs = {"boxes", "scores"};
Register<MulticlassNms> registered;

}  // namespace
}  // namespace cvops::operators
