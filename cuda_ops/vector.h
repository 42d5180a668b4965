// Vectors of D3DNET_VECTOR_BYTES bytes and the storage types, for one instruction set.
//
// Everything is in an unnamed namespace: each kernel_*.cpp gets its own copy, compiled with its
// own -m flags, and the linker cannot replace one with another's.
#pragma once

#include <cstdint>
#include <cstring>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// The type in which T is sampled, multiplied and accumulated.
template <typename T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <typename T>
using Compute = typename ComputeOf<T>::type;

template <typename S>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(D3DNET_VECTOR_BYTES)));
  typedef float unaligned __attribute__((vector_size(D3DNET_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(D3DNET_VECTOR_BYTES)));
  typedef double unaligned
      __attribute__((vector_size(D3DNET_VECTOR_BYTES), aligned(8), may_alias));
};
template <typename S>
using Vector = typename VectorOf<S>::type;
template <typename S>
constexpr int kLanes = D3DNET_VECTOR_BYTES / int(sizeof(S));

typedef uint32_t WordVector __attribute__((vector_size(D3DNET_VECTOR_BYTES)));
typedef uint16_t HalfVector __attribute__((vector_size(D3DNET_VECTOR_BYTES / 2)));

inline float word_to_float(uint32_t word) {
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
inline uint32_t float_to_word(float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  return word;
}

inline float load_one(const float* p) { return *p; }
inline double load_one(const double* p) { return *p; }
inline float load_one(const bfloat16* p) { return word_to_float(uint32_t(p->bits) << 16); }
inline float load_one(const float16* p) {
#ifdef __F16C__
  return _cvtsh_ss(p->bits);
#else
  const uint32_t sign = uint32_t(p->bits & 0x8000u) << 16;
  const uint32_t rest = p->bits & 0x7fffu;
  if (rest >= 0x7c00u) return word_to_float(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
  // 2^112 moves the exponent's bias from 15 to 127 and makes subnormals come out right.
  return word_to_float(sign | float_to_word(word_to_float(rest << 13) * 0x1p112f));
#endif
}

inline void store_one(float* p, float value) { *p = value; }
inline void store_one(double* p, double value) { *p = value; }
inline void store_one(float* p, double value) { *p = float(value); }
inline void store_one(bfloat16* p, float value) {
  const uint32_t word = float_to_word(value);
  const uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  p->bits = uint16_t(value != value ? 0x7fc0u : rounded);
}
inline void store_one(float16* p, float value) {
#ifdef __F16C__
  p->bits = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
#else
  const uint32_t word = float_to_word(value);
  const uint32_t sign = (word >> 16) & 0x8000u;
  const uint32_t rest = word & 0x7fffffffu;
  uint32_t bits;
  if (rest > 0x7f800000u) {
    bits = 0x7e00u;
  } else if (rest >= 0x477ff000u) {  // 65520 and above round to infinity
    bits = 0x7c00u;
  } else if (rest < 0x38800000u) {  // subnormal: let the adder round at 2^-24
    bits = float_to_word(word_to_float(rest) + 0.5f) - float_to_word(0.5f);
  } else {
    bits = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
  }
  p->bits = uint16_t(sign | bits);
#endif
}

template <typename S>
inline Vector<S> load(const S* p) {
  return *reinterpret_cast<const typename VectorOf<S>::unaligned*>(p);
}
inline Vector<float> load(const bfloat16* p) {
  HalfVector half;
  std::memcpy(&half, p, sizeof(half));
  return (Vector<float>)(__builtin_convertvector(half, WordVector) << 16);
}
inline Vector<float> load(const float16* p) {
#if defined(__AVX512F__) && D3DNET_VECTOR_BYTES == 64
  return (Vector<float>)_mm512_maskz_cvtph_ps(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__) && D3DNET_VECTOR_BYTES == 32
  return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vector<float> value;
  for (int i = 0; i < kLanes<float>; ++i) value[i] = load_one(p + i);
  return value;
#endif
}

template <typename S>
inline void store(S* p, Vector<S> value) {
  *reinterpret_cast<typename VectorOf<S>::unaligned*>(p) = value;
}

template <typename S>
inline Vector<S> broadcast(S value) {
  return value - Vector<S>{};  // x - 0 is x, and -0 - 0 is -0
}

template <typename S>
inline S sum_lanes(Vector<S> value) {
  S lanes[kLanes<S>];
  std::memcpy(lanes, &value, sizeof(lanes));
  for (int half = kLanes<S> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

}  // namespace
