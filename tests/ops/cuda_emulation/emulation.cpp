// See emulation.h. Fragment layouts are those of the PTX manual, section "Matrix Fragments".
#include "emulation.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <ucontext.h>

#include "backward.cuh"
#include "forward.cuh"

namespace d3dnet {
namespace {

constexpr size_t kStackBytes = 64 << 10;
int order = 1;

struct Copy {
  void* to;
  Bytes16 bytes;
};

struct Fiber {
  void* stack_pointer = nullptr;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false, blocked = false;
  bool converged = true;  // with its warp: not after a load that other lanes may have skipped
  std::vector<Copy> copies;
};

// What one lane brings to an instruction of its warp.
struct Operands {
  int instruction;
  const void* from;
  void* to;
  const unsigned *a, *b;
};

std::vector<Fiber> fibers;
std::vector<Operands> operands;
std::vector<int> arrived_lanes;
std::vector<char> shared;
std::vector<int> turns;
std::minstd_rand generator;
int current, arrived, thread_count, block[3], grid[3];
void (*running)(CudaProblem);
const CudaProblem* argument;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulated CUDA kernel: %s\n", what);
  std::abort();
}

#ifdef __x86_64__
// Saves the callee-saved registers and switches stacks; swapcontext does a system call as well.
extern "C" void d3dnet_switch(void** save, void* to);
asm(R"(
.text
.globl d3dnet_switch
.hidden d3dnet_switch
d3dnet_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#endif

Fiber scheduler;

void enter(Fiber& from, Fiber& to) {
#ifdef __x86_64__
  d3dnet_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
}

void body() {
  running(*argument);
  fibers[current].done = true;
  enter(fibers[current], scheduler);
  fail("a finished thread went on");
}

void start(Fiber& fiber) {
  if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
  fiber.done = fiber.blocked = false;
  fiber.converged = true;
  fiber.copies.clear();
#ifdef __x86_64__
  auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStackBytes) & ~uintptr_t(63);
  auto* words = reinterpret_cast<void**>(top) - 8;
  for (int i = 0; i < 6; ++i) words[i] = nullptr;
  words[6] = reinterpret_cast<void*>(&body);
  words[7] = nullptr;  // where a return address would be
  fiber.stack_pointer = words;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, &body, 0);
#endif
}

void pause() {
  const int self = current;
  fibers[self].blocked = true;
  enter(fibers[self], scheduler);
}

unsigned word_at(const void* row, int index) {
  unsigned word;
  std::memcpy(&word, static_cast<const char*>(row) + 4 * index, 4);
  return word;
}
unsigned half_at(const void* row, int index) {
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(row) + 2 * index, 2);
  return half;
}

enum Instruction { kMeet, kLoad, kLoadTransposed, kSumFloat, kSumDouble, kMmaBfloat16, kMmaFloat16, kMmaTf32 };

void load_all(const Operands* lanes, bool transposed) {
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      auto& to = static_cast<unsigned*>(lanes[lane].to)[i];
      if (!transposed) {
        to = word_at(lanes[8 * i + lane / 4].from, lane % 4);
        continue;
      }
      const int row = 8 * i + 2 * (lane % 4);
      to = half_at(lanes[row].from, lane / 4) | half_at(lanes[row + 1].from, lane / 4) << 16;
    }
}

float half_of(unsigned word, int half, bool is_bfloat16) {
  const auto bits = uint16_t(half ? word >> 16 : word);
  return is_bfloat16 ? to_float(bfloat16{bits}) : to_float(float16{bits});
}

