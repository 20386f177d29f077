#include "multibox_prior.h"

#include "operator.h"

namespace cvops::operators {
namespace {

struct MultiBoxPrior : Operator {
  static constexpr const char* kName = "MultiBoxPrior";
  static const std::vector<const char*> kInputs;

  std::vector<PriorShape> cell;
  bool clip;
  std::vector<float> steps, offsets;

  explicit MultiBoxPrior(Options& options)
      : clip(options.boolean("clip", false)),
        steps(options.numbers("steps", {-1, -1}, 2)),
        offsets(options.numbers("offsets", {0.5, 0.5}, 2)) {
    const std::vector<float> ratios = options.numbers("ratios", {1});
    for (float size : options.numbers("sizes", {1})) cell.push_back({size, ratios[0]});
    for (size_t i = 1; i < ratios.size(); ++i) cell.push_back({cell[0].size, ratios[i]});
    if (steps[0] * steps[1] < 0) options.refuse("steps", "both positive or neither");
    for (float offset : offsets) {
      if (offset < 0 || offset > 1) options.refuse("offsets", "numbers in [0, 1]");
    }
  }

  Shapes shapes(Inputs in) const {
    if (in[0].size() < 4) in.refuse(0, "shape (N, C, H, W, ...)");
    const int64 height = in[0][2], width = in[0][3];
    if (height == 0 || width == 0) in.refuse(0, "a height and a width above 0");
    // The number of anchors of axes up to 2^31 can exceed 64 bits.
    if ((double)height * (double)width * (double)cell.size() >= 2147483648.0) {
      in.refuse(0, "fewer than 2^31 anchors");
    }
    const int64 num = height * width * (int64)cell.size();
    return {{1, num, 4}};
  }

  template <typename Run>
  void run(const Tensors& in, const Run& run) const {
    const int height = (int)in[0].shape[2], width = (int)in[0].shape[3];
    const PriorMap map = {height,   width,      (int)cell.size(), steps[0],
                          steps[1], offsets[0], offsets[1]};
    run(prior_layout(&map, 1, cell.data()).priors());
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    run(in,
        [&](Priors priors) { cvops::multibox_prior(device, out[0].data<float>(), priors, clip); });
  }
};

const std::vector<const char*> MultiBoxPrior::kInputs = {"data"};
Register<MultiBoxPrior> registered;

}  // namespace
}  // namespace cvops::operators
