"""elmo_chinese/network/precision.py: bfloat16 products against NumPy, where they enter, where they are refused."""

import time

from elmo_chinese.network import kernels, precision
from elmo_chinese.network.precision import matmul, why_no_bfloat16
from elmo_chinese.network.step_random import StepRandom

import numpy as np
import paddle
import pytest
from conftest import LM

import train
from bilm import BiLM


@pytest.fixture
def bfloat16():
    if kernels.library() is None or not kernels.library().has_bfloat16():
        pytest.skip("no bfloat16 products here")


def rounded(array):
    """Return float32 numbers rounded to bfloat16, ties to even."""
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("transpose_y", [False, True])
@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize(
    "rows, inner, columns", [(1, 1, 1), (6, 512, 64), (7, 513, 65), (5, 3, 200), (200, 64, 17), (97, 1100, 130)]
)
def test_products_are_those_of_rounded_numbers(bfloat16, rows, inner, columns, transpose_x, transpose_y):
    random = np.random.default_rng(rows)
    x, y = (random.standard_normal(shape, np.float32) for shape in ((2, rows, inner), (2, inner, columns)))
    expected = rounded(x).astype(np.float64) @ rounded(y).astype(np.float64)
    x, y = (np.swapaxes(a, 1, 2) if turned else a for a, turned in ((x, transpose_x), (y, transpose_y)))
    x, y = (paddle.to_tensor(np.ascontiguousarray(array)) for array in (x, y))
    found = matmul(x, y, "bfloat16", transpose_x, transpose_y).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    alone = matmul(x[1], y[1], "bfloat16", transpose_x, transpose_y).numpy()
    assert np.array_equal(alone, found[1])


def test_numbers_without_a_value_stay_visible(bfloat16):
    x = paddle.to_tensor([[1.0, float("nan")], [float("inf"), 1.0]])
    found = matmul(x, paddle.to_tensor([[1.0], [1.0]]), "bfloat16").numpy()
    assert np.isnan(found[0, 0]) and np.isposinf(found[1, 0])


def losses_and_gradients(kind, samples, training):
    paddle.seed(0)
    lm = BiLM(60, 8, 16, dropout=0.1, n_negative_samples=samples, precision=kind)
    lm.train() if training else lm.eval()
    words = paddle.to_tensor(np.random.default_rng(0).integers(0, 60, [4, 6]))
    forward, backward, _ = lm(words, words, words, words, None, StepRandom(0, 0, 0))
    if training:
        (forward + backward).mean().backward()
    return (forward + backward).numpy(), {n: p.grad.numpy() for n, p in lm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("samples", [0, 20], ids=["exact", "sampled"])
def test_a_training_step_is_near_that_of_float32(bfloat16, samples):
    losses, gradients = losses_and_gradients("bfloat16", samples, True)
    exact_losses, exact = losses_and_gradients("float32", samples, True)
    assert 0 < np.abs(losses / exact_losses - 1).max() < 0.01
    assert gradients.keys() == exact.keys()
    for name, gradient in gradients.items():
        assert np.linalg.norm(gradient - exact[name]) < 0.02 * np.linalg.norm(exact[name]), name


def test_without_a_backward_pass_everything_is_float32(bfloat16):
    with paddle.no_grad():
        same = [losses_and_gradients(kind, 0, False)[0] for kind in precision.PRECISIONS]
    assert np.array_equal(*same)


class Library:
    """A library that has, or has no, products in bfloat16."""

    def __init__(self, has):
        self.has_bfloat16 = lambda: has


def test_where_it_cannot_be_had_it_is_refused_with_the_reason(monkeypatch, tmp_path, capsys):
    text = ["--train_path", str(LM / "train.txt"), "--vocab_path", str(LM / "vocab.txt"), "--cache_dir", str(tmp_path)]
    flags = [*text, "--use_gpu", "false", "--para_save_dir", str(tmp_path / "run"), "--precision", "bfloat16"]
    flags += ["--embed_size", "8", "--hidden_size", "16", "--batch_size", "4", "--num_steps", "5"]
    for library, reason in ((None, "need the inner loops in C++"), (Library(False), "no AVX512-BF16")):
        monkeypatch.setattr(kernels, "library", lambda library=library: library)
        with pytest.raises(SystemExit):
            train.main(flags)
        assert reason in capsys.readouterr().err


def test_where_it_is_slower_it_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: Library(True))
    monkeypatch.setattr(precision, "matmul", lambda x, y, kind: time.sleep(0.02 if kind == "bfloat16" else 0.01))
    assert "times as fast as those in float32" in why_no_bfloat16()
