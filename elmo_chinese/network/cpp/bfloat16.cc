// Products in bfloat16 for Python (bfloat16.py); those of the recurrences are in recurrences.cc.
#include "bfloat16.h"

#include "library.h"

namespace {

constexpr int64_t kRowsAtOnce = 16 * bfloat16::kRows;

// Rows first..first + rows of the transpose of data [in, ld].
void transpose(const float* data, int64_t ld, int64_t first, int64_t rows, int64_t in, float* to) {
  for (int64_t k = 0; k < in; ++k)
    for (int64_t r = 0; r < rows; ++r) to[r * in + k] = data[k * ld + first + r];
}

}  // namespace

extern "C" {

// Say whether the processor that this was compiled for multiplies bfloat16 numbers.
int has_bfloat16() {
#ifdef HAS_BFLOAT16
  return 1;
#else
  return 0;
#endif
}

// result [rows, columns] = x @ y of each product; x is [rows, inner], or its transpose, y is [inner, columns], or its
// transpose. Each thread takes a share of the columns of one product.
void bfloat16_products(int64_t products, int64_t rows, int64_t inner, int64_t columns, int64_t transpose_x,
                       int64_t transpose_y, const float* const* x, const float* const* y, float* const* result) {
  const int64_t panels = (columns + bfloat16::kColumns - 1) / bfloat16::kColumns;
  const int64_t tasks = std::min<int64_t>(panels, (mkl_max_threads() + products - 1) / products);
  in_parallel(products * tasks, [&](int64_t task) {
    const int64_t which = task / tasks;
    const Share share(panels, task % tasks, tasks);
    const int64_t first = share.from * bfloat16::kColumns, last = std::min(columns, share.to * bfloat16::kColumns);
    const bfloat16::Packed right(y[which] + (transpose_y ? first * inner : first), transpose_y ? inner : columns,
                                 transpose_y, inner, last - first);
    std::vector<uint32_t> rounded(kRowsAtOnce * bfloat16::pairs_of(inner));
    std::vector<float> transposed(transpose_x ? kRowsAtOnce * inner : 0);
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      const int64_t count = std::min(kRowsAtOnce, rows - row);
      if (transpose_x) transpose(x[which], rows, row, count, inner, transposed.data());
      bfloat16::round_rows(transpose_x ? transposed.data() : x[which] + row * inner, inner, count, inner, rounded.data());
      right.product(rounded.data(), count, result[which] + row * columns + first, columns, false);
    }
  });
}

}  // extern "C"
