// Where samples lie: output pixels of a tile, taps, channel chunks, corners and their weights.
#pragma once

#include "problem.cuh"
#include "device.cuh"

namespace d3dnet {

// A tile of output pixels: a rectangle in one frame of one clip of the batch.
struct Tile {
  int64 clip;
  int frame, row, column;  // the first pixel's
};

D3DNET_DEVICE Tile tile_at(const CudaProblem& p, int64 index) {
  Tile tile;
  tile.column = int(index % p.tiles.across) << p.tiles.log_width;
  index /= p.tiles.across;
  tile.row = int(index % p.tiles.down) << p.tiles.log_height;
  index /= p.tiles.down;
  tile.frame = int(index % p.out_size[0]);
  tile.clip = index / p.out_size[0];
  return tile;
}

// Position of a tile's pixel within its output clip, or -1 where the tile reaches over the edge.
D3DNET_DEVICE int64 pixel_of(const CudaProblem& p, const Tile& tile, int i) {
  const int row = tile.row + (i >> p.tiles.log_width);
  const int column = tile.column + (i & ((1 << p.tiles.log_width) - 1));
  if (row >= p.out_size[1] || column >= p.out_size[2]) return -1;
  return (int64(tile.frame) * p.out_size[1] + row) * p.out_size[2] + column;
}

D3DNET_HOST_DEVICE int taps_of(const CudaProblem& p) {
  return p.kernel[0] * p.kernel[1] * p.kernel[2];
}
D3DNET_DEVICE int64 out_pixels(const CudaProblem& p) {
  return int64(p.out_size[0]) * p.out_size[1] * p.out_size[2];
}
D3DNET_DEVICE int64 in_pixels(const CudaProblem& p) {
  return int64(p.in_size[0]) * p.in_size[1] * p.in_size[2];
}

// The first tap from `tap` on that reads inside the clip in time, or the number of taps.
D3DNET_DEVICE int next_tap(const CudaProblem& p, const Tile& tile, int tap) {
  if (p.moves[0]) return tap;
  const int plane = p.kernel[1] * p.kernel[2], taps = taps_of(p);
  while (tap < taps) {
    const int t = tile.frame * p.stride[0] - p.padding[0] + tap / plane * p.dilation[0];
    if (t >= 0 && t < p.in_size[0]) break;
    tap = (tap / plane + 1) * plane;
  }
  return tap;
}

// Channels are multiplied in chunks of 1, 2 or 4 slices of 32 bytes; `first` counts slices.
struct Chunk {
  int first, slices;
};
D3DNET_HOST_DEVICE int slices_of(int channels, int size) {
  return (channels * size + 31) / 32;
}
D3DNET_DEVICE int chunks_of(int slices) {
  return slices / 4 + ((slices & 2) >> 1) + (slices & 1);
}
D3DNET_DEVICE Chunk chunk_at(int slices, int index) {
  const int whole = slices / 4;
  if (index < whole) return {4 * index, 4};
  if (index == whole && (slices & 2)) return {4 * whole, 2};
  return {4 * whole + (slices & 2), 1};
}

// One sample: the lower corner of its cell, which of the cell's corners are in the clip (a bit
// each), and where in the cell it is. Corner n is the upper one in dimension d where n has bit
// (2, 1, 0 for T, H, W) set; dimensions that do not move have no upper corner.
template <typename S>
struct alignas(8) Sample {
  int pixel;
  unsigned inside;
  S fraction[3];
  S mask;
};

// Offsets and mask of one sample, as read from memory.
template <typename S>
struct Raw {
  S offset[3];
  S mask;
};

template <typename T>
D3DNET_DEVICE Raw<Accumulator<T>> read_raw(const CudaProblem& p, int64 clip, int64 pixel, int tap,
                                           int offset_group) {
  Raw<Accumulator<T>> raw = {{0, 0, 0}, 1};
  if (pixel < 0) return raw;
  const int64 pixels = out_pixels(p);
  const int64 sample = (clip * p.offset_groups + offset_group) * taps_of(p) + tap;
  int64 at = sample * p.moving * pixels + pixel;
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    if (!p.moves[d]) continue;
    raw.offset[d] = p.offset_is_float ? Accumulator<T>(static_cast<const float*>(p.offset)[at])
                                      : widen(static_cast<const T*>(p.offset)[at]);
    at += pixels;
  }
  if (p.mask) raw.mask = widen(static_cast<const T*>(p.mask)[sample * pixels + pixel]);
  return raw;
}

