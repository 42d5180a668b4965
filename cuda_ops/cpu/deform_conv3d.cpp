// The CPU implementation of d3dnet::deform_conv3d and its backward, on the LibTorch Stable ABI.
//
// The operators are declared, and their arguments checked, in d3dnet/ops. Here: shapes, layouts,
// threads. Work is cut in a way that depends on the shapes alone, each piece is computed by one
// thread, and partial sums are added in a fixed order, so that results are repeatable bit for bit
// and do not depend on the number of threads.
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../tensors.h"
#include "instruction_set.h"
#include "problem.h"

namespace d3dnet {
namespace {

// Partial sums of the weight gradient that are kept apart.
constexpr int64_t kMaxChunks = 32;

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Half: return Dtype::float16;
    default: STD_TORCH_CHECK(false, "deform_conv3d: dtype accepted by Python but not here");
  }
}

// Memory for the threads of one parallel region, aligned to cache lines.
class Scratch {
 public:
  Scratch(int64_t threads, int64_t bytes)
      : stride_((bytes + 127) / 64 * 64), memory_(new char[threads * stride_ + 64]) {
    first_ = memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64;
  }
  void* of(int64_t thread) const { return first_ + thread * stride_; }

 private:
  int64_t stride_;
  std::unique_ptr<char[]> memory_;
  char* first_;
};

// Runs f(item, scratch) for every item, handing items to threads as they become free.
template <typename F>
void for_each_item(int64_t items, int64_t scratch_bytes, const F& f) {
  const int64_t wanted = torch::stable::get_num_threads();
  const int64_t threads = wanted < items ? wanted : items;
  if (threads == 0) return;
  const Scratch scratch(threads, scratch_bytes);
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) {
    for (int64_t item = next++; item < items; item = next++) f(item, scratch.of(begin));
  });
}

struct Geometry {
  Sizes stride, padding, dilation;
  std::string dims;
};

// The tensors a Problem points into, in the layouts it wants them.
struct Arguments {
  Tensor input, offset, weight;
  std::optional<Tensor> mask;
  std::vector<char> zero_row;
  std::vector<char> packed;
  Problem problem{};

  Arguments(const Tensor& input_, const Tensor& offset_, const Tensor& weight_,
            const std::optional<Tensor>& mask_, const Geometry& geometry)
      : input(torch::stable::contiguous(input_, MemoryFormat::ChannelsLast3d)),
        offset(torch::stable::contiguous(offset_)),
        weight(torch::stable::contiguous(weight_)) {
    if (mask_) mask = torch::stable::contiguous(*mask_);
    Problem& p = problem;
    p.batch = input.size(0);
    p.channels = input.size(1);
    p.out_channels = weight.size(0);
    p.groups = p.channels / weight.size(1);
    for (int d = 0; d < 3; ++d) {
      p.in_size[d] = input.size(2 + d);
      p.out_size[d] = offset.size(2 + d);
      p.kernel[d] = weight.size(2 + d);
      p.stride[d] = geometry.stride[d];
      p.padding[d] = geometry.padding[d];
      p.dilation[d] = geometry.dilation[d];
      p.moves[d] = geometry.dims.find("THW"[d]) != std::string::npos;
    }
    p.moving = static_cast<int64_t>(geometry.dims.size());
    p.offset_groups = offset.size(1) / (p.taps() * p.moving);
    STD_TORCH_CHECK(p.in_size[0] * p.in_frame() < (int64_t(1) << 31),
                    "deform_conv3d: a clip of more than 2^31 pixels is not supported");
    p.dtype = dtype_of(input);
    p.offset_dtype = dtype_of(offset);
    zero_row.assign(p.channels * size_of(input.scalar_type()), 0);
    p.input = input.const_data_ptr();
    p.offset = offset.const_data_ptr();
    p.weight = weight.const_data_ptr();
    p.mask = mask ? mask->const_data_ptr() : nullptr;
    p.zero_row = zero_row.data();
  }
};

Tensor forward(const Tensor& input, const Tensor& offset, const Tensor& weight,
               const std::optional<Tensor>& bias, const std::optional<Tensor>& mask, Sizes stride,
               Sizes padding, Sizes dilation, std::string dims, double negative_slope) {
  Arguments arguments(input, offset, weight, mask, {stride, padding, dilation, dims});
  Problem& p = arguments.problem;
  const Kernels& kernels = current_kernels(p.dtype);
  std::optional<Tensor> bias_values;
  if (bias) bias_values = torch::stable::contiguous(*bias);
  p.bias = bias ? bias_values->const_data_ptr() : nullptr;
  p.output_channels_last = is_channels_last(input);
  p.negative_slope = negative_slope;
  Tensor output = empty({p.batch, p.out_channels, p.out_size[0], p.out_size[1], p.out_size[2]},
                        input.scalar_type(), input, p.output_channels_last);
  p.output = output.mutable_data_ptr();
  arguments.packed.resize(kernels.packed_size(p));
  p.packed_weight = arguments.packed.data();
  kernels.pack_forward(p);

  const int64_t tile = kernels.forward_tile(p);
  const int64_t tiles = (p.out_frame() + tile - 1) / tile;
  for_each_item(p.batch * p.out_size[0] * tiles, kernels.forward_scratch(p),
                [&](int64_t item, void* scratch) {
                  const int64_t frame = item / tiles, first = item % tiles * tile;
                  const int64_t rest = p.out_frame() - first;
                  kernels.forward(p, frame / p.out_size[0], frame % p.out_size[0], first,
                                  rest < tile ? rest : tile, scratch);
                });
  return output;
}

