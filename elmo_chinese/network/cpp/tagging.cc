// Tags (lac/network.py) and weights (lac/release/rank.py) of sentences, without padding.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "elementwise.h"
#include "library.h"

namespace {

// Sentences of different lengths without padding: sorted by length, the longest first, step t has the words of the
// sentences that go on so far, one below the other. A sentence has the same row in all of its steps.
struct Packed {
  std::vector<int64_t> lengths, starts, offsets;  // offsets[t]: of step t; its rows end where those of t + 1 begin
  Packed(const int64_t* all_lengths, const int64_t* all_starts, const int64_t* order, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
      lengths.push_back(all_lengths[order[k]]);
      starts.push_back(all_starts[order[k]]);
    }
    offsets.push_back(0);
    for (int64_t t = 0, rows = count; t < lengths[0]; ++t) {
      while (lengths[rows - 1] <= t) --rows;
      offsets.push_back(offsets.back() + rows);
    }
  }
  int64_t steps() const { return offsets.size() - 1; }
  int64_t words() const { return offsets.back(); }
  int64_t rows(int64_t t) const { return offsets[t + 1] - offsets[t]; }
  // Where the word stands that row r gets in step t; from the sentence's end if `backward`.
  int64_t place(int64_t t, int64_t r, bool backward) const { return offsets[backward ? lengths[r] - 1 - t : t] + r; }
  // Call copy(place, word) for all words; `word` counts those of the caller's arrays, sentence after sentence.
  template <typename Copy>
  void each(const Copy& copy) const {
    for (int64_t t = 0; t < steps(); ++t)
      for (int64_t r = 0; r < rows(t); ++r) copy(offsets[t] + r, starts[r] + t);
  }
};

// Do `work` for all sentences, in groups of like length; a thread takes one group after the other.
void in_groups(int64_t sentences, const int64_t* lengths, const std::function<void(const Packed&)>& work) {
  std::vector<int64_t> order(sentences), starts(sentences), ends{0};
  for (int64_t k = 0, start = 0; k < sentences; start += lengths[k++]) order[k] = k, starts[k] = start;
  std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return lengths[x] > lengths[y]; });
  const int64_t threads = mkl_max_threads(), fair = (sentences + 2 * threads - 1) / (2 * threads);
  const int64_t most = std::min<int64_t>(64, std::max<int64_t>(16, fair)), words = 4096;
  while (ends.back() < sentences) {
    const int64_t longest = lengths[order[ends.back()]];
    ends.push_back(std::min(sentences, ends.back() + std::max<int64_t>(1, std::min(most, words / longest))));
  }
  if (ends.size() == 2) return work(Packed(lengths, starts.data(), order.data(), sentences));  // which may use threads
  std::atomic<int64_t> next{0};
  in_parallel(std::min<int64_t>(threads, ends.size() - 1), [&](int64_t) {
    for (size_t k = next++; k + 1 < ends.size(); k = next++)
      work(Packed(lengths, starts.data(), &order[ends[k]], ends[k + 1] - ends[k]));
  });
}

using Vector = float __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLanes = 16;

// The first kVectors * kLanes columns of to [kRows, out] = from [kRows, in] @ weight [in, out], whose sums stay in
// registers: each weight is read once, one after the other.
template <int kRows, int kVectors>
inline void columns(const float* from, int64_t in, const float* weight, int64_t out, float* to) {
  Vector sums[kRows][kVectors] = {};
  for (int64_t k = 0; k < in; ++k)
    for (int v = 0; v < kVectors; ++v) {
      const Vector w = *reinterpret_cast<const Vector*>(weight + k * out + v * kLanes);
      for (int r = 0; r < kRows; ++r) sums[r][v] += from[r * in + k] * w;
    }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) *reinterpret_cast<Vector*>(to + r * out + v * kLanes) = sums[r][v];
}

// to [kRows, out] = from [kRows, in] @ weight [in, out], of so few rows that a product of MKL's is no faster, or takes
// longer to begin than to multiply.
template <int kRows>
void few_rows(const float* from, int64_t in, const float* weight, int64_t out, float* to) {
  int64_t n = 0;
  for (; n + 4 * kLanes <= out; n += 4 * kLanes) columns<kRows, 4>(from, in, weight + n, out, to + n);
  for (; n + 2 * kLanes <= out; n += 2 * kLanes) columns<kRows, 2>(from, in, weight + n, out, to + n);
  for (; n + kLanes <= out; n += kLanes) columns<kRows, 1>(from, in, weight + n, out, to + n);
  for (int r = 0; r < kRows; ++r)
    for (int64_t m = n; m < out; ++m) {
      float sum = 0;
      for (int64_t k = 0; k < in; ++k) sum += from[r * in + k] * weight[k * out + m];
      to[r * out + m] = sum;
    }
}

