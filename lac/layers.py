"""The layers of a frozen biLM for all sentences of a text, computed once."""

import os
from pathlib import Path
from typing import List

from elmo_chinese.checkpoint import CheckpointError
from elmo_chinese.metrics import show_progress

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import ElmoEncoder
from lac.model import MAX_SENTENCES, MAX_TOKENS
from lac.reader import batches_by_length, pad


class LayerCache:
    """Keeps them in a file, `[tokens, layers, 2·embed]`, of which the system holds in memory what fits there.

    The processes of a machine share the file and the work of filling it. Its name is removed as soon as
    all have opened it, so that it is gone when they end, however they end.

    Args:
        encoder: the biLM.
        word_ids: its word ids, int64 `[words]` for each sentence.
        path: the file; its folder must be there.
        dtype: "float32" or "float16".

    Raises:
        CheckpointError: the file cannot be written; the message says how large it would be.
    """

    def __init__(self, encoder: ElmoEncoder, word_ids: List[np.ndarray], path: Path, dtype: str = "float32"):
        self.lengths = np.array([len(ids) for ids in word_ids])
        self.starts = np.cumsum(self.lengths) - self.lengths
        layers = encoder.config["num_layers"] + 1
        shape = (int(self.lengths.sum()), layers, encoder.embedding_dim)
        self.size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if dist.get_rank() == 0:
            self._reserve(path)
        _wait()
        self.array = np.memmap(path, dtype=dtype, mode="r+", shape=shape)
        _wait()
        if dist.get_rank() == 0 and os.name != "nt":  # Windows keeps the name of an open file
            path.unlink()
        self._fill(encoder, word_ids)
        _wait()

    def _reserve(self, path: Path) -> None:
        # A full disk must show here: later it would end the process without a word.
        try:
            with open(path, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.size)
                else:
                    file.truncate(self.size)
        except OSError as error:
            raise CheckpointError(
                f"cannot keep {self.size / 2**30:.2f} GB of ELMo layers in {path}: {error.strerror}; "
                "--elmo_cache float16 takes half, off takes none"
            )

    def _fill(self, encoder: ElmoEncoder, word_ids: List[np.ndarray]) -> None:
        batches = list(batches_by_length(self.lengths, MAX_TOKENS, MAX_SENTENCES))
        for done, batch in enumerate(batches[dist.get_rank() :: dist.get_world_size()]):
            ids = paddle.to_tensor(pad([word_ids[number] for number in batch]))
            layers = encoder.layers(ids, paddle.to_tensor(self.lengths[batch])).numpy().transpose([1, 2, 0, 3])
            for number, sentence in zip(batch, layers):
                self.array[self._place(number)] = sentence[: self.lengths[number]]
            show_progress(done, len(batches), "ELMo layers")

    def _place(self, number: int) -> slice:
        return slice(self.starts[number], self.starts[number] + self.lengths[number])

    def __call__(self, batch, width=None) -> paddle.Tensor:
        """Return the layers of sentences, padded: float32 `[layers, batch, width, 2·embed]`."""
        rows = pad([self.array[self._place(number)] for number in batch], width)
        return paddle.to_tensor(rows.astype(np.float32, copy=False)).transpose([2, 0, 1, 3])


def _wait() -> None:
    if dist.get_world_size() > 1:
        dist.barrier()
