// Forward: the samples of a block of taps are gathered into a column buffer that stays in the
// second-level cache, and multiplied by the packed weights at once.
#pragma once

#include "columns.h"

namespace {

template <typename T, typename Column>
struct Forward {
  using S = Compute<T>;
  using Of = Columns<T, Column>;

  // Per temporal plane, block of taps and group: a matrix (taps of the block x channels, outputs).
  static Column* forward_weight(const Problem& p, int64_t plane, int64_t tap, int64_t group) {
    return static_cast<Column*>(p.packed_weight) +
           ((plane * p.plane_taps() + tap) * p.groups + group) * Of::forward_elements(p);
  }
  static void pack_forward(const Problem& p) {
    const int64_t outputs = Of::group_outputs(p), channels = Of::group_channels(p);
    const T* weight = static_cast<const T*>(p.weight);
    for (int64_t plane = 0; plane < p.kernel[0]; ++plane)
      for (int64_t tap = 0; tap < p.plane_taps(); tap += Of::block_taps(p)) {
        const int64_t taps = Of::min(Of::block_taps(p), p.plane_taps() - tap);
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

  struct ForwardScratch {
    Strip* strip;
    Samples<S>* samples;
    Column* columns;
    S* sums;
    ForwardScratch(const Problem& p, Arena& arena) {
      const int64_t tile = Of::forward_tile(p);
      strip = arena.take<Strip>(1);
      samples = arena.take<Samples<S>>(Of::block_taps(p));
      columns = arena.take<Column>(tile * Of::block_taps(p) * p.channels);
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
    const int64_t outputs = Of::group_outputs(p), channels = Of::group_channels(p);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t o = 0; o < p.out_channels; ++o)
        s.sums[i * p.out_channels + o] = p.bias ? load_one(static_cast<const T*>(p.bias) + o) : S(0);

    for (int64_t plane = 0; plane < p.kernel[0]; ++plane) {
      if (!Of::reads_clip(p, to, plane)) continue;
      const T* volume = Of::volume_at(p, b, Of::source_frame(p, to, plane));
      for (int64_t tap = 0; tap < p.plane_taps(); tap += Of::block_taps(p)) {
        const int64_t taps = Of::min(Of::block_taps(p), p.plane_taps() - tap), row = taps * p.channels;
        Of::for_each_strip(
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
};

}  // namespace
