"""Networks with an encoder as programs: saved, served and trained, they compute what dynamic mode does."""

import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

from bilm import ElmoEncoder

SPEC = [InputSpec([None, None], "int64", "word_ids"), InputSpec([None], "int64", "lengths")]
ENCODERS = {
    "frozen": {},
    "finetune": dict(finetune=True),
    "three layers": dict(num_layers=3, layer_norm=True),
    "boundaries": dict(boundaries=True, start=3, end=4),
    "several mixes": dict(num_mixes=2),
    "legacy": dict(legacy=True),
}
# A process without the network's code.
SERVE = """
import sys
import numpy as np, paddle
program, data = paddle.jit.load(sys.argv[1]), np.load(sys.argv[2])
program.eval()
for n in range(3):
    found = program(paddle.to_tensor(data[f"ids{n}"]), paddle.to_tensor(data[f"lengths{n}"])).numpy()
    assert found.shape == data[f"result{n}"].shape, found.shape
    assert np.abs(found - data[f"result{n}"]).max() < 1e-5, np.abs(found - data[f"result{n}"]).max()
"""


class Network(nn.Layer):
    """What a user writes: vectors ⊕ word embedding → a layer of Paddle's."""

    def __init__(self, **options):
        super().__init__()
        paddle.seed(5)
        self.elmo = ElmoEncoder(50, embed_size=6, hidden_size=8, proj_clip=0.4, **options)
        self.words = nn.Embedding(50, 4)
        self.output = nn.Linear(16, 3)
        for parameter in self.elmo.parameters():
            parameter.set_value(paddle.randn(parameter.shape) * 0.5)
        self.eval()

    def forward(self, word_ids, lengths):
        vectors = self.elmo(word_ids, lengths)
        if isinstance(vectors, list):
            vectors = vectors[0] * vectors[1]
        return self.output(paddle.concat([vectors, self.words(word_ids)], axis=-1))


def batches(seed=0):
    """Yield word ids and lengths: one sentence, one word, and a batch."""
    random = np.random.default_rng(seed)
    for lengths in ([7], [1, 1], [5, 9, 1, 2]):
        yield random.integers(0, 50, [len(lengths), max(lengths)]), np.array(lengths)


@pytest.mark.parametrize(
    "name, how", [*((name, "save") for name in ENCODERS), ("boundaries", "to_static"), ("boundaries", "Model.save")]
)
def test_a_saved_network_gives_the_same_numbers_in_a_fresh_process(name, how, tmp_path):
    network, arrays, path = Network(**ENCODERS[name]), {}, str(tmp_path / "network")
    for number, (ids, lengths) in enumerate(batches()):
        arrays.update({f"ids{number}": ids, f"lengths{number}": lengths})
        arrays[f"result{number}"] = network(paddle.to_tensor(ids), paddle.to_tensor(lengths)).numpy()
    np.savez(tmp_path / "data.npz", **arrays)
    if how == "Model.save":
        paddle.Model(network, inputs=SPEC).save(path, training=False)
    elif how == "to_static":
        paddle.jit.save(paddle.jit.to_static(network, input_spec=SPEC, full_graph=True), path)
    else:
        paddle.jit.save(network, path, input_spec=SPEC)
    ids, lengths = next(batches())
    again = network(paddle.to_tensor(ids), paddle.to_tensor(lengths)).numpy()
    assert np.abs(again - arrays["result0"]).max() < 1e-6  # the network itself stays as it was
    command = [sys.executable, "-c", SERVE, path, str(tmp_path / "data.npz")]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("words", [None, 9])
def test_an_encoder_is_exported_by_itself_without_a_vocabulary(words, tmp_path):
    encoder = Network().elmo
    encoder.eval()
    paddle.jit.save(encoder, str(tmp_path / "encoder"), input_spec=[InputSpec([None, words], "int64"), SPEC[1]])
    program = paddle.jit.load(str(tmp_path / "encoder"))
    program.eval()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pdmodel", ".json"))
    # ONNX has no way to say this, see docs/export.md.
    assert (b"write_to_array" in written or b"array_write" in written) == (words is None)
    for ids, lengths in batches():
        ids = np.pad(ids, [(0, 0), (0, words - ids.shape[1])]) if words else ids
        ids, lengths = paddle.to_tensor(ids), paddle.to_tensor(lengths)
        assert float((program(ids, lengths) - encoder(ids, lengths)).abs().max()) < 1e-5


def test_a_network_with_a_frozen_encoder_turned_static_has_the_same_gradients():
    ours, static = Network(), Network()
    for network in (ours, static):
        network.train()
        network.elmo.dropout = 0
    converted = paddle.jit.to_static(static, full_graph=True)
    for ids, lengths in batches():
        for network in (ours, converted):
            (network(paddle.to_tensor(ids), paddle.to_tensor(lengths)) ** 2).mean().backward()
        for (key, left), (_, right) in zip(ours.named_parameters(), static.named_parameters()):
            assert (left.grad is None) == (right.grad is None), key
            if left.grad is not None:
                scale = max(1e-3, float(left.grad.abs().max()))
                assert float((left.grad - right.grad).abs().max()) < 1e-4 * scale, (key, ids.shape)
                left.clear_gradient(), right.clear_gradient()


def test_dropout_is_on_in_a_program_that_trains():
    network = Network()
    network.train()
    static = paddle.jit.to_static(network, full_graph=True)
    ids, lengths = (paddle.to_tensor(values) for values in next(batches()))
    first, second = static(ids, lengths), static(ids, lengths)
    assert float((first - second).abs().max()) > 1e-3


def test_what_would_silently_stay_untrained_is_refused():
    network = Network(finetune=True)
    network.train()
    static = paddle.jit.to_static(network, full_graph=True)
    with pytest.raises(RuntimeError, match="cannot be trained as a program"):
        static(*(paddle.to_tensor(values) for values in next(batches())))
