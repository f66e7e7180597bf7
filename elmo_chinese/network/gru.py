"""One block of gated recurrent units, from the first word to the last and back.

Inside, tensors are time-major, `[words, batch, size]`, as in `bilm.py`. A unit (Cho et al. 2014) is

    u, r = sigmoid(x_u + h W_u), sigmoid(x_r + h W_r)       update and reset gate
    h = (1 - u) · h + u · tanh(x_c + (r · h) W_c)           the candidate sees the state after the reset

`paddle.nn.GRU` resets after the product with W_c and turns u round, so it cannot hold such weights.
"""

import itertools

from elmo_chinese.network import kernels
from elmo_chinese.network.program import Size, in_program, loop, refuse_training, shape

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer


def _steps_in_cpp(gates, gate_w, candidate_w):
    steps, batch, size = *gates[0].shape[:2], gates[0].shape[2] // 3
    kept = [paddle.empty([steps, batch, size]) for _ in gates]
    hiddens = [paddle.empty([steps + 1, batch, size]) for _ in gates]
    shape = [len(gates), steps, batch, size]
    kernels.call("gru_steps", shape, [], gate_w, candidate_w, gates, kept, hiddens)
    return gates, kept, hiddens


def _gradients_in_cpp(d_hiddens, gates, hiddens, gate_w, candidate_w):
    steps, batch, size = d_hiddens[0].shape
    shape = [len(gates), steps, batch, size]
    kernels.call("gru_steps_backward", shape, [], d_hiddens, gate_w, candidate_w, hiddens, gates)
    return gates


def _projected(inputs, input_w, input_b):
    """Return what all steps of a direction get from the input, `[steps, batch, 3·size]`."""
    steps, batch, _ = shape(inputs)
    return paddle.addmm(input_b.unsqueeze(0), inputs.flatten(0, 1), input_w).reshape([steps, batch, input_w.shape[1]])


def _step(gates, hidden, gate_w, candidate_w):
    """Return the state after a step of all directions, `[directions, batch, size]`; and gates, candidate, r · h."""
    size = candidate_w.shape[2]
    gate, candidate = paddle.split(gates, [2 * size, size], axis=-1)
    gate = F.sigmoid(gate + paddle.matmul(hidden, gate_w))
    update, reset = paddle.split(gate, 2, axis=-1)
    kept = reset * hidden
    candidate = paddle.tanh(candidate + paddle.matmul(kept, candidate_w))
    return hidden + update * (candidate - hidden), gate, candidate, kept


def _steps_in_paddle(gates, gate_w, candidate_w):
    """As in C++, but both directions are one batch of products."""
    gates, gate_w, candidate_w = paddle.stack(gates, axis=1), paddle.stack(gate_w), paddle.stack(candidate_w)
    hidden = paddle.zeros([*gates.shape[1:3], candidate_w.shape[2]])
    activated, all_kept, hiddens = [], [], [hidden]
    for of_step in paddle.unbind(gates):
        hidden, gate, candidate, kept = _step(of_step, hidden, gate_w, candidate_w)
        for values, value in ((activated, paddle.concat([gate, candidate], -1)), (all_kept, kept), (hiddens, hidden)):
            values.append(value)
    return tuple(paddle.unbind(paddle.stack(values), axis=1) for values in (activated, all_kept, hiddens))


def _steps_in_program(inputs, input_w, input_b, gate_w, candidate_w):
    """Return the states of each direction, `[steps, batch, size]`."""
    gates = paddle.stack([_projected(*tensors) for tensors in zip(inputs, input_w, input_b)], axis=1)
    gate_w, candidate_w = paddle.stack(gate_w), paddle.stack(candidate_w)
    hidden = paddle.zeros([*shape(gates)[1:3], candidate_w.shape[2]])
    return paddle.unbind(loop(lambda *step: _step(*step, gate_w, candidate_w)[:1], gates, hidden), axis=1)


def _gradients_in_paddle(d_hiddens, gates, hiddens, gate_w, candidate_w):
    d_hiddens, gates, hiddens = (paddle.stack(values, axis=1) for values in (d_hiddens, gates, hiddens))
    gate_w, candidate_w = paddle.stack(gate_w), paddle.stack(candidate_w)
    d_hidden, d_gates = paddle.zeros_like(hiddens[0]), []
    for step in reversed(range(len(gates))):
        before = hiddens[step]
        update, reset, candidate = paddle.split(gates[step], 3, axis=-1)
        d_hidden = d_hidden + d_hiddens[step]
        d_candidate = d_hidden * update * (1 - candidate * candidate)
        d_update = d_hidden * (candidate - before) * update * (1 - update)
        d_kept = paddle.matmul(d_candidate, candidate_w, transpose_y=True)
        d_gate = paddle.concat([d_update, d_kept * before * reset * (1 - reset)], axis=-1)
        d_hidden = d_hidden * (1 - update) + d_kept * reset + paddle.matmul(d_gate, gate_w, transpose_y=True)
        d_gates.append(paddle.concat([d_gate, d_candidate], axis=-1))
    return paddle.unbind(paddle.stack(d_gates[::-1]), axis=1)


