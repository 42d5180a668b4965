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
inline void store_one(bfloat16* p, bfloat16 value) { *p = value; }
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

inline void store(bfloat16* p, Vector<float> value) {
  const WordVector word = (WordVector)value;
  const WordVector rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  const WordVector is_nan = (WordVector)(value != value);
  const HalfVector half = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), HalfVector);
  std::memcpy(p, &half, sizeof(half));
}

// The sums over the lanes of each of four vectors.
template <typename S>
inline void sum_lanes_of_four(const Vector<S> (&values)[4], S* sums) {
  for (int k = 0; k < 4; ++k) {
    S lanes[kLanes<S>];
    std::memcpy(lanes, &values[k], sizeof(lanes));
    for (int half = kLanes<S> / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    sums[k] = lanes[0];
  }
}

#if defined(__AVX2__)
inline __m128 fold(Vector<float> value) {
#if D3DNET_VECTOR_BYTES == 64
  const __m256 half = (__m256)_mm512_castps512_ps256((__m512)value) +
                      _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)value, 1));
#else
  const __m256 half = (__m256)value;
#endif
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline void sum_lanes_of_four(const Vector<float> (&values)[4], float* sums) {
  _mm_storeu_ps(sums, _mm_hadd_ps(_mm_hadd_ps(fold(values[0]), fold(values[1])),
                                  _mm_hadd_ps(fold(values[2]), fold(values[3]))));
}
#endif

}  // namespace
