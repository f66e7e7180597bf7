"""mrc/network.py: attention and softmax against NumPy, and what a question's neighbours must not change."""

import numpy as np
import paddle
import pytest
from conftest import largest_difference

from bilm import ElmoEncoder
from mrc.evaluate import format_scores
from mrc.network import NEVER, AttentionFlow, Batch, Reader, costs, mask, random_of

QUESTION_LENGTHS, PASSAGE_LENGTHS = np.array([3, 5, 2]), np.array([4, 7, 6])
# The first two questions have two passages, one of them the same; the third has one.
DOCUMENTS, THERE = np.array([[0, 1], [1, 2], [2, 0]]), np.array([[1, 1], [1, 1], [1, 0]], dtype=np.float32)


def softmax(values):
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def reader(**more):
    paddle.seed(5)
    made = Reader(20, word_emb_dim=6, hidden_size=5, **more)
    for parameter in made.trained_parameters():  # large enough to matter
        parameter.set_value(paddle.randn(parameter.shape))
    return made


def elmo():
    paddle.seed(6)
    return ElmoEncoder(12, embed_size=4, hidden_size=7, dropout=0, layer_norm=True)


def batch(seed=0, layers=0, widths=(5, 7)):
    """Return three questions of three passages; padding is filled with anything."""
    random = np.random.default_rng(seed)
    questions, passages = (random.integers(0, 20, (3, width)) for width in widths)
    elmo = [random.normal(size=(layers, 3, width, 8)).astype(np.float32) if layers else None for width in widths]
    arrays = [questions, QUESTION_LENGTHS, passages, PASSAGE_LENGTHS, DOCUMENTS, THERE, *elmo]
    return Batch(*(array if array is None else paddle.to_tensor(array) for array in arrays))


def test_attention_flow_equals_numpy():
    paddle.seed(3)
    attention = AttentionFlow(4)
    attention.of_both.set_value(paddle.randn([4]))
    random = np.random.default_rng(0)
    passages = random.normal(size=(2, 2, 5, 4)).astype(np.float32)
    questions = random.normal(size=(2, 3, 4)).astype(np.float32)
    lengths, question_lengths = np.array([[5, 3], [2, 4]]), np.array([3, 1])
    never = (1 - mask(5, paddle.to_tensor(lengths.flatten())).reshape([2, 10])) * NEVER
    never_question = (1 - mask(3, paddle.to_tensor(question_lengths))) * NEVER
    arrays = [paddle.to_tensor(passages.reshape(2, 10, 4)), never, paddle.to_tensor(questions), never_question]
    found = attention(*arrays, documents=2).numpy().reshape(2, 2, 5, 16)
    w_p, w_q, w_m = (
        weight.numpy().astype(np.float64).flatten()
        for weight in (attention.of_passage.weight, attention.of_question.weight, attention.of_both)
    )
    for row, document in np.ndindex(2, 2):
        p, q = passages[row, document, : lengths[row, document]], questions[row, : question_lengths[row]]
        similarity = np.array([[w_p @ a + w_q @ b + w_m @ (a * b) for b in q] for a in p])
        u = softmax(similarity) @ q
        h = softmax(similarity.max(axis=1)) @ p
        expected = np.concatenate([p, u, p * u, p * h], axis=1)
        assert largest_difference(found[row, document, : len(p)], expected) < 1e-5


@pytest.mark.parametrize("vectors", [None, "mix", "lookup"])
def test_the_softmax_is_over_all_passages_of_a_question_and_nothing_else(vectors):
    model = reader(**(dict(encoder=elmo(), elmo_vectors=vectors) if vectors else {}))
    model.eval()
    for log in model(batch(layers=3 if vectors else 0)):
        probabilities = np.exp(log.numpy()).reshape(3, 2, 7)
        assert np.allclose(probabilities.sum(axis=(1, 2)), 1, atol=1e-5)
        for row, place in np.ndindex(3, 2):
            words = PASSAGE_LENGTHS[DOCUMENTS[row, place]] if THERE[row, place] else 0
            assert not probabilities[row, place, words:].any()
            assert (probabilities[row, place, :words] > 0).all()
        assert 0.01 < probabilities[0, 0].sum() < 0.99  # the passages compete


