// The kernels for x86-64 with AVX-512 (F, BW, DQ, VL).
#include "problem.h"

#ifdef __AVX512F__
#define D3DNET_VECTOR_BYTES 64
#include "kernels.h"

D3DNET_DEFINE_KERNELS(avx512_kernels)
#else
const d3dnet::Kernels* d3dnet::avx512_kernels() { return nullptr; }
#endif