void multiply_all(const Operands* lanes, int instruction) {
  const bool wide = instruction == kMmaTf32;
  const int depth = wide ? 8 : 16;
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = group + i % 2 * 8;
      if (wide) {
        a[row][member + i / 2 * 4] = word_as_float(lanes[lane].a[i] & 0xffffe000u);
        if (i < 2) b[member + i * 4][group] = word_as_float(lanes[lane].b[i] & 0xffffe000u);
        continue;
      }
      for (int half = 0; half < 2; ++half) {
        const bool is_bfloat16 = instruction == kMmaBfloat16;
        a[row][2 * member + half + i / 2 * 8] = half_of(lanes[lane].a[i], half, is_bfloat16);
        if (i < 2)
          b[2 * member + half + i * 8][group] = half_of(lanes[lane].b[i], half, is_bfloat16);
      }
    }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
      static_cast<float*>(lanes[lane].to)[i] += sum;
    }
}

template <typename S>
void sum_all(const Operands* lanes) {
  for (int first = 0; first < 32; first += 8) {
    S sum = 0;
    for (int i = 0; i < 8; ++i) sum += *static_cast<S*>(lanes[first + i].to);
    for (int i = 0; i < 8; ++i) *static_cast<S*>(lanes[first + i].to) = sum;
  }
}

void check_aligned(const void* address, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) fail(what);
}

// What an instruction with ".aligned" asks for.
void check_converged() {
  if (!fibers[current].converged) fail("an instruction of the whole warp after a branch of lanes");
}

// The last lane of a warp to arrive does the work of all.
void together(const Operands& own) {
  const int warp = current / 32;
  Operands* lanes = &operands[warp * 32];
  lanes[current % 32] = own;
  if (++arrived_lanes[warp] < 32) return pause();
  arrived_lanes[warp] = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (lanes[lane].instruction != own.instruction) fail("lanes of a warp disagree");
  switch (own.instruction) {
    case kMeet: break;
    case kLoad: load_all(lanes, false); break;
    case kLoadTransposed: load_all(lanes, true); break;
    case kSumFloat: sum_all<float>(lanes); break;
    case kSumDouble: sum_all<double>(lanes); break;
    default: multiply_all(lanes, own.instruction);
  }
  for (int lane = 0; lane < 32; ++lane) fibers[warp * 32 + lane].blocked = false;
}

void run_block() {
  std::fill(shared.begin(), shared.end(), char(0xff));
  for (int i = 0; i < thread_count; ++i) start(fibers[i]);
  std::fill(arrived_lanes.begin(), arrived_lanes.end(), 0);
  arrived = 0;
  for (int alive = thread_count; alive > 0;) {
    bool progress = false;
    if (order > 1) std::shuffle(turns.begin(), turns.end(), generator);
    for (int i = 0; i < thread_count; ++i) {
      current = order > 1 ? turns[i] : order == 1 ? i : thread_count - 1 - i;
      Fiber& fiber = fibers[current];
      if (fiber.done || fiber.blocked) continue;
      progress = true;
      enter(scheduler, fiber);
      alive -= fiber.done;
    }
    if (!progress) fail("not every thread reached a barrier, or not every lane an instruction");
  }
}

}  // namespace

void emulate(void (*kernel)(CudaProblem), int x, int y, int z, int threads, size_t shared_bytes,
             const CudaProblem& problem) {
  running = kernel;
  argument = &problem;
  thread_count = threads;
  grid[0] = x, grid[1] = y, grid[2] = z;
  if (int(fibers.size()) < threads) fibers = std::vector<Fiber>(threads);
  operands.resize(threads);
  arrived_lanes.resize(threads / 32);
  turns.resize(threads);
  std::iota(turns.begin(), turns.end(), 0);
  generator.seed(order);
  shared.resize(shared_bytes + 16);
  for (block[2] = 0; block[2] < z; ++block[2])
    for (block[1] = 0; block[1] < y; ++block[1])
      for (block[0] = 0; block[0] < x; ++block[0]) run_block();
}

