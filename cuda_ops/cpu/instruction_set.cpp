#include "instruction_set.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace d3dnet {
namespace {

struct InstructionSet {
  const char* name;
  const Kernels* (*kernels)();
  bool (*machine_has)();
};

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

#if defined(__x86_64__) && defined(__linux__)
// Whether the processor has AMX-TILE and AMX-BF16 and the kernel lets this process use tiles.
bool request_amx() {
  unsigned a, b, c, d;
  if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if ((d & (kBf16 | kTile)) != (kBf16 | kTile)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool request_amx() { return false; }
#endif
bool has_amx() {
  static const bool granted = request_amx();
  return granted;
}

// Ascending.
const InstructionSet kSets[] = {
    {"generic", generic_kernels, always},
    {"avx2", avx2_kernels, has_avx2},
    {"avx512", avx512_kernels, has_avx512},
    {"amx", amx_kernels, has_amx},
};
constexpr int kCount = sizeof(kSets) / sizeof(kSets[0]);

bool available(int set) { return kSets[set].machine_has() && kSets[set].kernels() != nullptr; }

int best_up_to(int limit) {
  int best = 0;
  for (int set = 0; set <= limit; ++set)
    if (available(set)) best = set;
  return best;
}

// The best one, but none above what the environment asks for.
int initial_set() {
  const char* wanted = std::getenv("D3DNET_INSTRUCTION_SET");
  for (int set = 0; wanted && set < kCount; ++set)
    if (std::strcmp(wanted, kSets[set].name) == 0) return best_up_to(set);
  return best_up_to(kCount - 1);
}

std::atomic<int>& current() {
  static std::atomic<int> set{initial_set()};
  return set;
}

}  // namespace

const Kernels& current_kernels(Dtype dtype) {
  return kSets[current().load()].kernels()[static_cast<int>(dtype)];
}

}  // namespace d3dnet

#define D3DNET_EXPORT extern "C" __attribute__((visibility("default")))

// Which arguments the operators of this library take: d3dnet/ops/compiled.py looks for it in the file.
D3DNET_EXPORT const char* d3dnet_operator() { return "d3dnet operator 2"; }

// Name of the instruction set in force.
D3DNET_EXPORT const char* d3dnet_instruction_set() {
  return d3dnet::kSets[d3dnet::current().load()].name;
}

// Names of those that this build and machine have, ascending, separated by commas.
D3DNET_EXPORT const char* d3dnet_instruction_sets() {
  static const std::string names = [] {
    std::string joined;
    for (int set = 0; set < d3dnet::kCount; ++set)
      if (d3dnet::available(set))
        joined += (joined.empty() ? "" : ",") + std::string(d3dnet::kSets[set].name);
    return joined;
  }();
  return names.c_str();
}

// Puts an instruction set in force; 1 if it is not one that this build and machine have.
D3DNET_EXPORT int d3dnet_set_instruction_set(const char* name) {
  for (int set = 0; set < d3dnet::kCount; ++set)
    if (std::strcmp(name, d3dnet::kSets[set].name) == 0 && d3dnet::available(set)) {
      d3dnet::current().store(set);
      return 0;
    }
  return 1;
}
