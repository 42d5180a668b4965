// The kernels for x86-64 with AVX-512 and AMX: bfloat16 in tiles, everything else as AVX-512.
#include "problem.h"

#ifdef __AMX_BF16__
#define D3DNET_VECTOR_BYTES 64
#include "multiply_amx.h"
// After multiply_amx.h, whose overloads it picks up.
#include "kernels.h"

const d3dnet::Kernels* d3dnet::amx_kernels() {
  const Kernels* base = avx512_kernels();
  static const Kernels table[4] = {base[0], base[1], kernels_of<bfloat16, bfloat16>(), base[3]};
  return table;
}
#else
const d3dnet::Kernels* d3dnet::amx_kernels() { return nullptr; }
#endif
