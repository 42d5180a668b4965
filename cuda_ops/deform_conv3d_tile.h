// Deformable convolution of one tile, forward and backward, for one instruction set.
//
// Forward: the samples of a block of taps are gathered into a column buffer that stays in the
// second-level cache, and multiplied by the packed weights at once. Backward: tap by tap, the
// column gradients of a tile are multiplied out, then reduced to offset gradients, scattered into
// the input gradient and, with the columns gathered again, multiplied into the weight gradient.
#pragma once

#include <type_traits>

#include "gemm.h"
#include "problem.h"
#include "sampling.h"

namespace {

constexpr int64_t kCacheLine = 64;
// Bytes of columns gathered before they are multiplied; half of a usual second-level cache.
constexpr int64_t kColumnBytes = 450 << 10;
// Tiles are multiples of this many pixels: whole strips, and whole blocks of rows.
constexpr int64_t kTileStep = 96;

// Carves arrays out of one scratch block; without a block it only counts the bytes.
struct Arena {
  char* at;
  int64_t used = 0;
  template <typename V>
  V* take(int64_t count) {
    V* taken = reinterpret_cast<V*>(at + used);
    used += round_up(count * int64_t(sizeof(V)), kCacheLine);
    return taken;
  }
};

// Calls f with the number of channels as a compile-time constant where the combination with the
// number of corners is a common one.
template <int Corners, typename F>
inline void with_channels(int64_t run, F&& f) {
  if (Corners == 4 && run == 32) return f(std::integral_constant<int, Corners == 4 ? 32 : 0>{});
  if (Corners == 4 && run == 64) return f(std::integral_constant<int, Corners == 4 ? 64 : 0>{});
  f(std::integral_constant<int, 0>{});
}

// T is the features' type, Column that of the matrices that are multiplied.
template <typename T, typename Column = Compute<T>>
struct Tile {
  using S = Compute<T>;

  // ---- sizes ---------------------------------------------------------------------------------

  static int64_t group_outputs(const Problem& p) { return p.out_channels / p.groups; }
  static int64_t group_channels(const Problem& p) { return p.channels / p.groups; }
  // Taps of a temporal plane whose columns stand side by side; with groups, one at a time.
  static int64_t block_taps(const Problem& p) {
    if (p.groups > 1) return 1;
    const int64_t fitting = kColumnBytes / (kTileStep * p.channels * int64_t(sizeof(Column)));
    return fitting < 1 ? 1 : min(fitting, p.plane_taps());
  }
  static int64_t tile_pixels(const Problem& p, int64_t column_bytes, int64_t most) {
    const int64_t pixel = block_taps(p) * p.channels * int64_t(sizeof(Column));
    const int64_t tile = column_bytes / pixel / kTileStep * kTileStep;
    return tile < kTileStep ? kTileStep : min(tile, most);
  }
  static int64_t forward_tile(const Problem& p) { return tile_pixels(p, kColumnBytes, 192); }
  static int64_t backward_tile(const Problem& p) { return tile_pixels(p, kColumnBytes / 2, 192); }

  // Elements of the packed weights of one tap and group. With several taps in a block they share
  // what padding a block needs, so that none needs more.
  static int64_t forward_elements(const Problem& p) {
    return packed_elements((Column*)nullptr, group_channels(p), group_outputs(p));
  }
  static int64_t backward_elements(const Problem& p) {
    return packed_elements((Column*)nullptr, group_outputs(p), group_channels(p));
  }
  static int64_t packed_size(const Problem& p) {
    const int64_t forward = forward_elements(p), backward = backward_elements(p);
    return p.taps() * p.groups * (forward > backward ? forward : backward) *
           int64_t(sizeof(Column));
  }

  // ---- weights -------------------------------------------------------------------------------

