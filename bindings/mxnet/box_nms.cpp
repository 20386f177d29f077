#include "nms_of_rows.h"

namespace cvops::external {
namespace {

struct BoxNms : NmsOfRows<BoxNms, 4> {
  static constexpr const char* kName = "box_nms";
  static const std::vector<const char*> kInputs;

  explicit BoxNms(Options& o) : NmsOfRows(o) {
    const int in_format = o.choice("in_format", {"corner", "center"});
    const int out_format = o.choice("out_format", {"corner", "center"});
    options.rule.center = in_format == 1;
    options.conversion = in_format == out_format ? kNmsAsIs
                         : out_format == 1       ? kNmsToCenter
                                                 : kNmsToCorner;
  }

  template <typename Device>
  void suppress(Device& device, float* out, int* index, const float* data, int64 batch, int64 num,
                NmsOptions options) const {
    cvops::box_nms(device, out, index, data, batch, num, options);
  }
};

const std::vector<const char*> BoxNms::kInputs = {"data"};
Register<BoxNms> registered;

}  // namespace
}  // namespace cvops::external
