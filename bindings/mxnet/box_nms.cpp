#include "box_nms.h"

#include "nms.h"
#include "operator.h"

namespace cvops::external {
namespace {

struct BoxNms : Operator {
  static constexpr const char* kName = "box_nms";
  static const std::vector<const char*> kInputs;

  NmsOptions options;
  int topk;

  explicit BoxNms(Options& o) : topk(o.integer("topk", -1)) {
    const int coord = o.integer("coord_start", 2), score = o.integer("score_index", 1),
              id = o.integer("id_index", -1);
    const int in_format = o.choice("in_format", {"corner", "center"});
    const int out_format = o.choice("out_format", {"corner", "center"});
    const bool by_class = !o.boolean("force_suppress", false) && id >= 0;
    options = {{0, score, coord, std::max(id, -1)},
               {o.number("overlap_thresh", 0.5), false, by_class, in_format == 1},
               o.number("valid_thresh", 0),
               (float)o.integer("background_id", -1),
               in_format == out_format ? kNmsAsIs
               : out_format == 1       ? kNmsToCenter
                                       : kNmsToCorner,
               0};
  }

  Shapes shapes(Inputs in) const {
    const Shape& data = in[0];
    const auto [_, score, coord, id] = options.columns;
    if (data.size() < 2) in.refuse(0, "shape (..., N, K)");
    const int width = (int)data.back();
    if (width < 5 + (id > 0)) {
      in.refuse(0, id > 0 ? "rows of a score, a class and 4 coordinates or more"
                          : "rows of a score and 4 coordinates or more");
    }
    if (data[data.size() - 2] >= kMaxRows) {
      in.refuse(0, "fewer than " + std::to_string(kMaxRows) + " rows");
    }
    auto refuse_column = [&](const char* name, const char* expected, int got) {
      throw Refused(std::string(name) + ": expected " + expected + ", got " + std::to_string(got) +
                    " for rows of " + std::to_string(width));
    };
    auto among_coordinates = [&](int column) { return coord <= column && column < coord + 4; };
    if (coord < 0 || coord > width - 4) refuse_column("coord_start", "four columns", coord);
    if (score < 0 || score >= width || among_coordinates(score)) {
      refuse_column("score_index", "a column outside of the coordinates", score);
    }
    if (id >= width || (id >= 0 && among_coordinates(id)) || id == score) {
      refuse_column("id_index", "a column of its own or -1", id);
    }
    return {data};
  }

  struct Sizes {
    int64 batch, num;
    int width;
  };

  static Sizes sizes(const mxnet::ext::MXTensor& data) {
    const auto& shape = data.shape;
    const int64 num = shape[shape.size() - 2], width = shape.back();
    return {num && width ? data.size() / (num * width) : 0, num, (int)width};
  }

  NmsOptions options_for(Sizes size) const {
    NmsOptions own = options;
    own.columns.width = size.width;
    own.topk = (int)(topk < 0 ? size.num : std::min<int64>(topk, size.num));
    return own;
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    cvops::box_nms(device, out[0].data<float>(), nullptr, in[0].data<float>(), size.batch, size.num,
                   options_for(size));
  }

  // The gradient needs the indices of the kept rows. The forward pass computes them again: see
  // ROIPooling.
  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    auto &out_grad = in[0], &data = in[1];
    const Sizes size = sizes(data);
    Scratch<Device> scratch(device);
    float* kept = scratch.template take<float>(data.size());
    int* index = scratch.template take<int>(size.batch * size.num);
    cvops::box_nms(device, kept, index, data.data<float>(), size.batch, size.num,
                   options_for(size));
    cvops::box_nms_backward(device, out[0].data<float>(), out_grad.data<float>(), index, size.batch,
                            size.num, size.width);
  }
};

const std::vector<const char*> BoxNms::kInputs = {"data"};
Register<BoxNms> registered;

}  // namespace
}  // namespace cvops::external
