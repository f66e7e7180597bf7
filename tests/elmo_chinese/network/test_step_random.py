"""elmo_chinese/network/step_random.py: fresh numbers every step, the same wherever a row is, as rare as asked."""

from elmo_chinese.network.step_random import StepRandom, fresh_random

import numpy as np
import paddle
import pytest


def keep_mask(random, rows, stream=1):
    return random.keep_mask(stream=stream, rows=rows, size=100, dropout=0.25)


def keep_factor(random, rows, stream=1):
    return random.keep_factor(stream, [5, rows, 20], 1, 0.25).transpose([1, 0, 2]).numpy()


@pytest.mark.parametrize("draw", [keep_mask, keep_factor])
def test_fresh_each_step_and_depending_on_the_row_not_on_the_process(draw):
    whole, half = draw(StepRandom(7, 3), 8), draw(StepRandom(7, 3, first_row=4), 4)
    assert np.array_equal(whole[4:], half)
    for other in (draw(StepRandom(7, 4), 8), draw(StepRandom(8, 3), 8), draw(StepRandom(7, 3), 8, stream=2)):
        assert not np.array_equal(whole, other)


def test_a_mask_drops_as_often_as_asked():
    many = StepRandom(0, 0).keep_mask(0, 100, 10000, 0.1)
    assert many.mean() == pytest.approx(0.9, abs=1e-3)


def test_factors_are_those_of_whole_numbers_modulo_two_to_the_32():
    random, rows = StepRandom(3, 9, first_row=6), 4
    found = random.keep_factor(2, [5, rows, 7], 1, 0.3).numpy()
    places = [
        random._replace(first_row=6 + row).generator(2, 6 + row).random_raw(4).view(np.uint32)[:5] for row in range(4)
    ]
    columns = random.generator(2, 2**63).random_raw(4).view(np.uint32)[:7]
    bits = np.array(places).T[:, :, None] ^ columns
    kept = (bits + 2 * bits * bits).view(np.int32) >= round(0.3 * 2**32) - 2**31
    assert np.array_equal(found, kept.astype(np.float32) / np.float32(0.7)) and 0.5 < kept.mean() < 0.9


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
def test_factors_drop_as_often_as_asked_and_independently(dropout):
    factor = StepRandom(1, 2).keep_factor(0, [40, 50, 100], 1, dropout).numpy()
    assert set(np.unique(factor)) <= {0, np.float32(1 / (1 - dropout))}
    assert factor.mean() == pytest.approx(1, abs=5e-3)  # 6 standard deviations
    if dropout:
        score = (factor - 1).reshape(2000, 100) / np.sqrt(dropout / (1 - dropout))
        # Two places, two columns, and the four corners of both, which the exclusive or alone would tie to each other.
        pairs, neighbours = score[:1000] * score[1000:], score[:, :50] * score[:, 50:]
        for product in (pairs, neighbours, pairs[:, :50] * pairs[:, 50:]):
            assert abs(product.mean()) < 4 / np.sqrt(product.size)
        assert score.sum(axis=0).var() / 2000 == pytest.approx(1, abs=0.5)
        assert score.sum(axis=1).var() / 100 == pytest.approx(1, abs=0.15)


def test_a_drawn_seed_is_governed_by_paddles():
    paddle.seed(5)
    first, second = fresh_random(), fresh_random()
    paddle.seed(5)
    assert fresh_random() == first != second