float word_as_float(unsigned word) {
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
unsigned float_as_word(float value) {
  unsigned word;
  std::memcpy(&word, &value, 4);
  return word;
}
float to_float(float16 value) {
  _Float16 half;
  std::memcpy(&half, &value, 2);
  return float(half);
}
float16 to_float16(float value) {
  const auto half = _Float16(value);
  float16 result;
  std::memcpy(&result, &half, 2);
  return result;
}
int thread_index() { return current; }
int block_index(int axis) { return block[axis]; }
int block_count(int axis) { return grid[axis]; }
char* shared_memory() {
  return shared.data() + (16 - reinterpret_cast<uintptr_t>(shared.data()) % 16) % 16;
}
void synchronize() {
  if (++arrived < thread_count) return pause();
  arrived = 0;
  for (Fiber& fiber : fibers) fiber.blocked = false, fiber.converged = true;
}
void synchronize_warp() {
  together({kMeet, nullptr, nullptr, nullptr, nullptr});
  fibers[current].converged = true;
}
Bytes16 load_global(const void* from) {
  check_aligned(from, "a load of 16 bytes from an address that is no multiple of 16");
  fibers[current].converged = false;
  return *static_cast<const Bytes16*>(from);
}
void atomic_add_four(float* to, const float* values) {
  check_aligned(to, "an addition to 16 bytes at an address that is no multiple of 16");
  for (int i = 0; i < 4; ++i) to[i] += values[i];
}
void copy_async(void* to, const void* from, bool valid) {
  check_aligned(to, "a copy to an address that is no multiple of 16");
  check_aligned(from, "a copy from an address that is no multiple of 16");
  Copy copy = {to, {}};
  if (valid) copy.bytes = *static_cast<const Bytes16*>(from);
  fibers[current].copies.push_back(copy);
}
void copy_wait() {
  for (const Copy& copy : fibers[current].copies) *static_cast<Bytes16*>(copy.to) = copy.bytes;
  fibers[current].copies.clear();
}
void load_matrices(unsigned (&to)[4], const void* row) {
  check_aligned(row, "a row of a matrix at an address that is no multiple of 16");
  check_converged();
  together({kLoad, row, to, nullptr, nullptr});
}
void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  check_aligned(row, "a row of a matrix at an address that is no multiple of 16");
  check_converged();
  together({kLoadTransposed, row, to, nullptr, nullptr});
}
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], bfloat16) {
  check_converged();
  together({kMmaBfloat16, nullptr, sums, a, b});
}
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], float16) {
  check_converged();
  together({kMmaFloat16, nullptr, sums, a, b});
}
void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], float) {
  check_converged();
  together({kMmaTf32, nullptr, sums, a, b});
}
float sum_of_eight_lanes(float value) {
  together({kSumFloat, nullptr, &value, nullptr, nullptr});
  return value;
}
double sum_of_eight_lanes(double value) {
  together({kSumDouble, nullptr, &value, nullptr, nullptr});
  return value;
}

}  // namespace d3dnet

extern "C" void d3dnet_emulation_order(int order) { d3dnet::order = order; }

// For launches planned in Python: a kernel by its address, and the shared memory that it needs.
extern "C" void d3dnet_emulate(void* kernel, int x, int y, int z, int threads, int shared_bytes,
                               const d3dnet::CudaProblem* problem) {
  d3dnet::emulate(reinterpret_cast<void (*)(d3dnet::CudaProblem)>(kernel), x, y, z, threads,
                  shared_bytes, *problem);
}
template <typename T>
static int shared_bytes(int kernel) {
  return int(kernel == 0   ? sizeof(d3dnet::ForwardShared<T>)
             : kernel == 1 ? sizeof(d3dnet::DataGradientShared<T>)
                           : sizeof(d3dnet::WeightGradientShared<T>));
}
extern "C" int d3dnet_shared_bytes(int element_bytes, int kernel) {
  return element_bytes == 2   ? shared_bytes<d3dnet::bfloat16>(kernel)
         : element_bytes == 4 ? shared_bytes<float>(kernel)
                              : shared_bytes<double>(kernel);
}
extern "C" int d3dnet_problem_bytes() { return int(sizeof(d3dnet::CudaProblem)); }
