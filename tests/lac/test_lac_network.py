"""lac/network.py: the GRU against NumPy and autograd, and what a sentence's neighbours must not change."""

from elmo_chinese.network import kernels
from elmo_chinese.network.gru import BiGRU, reverse_places

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import GOLDEN, largest_difference

from bilm import ElmoEncoder, StepRandom, load_encoder
from lac import model as tagging
from lac.network import Tagger

LENGTHS = np.array([4, 1, 3])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_gru(gru, inputs):
    """Run one direction over one sentence `[words, input]`, step by step, in float64."""
    input_w, input_b, gate_w, candidate_w = (
        getattr(gru, name).numpy().astype(np.float64) for name in ("input_w", "input_b", "gate_w", "candidate_w")
    )
    size = len(candidate_w)
    hidden, states = np.zeros(size), []
    for x in inputs @ input_w + input_b:
        update = sigmoid(x[:size] + hidden @ gate_w[:, :size])
        reset = sigmoid(x[size : 2 * size] + hidden @ gate_w[:, size:])
        candidate = np.tanh(x[2 * size :] + (reset * hidden) @ candidate_w)
        hidden = (1 - update) * hidden + update * candidate
        states.append(hidden)
    return np.array(states)


def block(input_size=5, hidden=3):
    """Return a BiGRU with weights and biases large enough to matter."""
    paddle.seed(7)
    block = BiGRU(input_size, hidden)
    for parameter in block.parameters():
        parameter.set_value(paddle.randn(parameter.shape))
    return block


def test_a_block_equals_numpy_in_both_directions():
    bigru = block()
    inputs = np.random.default_rng(0).normal(size=(6, 3, 5)).astype(np.float32)  # more places than words
    found = bigru(paddle.to_tensor(inputs), reverse_places(6, paddle.to_tensor(LENGTHS))).numpy()
    for row, length in enumerate(LENGTHS):
        sentence = inputs[:length, row]
        assert largest_difference(found[:length, row, :3], numpy_gru(bigru.forward_gru, sentence)) < 1e-5
        backward = numpy_gru(bigru.backward_gru, sentence[::-1])[::-1]
        assert largest_difference(found[:length, row, 3:], backward) < 1e-5


def autograd_gru(gru, inputs, order):
    """The same recurrence as a graph of Paddle's operators."""
    projected = F.linear(inputs, gru.input_w, gru.input_b)
    size = gru.candidate_w.shape[0]
    hidden, states = paddle.zeros([inputs.shape[1], size]), {}
    for number in order:
        x = projected[number]
        gate = F.sigmoid(x[:, : 2 * size] + hidden @ gru.gate_w)
        update, reset = gate[:, :size], gate[:, size:]
        candidate = paddle.tanh(x[:, 2 * size :] + (reset * hidden) @ gru.candidate_w)
        hidden = (1 - update) * hidden + update * candidate
        states[number] = hidden
    return paddle.stack([states[number] for number in sorted(states)])


def test_the_gradients_of_a_block_equal_autograd():
    bigru = block()
    random = np.random.default_rng(1)
    inputs, weights = (random.normal(size=shape).astype(np.float32) for shape in ((4, 2, 5), (4, 2, 6)))

    def gradients(run):
        x = paddle.to_tensor(inputs, stop_gradient=False)
        (run(x) * paddle.to_tensor(weights)).sum().backward()
        found = [x.grad.numpy(), *(parameter.grad.numpy() for parameter in bigru.parameters())]
        bigru.clear_gradients()
        return found

    ours = gradients(lambda x: bigru(x, reverse_places(4, paddle.to_tensor([4, 4]))))
    graph = gradients(
        lambda x: paddle.concat(
            [autograd_gru(bigru.forward_gru, x, range(4)), autograd_gru(bigru.backward_gru, x, range(3, -1, -1))], -1
        )
    )
    assert len(ours) == 9
    for mine, theirs in zip(ours, graph):
        assert largest_difference(mine, theirs) < 1e-5


def tagger(**more):
    paddle.seed(5)
    return Tagger(20, 4, word_emb_dim=6, grnn_hidden_dim=5, **more)


def elmo(dropout=0.5):
    paddle.seed(6)
    return ElmoEncoder(12, embed_size=4, hidden_size=7, dropout=dropout)


def batch(seed=0, words=6):
    """Return word ids, lengths, tags and ELMo ids of three sentences; padding is filled with anything."""
    random = np.random.default_rng(seed)
    arrays = [random.integers(0, top, (3, words)) for top in (20, 4, 12)]
    return [paddle.to_tensor(array) for array in (arrays[0], LENGTHS, *arrays[1:])]


@pytest.mark.parametrize("with_elmo", [False, True])
def test_a_sentence_alone_equals_the_sentence_in_a_batch(with_elmo):
    model = tagger(encoder=elmo() if with_elmo else None)
    model.eval()
    word_ids, lengths, tags, elmo_ids = batch()
    together = model(word_ids, lengths, elmo_ids).numpy()
    costs = model.costs(word_ids, lengths, tags, elmo_ids).numpy()
    for row, length in enumerate(LENGTHS):
        mine, my_length = slice(row, row + 1), lengths[row : row + 1]
        alone = model(word_ids[mine, :length], my_length, elmo_ids[mine, :length]).numpy()
        assert largest_difference(alone[0], together[row, :length]) < 1e-5
        cost = model.costs(word_ids[mine, :length], my_length, tags[mine, :length], elmo_ids[mine, :length])
        assert float(cost[0]) == pytest.approx(costs[row], abs=1e-5)


