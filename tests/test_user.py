"""A user's own network and program: the original's three lines, saving and loading, what is printed."""

import logging
import warnings

from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.pretrained import PretrainedError

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import GOLDEN, LM

import bilm
from bilm import ElmoEncoder, batch_to_ids, elmo_encoder, init_pretraining_params, load_encoder

MODEL = GOLDEN / "lac_small" / "elmo_checkpoint"
IDS, LENGTHS = [[5, 8, 13, 4], [7, 9, 4, 0]], [4, 3]


class Network(paddle.nn.Layer):
    """As users of the original write it: it knows nothing of the encoder."""

    def __init__(self):
        super().__init__()
        self.words = paddle.nn.Embedding(60, 4)
        self.out = paddle.nn.Linear(20, 3)

    def forward(self, word_ids, lengths):
        elmo_embedding = elmo_encoder(word_ids, lengths=lengths)
        return self.out(paddle.concat([elmo_embedding, self.words(word_ids)], axis=-1))


def trained(network):
    optimizer = paddle.optimizer.Adam(0.01, parameters=network.parameters())
    ids, lengths = paddle.to_tensor(IDS), paddle.to_tensor(LENGTHS)
    for _ in range(3):
        F.cross_entropy(network(ids, lengths), paddle.to_tensor([[0, 1, 2, 0]] * 2)).backward()
        optimizer.step()
        optimizer.clear_grad()
    return network


@pytest.fixture
def network():
    return init_pretraining_params(None, MODEL, Network())


def test_the_originals_three_lines_train_and_save_the_mix(network):
    assert isinstance(network.elmo, ElmoEncoder) and network.elmo.training
    frozen, mix = network.elmo.lstm.embedding.numpy(), network.elmo.mixes[0]
    before = mix.ELMo_w.numpy()
    trained(network)
    assert (mix.ELMo_w.numpy() != before).all() and (network.elmo.lstm.embedding.numpy() == frozen).all()
    assert (network.state_dict()["elmo.mixes.0.ELMo_w"].numpy() == mix.ELMo_w.numpy()).all()
    ids, lengths = paddle.to_tensor(IDS), paddle.to_tensor(LENGTHS)
    assert (network(ids, lengths) != network(ids, lengths)).any()  # dropout
    network.eval()
    assert (network(ids, lengths) == network(ids, lengths)).all()


def test_each_network_uses_its_own_encoder_whatever_was_loaded_last(network):
    other = init_pretraining_params(None, MODEL, Network())
    other.elmo.mixes[0].ELMo_gamma.set_value(np.zeros(1, "float32"))
    network.eval(), other.eval()
    other.words.set_state_dict(network.words.state_dict()), other.out.set_state_dict(network.out.state_dict())
    ids, lengths = paddle.to_tensor(IDS), paddle.to_tensor(LENGTHS)
    word_part = network.out(paddle.concat([paddle.zeros([2, 4, 16]), network.words(ids)], axis=-1))
    assert np.allclose(other(ids, lengths).numpy(), word_part.numpy(), atol=1e-6)
    assert np.abs(network(ids, lengths).numpy() - word_part.numpy()).max() > 1e-3
    inside = paddle.nn.Sequential(network)  # the encoder of an inner network is its own, too
    assert (inside[0](ids, lengths) == network(ids, lengths)).all()


def test_a_network_with_a_bilm_is_filled_and_another_elmo_is_refused(network):
    encoder = network.elmo
    encoder.lstm.embedding.set_value(np.zeros([60, 8], "float32"))
    assert init_pretraining_params(None, MODEL, network).elmo is encoder
    assert encoder.lstm.embedding.numpy().any()
    other = Network()
    other.elmo = paddle.nn.Linear(2, 2)
    with pytest.raises(PretrainedError, match="Network.elmo is no biLM, but the encoder takes this name"):
        init_pretraining_params(None, MODEL, other)


def test_an_encoder_that_is_trained_with_no_network_says_so(monkeypatch):
    monkeypatch.setattr(bilm, "_default_encoder", None)
    init_pretraining_params(None, MODEL)
    network, ids = Network(), paddle.to_tensor(IDS)
    with pytest.warns(RuntimeWarning, match=r"Network is in training, but the encoder is no part of it.*self.elmo ="):
        network(ids, LENGTHS)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(ids, LENGTHS)
        init_pretraining_params(None, MODEL, Network())(ids, LENGTHS)


