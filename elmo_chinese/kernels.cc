// The inner loops for CPU; lstmp.py, softmax.py and gru.py have the same functions in Paddle operators.
//
// What recurs is independent from row to row and from direction to direction, so each thread takes its own rows of
// one direction through all steps without ever waiting for another one. The products are those of the MKL that Paddle
// brings along, one thread each, with weights packed once for all steps; threads come from the same pool as Paddle's
// (two pools would fight for the cores).
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// ---------------------------------------------------------------- the libraries that Paddle has loaded

using Gemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
using Compute = void (*)(int, int, int, int, int, int, const float*, int, const float*, int, float, float*, int);
using Pack = void (*)(int, int, int, int, int, int, float, const float*, int, float*);

Gemm gemm;
Compute gemm_compute;
Pack gemm_pack;
float* (*gemm_alloc)(int, int, int, int);
void (*gemm_free)(float*);
int (*mkl_max_threads)();
int (*mkl_set_threads)(int);
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

// Run task(0) .. task(count - 1), as many at a time as MKL would use threads, each with one MKL thread.
void in_parallel(int64_t count, const std::function<void(int64_t)>& task) {
  struct Work {
    int64_t count;
    const std::function<void(int64_t)>& task;
  } work{count, task};
  const int64_t threads = std::min<int64_t>(count, mkl_max_threads());
  const auto run = [](void* argument) {
    const auto& work = *static_cast<Work*>(argument);
    const int before = mkl_set_threads(1);
    for (int64_t k = omp_thread(); k < work.count; k += omp_threads()) work.task(k);
    mkl_set_threads(before);
  };
  omp_parallel(run, &work, static_cast<unsigned>(threads), 0);
}

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112, kPacked = 151, kB = 162;
constexpr int64_t kPackRows = 4;  // below, packing takes longer than it saves

// A weight [first, second], or its transpose, as the right side of products with `rows` rows.
class Weight {
 public:
  Weight(const float* data, int64_t first, int64_t second, bool transposed, int64_t rows)
      : data_(data), ld_(second), transposed_(transposed), rows_(rows), in_(transposed ? second : first),
        out_(transposed ? first : second) {}
  Weight(const Weight&) = delete;
  ~Weight() {
    if (packed_) gemm_free(packed_);
  }
  void pack() {
    if (rows_ < kPackRows) return;
    packed_ = gemm_alloc(kB, rows_, out_, in_);
    gemm_pack(kRowMajor, kB, transposed_ ? kTrans : kNoTrans, rows_, out_, in_, 1.0f, data_, ld_, packed_);
  }
  // to = from @ weight (+ to); the rows of from [rows, in] and to [rows, out] stand `from_ld` and `to_ld` apart
  void product(const float* from, int64_t from_ld, float* to, int64_t to_ld, bool add) const {
    const float beta = add ? 1.0f : 0.0f;
    if (packed_) {
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
  bool transposed_;
  int64_t rows_, in_, out_;
  float* packed_ = nullptr;
};

// ---------------------------------------------------------------- elementwise

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

// ---------------------------------------------------------------- the parts that threads take

// Rows from..to of `count` that one of as many tasks as there are threads takes.
struct Share {
  int64_t from, to;
  Share(int64_t count, int64_t task, int64_t tasks) : from(count * task / tasks), to(count * (task + 1) / tasks) {}
};

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
  std::vector<std::unique_ptr<Weight>> all;
  void add(const float* const* data, int64_t first, int64_t second, bool transposed, const Parts& parts) {
    for (int64_t d = 0; d < parts.directions; ++d)
      all.push_back(std::make_unique<Weight>(data[d], first, second, transposed, parts.rows));
  }
  void pack() {
    in_parallel(all.size(), [&](int64_t k) { all[k]->pack(); });
  }
};

// ---------------------------------------------------------------- the update

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

// ---------------------------------------------------------------- tagging

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
  std::atomic<int64_t> next{0};
  in_parallel(std::min<int64_t>(threads, ends.size() - 1), [&](int64_t) {
    for (size_t k = next++; k + 1 < ends.size(); k = next++)
      work(Packed(lengths, starts.data(), &order[ends[k]], ends[k + 1] - ends[k]));
  });
}

