// The inner loops for CPU in C++: what they share. lstmp.py, softmax.py, gru.py, gradients.py and segmenter.py have the same
// functions in Paddle operators or Python; kernels.py lists what each function takes.
//
// The products are those of the MKL that Paddle brings along, one thread each; threads come from the same pool as
// Paddle's (two pools would fight for the cores).
#pragma once

#include <cstdint>
#include <functional>

using Gemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
using Compute = void (*)(int, int, int, int, int, int, const float*, int, const float*, int, float, float*, int);
using Pack = void (*)(int, int, int, int, int, int, float, const float*, int, float*);

#pragma GCC visibility push(hidden)  // names as short as these may be those of another library

// What library.cc finds in the libraries that Paddle has loaded.
extern Gemm gemm;
extern Compute gemm_compute;
extern Pack gemm_pack;
extern float* (*gemm_alloc)(int, int, int, int);
extern void (*gemm_free)(float*);
extern int (*mkl_max_threads)();
extern int (*mkl_set_threads)(int);

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112, kPacked = 151, kB = 162;

// Run task(0) .. task(count - 1), as many at a time as MKL would use threads, each with one MKL thread.
void in_parallel(int64_t count, const std::function<void(int64_t)>& task);

#pragma GCC visibility pop

// Rows from..to of `count` that one of as many tasks as there are threads takes.
struct Share {
  int64_t from, to;
  Share(int64_t count, int64_t task, int64_t tasks) : from(count * task / tasks), to(count * (task + 1) / tasks) {}
};
