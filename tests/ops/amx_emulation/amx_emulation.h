// The instructions of cuda_ops/cpu/amx.h in plain C++, so that packing and indexing are tested on
// machines without AMX.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t kTileBytes = 64;

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
