// Forward: implicit matrix product. A block owns 128 output pixels and 64 output channels. It goes
// through taps and channel chunks; of each, the samples are gathered and blended straight into
// shared memory while the previous ones are multiplied by their weights.
#pragma once

#include "multiply.cuh"
#include "sampling.cuh"

namespace d3dnet {

constexpr int kForwardThreads = 256;
constexpr int kForwardPixels = 128;
constexpr int kForwardOutputs = 64;

// Corners of a tap's samples: two stages, or with `Frames`, or in float64, one, so that a block has
// no more than Turing's 64 KiB.
template <typename T>
constexpr int kTableBytes = sizeof(Accumulator<T>) == 4 ? 8192 : 9216;

// Shared memory of a forward block: two stages of columns and of weights.
template <typename T>
struct ForwardShared {
  alignas(16) char columns[2][kForwardPixels * kRowBytes];
  alignas(16) char weights[2][kForwardOutputs * kRowBytes];
  alignas(16) char table[kTableBytes<T>];
};

// One chunk of channels of one tap; samples change with the tap and with the offset group, and are
// in stage `samples` of their table.
struct Step {
  int tap, run, chunk, offset_group, samples;
  bool changed;  // other samples than those of the step before
};

D3DNET_DEVICE void advance(const CudaProblem& p, const Tile& tile, int first_channel, int runs,
                           int chunks, int stages, Step& step) {
  const int tap = step.tap, offset_group = step.offset_group;
  if (++step.chunk == chunks) {
    step.chunk = 0;
    if (++step.run == runs) {
      step.run = 0;
      step.tap = next_tap(p, tile, step.tap + 1);
    }
  }
  step.offset_group =
      (first_channel + step.run * p.run) / (p.channels / p.offset_groups);
  step.changed = step.tap != tap || step.offset_group != offset_group;
  if (step.changed && stages == 2) step.samples ^= 1;
}

// The weights of one step, (64, chunk) of packed (groups, K, runs, O/groups, padded run).
template <typename T>
D3DNET_DEVICE void copy_weights(const CudaProblem& p, int group, int first_output, int runs,
                                int slices, const Step& step, char* to) {
  const Chunk chunk = chunk_at(slices, step.chunk);
  const int outputs = p.out_channels / p.groups;
  const int64 rows = ((int64(group) * taps_of(p) + step.tap) * runs + step.run) * outputs;
  const char* from = static_cast<const char*>(p.packed_weight) + chunk.first * kSliceBytes;
  const int shift = chunk.slices == 4 ? 3 : chunk.slices;  // 16-byte vectors in a row: 8, 4 or 2
  for (int i = thread_index(); i < kForwardOutputs << shift; i += kForwardThreads) {
    const int row = i >> shift, vector = i & ((1 << shift) - 1);
    const int output = first_output + row;
    const bool valid = output < outputs;
    copy_async(to + row * kRowBytes + vector * 16,
               from + (rows + (valid ? output : 0)) * slices * kSliceBytes + vector * 16, valid);
  }
}

// Where one thread's share of a slice comes from and goes to.
template <typename T>
struct Gather {
  const T* input;  // of the clip, at the vector's first channel
  int pixel, vector, count;
  bool whole;
};

template <typename T, bool TensorCores>
D3DNET_DEVICE Bytes16 pack_columns(Accumulator<T> (&sums)[kLanes<T>]) {
  if constexpr (TensorCores && sizeof(T) == 4) {
#pragma unroll
    for (int k = 0; k < kLanes<T>; ++k) sums[k] = to_tf32(sums[k]);
  }
  return pack(sums, T{});
}

template <typename T, bool TensorCores>
D3DNET_DEVICE void convolve(const CudaProblem& p) {
  using S = Accumulator<T>;
  auto& shared = *reinterpret_cast<ForwardShared<T>*>(shared_memory());
  const int thread = thread_index(), lane = thread % 32, warp = thread / 32;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  const Tile tile = tile_at(p, block_index(0));
  const int outputs = p.out_channels / p.groups;
  const int blocks_of_outputs = (outputs + kForwardOutputs - 1) / kForwardOutputs;
  const int group = block_index(1) / blocks_of_outputs;
  const int first_output = block_index(1) % blocks_of_outputs * kForwardOutputs;
  const int group_channels = p.channels / p.groups, first_channel = group * group_channels;
  const int runs = group_channels / p.run;
  const int slices = slices_of(p.run, sizeof(T)), chunks = chunks_of(slices);
  const int taps = taps_of(p);
  const int own_pixel = thread < kForwardPixels ? pixel_of(p, tile, thread) : -1;
  const T* clip = static_cast<const T*>(p.input) + tile.clip * in_pixels(p) * p.channels;
  auto* corners = reinterpret_cast<Corners<S>*>(shared.table);
  auto* frames = reinterpret_cast<Frames<S>*>(corners + kForwardPixels);
  const int stages = sizeof(S) == 4 && !p.moves[0] ? 2 : 1;
  static_assert(kForwardPixels * (sizeof(S) == 4 ? 2 * sizeof(Corners<S>)
                                                 : sizeof(Corners<S>) + sizeof(Frames<S>)) <=
                    kTableBytes<T>, "");

  auto read_samples = [&](const Step& step) {
    return read_raw<T>(p, tile.clip, own_pixel, step.tap, step.offset_group);
  };
  auto write_samples = [&](const Step& step, const Raw<S>& raw) {
    const Sample<S> sample = locate(p, tile, thread, own_pixel, step.tap, raw);
    corners[step.samples * kForwardPixels + thread] = corners_of(p, sample, sample.mask, false);
    if (p.moves[0]) frames[thread] = frames_of(p, sample, false);
  };
  auto gather_from = [&](const Step& step, const Chunk& chunk, int slice) {
    const int shift = chunk.slices == 4 ? 3 : chunk.slices;
    const int i = slice * kForwardThreads + thread;
    Gather<T> from;
    from.pixel = i >> shift;
    from.vector = i & ((1 << shift) - 1);
    const int channel = chunk.first * (kSliceBytes / int(sizeof(T))) + from.vector * kLanes<T>;
    from.count = p.run - channel;
    from.whole = p.whole_input && from.count > 0;
    from.input = clip + first_channel + step.run * p.run + channel;
    return from;
  };

  Sums<S> sums;
  clear(sums);
  Step next = {next_tap(p, tile, 0), 0, 0, 0, 0, true};
  next.offset_group = first_channel / (p.channels / p.offset_groups);
  int stage = 0, gathered = 0;  // slices that the round before has gathered
  // The first round only gathers, the last only multiplies.
  for (bool filling = true; filling || gathered > 0; filling = false) {
    Step after = next;
    if (filling && next.tap < taps) {
      if (thread < kForwardPixels) write_samples(next, read_samples(next));
      synchronize();
    }
    if (next.tap < taps) advance(p, tile, first_channel, runs, chunks, stages, after);
    const bool new_samples = next.tap < taps && after.tap < taps && after.changed;
    const bool locates = new_samples && thread < kForwardPixels;
    Raw<S> raw = {};
    if (locates) raw = read_samples(after);

    Chunk coming = {0, 0};
    if (next.tap < taps) {
      coming = chunk_at(slices, next.chunk);
      copy_weights<T>(p, group, first_output, runs, slices, next, shared.weights[stage ^ 1]);
    }
    const int rounds = gathered > coming.slices ? gathered : coming.slices;
#pragma unroll 1
    for (int slice = 0; slice < rounds; ++slice) {
      const bool gathers = slice < coming.slices;
      Bytes16 values[4];
      Gather<T> from = {};
      Corners<S> corner = {};
      const auto read = [&](int upper) {
        corner = corners[next.samples * kForwardPixels + from.pixel];
        if (p.moves[0]) corner = in_frame(corner, frames[from.pixel], upper);
        read_corners(p, corner, from.input, from.count, from.whole, values);
      };
      if (gathers) from = gather_from(next, coming, slice);
      if (TensorCores && gathers) read(0);
      if (slice < gathered)
        multiply_slice<T, TensorCores>(
            sums, shared.columns[stage] + warp_row * kRowBytes + slice * kSliceBytes,
            shared.weights[stage] + warp_column * kRowBytes + slice * kSliceBytes, lane);
      if (gathers) {
        // Without tensor cores the product needs the registers.
        if (!TensorCores) read(0);
        S blended[kLanes<T>] = {};
        blend_corners<T>(corner, values, blended);
        if (p.moves[0]) {
          read(1);
          blend_corners<T>(corner, values, blended);
        }
        *reinterpret_cast<Bytes16*>(shared.columns[stage ^ 1] + from.pixel * kRowBytes +
                                    from.vector * 16) = pack_columns<T, TensorCores>(blended);
      }
    }
    if (new_samples && stages == 1) synchronize();  // those before have been read
    if (locates) write_samples(after, raw);
    copy_wait();
    synchronize();
    gathered = coming.slices;
    next = after;
    stage ^= 1;
  }

  const int64 pixels = out_pixels(p);
  T* output = static_cast<T*>(p.output) + tile.clip * pixels * p.out_channels;
  const int64 pixel_stride = p.output_is_channels_last ? p.out_channels : 1;
  const int64 channel_stride = p.output_is_channels_last ? 1 : pixels;
  const S slope = S(p.negative_slope);
#pragma unroll
  for (int n = 0; n < 4; ++n)
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int column = first_output + warp_column + sum_column(lane, n, side);
      if (column >= outputs) continue;
      const int64 channel = int64(group) * outputs + column;
      const S bias = p.bias ? S(widen(static_cast<const T*>(p.bias)[channel])) : S(0);
#pragma unroll
      for (int row = 0; row < 4; ++row) {
        const int pixel = pixel_of(p, tile, warp_row + sum_row(lane, row / 2, row % 2 * 2));
        if (pixel < 0) continue;
        const S sum = sums.at[row / 2][n][row % 2 * 2 + side] + bias;
        narrow(sum < S(0) ? slope * sum : sum,
               output[pixel * pixel_stride + channel * channel_stride]);
      }
    }
}

