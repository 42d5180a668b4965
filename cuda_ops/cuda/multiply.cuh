// Products of two tiles in shared memory, summed in registers: on tensor cores, or without them.
//
// A warp computes 32 x 32 sums. They are held as the tensor cores hold theirs: sums[m][n][i] of a
// lane belongs to row 16 m + 8 (i / 2) + lane / 4 and column 8 n + 2 (lane % 4) + i % 2.
#pragma once

#include "device.cuh"

namespace d3dnet {

// A row of a tile holds 4 slices of 32 bytes; 16 more keep 8 rows apart in the memory banks.
constexpr int kSliceBytes = 32;
constexpr int kRowBytes = 4 * kSliceBytes + 16;

template <typename S>
struct Sums {
  S at[2][4][4];
};

D3DNET_DEVICE int sum_row(int lane, int m, int i) { return 16 * m + 8 * (i / 2) + lane / 4; }
D3DNET_DEVICE int sum_column(int lane, int n, int i) { return 8 * n + 2 * (lane % 4) + i % 2; }

template <typename S>
D3DNET_DEVICE void clear(Sums<S>& sums) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums.at[m][n][i] = 0;
}

// One half of the columns: 16 of them, as two instructions' worth in `right`.
template <typename T>
D3DNET_DEVICE void multiply_columns(Sums<float>& sums, int half, const unsigned (&left)[2][4],
                                    const unsigned (&right)[4], T type) {
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const unsigned pair[2] = {right[2 * n], right[2 * n + 1]};
      multiply_add(sums.at[m][2 * half + n], left[m], pair, type);
    }
}

// sums += A B^T over one slice: both tiles hold rows of kRowBytes, along which is summed.
template <typename T, bool TensorCores>
D3DNET_DEVICE void multiply_slice(Sums<Accumulator<T>>& sums, const char* a, const char* b,
                                  int lane) {
  if constexpr (TensorCores && kHasTensorCores) {
    synchronize_warp();
    unsigned left[2][4], right[4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
      load_matrices(left[m], a + (16 * m + lane % 16) * kRowBytes + lane / 16 * 16);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      load_matrices(right, b + (16 * half + lane % 8 + lane / 16 * 8) * kRowBytes +
                               lane / 8 % 2 * 16);
      multiply_columns(sums, half, left, right, T{});
    }
  } else {
#pragma unroll 1
    for (int part = 0; part < 2; ++part) {
      Bytes16 left[4];
#pragma unroll
      for (int r = 0; r < 4; ++r)
        left[r] = *reinterpret_cast<const Bytes16*>(
            a + sum_row(lane, r / 2, r % 2 * 2) * kRowBytes + 16 * part);
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const Bytes16 right = *reinterpret_cast<const Bytes16*>(
            b + sum_column(lane, c / 2, c % 2) * kRowBytes + 16 * part);
#pragma unroll
        for (int k = 0; k < kLanes<T>; ++k)
#pragma unroll
          for (int r = 0; r < 4; ++r)
            sums.at[r / 2][c / 2][r % 2 * 2 + c % 2] +=
                element(left[r], k, T{}) * element(right, k, T{});
      }
    }
  }
}

// Tiles of 64 columns whose rows are summed over (pixels): bytes from one row to the next.
template <typename T>
constexpr int kTallRowBytes = 64 * int(sizeof(T)) + 16;

// sums += A^T B over 16 rows of both tiles; the warp's columns start at `a` and `b`.
template <typename T, bool TensorCores>
D3DNET_DEVICE void multiply_rows(Sums<Accumulator<T>>& sums, const char* a, const char* b,
                                 int lane) {
  constexpr int row = kTallRowBytes<T>;
  if constexpr (TensorCores && kHasTensorCores) synchronize_warp();
  if constexpr (TensorCores && kHasTensorCores && sizeof(T) == 2) {
    unsigned left[2][4], right[4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
      load_matrices_transposed(
          left[m], a + (lane / 16 * 8 + lane % 8) * row + (16 * m + lane / 8 % 2 * 8) * 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      load_matrices_transposed(
          right, b + (lane / 8 % 2 * 8 + lane % 8) * row + (16 * half + lane / 16 * 8) * 2);
      multiply_columns(sums, half, left, right, T{});
    }
  } else if constexpr (TensorCores && kHasTensorCores) {
#pragma unroll
    for (int k = 0; k < 16; k += 8) {
      unsigned left[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          left[m][i] = *reinterpret_cast<const unsigned*>(
              a + (k + lane % 4 + i / 2 * 4) * row + (16 * m + i % 2 * 8 + lane / 4) * 4);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        unsigned right[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          right[i] = *reinterpret_cast<const unsigned*>(b + (k + lane % 4 + i * 4) * row +
                                                        (8 * n + lane / 4) * 4);
#pragma unroll
        for (int m = 0; m < 2; ++m) multiply_add(sums.at[m][n], left[m], right, T{});
      }
    }
  } else {
#pragma unroll 1
    for (int k = 0; k < 16; ++k) {
      const T* left = reinterpret_cast<const T*>(a + k * row);
      const T* right = reinterpret_cast<const T*>(b + k * row);
      Accumulator<T> factor[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) factor[r] = widen(left[sum_row(lane, r / 2, r % 2 * 2)]);
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const Accumulator<T> value = widen(right[sum_column(lane, c / 2, c % 2)]);
#pragma unroll
        for (int r = 0; r < 4; ++r)
          sums.at[r / 2][c / 2][r % 2 * 2 + c % 2] += factor[r] * value;
      }
    }
  }
}

}  // namespace d3dnet
