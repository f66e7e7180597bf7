"""The encoder of bilm.py against the original's, and what every user of vectors relies on."""

from elmo_chinese import checkpoint
from elmo_chinese.pretrained import PretrainedError
from elmo_chinese.vocabulary import Vocabulary

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
    encoder, _ = load_encoder(LAC / "elmo_checkpoint")
    encoder.eval()
    return encoder


def test_legacy_equals_the_originals_encoder():
    golden = np.load(LAC / "elmo.npz")
    encoder, _ = load_encoder(LAC / "elmo_checkpoint", legacy=True)
    encoder.eval()
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
    for wrong in ("一个 句子", paddle.to_tensor([1, 2])):
        with pytest.raises(ValueError, match=r"int64 tensor of shape \[batch, words\]"):
            encoder(wrong)


def test_the_documented_steps_run_as_they_stand(monkeypatch, encoder):
    monkeypatch.setattr(bilm, "_default_encoder", None)
    word_ids = paddle.to_tensor([[5, 6, 7], [8, 9, 10]])
    with pytest.raises(PretrainedError, match="call init_pretraining_params"):
        elmo_encoder(word_ids)
    init_pretraining_params(None, str(LAC / "elmo_checkpoint"))
    bilm._default_encoder.eval()
    elmo_embedding = elmo_encoder(word_ids)
    word_embedding = paddle.zeros([2, 3, 4])
    assert paddle.concat([elmo_embedding, word_embedding], axis=-1).shape == [2, 3, 20]
    assert largest_difference(elmo_embedding.numpy(), encoder(word_ids).numpy()) < 1e-6
    assert largest_difference(elmo_encoder(word_ids, encoder=encoder).numpy(), encoder(word_ids).numpy()) == 0


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
