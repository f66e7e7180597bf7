"""The encoder of bilm.py against the original's, and what every user of vectors relies on."""

from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.pretrained import PretrainedError
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import paddle
import pytest
from conftest import GOLDEN, largest_difference

import bilm
from bilm import BiLM, ElmoEncoder, ScalarMix, elmo_encoder, init_pretraining_params, load_encoder

LAC = GOLDEN / "lac_small"


def padded(golden, extra=0):
    """Return ids and lengths of the three golden sentences, padded with ids that mean nothing."""
    lengths, flat = golden["lens"], list(golden["word_ids"])
    ids = np.full((len(lengths), lengths.max() + extra), 59, dtype=np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length], flat = flat[:length], flat[length:]
    return paddle.to_tensor(ids), paddle.to_tensor(lengths)


def flat(vectors, lengths):
    """Join the sentences of `[..., batch, words, size]` without their padding."""
    return np.concatenate([vectors.numpy()[..., row, : int(n), :] for row, n in enumerate(lengths)], axis=-2)


@pytest.fixture
def encoder():
    return load_encoder(LAC / "elmo_checkpoint")[0]


def test_legacy_equals_the_originals_encoder():
    golden = np.load(LAC / "elmo.npz")
    encoder, _ = load_encoder(LAC / "elmo_checkpoint", legacy=True)
    ids, lengths = padded(golden)
    assert largest_difference(flat(encoder(ids, lengths), lengths), golden["elmo"]) < 1e-5


def test_layers_equal_the_language_models_states_in_sentence_order(encoder):
    golden = np.load(LAC / "elmo_lm_states.npz")
    ids, lengths = padded(golden)
    layers = flat(encoder.layers(ids, lengths), lengths)
    assert layers.shape == (3, 13, 16)
    for layer, name in zip(layers, ["x_emb", "ori1", "ori2"]):
        assert largest_difference(layer[:, :8], golden[f"fw_{name}"]) < 1e-5
        assert largest_difference(layer[:, 8:], golden[f"bw_{name}_sentence_order"]) < 1e-5


def test_a_mix_of_other_layers_than_it_was_made_for_is_refused():
    with pytest.raises(ValueError, match="this mixes 3 layers, but got 2"):
        ScalarMix(3)([paddle.ones([2, 4]), paddle.ones([2, 4])])


def test_the_mix_equals_numpy(encoder):
    golden = np.load(LAC / "elmo_lm_states.npz")
    ids, lengths = padded(golden)
    layers = encoder.layers(ids, lengths).numpy()
    w, gamma = (parameter.numpy() for parameter in encoder.mixes[0].parameters())
    weights = np.exp(w + 1 / 3) / np.exp(w + 1 / 3).sum()
    assert np.ptp(w) > 1 and gamma != 1
    expected = gamma * np.tensordot(weights, layers, axes=1)
    assert largest_difference(encoder(ids, lengths).numpy(), expected) < 1e-5


@pytest.mark.parametrize("boundaries", [False, True])
def test_a_sentence_has_the_same_vectors_alone_in_any_batch_order_and_padding(boundaries):
    encoder, _ = load_encoder(LAC / "elmo_checkpoint", boundaries=boundaries)
    encoder.eval()
    ids, lengths = padded(np.load(LAC / "elmo.npz"))
    together = encoder(ids, lengths)
    shuffled = encoder(ids[[2, 0, 1]], paddle.gather(lengths, paddle.to_tensor([2, 0, 1])))
    wider = encoder(*padded(np.load(LAC / "elmo.npz"), extra=4))
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(ids[row : row + 1, :length]).numpy()[0]
        assert largest_difference(alone, together.numpy()[row, :length]) < 1e-5
        assert largest_difference(alone, shuffled.numpy()[[1, 2, 0][row], :length]) < 1e-5
        assert largest_difference(alone, wider.numpy()[row, :length]) < 1e-5
        assert np.all(together.numpy()[row, length:] == 0)


def test_boundaries_are_the_vectors_between_start_and_end():
    inner, _ = load_encoder(LAC / "elmo_checkpoint", boundaries=True)
    plain, _ = load_encoder(LAC / "elmo_checkpoint")
    inner.eval(), plain.eval()
    words = [7, 8, 9, 10]
    expected = plain(paddle.to_tensor([[0, *words, 1]])).numpy()[:, 1:-1]
    assert largest_difference(inner(paddle.to_tensor([words])).numpy(), expected) < 1e-5
    padded_ids = paddle.to_tensor([[*words, 33, 33]])
    assert largest_difference(inner(padded_ids, paddle.to_tensor([4])).numpy()[:, :4], expected) < 1e-5


