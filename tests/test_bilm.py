"""bilm.py against the Fluid original's arrays and against NumPy."""

from elmo_chinese.network.lstmp import LSTMP

import numpy as np
import paddle
import pytest
from conftest import LM, largest_difference, tensors

from bilm import BiLM, StepRandom


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstmp(layer, inputs, hidden, cell):
    """The formulas of the spec, step by step, in float64."""
    gate_w, recurrent_w, projection_w, bias = (p.numpy().astype("float64") for p in layer.parameters())
    outputs = []
    for x in inputs:
        candidate, in_gate, forget_gate, out_gate = np.split(x @ gate_w + hidden @ recurrent_w + bias, 4, axis=1)
        cell = np.tanh(candidate) * sigmoid(in_gate) + cell * sigmoid(forget_gate)
        cell = np.clip(cell, -layer.cell_clip, layer.cell_clip)
        hidden = np.clip((sigmoid(out_gate) * np.tanh(cell)) @ projection_w, -layer.proj_clip, layer.proj_clip)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


@pytest.fixture
def clipped_layer():
    """A layer whose two clips bite often but not always, with its inputs and states."""
    paddle.seed(3)
    layer = LSTMP(4, 6, cell_clip=0.3, proj_clip=0.2)
    rng = np.random.default_rng(0)
    for parameter in layer.parameters():
        parameter.set_value(rng.normal(0, 0.6, parameter.shape).astype("float32"))
    return layer, *(rng.normal(size=shape).astype("float32") for shape in [(5, 3, 4), (3, 4), (3, 6)])


def test_lstmp_with_clips_biting_equals_numpy(clipped_layer):
    layer, *arrays = clipped_layer
    results = layer(*map(paddle.to_tensor, arrays))
    expected = numpy_lstmp(layer, *arrays)
    for result, right in zip(results, expected):
        assert largest_difference(result.numpy(), right) < 1e-6
    for values, bound in [(expected[0], layer.proj_clip), (expected[2], layer.cell_clip)]:
        assert 0.1 < (np.abs(values) == bound).mean() < 0.9


def test_lstmp_gradients_equal_numeric_ones(clipped_layer):
    layer, inputs, hidden, cell = clipped_layer
    weights = np.random.default_rng(1).normal(size=inputs.shape)
    inputs = paddle.to_tensor(inputs, stop_gradient=False)
    outputs, _, _ = layer(inputs, paddle.to_tensor(hidden), paddle.to_tensor(cell))
    (outputs * paddle.to_tensor(weights.astype("float32"))).sum().backward()

    def loss():
        return (numpy_lstmp(layer, inputs.numpy().astype("float64"), hidden, cell)[0] * weights).sum()

    rng = np.random.default_rng(2)
    for tensor in [*layer.parameters(), inputs]:
        value, gradient = tensor.numpy(), tensor.grad.numpy().flatten()
        for place in rng.integers(0, value.size, 8):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved.flat[place] += sign * 2e-3
                tensor.set_value(moved)
                sides.append(loss())
            tensor.set_value(value)
            assert gradient[place] == pytest.approx((sides[0] - sides[1]) / 4e-3, abs=2e-3)


def test_passes_whose_backward_comes_later_do_not_disturb_each_other(golden_lm):
    golden_lm.eval()
    words = [[paddle.randint(0, 60, [3, steps]) for _ in range(4)] for steps in (5, 5, 5, 2, 5)]

    def gradients(loss):
        golden_lm.clear_gradients()
        loss.backward()
        return [parameter.grad.numpy() for parameter in golden_lm.parameters()]

    alone = [gradients(golden_lm(*inputs)[0].sum()) for inputs in words]  # memory is used again each time
    first, second = golden_lm(*words[0])[0].sum(), golden_lm(*words[1])[0].sum()
    found = {1: gradients(second)}
    third, shorter = golden_lm(*words[2])[0].sum(), golden_lm(*words[3])[0].sum()
    found[0] = gradients(first)
    with paddle.no_grad():
        golden_lm(*words[0])
    last = golden_lm(*words[4])[0].sum()
    found.update({2: gradients(third), 4: gradients(last), 3: gradients(shorter)})
    for number, arrays in found.items():
        for mine, right in zip(arrays, alone[number]):
            assert np.array_equal(mine, right)


def test_forward_equals_golden(golden_lm):
    golden = np.load(LM / "forward.npz")
    golden_lm.eval()
    words = tensors(golden, "x", "y", "x_r", "y_r")
    forward, backward, (hidden, cell) = golden_lm(*words, tensors(golden, "init_hiddens", "init_cells"))
    assert largest_difference(forward.numpy(), golden["fw_loss"]) < 1e-5
    assert largest_difference(backward.numpy(), golden["bw_loss"]) < 1e-5
    assert largest_difference(hidden.numpy().reshape(16, 8), golden["last_hidden"]) < 1e-5
    assert largest_difference(cell.numpy().reshape(16, 16), golden["last_cell"]) < 1e-5
    assert float((forward.mean() + backward.mean()) / 2) == pytest.approx(golden["loss"].item(), abs=1e-5)
    assert hidden.stop_gradient and cell.stop_gradient


