"""Which rows make a batch, and rows of unequal length as one array; padding is told from the lengths alone."""

from typing import Iterator, List, Optional, Sequence

import numpy as np


def pad(rows: Sequence[np.ndarray], width: Optional[int] = None) -> np.ndarray:
    """Return arrays `[words, …]` as one `[rows, width, …]`, zero behind each; width None: the longest."""
    width = max(len(row) for row in rows) if width is None else width
    padded = np.zeros((len(rows), width, *rows[0].shape[1:]), dtype=rows[0].dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def training_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, pool: int = 16) -> List[np.ndarray]:
    """Return the sentences of each batch of an epoch: every sentence once, in an order of seed and epoch alone.

    Sentences are shuffled; each `pool` batches of them are sorted by length, so that a batch has sentences of
    like length and little padding; the batches are shuffled again.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), pool * batch_size):
        part = order[start : start + pool * batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    return [batches[number] for number in random.permutation(len(batches))]


def batches_by_length(lengths: np.ndarray, max_tokens: int, max_sentences: int) -> Iterator[np.ndarray]:
    """Yield the sentences of each batch, shortest first, with at most `max_tokens` tokens, padding included.

    A sentence with more than that is a batch of its own.
    """
    batch: List[int] = []
    for number in np.argsort(lengths, kind="stable"):
        if batch and ((len(batch) + 1) * lengths[number] > max_tokens or len(batch) == max_sentences):
            yield np.array(batch)
            batch = []
        batch.append(number)
    if batch:
        yield np.array(batch)
