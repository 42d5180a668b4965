// The kernels for x86-64 with AVX2, FMA and F16C.
#include "problem.h"

#ifdef __AVX2__
#define D3DNET_VECTOR_BYTES 32
#include "kernels.h"

D3DNET_DEFINE_KERNELS(avx2_kernels)
#else
const d3dnet::Kernels* d3dnet::avx2_kernels() { return nullptr; }
#endif