def test_elmo_vectors_stand_before_the_word_embedding():
    encoder, _ = load_encoder(GOLDEN / "lac_small" / "elmo_checkpoint")
    model = tagger(encoder=encoder)
    assert model.blocks[0].forward_gru.input_w.shape == [16 + 6, 15]
    model.eval()
    seen = {}
    model.blocks[0].register_forward_pre_hook(lambda layer, inputs: seen.update(inputs=inputs[0]))
    word_ids, lengths, _, elmo_ids = batch()
    model(word_ids, lengths, elmo_ids)
    assert largest_difference(seen["inputs"][:, :, :16].numpy(), encoder(elmo_ids, lengths).transpose([1, 0, 2])) < 1e-6
    embedded = model.word_embedding.numpy()[word_ids.numpy().T]
    assert largest_difference(seen["inputs"][:, :, 16:].numpy(), embedded) == 0


def test_layers_made_before_give_the_same_as_ids_and_dropout_is_a_function_of_step():
    model = tagger(encoder=elmo())
    word_ids, lengths, tags, elmo_ids = batch()
    layers = model.encoder.layers(elmo_ids, lengths)
    costs = [
        model.costs(word_ids, lengths, tags, given, StepRandom(1, step)).numpy()
        for given, step in ((elmo_ids, 3), (layers, 3), (layers, 4))
    ]
    assert largest_difference(costs[0], costs[1]) < 1e-6 and largest_difference(costs[0], costs[2]) > 1e-5


def test_only_the_mix_of_the_bilm_is_trained():
    model = tagger(encoder=elmo())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {names[id(parameter)] for parameter in model.trained_parameters()}
    assert {name for name in trained if name.startswith("encoder")} == {
        "encoder.mixes.0.ELMo_w",
        "encoder.mixes.0.ELMo_gamma",
    }
    assert {"word_embedding", "crfw", "output_w", "blocks.1.backward_gru.candidate_w"} <= trained


def test_learning_rates_and_decay_are_the_originals():
    model = tagger(encoder=elmo())
    optimizer = paddle.optimizer.Adam(1e-3, parameters=model.trained_parameters())
    before = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    for parameter in model.trained_parameters():  # so small a gradient that decay decides its sign
        gradient = np.where(parameter.numpy() > 0, -1e-7, 1e-7).astype(np.float32)
        (parameter * paddle.to_tensor(gradient)).sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        change = parameter.numpy() - before[name]
        chosen = np.abs(before[name]) > 0.01
        if "lstm" in name or not chosen.any():
            assert "lstm" not in name or not change.any()
            continue
        rate = {"word_embedding": 5e-3, "crfw": 2e-4}.get(name, 1e-3)
        # Adam's first step is the learning rate, against the gradient (but for its epsilon).
        assert np.abs(change[chosen]).max() == pytest.approx(rate, rel=0.15), name
        decayed = name == "output_w" or name.endswith(("input_w", "gate_w", "candidate_w"))
        assert (np.sign(change[chosen]) == np.sign(before[name][chosen]) * (-1 if decayed else 1)).all(), name


def test_it_learns_what_a_neighbour_decides():
    model = Tagger(20, 4, word_emb_dim=16, grnn_hidden_dim=16)
    optimizer = paddle.optimizer.Adam(1e-2, parameters=model.trained_parameters())
    random = np.random.default_rng(0)
    ids = random.integers(0, 20, (40, 6))
    tags = np.concatenate([ids[:, 1:] % 4, np.zeros((40, 1), dtype=np.int64)], axis=1)  # from the next word
    arguments = [paddle.to_tensor(array) for array in (ids, np.full(40, 6), tags)]
    costs = []
    for _ in range(120):
        cost = model.costs(*arguments).mean()
        cost.backward()
        optimizer.step()
        optimizer.clear_grad()
        costs.append(float(cost))
    assert costs[-1] < 0.05 * costs[0]


@pytest.mark.parametrize("elmo", [False, True])
@pytest.mark.parametrize("world_size", [1, 3, 9])
def test_the_processes_share_the_sentences(monkeypatch, world_size, elmo):
    monkeypatch.setattr(tagging, "MAX_SENTENCES", 2)
    paddle.seed(3)
    tagger = Tagger(9, 4, 3, 2, 1, encoder=ElmoEncoder(9, 2, 3) if elmo else None)
    tagger.output_b.set_value(paddle.to_tensor([-9.0, 1.0, 2.0, 3.0]))  # 0 is what others leave
    tagger.eval()
    ids = [np.arange(length) % 9 for length in (3, 1, 4, 1, 5, 9)]
    encoded = tagging.Encoded(ids, ids if elmo else None, np.array([len(row) for row in ids]))
    made = tagging.Model(tagging.decoder(tagger), None, None, tagger)
    whole = tagging.predict_ids(made, encoded)
    shares = [tagging.predict_ids(made, encoded, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert all(np.array_equal(sum(rows), row) for row, *rows in zip(whole, *shares))
    busy = [sum(bool(row.any()) for row in share) for share in shares]
    pieces = 6 if kernels.library() and not elmo else 3  # sentences; batches of two
    assert sum(busy) == len(ids) and sum(map(bool, busy)) == min(pieces, world_size)
