// All steps of LSTM and GRU layers, and their gradients (lstmp.py, gru.py).
//
// What recurs is independent from row to row and from direction to direction, so each thread takes its own rows of
// one direction through all steps without ever waiting for another one, with weights packed once for all steps.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "bfloat16.h"
#include "elementwise.h"
#include "library.h"

namespace {

constexpr int64_t kPackRows = 4;  // below, packing takes longer than it saves

// A weight [first, second], or its transpose, as the right side of products with `rows` rows, in float32 or bfloat16.
class Weight {
 public:
  Weight(const float* data, int64_t first, int64_t second, bool transposed, int64_t rows, bool rounds)
      : data_(data), ld_(second), transposed_(transposed), rounds_(rounds), rows_(rows),
        in_(transposed ? second : first), out_(transposed ? first : second) {}
  Weight(const Weight&) = delete;
  ~Weight() {
    if (packed_) gemm_free(packed_);
  }
  void pack() {
    if (rounds_) {
      rounded_ = std::make_unique<bfloat16::Packed>(data_, ld_, transposed_, in_, out_);
      return;
    }
    if (rows_ < kPackRows) return;
    packed_ = gemm_alloc(kB, rows_, out_, in_);
    gemm_pack(kRowMajor, kB, transposed_ ? kTrans : kNoTrans, rows_, out_, in_, 1.0f, data_, ld_, packed_);
  }
  // to = from @ weight (+ to); the rows of from [rows, in] and to [rows, out] stand `from_ld` and `to_ld` apart
  void product(const float* from, int64_t from_ld, float* to, int64_t to_ld, bool add) const {
    const float beta = add ? 1.0f : 0.0f;
    if (rounded_) {
      thread_local std::vector<uint32_t> left;
      left.resize(rows_ * bfloat16::pairs_of(in_));
      bfloat16::round_rows(from, from_ld, rows_, in_, left.data());
      rounded_->product(left.data(), rows_, to, to_ld, add);
    } else if (packed_) {
      gemm_compute(kRowMajor, kNoTrans, kPacked, rows_, out_, in_, from, from_ld, packed_, ld_, beta, to, to_ld);
    } else {
      gemm(kRowMajor, kNoTrans, transposed_ ? kTrans : kNoTrans, rows_, out_, in_, 1.0f, from, from_ld, data_, ld_, beta,
           to, to_ld);
    }
  }
  void product(const float* from, float* to, bool add) const { product(from, in_, to, out_, add); }

 private:
  const float* data_;
  int64_t ld_;
  bool transposed_, rounds_;
  int64_t rows_, in_, out_;
  float* packed_ = nullptr;
  std::unique_ptr<bfloat16::Packed> rounded_;
};

// One row of one step: gates (candidate, input, forget, output) get their bias and are activated in place.
void lstm_row(float* __restrict g, const float* __restrict bias, const float* __restrict before,
              float* __restrict next, float* __restrict output, int64_t size, float bound) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float candidate = tanh_(g[k] + bias[k]), in = sigmoid(g[size + k] + bias[size + k]);
    const float forget = sigmoid(g[2 * size + k] + bias[2 * size + k]);
    const float out = sigmoid(g[3 * size + k] + bias[3 * size + k]);
    const float value = clip(candidate * in + before[k] * forget, bound);
    g[k] = candidate;
    g[size + k] = in;
    g[2 * size + k] = forget;
    g[3 * size + k] = out;
    next[k] = value;
    output[k] = out * tanh_(value);
  }
}

// The same backwards: activated gates become their gradients, d_cell that of the cell before; d_bias sums the former.
// The new cell, which nothing needs any more, becomes the row's output (output gate * tanh(new cell)).
void lstm_row_backward(float* __restrict g, const float* __restrict before, float* __restrict next,
                       const float* __restrict d_output, float* __restrict d_cell, float* __restrict d_bias,
                       int64_t size, float bound) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float candidate = g[k], in = g[size + k], forget = g[2 * size + k], out = g[3 * size + k];
    const float squashed = tanh_(next[k]);
    float d = d_cell[k] + d_output[k] * out * (1.0f - squashed * squashed);
    d = (next[k] < bound && next[k] > -bound) ? d : 0.0f;  // a clipped value has no gradient
    const float d_candidate = d * in * (1.0f - candidate * candidate), d_in = d * candidate * in * (1.0f - in);
    const float d_forget = d * before[k] * forget * (1.0f - forget);
    const float d_out = d_output[k] * squashed * out * (1.0f - out);
    g[k] = d_candidate;
    g[size + k] = d_in;
    g[2 * size + k] = d_forget;
    g[3 * size + k] = d_out;
    d_bias[k] += d_candidate;
    d_bias[size + k] += d_in;
    d_bias[2 * size + k] += d_forget;
    d_bias[3 * size + k] += d_out;
    d_cell[k] = d * forget;
    next[k] = out * squashed;
  }
}

