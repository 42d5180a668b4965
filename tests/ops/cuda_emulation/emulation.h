// Runs a CUDA kernel on the CPU, one fibre per thread, so that its indexing, shared memory, barriers
// and tensor core fragments are tested without a GPU.
//
// A barrier that not all threads reach, and lanes that disagree on an instruction of the whole
// warp, stop the program with a message; so do accesses of 16 bytes that are not aligned, and
// instructions of a converged warp where lanes may have taken different branches. Shared memory starts as NaN; asynchronous copies arrive
// when they are waited for and not before.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "problem.cuh"

namespace d3dnet {
using std::floor;
void emulate(void (*kernel)(CudaProblem), int x, int y, int z, int threads, size_t shared,
             const CudaProblem& problem);
}  // namespace d3dnet

// Order in which threads take turns: 1 from the first, -1 from the last, above 1 at random, by seed.
extern "C" void d3dnet_emulation_order(int order);
