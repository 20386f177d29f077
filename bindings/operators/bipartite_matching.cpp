#include "bipartite_matching.h"

#include <algorithm>
#include <numeric>

#include "operator.h"

namespace cvops::operators {
namespace {

struct BipartiteMatching : Operator {
  static constexpr const char* kName = "bipartite_matching";
  static const std::vector<const char*> kInputs;
  static constexpr int kOutputs = 2;

  MatchingOptions options;

  explicit BipartiteMatching(Options& o)
      : options{o.required("threshold").number("threshold", 0), o.boolean("is_ascend", false),
                o.integer("topk", -1)} {}

  Shapes shapes(Inputs in) const {
    const Shape& data = in[0];
    if (data.size() < 2) in.refuse(0, "shape (..., N, M)");
    const int64 columns = data.back(), rows = data[data.size() - 2];
    const bool is_empty = std::count(data.begin(), data.end(), 0u) > 0;
    if (!is_empty && rows * columns > kMaxPairs) {
      in.refuse(0, "at most " + std::to_string(kMaxPairs) + " pairs in a matrix");
    }
    const Shape of_rows(data.begin(), data.end() - 1);
    Shape of_columns = of_rows;
    of_columns.back() = columns;
    return {of_rows, of_columns};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const auto& shape = in[0].shape;
    const int64 batch =
        std::accumulate(shape.begin(), shape.end() - 2, int64{1}, std::multiplies<int64>());
    cvops::bipartite_matching(device, out[0].data<float>(), out[1].data<float>(),
                              in[0].data<float>(), {batch, shape[shape.size() - 2], shape.back()},
                              options);
  }
};

const std::vector<const char*> BipartiteMatching::kInputs = {"data"};
Register<BipartiteMatching> registered;

}  // namespace
}  // namespace cvops::operators
