// What the kernels need of a GPU, and nothing of torch or of the CUDA headers: nvcc, NVRTC and, with
// D3DNET_EMULATED, a host compiler take the same kernels.
//
// Below: element types with their conversions, 16-byte vectors, and the instructions that are not
// C++: tensor cores, asynchronous copies, lane sums, atomics. In emulation the latter come from the
// program that includes this (see tests/ops/cuda_emulation).
#pragma once

#ifdef __CUDACC__
#define D3DNET_DEVICE __device__ __forceinline__
#else
#define D3DNET_DEVICE inline
#endif

namespace d3dnet {

using int64 = long long;

struct bfloat16 {
  unsigned short bits;
};
struct float16 {
  unsigned short bits;
};

// The type in which T is sampled, multiplied and accumulated.
template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

// 16 bytes, the unit of memory accesses.
struct alignas(16) Bytes16 {
  unsigned word[4];
};
template <typename T>
constexpr int kLanes = 16 / int(sizeof(T));  // elements in 16 bytes

#ifdef D3DNET_EMULATED

float word_as_float(unsigned word);
unsigned float_as_word(float value);
float to_float(float16 value);
float16 to_float16(float value);
inline float to_tf32(float value) {  // nearest, ties away from zero
  return word_as_float((float_as_word(value) + 0x1000u) & 0xffffe000u);
}
int thread_index();
int block_index(int axis);
int block_count(int axis);
void synchronize();
void synchronize_warp();
char* shared_memory();
void copy_async(void* shared, const void* global, bool valid);
void copy_wait();
void load_matrices(unsigned (&to)[4], const void* row);
void load_matrices_transposed(unsigned (&to)[4], const void* row);
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], bfloat16);
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], float16);
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], float);
float sum_of_eight_lanes(float value);
double sum_of_eight_lanes(double value);
template <typename S>
void atomic_add(S* to, S value) {
  *to += value;
}
void atomic_add_four(float* to, const float* values);
Bytes16 load_global(const void* from);
constexpr bool kHasTensorCores = true;

#else