def test_frozen_unless_finetuned():
    ids = paddle.to_tensor([[3, 4, 5]])
    for finetune in (False, True):
        encoder = ElmoEncoder(60, 8, 12, finetune=finetune)
        encoder(ids).sum().backward()
        assert encoder.mixes[0].ELMo_w.grad is not None
        assert (encoder.lstm.forward_layers[0].gate_w.grad is not None) == finetune
        assert (encoder.lstm.embedding.grad is not None) == finetune


def test_what_is_trained_is_told_by_the_parameters():
    encoder = ElmoEncoder(60, 8, 12)
    assert not encoder.finetune
    encoder.lstm.forward_layers[1].gate_w.stop_gradient = False  # thawed by hand, from the top on
    encoder(paddle.to_tensor([[5, 6, 7]])).sum().backward()
    assert encoder.finetune and encoder.lstm.embedding.grad is None
    assert float(encoder.lstm.forward_layers[1].gate_w.grad.abs().sum()) > 0


def test_printed_networks_show_sizes():
    shown = str(ElmoEncoder(60, 8, 12))
    assert "words=60, embed_size=8" in shown and "(0): LSTMP(8, 12, clips=3.0, 3.0)" in shown


def test_summary_counts_all_parameters_and_hooks_see_the_lstm_layers(capsys):
    encoder = ElmoEncoder(60, 8, 12, finetune=True)
    encoder.eval()
    ids = paddle.to_tensor([[5, 6, 7]])
    right, number = encoder(ids), sum(parameter.size for parameter in encoder.parameters())
    assert paddle.summary(encoder, input=ids) == {"total_params": number, "trainable_params": number}
    assert capsys.readouterr().out.count("LSTMP-") == 4
    seen = []
    layer = encoder.lstm.backward_layers[1]
    hook = layer.register_forward_post_hook(lambda layer, inputs, outputs: seen.append((inputs[0].shape, outputs[0])))
    assert (encoder(ids) == right).all()
    assert seen[0][0] == [3, 1, 8]
    assert (encoder.layers(ids)[2, 0, :, 8:].flip(0) == seen[0][1][:, 0]).all()  # it reads from the last word on
    hook.remove()
    encoder(ids)
    assert len(seen) == 2


def test_with_autograd_the_backward_pass_may_run_again_and_be_asked_for_parts():
    paddle.seed(2)
    ours = ElmoEncoder(60, 8, 12, finetune=True)
    theirs = ElmoEncoder(60, 8, 12, finetune=True, autograd=True)
    theirs.set_state_dict(ours.state_dict())
    ours.eval(), theirs.eval()
    ids, lengths = paddle.to_tensor([[5, 6, 7], [8, 9, 0]]), paddle.to_tensor([3, 2])
    (ours(ids, lengths) ** 2).sum().backward()
    loss = (theirs(ids, lengths) ** 2).sum()
    loss.backward(retain_graph=True)
    for (name, left), (_, right) in zip(ours.named_parameters(), theirs.named_parameters()):
        assert np.abs(left.grad.numpy() - right.grad.numpy()).max() < 1e-5, name
    gate_w = theirs.lstm.forward_layers[0].gate_w
    (gradient,) = paddle.grad(loss, [gate_w])
    assert np.abs(gradient.numpy() - gate_w.grad.numpy()).max() < 1e-6


def test_dropout_in_training_spares_the_word_layer():
    encoder = ElmoEncoder(60, 8, 12)
    layers = paddle.ones([3, 2, 50, 16])
    encoder.mixes[0].ELMo_w.set_value(np.array([30, 0, 0], dtype="float32"))
    assert np.allclose(encoder.mix(layers).numpy(), 1)
    encoder.mixes[0].ELMo_w.set_value(np.array([0, 30, 0], dtype="float32"))
    values, counts = np.unique(encoder.mix(layers).numpy().round(4), return_counts=True)
    assert values.tolist() == [0, 2] and counts[0] == pytest.approx(800, abs=100)
    encoder.eval()
    assert np.allclose(encoder.mix(layers).numpy(), 1)


def test_several_mixes_from_one_pass(encoder):
    several, _ = load_encoder(LAC / "elmo_checkpoint", num_mixes=2)
    several.eval()
    ids = paddle.to_tensor([[3, 4, 5]])
    first, second = several(ids)
    assert largest_difference(first.numpy(), encoder(ids).numpy()) < 1e-6
    assert largest_difference(second.numpy(), several.layers(ids).numpy().mean(axis=0)) < 1e-5


