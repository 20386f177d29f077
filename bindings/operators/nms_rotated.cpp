#include "nms_rotated.h"

#include "nms_rows.h"

namespace cvops::operators {
namespace {

struct NmsRotated : NmsWithGradient<NmsRotated> {
  static constexpr const char* kName = "nms_rotated";

  RotatedFormat format;

  explicit NmsRotated(Options& o)
      : NmsWithGradient(o, 0, -std::numeric_limits<double>::infinity(), kRotatedNumbers),
        format{o.choice("angle", {"degrees", "radians"}) == 1, o.boolean("clockwise", false)} {
    options.rule.threshold = o.number("overlap_thresh", 0.5);
  }

  template <typename Device>
  void suppress(Device& device, float* out, int* index, const float* data, int64 batch, int64 num,
                NmsOptions options) const {
    cvops::nms_rotated(device, out, index, data, batch, num, options, format);
  }
};

Register<NmsRotated> registered;

}  // namespace
}  // namespace cvops::operators
