// The products of multiply.h for bfloat16 matrices, with AMX tiles and float32 sums.
//
// A tile of A is 16 rows x 32 values; a tile of B 32 rows x 16 columns, rows in pairs, so that it
// is 16 rows of 16 pairs. B is packed tile by tile, zero where the matrix ends within a tile. Where
// A ends within a tile it is copied to one padded with zeros: garbage times zero could be NaN.
#pragma once

#include <cstring>

#ifdef D3DNET_EMULATED
#include "amx_emulation.h"
#else
#include "amx.h"
#endif
#include "multiply.h"

namespace {

constexpr int64_t kTileRows = 16, kTileDepth = 32, kTileColumns = 16;
constexpr int64_t kTileElements = kTileRows * kTileDepth;
// Blocks of 2 x 2 tiles of C.
constexpr int64_t kBlock = 32;

template <>
struct MatrixUnit<bfloat16> {
  MatrixUnit() { D3DNET_TILE_CONFIGURE(); }
  ~MatrixUnit() { D3DNET_TILE_RELEASE(); }
};

inline int64_t tile_steps(int64_t k) { return (k + kTileDepth - 1) / kTileDepth; }

// Packed: per block of 32 columns, per 32 rows, the two tiles.
inline int64_t packed_elements(const bfloat16*, int64_t rows, int64_t columns) {
  return round_up(rows, kTileDepth) * round_up(columns, kBlock);
}

template <typename F>
void pack(bfloat16* matrix, int64_t rows, int64_t columns, F&& value) {
  for (int64_t first = 0; first < columns; first += kBlock)
    for (int64_t row = 0; row < rows; row += kTileDepth)
      for (int64_t tile = first; tile < first + kBlock; tile += kTileColumns)
        for (int64_t pair = row; pair < row + kTileDepth; pair += 2)
          for (int64_t column = tile; column < tile + kTileColumns; ++column)
            for (int64_t k = pair; k < pair + 2; ++k)
              store_one(matrix++, k < rows && column < columns ? value(k, column) : 0.0f);
}

// The tile of A at `a`, or, where fewer than 16 x 32 values are left, a padded copy of it.
inline const bfloat16* a_tile(const bfloat16* a, int64_t a_row, int64_t rows, int64_t depth,
                              bfloat16* copy, int64_t& stride) {
  stride = a_row * 2;
  if (rows >= kTileRows && depth >= kTileDepth) return a;
  stride = kTileBytes;
  std::memset(copy, 0, kTileElements * 2);
  for (int64_t i = 0; i < rows && i < kTileRows; ++i)
    std::memcpy(copy + i * kTileDepth, a + i * a_row, size_t(depth < kTileDepth ? depth : kTileDepth) * 2);
  return copy;
}

// c (up to 32 x 32) = [c +] a (rows x k) b, b being one packed block.
inline void multiply_tiles(int64_t rows, int64_t columns, int64_t k, const bfloat16* a,
                           int64_t a_row, const bfloat16* b, float* c, int64_t c_row,
                           bool accumulate) {
  alignas(64) float whole[kBlock * kBlock];
  const bool edge = rows < kBlock || columns < kBlock;
  float* into = edge ? whole : c;
  const int64_t into_row = edge ? kBlock : c_row, stride = into_row * 4;
  if (edge && accumulate)
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(whole + i * kBlock, c + i * c_row, size_t(columns) * 4);
  if (accumulate) {
    D3DNET_TILE_LOAD(0, into, stride);
    D3DNET_TILE_LOAD(1, into + 16, stride);
    D3DNET_TILE_LOAD(2, into + 16 * into_row, stride);
    D3DNET_TILE_LOAD(3, into + 16 * into_row + 16, stride);
  } else {
    D3DNET_TILE_ZERO(0);
    D3DNET_TILE_ZERO(1);
    D3DNET_TILE_ZERO(2);
    D3DNET_TILE_ZERO(3);
  }
  alignas(64) bfloat16 copies[2][kTileElements];
  for (int64_t k0 = 0; k0 < k; k0 += kTileDepth, b += 2 * kTileElements) {
    int64_t upper_stride, lower_stride;
    const int64_t lower_rows = rows > kTileRows ? rows - kTileRows : 0;
    const bfloat16* upper = a_tile(a + k0, a_row, rows, k - k0, copies[0], upper_stride);
    const bfloat16* lower =
        a_tile(a + kTileRows * a_row + k0, a_row, lower_rows, k - k0, copies[1], lower_stride);
    D3DNET_TILE_LOAD(4, upper, upper_stride);
    D3DNET_TILE_LOAD(5, lower, lower_stride);
    D3DNET_TILE_LOAD(6, b, kTileBytes);
    D3DNET_TILE_LOAD(7, b + kTileElements, kTileBytes);
    D3DNET_TILE_MULTIPLY(0, 4, 6);
    D3DNET_TILE_MULTIPLY(1, 4, 7);
    D3DNET_TILE_MULTIPLY(2, 5, 6);
    D3DNET_TILE_MULTIPLY(3, 5, 7);
  }
  D3DNET_TILE_STORE(0, into, stride);
  D3DNET_TILE_STORE(1, into + 16, stride);
  D3DNET_TILE_STORE(2, into + 16 * into_row, stride);
  D3DNET_TILE_STORE(3, into + 16 * into_row + 16, stride);
  if (edge)
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(c + i * c_row, whole + i * kBlock, size_t(columns) * 4);
}

inline int64_t at_most_block(int64_t left) { return left < kBlock ? left : kBlock; }

inline void multiply_packed(int64_t m, int64_t n, int64_t k, const bfloat16* a, int64_t a_row,
                            const bfloat16* b, float* c, int64_t c_row, bool accumulate) {
  const int64_t panel = tile_steps(k) * 2 * kTileElements;
  for (int64_t n0 = 0; n0 < n; n0 += kBlock, b += panel)
    for (int64_t m0 = 0; m0 < m; m0 += kBlock)
      multiply_tiles(at_most_block(m - m0), at_most_block(n - n0), k, a + m0 * a_row, a_row, b,
                     c + m0 * c_row + n0, c_row, accumulate);
}

// A transposed, in rows of whole tiles, and one packed block of B.
inline int64_t workspace_elements(const bfloat16*, int64_t m, int64_t k) {
  return (m + kBlock) * tile_steps(k) * kTileDepth;
}

// Interleaves rows `even` and `odd` of B (null: zeros) into one row of pairs of a tile.
inline void pair_rows(const bfloat16* even, const bfloat16* odd, int64_t columns, bfloat16* pairs) {
  for (int64_t i = 0; i < kTileColumns; ++i) {
    pairs[2 * i] = even && i < columns ? even[i] : bfloat16{0};
    pairs[2 * i + 1] = odd && i < columns ? odd[i] : bfloat16{0};
  }
}

inline void multiply_transposed(int64_t m, int64_t n, int64_t k, const bfloat16* a, int64_t a_row,
                                const bfloat16* b, int64_t b_row, float* c, int64_t c_row,
                                bfloat16* workspace) {
  const int64_t depth = tile_steps(k) * kTileDepth;
  bfloat16* transposed = workspace;
  bfloat16* block = workspace + m * depth;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < depth; ++j)
      transposed[i * depth + j] = j < k ? a[j * a_row + i] : bfloat16{0};
  for (int64_t n0 = 0; n0 < n; n0 += kBlock) {
    bfloat16* tile = block;
    for (int64_t k0 = 0; k0 < depth; k0 += kTileDepth)
      for (int64_t column = n0; column < n0 + kBlock; column += kTileColumns)
        for (int64_t row = k0; row < k0 + kTileDepth; row += 2, tile += 2 * kTileColumns)
          pair_rows(row < k ? b + row * b_row + column : nullptr,
                    row + 1 < k ? b + (row + 1) * b_row + column : nullptr, n - column, tile);
    for (int64_t m0 = 0; m0 < m; m0 += kBlock)
      multiply_tiles(at_most_block(m - m0), at_most_block(n - n0), depth,
                     transposed + m0 * depth, depth, block, c + m0 * c_row + n0, c_row, true);
  }
}

}  // namespace