// to [rows, out] = from [rows, in] @ weight [in, out] + bias [out] (null: nothing is added)
void linear(const float* from, int64_t rows, int64_t in, const float* weight, const float* bias, int64_t out,
            float* to) {
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

// ---------------------------------------------------------------- cutting text

// A dictionary as a tree of the beginnings of its words, kept in a hash table: a beginning's place in the table stands
// for it, and its key is the place of the beginning without the last character, and that character.
class Tree {
 public:
  Tree(int64_t size, int64_t* keys, int32_t* words) : root(size), size_(size), keys_(keys), words_(words) {
    while ((int64_t{1} << (64 - shift_)) < size) --shift_;
  }
  // The place of a beginning with one character more, or, if there is none, the empty one where it belongs.
  int64_t find(int64_t beginning, int32_t character) const {
    const int64_t key = beginning << 21 | character;
    int64_t place = static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u >> shift_;
    while (keys_[place] != key && keys_[place] != kEmpty) place = (place + 1) & (size_ - 1);
    return place;
  }
  bool empty(int64_t place) const { return keys_[place] == kEmpty; }
  int32_t word(int64_t place) const { return words_[place]; }  // its number; below 0: a beginning only
  void add(const int32_t* characters, int64_t length, int32_t number) {
    int64_t place = root;
    for (int64_t k = 0; k < length; ++k) {
      const int64_t key = place << 21 | characters[k];
      place = find(place, characters[k]);
      keys_[place] = key;
    }
    words_[place] = number;
  }
  const int64_t root;

 private:
  static constexpr int64_t kEmpty = -1;
  int64_t size_, shift_ = 63;
  int64_t* keys_;
  int32_t* words_;
};

inline bool letter_or_digit(int32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// Mark in `last` the last characters of the pieces of a text: those of the path with the largest sum of scores, found
// from the right; of equal ones the longer piece. `alone` is the score of a character that is no word.
void cut_text(const Tree& tree, const double* scores, double alone, const int32_t* text, int64_t length,
              std::vector<double>& best, std::vector<int64_t>& ends, int32_t* last) {
  best.assign(length + 1, 0.0);
  ends.resize(length);
  for (int64_t start = length - 1; start >= 0; --start) {
    int64_t place = tree.find(tree.root, text[start]);
    const bool known = !tree.empty(place) && tree.word(place) >= 0;
    double most = (known ? scores[tree.word(place)] : alone) + best[start + 1];
    int64_t end_of_most = start + 1;
    for (int64_t end = start + 1; end < length && !tree.empty(place); ++end) {
      place = tree.find(place, text[end]);
      if (tree.empty(place) || tree.word(place) < 0) continue;
      const double score = scores[tree.word(place)] + best[end + 1];
      if (score >= most) most = score, end_of_most = end + 1;
    }
    best[start] = most;
    ends[start] = end_of_most;
  }
  for (int64_t start = 0; start < length;) {
    const auto single = [&](int64_t k) { return ends[k] == k + 1 && letter_or_digit(text[k]); };
    int64_t end = ends[start];
    if (single(start))  // letters and digits that stand alone stay together
      while (end < length && single(end)) ++end;
    last[end - 1] = 1;
    start = end;
  }
}

}  // namespace

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

// All steps of one LSTM layer. Each array of pointers has one for each direction; weights as in lstmp.py:
//   input [steps, batch, embed], hidden [batch, embed], cell [batch, size] are read;
//   hiddens [steps + 1, batch, embed] and cells [held + 1, batch, size] get the first state in front,
//   gates [held, batch, 4 * size] the activated gates,
// where held is `steps`, or 1 without `keep` (no backward pass will follow); then cells ends with the last one.
void lstm_steps(int64_t directions, int64_t steps, int64_t batch, int64_t embed, int64_t size, float cell_clip,
                float proj_clip, int64_t keep, const float* const* input, const float* const* gate_w,
                const float* const* recurrent_w, const float* const* projection_w, const float* const* bias,
                const float* const* hidden, const float* const* cell, float* const* gates, float* const* hiddens,
                float* const* cells) {
  const Parts parts(directions, batch);
  Weights weights;
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
void lstm_steps_backward(int64_t directions, int64_t steps, int64_t batch, int64_t embed, int64_t size, float cell_clip,
                         float proj_clip, const float* const* d_outputs, const float* const* gate_w,
                         const float* const* recurrent_w, const float* const* projection_w,
                         const float* const* hiddens, float* const* cells, float* const* gates,
                         float* const* d_projected, float* const* d_input, float* const* d_bias) {
  const Parts parts(directions, batch);
  Weights weights;
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

// The sum of the squares of `size` numbers, put together from the same parts whatever the threads.
void squares(int64_t size, const float* const* numbers, float* const* sum) {
  std::vector<double> sums((size + kPart - 1) / kPart);
  in_parallel(sums.size(), [&](int64_t part) {
    const float* x = numbers[0] + part * kPart;
    const int64_t count = std::min(kPart, size - part * kPart);
    double total = 0.0;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < count; ++k) total += static_cast<double>(x[k]) * x[k];
    sums[part] = total;
  });
  sum[0][0] = std::accumulate(sums.begin(), sums.end(), 0.0);
}

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
    std::vector<float> input(words * width), states(words * 2 * size), gates(words * 3 * size), scores(words * tags);
    packed.each([&](int64_t place, int64_t word) {
      if (extra) std::memcpy(&input[place * width], vectors[0] + word * extra, extra * sizeof(float));
      std::memcpy(&input[place * width + extra], embedding[0] + ids[0][word] * embed, embed * sizeof(float));
    });
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t k = 2 * block; k < 2 * block + 2; ++k) {
        linear(input.data(), words, block ? 2 * size : width, input_w[k], input_b[k], 3 * size, gates.data());
        gru_direction(packed, k % 2, size, gates.data(), gate_w[k], candidate_w[k], &states[k % 2 * size]);
      }
      input = states;
    }
    linear(states.data(), words, 2 * size, output[0], output[1], tags, scores.data());
    for (int64_t r = 0; r < packed.rows(0); ++r) {
      const auto emissions = [&](int64_t t) { return &scores[(packed.offsets[t] + r) * tags]; };
      viterbi(packed.lengths[r], tags, emissions, output[2], path[0] + packed.starts[r]);
    }
  });
}

