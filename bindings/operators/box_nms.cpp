#include "nms_rows.h"

namespace cvops::operators {
namespace {

struct BoxNms : NmsWithGradient<BoxNms> {
  static constexpr const char* kName = "box_nms";
  static constexpr bool kAnyFloat = true;

  explicit BoxNms(Options& o) : NmsWithGradient(o, 0, -std::numeric_limits<double>::infinity()) {
    const int out_format = o.choice("out_format", {"corner", "center"});
    options.rule.threshold = o.number("overlap_thresh", 0.5);
    options.conversion = options.rule.center == out_format ? kNmsAsIs
                         : out_format == 1                 ? kNmsToCenter
                                                           : kNmsToCorner;
  }

  template <typename Device, typename T>
  void suppress(Device& device, T* out, int* index, const T* data, int64 batch, int64 num,
                NmsOptions options) const {
    cvops::box_nms(device, out, index, data, batch, num, options);
  }
};

Register<BoxNms> registered;

}  // namespace
}  // namespace cvops::operators
