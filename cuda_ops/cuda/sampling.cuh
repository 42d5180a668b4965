// Where samples lie: output pixels of a tile, taps, channel chunks, corners and their weights.
#pragma once

#include "problem.cuh"
#include "device.cuh"

namespace d3dnet {

// A tile of output pixels: a rectangle in one frame of one clip of the batch.
struct Tile {
  int clip, frame, row, column;  // the first pixel's
};

D3DNET_DEVICE Tile tile_at(const CudaProblem& p, int index) {
  unsigned rest = unsigned(index);
  Tile tile;
  tile.column = int(rest % p.tiles.across) << p.tiles.log_width;
  rest /= p.tiles.across;
  tile.row = int(rest % p.tiles.down) << p.tiles.log_height;
  rest /= p.tiles.down;
  tile.frame = int(rest % p.out_size[0]);
  tile.clip = int(rest / p.out_size[0]);
  return tile;
}

// Position of a tile's pixel within its output clip, or -1 where the tile reaches over the edge.
D3DNET_DEVICE int pixel_of(const CudaProblem& p, const Tile& tile, int i) {
  const int row = tile.row + (i >> p.tiles.log_width);
  const int column = tile.column + (i & ((1 << p.tiles.log_width) - 1));
  if (row >= p.out_size[1] || column >= p.out_size[2]) return -1;
  return (tile.frame * p.out_size[1] + row) * p.out_size[2] + column;
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

// Offsets and mask of one sample, as read from memory.
template <typename S>
struct Raw {
  S offset[3];
  S mask;
};

// Where values of a sample are in a tensor (B, channels, To, Ho, Wo): the first, and how far apart.
struct Place {
  int64 first, step;
};
D3DNET_DEVICE Place place_of(const CudaProblem& p, bool channels_last, int clip, int pixel,
                             int channel, int channels) {
  const int64 pixels = out_pixels(p);
  if (channels_last) return {(clip * pixels + pixel) * channels + channel, 1};
  return {(int64(clip) * channels + channel) * pixels + pixel, pixels};
}
D3DNET_DEVICE Place offset_place(const CudaProblem& p, int clip, int pixel, int tap, int group) {
  const int taps = taps_of(p);
  return place_of(p, p.offset_is_channels_last, clip, pixel, (group * taps + tap) * p.moving,
                  p.offset_groups * taps * p.moving);
}
D3DNET_DEVICE Place mask_place(const CudaProblem& p, int clip, int pixel, int tap, int group) {
  const int taps = taps_of(p);
  return place_of(p, p.mask_is_channels_last, clip, pixel, group * taps + tap,
                  p.offset_groups * taps);
}

template <typename T>
D3DNET_DEVICE Raw<Accumulator<T>> read_raw(const CudaProblem& p, int clip, int pixel, int tap,
                                           int offset_group) {
  Raw<Accumulator<T>> raw = {{0, 0, 0}, 1};
  if (pixel < 0) return raw;
  Place place = offset_place(p, clip, pixel, tap, offset_group);
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    if (!p.moves[d]) continue;
    raw.offset[d] = p.offset_is_float
                        ? Accumulator<T>(static_cast<const float*>(p.offset)[place.first])
                        : widen(static_cast<const T*>(p.offset)[place.first]);
    place.first += place.step;
  }
  if (p.mask)
    raw.mask = widen(
        static_cast<const T*>(p.mask)[mask_place(p, clip, pixel, tap, offset_group).first]);
  return raw;
}

// One sample: the lower corner of its cell, which of the cell's ends are in the clip, and where in
// the cell it is. Bits 2 d and 2 d + 1 of `inside` are for the lower and the upper end in
// dimension d; dimensions that do not move have a lower end only. None is set where the sample is
// outside in any dimension.
template <typename S>
struct alignas(8) Sample {
  int frame;  // where T moves; else it is part of `pixel`
  int pixel;
  unsigned inside;
  S fraction[3];
  S mask;
};

// The integer part of an offset is split off before anything is added to it, so that the fraction
// is as exact in a wide picture as in a narrow one.
template <typename S>
D3DNET_DEVICE Sample<S> locate(const CudaProblem& p, const Tile& tile, int i, int pixel, int tap,
                               const Raw<S>& raw) {
  const int place[3] = {tile.frame, tile.row + (i >> p.tiles.log_width),
                        tile.column + (i & ((1 << p.tiles.log_width) - 1))};
  const int shift[3] = {tap / (p.kernel[1] * p.kernel[2]), tap / p.kernel[2] % p.kernel[1],
                        tap % p.kernel[2]};
  Sample<S> sample = {0, 0, 0, {0, 0, 0}, raw.mask};
  bool reaches = pixel >= 0;
  int low[3];
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    int at = place[d] * p.stride[d] - p.padding[d] + shift[d] * p.dilation[d];
    unsigned ends = 1;
    if (p.moves[d]) {
      const S offset = raw.offset[d];
      S whole = S(floor(offset));
      const S part = offset - whole;
      whole = whole > S(-1e9) ? whole : S(-1e9);  // also for NaN, which thus falls outside
      whole = whole < S(1e9) ? whole : S(1e9);
      at += int(whole);
      const bool within = (at >= 0 || (at == -1 && part > S(0))) && at < p.in_size[d];
      ends = unsigned(at >= 0) | unsigned(at + 1 < p.in_size[d]) << 1;
      reaches = reaches && within;
      if (within) sample.fraction[d] = part;
    } else {
      reaches = reaches && at >= 0 && at < p.in_size[d];
    }
    low[d] = at;
    sample.inside |= ends << 2 * d;
  }
  if (!reaches) {
    sample.inside = 0;
    return sample;
  }
  sample.frame = low[0];
  sample.pixel = ((p.moves[0] ? 0 : low[0]) * p.in_size[1] + low[1]) * p.in_size[2] + low[2];
  return sample;
}

