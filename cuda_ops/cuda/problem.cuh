// What a CUDA kernel is told: plain data, passed by value. d3dnet/ops/nvrtc.py mirrors it.
#pragma once

namespace d3dnet {

// Output pixels are worked on in rectangles of 2^log_width x 2^log_height in one frame.
struct Tiling {
  int log_width, log_height, across, down;
  int count;  // in the whole batch
  int reserved;
};

// Dimensions are in the order T, H, W. Features are channels last: (batch, T, H, W, channel).
// Channels that share a convolution group and an offset group are a run.
struct CudaProblem {
  long long batch;
  int channels, out_channels, groups, offset_groups;
  int in_size[3], out_size[3], kernel[3], stride[3], padding[3], dilation[3];
  int moves[3];  // whether `dims` names the dimension
  int moving;    // how many it names
  int run;
  int offset_is_float;    // beside features of another type
  int round_weights;      // pack: to tf32
  int output_is_channels_last;
  int whole_input, whole_grad;  // rows of features and of `grad` can be read 16 bytes at a time
  int segments;                 // partial sums, each over a part of the pixels
  int offset_is_channels_last, mask_is_channels_last;
  int reserved;
  double negative_slope;  // of the LeakyReLU on the output; 1: none
  Tiling tiles;

  const void* input;    // (B, T, H, W, C)
  const void* offset;   // (B, G*K*D, To, Ho, Wo), contiguous or channels last
  const void* mask;     // (B, G*K, To, Ho, Wo), contiguous or channels last, or null
  const void* weight;   // (O, C/groups, kt, kh, kw)
  const void* bias;     // (O) or null
  const void* grad;     // (B, To, Ho, Wo, O)
  void* packed_weight;  // written by a pack kernel, read by the others
  void* output;
  void* grad_input;    // (B, T, H, W, C), float or double, zero-filled, or null
  void* grad_offset;   // like offset, zero-filled, or null
  void* grad_mask;     // like mask, zero-filled, or null
  void* grad_weight;   // like weight, or null
  void* partial_sums;  // of grad_weight: (segments, K, O, C/groups), float or double
};

#ifdef __CUDACC__
#define D3DNET_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define D3DNET_HOST_DEVICE inline
#endif

// Whether this is a layer of D3Dnet of that many channels, for which kernels are compiled.
D3DNET_HOST_DEVICE bool is_layer(const CudaProblem& p, int channels) {
  bool same = p.channels == channels && p.out_channels == channels && p.groups == 1 &&
              p.offset_groups == 1 && !p.mask && p.whole_input && !p.moves[0] && p.moves[1] &&
              p.moves[2] && (p.whole_grad || !p.grad);
  for (int d = 0; d < 3; ++d)
    same = same && p.kernel[d] == 3 && p.stride[d] == 1 && p.padding[d] == 1 && p.dilation[d] == 1;
  return same;
}

// The same problem, with all that is_layer says known to the compiler.
template <int Channels>
D3DNET_HOST_DEVICE CudaProblem layer(const CudaProblem& problem) {
  CudaProblem p = problem;
  p.channels = p.out_channels = p.run = Channels;
  p.groups = p.offset_groups = 1;
  p.whole_input = p.whole_grad = 1;
  p.moves[0] = 0;
  p.moves[1] = p.moves[2] = 1;
  p.moving = 2;
  p.mask = nullptr;
  p.grad_mask = nullptr;
  for (int d = 0; d < 3; ++d) {
    p.kernel[d] = 3;
    p.stride[d] = p.padding[d] = p.dilation[d] = 1;
  }
  return p;
}

}  // namespace d3dnet
