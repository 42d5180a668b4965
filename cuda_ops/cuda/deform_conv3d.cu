// The CUDA implementation of deformable 3-D convolution, on the LibTorch Stable ABI.
//
// It registers d3dnet_cuda::deform_conv3d and its backward: the operators of d3dnet/ops/operator.py
// with one argument more, whether float32 may be multiplied as tf32. Only Python can read that
// setting, so d3dnet/ops/cuda.py passes it. Here: shapes, layouts, workspaces, launches. Nothing
// waits for the device, and all memory is torch's, so that a CUDA graph can hold it.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#ifdef D3DNET_EMULATED
#include "emulation.h"
#else
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#endif

#include "../tensors.h"
#include "kernels.cuh"

namespace d3dnet {
namespace {

using Kernel = void (*)(CudaProblem);

// Enough blocks to fill any GPU; the number depends on shapes alone, so that results repeat.
constexpr int64_t kWantedBlocks = 1024;

struct Grid {
  int64_t x, y = 1, z = 1;
};

#ifdef D3DNET_EMULATED

struct DeviceScope {
  explicit DeviceScope(const Tensor&) {}
};
void launch(Kernel kernel, Grid grid, int threads, size_t shared, const CudaProblem& problem,
            const Tensor&) {
  emulate(kernel, int(grid.x), int(grid.y), int(grid.z), threads, shared, problem);
}

#else

struct DeviceScope {
  torch::stable::accelerator::DeviceGuard guard;
  explicit DeviceScope(const Tensor& tensor) : guard(tensor.get_device_index()) {}
};

void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "deform_conv3d: ", cudaGetErrorString(error));
}

void launch(Kernel kernel, Grid grid, int threads, size_t shared, const CudaProblem& problem,
            const Tensor& on) {
  STD_TORCH_CHECK(grid.x < (int64_t(1) << 31) && grid.y < 65536 && grid.z < 65536,
                  "deform_conv3d: too many output pixels, groups or taps for one launch");
  void* stream = nullptr;
  // The macro that checks such codes has another name in torch 2.13 than before.
  STD_TORCH_CHECK(
      aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
      "deform_conv3d: torch has no CUDA stream for device ", on.get_device_index());
  if (shared > 48 << 10)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
  kernel<<<dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)), threads, shared,
           static_cast<cudaStream_t>(stream)>>>(problem);
  check(cudaGetLastError());
}

#endif

struct Kernels {
  Kernel forward, data_gradients, weight_gradients, pack_forward, pack_backward, add_segments;
  size_t forward_shared, data_shared, weight_shared;
  int log_weight_pixels;
  ScalarType sums;
};

template <typename T>
Kernels kernels(Kernel forward, Kernel data, Kernel weight, Kernel pack_forward,
                Kernel pack_backward, Kernel add_segments) {
  return {forward, data, weight, pack_forward, pack_backward, add_segments,
          sizeof(ForwardShared<T>), sizeof(DataGradientShared<T>),
          sizeof(WeightGradientShared<T>), sizeof(T) == 2 ? 6 : 5,
          sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float};
}