def test_every_layer_equals_golden(golden_lm):
    golden = np.load(LM / "forward.npz")
    states = tensors(golden, "init_hiddens", "init_cells")
    embedded, outputs, top, _ = golden_lm.lstm(tensors(golden, "x", "x_r"), states)
    for n, prefix in enumerate(("fw", "bw")):
        results = dict(x_emb=embedded[n], ori1=outputs[0][n], ori2=outputs[1][n], out2=top[n])
        for name, result in results.items():
            assert largest_difference(result.transpose([1, 0, 2]).numpy(), golden[f"{prefix}_{name}"]) < 1e-5


@pytest.mark.parametrize("num_layers", [1, 3])
def test_any_number_of_layers(num_layers):
    lm = BiLM(20, embed_size=4, hidden_size=6, num_layers=num_layers)
    words = paddle.randint(0, 20, [2, 5])
    forward, _, (hidden, cell) = lm(words, words, words, words)
    assert forward.shape == [2, 5] and hidden.shape == [2 * num_layers, 2, 4] and cell.shape == [2 * num_layers, 2, 6]
    forward.mean().backward()
    assert all(layer.gate_w.grad is not None for layer in lm.lstm.forward_layers)


def test_two_halves_with_carried_state_equal_the_whole(golden_lm):
    golden_lm.eval()
    words = [paddle.randint(0, 60, [3, 8]) for _ in range(4)]
    whole = golden_lm(*words)
    first = golden_lm(*[w[:, :4] for w in words])
    second = golden_lm(*[w[:, 4:] for w in words], first[2])
    for direction in (0, 1):
        joined = paddle.concat([first[direction], second[direction]], axis=1)
        assert largest_difference(joined.numpy(), whole[direction].numpy()) < 1e-5
    assert largest_difference(second[2][1].numpy(), whole[2][1].numpy()) < 1e-5


def test_same_call_same_answer_and_no_state_is_kept(golden_lm):
    golden_lm.eval()
    words = [paddle.randint(0, 60, [3, 8]) for _ in range(4)]
    before = golden_lm(*words)[0].numpy()
    golden_lm(*[w[:, ::-1] for w in words])
    assert np.array_equal(before, golden_lm(*words)[0].numpy())


def test_dropout_only_in_training_and_a_pure_function_of_its_random():
    lm = BiLM(20, embed_size=4, hidden_size=6, dropout=0.5)
    words = [paddle.randint(0, 20, [2, 5]) for _ in range(4)]
    first, same, other = (lm(*words, random=StepRandom(1, step))[0].numpy() for step in (1, 1, 2))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    lm.eval()
    assert np.array_equal(lm(*words, random=StepRandom(1, 1))[0].numpy(), lm(*words)[0].numpy())


def test_sampled_model_evaluates_exactly(golden_lm):
    golden_lm.n_negative_samples = 10
    words = [paddle.randint(0, 60, [2, 5]) for _ in range(4)]
    trained = golden_lm(*words, random=StepRandom(1, 1))[0].numpy()
    golden_lm.eval()
    exact = golden_lm(*words)[0].numpy()
    golden_lm.n_negative_samples = 0
    assert np.array_equal(exact, golden_lm(*words)[0].numpy()) and not np.allclose(exact, trained)


@pytest.mark.parametrize(
    "wrong", [dict(hidden_size=0), dict(cell_clip=-1), dict(dropout=1.0), dict(n_negative_samples=21)]
)
def test_impossible_sizes_are_errors(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BiLM(20, **{**dict(embed_size=4, hidden_size=6), **wrong})


@pytest.mark.parametrize("negatives", [0, 5])
@pytest.mark.parametrize("frozen", ["softmax_weight", "softmax_bias", "lstm.forward_layers.0.bias", "lstm.", "softmax"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(negatives, frozen):
    paddle.seed(1)
    model = BiLM(20, 4, 6, dropout=0.0, n_negative_samples=negatives)
    x = paddle.to_tensor([[1, 2, 3], [4, 5, 6]])

    def gradients():
        model.clear_gradients()
        forward, backward, _ = model(x, x, x, x, random=StepRandom(0, 1))
        (forward + backward).sum().backward()
        return {name: p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient}

    expected = gradients()
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = name.startswith(frozen)
    found = gradients()
    assert found.keys() == {name for name in expected if not name.startswith(frozen)}
    assert all(np.array_equal(found[name], expected[name]) for name in found)
