"""elmo_chinese/training/batches.py: which rows make a batch, and padding."""

from elmo_chinese.training.batches import batches_by_length, pad, training_batches

import numpy as np


def test_padding_goes_by_length():
    padded = pad([np.array([0, 5]), np.array([7])], width=3)
    assert padded.tolist() == [[0, 5, 0], [7, 0, 0]]


def test_an_epoch_has_every_sentence_once_in_an_order_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(1, 50, 205)
    first = training_batches(lengths, 8, seed=3, epoch=1, pool=4)
    assert sorted(np.concatenate(first)) == list(range(205)) and max(map(len, first)) == 8
    again = training_batches(lengths, 8, seed=3, epoch=1, pool=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    for other in (dict(seed=4, epoch=1), dict(seed=3, epoch=2)):
        assert np.concatenate(training_batches(lengths, 8, pool=4, **other)).tolist() != np.concatenate(first).tolist()
    padding = sum(len(batch) * lengths[batch].max() - lengths[batch].sum() for batch in first)
    assert padding < 0.3 * lengths.sum()


def test_batches_keep_to_a_budget_of_tokens():
    lengths = np.array([3, 1, 30, 4, 2, 4])
    assert [batch.tolist() for batch in batches_by_length(lengths, 8, 9)] == [[1, 4], [0, 3], [5], [2]]
    assert [batch.tolist() for batch in batches_by_length(lengths, 99, 2)] == [[1, 4], [0, 3], [5, 2]]