def test_several_encoders_must_be_told_apart():
    class Two(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = load_encoder(MODEL)[0], load_encoder(MODEL)[0]

        def forward(self, word_ids):
            return elmo_encoder(word_ids)

    with pytest.raises(PretrainedError, match="Two has 2 encoders; say which: elmo_encoder"):
        Two()(paddle.to_tensor(IDS))


def test_lengths_in_the_place_of_the_coefficient_are_lengths():
    encoder, _ = load_encoder(MODEL)
    right = elmo_encoder(IDS, lengths=LENGTHS, encoder=encoder).numpy()
    for lengths in (LENGTHS, np.array(LENGTHS), paddle.to_tensor(LENGTHS)):
        assert (elmo_encoder(IDS, lengths, encoder=encoder).numpy() == right).all()
    assert (elmo_encoder(IDS, encoder=encoder).numpy()[1] != right[1]).any()


@pytest.fixture
def encoder():
    return ElmoEncoder.from_pretrained(MODEL, LM / "vocab.txt", boundaries=True, num_mixes=2, layer_norm=True)


def test_an_encoder_is_saved_and_loaded_with_all_that_belongs_to_it(encoder, tmp_path):
    for number, mix in enumerate(encoder.mixes):
        mix.ELMo_gamma.set_value(np.array([number + 0.5], "float32"))
    words = [["的", "，"], ["没见过"]]
    right = encoder(*batch_to_ids(words, encoder.vocabulary))
    encoder.save_pretrained(tmp_path / "mine")
    encoder.save_pretrained(tmp_path / "mine")  # its own work is replaced
    again = ElmoEncoder.from_pretrained(tmp_path / "mine")
    assert again.vocabulary.words == encoder.vocabulary.words and not again.training
    for one, other in zip(right, again(*batch_to_ids(words, again.vocabulary))):
        assert (one == other).all()
    assert load_encoder(tmp_path / "mine", boundaries=False)[0].boundaries is False  # what is given wins


def test_saving_takes_the_place_of_nothing_else(encoder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    encoder.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "more.txt").write_text("mine", encoding="utf-8")
    for wrong in (tmp_path, tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "saved"):
        with pytest.raises(PretrainedError, match="is there, and is no saved encoder"):
            encoder.save_pretrained(wrong)
    with pytest.raises(PretrainedError, match="this encoder came without a vocabulary"):
        load_encoder(MODEL)[0].save_pretrained(tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes.txt", "saved"]


def test_a_vocabulary_that_is_not_the_models_is_an_error(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("<S>\n</S>\n<UNK>\n", encoding="utf-8")
    with pytest.raises(PretrainedError, match="has 3 words, but .* was trained with 60"):
        load_encoder(MODEL, short)


def test_the_encoder_in_the_folder_of_a_task(encoder, tmp_path):
    encoder.mixes[0].ELMo_gamma.set_value(np.array([0.25], "float32"))
    names = ("boundaries", "start", "end", "legacy", "layer_norm")
    elmo = {**encoder.config, **{name: getattr(encoder, name) for name in names}}
    arrays = {f"encoder.{name}": value.numpy() for name, value in encoder.state_dict().items() if "mixes.1" not in name}
    state = {"elmo_vocabulary": np.array(encoder.vocabulary.text)}
    arrays["words"] = np.zeros([3, 2], "float32")
    info = {"step": 1, "elmo": elmo, "model": {}, "tags": []}
    folder = checkpoint.save(tmp_path / "task", info, arrays, {}, state, "一\n二\n")
    loaded, vocabulary = load_encoder(folder)
    batch = batch_to_ids([["的", "，"]], vocabulary)
    assert vocabulary.words == encoder.vocabulary.words and loaded.boundaries
    assert (loaded(*batch) == encoder(*batch)[0]).all()


def test_loading_prints_nothing_and_logs_what_it_did(capfd, caplog):
    load_encoder(MODEL)
    assert capfd.readouterr() == ("", "")
    with caplog.at_level(logging.INFO, "elmo_chinese"):
        load_encoder(MODEL)
    assert "loaded 19 parameters from" in caplog.text
