// The kernels for any machine: vectors of 16 bytes, whatever the compiler makes of them.
#define D3DNET_VECTOR_BYTES 16
#include "kernels.h"

D3DNET_DEFINE_KERNELS(generic_kernels)
