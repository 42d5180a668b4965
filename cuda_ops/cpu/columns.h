// Columns of samples: in what blocks of taps and pixels they are made, and for what strips.
#pragma once

#include <type_traits>

#include "multiply.h"
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
template <typename T, typename Column>
struct Columns {
  using S = Compute<T>;

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
};

}  // namespace