def test_layer_norm_equals_numpy():
    encoder = ElmoEncoder(60, 8, 12, layer_norm=True)
    encoder.eval()
    ids = paddle.to_tensor([[3, 4, 5]])
    layers = encoder.layers(ids).numpy().astype("float64")
    normal = (layers - layers.mean(-1, keepdims=True)) / np.sqrt(layers.var(-1, keepdims=True) + 1e-5)
    assert largest_difference(encoder(ids).numpy(), normal.mean(axis=0)) < 1e-4


def test_wrong_word_ids_are_an_error(encoder):
    for wrong in ("一个 句子", paddle.to_tensor([1, 2]), paddle.to_tensor([[0.5, 2]]), 3, [[1.0]]):
        with pytest.raises(ValueError, match=r"word_ids must be an int64 tensor of shape \[batch, words\], got"):
            encoder(wrong)


@pytest.mark.parametrize("lengths", [None, [2, 1]])
def test_padding_with_minus_one_is_an_error_instead_of_foreign_memory(encoder, lengths):
    with pytest.raises(ValueError, match="word_ids go down to -1; pad with the id of a word, 0 say"):
        encoder(paddle.to_tensor([[5, 8], [7, -1]]), lengths)


@pytest.mark.parametrize("shape", [[2, 0], [0, 3]])
def test_no_words_are_an_error(encoder, shape):
    with pytest.raises(ValueError, match=r"word_ids are \[., .\]; at least one sentence of one word"):
        encoder(paddle.zeros(shape, "int64"))


@pytest.mark.parametrize("lengths, message", [
    ([5, 4], "go from 4 to 5, but word_ids has 4 words"), ([2, -1], "go from -1 to 2"), ([4], "lengths are 1, but"),
    ([4.0, 4.0], "must be an int64 tensor"), (4, r"must be an int64 tensor of shape \[batch\], got int"),
])  # fmt: skip
def test_wrong_lengths_are_an_error_instead_of_foreign_memory(encoder, lengths, message):
    with pytest.raises(ValueError, match=message):
        encoder(paddle.to_tensor([[5, 8, 13, 4], [7, 9, 4, 0]]), lengths)


def test_lists_and_arrays_will_do(encoder):
    ids, lengths = [[5, 8, 13, 4], [7, 9, 4, 0]], [4, 3]
    right = encoder(paddle.to_tensor(ids), paddle.to_tensor(lengths)).numpy()
    for make in (list, lambda values: np.array(values, np.int32), lambda values: paddle.to_tensor(values, "int32")):
        assert (encoder(make(ids), make(lengths)).numpy() == right).all()


@pytest.mark.parametrize("wrong", [dict(dropout=1.0), dict(dropout=-0.1), dict(l2=-1.0), dict(num_mixes=0)])
def test_impossible_arguments_of_the_encoder_are_an_error(wrong):
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        ElmoEncoder(9, 4, 4, **wrong)


def test_the_documented_steps_run_as_they_stand(monkeypatch, encoder):
    monkeypatch.setattr(bilm, "_default_encoder", None)
    word_ids = paddle.to_tensor([[5, 6, 7], [8, 9, 10]])
    with pytest.raises(PretrainedError, match="call init_pretraining_params"):
        elmo_encoder(word_ids)
    init_pretraining_params(None, str(LAC / "elmo_checkpoint"))
    elmo_embedding = elmo_encoder(word_ids)
    word_embedding = paddle.zeros([2, 3, 4])
    assert paddle.concat([elmo_embedding, word_embedding], axis=-1).shape == [2, 3, 20]
    assert largest_difference(elmo_embedding.numpy(), encoder(word_ids).numpy()) < 1e-6
    assert largest_difference(elmo_encoder(word_ids, encoder=encoder).numpy(), encoder(word_ids).numpy()) == 0
    assert init_pretraining_params(None, str(LAC / "elmo_checkpoint"), encoder) is encoder


class Network(paddle.nn.Layer):
    """A task of a user's, as README has it."""

    def __init__(self):
        super().__init__()
        self.elmo = init_pretraining_params(None, str(LAC / "elmo_checkpoint"))
        self.words = paddle.nn.Embedding(60, 4)
        self.out = paddle.nn.Linear(4 + self.elmo.embedding_dim, 3)

    def forward(self, word_ids, lengths):
        return self.out(paddle.concat([self.words(word_ids), elmo_encoder(word_ids, lengths=lengths)], axis=-1))


