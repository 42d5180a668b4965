// The kernels of deformable 3-D convolution by name: what is launched by deform_conv3d.cu, or
// compiled where it runs by d3dnet/ops/nvrtc.py. Free of torch.
//
// float32 comes twice: "tf32" multiplies on tensor cores with 10 bits of mantissa.
#pragma once

#include "backward.cuh"
#include "forward.cuh"

#ifdef D3DNET_EMULATED
#define D3DNET_KERNEL(name, threads, blocks) \
  extern "C" void name(const d3dnet::CudaProblem problem)
#else
#define D3DNET_KERNEL(name, threads, blocks)                  \
  extern "C" __global__ void __launch_bounds__(threads, blocks) \
      name(const __grid_constant__ d3dnet::CudaProblem problem)
#endif

// name, element type, tensor cores, blocks of 256 threads that share a multiprocessor
#ifndef D3DNET_PRODUCTS
#define D3DNET_PRODUCTS(X)                        \
  X(bfloat16, d3dnet::bfloat16, true, 2)          \
  X(float16, d3dnet::float16, true, 2)            \
  X(tf32, float, true, 2)                         \
  X(float32, float, false, 2)                     \
  X(float64, double, false, 1)
// D3Dnet's layers by their channels, in the types that training and use are in.
#define D3DNET_LAYERS(X)                \
  X(bfloat16, d3dnet::bfloat16, 64)     \
  X(float16, d3dnet::float16, 64)       \
  X(tf32, float, 64)                    \
  X(bfloat16, d3dnet::bfloat16, 32)     \
  X(float16, d3dnet::float16, 32)       \
  X(tf32, float, 32)
#define D3DNET_ELEMENTS(X)          \
  X(bfloat16, d3dnet::bfloat16)     \
  X(float16, d3dnet::float16)       \
  X(float32, float)                 \
  X(float64, double)
#endif

#define D3DNET_DEFINE(name, T, tensor_cores, blocks)                        \
  D3DNET_KERNEL(d3dnet_forward_##name, 256, blocks) {                       \
    d3dnet::convolve<T, tensor_cores>(problem);                             \
  }                                                                         \
  D3DNET_KERNEL(d3dnet_data_gradients_##name, 128, 2 * blocks) {            \
    d3dnet::data_gradients<T, tensor_cores>(problem);                       \
  }                                                                         \
  D3DNET_KERNEL(d3dnet_weight_gradients_##name, 128, 2 * blocks) {          \
    d3dnet::weight_gradients<T, tensor_cores>(problem);                     \
  }
D3DNET_PRODUCTS(D3DNET_DEFINE)
#undef D3DNET_DEFINE

// The same with a layer's sizes known to the compiler.
#define D3DNET_DEFINE(name, T, channels)                                          \
  D3DNET_KERNEL(d3dnet_forward_##name##_##channels, 256, 2) {                     \
    d3dnet::convolve<T, true>(d3dnet::layer<channels>(problem));                  \
  }                                                                               \
  D3DNET_KERNEL(d3dnet_data_gradients_##name##_##channels, 128, 4) {              \
    d3dnet::data_gradients<T, true>(d3dnet::layer<channels>(problem));            \
  }                                                                               \
  D3DNET_KERNEL(d3dnet_weight_gradients_##name##_##channels, 128, 4) {            \
    d3dnet::weight_gradients<T, true>(d3dnet::layer<channels>(problem));          \
  }
D3DNET_LAYERS(D3DNET_DEFINE)
#undef D3DNET_DEFINE

#define D3DNET_DEFINE(name, T)                                                          \
  D3DNET_KERNEL(d3dnet_pack_forward_##name, 256, 1) { d3dnet::pack_forward<T>(problem); }   \
  D3DNET_KERNEL(d3dnet_pack_backward_##name, 256, 1) { d3dnet::pack_backward<T>(problem); } \
  D3DNET_KERNEL(d3dnet_add_segments_##name, 256, 1) { d3dnet::add_segments<T>(problem); }
D3DNET_ELEMENTS(D3DNET_DEFINE)
#undef D3DNET_DEFINE
