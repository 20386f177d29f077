#pragma once
#include <string>

namespace cvops::external {

// Sets the error message of this thread, which MXNet reads next.
void set_error(const std::string& text);

}  // namespace cvops::external