def test_the_numbers_of_words_are_linear_in_the_states_of_the_last_two_blocks():
    model = reader()
    model.eval()
    states = []
    for gru in (model.start_modelling, model.end_modelling):
        gru.register_forward_post_hook(lambda layer, inputs, output: states.append(output.numpy()))
    found = model(batch())
    for log, state, linear in zip(found, states, (model.start, model.end)):
        numbers = (state @ linear.weight.numpy())[..., 0].T.reshape(3, 2, 7)
        for row in range(3):
            kept = [
                numbers[row, place, : PASSAGE_LENGTHS[DOCUMENTS[row, place]]] for place in range(2) if THERE[row, place]
            ]
            expected = np.log(softmax(np.concatenate(kept).astype(np.float64)))
            flat = log.numpy()[row]
            assert largest_difference(flat[flat > -1e8], expected) < 1e-4


@pytest.mark.parametrize("vectors", ["mix", "lookup"])
def test_a_question_alone_equals_the_question_in_a_batch(vectors):
    model = reader(encoder=elmo(), elmo_vectors=vectors)
    model.eval()
    together = batch(layers=3)
    starts, ends = (log.numpy().reshape(3, 2, 7) for log in model(together))
    for row in range(3):
        documents = DOCUMENTS[row, THERE[row] > 0]
        words, width = QUESTION_LENGTHS[row], PASSAGE_LENGTHS[documents].max()
        alone = Batch(
            together.questions[row : row + 1, :words],
            together.question_lengths[row : row + 1],
            together.passages[documents.tolist()][:, :width],
            together.passage_lengths[documents.tolist()],
            paddle.arange(len(documents)).unsqueeze(0),
            paddle.ones([1, len(documents)]),
            together.question_elmo[:, row : row + 1, :words],
            paddle.to_tensor(together.passage_elmo.numpy()[:, documents][:, :, :width]),
        )
        for log, expected in zip(model(alone), (starts, ends)):
            log = log.numpy().reshape(len(documents), width)
            for place, document in enumerate(documents):
                length = PASSAGE_LENGTHS[document]
                assert largest_difference(log[place, :length], expected[row, place, :length]) < 1e-4


def test_the_cost_is_the_two_logarithms():
    start, end = np.log([[0.25, 0.75], [0.5, 0.5]]), np.log([[0.1, 0.9], [0.2, 0.8]])
    arrays = [paddle.to_tensor(array) for array in (start, end, np.array([0, 1]), np.array([1, 0]))]
    expected = [-np.log(0.25) - np.log(0.9), -np.log(0.5) - np.log(0.2)]
    assert largest_difference(costs(*arrays).numpy(), expected) < 1e-9


def test_dropout_is_a_function_of_step_and_of_the_row():
    model = reader(encoder=elmo(), dropout=0.3, elmo_dropout=0.3)
    model.train()
    found = [model(batch(layers=3), random_of(1, step))[0].numpy() for step in (3, 3, 4)]
    assert largest_difference(found[0], found[1]) == 0 and largest_difference(found[0], found[2]) > 1e-3
    whole = batch(layers=3)
    last = Batch(
        *(tensor[2:] for tensor in whole[:2]), *whole[2:4], *(t[2:] for t in whole[4:6]), whole[6][:, 2:], whole[7]
    )
    assert largest_difference(model(last, random_of(1, 3, first_question=2))[0].numpy(), found[0][2:]) < 1e-4


@pytest.mark.parametrize("vectors, mixed", [("mix", True), ("lookup", False)])
def test_only_the_mix_of_the_bilm_is_trained_and_the_lookup_needs_none(vectors, mixed):
    model = reader(encoder=elmo(), elmo_vectors=vectors)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {names[id(parameter)] for parameter in model.trained_parameters()}
    mix = {"encoder.mixes.0.ELMo_w", "encoder.mixes.0.ELMo_gamma"}
    assert {name for name in trained if name.startswith("encoder")} == (mix if mixed else set())
    assert {"word_embedding", "reading.forward_gru.gate_w", "attention.of_both", "end.weight"} <= trained
    assert model.reading.forward_gru.input_w.shape[0] == 6 + (8 if mixed else 4)
    start, end = model(batch(layers=3), random_of(0, 0))
    costs(start, end, paddle.zeros([3], "int64"), paddle.ones([3], "int64")).sum().backward()
    assert all(parameter.grad is not None for parameter in model.trained_parameters())


def test_the_lookup_has_no_context():
    model = reader(encoder=elmo(), elmo_vectors="lookup")
    model.eval()
    given = batch(layers=3)
    other = given._replace(passage_elmo=paddle.concat([given.passage_elmo[:1], given.passage_elmo[1:] * 7 + 1]))
    assert largest_difference(model(given)[0].numpy(), model(other)[0].numpy()) == 0


def test_scores_are_told_in_per_cent():
    assert (
        format_scores(dict(rouge_l=0.5, bleu_4=0.25, f1=1, em=0)) == "Rouge-L 50.00  BLEU-4 25.00  F1 100.00  EM 0.00"
    )
