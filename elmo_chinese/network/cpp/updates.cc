// The steps of an optimizer (gradients.py).
#include <algorithm>
#include <cmath>

#include "library.h"

namespace {

constexpr int64_t kPart = 1 << 15;  // numbers that a thread takes at a time

void adagrad_part(int64_t size, float rate, float epsilon, float scale, float* __restrict parameter,
                  const float* __restrict gradient, float* __restrict moment) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float g = gradient[k] * scale;
    const float m = moment[k] + g * g;
    moment[k] = m;
    parameter[k] -= rate * g / (std::sqrt(m) + epsilon);
  }
}

}  // namespace

extern "C" {

// One step of Adagrad (Duchi et al. 2011) on one parameter, with its gradient times `scale`.
void adagrad(int64_t size, float rate, float epsilon, float scale, float* const* parameter,
             const float* const* gradient, float* const* moment) {
  in_parallel((size + kPart - 1) / kPart, [&](int64_t part) {
    const int64_t from = part * kPart;
    adagrad_part(std::min(kPart, size - from), rate, epsilon, scale, parameter[0] + from, gradient[0] + from,
                 moment[0] + from);
  });
}

// The same on some rows of a parameter, `width` numbers each, with the gradients of these rows; each row comes once.
void adagrad_rows(int64_t count, int64_t width, float rate, float epsilon, float scale, const int64_t* const* rows,
                  float* const* parameter, const float* const* gradient, float* const* moment) {
  const int64_t tasks = std::min<int64_t>(count, mkl_max_threads());
  in_parallel(tasks, [&](int64_t task) {
    const Share share(count, task, tasks);
    for (int64_t k = share.from; k < share.to; ++k) {
      const int64_t from = rows[0][k] * width;
      adagrad_part(width, rate, epsilon, scale, parameter[0] + from, gradient[0] + k * width, moment[0] + from);
    }
  });
}

}  // extern "C"
