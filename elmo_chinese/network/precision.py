"""Matrix products of training steps in float32 or bfloat16.

In bfloat16 the numbers that are multiplied are rounded to 8 bits of mantissa; sums, cells, losses, parameters and the
optimizer stay float32. Processors with AVX512-BF16 (AMD from Zen 4 on, Intel from Cooper Lake on) do twice as many such
products at a time. Evaluation and vectors are always computed in float32.
"""

import time

from elmo_chinese.network import kernels

import numpy as np
import paddle

PRECISIONS = ("float32", "bfloat16")
LEAST_GAIN = 1.2  # what bfloat16 must be faster by to be worth its rounding
TRIED = (64, 256, 4096)  # rows, inner size and columns of the product that `why_no_bfloat16` times: a step of an LSTM


def matmul(
    x: paddle.Tensor, y: paddle.Tensor, precision: str, transpose_x: bool = False, transpose_y: bool = False
) -> paddle.Tensor:
    """Return x @ y, float32 `[…, rows, columns]`, where … is nothing, or a number of products.

    Args:
        x: float32 `[…, rows, inner]`, or `[…, inner, rows]` with `transpose_x`.
        y: float32 `[…, inner, columns]`, or `[…, columns, inner]` with `transpose_y`.
        precision: one of `PRECISIONS`.
    """
    if precision == "float32":
        return paddle.matmul(x, y, transpose_x=transpose_x, transpose_y=transpose_y)
    rows, inner = x.shape[-1:-3:-1] if transpose_x else x.shape[-2:]
    columns = y.shape[-2] if transpose_y else y.shape[-1]
    result = paddle.empty([*x.shape[:-2], rows, columns])
    x, y, into = ([t] if t.ndim == 2 else paddle.unbind(t) for t in (x.contiguous(), y.contiguous(), result))
    sizes = [len(x), rows, inner, columns, int(transpose_x), int(transpose_y)]
    kernels.call("bfloat16_products", sizes, [], x, y, into)
    return result


def why_no_bfloat16() -> str:
    """Return why products in bfloat16 cannot be had here, or do not pay, "" if they do; takes some 50 ms."""
    library = kernels.library()
    if library is None:
        return f"they need the inner loops in C++ on a CPU; {kernels.describe()}"
    if not library.has_bfloat16():
        return "this processor, or its compiler, has no AVX512-BF16"
    rows, inner, columns = TRIED
    random = np.random.default_rng(0)
    pair = [paddle.to_tensor(random.random(shape, dtype=np.float32)) for shape in ((rows, inner), (inner, columns))]
    seconds = {precision: [] for precision in PRECISIONS}
    for _ in range(5):
        for precision in PRECISIONS:
            start = time.perf_counter()
            matmul(*pair, precision)
            seconds[precision].append(time.perf_counter() - start)
    gain = min(seconds["float32"]) / min(seconds["bfloat16"])
    slow = f"on this processor they are only {gain:.2f} times as fast as those in float32"
    return "" if gain >= LEAST_GAIN else slow
