// The libraries that Paddle has loaded, and its threads.
#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "library.h"

Gemm gemm;
Compute gemm_compute;
Pack gemm_pack;
float* (*gemm_alloc)(int, int, int, int);
void (*gemm_free)(float*);
int (*mkl_max_threads)();
int (*mkl_set_threads)(int);

namespace {

void (*omp_parallel)(void (*)(void*), void*, unsigned, unsigned);
int (*omp_thread)();
int (*omp_threads)();

void* open_library(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW);
  if (!handle) throw std::runtime_error(dlerror());
  return handle;
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw std::runtime_error(std::string("Paddle's MKL has no ") + name);
}

}  // namespace

void in_parallel(int64_t count, const std::function<void(int64_t)>& task) {
  struct Work {
    int64_t count;
    const std::function<void(int64_t)>& task;
  } work{count, task};
  const int64_t threads = std::min<int64_t>(count, mkl_max_threads());
  if (threads == 1) {  // also within a task, which has one MKL thread: a group of OpenMP's would only cost time
    const int before = mkl_set_threads(1);
    for (int64_t k = 0; k < count; ++k) task(k);
    mkl_set_threads(before);
    return;
  }
  const auto run = [](void* argument) {
    const auto& work = *static_cast<Work*>(argument);
    const int before = mkl_set_threads(1);
    for (int64_t k = omp_thread(); k < work.count; k += omp_threads()) work.task(k);
    mkl_set_threads(before);
  };
  omp_parallel(run, &work, static_cast<unsigned>(threads), 0);
}

extern "C" {

// Find the products and threads of the Paddle whose libraries are in a folder; return null, or why that failed.
const char* open_libraries(const char* folder) {
  static std::string why;
  try {
    void* mkl = open_library(std::string(folder) + "/libmklml_intel.so");
    void* omp = open_library(std::string(folder) + "/libiomp5.so");
    find(mkl, "cblas_sgemm", gemm);
    find(mkl, "cblas_sgemm_compute", gemm_compute);
    find(mkl, "cblas_sgemm_pack", gemm_pack);
    find(mkl, "cblas_sgemm_alloc", gemm_alloc);
    find(mkl, "cblas_sgemm_free", gemm_free);
    find(mkl, "MKL_Get_Max_Threads", mkl_max_threads);
    find(mkl, "MKL_Set_Num_Threads_Local", mkl_set_threads);
    find(omp, "GOMP_parallel", omp_parallel);
    find(omp, "omp_get_thread_num", omp_thread);
    find(omp, "omp_get_num_threads", omp_threads);
  } catch (const std::exception& error) {
    why = error.what();
    return why.c_str();
  }
  return nullptr;
}

// Set how many threads the functions below take; return how many it were.
int set_threads(int count) { return mkl_set_threads(count); }

}  // extern "C"
