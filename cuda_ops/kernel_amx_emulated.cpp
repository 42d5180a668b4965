// The kernels of kernel_amx.cpp with the tile instructions emulated, for tests on any machine.
#define D3DNET_AMX_EMULATED
#define D3DNET_VECTOR_BYTES 16
#include "gemm_amx.h"
// After gemm_amx.h, whose overloads it picks up.
#include "deform_conv3d_tile.h"

const d3dnet::Kernels* d3dnet::amx_emulated_kernels() {
  const Kernels* base = generic_kernels();
  static const Kernels table[4] = {base[0], base[1], Tile<bfloat16, bfloat16>::kernels(), base[3]};
  return table;
}
