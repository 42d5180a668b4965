// Which instruction sets this build and machine have, and which one is in force.
#pragma once

#include "problem.h"

namespace d3dnet {

// Kernels of the instruction set in force for one dtype.
const Kernels& current_kernels(Dtype dtype);

}  // namespace d3dnet
