"""Sentences as padded word ids and their lengths: how they are made, and whether given ones are such."""

import functools
from typing import Any, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.network.program import in_program
from elmo_chinese.network.program import shape as sizes_of
from elmo_chinese.require_paddle import paddle
from elmo_chinese.text.segmenter import segmenter_of
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np

# What stands for whole numbers wherever a network takes word ids or lengths.
Integers = Union[paddle.Tensor, np.ndarray, Sequence[int], Sequence[Sequence[int]]]


class Batch(NamedTuple):
    """Sentences for a network.

    Attributes:
        word_ids: int64 `[batch, words]`, with id 0 behind the last word of a sentence.
        lengths: int64 `[batch]`, words of each sentence.
    """

    word_ids: paddle.Tensor
    lengths: paddle.Tensor

    @property
    def mask(self) -> paddle.Tensor:
        """float32 `[batch, words]`: 1 at words, 0 at padding."""
        places = paddle.arange(self.word_ids.shape[1], dtype="int64")
        return (places < self.lengths.unsqueeze(1)).astype("float32")


_segmenter_of = functools.lru_cache(maxsize=4)(segmenter_of)  # to make one takes a while


def batch_to_ids(sentences: Sequence[Union[str, Sequence[str]]], vocabulary: Vocabulary) -> Batch:
    """Return sentences as padded word ids and lengths: `word_ids, lengths = batch_to_ids(sentences, vocabulary)`.

    Args:
        sentences: each a list of words, or raw text, which is cut as the vocabulary's own text was (`segmenter_of`).
            One without words has the length 0.
        vocabulary: the encoder's, as `bilm.load_encoder` returns it. Other words become `<UNK>`.

    Raises:
        ValueError: there is no sentence, or one is neither text nor a list of words.
    """
    if isinstance(sentences, str) or not len(sentences):
        raise ValueError(f"sentences must be a list with at least one sentence in it, got {sentences!r:.60}")
    rows = []
    for number, words in enumerate(sentences):
        words = _segmenter_of(vocabulary).cut(words) if isinstance(words, str) else words
        wrong = [word for word in words if not isinstance(word, str)]
        if wrong:
            raise ValueError(f"sentence {number} must be text or a list of words, got {wrong[0]!r:.60} in it")
        rows.append(vocabulary.encode(words))
    lengths = np.array([len(row) for row in rows], np.int64)
    word_ids = np.zeros((len(rows), max(1, lengths.max())), np.int64)
    for number, row in enumerate(rows):
        word_ids[number, : len(row)] = row
    return Batch(paddle.to_tensor(word_ids), paddle.to_tensor(lengths))


def checked_batch(
    word_ids: Integers, lengths: Optional[Integers], vocab_size: int
) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """Return word ids and lengths as int64 tensors `[batch, words]` and `[batch]`, lengths None: of all words.

    Paddle itself would leave vectors unwritten, read foreign memory or end the process. While a program is exported
    there are no values to be checked.

    Raises:
        ValueError: naming what is not whole numbers of such a shape, ids outside the vocabulary, lengths that are
            negative or beyond the words.
    """
    word_ids = _integers("word_ids", word_ids, 2, "[batch, words]")
    if lengths is None:
        batch, words = sizes_of(word_ids)
        lengths = paddle.zeros([batch], dtype="int64") + words
    lengths = _integers("lengths", lengths, 1, "[batch]")
    if in_program():
        return word_ids, lengths
    batch, words = word_ids.shape
    if 0 in (batch, words):
        raise ValueError(f"word_ids are [{batch}, {words}]; at least one sentence of one word is expected")
    if lengths.shape[0] != batch:
        raise ValueError(f"lengths are {lengths.shape[0]}, but word_ids has {batch} sentences")
    bounds = [bound for values in (word_ids, lengths) for bound in (values.min(), values.max())]
    least, most, shortest, longest = paddle.stack(bounds).tolist()  # read at once: each waits for a GPU
    if least < 0:
        raise ValueError(f"word_ids go down to {least}; pad with the id of a word, 0 say")
    if most >= vocab_size:
        raise ValueError(
            f"word_ids go up to {most}, but the encoder has {vocab_size} words; ids are line numbers of the vocabulary "
            "it was trained with, counted from 0"
        )
    if shortest < 0 or longest > words:
        raise ValueError(f"lengths go from {shortest} to {longest}, but word_ids has {words} words a sentence")
    return word_ids, lengths


def _integers(name: str, values: Any, axes: int, shape: str) -> paddle.Tensor:
    if isinstance(values, (list, tuple)):
        counts = sorted({len(row) for row in values if isinstance(row, (list, tuple, np.ndarray))})
        if len(counts) > 1:
            raise ValueError(
                f"{name} have rows of {counts[0]} to {counts[-1]} numbers, but must be of one shape {shape}; "
                "bilm.batch_to_ids pads sentences and returns their lengths"
            )
        values = np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        values = paddle.to_tensor(values.astype(np.int64))
    kind = getattr(values, "dtype", None)
    whole = (paddle.int64, paddle.int32, paddle.int16, paddle.int8, paddle.uint8)
    if kind not in whole or len(values.shape) != axes:
        found = f"{kind} of shape {list(values.shape)}" if kind else type(values).__name__
        raise ValueError(f"{name} must be an int64 tensor of shape {shape}, got {found}")
    return values if kind == paddle.int64 else values.astype("int64")
