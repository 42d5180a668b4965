// Backward. Nothing that forward computed is kept; columns live in shared memory, a tile at a time.
//
// data_gradients: grad_input, grad_offset and grad_mask. A block owns 64 output pixels; tap by tap
// it multiplies out the gradient of the columns, reduces it to that of the offsets, and scatters
// it into the input's gradient (atomically: the one sum whose order is not fixed).
// weight_gradients: a block owns one tap, 64 x 64 weights and every `segments`-th tile of pixels,
// gathers columns again and keeps its sums in registers. Their partial sums are added in order.
#pragma once

#include "multiply.cuh"
#include "sampling.cuh"

namespace d3dnet {

constexpr int kBackwardThreads = 128;
constexpr int kBackwardPixels = 64;
constexpr int kBackwardChannels = 64;

template <typename T>
struct DataGradientShared {
  using S = Accumulator<T>;
  struct Factors {
    alignas(16) char grad[kBackwardPixels * kRowBytes];
    alignas(16) char weights[kBackwardChannels * kRowBytes];
  };
  union {
    Factors factors;
    alignas(16) S columns[kBackwardPixels][kBackwardChannels + 4];  // gradient of the columns
  };
  Sample<S> samples[kBackwardPixels];
  Corners<S> corners[kBackwardPixels];
  Frames<S> frames[kBackwardPixels];  // where T moves
  // Products of the columns' gradient with each corner, per end in time.
  S dots[kBackwardPixels][2][4];
};

// A part of grad's rows, (pixels, elements from `first` to `end`), into rows of `row_bytes`.
template <typename T, bool TensorCores>
D3DNET_DEVICE void copy_grad(const CudaProblem& p, const Tile& tile, int pixels, int first,
                             int end, int log_vectors, char* to, int row_bytes) {
  const T* grad = static_cast<const T*>(p.grad) + tile.clip * out_pixels(p) * p.out_channels;
  for (int i = thread_index(); i < pixels << log_vectors; i += kBackwardThreads) {
    const int row = i >> log_vectors, vector = i & ((1 << log_vectors) - 1);
    const int pixel = pixel_of(p, tile, row), channel = first + vector * kLanes<T>;
    Bytes16 bytes = {};
    if (pixel >= 0 && channel < end)
      bytes = load_elements(grad + int64(pixel) * p.out_channels + channel, end - channel,
                            p.whole_grad != 0);
    if constexpr (TensorCores && sizeof(T) == 4) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        bytes.word[k] = float_as_word(to_tf32(word_as_float(bytes.word[k])));
    }
    *reinterpret_cast<Bytes16*>(to + row * row_bytes + vector * 16) = bytes;
  }
}

// Eight lanes work on one pixel: they multiply the gradient of its columns with what its corners
// hold, which makes the gradients of offsets and mask, and add it to the pixels it was read from.
template <typename T>
D3DNET_DEVICE void spread(const CudaProblem& p, const Corners<Accumulator<T>>& corners,
                          Accumulator<T> factor, const Accumulator<T>* columns, const T* input,
                          Accumulator<T>* grad_input, int count, int lane,
                          Accumulator<T> (&dots)[4]) {
  using S = Accumulator<T>;
  const bool reduces = p.grad_offset || p.grad_mask;
  constexpr int width = kLanes<T> < 4 ? 4 : kLanes<T>;  // channels of a lane at a time
#pragma unroll 1
  for (int c = lane * width; c < count; c += 8 * width) {
    if (reduces) {
#pragma unroll
      for (int k = 0; k < width; k += kLanes<T>) {
        Bytes16 values[4];
        read_corners(p, corners, input + c + k, count - c - k, p.whole_input && c + k < count,
                     values);
#pragma unroll
        for (int e = 0; e < kLanes<T>; ++e) {
          const bool within = c + k + e < count;
#pragma unroll
          for (int n = 0; n < 4; ++n)
            if (within && corners.at[n] >= 0)
              dots[n] += element(values[n], e, T{}) * columns[c + k + e];
        }
      }
    }
    if (!grad_input) continue;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      if (corners.at[n] < 0 || corners.weight[n] == S(0)) continue;
      S* to = grad_input + int64(unsigned(corners.at[n])) * p.channels + c;
      const S weight = corners.weight[n] * factor;
#pragma unroll
      for (int k = 0; k < width; k += 4) {
        S values[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) values[e] = weight * columns[c + k + e];
        if constexpr (sizeof(S) == 4) {
          if (p.whole_input && c + k < count) {
            atomic_add_four(to + k, values);
            continue;
          }
        }
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (c + k + e < count) atomic_add(to + k + e, values[e]);
      }
    }
  }
}

