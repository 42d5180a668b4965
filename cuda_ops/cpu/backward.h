// Backward: tap by tap, the column gradients of a tile are multiplied out, then reduced to offset
// gradients, scattered into the input gradient and, with the columns gathered again, multiplied
// into the weight gradient.
#pragma once

#include "columns.h"

namespace {

template <typename T, typename Column>
struct Backward {
  using S = Compute<T>;
  using Of = Columns<T, Column>;

  // Per tap and group: a matrix (outputs, channels).
  static Column* backward_weight(const Problem& p, int64_t tap, int64_t group) {
    return static_cast<Column*>(p.packed_weight) +
           (tap * p.groups + group) * Of::backward_elements(p);
  }
  static void pack_backward(const Problem& p) {
    const int64_t outputs = Of::group_outputs(p), channels = Of::group_channels(p);
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t tap = 0; tap < p.taps(); ++tap)
      for (int64_t group = 0; group < p.groups; ++group) {
        const T* from = weight + group * outputs * channels * p.taps() + tap;
        pack(backward_weight(p, tap, group), outputs, channels, [&](int64_t o, int64_t c) {
          return S(load_one(from + (o * channels + c) * p.taps()));
        });
      }
  }

  struct BackwardScratch {
    Strip* strip;
    Samples<S>* samples;
    Column *columns, *grad, *workspace;
    S* grad_columns;
    S (*dots)[kStrip][kMaxCorners];
    S (*grad_offset)[kStrip];
    S* grad_mask;
    S* grad_volume;  // float32 sums for a 16-bit input gradient
    BackwardScratch(const Problem& p, Arena& arena) {
      const int64_t tile = Of::backward_tile(p), taps = Of::block_taps(p);
      strip = arena.take<Strip>(1);
      samples = arena.take<Samples<S>>(taps);
      // The last panel may be read past the last row.
      columns = arena.take<Column>(tile * taps * p.channels + kWide * kLanes<S>);
      grad = arena.take<Column>(tile * p.out_channels);
      workspace = arena.take<Column>(workspace_elements((Column*)nullptr, Of::group_outputs(p), tile));
      grad_columns = arena.take<S>(tile * taps * p.channels);
      dots = arena.take<S[kStrip][kMaxCorners]>(taps);
      grad_offset = arena.take<S[kStrip]>(3);
      grad_mask = arena.take<S>(kStrip);
      const bool sums = sizeof(T) < sizeof(S) && p.grad_input;
      grad_volume = arena.take<S>(sums ? volume_size(p) : 0);
    }
  };
  static int64_t volume_size(const Problem& p) {
    return (p.moves[0] ? p.in_size[0] : 1) * p.in_frame() * p.channels;
  }
  static int64_t backward_scratch(const Problem& p) {
    Arena arena{nullptr};
    BackwardScratch scratch(p, arena);
    return arena.used;
  }

  static void backward(const Problem& p, int64_t volume, void* weight_sum, void* memory) {
    Arena arena{static_cast<char*>(memory)};
    BackwardScratch s(p, arena);
    const MatrixUnit<Column> unit;
    const int64_t frames = p.moves[0] ? 1 : p.in_size[0];
    const int64_t b = volume / frames, frame = volume % frames;
    const T* input = static_cast<const T*>(p.input) + volume * volume_size(p);
    S* grad_volume = nullptr;
    T* grad_input = nullptr;
    if (p.grad_input) {
      grad_input = static_cast<T*>(p.grad_input) + volume * volume_size(p);
      if constexpr (sizeof(T) == sizeof(S))
        grad_volume = reinterpret_cast<S*>(grad_input);
      else
        grad_volume = s.grad_volume;
      std::memset(grad_volume, 0, size_t(volume_size(p)) * sizeof(S));
    }
    for (int64_t to = 0; to < p.out_size[0]; ++to)
      for (int64_t plane = 0; plane < p.kernel[0]; ++plane) {
        if (!Of::reads_clip(p, to, plane) || Of::source_frame(p, to, plane) != frame) continue;
        for (int64_t first = 0; first < p.out_frame(); first += Of::backward_tile(p)) {
          const int64_t count = Of::min(Of::backward_tile(p), p.out_frame() - first);
          read_values(static_cast<const T*>(p.grad) +
                          ((b * p.out_size[0] + to) * p.out_frame() + first) * p.out_channels,
                      count * p.out_channels, s.grad);
          for (int64_t tap = 0; tap < p.plane_taps(); tap += Of::block_taps(p))
            backward_taps(p, b, to, first, count, plane * p.plane_taps() + tap,
                          Of::min(Of::block_taps(p), p.plane_taps() - tap), input, grad_volume,
                          static_cast<S*>(weight_sum), s);
        }
      }
    if constexpr (sizeof(T) < sizeof(S))
      if (p.grad_input)
        for (int64_t i = 0; i < volume_size(p); ++i) store_one(grad_input + i, grad_volume[i]);
  }