// The weight of each word, int64 `found` [words], by the network of lac/rank.py. ids: of words and of tags; tables:
// their embeddings, word_size and tag_size wide. dense: weights and biases of the two last layers, `inner` and `ranks`
// wide.
void rank_sentences(int64_t sentences, int64_t word_size, int64_t tag_size, int64_t size, int64_t inner, int64_t ranks,
                    const int64_t* const* lengths, const int64_t* const* ids, const float* const* tables,
                    const float* const* input_w, const float* const* input_b, const float* const* recurrent_w,
                    const float* const* peephole, const float* const* dense, int64_t* const* found) {
  in_groups(sentences, lengths[0], [&](const Packed& packed) {
    const int64_t words = packed.words(), width = word_size + tag_size;
    std::vector<float> input(words * width), states(words * 2 * size), gates(words * 4 * size);
    std::vector<float> hidden(words * inner), scores(words * ranks);
    packed.each([&](int64_t place, int64_t word) {
      float* to = &input[place * width];
      std::memcpy(to, tables[0] + ids[0][word] * word_size, word_size * sizeof(float));
      std::memcpy(to + word_size, tables[1] + ids[1][word] * tag_size, tag_size * sizeof(float));
    });
    for (int64_t k = 0; k < 2; ++k) {
      linear(input.data(), words, width, input_w[k], input_b[k], 4 * size, gates.data());
      lstm_direction(packed, k, size, gates.data(), recurrent_w[k], peephole[k], &states[k * size]);
    }
    linear(states.data(), words, 2 * size, dense[0], dense[1], inner, hidden.data());
    for (float& value : hidden) value = std::max(value, 0.0f);
    linear(hidden.data(), words, inner, dense[2], dense[3], ranks, scores.data());
    packed.each([&](int64_t place, int64_t word) {
      const float* row = &scores[place * ranks];
      found[0][word] = std::max_element(row, row + ranks) - row;
    });
  });
}

// Make the tree of `words` words; keys (all below 0) and numbers (all below 0) have `size` places, a power of two that is
// more than the words have characters.
void plant_tree(int64_t words, int64_t size, const int64_t* const* lengths, const int32_t* const* characters,
                int64_t* const* keys, int32_t* const* numbers) {
  Tree tree(size, keys[0], numbers[0]);
  const int32_t* word = characters[0];
  for (int64_t k = 0; k < words; word += lengths[0][k++]) tree.add(word, lengths[0][k], static_cast<int32_t>(k));
}

// Mark in `last` (all 0) the last characters of the pieces of texts, that stand one after the other in `characters`.
// scores: of the words, and behind them that of a character that is none. changed, if there: how many words have another
// score in each text; which, and what score.
void cut_texts(int64_t texts, int64_t words, int64_t size, const int64_t* const* lengths,
               const int32_t* const* characters, int64_t* const* keys, int32_t* const* numbers,
               const double* const* scores, const int64_t* const* changed, const double* const* other_scores,
               int32_t* const* last) {
  const Tree tree(size, keys[0], numbers[0]);
  std::vector<double> now(changed[0] ? scores[0] : nullptr, changed[0] ? scores[0] + words : nullptr), best;
  std::vector<int64_t> ends;
  const double* score = changed[0] ? now.data() : scores[0];
  for (int64_t k = 0, place = 0, change = 0; k < texts; place += lengths[0][k++]) {
    const int64_t from = change, to = change + (changed[0] ? changed[0][k] : 0);
    for (; change < to; ++change) now[changed[1][change]] = other_scores[0][change];
    cut_text(tree, score, scores[0][words], characters[0] + place, lengths[0][k], best, ends, last[0] + place);
    for (change = from; change < to; ++change) now[changed[1][change]] = scores[0][changed[1][change]];
  }
}

}  // extern "C"