// packed (groups, K, runs, O/groups, padded run), zero in the padding; a thread per element.
template <typename T>
D3DNET_DEVICE void pack_forward(const CudaProblem& p) {
  const int group_channels = p.channels / p.groups, runs = group_channels / p.run;
  const int outputs = p.out_channels / p.groups, taps = taps_of(p);
  const int padded = slices_of(p.run, sizeof(T)) * (kSliceBytes / int(sizeof(T)));
  const unsigned count = unsigned(p.groups * taps * runs) * outputs * padded;
  for (unsigned i = block_index(0) * 256 + thread_index(); i < count;
       i += unsigned(block_count(0)) * 256) {
    const int channel = int(i % padded);
    const int output = int(i / padded % outputs);
    const int run = int(i / padded / outputs % runs);
    const int tap = int(i / padded / outputs / runs % taps);
    const int group = int(i / padded / outputs / runs / taps);
    T value = {};
    if (channel < p.run)
      value = static_cast<const T*>(p.weight)[((int64(group) * outputs + output) * group_channels +
                                               run * p.run + channel) * taps + tap];
    if constexpr (sizeof(T) == 4)
      if (p.round_weights) value = to_tf32(value);
    static_cast<T*>(p.packed_weight)[i] = value;
  }
}

}  // namespace d3dnet
