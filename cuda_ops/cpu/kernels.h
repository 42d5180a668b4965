// The table of kernels of one instruction set.
#pragma once

#include "backward.h"
#include "forward.h"

namespace {

// T is the features' type, Column that of the matrices that are multiplied.
template <typename T, typename Column = Compute<T>>
constexpr d3dnet::Kernels kernels_of() {
  using Of = Columns<T, Column>;
  using F = Forward<T, Column>;
  using B = Backward<T, Column>;
  return {Of::packed_size, F::pack_forward, B::pack_backward, Of::forward_tile,
          F::forward_scratch, F::forward, B::backward_scratch, B::backward,
          B::finish_weight, B::sum_frame, B::store_bias};
}

}  // namespace

// The table of this instruction set, in the order of Dtype.
#define D3DNET_DEFINE_KERNELS(name)                                                     \
  const d3dnet::Kernels* d3dnet::name() {                                               \
    static constexpr d3dnet::Kernels kTable[4] = {kernels_of<float>(), kernels_of<double>(), \
                                                  kernels_of<bfloat16>(),               \
                                                  kernels_of<float16>()};               \
    return kTable;                                                                      \
  }
