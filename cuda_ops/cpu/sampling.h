// Where the samples of a tile lie, and moving channel vectors to and from there.
#pragma once

#include <cmath>

#include "problem.h"
#include "vector.h"

// One copy of each loop, however many callers: it halves the time to compile.
#define D3DNET_NOINLINE __attribute__((noinline))

namespace {

using d3dnet::Problem;

constexpr int kMaxCorners = 8;
// Pixels whose samples are found, and then read tap by tap, together: few enough that the samples
// of a plane of taps and the pixels around stay in the first-level cache.
constexpr int kStrip = 32;

// The samples of one tap and one offset group for the pixels of a strip.
template <typename S>
struct Samples {
  int count, corners;
  int32_t corner[kMaxCorners][kStrip];   // pixel within the volume; -1: outside, reads zeros
  int32_t reached[kMaxCorners][kStrip];  // the same, -1 also where the corner has no weight
  S weight[kMaxCorners][kStrip];         // interpolation weight times mask
  S fraction[3][kStrip];               // per dimension that moves
  S mask[kStrip];
};

// Output positions of a strip: where each pixel's tap 0 lies before the offset is added.
struct Strip {
  int count;
  int32_t base[3][kStrip];
};

inline void place_strip(const Problem& p, int64_t to, int64_t first, int64_t count,
                       Strip& strip) {
  strip.count = int(count);
  int64_t y = first / p.out_size[2], x = first % p.out_size[2];
  for (int64_t i = 0; i < count; ++i) {
    strip.base[0][i] = int32_t(to * p.stride[0] - p.padding[0]);
    strip.base[1][i] = int32_t(y * p.stride[1] - p.padding[1]);
    strip.base[2][i] = int32_t(x * p.stride[2] - p.padding[2]);
    if (++x == p.out_size[2]) x = 0, ++y;
  }
}

template <typename S, typename O>
void read_values(const O* from, int64_t count, S* to) {
  for (int64_t i = 0; i < count; ++i) store_one(to + i, load_one(from + i));
}

// Corner n of a sample takes the upper neighbour in dimension d when its bit for d is set; bits
// are given to moving dimensions from the last (W: bit 0) upwards.
template <bool MT, bool MH, bool MW>
struct Dims {
  static constexpr bool moves[3] = {MT, MH, MW};
  static constexpr int corners = (MT ? 2 : 1) * (MH ? 2 : 1) * (MW ? 2 : 1);
  static constexpr int bit(int d) {
    return d == 2 ? 0 : d == 1 ? int(MW) : int(MW) + int(MH);
  }
};

// Fills `samples` for tap offsets `shift` (tap * dilation), given offsets (one run per moving
// dimension). The integer part of the offset is split off before anything is added to it, so that
// the fraction is as exact in a wide picture as in a narrow one.
template <typename S, typename D>
D3DNET_NOINLINE void locate(const Problem& p, const Strip& strip, const int64_t shift[3],
            const S (*offset)[kStrip], Samples<S>& samples) {
  const int count = samples.count = strip.count;
  samples.corners = D::corners;
  alignas(64) int32_t low[3][kStrip];
  alignas(64) int32_t inside[kStrip];
  for (int i = 0; i < count; ++i) inside[i] = -1;
  int slot = 0;
  for (int d = 0; d < 3; ++d) {
    const int32_t size = int32_t(p.in_size[d]), tap = int32_t(shift[d]);
    const int32_t* base = strip.base[d];
    if (D::moves[d]) {
      const S* move = offset[slot];
      S* fraction = samples.fraction[slot];
      for (int i = 0; i < count; ++i) {
        S whole = std::floor(move[i]);
        S part = move[i] - whole;
        whole = whole > S(-1e9) ? whole : S(-1e9);  // also for NaN, which thus falls outside
        whole = whole < S(1e9) ? whole : S(1e9);
        const int32_t at = base[i] + tap + int32_t(whole);
        const bool ok = (at >= 0 || (at == -1 && part > S(0))) && at < size;
        low[d][i] = ok ? at : 0;
        fraction[i] = ok ? part : S(0);
        inside[i] = ok ? inside[i] : 0;
      }
      ++slot;
    } else {
      for (int i = 0; i < count; ++i) {
        const int32_t at = base[i] + tap;
        const bool ok = at >= 0 && at < size;
        low[d][i] = ok ? at : 0;
        inside[i] = ok ? inside[i] : 0;
      }
    }
  }
  const int32_t height = int32_t(p.in_size[1]), width = int32_t(p.in_size[2]);
  const int32_t sizes[3] = {int32_t(p.in_size[0]), height, width};
  for (int n = 0; n < D::corners; ++n) {
    const int32_t up[3] = {D::moves[0] ? (n >> D::bit(0)) & 1 : 0,
                           D::moves[1] ? (n >> D::bit(1)) & 1 : 0,
                           D::moves[2] ? (n >> D::bit(2)) & 1 : 0};
    int32_t* corner = samples.corner[n];
    int32_t* reached = samples.reached[n];
    S* weight = samples.weight[n];
    for (int i = 0; i < count; ++i) {
      S w = 1;
      bool ok = inside[i] != 0;
      int32_t at[3];
      int used = 0;
      for (int d = 0; d < 3; ++d) {
        at[d] = low[d][i] + up[d];
        if (!D::moves[d]) continue;
        ok = ok & (at[d] >= 0) & (at[d] < sizes[d]);
        const S part = samples.fraction[used++][i];
        w *= up[d] ? part : S(1) - part;
      }
      // Without T among the dimensions the volume is a single frame.
      const int32_t pixel = ((D::moves[0] ? at[0] * height : 0) + at[1]) * width + at[2];
      const bool reaches = ok & (w != S(0));
      corner[i] = ok ? pixel : -1;
      reached[i] = reaches ? pixel : -1;
      weight[i] = reaches ? w * samples.mask[i] : S(0);
    }
  }
}

// Calls f with Dims<...> for the dimensions that move.
template <typename F>
inline void with_dims(const Problem& p, F&& f) {
  switch (p.moves[0] * 4 + p.moves[1] * 2 + p.moves[2]) {
    case 1: return f(Dims<false, false, true>{});
    case 2: return f(Dims<false, true, false>{});
    case 3: return f(Dims<false, true, true>{});
    case 4: return f(Dims<true, false, false>{});
    case 5: return f(Dims<true, false, true>{});
    case 6: return f(Dims<true, true, false>{});
    default: return f(Dims<true, true, true>{});
  }
}

// Reads offsets and masks of tap `tap` (of all kt*kh*kw) and offset group `group`, and locates.
template <typename S, typename T>
void find_samples(const Problem& p, int64_t b, int64_t to, int64_t first, const Strip& strip,
                  int64_t tap, int64_t group, Samples<S>& samples) {
  alignas(64) S offset[3][kStrip];
  const int64_t volume = p.out_size[0] * p.out_frame(), at = to * p.out_frame() + first;
  const int64_t row = (b * p.offset_groups + group) * p.taps() + tap;
  for (int64_t d = 0; d < p.moving; ++d) {
    const int64_t from = (row * p.moving + d) * volume + at;
    if (p.offset_dtype == p.dtype)
      read_values(static_cast<const T*>(p.offset) + from, strip.count, offset[d]);
    else
      read_values(static_cast<const float*>(p.offset) + from, strip.count, offset[d]);
  }
  if (p.mask)
    read_values(static_cast<const T*>(p.mask) + row * volume + at, strip.count, samples.mask);
  else
    for (int i = 0; i < strip.count; ++i) samples.mask[i] = S(1);
  const int64_t plane = p.plane_taps(), width = p.kernel[2];
  const int64_t shift[3] = {tap / plane * p.dilation[0], tap % plane / width * p.dilation[1],
                            tap % width * p.dilation[2]};
  with_dims(p, [&](auto dims) {
    locate<S, decltype(dims)>(p, strip, shift, offset, samples);
  });
}

template <typename T>
inline const T* corner_row(const T* volume, int32_t index, int64_t channels, const T* zeros) {
  return index < 0 ? zeros : volume + int64_t(index) * channels;
}

// Calls f(sample i of tap k, c-vector of tap k for pixel i) pixel by pixel, and in each pixel tap
// by tap: neighbouring taps read neighbouring pixels. The taps' channels stand side by side,
// `tap_stride` apart, in rows of `row` values.
template <typename S, typename Column, typename F>
inline void for_each_sample(const Samples<S>* samples, int64_t taps, Column* columns, int64_t row,
                            int64_t tap_stride, F&& f) {
  for (int i = 0; i < samples->count; ++i)
    for (int64_t k = 0; k < taps; ++k) f(samples[k], i, k, columns + i * row + k * tap_stride);
}

// columns[c] = sum over corners of weight * volume[corner][c], c < run. Channels is `run` where
// it is known at compile time, else 0; `channels` separates the pixels of the volume.
template <int Corners, int Channels, typename T, typename S, typename Column>
D3DNET_NOINLINE void gather(const Samples<S>* samples, int64_t taps, const T* volume,
                            int64_t channels, int64_t run, const T* zeros, Column* columns,
                            int64_t row, int64_t tap_stride) {
  const int64_t n = Channels ? Channels : run;
  for_each_sample(samples, taps, columns, row, tap_stride,
                  [=](const Samples<S>& at, int i, int64_t, Column* column) {
    const T* corner[Corners];
    S weight[Corners];
    for (int k = 0; k < Corners; ++k) {
      corner[k] = corner_row(volume, at.reached[k][i], channels, zeros);
      weight[k] = at.weight[k][i];
    }
    int64_t c = 0;
    for (; c + kLanes<S> <= n; c += kLanes<S>) {
      Vector<S> sum = weight[0] * load(corner[0] + c);
      for (int k = 1; k < Corners; ++k) sum += weight[k] * load(corner[k] + c);
      store(column + c, sum);
    }
    if constexpr (Channels == 0)
      for (; c < n; ++c) {
        S sum = weight[0] * load_one(corner[0] + c);
        for (int k = 1; k < Corners; ++k) sum += weight[k] * load_one(corner[k] + c);
        store_one(column + c, sum);
      }
  });
}

// dots[k][i][corner] = sum over c of grad_columns[c] * volume[corner][c].
template <int Corners, int Channels, typename T, typename S>
D3DNET_NOINLINE void corner_dots(const Samples<S>* samples, int64_t taps, const T* volume,
                                 int64_t channels, int64_t run, const T* zeros, S* grad_columns,
                                 int64_t row, int64_t tap_stride,
                                 S (*dots)[kStrip][kMaxCorners]) {
  const int64_t n = Channels ? Channels : run;
  for_each_sample(samples, taps, grad_columns, row, tap_stride,
                  [=](const Samples<S>& at, int i, int64_t tap, const S* grad) {
    constexpr int kPadded = (Corners + 3) / 4 * 4;
    const T* corner[Corners];
    for (int k = 0; k < Corners; ++k)
      corner[k] = corner_row(volume, at.corner[k][i], channels, zeros);
    Vector<S> sum[kPadded / 4][4] = {};
    int64_t c = 0;
    for (; c + kLanes<S> <= n; c += kLanes<S>) {
      const Vector<S> g = load(grad + c);
      for (int k = 0; k < Corners; ++k) sum[k / 4][k % 4] += g * load(corner[k] + c);
    }
    S* dot = dots[tap][i];
    for (int k = 0; k < kPadded; k += 4) sum_lanes_of_four(sum[k / 4], dot + k);
    if constexpr (Channels == 0)
      for (; c < n; ++c)
        for (int k = 0; k < Corners; ++k) dot[k] += grad[c] * load_one(corner[k] + c);
  });
}

// grad_volume[corner][c] += weight * grad_columns[c].
template <int Corners, int Channels, typename S>
D3DNET_NOINLINE void scatter(const Samples<S>* samples, int64_t taps, S* grad_volume,
                             int64_t channels, int64_t run, S* grad_columns, int64_t row,
                             int64_t tap_stride) {
  const int64_t n = Channels ? Channels : run;
  for_each_sample(samples, taps, grad_columns, row, tap_stride,
                  [=](const Samples<S>& at, int i, int64_t, const S* grad) {
    for (int k = 0; k < Corners; ++k) {
      const int32_t index = at.reached[k][i];
      if (index < 0) continue;
      const S weight = at.weight[k][i];
      S* into = grad_volume + int64_t(index) * channels;
      int64_t c = 0;
      for (; c + kLanes<S> <= n; c += kLanes<S>)
        store(into + c, load(into + c) + weight * load(grad + c));
      if constexpr (Channels == 0)
        for (; c < n; ++c) into[c] += weight * grad[c];
    }
  });
}

// Derivatives of the interpolation: from the corner dots to the gradients of offsets (one run per
// moving dimension) and masks.
template <typename S, typename D>
D3DNET_NOINLINE void offset_gradients(const Samples<S>& samples, const S (*dots)[kMaxCorners],
                      S (*grad_offset)[kStrip], S* grad_mask) {
  for (int i = 0; i < samples.count; ++i) {
    S by_offset[3] = {}, by_mask = 0;
    for (int n = 0; n < D::corners; ++n) {
      S side[3];
      int up[3], used = 0;
      for (int d = 0; d < 3; ++d) {
        if (!D::moves[d]) continue;
        up[used] = (n >> D::bit(d)) & 1;
        side[used] = up[used] ? samples.fraction[used][i] : S(1) - samples.fraction[used][i];
        ++used;
      }
      S weight = 1;
      for (int d = 0; d < used; ++d) weight *= side[d];
      by_mask += weight == S(0) ? S(0) : weight * dots[i][n];
      for (int d = 0; d < used; ++d) {
        S partial = up[d] ? dots[i][n] : -dots[i][n];
        for (int other = 0; other < used; ++other)
          if (other != d) partial *= side[other];
        by_offset[d] += partial;
      }
    }
    for (int d = 0; d < 3; ++d) grad_offset[d][i] = by_offset[d] * samples.mask[i];
    grad_mask[i] = by_mask;
  }
}

}  // namespace
