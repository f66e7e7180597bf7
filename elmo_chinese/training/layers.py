"""The layers of a frozen biLM for all texts of a task, computed once, and what becomes of them."""

import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from elmo_chinese.console import show_progress
from elmo_chinese.files import CheckpointError
from elmo_chinese.training.batches import batches_by_length, pad

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

# Words of a batch, padding included, and its sentences: what bounds memory.
MAX_TOKENS, MAX_SENTENCES = 4096, 128


class LayerCache:
    """Keeps them in memory, or in a file of which the system holds in memory what fits there.

    `[words, layers, 2·embed]`. The processes of a machine share the file and the work of filling it. Its name is
    removed as soon as all have opened it, so that it is gone when they end, however they end.

    Args:
        encoder: the biLM, a `bilm.ElmoEncoder`.
        texts: the sentences of each text, each as the biLM's word ids, int64 `[words]`. A sentence is read by itself.
        path: the file; its folder must be there. None: in the memory of this process, which does all the work.
        dtype: "float32" or "float16".

    Raises:
        CheckpointError: the file cannot be written; the message says how large it would be.
    """

    def __init__(
        self,
        encoder: nn.Layer,
        texts: Sequence[Sequence[np.ndarray]],
        path: Optional[Path] = None,
        dtype: str = "float32",
    ):
        sentences = [ids for text in texts for ids in text]
        self.lengths = np.array([sum(map(len, text)) for text in texts], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        shape = (int(self.lengths.sum()), encoder.config["num_layers"] + 1, encoder.embedding_dim)
        if path is None:
            self.array = np.zeros(shape, dtype)
            self._fill(encoder, sentences, 0, 1)
            return
        if dist.get_rank() == 0:
            _reserve(path, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        _wait()
        self.array = np.memmap(path, dtype=dtype, mode="r+", shape=shape)
        _wait()
        if dist.get_rank() == 0 and os.name != "nt":  # Windows keeps the name of an open file
            path.unlink()
        self._fill(encoder, sentences, dist.get_rank(), dist.get_world_size())
        _wait()

    @paddle.no_grad()
    def _fill(self, encoder: nn.Layer, sentences: List[np.ndarray], rank: int, world_size: int) -> None:
        lengths = np.array([len(ids) for ids in sentences], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        batches = list(batches_by_length(lengths, MAX_TOKENS, MAX_SENTENCES))
        for done, batch in enumerate(batches[rank::world_size]):
            ids = paddle.to_tensor(pad([sentences[number] for number in batch]))
            layers = encoder.layers(ids, paddle.to_tensor(lengths[batch])).numpy().transpose([1, 2, 0, 3])
            for number, sentence in zip(batch, layers):
                self.array[starts[number] : starts[number] + lengths[number]] = sentence[: lengths[number]]
            show_progress(done, len(batches), "ELMo layers")

    def __call__(self, batch: Sequence[int], width: Optional[int] = None) -> paddle.Tensor:
        """Return the layers of texts, padded: float32 `[layers, batch, width, 2·embed]`."""
        places = [slice(self.starts[number], self.starts[number] + self.lengths[number]) for number in batch]
        rows = pad([self.array[place] for place in places], width)
        return paddle.to_tensor(np.ascontiguousarray(rows.transpose([2, 0, 1, 3]), dtype=np.float32))


def _reserve(path: Path, size: int) -> None:
    # A full disk must show here: later it would end the process without a word.
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        raise CheckpointError(
            f"cannot keep {size / 2**30:.2f} GB of ELMo layers in {path}: {error.strerror}; "
            "--elmo_cache float16 takes half, off takes none"
        )


def _wait() -> None:
    if dist.get_world_size() > 1:
        dist.barrier()


def mix_figures(encoder: Optional[nn.Layer]) -> Dict[str, float]:
    """Return gamma and the weights of the ELMo layers, nothing without ELMo."""
    if encoder is None:
        return {}
    mix = encoder.mixes[0]
    weights = nn.functional.softmax(mix.ELMo_w).tolist()
    return {"gamma": float(mix.ELMo_gamma.numpy()[0]), **{f"mix_{n}": weight for n, weight in enumerate(weights)}}