// to [rows, out] = from [rows, in] @ weight [in, out] + bias [out] (null: nothing is added)
void linear(const float* from, int64_t rows, int64_t in, const float* weight, const float* bias, int64_t out,
            float* to) {
  if (!bias && rows == 1) return few_rows<1>(from, in, weight, out, to);
  if (!bias && rows == 2) return few_rows<2>(from, in, weight, out, to);
  if (bias)
    for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * out, bias, out * sizeof(float));
  gemm(kRowMajor, kNoTrans, kNoTrans, rows, out, in, 1.0f, from, in, weight, out, bias ? 1.0f : 0.0f, to, out);
}

// One direction of a GRU: gates [words, 3 * size] from the input → states, `size` numbers every 2 * size of `output`.
void gru_direction(const Packed& packed, bool backward, int64_t size, const float* gates, const float* gate_w,
                   const float* candidate_w, float* output) {
  const int64_t most = packed.rows(0);
  std::vector<float> state(most * size), kept(most * size), gate(most * 2 * size), candidate(most * size);
  for (int64_t t = 0; t < packed.steps(); ++t) {
    const int64_t rows = packed.rows(t);
    linear(state.data(), rows, size, gate_w, nullptr, 2 * size, gate.data());
    for (int64_t r = 0; r < rows; ++r) {
      const float *from = gates + packed.place(t, r, backward) * 3 * size, *h = &state[r * size];
      float *g = &gate[r * 2 * size], *k = &kept[r * size];
#pragma GCC ivdep
      for (int64_t n = 0; n < size; ++n) {
        g[n] = sigmoid(from[n] + g[n]);
        k[n] = sigmoid(from[size + n] + g[size + n]) * h[n];
      }
    }
    linear(kept.data(), rows, size, candidate_w, nullptr, size, candidate.data());
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t place = packed.place(t, r, backward);
      const float *from = gates + place * 3 * size + 2 * size, *g = &gate[r * 2 * size], *c = &candidate[r * size];
      float *h = &state[r * size], *to = output + place * 2 * size;
#pragma GCC ivdep
      for (int64_t n = 0; n < size; ++n) {
        h[n] += g[n] * (tanh_(from[n] + c[n]) - h[n]);
        to[n] = h[n];
      }
    }
  }
}

// The same for an LSTM whose gates (candidate, input, forget, output) see the cell; peephole: its 3 * size weights.
void lstm_direction(const Packed& packed, bool backward, int64_t size, const float* gates, const float* recurrent_w,
                    const float* peephole, float* output) {
  const int64_t most = packed.rows(0);
  std::vector<float> state(most * size), cell(most * size), gate(most * 4 * size);
  for (int64_t t = 0; t < packed.steps(); ++t) {
    const int64_t rows = packed.rows(t);
    linear(state.data(), rows, size, recurrent_w, nullptr, 4 * size, gate.data());
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t place = packed.place(t, r, backward);
      const float *from = gates + place * 4 * size, *g = &gate[r * 4 * size];
      float *h = &state[r * size], *c = &cell[r * size], *to = output + place * 2 * size;
#pragma GCC ivdep
      for (int64_t n = 0; n < size; ++n) {
        const float in = sigmoid(from[size + n] + g[size + n] + peephole[n] * c[n]);
        const float forget = sigmoid(from[2 * size + n] + g[2 * size + n] + peephole[size + n] * c[n]);
        c[n] = forget * c[n] + in * tanh_(from[n] + g[n]);
        const float out = sigmoid(from[3 * size + n] + g[3 * size + n] + peephole[2 * size + n] * c[n]);
        to[n] = h[n] = out * tanh_(c[n]);
      }
    }
  }
}

// The best tags of one sentence (Viterbi 1967); of equally good ones, those with the lower ids. Emissions of its words
// are at emissions(t) [tags]; crfw as in lac/crf.py.
template <typename Emissions>
void viterbi(int64_t words, int64_t tags, const Emissions& emissions, const float* crfw, int64_t* path) {
  std::vector<float> alpha(tags), best(tags);
  std::vector<int32_t> came_from(words * tags);
  for (int64_t j = 0; j < tags; ++j) alpha[j] = emissions(0)[j] + crfw[j];
  for (int64_t t = 1; t < words; ++t) {
    int32_t* from = &came_from[t * tags];
    std::fill(best.begin(), best.end(), -std::numeric_limits<float>::infinity());
    for (int32_t i = 0; i < tags; ++i) {
      const float *into = crfw + (2 + i) * tags, a = alpha[i];
      float* b = best.data();
#pragma GCC ivdep
      for (int64_t j = 0; j < tags; ++j) {
        const float score = a + into[j];
        const bool better = score > b[j];
        b[j] = better ? score : b[j];
        from[j] = better ? i : from[j];
      }
    }
    for (int64_t j = 0; j < tags; ++j) alpha[j] = best[j] + emissions(t)[j];
  }
  for (int64_t j = 0; j < tags; ++j) alpha[j] += crfw[tags + j];
  int64_t tag = std::max_element(alpha.begin(), alpha.end()) - alpha.begin();
  for (int64_t t = words - 1; t >= 0; --t) {
    path[t] = tag;
    tag = came_from[t * tags + tag];
  }
}

}  // namespace