// Writes a sample's gradients: the derivatives of its interpolation, by the products with its
// corners. The mask multiplies what was interpolated.
template <typename T>
D3DNET_DEVICE void write_sample_gradients(const CudaProblem& p,
                                          const Sample<Accumulator<T>>& sample,
                                          const Accumulator<T> (&dots)[2][4], int clip, int pixel,
                                          int tap, int offset_group) {
  using S = Accumulator<T>;
  S by_offset[3] = {0, 0, 0}, by_mask = 0;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    if (upper && !p.moves[0]) continue;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int ends[3] = {upper, n >> 1, n & 1};
      const S sides[3] = {side(sample, 0, ends[0]), side(sample, 1, ends[1]),
                          side(sample, 2, ends[2])};
      const S dot = dots[upper][n];
#pragma unroll
      for (int d = 0; d < 3; ++d) {
        const S slope = sides[(d + 1) % 3] * sides[(d + 2) % 3] * dot;
        by_offset[d] += ends[d] ? slope : -slope;
      }
      const S weight = sides[0] * sides[1] * sides[2];
      if (weight != S(0)) by_mask += weight * dot;
    }
  }
  if (p.grad_mask)
    narrow(by_mask, static_cast<T*>(
                        p.grad_mask)[mask_place(p, clip, pixel, tap, offset_group).first]);
  if (!p.grad_offset) return;
  Place place = offset_place(p, clip, pixel, tap, offset_group);
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    if (!p.moves[d]) continue;
    const S value = sample.inside ? by_offset[d] * sample.mask : S(0);
    if (p.offset_is_float)
      narrow(value, static_cast<float*>(p.grad_offset)[place.first]);
    else
      narrow(value, static_cast<T*>(p.grad_offset)[place.first]);
    place.first += place.step;
  }
}

template <typename T, bool TensorCores>
D3DNET_DEVICE void data_gradients(const CudaProblem& p) {
  using S = Accumulator<T>;
  auto& shared = *reinterpret_cast<DataGradientShared<T>*>(shared_memory());
  const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  const Tile tile = tile_at(p, block_index(0));
  const int outputs = p.out_channels / p.groups, group_channels = p.channels / p.groups;
  const int offset_channels = p.channels / p.offset_groups;
  const int slices = slices_of(outputs, sizeof(T)), taps = taps_of(p);
  constexpr int slice_elements = kSliceBytes / int(sizeof(T));
  const int own_pixel = thread < kBackwardPixels ? pixel_of(p, tile, thread) : -1;
  const int64 clip = tile.clip * in_pixels(p) * p.channels;

  for (int tap = next_tap(p, tile, 0); tap < taps; tap = next_tap(p, tile, tap + 1)) {
    int channels = 0;
    for (int first = 0; first < p.channels; first += channels) {
      const int rest = p.run - first % p.run;  // up to the end of the run
      channels = rest < kBackwardChannels ? rest : kBackwardChannels;
      const int group = first / group_channels, offset_group = first / offset_channels;
      synchronize();  // the tile before this one has been read
      if (first % offset_channels == 0 && thread < kBackwardPixels) {
        const Raw<S> raw = read_raw<T>(p, tile.clip, own_pixel, tap, offset_group);
        const Sample<S> sample = locate(p, tile, thread, own_pixel, tap, raw);
        shared.samples[thread] = sample;
        shared.corners[thread] = corners_of(p, sample, S(1), true);
        if (p.moves[0]) shared.frames[thread] = frames_of(p, sample, true);
        for (int n = 0; n < 8; ++n) shared.dots[thread][n / 4][n % 4] = 0;
      }

      Sums<S> sums;
      clear(sums);
      for (int index = 0; index < chunks_of(slices); ++index) {
        const Chunk chunk = chunk_at(slices, index);
        const int log_vectors = chunk.slices == 4 ? 3 : chunk.slices;
        if (index > 0) synchronize();
        const char* weights = static_cast<const char*>(p.packed_weight) +
                              ((int64(tap) * p.channels + first) * slices + chunk.first) *
                                  kSliceBytes;
        for (int i = thread; i < kBackwardChannels << log_vectors; i += kBackwardThreads) {
          const int row = i >> log_vectors, vector = i & ((1 << log_vectors) - 1);
          const bool valid = row < channels;
          copy_async(shared.factors.weights + row * kRowBytes + vector * 16,
                     weights + (valid ? row : 0) * int64(slices) * kSliceBytes + vector * 16,
                     valid);
        }
        const int from = group * outputs;
        copy_grad<T, TensorCores>(p, tile, kBackwardPixels, from + chunk.first * slice_elements,
                                  from + outputs, log_vectors, shared.factors.grad, kRowBytes);
        copy_wait();
        synchronize();
#pragma unroll 1
        for (int slice = 0; slice < chunk.slices; ++slice)
          multiply_slice<T, TensorCores>(
              sums, shared.factors.grad + warp_row * kRowBytes + slice * kSliceBytes,
              shared.factors.weights + warp_column * kRowBytes + slice * kSliceBytes, lane);
      }
      synchronize();
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            shared.columns[warp_row + sum_row(lane, m, i)][warp_column + sum_column(lane, n, i)] =
                sums.at[m][n][i];
      synchronize();

      const T* input = static_cast<const T*>(p.input) + clip + first;
      S* grad_input = p.grad_input ? static_cast<S*>(p.grad_input) + clip + first : nullptr;
      for (int i = thread / 8; i < kBackwardPixels; i += kBackwardThreads / 8)
        for (int upper = 0; upper < (p.moves[0] ? 2 : 1); ++upper) {
          Corners<S> corners = shared.corners[i];
          if (p.moves[0]) corners = in_frame(corners, shared.frames[i], upper);
          S dots[4] = {};
          spread<T>(p, corners, shared.samples[i].mask, shared.columns[i], input, grad_input,
                    channels, lane % 8, dots);
#pragma unroll
          for (int n = 0; n < 4; ++n) {
            dots[n] = sum_of_eight_lanes(dots[n]);
            if (lane % 8 == n) shared.dots[i][upper][n] += dots[n];
          }
        }

      if ((first + channels) % offset_channels != 0) continue;
      synchronize();
      if (own_pixel >= 0)
        write_sample_gradients<T>(p, shared.samples[thread], shared.dots[thread], tile.clip,
                                  own_pixel, tap, offset_group);
    }
  }
}

