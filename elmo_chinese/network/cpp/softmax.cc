// Losses of rows of logits, and their gradients (softmax.py).
#include <algorithm>
#include <cmath>
#include <vector>

#include "elementwise.h"
#include "library.h"

extern "C" {

// Softmax and cross entropy of each row of logits [rows, columns], which turn into probabilities; bias [columns] is
// added first. Each array of pointers holds one. The word that a row is about stands
//   either in column labels[row], and own and hits are null;
//   or in none: its logit is own[row], which turns into its probability, labels is null, and the column hits[row],
//   if it is not negative, is left out.
void softmax_losses(int64_t rows, int64_t columns, float* const* logits, const float* const* bias,
                    const int64_t* const* labels, float* const* own, const int64_t* const* hits, float* const* losses) {
  const int64_t tasks = std::min<int64_t>(rows, mkl_max_threads());
  in_parallel(tasks, [&](int64_t task) {
    const Share share(rows, task, tasks);
    for (int64_t row = share.from; row < share.to; ++row) {
      float* __restrict x = logits[0] + row * columns;
      const float* __restrict b = bias[0];
      if (hits[0] && hits[0][row] >= 0) x[hits[0][row]] = -1e30f;
      float most = own[0] ? own[0][row] : -1e30f, sum = 0.0f;
#pragma omp simd reduction(max : most)
      for (int64_t k = 0; k < columns; ++k) {
        x[k] += b[k];
        most = x[k] > most ? x[k] : most;
      }
      const float shifted = (own[0] ? own[0][row] : x[labels[0][row]]) - most;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = 0; k < columns; ++k) {
        x[k] = fast_exp(x[k] - most);
        sum += x[k];
      }
      if (own[0]) sum += fast_exp(shifted);
      losses[0][row] = std::log(sum) - shifted;
      const float scale = 1.0f / sum;
#pragma omp simd
      for (int64_t k = 0; k < columns; ++k) x[k] *= scale;
      if (own[0]) own[0][row] = fast_exp(shifted) * scale;
    }
  });
}

// From the gradients of the losses, d_losses [rows]: probabilities turn into the gradients of the logits, own likewise;
// those of the bias are added to d_bias [columns].
void softmax_losses_backward(int64_t rows, int64_t columns, float* const* probabilities, const int64_t* const* labels,
                             float* const* own, const float* const* d_losses, float* const* d_bias) {
  const int64_t tasks = std::min<int64_t>(rows, mkl_max_threads());
  std::vector<std::vector<float>> sums(tasks);
  in_parallel(tasks, [&](int64_t task) {
    const Share share(rows, task, tasks);
    sums[task].resize(columns);
    float* __restrict sum = sums[task].data();
    for (int64_t row = share.from; row < share.to; ++row) {
      float* __restrict x = probabilities[0] + row * columns;
      const float scale = d_losses[0][row];
      if (own[0]) {
        own[0][row] = (own[0][row] - 1.0f) * scale;
      } else {
        x[labels[0][row]] -= 1.0f;
      }
#pragma omp simd
      for (int64_t k = 0; k < columns; ++k) {
        x[k] *= scale;
        sum[k] += x[k];
      }
    }
  });
  for (const auto& sum : sums)
    for (int64_t k = 0; k < columns; ++k) d_bias[0][k] += sum[k];
}

}  // extern "C"
