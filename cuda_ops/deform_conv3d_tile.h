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
constexpr int64_t kColumnBytes = 400 << 10;

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

// Calls f with the number of channels as a compile-time constant where it is a common one.
template <typename F>
inline void with_channels(int64_t run, F&& f) {
  switch (run) {
    case 32: return f(std::integral_constant<int, 32>{});
    case 64: return f(std::integral_constant<int, 64>{});
    default: return f(std::integral_constant<int, 0>{});
  }
}

template <typename T>
struct Tile {
  using S = Compute<T>;

  // ---- sizes ---------------------------------------------------------------------------------

  static int64_t group_outputs(const Problem& p) { return p.out_channels / p.groups; }
  static int64_t group_channels(const Problem& p) { return p.channels / p.groups; }
  // Columns of all taps of a block stand side by side; with groups that only works tap by tap.
  static int64_t block_taps(const Problem& p) {
    if (p.groups > 1) return 1;
    const int64_t fitting = kColumnBytes / (128 * p.channels * int64_t(sizeof(S)));
    return fitting < 1 ? 1 : fitting < p.plane_taps() ? fitting : p.plane_taps();
  }
  static int64_t forward_tile(const Problem& p) {
    const int64_t pixel = block_taps(p) * p.channels * int64_t(sizeof(S));
    int64_t tile = kColumnBytes / pixel / kBlockRows * kBlockRows;
    tile = tile < 4 * kBlockRows ? 4 * kBlockRows : tile;
    return tile < kMaxTile ? tile : kMaxTile / kBlockRows * kBlockRows;
  }
  static int64_t backward_tile(const Problem&) { return kMaxTile / kBlockRows * kBlockRows; }

  // Packed weights of `rows` x `columns`, in panels.
  static int64_t packed_matrix(int64_t rows, int64_t columns) {
    return rows * round_up(columns, kPanel<S>);
  }
  static int64_t packed_size(const Problem& p) {
    const int64_t forward = packed_matrix(group_channels(p), group_outputs(p));
    const int64_t backward = packed_matrix(group_outputs(p), group_channels(p));
    return p.taps() * p.groups * (forward > backward ? forward : backward) * int64_t(sizeof(S));
  }

  // ---- weights -------------------------------------------------------------------------------

  // Element (row, column) of a matrix packed in panels.
  static S& packed_at(S* matrix, int64_t rows, int64_t row, int64_t column) {
    const int64_t panel = column / kPanel<S>, lane = column % kPanel<S>;
    return matrix[(panel * rows + row) * kPanel<S> + lane];
  }
  static S weight_at(const Problem& p, int64_t output, int64_t channel, int64_t tap) {
    const T* weight = static_cast<const T*>(p.weight);
    return load_one(weight + (output * group_channels(p) + channel) * p.taps() + tap);
  }

