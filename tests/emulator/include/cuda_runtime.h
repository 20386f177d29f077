// Stands in for CUDA's header of this name, so that bindings/ compile unchanged.
#pragma once
#include "../runtime.h"
