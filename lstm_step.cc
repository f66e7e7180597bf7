// The elementwise part of an LSTM step, fused; lstm_step.py has the same three functions in Paddle operators.
// One thread: the products around it are what takes time, and a second pool of threads would fight with MKL's.
#include <cstdint>
#include <cstring>
#include <vector>

#include "paddle/extension.h"

namespace {

// exp by range reduction and a polynomial (coefficients of the Cephes library), about 1e-7 relative.
// Plain arithmetic without branches, so that the compiler makes vector code of the loops below. NaN stays NaN.
inline float fast_exp(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
  const float n = shifted - 12582912.0f;
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits + 127 - 0x4b400000) * (1 << 23);
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }
inline float tanh_(float x) { return 1.0f - 2.0f / (1.0f + fast_exp(2.0f * x)); }
inline float clip(float x, float bound) { return x > bound ? bound : (x < -bound ? -bound : x); }

}  // namespace

// gate [batch, 4 * hidden] (candidate, input, forget, output), cell [batch, hidden]
// -> activated gates, new cell, output gate * tanh(new cell)
std::vector<paddle::Tensor> Step(const paddle::Tensor& gate, const paddle::Tensor& cell, float bound) {
  const int64_t rows = cell.shape()[0], size = cell.shape()[1];
  auto activated = paddle::empty_like(gate), next = paddle::empty_like(cell), output = paddle::empty_like(cell);
  for (int64_t row = 0; row < rows; ++row) {
    const float* __restrict g = gate.data<float>() + row * 4 * size;
    const float* __restrict before = cell.data<float>() + row * size;
    float* __restrict a = activated.data<float>() + row * 4 * size;
    float* __restrict c = next.data<float>() + row * size;
    float* __restrict o = output.data<float>() + row * size;
#pragma GCC ivdep
    for (int64_t k = 0; k < size; ++k) {
      const float candidate = tanh_(g[k]), in = sigmoid(g[size + k]);
      const float forget = sigmoid(g[2 * size + k]), out = sigmoid(g[3 * size + k]);
      const float value = clip(candidate * in + before[k] * forget, bound);
      a[k] = candidate;
      a[size + k] = in;
      a[2 * size + k] = forget;
      a[3 * size + k] = out;
      c[k] = value;
      o[k] = out * tanh_(value);
    }
  }
  return {activated, next, output};
}

// gradients of output and new cell -> gradients of gate (before activation) and cell
std::vector<paddle::Tensor> StepGrad(const paddle::Tensor& d_output, const paddle::Tensor& d_next,
                                     const paddle::Tensor& activated, const paddle::Tensor& cell,
                                     const paddle::Tensor& next, float bound) {
  const int64_t rows = cell.shape()[0], size = cell.shape()[1];
  auto d_gate = paddle::empty_like(activated), d_cell = paddle::empty_like(cell);
  for (int64_t row = 0; row < rows; ++row) {
    const float* __restrict d_o = d_output.data<float>() + row * size;
    const float* __restrict d_n = d_next.data<float>() + row * size;
    const float* __restrict a = activated.data<float>() + row * 4 * size;
    const float* __restrict before = cell.data<float>() + row * size;
    const float* __restrict c = next.data<float>() + row * size;
    float* __restrict d_g = d_gate.data<float>() + row * 4 * size;
    float* __restrict d_c = d_cell.data<float>() + row * size;
#pragma GCC ivdep
    for (int64_t k = 0; k < size; ++k) {
      const float candidate = a[k], in = a[size + k], forget = a[2 * size + k], out = a[3 * size + k];
      const float squashed = tanh_(c[k]);
      float d = d_n[k] + d_o[k] * out * (1.0f - squashed * squashed);
      d = (c[k] < bound && c[k] > -bound) ? d : 0.0f;  // a clipped value has no gradient
      d_g[k] = d * in * (1.0f - candidate * candidate);
      d_g[size + k] = d * candidate * in * (1.0f - in);
      d_g[2 * size + k] = d * before[k] * forget * (1.0f - forget);
      d_g[3 * size + k] = d_o[k] * squashed * out * (1.0f - out);
      d_c[k] = d * forget;
    }
  }
  return {d_gate, d_cell};
}

// (first + second) where |value| is below the bound, else 0
std::vector<paddle::Tensor> ClipGrad(const paddle::Tensor& first, const paddle::Tensor& second,
                                     const paddle::Tensor& value, float bound) {
  auto sum = paddle::empty_like(value);
  const float *__restrict a = first.data<float>(), *__restrict b = second.data<float>();
  const float* __restrict v = value.data<float>();
  float* __restrict s = sum.data<float>();
  for (int64_t k = 0; k < value.numel(); ++k) s[k] = (v[k] < bound && v[k] > -bound) ? a[k] + b[k] : 0.0f;
  return {sum};
}

PD_BUILD_OP(lstm_step).Inputs({"Gate", "Cell"}).Outputs({"Activated", "Next", "Output"}).Attrs({"bound: float"})
    .SetKernelFn(PD_KERNEL(Step));
PD_BUILD_OP(lstm_step_backward).Inputs({"DOutput", "DNext", "Activated", "Cell", "Next"}).Outputs({"DGate", "DCell"})
    .Attrs({"bound: float"}).SetKernelFn(PD_KERNEL(StepGrad));
PD_BUILD_OP(lstm_clip_backward).Inputs({"First", "Second", "Value"}).Outputs({"Sum"}).Attrs({"bound: float"})
    .SetKernelFn(PD_KERNEL(ClipGrad));
