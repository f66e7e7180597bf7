// Products of float32 matrices whose numbers are rounded to bfloat16 (8 bits of mantissa) on the way; sums are float32.
//
// Processors with AVX512-BF16 multiply and add twice as many such numbers at a time as float32 ones. MKLML, which Paddle
// brings along, is from before that.
#pragma once

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_BFLOAT16 1
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <vector>

#pragma GCC visibility push(hidden)

namespace bfloat16 {

// Of the result, 6 rows × 64 columns are summed in registers (24 of 32); 512 summands at a time, so that what is read
// again and again of the right side (64 columns of them, 64 KB) stays in the second-level cache.
constexpr int64_t kRows = 6, kColumns = 64, kPairs = 256;

inline int64_t pairs_of(int64_t numbers) { return (numbers + 1) / 2; }

#ifdef HAS_BFLOAT16

// Round rows of `in` numbers, `ld` apart; each number of pairs_of(in) pairs in turn, a missing one as zero.
inline void round_rows(const float* from, int64_t ld, int64_t rows, int64_t in, uint32_t* to) {
  const int64_t width = 2 * pairs_of(in);
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t* target = reinterpret_cast<uint16_t*>(to + r * pairs_of(in));
    for (int64_t k = 0; k < width; k += 16) {
      const int64_t there = std::min<int64_t>(16, in - k), wanted = std::min<int64_t>(16, width - k);
      const __m512 numbers = _mm512_maskz_loadu_ps((1u << there) - 1, from + r * ld + k);
      _mm256_mask_storeu_epi16(target + k, (1u << wanted) - 1, (__m256i)_mm512_cvtneps_pbh(numbers));
    }
  }
}

// The right side of products, [in, out] or transposed: panels of 64 columns, zeros beyond the last one. A panel holds
// pairs of rows, since one instruction adds two products to each sum.
class Packed {
 public:
  Packed(const float* data, int64_t ld, bool transposed, int64_t in, int64_t out)
      : in_(in), out_(out), panels_((out + kColumns - 1) / kColumns * pairs_of(in) * kColumns) {
    for (int64_t first = 0; first < out; first += kColumns) {
      const int64_t columns = std::min(kColumns, out - first);
      for (int64_t k = 0; k < in; k += 2) {
        alignas(64) float two[2][kColumns] = {};
        for (int64_t row = k; row < std::min(in, k + 2); ++row)
          for (int64_t c = 0; c < columns; ++c)
            two[row - k][c] = transposed ? data[(first + c) * ld + row] : data[row * ld + first + c];
        uint32_t* to = &panels_[first * pairs_of(in) + k / 2 * kColumns];
        for (int64_t c = 0; c < kColumns; c += 16) {
          const __m512i even = widened(two[0] + c), odd = widened(two[1] + c);
          _mm512_storeu_si512(to + c, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
      }
    }
  }

  // to [rows, out] = from @ this (+ to), where from is what `round_rows` made of [rows, in]
  void product(const uint32_t* from, int64_t rows, float* to, int64_t ld, bool add) const {
    const int64_t pairs = pairs_of(in_);
    for (int64_t begin = 0; begin < pairs; begin += kPairs) {
      const Block block{std::min(kPairs, pairs - begin), pairs, ld, add || begin};
      for (int64_t first = 0; first < out_; first += kColumns)
        for (int64_t row = 0; row < rows; row += kRows)
          block.add(std::min(kRows, rows - row), from + row * pairs + begin,
                    &panels_[first * pairs + begin * kColumns], to + row * ld + first, out_ - first);
    }
  }

 private:
  static __m512i widened(const float* numbers) {
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_load_ps(numbers)));
  }

  // Some of the pairs of a product: how many, how far the rows of both sides are apart, and whether to add.
  struct Block {
    int64_t count, from_ld, to_ld;
    bool adds;

    template <int rows>
    void add(const uint32_t* from, const uint32_t* panel, float* to, int64_t columns) const {
      __mmask16 there[4];
      __m512 sums[rows][4];
      for (int c = 0; c < 4; ++c) there[c] = (1u << std::clamp<int64_t>(columns - 16 * c, 0, 16)) - 1;
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c)
          sums[r][c] = adds ? _mm512_maskz_loadu_ps(there[c], to + r * to_ld + 16 * c) : _mm512_setzero_ps();
      for (int64_t p = 0; p < count; ++p) {
        __m512bh right[4];
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) right[c] = (__m512bh)_mm512_loadu_si512(panel + p * kColumns + 16 * c);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
          const __m512bh left = (__m512bh)_mm512_set1_epi32(from[r * from_ld + p]);
#pragma GCC unroll 4
          for (int c = 0; c < 4; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], left, right[c]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) _mm512_mask_storeu_ps(to + r * to_ld + 16 * c, there[c], sums[r][c]);
    }

    void add(int64_t rows, const uint32_t* from, const uint32_t* panel, float* to, int64_t columns) const {
      switch (rows) {
        case 1: return add<1>(from, panel, to, columns);
        case 2: return add<2>(from, panel, to, columns);
        case 3: return add<3>(from, panel, to, columns);
        case 4: return add<4>(from, panel, to, columns);
        case 5: return add<5>(from, panel, to, columns);
        default: return add<kRows>(from, panel, to, columns);
      }
    }
  };

  int64_t in_, out_;
  std::vector<uint32_t> panels_;
};

#else  // nobody gets here: bfloat16.py asks has_bfloat16() first

inline void round_rows(const float*, int64_t, int64_t, int64_t, uint32_t*) {}

class Packed {
 public:
  Packed(const float*, int64_t, bool, int64_t, int64_t) {}
  void product(const uint32_t*, int64_t, float*, int64_t, bool) const {}
};

#endif

}  // namespace bfloat16

#pragma GCC visibility pop
