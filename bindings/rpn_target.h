#pragma once
#include "gpu.h"
#include "rpn_target.cuh"

namespace cvops {

void rpn_target(const Cpu&, RpnOutputs out, RpnInputs in, SampleShape shape, SampleOptions options);
void rpn_target(Gpu&, RpnOutputs out, RpnInputs in, SampleShape shape, SampleOptions options);

}  // namespace cvops