// One row of one step of a GRU: update and reset gate are activated in place, kept = reset gate * state.
void gru_row_gates(float* __restrict g, const float* __restrict before, float* __restrict kept, int64_t size) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float update = sigmoid(g[k]), reset = sigmoid(g[size + k]);
    g[k] = update;
    g[size + k] = reset;
    kept[k] = reset * before[k];
  }
}

// Then the candidate is, and the state moves towards it.
void gru_row_state(float* __restrict g, const float* __restrict before, float* __restrict next, int64_t size) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float candidate = tanh_(g[2 * size + k]);
    g[2 * size + k] = candidate;
    next[k] = before[k] + g[k] * (candidate - before[k]);
  }
}

// Backwards in two parts, around the product that gives d_kept. First: candidate and update gate turn into their
// gradients; d_hidden, that of the new state, loses what went to the candidate.
void gru_row_state_backward(float* __restrict g, const float* __restrict before, float* __restrict d_hidden,
                            int64_t size) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float update = g[k], candidate = g[2 * size + k], d = d_hidden[k];
    g[k] = d * (candidate - before[k]) * update * (1.0f - update);
    g[2 * size + k] = d * update * (1.0f - candidate * candidate);
    d_hidden[k] = d * (1.0f - update);
  }
}

// Second: the reset gate.
void gru_row_gates_backward(float* __restrict g, const float* __restrict before, const float* __restrict d_kept,
                            float* __restrict d_hidden, int64_t size) {
#pragma GCC ivdep
  for (int64_t k = 0; k < size; ++k) {
    const float reset = g[size + k];
    g[size + k] = d_kept[k] * before[k] * reset * (1.0f - reset);
    d_hidden[k] += d_kept[k] * reset;
  }
}

// All directions × equal blocks of rows, about one for each thread.
struct Parts {
  int64_t directions, blocks, rows;
  Parts(int64_t directions, int64_t batch) : directions(directions) {
    const int64_t threads = mkl_max_threads();
    blocks = std::max<int64_t>(1, std::min(batch / 8, (threads + directions - 1) / directions));
    while (batch % blocks) --blocks;
    rows = batch / blocks;
  }
  int64_t count() const { return directions * blocks; }
};

// One weight for each direction, packed by all threads together.
struct Weights {
  const bool rounds = false;
  std::vector<std::unique_ptr<Weight>> all;
  void add(const float* const* data, int64_t first, int64_t second, bool transposed, const Parts& parts) {
    for (int64_t d = 0; d < parts.directions; ++d)
      all.push_back(std::make_unique<Weight>(data[d], first, second, transposed, parts.rows, rounds));
  }
  void pack() {
    in_parallel(all.size(), [&](int64_t k) { all[k]->pack(); });
  }
};

}  // namespace

