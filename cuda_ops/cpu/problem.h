// The problem handed from the operator to the kernels of one instruction set.
//
// Plain data only: this header is included by files compiled with different -m flags, so it
// must not define anything that the linker could merge between them.
#pragma once

#include <cstdint>

namespace d3dnet {

enum class Dtype : int { float32, float64, bfloat16, float16 };

// Dimensions are in the order T, H, W. Features are channels last: (batch, T, H, W, channel).
struct Problem {
  int64_t batch, channels, out_channels, groups, offset_groups;
  int64_t in_size[3], out_size[3], kernel[3], stride[3], padding[3], dilation[3];
  bool moves[3];  // whether `dims` names the dimension
  int64_t moving;  // how many it names

  Dtype dtype;         // of features and weights
  Dtype offset_dtype;  // `dtype` or float32

  const void* input;   // (B, T, H, W, C)
  const void* offset;  // (B, G*K*D, To, Ho, Wo)
  const void* mask;    // (B, G*K, To, Ho, Wo) or null
  const void* weight;  // (O, C/groups, kt, kh, kw)
  const void* bias;    // (O) or null
  const void* grad;    // (B, To, Ho, Wo, O), backward only
  const void* zero_row;  // C zeros: what a corner outside the input reads

  void* output;  // forward only, (B, To, Ho, Wo, O) or, without output_channels_last, as named
  bool output_channels_last;
  double negative_slope;  // of the LeakyReLU on the output; 1: none

  void* grad_input;   // (B, T, H, W, C) or null
  void* grad_offset;  // like offset, zero-filled, or null
  void* grad_mask;    // like mask, zero-filled, or null
  void* grad_weight;  // like weight, or null
  void* weight_sums;  // (chunks, O/groups, K, C) zero-filled partial sums of the gradient

  void* packed_weight;  // filled by pack_forward or pack_backward

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t plane_taps() const { return kernel[1] * kernel[2]; }
  int64_t in_frame() const { return in_size[1] * in_size[2]; }
  int64_t out_frame() const { return out_size[1] * out_size[2]; }
};

// What one instruction set offers for one dtype. Scratch sizes are in bytes, per thread.
struct Kernels {
  int64_t (*packed_size)(const Problem&);
  void (*pack_forward)(const Problem&);
  void (*pack_backward)(const Problem&);

  int64_t (*forward_tile)(const Problem&);  // pixels in a tile
  int64_t (*forward_scratch)(const Problem&);
  // Computes output pixels [first, first + count) of frame `to` of clip `b`.
  void (*forward)(const Problem&, int64_t b, int64_t to, int64_t first, int64_t count,
                  void* scratch);

  int64_t (*backward_scratch)(const Problem&);
  // Gradients of everything that reads input volume `volume` of the batch (a frame, or a whole
  // clip when T moves); adds weight gradients to `weight_sum`.
  void (*backward)(const Problem&, int64_t volume, void* weight_sum, void* scratch);
  // Adds the `chunks` partial sums in order and writes grad_weight.
  void (*finish_weight)(const Problem&, int64_t chunks);
  // sums[o] = sum of grad over output frame `frame` of the batch, in double.
  void (*sum_frame)(const Problem&, int64_t frame, double* sums);
  void (*store_bias)(const Problem&, const double* sums, void* grad_bias);
};

// One table of four (in the order of Dtype) per instruction set, null where not compiled in.
const Kernels* generic_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* amx_kernels();

}  // namespace d3dnet