Tensor bias_gradient(const Problem& p, const Kernels& kernels, const Tensor& input) {
  const int64_t frames = p.batch * p.out_size[0];
  std::vector<double> sums(frames * p.out_channels);
  for_each_item(frames, 0, [&](int64_t frame, void*) {
    kernels.sum_frame(p, frame, sums.data() + frame * p.out_channels);
  });
  std::vector<double> total(p.out_channels);
  for (size_t i = 0; i < sums.size(); ++i) total[i % p.out_channels] += sums[i];
  Tensor grad_bias = empty({p.out_channels}, input.scalar_type(), input);
  kernels.store_bias(p, total.data(), grad_bias.mutable_data_ptr());
  return grad_bias;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& input, const Tensor& offset, const Tensor& weight,
    const std::optional<Tensor>& mask, Sizes stride, Sizes padding, Sizes dilation,
    std::string dims, bool need_input, bool need_offset, bool need_weight, bool need_mask,
    bool need_bias) {
  Arguments arguments(input, offset, weight, mask, {stride, padding, dilation, dims});
  Problem& p = arguments.problem;
  const Kernels& kernels = current_kernels(p.dtype);
  const ScalarType dtype = input.scalar_type();
  const Tensor grad_rows = torch::stable::contiguous(grad, MemoryFormat::ChannelsLast3d);
  p.grad = grad_rows.const_data_ptr();
  need_mask = need_mask && mask.has_value();

  // A tensor of its own for each gradient that is not needed: outputs must not alias.
  const auto absent = [&] { return empty({0}, dtype, input); };
  Tensor grad_input = need_input ? empty(sizes_of(input), dtype, input, true) : absent();
  // Taps that reach outside the clip in time are skipped: their gradients stay zero.
  Tensor grad_offset = need_offset ? zeros(sizes_of(offset), offset.scalar_type(), offset) : absent();
  Tensor grad_mask = need_mask ? zeros(sizes_of(*mask), dtype, *mask) : absent();
  Tensor grad_weight = need_weight ? empty(sizes_of(weight), dtype, weight) : absent();
  p.grad_input = need_input ? grad_input.mutable_data_ptr() : nullptr;
  p.grad_offset = need_offset ? grad_offset.mutable_data_ptr() : nullptr;
  p.grad_mask = need_mask ? grad_mask.mutable_data_ptr() : nullptr;
  p.grad_weight = need_weight ? grad_weight.mutable_data_ptr() : nullptr;

  if (need_input || need_offset || need_mask || need_weight) {
    arguments.packed.resize(kernels.packed_size(p));
    p.packed_weight = arguments.packed.data();
    kernels.pack_backward(p);
    const int64_t volumes = p.batch * (p.moves[0] ? 1 : p.in_size[0]);
    const int64_t chunks = volumes < kMaxChunks ? volumes : kMaxChunks;
    const int64_t sum_bytes = p.taps() * p.channels * (p.out_channels / p.groups) *
                              (p.dtype == Dtype::float64 ? 8 : 4);
    std::vector<char> sums(need_weight ? chunks * sum_bytes : 0);
    p.weight_sums = sums.data();
    for_each_item(chunks, kernels.backward_scratch(p), [&](int64_t chunk, void* scratch) {
      void* sum = need_weight ? sums.data() + chunk * sum_bytes : nullptr;
      for (int64_t volume = volumes * chunk / chunks; volume < volumes * (chunk + 1) / chunks;
           ++volume)
        kernels.backward(p, volume, sum, scratch);
    });
    if (need_weight) kernels.finish_weight(p, chunks);
  }
  return {need_input ? in_layout_of(input, grad_input) : absent(),
          need_offset ? in_layout_of(offset, grad_offset) : absent(),
          need_weight ? in_layout_of(weight, grad_weight) : absent(),
          need_mask ? in_layout_of(*mask, grad_mask) : absent(),
          need_bias ? bias_gradient(p, kernels, input) : absent()};
}

}  // namespace
}  // namespace d3dnet

// Tests build the kernels of other machines beside these, for operators of their own.
#ifndef D3DNET_OPERATORS
#define D3DNET_OPERATORS d3dnet
#endif
STABLE_TORCH_LIBRARY_IMPL(D3DNET_OPERATORS, CPU, m) {
  m.impl("deform_conv3d", TORCH_BOX(&d3dnet::forward));
  m.impl("deform_conv3d_backward", TORCH_BOX(&d3dnet::backward));
}
