"""elmo_chinese/training/loop.py: what the programs that train share (its run is tested with each of them)."""

from types import SimpleNamespace

from elmo_chinese.command import UNEXPECTED
from elmo_chinese.training import loop

import numpy as np
import paddle
import pytest

JOB = SimpleNamespace(root="runs/mine", memory_advice="lower --batch_size", dev_text="x", total_steps=9, log=None,
                      patience=2)  # fmt: skip


class Backward(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        np.empty(2**50, np.float32)


def in_backward():
    x = paddle.ones([1])
    x.stop_gradient = False
    Backward.apply(x).backward()


def card():
    raise OSError("(External) CUDA error(2), out of memory.")


@pytest.mark.parametrize("fails", [lambda: paddle.zeros([2**40]), in_backward, card])
def test_short_memory_is_one_line_that_says_what_to_do(fails):
    with pytest.raises(loop.OutOfMemoryError, match="^step 3: out of memory; lower --batch_size. The") as error:
        with loop.short_of_memory(JOB, "step 3"):
            fails()
    assert error.value.code == UNEXPECTED  # others may have taken it, so run.sh starts again


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("shapes differ")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised:
        with loop.short_of_memory(JOB, "step 3"):
            raise error
    assert raised.value is error


def test_the_best_score_and_how_long_ago_it_was():
    progress, seen = loop.Progress(evaluation_due=True), []
    for score in (0.0, float("nan"), 0.5, 0.5, 0.4):
        best = loop.log_evaluation(JOB, progress, loop.Result(score, {}, {}))
        seen.append((best, progress.best_score, progress.evaluations_since_best))
    assert seen == [(True, 0, 0), (False, 0, 1), (True, 0.5, 0), (False, 0.5, 1), (False, 0.5, 2)]
    assert loop.is_over(JOB, progress) and not progress.evaluation_due
    assert not loop.is_over(JOB, loop.Progress(step=9, evaluation_due=True))