  // Per temporal plane, block of taps and group: a matrix (taps of the block x channels, outputs).
  static Column* forward_weight(const Problem& p, int64_t plane, int64_t tap, int64_t group) {
    return static_cast<Column*>(p.packed_weight) +
           ((plane * p.plane_taps() + tap) * p.groups + group) * forward_elements(p);
  }
  static void pack_forward(const Problem& p) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t plane = 0; plane < p.kernel[0]; ++plane)
      for (int64_t tap = 0; tap < p.plane_taps(); tap += block_taps(p)) {
        const int64_t taps = min(block_taps(p), p.plane_taps() - tap);
        for (int64_t group = 0; group < p.groups; ++group) {
          const T* from = weight + group * outputs * channels * p.taps() +
                          plane * p.plane_taps() + tap;
          pack(forward_weight(p, plane, tap, group), taps * channels, outputs,
               [&](int64_t row, int64_t o) {
                 const int64_t k = row / channels, c = row % channels;
                 return S(load_one(from + (o * channels + c) * p.taps() + k));
               });
        }
      }
  }

  // Per tap and group: a matrix (outputs, channels).
  static Column* backward_weight(const Problem& p, int64_t tap, int64_t group) {
    return static_cast<Column*>(p.packed_weight) +
           (tap * p.groups + group) * backward_elements(p);
  }
  static void pack_backward(const Problem& p) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t tap = 0; tap < p.taps(); ++tap)
      for (int64_t group = 0; group < p.groups; ++group) {
        const T* from = weight + group * outputs * channels * p.taps() + tap;
        pack(backward_weight(p, tap, group), outputs, channels, [&](int64_t o, int64_t c) {
          return S(load_one(from + (o * channels + c) * p.taps()));
        });
      }
  }

  // ---- columns -------------------------------------------------------------------------------

  static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

  // The frame that tap plane `plane` of output frame `to` reads, or the whole clip when T moves.
  static int64_t source_frame(const Problem& p, int64_t to, int64_t plane) {
    return p.moves[0] ? 0 : to * p.stride[0] - p.padding[0] + plane * p.dilation[0];
  }
  static bool reads_clip(const Problem& p, int64_t to, int64_t plane) {
    const int64_t frame = source_frame(p, to, plane);
    return frame >= 0 && frame < p.in_size[0];
  }
  static const T* volume_at(const Problem& p, int64_t b, int64_t frame) {
    return static_cast<const T*>(p.input) +
           (b * p.in_size[0] + frame) * p.in_frame() * p.channels;
  }

  // For every strip of a tile and every offset group: finds the samples of `taps` taps from
  // `tap` on and calls f(dims, run as a constant, group, first pixel within the tile).
  template <typename F>
  static void for_each_strip(const Problem& p, int64_t b, int64_t to, int64_t first, int64_t count,
                             int64_t tap, int64_t taps, Strip& strip, Samples<S>* samples, F&& f) {
    for (int64_t at = 0; at < count; at += kStrip) {
      place_strip(p, to, first + at, min(kStrip, count - at), strip);
      for (int64_t group = 0; group < p.offset_groups; ++group) {
        for (int64_t k = 0; k < taps; ++k)
          find_samples<S, T>(p, b, to, first + at, strip, tap + k, group, samples[k]);
        with_dims(p, [&](auto dims) {
          with_channels<decltype(dims)::corners>(
              p.channels / p.offset_groups,
              [&](auto channels) { f(dims, channels, group, at); });
        });
      }
    }
  }

  // ---- forward -------------------------------------------------------------------------------

  struct ForwardScratch {
    Strip* strip;
    Samples<S>* samples;
    Column* columns;
    S* sums;
    ForwardScratch(const Problem& p, Arena& arena) {
      const int64_t tile = forward_tile(p);
      strip = arena.take<Strip>(1);
      samples = arena.take<Samples<S>>(block_taps(p));
      columns = arena.take<Column>(tile * block_taps(p) * p.channels);
      sums = arena.take<S>(tile * p.out_channels);
    }
  };
  static int64_t forward_scratch(const Problem& p) {
    Arena arena{nullptr};
    ForwardScratch scratch(p, arena);
    return arena.used;
  }

  static void forward(const Problem& p, int64_t b, int64_t to, int64_t first, int64_t count,
                      void* memory) {
    Arena arena{static_cast<char*>(memory)};
    ForwardScratch s(p, arena);
    const MatrixUnit<Column> unit;
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t o = 0; o < p.out_channels; ++o)
        s.sums[i * p.out_channels + o] = p.bias ? load_one(static_cast<const T*>(p.bias) + o) : S(0);

    for (int64_t plane = 0; plane < p.kernel[0]; ++plane) {
      if (!reads_clip(p, to, plane)) continue;
      const T* volume = volume_at(p, b, source_frame(p, to, plane));
      for (int64_t tap = 0; tap < p.plane_taps(); tap += block_taps(p)) {
        const int64_t taps = min(block_taps(p), p.plane_taps() - tap), row = taps * p.channels;
        for_each_strip(
            p, b, to, first, count, plane * p.plane_taps() + tap, taps, *s.strip, s.samples,
            [&](auto dims, auto constant, int64_t group, int64_t at) {
              const int64_t run = p.channels / p.offset_groups;
              gather<decltype(dims)::corners, decltype(constant)::value>(
                  s.samples, taps, volume + group * run, p.channels, run,
                  static_cast<const T*>(p.zero_row), s.columns + at * row + group * run, row,
                  p.channels);
            });
        for (int64_t group = 0; group < p.groups; ++group)
          multiply_packed(count, outputs, taps * channels, s.columns + group * channels, row,
                          forward_weight(p, plane, tap, group), s.sums + group * outputs,
                          p.out_channels, true);
      }
    }
    const S slope = S(p.negative_slope);
    for (int64_t i = 0; i < count * p.out_channels; ++i)
      s.sums[i] = s.sums[i] < S(0) ? slope * s.sums[i] : s.sums[i];
    write_output(p, b, to, first, count, s.sums);
  }

  static void write_output(const Problem& p, int64_t b, int64_t to, int64_t first, int64_t count,
                           const S* sums) {
    const int64_t frame = p.out_frame(), outputs = p.out_channels;
    T* output = static_cast<T*>(p.output);
    if (p.output_channels_last) {
      T* at = output + ((b * p.out_size[0] + to) * frame + first) * outputs;
      for (int64_t i = 0; i < count * outputs; ++i) store_one(at + i, sums[i]);
    } else {
      for (int64_t o = 0; o < outputs; ++o) {
        T* at = output + ((b * outputs + o) * p.out_size[0] + to) * frame + first;
        for (int64_t i = 0; i < count; ++i) store_one(at + i, sums[i * outputs + o]);
      }
    }
  }

  // ---- backward ------------------------------------------------------------------------------

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
      const int64_t tile = backward_tile(p), taps = block_taps(p);
      strip = arena.take<Strip>(1);
      samples = arena.take<Samples<S>>(taps);
      // The last panel may be read past the last row.
      columns = arena.take<Column>(tile * taps * p.channels + kWide * kLanes<S>);
      grad = arena.take<Column>(tile * p.out_channels);
      workspace = arena.take<Column>(workspace_elements((Column*)nullptr, group_outputs(p), tile));
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
        if (!reads_clip(p, to, plane) || source_frame(p, to, plane) != frame) continue;
        for (int64_t first = 0; first < p.out_frame(); first += backward_tile(p)) {
          const int64_t count = min(backward_tile(p), p.out_frame() - first);
          read_values(static_cast<const T*>(p.grad) +
                          ((b * p.out_size[0] + to) * p.out_frame() + first) * p.out_channels,
                      count * p.out_channels, s.grad);
          for (int64_t tap = 0; tap < p.plane_taps(); tap += block_taps(p))
            backward_taps(p, b, to, first, count, plane * p.plane_taps() + tap,
                          min(block_taps(p), p.plane_taps() - tap), input, grad_volume,
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
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const int64_t row = taps * p.channels;
    const bool need_dots = p.grad_offset || p.grad_mask;
    const T* zeros = static_cast<const T*>(p.zero_row);
    if (need_dots || grad_volume)
      for (int64_t k = 0; k < taps; ++k)
        for (int64_t group = 0; group < p.groups; ++group)
          multiply_packed(count, channels, outputs, s.grad + group * outputs, p.out_channels,
                          backward_weight(p, tap + k, group),
                          s.grad_columns + k * p.channels + group * channels, row, false);
    for_each_strip(
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
    const int64_t outputs = group_outputs(p), channels = group_channels(p), taps = p.taps();
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

  static constexpr d3dnet::Kernels kernels() {
    return {packed_size, pack_forward,     pack_backward, forward_tile,  forward_scratch, forward,
            backward_scratch, backward, finish_weight, sum_frame,     store_bias};
  }
};

}  // namespace

// The table of this instruction set, in the order of Dtype.
#define D3DNET_DEFINE_KERNELS(name)                                                     \
  const d3dnet::Kernels* d3dnet::name() {                                               \
    static constexpr d3dnet::Kernels kTable[4] = {                                      \
        Tile<float>::kernels(), Tile<double>::kernels(), Tile<bfloat16>::kernels(),     \
        Tile<float16>::kernels()};                                                      \
    return kTable;                                                                      \
  }
