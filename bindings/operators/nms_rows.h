// Options and checks of the operators on rows of a score, a class and a box.
#pragma once
#include <algorithm>
#include <string>

#include "box_nms.h"
#include "nms.h"
#include "operator.h"

namespace cvops::operators {

struct NmsRows : Operator {
  static inline const std::vector<const char*> kInputs = {"data"};

  const int numbers;  // of a box
  const bool with_index;
  NmsOptions options;
  int topk;

  // `valid_thresh`: the default, and the lowest number. Rows of axis-aligned boxes, of four
  // numbers, have an option for their format.
  NmsRows(Options& o, double valid_thresh, double lowest, int numbers = 4)
      : numbers(numbers), with_index(o.beyond_mxnet()), topk(o.integer("topk", -1)) {
    const int coord = o.integer("coord_start", 2), score = o.integer("score_index", 1),
              id = o.integer("id_index", -1);
    const bool by_class = !o.boolean("force_suppress", false) && id >= 0;
    const bool center = numbers == 4 && o.choice("in_format", {"corner", "center"}) == 1;
    options = {{0, score, coord, std::max(id, -1)},
               {0, false, by_class, center},
               o.number("valid_thresh", valid_thresh, lowest),
               (float)o.integer("background_id", -1),
               kNmsAsIs,
               0};
  }

  // The shape of the data, or an error.
  const Shape& check(const Inputs& in) const {
    const Shape& data = in[0];
    const auto [_, score, coord, id] = options.columns;
    if (data.size() < 2) in.refuse(0, "shape (..., N, K)");
    const int width = (int)data.back();
    if (width < 1 + numbers + (id > 0)) {
      in.refuse(0, std::string("rows of a score") + (id > 0 ? ", a class and " : " and ") +
                       std::to_string(numbers) + " coordinates or more");
    }
    if (data[data.size() - 2] >= kMaxRows) {
      in.refuse(0, "fewer than " + std::to_string(kMaxRows) + " rows");
    }
    const int coord_start = coord;  // a lambda cannot capture a structured binding
    auto refuse_column = [&](const char* name, const char* expected, int got) {
      throw Refused(std::string(name) + ": expected " + expected + ", got " + std::to_string(got) +
                    " for rows of " + std::to_string(width));
    };
    auto among_coordinates = [&](int column) {
      return coord_start <= column && column < coord_start + numbers;
    };
    if (coord < 0 || coord > width - numbers) {
      refuse_column("coord_start", numbers == 4 ? "four columns" : "five columns", coord);
    }
    if (score < 0 || score >= width || among_coordinates(score)) {
      refuse_column("score_index", "a column outside of the coordinates", score);
    }
    if (id >= width || (id >= 0 && among_coordinates(id)) || id == score) {
      refuse_column("id_index", "a column of its own or -1", id);
    }
    return data;
  }

  static Dtype output_type(int i) { return i == 0 ? Dtype::float32 : Dtype::int32; }
  int outputs() const { return with_index ? 2 : 1; }

  // The shapes of the rows, and of their indices if there are any.
  Shapes with_indices(const Shape& rows) const {
    Shapes out = {rows, {rows.begin(), rows.end() - 1}};
    out.resize(outputs());
    return out;
  }
  int* index(Tensors& out) const { return with_index ? out[1].data<int>() : nullptr; }

  struct Sizes {
    int64 batch, num;
    int width;
  };

  static Sizes sizes(const Tensor& data) {
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

  // Rows of a set in a result of at most `post_nms` rows.
  static int64 rows_of(int64 num, int post_nms) {
    return post_nms < 0 ? num : std::min<int64>(num, post_nms);
  }

  // The shape of such a result.
  Shape limited(const Inputs& in, int post_nms) const {
    Shape out = check(in);
    int64& num = out[out.size() - 2];
    num = rows_of(num, post_nms);
    return out;
  }
};

// An operator with the gradient of box_nms. `Op` has suppress(device, out, index, data, batch, num,
// options), which is the op.
template <typename Op>
struct NmsWithGradient : NmsRows {
  using NmsRows::NmsRows;

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const { return with_indices(check(in)); }

  template <typename T = float, typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    const Sizes size = sizes(in[0]);
    static_cast<const Op*>(this)->suppress(device, out[0].data<T>(), index(out), in[0].data<T>(),
                                           size.batch, size.num, options_for(size));
  }

  // The gradient needs the indices of the kept rows, or computes them again: see ROIPooling.
  template <typename T = float, typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    const Tensor &out_grad = in[0], &data = in[outputs()];
    const Sizes size = sizes(data);
    Scratch<Device> scratch(device);
    int* index = with_index ? in[4].data<int>() : nullptr;
    if (!index) {
      T* kept = scratch.template take<T>(data.size());
      index = scratch.template take<int>(size.batch * size.num);
      static_cast<const Op*>(this)->suppress(device, kept, index, data.data<T>(), size.batch,
                                             size.num, options_for(size));
    }
    cvops::box_nms_backward(device, out[0].data<T>(), out_grad.data<T>(), index, size.batch,
                            size.num, size.width);
  }
};

}  // namespace cvops::operators