#define D3DNET_KERNELS(T, product, elements)                                             \
  kernels<T>(d3dnet_forward_##product, d3dnet_data_gradients_##product,                  \
             d3dnet_weight_gradients_##product, d3dnet_pack_forward_##elements,          \
             d3dnet_pack_backward_##elements, d3dnet_add_segments_##elements)
// Those of D3Dnet's layers where the problem is one of them.
#define D3DNET_LAYER_KERNELS(T, product, elements)                                       \
  (is_layer(p, 64)   ? D3DNET_KERNELS(T, product##_64, elements)                         \
   : is_layer(p, 32) ? D3DNET_KERNELS(T, product##_32, elements)                         \
                     : D3DNET_KERNELS(T, product, elements))

Kernels kernels_for(ScalarType dtype, bool allow_tf32, const CudaProblem& p) {
  switch (dtype) {
    case ScalarType::BFloat16: return D3DNET_LAYER_KERNELS(bfloat16, bfloat16, bfloat16);
    case ScalarType::Half: return D3DNET_LAYER_KERNELS(float16, float16, float16);
    case ScalarType::Double: return D3DNET_KERNELS(double, float64, float64);
    case ScalarType::Float:
      return allow_tf32 ? D3DNET_LAYER_KERNELS(float, tf32, float32)
                        : D3DNET_KERNELS(float, float32, float32);
    default: STD_TORCH_CHECK(false, "deform_conv3d: dtype accepted by Python but not here");
  }
}

// Rows of `count` channels, of which parts of `part` channels are read, are read 16 bytes at a time.
bool whole_rows(const void* rows, int64_t count, int64_t part, ScalarType dtype) {
  return reinterpret_cast<uintptr_t>(rows) % 16 == 0 && count * size_of(dtype) % 16 == 0 &&
         part * size_of(dtype) % 16 == 0;
}

// Cuts the output into rectangles of 2^log_pixels pixels: as few as possible, and squarish.
Tiling tiling(const CudaProblem& p, int log_pixels) {
  Tiling best{};
  const int squarest = (log_pixels + 1) / 2;
  for (int step = 0; step <= 2 * log_pixels; ++step) {
    const int width = squarest + (step % 2 ? step / 2 + 1 : -step / 2);
    if (width < 0 || width > log_pixels) continue;
    const int height = log_pixels - width;
    const int across = (p.out_size[2] + (1 << width) - 1) >> width;
    const int down = (p.out_size[1] + (1 << height) - 1) >> height;
    const long long count = p.batch * p.out_size[0] * across * down;
    if (best.across > 0 && count >= best.count) continue;
    STD_TORCH_CHECK(count < (1LL << 31), "deform_conv3d: too many output pixels for one launch");
    best = {width, height, across, down, int(count), 0};
  }
  return best;
}

// Offsets and masks are read as they are where they are contiguous or channels last.
Tensor in_either_layout(const Tensor& tensor) {
  return is_channels_last(tensor) ? tensor : torch::stable::contiguous(tensor);
}

// The tensors a CudaProblem points into, in the layouts it wants them.
struct Arguments {
  Tensor input, offset, weight;
  std::optional<Tensor> mask;
  CudaProblem problem{};

  Arguments(const Tensor& input_, const Tensor& offset_, const Tensor& weight_,
            const std::optional<Tensor>& mask_, const Sizes& stride, const Sizes& padding,
            const Sizes& dilation, const std::string& dims, bool tf32)
      : input(torch::stable::contiguous(input_, MemoryFormat::ChannelsLast3d)),
        offset(in_either_layout(offset_)),
        weight(torch::stable::contiguous(weight_)) {
    if (mask_) mask = in_either_layout(*mask_);
    CudaProblem& p = problem;
    int64_t pixels = 1, out_pixels = 1;
    p.batch = input.size(0);
    p.channels = int(input.size(1));
    p.out_channels = int(weight.size(0));
    p.groups = int(input.size(1) / weight.size(1));
    for (int d = 0; d < 3; ++d) {
      p.in_size[d] = int(input.size(2 + d));
      p.out_size[d] = int(offset.size(2 + d));
      p.kernel[d] = int(weight.size(2 + d));
      p.stride[d] = int(stride[d]);
      p.padding[d] = int(padding[d]);
      p.dilation[d] = int(dilation[d]);
      p.moves[d] = dims.find("THW"[d]) != std::string::npos;
      pixels *= input.size(2 + d);
      out_pixels *= offset.size(2 + d);
    }
    STD_TORCH_CHECK(std::max(pixels, out_pixels) < (int64_t(1) << 31) - (int64_t(1) << 24),
                    "deform_conv3d: a clip of more than 2^31 pixels is not supported");
    p.moving = int(dims.size());
    p.offset_groups = int(offset.size(1)) / (taps_of(p) * p.moving);
    p.run = std::gcd(p.channels / p.groups, p.channels / p.offset_groups);
    p.offset_is_float = offset.scalar_type() != input.scalar_type();
    p.round_weights = tf32;
    p.input = input.const_data_ptr();
    p.offset = offset.const_data_ptr();
    p.weight = weight.const_data_ptr();
    p.mask = mask ? mask->const_data_ptr() : nullptr;
    p.offset_is_channels_last = is_channels_last(offset);
    p.mask_is_channels_last = mask && is_channels_last(*mask);
    p.whole_input = whole_rows(p.input, p.channels, p.run, input.scalar_type());
  }

  // Packed weights have, of each row, a whole number of slices.
  Tensor packed(int64_t rows, int64_t row) const {
    const int64_t bytes = slices_of(int(row), int(size_of(input.scalar_type()))) * kSliceBytes;
    STD_TORCH_CHECK(rows * bytes < (int64_t(1) << 31), "deform_conv3d: weights of more than 2 GiB");
    return empty({rows * bytes / size_of(input.scalar_type())}, input.scalar_type(), input);
  }
};

int64_t blocks_for(int64_t threads) { return std::min<int64_t>(kWantedBlocks, threads / 256 + 1); }

Tensor forward(const Tensor& input, const Tensor& offset, const Tensor& weight,
               const std::optional<Tensor>& bias, const std::optional<Tensor>& mask, Sizes stride,
               Sizes padding, Sizes dilation, std::string dims, double negative_slope,
               bool allow_tf32) {
  const DeviceScope scope(input);
  const ScalarType dtype = input.scalar_type();
  Arguments arguments(input, offset, weight, mask, stride, padding, dilation, dims, allow_tf32);
  CudaProblem& p = arguments.problem;
  const Kernels kernels = kernels_for(dtype, allow_tf32, p);
  p.output_is_channels_last = is_channels_last(input);
  p.negative_slope = negative_slope;
  Tensor output = empty({p.batch, p.out_channels, p.out_size[0], p.out_size[1], p.out_size[2]},
                        dtype, input, p.output_is_channels_last);
  if (p.batch == 0) return output;
  std::optional<Tensor> bias_values;
  if (bias) bias_values = torch::stable::contiguous(*bias);
  p.bias = bias ? bias_values->const_data_ptr() : nullptr;
  p.output = output.mutable_data_ptr();
  const int64_t outputs = p.out_channels / p.groups;
  Tensor packed =
      arguments.packed(int64_t(taps_of(p)) * p.channels / p.run * outputs, p.run);
  p.packed_weight = packed.mutable_data_ptr();
  launch(kernels.pack_forward, {blocks_for(packed.numel())}, 256, 0, p, input);

  p.tiles = tiling(p, 7);
  const int64_t blocks = p.groups * ((outputs + kForwardOutputs - 1) / kForwardOutputs);
  launch(kernels.forward, {p.tiles.count, blocks}, kForwardThreads, kernels.forward_shared, p,
         input);
  return output;
}

// Computes grad_input, grad_offset and grad_mask, wherever the problem has a place for them.
void launch_data_gradients(const Kernels& kernels, const Arguments& arguments, CudaProblem p) {
  Tensor packed =
      arguments.packed(int64_t(taps_of(p)) * p.channels, p.out_channels / p.groups);
  p.packed_weight = packed.mutable_data_ptr();
  launch(kernels.pack_backward, {blocks_for(packed.numel())}, 256, 0, p, arguments.input);
  p.tiles = tiling(p, 6);
  launch(kernels.data_gradients, {p.tiles.count}, kBackwardThreads, kernels.data_shared, p,
         arguments.input);
}

void launch_weight_gradients(const Kernels& kernels, const Arguments& arguments, CudaProblem p) {
  p.tiles = tiling(p, kernels.log_weight_pixels);
  const int64_t taps = taps_of(p), outputs = p.out_channels / p.groups;
  const int64_t blocks =
      (outputs + 63) / 64 * ((p.run + 63) / 64) * (p.channels / p.run);
  const int64_t segments = std::min<int64_t>(p.tiles.count, kWantedBlocks / (blocks * taps));
  p.segments = int(std::max<int64_t>(segments, 1));
  const int64_t weights = taps * p.out_channels * (p.channels / p.groups);
  Tensor partial = empty({p.segments, weights}, kernels.sums, arguments.input);
  p.partial_sums = partial.mutable_data_ptr();
  launch(kernels.weight_gradients, {p.segments, blocks, taps}, kBackwardThreads,
         kernels.weight_shared, p, arguments.input);
  launch(kernels.add_segments, {blocks_for(weights)}, 256, 0, p, arguments.input);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& input, const Tensor& offset, const Tensor& weight,
    const std::optional<Tensor>& mask, Sizes stride, Sizes padding, Sizes dilation,
    std::string dims, bool need_input, bool need_offset, bool need_weight, bool need_mask,
    bool need_bias, bool allow_tf32) {
  const DeviceScope scope(input);
  const ScalarType dtype = input.scalar_type();
  Arguments arguments(input, offset, weight, mask, stride, padding, dilation, dims, allow_tf32);
  CudaProblem& p = arguments.problem;
  const Tensor grad_rows = torch::stable::contiguous(grad, MemoryFormat::ChannelsLast3d);
  p.grad = grad_rows.const_data_ptr();
  p.whole_grad = whole_rows(p.grad, p.out_channels, p.out_channels / p.groups, dtype);
  const Kernels kernels = kernels_for(dtype, allow_tf32, p);
  need_mask = need_mask && mask.has_value();

  // A tensor of its own for each gradient that is not needed: outputs must not alias.
  const auto absent = [&] { return empty({0}, dtype, input); };
  // Taps that reach outside the clip in time are skipped: their gradients stay zero.
  Tensor grad_input = need_input ? zeros(sizes_of(input), kernels.sums, input, true) : absent();
  Tensor grad_offset =
      need_offset ? zeros(sizes_of(offset), offset.scalar_type(), input, p.offset_is_channels_last)
                  : absent();
  Tensor grad_mask =
      need_mask ? zeros(sizes_of(*mask), dtype, input, p.mask_is_channels_last) : absent();
  Tensor grad_weight = need_weight ? empty(sizes_of(weight), dtype, input) : absent();
  p.grad_input = need_input ? grad_input.mutable_data_ptr() : nullptr;
  p.grad_offset = need_offset ? grad_offset.mutable_data_ptr() : nullptr;
  p.grad_mask = need_mask ? grad_mask.mutable_data_ptr() : nullptr;
  p.grad_weight = need_weight ? grad_weight.mutable_data_ptr() : nullptr;
  if ((need_input || need_offset || need_mask) && p.batch > 0)
    launch_data_gradients(kernels, arguments, p);
  if (need_weight) launch_weight_gradients(kernels, arguments, p);

  if (need_input) grad_input = in_layout_of(input, torch::stable::to(grad_input, dtype));
  const Sizes all_but_channels = {0, 2, 3, 4};
  return {grad_input,
          need_offset ? in_layout_of(offset, grad_offset) : absent(),
          need_weight ? in_layout_of(weight, grad_weight) : absent(),
          need_mask ? in_layout_of(*mask, grad_mask) : absent(),
          need_bias ? torch::stable::sum(grad_rows, all_but_channels) : absent()};
}

}  // namespace
}  // namespace d3dnet

// The emulation can be loaded beside the real library: its operators have a namespace of their own.
#ifdef D3DNET_EMULATED
STABLE_TORCH_LIBRARY(d3dnet_emulated, m) {
#else
STABLE_TORCH_LIBRARY(d3dnet_cuda, m) {
#endif
  m.def(
      "deform_conv3d(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, "
      "int[3] stride, int[3] padding, int[3] dilation, str dims, float negative_slope, "
      "bool allow_tf32) -> Tensor");
  m.def(
      "deform_conv3d_backward(Tensor grad, Tensor input, Tensor offset, Tensor weight, "
      "Tensor? mask, int[3] stride, int[3] padding, int[3] dilation, str dims, bool need_input, "
      "bool need_offset, bool need_weight, bool need_mask, bool need_bias, bool allow_tf32) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
}

#ifdef D3DNET_EMULATED
STABLE_TORCH_LIBRARY_IMPL(d3dnet_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(d3dnet_cuda, CUDA, m) {
#endif
  m.impl("deform_conv3d", TORCH_BOX(&d3dnet::forward));
  m.impl("deform_conv3d_backward", TORCH_BOX(&d3dnet::backward));
}
