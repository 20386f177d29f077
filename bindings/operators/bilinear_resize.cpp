#include "bilinear_resize.h"

#include <algorithm>

#include "operator.h"

namespace cvops::operators {
namespace {

enum class Mode { size, odd_scale, like, to_even_down, to_even_up, to_odd_down, to_odd_up };

struct BilinearResizeOp : Operator {
  static constexpr const char* kName = "BilinearResize2D";
  static const std::vector<const char*> kInputs, kDataOnly;

  int height, width;
  std::optional<float> scale_height, scale_width;
  Mode mode;
  bool align_corners;

  explicit BilinearResizeOp(Options& options)
      : height(options.integer("height", 1)),
        width(options.integer("width", 1)),
        scale_height(options.number_or_none("scale_height")),
        scale_width(options.number_or_none("scale_width")),
        mode((Mode)options.choice("mode", {"size", "odd_scale", "like", "to_even_down",
                                           "to_even_up", "to_odd_down", "to_odd_up"})),
        align_corners(options.boolean("align_corners", true)) {
    if (height < 1) options.refuse("height", "an integer of at least 1");
    if (width < 1) options.refuse("width", "an integer of at least 1");
    if (mode == Mode::odd_scale) {
      options.required("scale_height");
      if (!scale_height) options.refuse("scale_height", "a number");
    }
    if ((mode == Mode::size && scale_height) || mode == Mode::odd_scale) {
      options.required("scale_width");
      if (!scale_width) options.refuse("scale_width", "a number");
    }
  }

  const std::vector<const char*>* input_names() const {
    return mode == Mode::like ? &kInputs : &kDataOnly;
  }

  // Length of an axis of the result, rounded toward 0 and limited to int.
  static int64 scaled(int64 size, float scale) {
    const float length = (float)size * scale;
    return length < 1e9f ? (int64)std::max(length, -1.0f) : 1 << 30;
  }

  int64 out_size(int64 size, int fixed, std::optional<float> scale, int64 like) const {
    const int64 odd = size % 2;
    switch (mode) {
      case Mode::size:
        return scale_height ? scaled(size, *scale) : fixed;
      case Mode::odd_scale:
        return odd ? scaled(size - 1, *scale) + 1 : scaled(size, *scale);
      case Mode::like:
        return like;
      case Mode::to_even_down:
        return size - odd;
      case Mode::to_even_up:
        return size + odd;
      case Mode::to_odd_down:
        return size - (1 - odd);
      default:
        return size + (1 - odd);
    }
  }

  static std::vector<int> differentiable() { return {0}; }

  Shapes shapes(Inputs in) const {
    const Shape& s = in.expect(0, {"N", "C", "H", "W"});
    int64 like[2] = {};
    if (mode == Mode::like) {
      const Shape& other = in.expect(1, {"M", "K", "height", "width"});
      like[0] = other[2], like[1] = other[3];
    }
    const int64 rows = out_size(s[2], height, scale_height, like[0]);
    const int64 columns = out_size(s[3], width, scale_width, like[1]);
    if (s[0] > 0 && s[1] > 0 && (double)s[2] * s[3] == 0) in.refuse(0, "one pixel or more");
    if (rows < 1 || columns < 1 || (double)rows * columns >= 1 << 30 ||
        (double)s[2] * s[3] >= 1 << 30) {
      in.refuse(0, "maps of 1 to 2**30 - 1 pixels before and after resizing");
    }
    return {{s[0], s[1], rows, columns}};
  }

  static int64 planes(const Tensor& data) { return data.shape[0] * data.shape[1]; }
  BilinearResize op(const Tensor& data, const Tensor& out) const {
    return {(int)data.shape[2], (int)data.shape[3], (int)out.shape[2], (int)out.shape[3],
            align_corners};
  }

  template <typename Device>
  void forward(Device& device, Tensors& in, Tensors& out) const {
    cvops::bilinear_resize(device, out[0].data<float>(), in[0].data<float>(), planes(in[0]),
                           op(in[0], out[0]));
  }
  template <typename Device>
  void backward(Device& device, Tensors& in, Tensors& out) const {
    cvops::bilinear_resize_backward(device, out[0].data<float>(), in[0].data<float>(),
                                    planes(in[1]), op(in[1], in[0]));
    if (mode == Mode::like) set_to_zero(device, out[1].data_ptr, out[1].bytes());
  }
};

const std::vector<const char*> BilinearResizeOp::kInputs = {"data", "like"};
const std::vector<const char*> BilinearResizeOp::kDataOnly = {"data"};
Register<BilinearResizeOp> registered;

}  // namespace
}  // namespace cvops::operators
