// C += A B with a register-blocked microkernel, for one instruction set.
//
// A is read in place (rows or, transposed, columns), one broadcast scalar at a time; B is read in
// panels of kPanel columns, each a run of rows `b_row` apart. The accumulators of a block of up to
// kBlockRows rows x one panel stay in registers.
#pragma once

#include "vector.h"

namespace {

constexpr int kPanelVectors = 2;
template <typename S>
constexpr int kPanel = kPanelVectors * kLanes<S>;
// 14 x 2 accumulators of AVX-512's 32 registers, 6 x 2 of AVX2's and SSE's 16.
constexpr int kBlockRows = D3DNET_VECTOR_BYTES == 64 ? 14 : 6;
// Rows of a B panel that stay in the first-level cache.
constexpr int64_t kDepth = 192;

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

template <typename S, int Rows, bool Transposed>
void multiply_block(int64_t depth, const S* a, int64_t a_stride, const S* b, int64_t b_row, S* c,
                    int64_t c_row, bool accumulate) {
  Vector<S> sum[Rows][kPanelVectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kPanelVectors; ++j)
      sum[i][j] = accumulate ? load(c + i * c_row + j * kLanes<S>) : Vector<S>{};

  for (int64_t k = 0; k < depth; ++k) {
    Vector<S> row[kPanelVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kPanelVectors; ++j) row[j] = load(b + j * kLanes<S>);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const S value = Transposed ? a[i] : a[i * a_stride];
#pragma GCC unroll 2
      for (int j = 0; j < kPanelVectors; ++j) sum[i][j] += value * row[j];
    }
    a += Transposed ? a_stride : 1;
    b += b_row;
  }

#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kPanelVectors; ++j) store(c + i * c_row + j * kLanes<S>, sum[i][j]);
}

template <typename S, bool Transposed, int Rows = kBlockRows>
void multiply_rows(int rows, int64_t depth, const S* a, int64_t a_stride, const S* b,
                   int64_t b_row, S* c, int64_t c_row, bool accumulate) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      multiply_block<S, Rows, Transposed>(depth, a, a_stride, b, b_row, c, c_row, accumulate);
    else
      multiply_rows<S, Transposed, Rows - 1>(rows, depth, a, a_stride, b, b_row, c, c_row,
                                             accumulate);
  }
}

// c (m x n) = [c +] a (m x k) b (k x n). `a_stride` separates A's rows, or with Transposed its
// columns. Panel j of B starts at b + j * b_panel.
template <bool Transposed, typename S>
void multiply(int64_t m, int64_t n, int64_t k, const S* a, int64_t a_stride, const S* b,
              int64_t b_row, int64_t b_panel, S* c, int64_t c_row, bool accumulate) {
  const int64_t blocks = (m + kBlockRows - 1) / kBlockRows;
  for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
    const int64_t depth = k - k0 < kDepth ? k - k0 : kDepth;
    for (int64_t n0 = 0; n0 < n; n0 += kPanel<S>) {
      const S* panel = b + n0 / kPanel<S> * b_panel + k0 * b_row;
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = m * block / blocks;  // blocks of nearly equal height
        const int rows = int(m * (block + 1) / blocks - first);
        const S* a_block = Transposed ? a + first + k0 * a_stride : a + first * a_stride + k0;
        S* c_block = c + first * c_row + n0;
        const bool add = accumulate || k0 > 0;
        if (n - n0 >= kPanel<S>) {
          multiply_rows<S, Transposed>(rows, depth, a_block, a_stride, panel, b_row, c_block,
                                       c_row, add);
        } else {
          S edge[kBlockRows * kPanel<S>];
          multiply_rows<S, Transposed>(rows, depth, a_block, a_stride, panel, b_row, edge,
                                       kPanel<S>, false);
          for (int i = 0; i < rows; ++i)
            for (int64_t j = 0; j < n - n0; ++j)
              c_block[i * c_row + j] = edge[i * kPanel<S> + j] + (add ? c_block[i * c_row + j] : S(0));
        }
      }
    }
  }
}

}  // namespace