def test_the_default_encoder_is_trained_and_saved_with_the_network_that_it_is_part_of(monkeypatch):
    monkeypatch.setattr(bilm, "_default_encoder", None)
    network, frozen = Network(), bilm._default_encoder.lstm.embedding.numpy()
    ids, lengths = paddle.to_tensor([[5, 8, 13, 4], [7, 9, 4, 0]]), paddle.to_tensor([4, 3])
    network.train()
    assert largest_difference(network(ids, lengths).numpy(), network(ids, lengths).numpy()) > 1e-3  # dropout
    optimizer = paddle.optimizer.Adam(0.01, parameters=network.parameters())
    for _ in range(5):
        paddle.nn.functional.cross_entropy(network(ids, lengths), paddle.to_tensor([[0, 1, 2, 0]] * 2)).backward()
        optimizer.step()
        optimizer.clear_grad()
    state, mix = network.state_dict(), bilm._default_encoder.mixes[0]
    assert (mix.ELMo_w.numpy() != 0).all() and mix.ELMo_gamma.item() != 1
    assert (state["elmo.mixes.0.ELMo_w"].numpy() == mix.ELMo_w.numpy()).all()
    assert (bilm._default_encoder.lstm.embedding.numpy() == frozen).all()
    network.eval()
    right = network(ids, lengths).numpy()
    assert (network(ids, lengths).numpy() == right).all()
    again = Network()
    again.set_state_dict(state)
    assert (again(ids, lengths).numpy() == right).all()


def test_the_decay_of_an_encoder_stays_unless_another_is_given():
    encoder, _ = load_encoder(LAC / "elmo_checkpoint", l2=0.5)
    decay = lambda: encoder.mixes[0].ELMo_w.regularizer._coeff  # noqa: E731
    elmo_encoder(paddle.to_tensor([[5, 6]]), encoder=encoder)
    assert decay() == 0.5
    elmo_encoder(paddle.to_tensor([[5, 6]]), 0.25, encoder=encoder)
    assert decay() == 0.25


def test_an_encoder_from_our_own_checkpoint_brings_its_vocabulary(tmp_path):
    lm = BiLM(5, 4, 6, num_layers=1, cell_clip=2.0)
    arrays = {"hidden": np.zeros(1)}
    words = "<UNK>\n</S>\n<S>\n的\n是\n"
    path = checkpoint.save(tmp_path, {"step": 1, "model": lm.lstm.config}, lm.state_dict(), {}, arrays, words)
    encoder, vocabulary = load_encoder(path, boundaries=True)
    assert isinstance(vocabulary, Vocabulary) and vocabulary.words == words.split()
    assert (encoder.start, encoder.end) == (2, 1) and encoder.config["cell_clip"] == 2.0
    for mine, theirs in zip(encoder.lstm.parameters(), lm.lstm.parameters()):
        assert np.array_equal(mine.numpy(), theirs.numpy())


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(PretrainedError, match="no embedding_para in it"):
        load_encoder(tmp_path)


def test_a_second_backward_pass_is_an_error_instead_of_the_end_of_the_process():
    encoder = ElmoEncoder(60, 8, 12, finetune=True)
    ids = paddle.to_tensor([[5, 6, 7]])
    message = "a second backward pass through a finetuned biLM is not possible.*autograd=True"
    loss = encoder(ids).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(OSError, match=message):  # Paddle's wrapping of what a hook raises
        loss.backward()
    vectors = encoder(ids)
    vectors.sum().backward(retain_graph=True)
    with pytest.raises(OSError, match=message):
        (vectors**2).sum().backward()
    vectors = encoder(ids)
    paddle.grad(vectors.sum(), vectors, retain_graph=True)  # does not reach the biLM
    with pytest.raises(OSError, match="paddle.grad through a finetuned biLM"):
        paddle.grad(vectors.sum(), encoder.lstm.forward_layers[0].gate_w)
    (encoder(ids).sum() + encoder(ids).mean()).backward()  # several calls, one pass


@pytest.mark.parametrize("how", ["default", "to", "float16"])
def test_in_a_network_of_another_type_the_bilm_stays_float32_and_the_vectors_follow(how, encoder, tmp_path):
    ids, lengths = paddle.to_tensor([[5, 6, 7], [8, 9, 0]]), paddle.to_tensor([3, 2])
    right, dtype = encoder(ids, lengths).numpy(), "float16" if how == "float16" else "float64"
    if how == "default":
        paddle.set_default_dtype("float64")
    try:
        other = load_encoder(LAC / "elmo_checkpoint", finetune=True)[0]
        network = paddle.nn.Sequential(other, paddle.nn.Linear(16, 2))
        if how != "default":
            network.to(dtype=dtype)
        vectors = other(ids, lengths)
        if dtype == "float64":  # what Paddle has on CPUs
            network.train()
            network(ids).sum().backward()
            assert float(other.lstm.forward_layers[0].gate_w.grad.astype("float64").abs().sum()) > 0
    finally:
        paddle.set_default_dtype("float32")
    assert str(vectors.dtype).endswith(dtype), vectors.dtype
    assert largest_difference(vectors.astype("float32").numpy(), right) < (2e-2 if how == "float16" else 1e-6)