extern "C" {

// The best tags of sentences, int64 `path` [words], by the network of lac/network.py. Arrays of words have one sentence
// after the other: ids of the word embedding, vectors [words, extra] (null without ELMo). Weights of the GRUs: forward
// and backward of the first block, then of the next.
void tag_sentences(int64_t sentences, int64_t blocks, int64_t embed, int64_t extra, int64_t size, int64_t tags,
                   const int64_t* const* lengths, const int64_t* const* ids, const float* const* vectors,
                   const float* const* embedding, const float* const* input_w, const float* const* input_b,
                   const float* const* gate_w, const float* const* candidate_w, const float* const* output,
                   int64_t* const* path) {
  in_groups(sentences, lengths[0], [&](const Packed& packed) {
    const int64_t words = packed.words(), width = extra + embed;
    std::vector<float> input(words * width), states(words * 2 * size), gates(words * 6 * size), scores(words * tags);
    packed.each([&](int64_t place, int64_t word) {
      if (extra) std::memcpy(&input[place * width], vectors[0] + word * extra, extra * sizeof(float));
      std::memcpy(&input[place * width + extra], embedding[0] + ids[0][word] * embed, embed * sizeof(float));
    });
    for (int64_t block = 0; block < blocks; ++block) {
      in_parallel(2, [&](int64_t direction) {  // of one sentence; otherwise a group has one thread
        const int64_t k = 2 * block + direction;
        float* gate = &gates[direction * words * 3 * size];
        linear(input.data(), words, block ? 2 * size : width, input_w[k], input_b[k], 3 * size, gate);
        gru_direction(packed, direction, size, gate, gate_w[k], candidate_w[k], &states[direction * size]);
      });
      input = states;
    }
    linear(states.data(), words, 2 * size, output[0], output[1], tags, scores.data());
    for (int64_t r = 0; r < packed.rows(0); ++r) {
      const auto emissions = [&](int64_t t) { return &scores[(packed.offsets[t] + r) * tags]; };
      viterbi(packed.lengths[r], tags, emissions, output[2], path[0] + packed.starts[r]);
    }
  });
}

// The weight of each word, int64 `found` [words], by the network of lac/release/rank.py. ids: of words and of tags; tables:
// their embeddings, word_size and tag_size wide. dense: weights and biases of the two last layers, `inner` and `ranks`
// wide.
void rank_sentences(int64_t sentences, int64_t word_size, int64_t tag_size, int64_t size, int64_t inner, int64_t ranks,
                    const int64_t* const* lengths, const int64_t* const* ids, const float* const* tables,
                    const float* const* input_w, const float* const* input_b, const float* const* recurrent_w,
                    const float* const* peephole, const float* const* dense, int64_t* const* found) {
  in_groups(sentences, lengths[0], [&](const Packed& packed) {
    const int64_t words = packed.words(), width = word_size + tag_size;
    std::vector<float> input(words * width), states(words * 2 * size), gates(words * 8 * size);
    std::vector<float> hidden(words * inner), scores(words * ranks);
    packed.each([&](int64_t place, int64_t word) {
      float* to = &input[place * width];
      std::memcpy(to, tables[0] + ids[0][word] * word_size, word_size * sizeof(float));
      std::memcpy(to + word_size, tables[1] + ids[1][word] * tag_size, tag_size * sizeof(float));
    });
    in_parallel(2, [&](int64_t k) {
      float* gate = &gates[k * words * 4 * size];
      linear(input.data(), words, width, input_w[k], input_b[k], 4 * size, gate);
      lstm_direction(packed, k, size, gate, recurrent_w[k], peephole[k], &states[k * size]);
    });
    linear(states.data(), words, 2 * size, dense[0], dense[1], inner, hidden.data());
    for (float& value : hidden) value = std::max(value, 0.0f);
    linear(hidden.data(), words, inner, dense[2], dense[3], ranks, scores.data());
    packed.each([&](int64_t place, int64_t word) {
      const float* row = &scores[place * ranks];
      found[0][word] = std::max_element(row, row + ranks) - row;
    });
  });
}

}  // extern "C"