D3DNET_DEVICE float word_as_float(unsigned word) { return __uint_as_float(word); }
D3DNET_DEVICE unsigned float_as_word(float value) { return __float_as_uint(value); }
D3DNET_DEVICE float to_float(float16 value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}
D3DNET_DEVICE float16 to_float16(float value) {
  float16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
}
D3DNET_DEVICE int thread_index() { return int(threadIdx.x); }
D3DNET_DEVICE int block_index(int axis) {
  return int(axis == 0 ? blockIdx.x : axis == 1 ? blockIdx.y : blockIdx.z);
}
D3DNET_DEVICE int block_count(int axis) {
  return int(axis == 0 ? gridDim.x : axis == 1 ? gridDim.y : gridDim.z);
}
D3DNET_DEVICE void synchronize() { __syncthreads(); }
// Lanes that took different branches are together again: before instructions of the whole warp.
D3DNET_DEVICE void synchronize_warp() { __syncwarp(); }
D3DNET_DEVICE char* shared_memory() {
  extern __shared__ Bytes16 d3dnet_shared[];
  return reinterpret_cast<char*>(d3dnet_shared);
}
D3DNET_DEVICE unsigned shared_address(const void* shared) {
  return unsigned(__cvta_generic_to_shared(shared));
}
// Through the read-only cache: only for what the kernel does not write.
D3DNET_DEVICE Bytes16 load_global(const void* from) {
  Bytes16 to;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(to.word[0]), "=r"(to.word[1]), "=r"(to.word[2]), "=r"(to.word[3])
      : "l"(from));
  return to;
}
D3DNET_DEVICE float sum_of_eight_lanes(float value) {
  for (int step = 4; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
D3DNET_DEVICE double sum_of_eight_lanes(double value) {
  for (int step = 4; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
template <typename S>
D3DNET_DEVICE void atomic_add(S* to, S value) {
  atomicAdd(to, value);
}
D3DNET_DEVICE void atomic_add_four(float* to, const float* values) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(values[0]),
               "f"(values[1]), "f"(values[2]), "f"(values[3])
               : "memory");
#else
  for (int i = 0; i < 4; ++i) atomicAdd(to + i, values[i]);
#endif
}

#if __CUDA_ARCH__ >= 800
constexpr bool kHasTensorCores = true;
D3DNET_DEVICE float to_tf32(float value) {
  unsigned word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
  return __uint_as_float(word);
}
// 16 bytes from global to shared memory, in the background until copy_wait; zeros if not valid.
D3DNET_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
D3DNET_DEVICE void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
D3DNET_DEVICE void load_matrices(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
D3DNET_DEVICE void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
#define D3DNET_MULTIPLY_ADD(T, instruction)                                                      \
  D3DNET_DEVICE void multiply_add(float (&sums)[4], const unsigned (&a)[4],                      \
                                  const unsigned (&b)[2], T) {                                   \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"  \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));            \
  }
D3DNET_MULTIPLY_ADD(bfloat16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
D3DNET_MULTIPLY_ADD(float16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
D3DNET_MULTIPLY_ADD(float, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
#undef D3DNET_MULTIPLY_ADD
#else
// Turing: its tensor cores take neither bfloat16 nor tf32 and are not used.
constexpr bool kHasTensorCores = false;
D3DNET_DEVICE float to_tf32(float value) { return value; }
D3DNET_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  Bytes16 bytes = {};
  if (valid) bytes = load_global(global);
  *static_cast<Bytes16*>(shared) = bytes;
}
D3DNET_DEVICE void copy_wait() {}
D3DNET_DEVICE void load_matrices(unsigned (&)[4], const void*) {}
D3DNET_DEVICE void load_matrices_transposed(unsigned (&)[4], const void*) {}
template <typename T>
D3DNET_DEVICE void multiply_add(float (&)[4], const unsigned (&)[4], const unsigned (&)[2], T) {}
#endif

#endif  // D3DNET_EMULATED

D3DNET_DEVICE float to_float(bfloat16 value) { return word_as_float(unsigned(value.bits) << 16); }
D3DNET_DEVICE bfloat16 to_bfloat16(float value) {
  const unsigned word = float_as_word(value);
  const unsigned rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  return {(unsigned short)(value != value ? 0x7fc0u : rounded)};
}
D3DNET_DEVICE double widen(double value) { return value; }
D3DNET_DEVICE float widen(float value) { return value; }
D3DNET_DEVICE float widen(bfloat16 value) { return to_float(value); }
D3DNET_DEVICE float widen(float16 value) { return to_float(value); }
D3DNET_DEVICE void narrow(double value, double& to) { to = value; }
D3DNET_DEVICE void narrow(double value, float& to) { to = float(value); }
D3DNET_DEVICE void narrow(float value, float& to) { to = value; }
D3DNET_DEVICE void narrow(float value, bfloat16& to) { to = to_bfloat16(value); }
D3DNET_DEVICE void narrow(float value, float16& to) { to = to_float16(value); }

// The elements of 16 bytes. Unpacking goes through words, so that they stay in registers.
D3DNET_DEVICE double element(const Bytes16& bytes, int i, double) {
  const unsigned long long word =
      (unsigned long long)(bytes.word[2 * i + 1]) << 32 | bytes.word[2 * i];
#ifdef D3DNET_EMULATED
  double value;
  __builtin_memcpy(&value, &word, 8);
  return value;
#else
  return __longlong_as_double((long long)(word));
#endif
}
D3DNET_DEVICE float element(const Bytes16& bytes, int i, float) {
  return word_as_float(bytes.word[i]);
}
D3DNET_DEVICE float element(const Bytes16& bytes, int i, bfloat16) {
  const unsigned word = bytes.word[i / 2];
  return word_as_float(i % 2 ? word & 0xffff0000u : word << 16);
}
D3DNET_DEVICE float element(const Bytes16& bytes, int i, float16) {
  const unsigned word = bytes.word[i / 2];
  return to_float(float16{(unsigned short)(i % 2 ? word >> 16 : word & 0xffffu)});
}

D3DNET_DEVICE Bytes16 pack(const double (&values)[2], double) {
  Bytes16 bytes;
  for (int i = 0; i < 2; ++i) {
#ifdef D3DNET_EMULATED
    unsigned long long word;
    __builtin_memcpy(&word, &values[i], 8);
#else
    const unsigned long long word = (unsigned long long)(__double_as_longlong(values[i]));
#endif
    bytes.word[2 * i] = unsigned(word);
    bytes.word[2 * i + 1] = unsigned(word >> 32);
  }
  return bytes;
}
D3DNET_DEVICE Bytes16 pack(const float (&values)[4], float) {
  Bytes16 bytes;
  for (int i = 0; i < 4; ++i) bytes.word[i] = float_as_word(values[i]);
  return bytes;
}
D3DNET_DEVICE unsigned pack_pair(float low, float high, bfloat16) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return to_bfloat16(low).bits | unsigned(to_bfloat16(high).bits) << 16;
#endif
}
D3DNET_DEVICE unsigned pack_pair(float low, float high, float16) {
  return to_float16(low).bits | unsigned(to_float16(high).bits) << 16;
}
template <typename T>
D3DNET_DEVICE Bytes16 pack(const float (&values)[8], T type) {
  Bytes16 bytes;
#pragma unroll
  for (int i = 0; i < 4; ++i) bytes.word[i] = pack_pair(values[2 * i], values[2 * i + 1], type);
  return bytes;
}

// `count` elements, at most 16 bytes of them, the rest zero; all at once where `whole` allows it.
template <typename T>
D3DNET_DEVICE Bytes16 load_elements(const T* from, int count, bool whole) {
  if (whole) return load_global(from);
  Accumulator<T> values[kLanes<T>] = {};
#pragma unroll
  for (int i = 0; i < kLanes<T>; ++i)
    if (i < count) values[i] = widen(from[i]);
  return pack(values, T{});
}

}  // namespace d3dnet
