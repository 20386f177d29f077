#include "nms_rotated.h"

#include "nms_of_rows.h"

namespace cvops::external {
namespace {

struct NmsRotated : NmsOfRows<NmsRotated, kRotatedNumbers> {
  static constexpr const char* kName = "nms_rotated";
  static const std::vector<const char*> kInputs;

  RotatedFormat format;

  explicit NmsRotated(Options& o)
      : NmsOfRows(o),
        format{o.choice("angle", {"degrees", "radians"}) == 1, o.boolean("clockwise", false)} {}

  template <typename Device>
  void suppress(Device& device, float* out, int* index, const float* data, int64 batch, int64 num,
                NmsOptions options) const {
    cvops::nms_rotated(device, out, index, data, batch, num, options, format);
  }
};

const std::vector<const char*> NmsRotated::kInputs = {"data"};
Register<NmsRotated> registered;

}  // namespace
}  // namespace cvops::external
