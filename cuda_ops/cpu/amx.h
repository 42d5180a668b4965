// The instructions of AMX that multiply_amx.h uses. Every tile has its full size, 16 rows of 64 bytes.
#pragma once

#include <cstdint>

#include <immintrin.h>

namespace {

constexpr int64_t kTileBytes = 64;

inline void configure_tiles() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  // GCC 12 does not see that _tile_loadconfig reads memory, and drops the stores before it.
  asm volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

}  // namespace

// Macros, because the compiler's intrinsics want the tile's number as a literal.
#define D3DNET_TILE_CONFIGURE() configure_tiles()
#define D3DNET_TILE_RELEASE() _tile_release()
#define D3DNET_TILE_ZERO(tile) _tile_zero(tile)
#define D3DNET_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define D3DNET_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define D3DNET_TILE_MULTIPLY(sums, a, b) _tile_dpbf16ps(sums, a, b)