// The integer part of an offset is split off before anything is added to it, so that the fraction
// is as exact in a wide picture as in a narrow one.
template <typename S>
D3DNET_DEVICE Sample<S> locate(const CudaProblem& p, const Tile& tile, int i, int64 pixel, int tap,
                               const Raw<S>& raw) {
  const int place[3] = {tile.frame, tile.row + (i >> p.tiles.log_width),
                        tile.column + (i & ((1 << p.tiles.log_width) - 1))};
  const int shift[3] = {tap / (p.kernel[1] * p.kernel[2]), tap / p.kernel[2] % p.kernel[1],
                        tap % p.kernel[2]};
  Sample<S> sample = {0, pixel < 0 ? 0u : 0xffu, {0, 0, 0}, raw.mask};
  int low[3];
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    int at = place[d] * p.stride[d] - p.padding[d] + shift[d] * p.dilation[d];
    // Bits of the corners that are lower, and upper, in this dimension.
    const unsigned lower = d == 2 ? 0x55u : d == 1 ? 0x33u : 0x0fu;
    unsigned allowed = 0;
    if (p.moves[d]) {
      const S offset = raw.offset[d];
      S whole = S(floor(offset));
      const S part = offset - whole;
      whole = whole > S(-1e9) ? whole : S(-1e9);  // also for NaN, which thus falls outside
      whole = whole < S(1e9) ? whole : S(1e9);
      at += int(whole);
      const bool reaches = (at >= 0 || (at == -1 && part > S(0))) && at < p.in_size[d];
      if (reaches && at >= 0) allowed |= lower;
      if (reaches && at + 1 < p.in_size[d]) allowed |= ~lower;
      if (reaches) sample.fraction[d] = part;
    } else if (at >= 0 && at < p.in_size[d]) {
      allowed = lower;
    }
    low[d] = at;
    sample.inside &= allowed;
  }
  if (sample.inside)
    sample.pixel = (low[0] * p.in_size[1] + low[1]) * p.in_size[2] + low[2];
  return sample;
}

// Corners are gone through in fours; corner n of a four is that of corner_of(p, 4 * four + n).
// "HW" and fewer dimensions need one four, with the dimensions that move in the lowest bits.
D3DNET_DEVICE int fours_of(const CudaProblem& p) { return p.moving == 3 ? 2 : 1; }
D3DNET_DEVICE int corner_of(const CudaProblem& p, int n) {
  if (p.moving == 3 || !p.moves[0]) return n;     // T has bit 2, or does not move
  if (p.moves[1]) return (n & 1) << 1 | (n & 2) << 1;  // T and H
  return (n & 1) | (n & 2) << 1;                  // T, perhaps W
}

D3DNET_DEVICE int64 corner_pixel(const CudaProblem& p, int pixel, int corner) {
  int64 at = pixel;
  if (corner & 1) at += 1;
  if (corner & 2) at += p.in_size[2];
  if (corner & 4) at += int64(p.in_size[1]) * p.in_size[2];
  return at;
}

// Weight of a corner in dimension d.
template <typename S>
D3DNET_DEVICE S side(const Sample<S>& sample, int corner, int d) {
  return corner >> (2 - d) & 1 ? sample.fraction[d] : S(1) - sample.fraction[d];
}
template <typename S>
D3DNET_DEVICE S corner_weight(const Sample<S>& sample, int corner) {
  return side(sample, corner, 0) * side(sample, corner, 1) * side(sample, corner, 2);
}

}  // namespace d3dnet