// Pixels whose columns are multiplied at a time; wide elements get fewer.
template <typename T>
constexpr int kWeightPixels = sizeof(T) == 2 ? 64 : 32;

template <typename T>
struct WeightGradientShared {
  alignas(16) char grad[kWeightPixels<T> * kTallRowBytes<T>];
  alignas(16) char columns[kWeightPixels<T> * kTallRowBytes<T>];
  Corners<Accumulator<T>> corners[kWeightPixels<T>];
  Frames<Accumulator<T>> frames[kWeightPixels<T>];  // where T moves
};

template <typename T, bool TensorCores>
D3DNET_DEVICE void gather_columns(const CudaProblem& p, const T* input, int channels,
                                  WeightGradientShared<T>& shared) {
  using S = Accumulator<T>;
  constexpr int vectors = 64 / kLanes<T>;
  for (int i = thread_index(); i < kWeightPixels<T> * vectors; i += kBackwardThreads) {
    const int row = i / vectors, channel = i % vectors * kLanes<T>;
    S sums[kLanes<T>] = {};
    for (int upper = 0; upper < (p.moves[0] ? 2 : 1); ++upper) {
      if (channel >= channels) break;
      Corners<S> corners = shared.corners[row];
      if (p.moves[0]) corners = in_frame(corners, shared.frames[row], upper);
      Bytes16 values[4];
      read_corners(p, corners, input + channel, channels - channel, p.whole_input != 0, values);
      blend_corners<T>(corners, values, sums);
    }
    if constexpr (TensorCores && sizeof(T) == 4) {
#pragma unroll
      for (int k = 0; k < kLanes<T>; ++k) sums[k] = to_tf32(sums[k]);
    }
    *reinterpret_cast<Bytes16*>(shared.columns + row * kTallRowBytes<T> +
                                channel * int(sizeof(T))) = pack(sums, T{});
  }
}

