// What a CUDA kernel is told: plain data, passed by value. d3dnet/ops/nvrtc.py mirrors it.
#pragma once

namespace d3dnet {

// Output pixels are worked on in rectangles of 2^log_width x 2^log_height in one frame.
struct Tiling {
  int log_width, log_height, across, down;
  long long count;  // in the whole batch
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
  int reserved;
  double negative_slope;  // of the LeakyReLU on the output; 1: none
  Tiling tiles;

  const void* input;    // (B, T, H, W, C)
  const void* offset;   // (B, G*K*D, To, Ho, Wo)
  const void* mask;     // (B, G*K, To, Ho, Wo) or null
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

}  // namespace d3dnet