extern "C" {

// All steps of one LSTM layer. Each array of pointers has one for each direction; weights as in lstmp.py:
//   input [steps, batch, embed], hidden [batch, embed], cell [batch, size] are read;
//   hiddens [steps + 1, batch, embed] and cells [held + 1, batch, size] get the first state in front,
//   gates [held, batch, 4 * size] the activated gates,
// where held is `steps`, or 1 without `keep` (no backward pass will follow); then cells ends with the last one.
// With `rounds`, products are in bfloat16.
void lstm_steps(int64_t directions, int64_t steps, int64_t batch, int64_t embed, int64_t size, int64_t keep,
                int64_t rounds, float cell_clip, float proj_clip, const float* const* input, const float* const* gate_w,
                const float* const* recurrent_w, const float* const* projection_w, const float* const* bias,
                const float* const* hidden, const float* const* cell, float* const* gates, float* const* hiddens,
                float* const* cells) {
  const Parts parts(directions, batch);
  Weights weights{rounds != 0, {}};
  weights.add(gate_w, embed, 4 * size, false, parts);
  weights.add(recurrent_w, embed, 4 * size, false, parts);
  weights.add(projection_w, size, embed, false, parts);
  weights.pack();
  in_parallel(parts.count(), [&](int64_t part) {
    const int64_t d = part / parts.blocks, first = part % parts.blocks * parts.rows, rows = parts.rows;
    const Weight &gate = *weights.all[d], &recurrent = *weights.all[directions + d];
    const Weight& projection = *weights.all[2 * directions + d];
    std::memcpy(hiddens[d] + first * embed, hidden[d] + first * embed, rows * embed * sizeof(float));
    std::memcpy(cells[d] + first * size, cell[d] + first * size, rows * size * sizeof(float));
    std::vector<float> output(rows * size);
    for (int64_t t = 0; t < steps; ++t) {
      const int64_t held = keep ? t * batch + first : first;
      const int64_t before = keep ? held : t % 2 * batch + first, after = keep ? held + batch : (t + 1) % 2 * batch + first;
      float* g = gates[d] + held * 4 * size;
      float *h = hiddens[d] + (t * batch + first) * embed, *next = h + batch * embed;
      gate.product(input[d] + (t * batch + first) * embed, g, false);
      recurrent.product(h, g, true);
      for (int64_t r = 0; r < rows; ++r)
        lstm_row(g + r * 4 * size, bias[d], cells[d] + (before + r) * size, cells[d] + (after + r) * size,
                 &output[r * size], size, cell_clip);
      projection.product(output.data(), next, false);
      for (int64_t k = 0; k < rows * embed; ++k) next[k] = clip(next[k], proj_clip);
    }
    if (!keep && steps % 2 == 0)
      std::memcpy(cells[d] + (batch + first) * size, cells[d] + first * size, rows * size * sizeof(float));
  });
}

// From the gradients of the outputs, d_outputs [steps, batch, embed], and what `lstm_steps` kept:
//   gates turn into their gradients before activation, cells[1:] into the outputs before the projection,
//   d_projected [steps, batch, embed] gets those of the projection
//   before its clip, d_input [steps, batch, embed] (null if not wanted) those of the input, d_bias [4 * size] its own.
void lstm_steps_backward(int64_t directions, int64_t steps, int64_t batch, int64_t embed, int64_t size, int64_t rounds,
                         float cell_clip, float proj_clip, const float* const* d_outputs, const float* const* gate_w,
                         const float* const* recurrent_w, const float* const* projection_w,
                         const float* const* hiddens, float* const* cells, float* const* gates,
                         float* const* d_projected, float* const* d_input, float* const* d_bias) {
  const Parts parts(directions, batch);
  Weights weights{rounds != 0, {}};
  weights.add(gate_w, embed, 4 * size, true, parts);
  weights.add(recurrent_w, embed, 4 * size, true, parts);
  weights.add(projection_w, size, embed, true, parts);
  weights.pack();
  std::vector<std::vector<float>> sums(parts.count());
  in_parallel(parts.count(), [&](int64_t part) {
    const int64_t d = part / parts.blocks, first = part % parts.blocks * parts.rows, rows = parts.rows;
    const Weight &gate = *weights.all[d], &recurrent = *weights.all[directions + d];
    const Weight& projection = *weights.all[2 * directions + d];
    std::vector<float> d_hidden(rows * embed), d_cell(rows * size), d_output(rows * size);
    sums[part].resize(4 * size);
    for (int64_t t = steps - 1; t >= 0; --t) {
      const int64_t row = t * batch + first;
      float *g = gates[d] + row * 4 * size, *projected = d_projected[d] + row * embed;
      const float *after = hiddens[d] + (row + batch) * embed, *above = d_outputs[d] + row * embed;
      for (int64_t k = 0; k < rows * embed; ++k)
        projected[k] = (after[k] < proj_clip && after[k] > -proj_clip) ? above[k] + d_hidden[k] : 0.0f;
      projection.product(projected, d_output.data(), false);
      for (int64_t r = 0; r < rows; ++r)
        lstm_row_backward(g + r * 4 * size, cells[d] + (row + r) * size, cells[d] + (row + batch + r) * size,
                          &d_output[r * size], &d_cell[r * size], sums[part].data(), size, cell_clip);
      recurrent.product(g, d_hidden.data(), false);
      if (d_input[d]) gate.product(g, d_input[d] + row * embed, false);
    }
  });
  for (int64_t d = 0; d < directions; ++d) {
    std::copy(sums[d * parts.blocks].begin(), sums[d * parts.blocks].end(), d_bias[d]);
    for (int64_t block = 1; block < parts.blocks; ++block)
      for (int64_t k = 0; k < 4 * size; ++k) d_bias[d][k] += sums[d * parts.blocks + block][k];
  }
}

// All steps of a GRU from a zero state; weights as in gru.py. Each array of pointers has one for each direction:
//   gate_w [size, 2 * size] and candidate_w [size, size] are read;
//   gates [steps, batch, 3 * size], what the steps get from their input, turn into activated update, reset, candidate;
//   kept [steps, batch, size] gets reset gate * state, hiddens [steps + 1, batch, size] the states, zero in front.
void gru_steps(int64_t directions, int64_t steps, int64_t batch, int64_t size, const float* const* gate_w,
               const float* const* candidate_w, float* const* gates, float* const* kept, float* const* hiddens) {
  const Parts parts(directions, batch);
  Weights weights;
  weights.add(gate_w, size, 2 * size, false, parts);
  weights.add(candidate_w, size, size, false, parts);
  weights.pack();
  in_parallel(parts.count(), [&](int64_t part) {
    const int64_t d = part / parts.blocks, first = part % parts.blocks * parts.rows, rows = parts.rows;
    const Weight &gate = *weights.all[d], &candidate = *weights.all[directions + d];
    std::fill_n(hiddens[d] + first * size, rows * size, 0.0f);
    for (int64_t t = 0; t < steps; ++t) {
      float *g = gates[d] + (t * batch + first) * 3 * size, *k = kept[d] + (t * batch + first) * size;
      float *h = hiddens[d] + (t * batch + first) * size, *next = h + batch * size;
      gate.product(h, size, g, 3 * size, true);
      for (int64_t r = 0; r < rows; ++r) gru_row_gates(g + r * 3 * size, h + r * size, k + r * size, size);
      candidate.product(k, size, g + 2 * size, 3 * size, true);
      for (int64_t r = 0; r < rows; ++r) gru_row_state(g + r * 3 * size, h + r * size, next + r * size, size);
    }
  });
}

// From the gradients of the states, d_hiddens [steps, batch, size], and what `gru_steps` kept: gates turn into their
// gradients before activation.
void gru_steps_backward(int64_t directions, int64_t steps, int64_t batch, int64_t size, const float* const* d_hiddens,
                        const float* const* gate_w, const float* const* candidate_w, const float* const* hiddens,
                        float* const* gates) {
  const Parts parts(directions, batch);
  Weights weights;
  weights.add(gate_w, size, 2 * size, true, parts);
  weights.add(candidate_w, size, size, true, parts);
  weights.pack();
  in_parallel(parts.count(), [&](int64_t part) {
    const int64_t d = part / parts.blocks, first = part % parts.blocks * parts.rows, rows = parts.rows;
    const Weight &gate = *weights.all[d], &candidate = *weights.all[directions + d];
    std::vector<float> d_hidden(rows * size), d_kept(rows * size);
    for (int64_t t = steps - 1; t >= 0; --t) {
      const int64_t row = t * batch + first;
      float* g = gates[d] + row * 3 * size;
      const float *above = d_hiddens[d] + row * size, *before = hiddens[d] + row * size;
      for (int64_t k = 0; k < rows * size; ++k) d_hidden[k] += above[k];
      for (int64_t r = 0; r < rows; ++r)
        gru_row_state_backward(g + r * 3 * size, before + r * size, &d_hidden[r * size], size);
      candidate.product(g + 2 * size, 3 * size, d_kept.data(), size, false);
      for (int64_t r = 0; r < rows; ++r)
        gru_row_gates_backward(g + r * 3 * size, before + r * size, &d_kept[r * size], &d_hidden[r * size], size);
      gate.product(g, 3 * size, d_hidden.data(), size, true);
    }
  });
}

}  // extern "C"