// Weight of the lower or upper end of a sample's cell in dimension d.
template <typename S>
D3DNET_DEVICE S side(const Sample<S>& sample, int d, int upper) {
  return upper ? sample.fraction[d] : S(1) - sample.fraction[d];
}

// The four corners of a cell in one frame, as they are read: what the thread that locates a sample
// finds out once, and all lanes that read it take from shared memory. Corner n is in the upper row
// where n has bit 1 set, in the upper column where it has bit 0 set.
template <typename S>
struct alignas(16) Corners {
  int at[4];  // pixel, or -1: not read
  S weight[4];
};

// The cell's ends in time, where T moves: first pixel of the frame, or -1, and weight.
template <typename S>
struct alignas(8) Frames {
  int at[2];
  S weight[2];
};

// `all`: also those whose weight is 0, which the derivatives need.
template <typename S>
D3DNET_DEVICE Corners<S> corners_of(const CudaProblem& p, const Sample<S>& sample, S factor,
                                    bool all) {
  Corners<S> corners;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const S weight = side(sample, 1, n >> 1) * side(sample, 2, n & 1);
    const bool inside = (sample.inside >> (2 + (n >> 1)) & 1) && (sample.inside >> (4 + (n & 1)) & 1);
    const bool read = inside && (all || weight != S(0));
    corners.at[n] = read ? sample.pixel + (n >> 1) * p.in_size[2] + (n & 1) : -1;
    corners.weight[n] = weight * factor;
  }
  return corners;
}
template <typename S>
D3DNET_DEVICE Frames<S> frames_of(const CudaProblem& p, const Sample<S>& sample, bool all) {
  Frames<S> frames;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    frames.weight[upper] = side(sample, 0, upper);
    const bool read = (sample.inside >> upper & 1) && (all || frames.weight[upper] != S(0));
    frames.at[upper] = read ? (sample.frame + upper) * p.in_size[1] * p.in_size[2] : -1;
  }
  return frames;
}
template <typename S>
D3DNET_DEVICE Corners<S> in_frame(Corners<S> corners, const Frames<S>& frames, int upper) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const bool read = corners.at[n] >= 0 && frames.at[upper] >= 0;
    corners.at[n] = read ? corners.at[n] + frames.at[upper] : -1;
    corners.weight[n] *= frames.weight[upper];
  }
  return corners;
}

// 16 bytes of channels at each corner, zeros where it is not read; the four loads overlap.
template <typename T>
D3DNET_DEVICE void read_corners(const CudaProblem& p, const Corners<Accumulator<T>>& corners,
                                const T* input, int count, bool whole, Bytes16 (&values)[4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    values[n] = Bytes16{};
    if (corners.at[n] >= 0)
      values[n] = load_elements(input + int64(unsigned(corners.at[n])) * p.channels, count, whole);
  }
}

template <typename T>
D3DNET_DEVICE void blend_corners(const Corners<Accumulator<T>>& corners,
                                 const Bytes16 (&values)[4], Accumulator<T> (&sums)[kLanes<T>]) {
#pragma unroll
  for (int n = 0; n < 4; ++n)
#pragma unroll
    for (int k = 0; k < kLanes<T>; ++k) sums[k] += corners.weight[n] * element(values[n], k, T{});
}

}  // namespace d3dnet
