// The instructions of AMX that gemm_amx.h uses, or, with D3DNET_AMX_EMULATED, the same in plain
// C++: so that packing and indexing are tested on machines without AMX.
//
// Every tile has its full size, 16 rows of 64 bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace {
constexpr int64_t kTileBytes = 64;
}

#ifdef D3DNET_AMX_EMULATED

namespace {

struct EmulatedTiles {
  unsigned char bytes[8][16][kTileBytes];
};
thread_local EmulatedTiles tiles;

inline void emulated_load(int tile, const void* from, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(tiles.bytes[tile][row], static_cast<const char*>(from) + row * stride, kTileBytes);
}
inline void emulated_store(int tile, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, tiles.bytes[tile][row], kTileBytes);
}
inline float emulated_element(const unsigned char* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, 2);
  const uint32_t word = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
// sums[m][n] += a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1]
inline void emulated_multiply(int sums, int a, int b) {
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      float sum;
      std::memcpy(&sum, tiles.bytes[sums][m] + 4 * n, 4);
      for (int k = 0; k < 16; ++k)
        for (int half = 0; half < 2; ++half)
          sum += emulated_element(tiles.bytes[a][m] + 4 * k + 2 * half) *
                 emulated_element(tiles.bytes[b][k] + 4 * n + 2 * half);
      std::memcpy(tiles.bytes[sums][m] + 4 * n, &sum, 4);
    }
}

}  // namespace

#define D3DNET_TILE_CONFIGURE() std::memset(&tiles, 0xff, sizeof(tiles))
#define D3DNET_TILE_RELEASE() std::memset(&tiles, 0xff, sizeof(tiles))
#define D3DNET_TILE_ZERO(tile) std::memset(tiles.bytes[tile], 0, sizeof(tiles.bytes[tile]))
#define D3DNET_TILE_LOAD(tile, from, stride) emulated_load(tile, from, stride)
#define D3DNET_TILE_STORE(tile, to, stride) emulated_store(tile, to, stride)
#define D3DNET_TILE_MULTIPLY(sums, a, b) emulated_multiply(sums, a, b)

#else

#include <immintrin.h>

namespace {

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

#endif
