"""elmo_chinese/network/softmax.py against Paddle's own cross entropy, NumPy, and brute force."""

from elmo_chinese.network import kernels, softmax
from elmo_chinese.network.softmax import (
    full_softmax_losses,
    log_expected_count,
    log_uniform_sample,
    sampled_softmax_losses,
)

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import largest_difference


def philox(seed):
    return np.random.Philox(key=np.array([seed, 0], dtype=np.uint64))


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in [(30, 8), (50, 8), (50,)]]
    return [paddle.to_tensor(a, stop_gradient=False) for a in arrays], paddle.to_tensor(rng.integers(0, 50, 30))


@pytest.mark.parametrize("chunk, kept", [(2**23, 2**25), (350, 2**25), (350, 0), (1, 0)])
def test_full_softmax_and_gradients_equal_paddles_own_in_any_blocks(problem, monkeypatch, chunk, kept):
    monkeypatch.setattr(softmax, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(softmax, "KEPT_LOGITS", kept)
    (hidden, weight, bias), labels = problem
    scale = paddle.to_tensor(np.linspace(-1, 2, 30).astype("float32"))

    def gradients(losses):
        (losses * scale).sum().backward()
        found = [tensor.grad.numpy() for tensor in (hidden, weight, bias)]
        for tensor in (hidden, weight, bias):
            tensor.clear_gradient()
        return [losses.numpy(), *found]

    ours = gradients(full_softmax_losses(hidden, weight, bias, labels))
    theirs = gradients(F.cross_entropy(F.linear(hidden, weight.t(), bias), labels, reduction="none").flatten())
    for mine, right in zip(ours, theirs):
        assert largest_difference(mine, right) < 1e-5


def test_sampled_softmax_equals_numpy(problem):
    (hidden, weight, bias), labels = problem
    negatives, tries = log_uniform_sample(philox(1), 20, 50)
    h, w, b, y = (tensor.numpy().astype("float64") for tensor in (hidden, weight, bias, labels))
    y = y.astype(int)

    def log_q(k):
        p = np.log((k + 2) / (k + 1)) / np.log(51)
        return np.log(1 - (1 - p) ** tries)

    expected, hits = [], 0
    for row, label in zip(h, y):
        others = negatives[negatives != label]
        hits += len(negatives) - len(others)
        true = row @ w[label] + b[label] - log_q(label)
        rest = w[others] @ row + b[others] - log_q(others)
        expected.append(np.log(np.exp(rest).sum() + np.exp(true)) - true)
    direction = hidden.unsqueeze(0), weight, bias, labels.unsqueeze(0), negatives[None], [tries]
    losses = sampled_softmax_losses(*direction)
    assert hits > 0
    assert largest_difference(losses[0].numpy(), np.array(expected)) < 1e-5
    losses.sum().backward()
    touched = np.unique(np.concatenate([negatives, y]))
    untouched = np.setdiff1d(np.arange(50), touched)
    assert np.all(weight.grad.numpy()[untouched] == 0) and len(untouched) > 0


def test_sample_is_unique_log_uniform_and_counts_its_tries():
    words, tries = log_uniform_sample(philox(0), 50, 50)
    assert sorted(words) == list(range(50)) and tries >= 50
    firsts = np.array([log_uniform_sample(philox(seed), 1, 50)[0][0] for seed in range(4000)])
    expected = np.log((np.arange(50) + 2) / (np.arange(50) + 1)) / np.log(51)
    assert np.abs(np.bincount(firsts, minlength=50) / 4000 - expected).max() < 0.02


def test_expected_count_is_the_chance_to_be_drawn():
    ids, tries = np.arange(50), 30
    seen = np.zeros(50)
    uniform = np.random.default_rng(0)
    for _ in range(3000):
        seen[np.unique((np.exp(uniform.random(tries) * np.log(51))).astype(int) - 1)] += 1
    log_q = log_expected_count(paddle.to_tensor(ids), tries, 50).numpy()
    assert largest_difference(np.exp(log_q), seen / 3000) < 0.04


def test_more_negatives_than_words_is_an_error():
    with pytest.raises(ValueError, match="51 different negative samples from 50 words"):
        log_uniform_sample(philox(0), 51, 50)


@pytest.mark.skipif(kernels.library() is None, reason="Paddle looks at them itself")
@pytest.mark.parametrize("label", [-100, 7])
def test_labels_beyond_the_words_are_an_error_instead_of_foreign_memory(label):
    hidden, weight, bias = paddle.ones([2, 3]), paddle.ones([7, 3]), paddle.zeros([7])
    with pytest.raises(ValueError, match=f"labels go from {min(label, 1)} to {max(label, 1)}, but there are 7 words"):
        full_softmax_losses(hidden, weight, bias, paddle.to_tensor([1, label]))


@pytest.mark.parametrize("label", [-100, -1, 7])
def test_so_they_are_without_cpp(label, monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    with pytest.raises(IndexError, match="label value"):
        full_softmax_losses(paddle.ones([2, 3]), paddle.ones([7, 3]), paddle.zeros([7]), paddle.to_tensor([1, label]))
