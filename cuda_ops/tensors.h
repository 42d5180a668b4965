// Tensors as the launchers of both libraries make and read them, on the LibTorch Stable ABI.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace d3dnet {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

inline int64_t size_of(ScalarType dtype) {
  return dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
}

inline Sizes sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Sizes(sizes.begin(), sizes.end());
}

// Whether results that follow `tensor` are channels last: contract.empty_in_layout_of.
inline bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int d : {1, 4, 3, 2, 0}) {
    if (tensor.size(d) == 1) continue;
    if (tensor.stride(d) != expected) return false;
    expected *= tensor.size(d);
  }
  return true;
}

inline MemoryFormat format(bool channels_last) {
  return channels_last ? MemoryFormat::ChannelsLast3d : MemoryFormat::Contiguous;
}

// On the device of `on`.
inline Tensor empty(const Sizes& sizes, ScalarType dtype, const Tensor& on,
                    bool channels_last = false) {
  return torch::stable::empty(sizes, dtype, std::nullopt, on.device(), std::nullopt,
                              format(channels_last));
}
inline Tensor zeros(const Sizes& sizes, ScalarType dtype, const Tensor& on,
                    bool channels_last = false) {
  Tensor tensor = empty(sizes, dtype, on, channels_last);
  return torch::stable::zero_(tensor);
}

// A copy of `tensor` in the layout that belongs to `like`, or `tensor` where it has it already.
inline Tensor in_layout_of(const Tensor& like, const Tensor& tensor) {
  return torch::stable::contiguous(tensor, format(is_channels_last(like)));
}

}  // namespace
}  // namespace d3dnet