  // Per temporal plane, block of taps and group: a matrix (taps of the block x channels, outputs).
  static S* forward_weight(const Problem& p, int64_t plane, int64_t tap, int64_t group) {
    const int64_t matrix = packed_matrix(group_channels(p), group_outputs(p));
    return static_cast<S*>(p.packed_weight) +
           ((plane * p.plane_taps() + tap) * p.groups + group) * matrix;
  }
  static void pack_forward(const Problem& p) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const int64_t padded = round_up(outputs, kPanel<S>);
    for (int64_t plane = 0; plane < p.kernel[0]; ++plane)
      for (int64_t first = 0; first < p.plane_taps(); first += block_taps(p)) {
        const int64_t taps = min(block_taps(p), p.plane_taps() - first);
        for (int64_t group = 0; group < p.groups; ++group) {
          S* matrix = forward_weight(p, plane, first, group);
          for (int64_t o = 0; o < padded; ++o)
            for (int64_t k = 0; k < taps; ++k)
              for (int64_t c = 0; c < channels; ++c)
                packed_at(matrix, taps * channels, k * channels + c, o) =
                    o < outputs ? weight_at(p, group * outputs + o, c,
                                            plane * p.plane_taps() + first + k)
                                : S(0);
        }
      }
  }

  // Per tap and group: a matrix (outputs, channels).
  static S* backward_weight(const Problem& p, int64_t tap, int64_t group) {
    const int64_t matrix = packed_matrix(group_outputs(p), group_channels(p));
    return static_cast<S*>(p.packed_weight) + (tap * p.groups + group) * matrix;
  }
  static void pack_backward(const Problem& p) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const int64_t padded = round_up(channels, kPanel<S>);
    for (int64_t tap = 0; tap < p.taps(); ++tap)
      for (int64_t group = 0; group < p.groups; ++group) {
        S* matrix = backward_weight(p, tap, group);
        for (int64_t o = 0; o < outputs; ++o)
          for (int64_t c = 0; c < padded; ++c)
            packed_at(matrix, outputs, o, c) =
                c < channels ? weight_at(p, group * outputs + o, c, tap) : S(0);
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

  // Gathers the channels of offset group `group` into their place in `columns`.
  static void gather_group(const Problem& p, const Samples<S>& samples, const T* volume,
                           int64_t group, S* columns, int64_t column_row) {
    const int64_t run = p.channels / p.offset_groups, at = group * run;
    with_dims(p, [&](auto dims) {
      with_channels(run, [&](auto channels) {
        gather<decltype(dims)::corners, decltype(channels)::value>(
            samples, volume + at, p.channels, run, static_cast<const T*>(p.zero_row),
            columns + at, column_row);
      });
    });
  }

  // ---- forward -------------------------------------------------------------------------------

  struct ForwardScratch {
    TilePixels* pixels;
    Samples<S>* samples;
    S *columns, *sums;
    ForwardScratch(const Problem& p, Arena& arena) {
      const int64_t tile = forward_tile(p);
      pixels = arena.take<TilePixels>(1);
      samples = arena.take<Samples<S>>(1);
      columns = arena.take<S>(tile * block_taps(p) * p.channels);
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
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    place_tile(p, to, first, count, *s.pixels);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t o = 0; o < p.out_channels; ++o)
        s.sums[i * p.out_channels + o] = p.bias ? load_one(static_cast<const T*>(p.bias) + o) : S(0);

    for (int64_t plane = 0; plane < p.kernel[0]; ++plane) {
      if (!reads_clip(p, to, plane)) continue;
      const T* volume = volume_at(p, b, source_frame(p, to, plane));
      for (int64_t tap = 0; tap < p.plane_taps(); tap += block_taps(p)) {
        const int64_t taps = min(block_taps(p), p.plane_taps() - tap);
        const int64_t row = taps * p.channels;
        for (int64_t k = 0; k < taps; ++k)
          for (int64_t group = 0; group < p.offset_groups; ++group) {
            find_samples<S, T>(p, b, to, first, *s.pixels, plane * p.plane_taps() + tap + k, group,
                               *s.samples);
            gather_group(p, *s.samples, volume, group, s.columns + k * p.channels, row);
          }
        for (int64_t group = 0; group < p.groups; ++group)
          multiply<false>(count, outputs, taps * channels, s.columns + group * channels, row,
                          forward_weight(p, plane, tap, group), kPanel<S>,
                          taps * channels * kPanel<S>, s.sums + group * outputs, p.out_channels,
                          true);
      }
    }
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
    TilePixels* pixels;
    Samples<S>* samples;
    S *columns, *grad_columns, *grad;
    S (*dots)[kMaxCorners];
    S (*grad_offset)[kMaxTile];
    S* grad_mask;
    S* grad_volume;  // float32 sums for a 16-bit input gradient
    BackwardScratch(const Problem& p, Arena& arena) {
      const int64_t tile = backward_tile(p);
      pixels = arena.take<TilePixels>(1);
      samples = arena.take<Samples<S>>(1);
      columns = arena.take<S>(tile * p.channels);
      grad_columns = arena.take<S>(tile * p.channels);
      // The last panel of a block may read past the last row.
      grad = arena.take<S>(tile * p.out_channels + kPanel<S>);
      dots = arena.take<S[kMaxCorners]>(kMaxTile);
      grad_offset = arena.take<S[kMaxTile]>(3);
      grad_mask = arena.take<S>(kMaxTile);
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
          place_tile(p, to, first, count, *s.pixels);
          read_values(static_cast<const T*>(p.grad) +
                          ((b * p.out_size[0] + to) * p.out_frame() + first) * p.out_channels,
                      count * p.out_channels, s.grad);
          for (int64_t k = 0; k < p.plane_taps(); ++k)
            backward_tap(p, b, to, first, count, plane * p.plane_taps() + k, input, grad_volume,
                         static_cast<S*>(weight_sum), s);
        }
      }
    if constexpr (sizeof(T) < sizeof(S))
      if (p.grad_input)
        for (int64_t i = 0; i < volume_size(p); ++i) store_one(grad_input + i, grad_volume[i]);
  }

  static void backward_tap(const Problem& p, int64_t b, int64_t to, int64_t first, int64_t count,
                           int64_t tap, const T* input, S* grad_volume, S* weight_sum,
                           const BackwardScratch& s) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p);
    const int64_t run = p.channels / p.offset_groups;
    const bool need_dots = p.grad_offset || p.grad_mask;
    const T* zeros = static_cast<const T*>(p.zero_row);
    if (need_dots || grad_volume)
      for (int64_t group = 0; group < p.groups; ++group)
        multiply<false>(count, channels, outputs, s.grad + group * outputs, p.out_channels,
                        backward_weight(p, tap, group), kPanel<S>, outputs * kPanel<S>,
                        s.grad_columns + group * channels, p.channels, false);
    for (int64_t group = 0; group < p.offset_groups; ++group) {
      find_samples<S, T>(p, b, to, first, *s.pixels, tap, group, *s.samples);
      const int64_t at = group * run;
      with_dims(p, [&](auto dims) {
        with_channels(run, [&](auto constant) {
          constexpr int kCorners = decltype(dims)::corners, kRun = decltype(constant)::value;
          if (weight_sum)
            gather<kCorners, kRun>(*s.samples, input + at, p.channels, run, zeros, s.columns + at,
                                   p.channels);
          if (need_dots)
            corner_dots<kCorners, kRun>(*s.samples, input + at, p.channels, run, zeros,
                                        s.grad_columns + at, p.channels, s.dots);
          if (grad_volume)
            scatter<kCorners, kRun>(*s.samples, grad_volume + at, p.channels, run,
                                    s.grad_columns + at, p.channels);
        });
        if (need_dots) {
          offset_gradients<S, decltype(dims)>(*s.samples, s.dots, s.grad_offset, s.grad_mask);
          write_offset_gradients(p, b, to, first, count, tap, group, s);
        }
      });
    }
    if (weight_sum)
      for (int64_t group = 0; group < p.groups; ++group)
        multiply<true>(channels, outputs, count, s.columns + group * channels, p.channels,
                       s.grad + group * outputs, p.out_channels, kPanel<S>,
                       weight_sum + (tap * p.channels + group * channels) * outputs, outputs, true);
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

  static void finish_weight(const Problem& p, int64_t chunks) {
    const int64_t outputs = group_outputs(p), channels = group_channels(p), taps = p.taps();
    const int64_t size = taps * p.channels * outputs;
    const S* sums = static_cast<const S*>(p.weight_sums);
    for (int64_t o = 0; o < p.out_channels; ++o)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t group = o / outputs;
          const int64_t at = (tap * p.channels + group * channels + c) * outputs + o % outputs;
          S sum = 0;
          for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += sums[chunk * size + at];
          store_one(static_cast<T*>(p.grad_weight) + (o * channels + c) * taps + tap, sum);
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
