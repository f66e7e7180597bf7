"""The random numbers of a step of training: the same on every device, in every share of the batch, after a resume."""

from typing import NamedTuple, Sequence, Tuple

import numpy as np
import paddle


class StepRandom(NamedTuple):
    """The random numbers of one training step, as a pure function of where we are in the run.

    Dropout masks, and which rows start from a zero state, depend on seed, step and the row's place in the
    global batch, negative samples on seed and step. So they are the same after a resume, and however many
    processes share the batch.
    Philox is a counter-based generator: a process starts at its own rows without drawing the others'.
    """

    seed: int
    step: int
    first_row: int = 0

    def generator(self, stream: int, block: int = 0) -> np.random.Philox:
        """Return a bit generator; `stream` tells uses within a step apart, `block` skips 256 bits each."""
        key = np.array([self.seed, self.step], dtype=np.uint64)
        return np.random.Philox(key=key, counter=np.array([block, 0, 0, stream], dtype=np.uint64))

    def keep_mask(self, stream: int, rows: int, size: int, dropout: float) -> np.ndarray:
        """Return bool `[rows, size]`, False with probability `dropout` (to a 65536th); for few numbers."""
        return self._of_rows(stream, rows, size, np.uint16) >= round(dropout * 65536)

    def keep_factor(self, stream: int, shape: Sequence[int], axis: int, dropout: float) -> paddle.Tensor:
        """Return float32 of that shape, 0 with probability `dropout`, else 1 / (1 - dropout); made on the device.

        A number stands at a place, which is all axes but the last, and in a column, the last one. Places and columns
        have 32 random bits each. Their exclusive or u, of which any three are independent, is mixed as u + 2 u² modulo
        2³² (of RC6: one to one, and all bits of u move the highest), so that any four are, too, for all that shows.

        Args:
            axis: of the rows of the batch; not the last one.
        """
        # Expanded first: on CPU Paddle takes ten times as long to broadcast.
        bits = paddle.bitwise_xor(*(paddle.to_tensor(bits).expand(shape) for bits in self.bits(stream, shape, axis)))
        square = bits * bits
        dropped = paddle.full([], round(dropout * 2**32) - 2**31, "int32")
        return (bits + square + square >= dropped).astype("float32") / (1 - dropout)

    def bits(self, stream: int, shape: Sequence[int], axis: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return the int32 bits of places and columns (see `keep_factor`), in shapes that broadcast to `shape`."""
        rows, others = shape[axis], [size for number, size in enumerate(shape[:-1]) if number != axis]
        places = self._of_rows(stream, rows, int(np.prod(others)), np.int32).reshape([rows, *others, 1])
        columns = self.generator(stream, 2**63).random_raw(-(-shape[-1] // 2)).view(np.int32)[: shape[-1]]
        return np.ascontiguousarray(np.moveaxis(places, 0, axis)), columns

    def _of_rows(self, stream, rows, size, dtype):
        """Return so many random numbers for each row of this process, `[rows, size]`."""
        in_block = 32 // np.dtype(dtype).itemsize
        blocks = -(-size // in_block)
        words = self.generator(stream, self.first_row * blocks).random_raw(rows * blocks * 4)
        return words.view(dtype).reshape(rows, blocks * in_block)[:, :size]


def fresh_random() -> StepRandom:
    """Return a `StepRandom` drawn from Paddle's global generator, so `paddle.seed` governs it."""
    seed, step = paddle.randint(0, 2**31 - 1, [2]).tolist()
    return StepRandom(seed, step)
