// C += A B with a register-blocked microkernel, for one instruction set.
//
// A is read in place (rows or, transposed, columns), one broadcast scalar at a time; B is read in
// panels, each a run of rows `b_row` apart. The accumulators of a block of a few rows x one panel
// stay in registers.
#pragma once

#include "vector.h"

namespace {

// Vectors in a panel and rows in a block: 6 x 4 (or, for few columns, 8 x 2) accumulators of
// AVX-512's 32 registers, 6 x 2 of the 16 of AVX2 and SSE.
constexpr int kWide = D3DNET_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int kNarrow = 2;
constexpr int block_rows(int vectors) {
  return D3DNET_VECTOR_BYTES == 64 && vectors == kNarrow ? 8 : 6;
}
// Rows of a B panel that are multiplied before moving on: they stay in the second-level cache.
constexpr int64_t kDepth = 768;

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Columns in a panel of a matrix of n columns: wide panels where they leave no more over.
template <typename S>
int64_t panel_columns(int64_t n) {
  const int64_t narrow = kNarrow * kLanes<S>, wide = kWide * kLanes<S>;
  return round_up(n, narrow) == round_up(n, wide) ? wide : narrow;
}

template <typename S, int Rows, int Vectors, bool Transposed>
void multiply_block(int64_t depth, const S* a, int64_t a_stride, const S* b, int64_t b_row, S* c,
                    int64_t c_row, bool accumulate) {
  Vector<S> sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j)
      sum[i][j] = accumulate ? load(c + i * c_row + j * kLanes<S>) : Vector<S>{};

  for (int64_t k = 0; k < depth; ++k) {
    Vector<S> row[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) row[j] = load(b + j * kLanes<S>);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const S value = Transposed ? a[i] : a[i * a_stride];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += value * row[j];
    }
    a += Transposed ? a_stride : 1;
    b += b_row;
  }

#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * kLanes<S>, sum[i][j]);
}

template <typename S, int Vectors, bool Transposed, int Rows = block_rows(Vectors)>
void multiply_rows(int rows, int64_t depth, const S* a, int64_t a_stride, const S* b,
                   int64_t b_row, S* c, int64_t c_row, bool accumulate) {
  if constexpr (Rows > 0) {
    if (rows == Rows)
      multiply_block<S, Rows, Vectors, Transposed>(depth, a, a_stride, b, b_row, c, c_row,
                                                   accumulate);
    else
      multiply_rows<S, Vectors, Transposed, Rows - 1>(rows, depth, a, a_stride, b, b_row, c,
                                                      c_row, accumulate);
  }
}

template <int Vectors, bool Transposed, typename S>
void multiply_panels(int64_t m, int64_t n, int64_t k, const S* a, int64_t a_stride, const S* b,
                     int64_t b_row, int64_t b_panel, S* c, int64_t c_row, bool accumulate) {
  constexpr int64_t kColumns = Vectors * kLanes<S>, kRows = block_rows(Vectors);
  const int64_t blocks = (m + kRows - 1) / kRows;
  for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
    const int64_t depth = k - k0 < kDepth ? k - k0 : kDepth;
    const bool add = accumulate || k0 > 0;
    for (int64_t n0 = 0; n0 < n; n0 += kColumns) {
      const S* panel = b + n0 / kColumns * b_panel + k0 * b_row;
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = m * block / blocks;  // blocks of nearly equal height
        const int rows = int(m * (block + 1) / blocks - first);
        const S* a_block = Transposed ? a + first + k0 * a_stride : a + first * a_stride + k0;
        S* c_block = c + first * c_row + n0;
        if (n - n0 >= kColumns) {
          multiply_rows<S, Vectors, Transposed>(rows, depth, a_block, a_stride, panel, b_row,
                                                c_block, c_row, add);
          continue;
        }
        S edge[kRows * kColumns];
        multiply_rows<S, Vectors, Transposed>(rows, depth, a_block, a_stride, panel, b_row, edge,
                                              kColumns, false);
        for (int i = 0; i < rows; ++i)
          for (int64_t j = 0; j < n - n0; ++j) {
            S& into = c_block[i * c_row + j];
            into = edge[i * kColumns + j] + (add ? into : S(0));
          }
      }
    }
  }
}

// c (m x n) = [c +] a (m x k) b (k x n). `a_stride` separates A's rows, or with Transposed its
// columns; B is in panels of panel_columns(n), b_panel apart, their rows b_row apart. The last
// panel is read in full even where n ends within it.
template <bool Transposed, typename S>
void multiply(int64_t m, int64_t n, int64_t k, const S* a, int64_t a_stride, const S* b,
              int64_t b_row, int64_t b_panel, S* c, int64_t c_row, bool accumulate) {
  const auto panels = panel_columns<S>(n) == kWide * kLanes<S>
                          ? multiply_panels<kWide, Transposed, S>
                          : multiply_panels<kNarrow, Transposed, S>;
  panels(m, n, k, a, a_stride, b, b_row, b_panel, c, c_row, accumulate);
}

// ---- the three products of the convolution; multiply_amx.h has the same ones for bfloat16 ----------

// Elements of a matrix (rows, columns) packed by pack().
template <typename S>
int64_t packed_elements(const S*, int64_t rows, int64_t columns) {
  return rows * round_up(columns, panel_columns<S>(columns));
}

// Packs a matrix (rows, columns), value(row, column) being its elements, for multiply_packed.
template <typename S, typename F>
void pack(S* matrix, int64_t rows, int64_t columns, F&& value) {
  const int64_t panel = panel_columns<S>(columns);
  for (int64_t first = 0; first < columns; first += panel)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = first; column < first + panel; ++column)
        *matrix++ = column < columns ? value(row, column) : S(0);
}

// c (m x n) = [c +] a (m x k) b, b being packed.
template <typename S>
void multiply_packed(int64_t m, int64_t n, int64_t k, const S* a, int64_t a_row, const S* b, S* c,
                     int64_t c_row, bool accumulate) {
  const int64_t panel = panel_columns<S>(n);
  multiply<false>(m, n, k, a, a_row, b, panel, k * panel, c, c_row, accumulate);
}

// Elements of workspace that multiply_transposed needs.
template <typename S>
int64_t workspace_elements(const S*, int64_t, int64_t) {
  return 0;
}

// c (m x n) += a' b, with a (k x m) and b (k x n) as they stand.
template <typename S>
void multiply_transposed(int64_t m, int64_t n, int64_t k, const S* a, int64_t a_row, const S* b,
                         int64_t b_row, S* c, int64_t c_row, S*) {
  multiply<true>(m, n, k, a, a_row, b, b_row, panel_columns<S>(n), c, c_row, true);
}

// Held while products are computed.
template <typename S>
struct MatrixUnit {};

}  // namespace
