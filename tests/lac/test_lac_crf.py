"""lac/crf.py against the original's numbers, against enumeration, and against Paddle's own decoder."""

import itertools

import numpy as np
import paddle
import pytest
from conftest import GOLDEN, largest_difference

from lac.crf import crf_costs, shifted_ends, viterbi

CRF = GOLDEN / "lac_small" / "crf.npz"


def pad(flat, lengths, extra=0):
    """Return rows one after the other as `[batch, words, …]`, with something at padding that must not matter."""
    padded = np.full((len(lengths), lengths.max() + extra, *flat.shape[1:]), 3, dtype=flat.dtype)
    for row, part in enumerate(np.split(flat, np.cumsum(lengths)[:-1])):
        padded[row, : len(part)] = part
    return padded


def unpad(padded, lengths):
    return np.concatenate([row[:length] for row, length in zip(padded, lengths)])


@pytest.mark.parametrize("extra", [0, 4])
def test_cost_gradients_and_path_equal_golden(extra):
    golden = np.load(CRF)
    lengths = golden["lens"]
    emissions = paddle.to_tensor(pad(golden["emission"], lengths, extra), stop_gradient=False)
    crfw = paddle.to_tensor(golden["crfw"], stop_gradient=False)
    tags = paddle.to_tensor(pad(golden["labels"], lengths, extra))
    costs = crf_costs(emissions, tags, paddle.to_tensor(lengths), crfw)
    assert largest_difference(costs.numpy(), golden["cost"][:, 0]) < 1e-5
    mean = costs.mean()
    mean.backward()
    assert abs(float(mean) - float(golden["avg_cost"][0])) < 1e-5
    assert largest_difference(unpad(emissions.grad.numpy(), lengths), golden["d_emission"]) < 1e-5
    assert largest_difference(crfw.grad.numpy(), golden["d_crfw"]) < 1e-5
    path = viterbi(emissions.numpy(), lengths, golden["crfw"])
    assert np.array_equal(unpad(path, lengths), golden["path"][:, 0])


def problem(seed, num_tags=3, scale=2.0):
    """Return random emissions `[4, 5, num_tags]`, lengths, crfw and tags; one sentence has one word."""
    random = np.random.default_rng(seed)
    emissions = (scale * random.normal(size=(4, 5, num_tags))).astype(np.float32)
    crfw = (scale * random.normal(size=(num_tags + 2, num_tags))).astype(np.float32)
    return emissions, np.array([5, 1, 2, 4]), crfw, random.integers(0, num_tags, (4, 5))


def score(emission, crfw, path):
    """Return the score of one path, in float64."""
    emission, crfw = emission.astype(np.float64), crfw.astype(np.float64)
    moves = sum(crfw[2 + a, b] for a, b in zip(path, path[1:]))
    return crfw[0, path[0]] + crfw[1, path[-1]] + moves + sum(row[tag] for row, tag in zip(emission, path))


def all_scores(emission, crfw, length):
    return {path: score(emission, crfw, path) for path in itertools.product(range(emission.shape[1]), repeat=length)}


@pytest.mark.parametrize("seed", range(5))
def test_cost_and_path_equal_enumeration(seed):
    emissions, lengths, crfw, tags = problem(seed)
    arguments = [paddle.to_tensor(array) for array in (emissions, tags, lengths, crfw)]
    costs, paths = crf_costs(*arguments).numpy(), viterbi(emissions, lengths, crfw)
    for row, length in enumerate(lengths):
        scores = all_scores(emissions[row], crfw, length)
        expected = np.logaddexp.reduce(list(scores.values())) - scores[tuple(tags[row, :length])]
        assert costs[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert tuple(paths[row, :length]) == max(scores, key=scores.get)
        assert not paths[row, length:].any()


def test_gradients_equal_expected_counts_by_enumeration():
    emissions, lengths, crfw, tags = problem(seed=9)
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in (emissions, crfw)]
    crf_costs(tensors[0], paddle.to_tensor(tags), paddle.to_tensor(lengths), tensors[1]).sum().backward()
    d_emissions, d_crfw = np.zeros(emissions.shape), np.zeros(crfw.shape)
    for row, length in enumerate(lengths):
        scores = all_scores(emissions[row], crfw, length)
        total = np.logaddexp.reduce(list(scores.values()))
        gold = tuple(tags[row, :length])
        for path, value in scores.items():
            weight = np.exp(value - total) - (path == gold)
            d_emissions[row, np.arange(length), path] += weight
            d_crfw[0, path[0]] += weight
            d_crfw[1, path[-1]] += weight
            for a, b in zip(path, path[1:]):
                d_crfw[2 + a, b] += weight
    assert largest_difference(tensors[0].grad.numpy(), d_emissions) < 1e-5
    assert largest_difference(tensors[1].grad.numpy(), d_crfw) < 1e-5


def test_large_scores_do_not_overflow_and_forbidden_transitions_stay_finite():
    emissions, lengths, crfw, tags = problem(seed=3, scale=30.0)
    crfw[2, 1] = -1e4
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in (emissions, crfw)]
    costs = crf_costs(tensors[0], paddle.to_tensor(tags), paddle.to_tensor(lengths), tensors[1])
    costs.sum().backward()
    assert np.isfinite(costs.numpy()).all() and np.isfinite(tensors[1].grad.numpy()).all()
    for row, length in enumerate(lengths):
        scores = all_scores(emissions[row], crfw, length)
        assert tuple(viterbi(emissions, lengths, crfw)[row, :length]) == max(scores, key=scores.get)


def test_a_sentence_costs_the_same_alone_and_in_a_batch():
    emissions, lengths, crfw, tags = problem(seed=4)
    together = crf_costs(*[paddle.to_tensor(array) for array in (emissions, tags, lengths, crfw)]).numpy()
    for row, length in enumerate(lengths):
        alone = [emissions[row : row + 1, :length], tags[row : row + 1, :length], lengths[row : row + 1], crfw]
        assert crf_costs(*map(paddle.to_tensor, alone)).numpy()[0] == pytest.approx(together[row], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_paddles_decoder_finds_the_same_paths(seed):
    emissions, lengths, crfw, _ = problem(seed, num_tags=7)
    tensors = [paddle.to_tensor(array) for array in (emissions, lengths, crfw)]
    _, paths = paddle.text.viterbi_decode(shifted_ends(*tensors), tensors[2][2:], tensors[1], False)
    assert np.array_equal(unpad(paths.numpy(), lengths), unpad(viterbi(emissions, lengths, crfw), lengths))
