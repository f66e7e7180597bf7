"""elmo_chinese/training/states.py: rows that start from zero, and the figures that show a network which never did."""

from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training.states import cells_at_clip, reset_rows, warn_of_zero_state, zero_state_ratio

import numpy as np
import paddle
import pytest
from conftest import LM, tensors

from bilm import StepRandom
from reader import BidirectionalReader


def ones(rows):
    return paddle.ones([4, rows, 3]), paddle.ones([4, rows, 5])


def test_rows_are_reset_as_often_as_asked_whole_and_the_others_untouched():
    count = 0
    for step in range(200):
        hidden, cell = (state.numpy() for state in reset_rows(ones(16), 0.1, StepRandom(3, step)))
        assert np.isin(hidden, (0, 1)).all() and (hidden == hidden[:1, :, :1]).all()
        assert (cell == hidden[:1, :, :1]).all()
        count += int((hidden[0, :, 0] == 0).sum())
    assert count == pytest.approx(200 * 16 * 0.1, abs=60)  # 3.5 standard deviations


def test_which_rows_does_not_depend_on_who_holds_them():
    whole = reset_rows(ones(16), 0.3, StepRandom(3, 7))
    parts = [reset_rows(ones(4), 0.3, StepRandom(3, 7, first_row)) for first_row in (0, 4, 8, 12)]
    assert 0 < whole[0].mean() < 1
    for state, pieces in zip(whole, zip(*parts)):
        assert paddle.equal_all(state, paddle.concat(pieces, axis=1))


def test_no_state_and_no_resets_are_left_as_they_are():
    states = ones(2)
    assert reset_rows(None, 0.5, StepRandom(0, 1)) is None
    assert reset_rows(states, 0.0, StepRandom(0, 1)) is states


def test_cells_at_clip_counts_both_signs():
    cell = paddle.to_tensor(np.array([[[3.0, -3.0, 2.9]], [[0.0, -2.9, 3.0]]], dtype=np.float32))
    assert cells_at_clip((paddle.zeros([2, 1, 4]), cell), 3.0) == 0.5


def test_the_ratio_equals_two_perplexities_with_every_batch_begun_anew(golden_lm, tmp_path):
    dev = BidirectionalReader(LM / "dev.txt", Vocabulary(LM / "vocab.txt"), 4, 20, cache_dir=tmp_path)
    golden = np.load(LM / "forward.npz")
    states = tuple(tensors(golden, "init_hiddens", "init_cells"))
    losses, words = np.zeros((2, 2)), 0
    golden_lm.eval()
    for batch, mask in dev.single_pass():
        for number, start in enumerate((None, states)):
            for direction, found in enumerate(golden_lm(*map(paddle.to_tensor, batch), start)[:2]):
                losses[number, direction] += (found.numpy() * mask).sum()
        words += mask.sum()
    expected = np.exp(np.max(losses[0] - losses[1]) / words)
    assert zero_state_ratio(golden_lm, dev, states) == pytest.approx(expected, rel=1e-5) != 1
    assert golden_lm.training


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize(
    "share, advice", [(0.0, "resume with --load_dir auto --reset_states 0.1"), (0.1, "raise --reset_states")]
)
def test_a_high_ratio_is_said_with_what_to_do(shown, capsys, share, advice):
    warn_of_zero_state(1.9, share)
    assert not capsys.readouterr().out
    warn_of_zero_state(71.6, share)
    printed = capsys.readouterr().out
    assert printed.startswith("warning: ") and "71.6 times" in printed and advice in printed