  static void backward_taps(const Problem& p, int64_t b, int64_t to, int64_t first, int64_t count,
                            int64_t tap, int64_t taps, const T* input, S* grad_volume,
                            S* weight_sum, const BackwardScratch& s) {
    const int64_t outputs = Of::group_outputs(p), channels = Of::group_channels(p);
    const int64_t row = taps * p.channels;
    const bool need_dots = p.grad_offset || p.grad_mask;
    const T* zeros = static_cast<const T*>(p.zero_row);
    if (need_dots || grad_volume)
      for (int64_t k = 0; k < taps; ++k)
        for (int64_t group = 0; group < p.groups; ++group)
          multiply_packed(count, channels, outputs, s.grad + group * outputs, p.out_channels,
                          backward_weight(p, tap + k, group),
                          s.grad_columns + k * p.channels + group * channels, row, false);
    Of::for_each_strip(
        p, b, to, first, count, tap, taps, *s.strip, s.samples,
        [&](auto dims, auto constant, int64_t group, int64_t at) {
          constexpr int kCorners = decltype(dims)::corners, kRun = decltype(constant)::value;
          const int64_t run = p.channels / p.offset_groups, channel = group * run;
          S* grad_columns = s.grad_columns + at * row + channel;
          if (weight_sum)
            gather<kCorners, kRun>(s.samples, taps, input + channel, p.channels, run, zeros,
                                   s.columns + at * row + channel, row, p.channels);
          if (grad_volume)
            scatter<kCorners, kRun>(s.samples, taps, grad_volume + channel, p.channels, run,
                                    grad_columns, row, p.channels);
          if (!need_dots) return;
          corner_dots<kCorners, kRun>(s.samples, taps, input + channel, p.channels, run, zeros,
                                      grad_columns, row, p.channels, s.dots);
          for (int64_t k = 0; k < taps; ++k) {
            offset_gradients<S, decltype(dims)>(s.samples[k], s.dots[k], s.grad_offset,
                                                s.grad_mask);
            write_offset_gradients(p, b, to, first + at, s.samples[k].count, tap + k, group, s);
          }
        });
    if (weight_sum)
      for (int64_t group = 0; group < p.groups; ++group)
        multiply_transposed(outputs, taps * channels, count, s.grad + group * outputs,
                            p.out_channels, s.columns + group * channels, row,
                            weight_sum + tap * p.channels + group * channels,
                            p.taps() * p.channels, s.workspace);
  }

  static void write_offset_gradients(const Problem& p, int64_t b, int64_t to, int64_t first,
                                     int64_t count, int64_t tap, int64_t group,
                                     const BackwardScratch& s) {
    const int64_t volume = p.out_size[0] * p.out_frame(), at = to * p.out_frame() + first;
    const int64_t row = (b * p.offset_groups + group) * p.taps() + tap;
    if (p.grad_offset)
      for (int64_t d = 0; d < p.moving; ++d) {
        const int64_t into = (row * p.moving + d) * volume + at;
        if (p.offset_dtype == p.dtype)
          write_values(s.grad_offset[d], count, static_cast<T*>(p.grad_offset) + into);
        else
          write_values(s.grad_offset[d], count, static_cast<float*>(p.grad_offset) + into);
      }
    if (p.grad_mask)
      write_values(s.grad_mask, count, static_cast<T*>(p.grad_mask) + row * volume + at);
  }
  template <typename V>
  static void write_values(const S* from, int64_t count, V* to) {
    for (int64_t i = 0; i < count; ++i) store_one(to + i, from[i]);
  }

  // A partial sum of the weight gradient is laid out (output of the group, tap, channel).
  static void finish_weight(const Problem& p, int64_t chunks) {
    const int64_t outputs = Of::group_outputs(p), channels = Of::group_channels(p), taps = p.taps();
    const int64_t size = outputs * taps * p.channels;
    const S* sums = static_cast<const S*>(p.weight_sums);
    T* grad_weight = static_cast<T*>(p.grad_weight);
    for (int64_t o = 0; o < p.out_channels; ++o)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t group = o / outputs;
          const S* at = sums + (o % outputs * taps + tap) * p.channels + group * channels + c;
          S sum = 0;
          for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += at[chunk * size];
          store_one(grad_weight + (o * channels + c) * taps + tap, sum);
        }
  }

  static void sum_frame(const Problem& p, int64_t frame, double* sums) {
    const T* grad = static_cast<const T*>(p.grad) + frame * p.out_frame() * p.out_channels;
    for (int64_t o = 0; o < p.out_channels; ++o) sums[o] = 0;
    for (int64_t i = 0; i < p.out_frame(); ++i, grad += p.out_channels)
      for (int64_t o = 0; o < p.out_channels; ++o) sums[o] += load_one(grad + o);
  }
  static void store_bias(const Problem& p, const double* sums, void* grad_bias) {
    for (int64_t o = 0; o < p.out_channels; ++o)
      store_one(static_cast<T*>(grad_bias) + o, S(sums[o]));
  }
};

}  // namespace