class _Steps(PyLayer):
    """All steps in both directions at once, with a backward pass of its own, as for the LSTM (`lstmp.py`).

    The input's products are in it too: their bias gradient is a product with ones, which takes a tenth of the time
    of Paddle's sum over rows.
    """

    @staticmethod
    def forward(ctx, keep, *tensors):
        ctx.frozen = [tensor.stop_gradient for tensor in tensors]
        inputs, *weights = [list(tensors[n : n + 2]) for n in range(0, len(tensors), 2)]
        input_w, input_b, gate_w, candidate_w = weights
        gates = [_projected(*tensors) for tensors in zip(inputs, input_w, input_b)]
        steps = _steps_in_cpp if kernels.library() else _steps_in_paddle
        gates, kept, hiddens = steps(gates, gate_w, candidate_w)
        if keep:
            ctx.kept = gates, kept, hiddens
            ctx.save_for_backward(*inputs, *input_w, *gate_w, *candidate_w)
        return tuple(hidden[1:] for hidden in hiddens)

    @staticmethod
    def backward(ctx, *d_hiddens):
        (gates, kept, hiddens), ctx.kept = ctx.kept, None
        saved = ctx.saved_tensor()
        inputs, input_w, gate_w, candidate_w = (list(saved[n : n + 2]) for n in range(0, 8, 2))
        gradients = _gradients_in_cpp if kernels.library() else _gradients_in_paddle
        d_hiddens = [gradient.contiguous() for gradient in d_hiddens]
        d_gates = gradients(d_hiddens, list(gates), list(hiddens), gate_w, candidate_w)
        result = ([], [], [], [], [])
        for x, w, k, h, d in zip(inputs, input_w, kept, hiddens, d_gates):
            size, flat = k.shape[2], d.flatten(0, 1)
            d_gate, d_candidate = paddle.split(flat, [2 * size, size], axis=1)
            d_input = None if x.stop_gradient else paddle.matmul(flat, w, transpose_y=True).reshape(x.shape)
            products = (
                d_input,
                paddle.matmul(x.flatten(0, 1), flat, transpose_x=True),
                paddle.matmul(paddle.ones([1, len(flat)]), flat).flatten(),
                paddle.matmul(h[:-1].flatten(0, 1), d_gate, transpose_x=True),
                paddle.matmul(k.flatten(0, 1), d_candidate, transpose_x=True),
            )
            for values, value in zip(result, products):
                values.append(value)
        gradients = (value for values in result for value in values)
        return tuple(None if frozen else gradient for frozen, gradient in zip(ctx.frozen, gradients))


def decayed_weight(layer, shape, decay):
    """Return a new parameter of a layer, uniform in ±0.1, with L2 decay."""
    attribute = paddle.ParamAttr(
        initializer=nn.initializer.Uniform(-0.1, 0.1),
        regularizer=paddle.regularizer.L2Decay(decay) if decay else None,
    )
    return layer.create_parameter(shape, attr=attribute)


class GRU(nn.Layer):
    """The weights of one direction. Columns are update, reset, candidate.

    Args:
        input_size: size of the input. hidden_size: size of the state. decay: L2 decay of the weights.
    """

    def __init__(self, input_size: int, hidden_size: int, decay: float):
        super().__init__()
        self.input_w = decayed_weight(self, [input_size, 3 * hidden_size], decay)
        self.input_b = self.create_parameter([3 * hidden_size], is_bias=True)
        self.gate_w = decayed_weight(self, [hidden_size, 2 * hidden_size], decay)
        self.candidate_w = decayed_weight(self, [hidden_size, hidden_size], decay)


class BiGRU(nn.Layer):
    """One block: a GRU from the first word to the last, and one from the last to the first.

    Args:
        input_size, hidden_size, decay: see `GRU`.
    """

    def __init__(self, input_size: int, hidden_size: int, decay: float = 1e-4):
        super().__init__()
        self.hidden_size = hidden_size
        self.forward_gru = GRU(input_size, hidden_size, decay)
        self.backward_gru = GRU(input_size, hidden_size, decay)

    def forward(self, inputs: paddle.Tensor, reverse: paddle.Tensor) -> paddle.Tensor:
        """Return the states of both directions side by side, in sentence order.

        Args:
            inputs: float32 `[words, batch, input]`.
            reverse: what `reverse_places` returns for the lengths.

        Returns:
            float32 `[words, batch, 2·hidden]`; at padding something without a meaning.
        """
        directions = self.forward_gru, self.backward_gru
        names = "input_w", "input_b", "gate_w", "candidate_w"
        weights = [[getattr(gru, name) for gru in directions] for name in names]
        both = [inputs, reorder(inputs, reverse)]
        if in_program():
            refuse_training(self, inputs)
            ahead, back = _steps_in_program(both, *weights)
        else:
            ahead, back = _Steps.apply(paddle.is_grad_enabled(), *both, *itertools.chain(*weights))
        return paddle.concat([ahead, reorder(back, reverse)], axis=-1)


def reverse_places(words: Size, lengths: paddle.Tensor) -> paddle.Tensor:
    """Return where, in `[words, batch]` as one row, the reversed sentences' words are; padding stays.

    A sentence's reverse starts at its own last word, so it does not depend on what it is padded to.

    Args:
        words: of the longest sentence, as of `shape`.
        lengths: int64 `[batch]`.
    """
    place, (batch,) = paddle.arange(words, dtype="int64").unsqueeze(1), shape(lengths)
    swapped = paddle.where(place < lengths, lengths - 1 - place, place.expand([words, batch]))
    return (swapped * batch + paddle.arange(batch, dtype="int64")).flatten()


def reorder(tensor: paddle.Tensor, places: paddle.Tensor) -> paddle.Tensor:
    """Return `[words, batch, size]` with its words at other places of their sentences."""
    return paddle.gather(tensor.flatten(0, 1), places).reshape(shape(tensor))


def swapped(tensor: paddle.Tensor) -> paddle.Tensor:
    """Return `[a, b, size]` as `[b, a, size]`, in memory too: Paddle's transposed views are slow to read."""
    if in_program():  # which has no views
        return tensor.transpose([1, 0, 2])
    rows, columns, size = tensor.shape
    places = paddle.arange(rows) * columns + paddle.arange(columns).unsqueeze(1)
    return paddle.gather(tensor.reshape([-1, size]), places.flatten()).reshape([columns, rows, size])
