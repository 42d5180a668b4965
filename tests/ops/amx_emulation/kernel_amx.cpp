// The kernels of cuda_ops/cpu/kernel_amx.cpp with the tile instructions emulated: the only ones of
// the library that tests build.
#define D3DNET_EMULATED
#define D3DNET_VECTOR_BYTES 16
#include "instruction_set.h"
#include "multiply_amx.h"
// After multiply_amx.h, whose overloads it picks up.
#include "kernels.h"

const d3dnet::Kernels& d3dnet::current_kernels(Dtype dtype) {
  static constexpr Kernels bfloat16_kernels = kernels_of<bfloat16, bfloat16>();
  return dtype == Dtype::bfloat16 ? bfloat16_kernels : generic_kernels()[static_cast<int>(dtype)];
}