// Grid: segments, blocks of 64 x 64 weights, taps.
template <typename T, bool TensorCores>
D3DNET_DEVICE void weight_gradients(const CudaProblem& p) {
  using S = Accumulator<T>;
  auto& shared = *reinterpret_cast<WeightGradientShared<T>*>(shared_memory());
  const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  const int outputs = p.out_channels / p.groups, group_channels = p.channels / p.groups;
  const int blocks_of_outputs = (outputs + 63) / 64, blocks_of_channels = (p.run + 63) / 64;
  int block = block_index(1);
  const int first_output = block % blocks_of_outputs * 64;
  block /= blocks_of_outputs;
  const int within_run = block % blocks_of_channels * 64;
  const int first = block / blocks_of_channels * p.run + within_run;
  const int channels = p.run - within_run < 64 ? p.run - within_run : 64;
  const int group = first / group_channels;
  const int offset_group = first / (p.channels / p.offset_groups);
  const int tap = block_index(2), taps = taps_of(p);

  Sums<S> sums;
  clear(sums);
  for (int index = block_index(0); index < p.tiles.count; index += p.segments) {
    const Tile tile = tile_at(p, index);
    if (next_tap(p, tile, tap) != tap) continue;
    synchronize();  // the tile before this one has been read
    if (thread < kWeightPixels<T>) {
      const int pixel = pixel_of(p, tile, thread);
      const Raw<S> raw = read_raw<T>(p, tile.clip, pixel, tap, offset_group);
      const Sample<S> sample = locate(p, tile, thread, pixel, tap, raw);
      shared.corners[thread] = corners_of(p, sample, sample.mask, false);
      if (p.moves[0]) shared.frames[thread] = frames_of(p, sample, false);
    }
    const int from = group * outputs;
    copy_grad<T, TensorCores>(p, tile, kWeightPixels<T>, from + first_output, from + outputs,
                              sizeof(T) == 2 ? 3 : sizeof(T) == 4 ? 4 : 5, shared.grad, kTallRowBytes<T>);
    synchronize();
    gather_columns<T, TensorCores>(
        p, static_cast<const T*>(p.input) + tile.clip * in_pixels(p) * p.channels + first,
        channels, shared);
    synchronize();
#pragma unroll 1
    for (int row = 0; row < kWeightPixels<T>; row += 16)
      multiply_rows<T, TensorCores>(
          sums, shared.grad + row * kTallRowBytes<T> + warp_row * int(sizeof(T)),
          shared.columns + row * kTallRowBytes<T> + warp_column * int(sizeof(T)), lane);
  }

  S* partial = static_cast<S*>(p.partial_sums) +
               (int64(block_index(0)) * taps + tap) * p.out_channels * group_channels;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = first_output + warp_row + sum_row(lane, m, i);
        const int column = warp_column + sum_column(lane, n, i);
        if (row < outputs && column < channels)
          partial[(int64(group) * outputs + row) * group_channels + first % group_channels +
                  column] = sums.at[m][n][i];
      }
}

// packed (K, C, padded O/groups), zero in the padding; a thread per element.
template <typename T>
D3DNET_DEVICE void pack_backward(const CudaProblem& p) {
  const int group_channels = p.channels / p.groups, outputs = p.out_channels / p.groups;
  const int taps = taps_of(p);
  const int padded = slices_of(outputs, sizeof(T)) * (kSliceBytes / int(sizeof(T)));
  const unsigned count = unsigned(taps) * p.channels * padded;
  for (unsigned i = block_index(0) * 256 + thread_index(); i < count;
       i += unsigned(block_count(0)) * 256) {
    const int output = int(i % padded);
    const int channel = int(i / padded % p.channels);
    const int tap = int(i / padded / p.channels);
    T value = {};
    if (output < outputs)
      value = static_cast<const T*>(
          p.weight)[((int64(channel / group_channels) * outputs + output) * group_channels +
                     channel % group_channels) * taps + tap];
    if constexpr (sizeof(T) == 4)
      if (p.round_weights) value = to_tf32(value);
    static_cast<T*>(p.packed_weight)[i] = value;
  }
}

// Adds the partial sums, (segments, K, O, C/groups), in order, into (O, C/groups, K).
template <typename T>
D3DNET_DEVICE void add_segments(const CudaProblem& p) {
  using S = Accumulator<T>;
  const int taps = taps_of(p);
  const unsigned rows = unsigned(p.out_channels) * (p.channels / p.groups), count = rows * taps;
  for (unsigned i = block_index(0) * 256 + thread_index(); i < count;
       i += unsigned(block_count(0)) * 256) {
    S sum = 0;
    for (int segment = 0; segment < p.segments; ++segment)
      sum += static_cast<const S*>(p.partial_sums)[int64(segment) * count + i];
    narrow(sum, static_cast<T*>(p.grad_weight)[i % rows * taps + i / rows]);
  }
}

}  // namespace d3dnet
