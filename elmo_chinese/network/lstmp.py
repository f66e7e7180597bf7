"""One LSTM layer with projection and clips: the inner loop of everything here."""

import inspect
import sys
from contextlib import suppress
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.network import kernels
from elmo_chinese.network.precision import matmul
from elmo_chinese.network.program import in_program, loop, refuse_training, shape

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

Tensors = List[paddle.Tensor]

STEPS_AT_ONCE = 8  # in the product of inputs and weights, where no backward pass follows: long sentences hold less


class Weights(NamedTuple):
    """The parameters of a layer, one tensor a direction in each list; shapes as in `LSTMP`."""

    gate_w: Tensors
    recurrent_w: Tensors
    projection_w: Tensors
    bias: Tensors


class Kept(NamedTuple):
    """What the steps of a layer leave behind, in lists; hiddens and cells begin with the state before the first step.

    In C++ one tensor a direction: gates activated, `[steps, batch, 4·hidden]`, hiddens, cells `[steps + 1, batch, …]`.
    In Paddle one tensor a step: `[directions, batch, …]`, gates as tanh left them (see `_activated`).

    Where no backward pass will follow, cells holds the first and the last one, gates nothing of use.

    transposed_w is there in Paddle alone: the recurrent weights, `[directions, 4·hidden, embed]`.
    """

    gates: Tensors
    hiddens: Tensors
    cells: Tensors
    transposed_w: Optional[paddle.Tensor] = None


# Gates that a backward pass is done with; the next step writes over them. They are by far the largest tensors here
# (160 MB each at hidden size 4096), and what the heap holds besides would soon lie across the place of freed ones.
_used_gates: Tensors = []


def _new_gates(shape):
    with suppress(IndexError):  # none is left
        while True:
            gates = _used_gates.pop()  # in one go: other threads may look for gates at the same time
            if gates.shape == shape:
                return gates
    return paddle.empty(shape, "float32")


def _steps_in_cpp(inputs, weights, hidden, cell, clips, keep, precision="float32"):
    directions, steps, batch, embed = inputs.shape
    size, held = cell.shape[-1], steps if keep else 1
    inputs, hidden, cell = (paddle.unbind(tensor, axis=0) for tensor in (inputs, hidden, cell))
    gates = [_new_gates([held, batch, 4 * size]) for _ in inputs]
    shapes = [steps + 1, batch, embed], [held + 1, batch, size]
    kept = Kept(gates, *([paddle.empty(shape, "float32") for _ in inputs] for shape in shapes))
    sizes = [directions, steps, batch, embed, size, int(keep), int(precision == "bfloat16")]
    kernels.call("lstm_steps", sizes, clips, inputs, *weights, hidden, cell, *kept[:3])
    last = (paddle.stack([tensor[-1] for tensor in tensors]) for tensors in kept[1:3])
    return paddle.stack([hiddens[1:] for hiddens in kept.hiddens]), *last, kept


def _gradients_in_cpp(inputs, d_outputs, kept, weights, clips, wanted, precision="float32"):
    directions, steps, batch, embed = d_outputs.shape
    size = kept.cells[0].shape[-1]
    d_outputs = paddle.unbind(d_outputs.contiguous(), axis=0)
    d_projected = [paddle.empty([steps, batch, embed], "float32") for _ in d_outputs]
    d_inputs = paddle.empty([directions, steps, batch, embed], "float32") if wanted else None
    d_bias = [paddle.empty([1, 4 * size], "float32") for _ in d_outputs]
    read = [d_outputs, *weights[:3], kept.hiddens, kept.cells]
    into = [kept.gates, d_projected, paddle.unbind(d_inputs, axis=0) if wanted else [None] * directions, d_bias]
    sizes = [directions, steps, batch, embed, size, int(precision == "bfloat16")]
    kernels.call("lstm_steps_backward", sizes, clips, *read, *into)
    # Gradients of the gates were written over the gates, what was projected, output gate * tanh(cell), over the cells.
    hiddens, outputs = [hidden[:-1] for hidden in kept.hiddens], [cell[1:] for cell in kept.cells]
    pairs = [*zip(paddle.unbind(inputs, axis=0), kept.gates), *zip(hiddens, kept.gates), *zip(outputs, d_projected)]
    d_weights = [matmul(x.flatten(0, 1), d_x.flatten(0, 1), precision, transpose_x=True) for x, d_x in pairs]
    _used_gates.extend(kept.gates)
    return d_inputs, *d_weights, *d_bias


# In Paddle, tensors are stacked and joined, not transposed: on CPU strided ones are read some 20 times more slowly.


def _by_step(directions):
    """Return one tensor a step, `[directions, batch, …]`, of one a direction, `[steps, batch, …]`."""
    return paddle.unbind(paddle.stack(directions, axis=1), axis=0)


def _projected(inputs, operands):
    """Return the gates of all steps before the recurrence, `[steps, directions, batch, 4·hidden]`."""
    _, steps, batch, _ = shape(inputs)
    directions = zip(operands.bias, paddle.unbind(inputs.flatten(1, 2), axis=0), operands.gate_w)
    if in_program():  # paddle2onnx has no addmm
        gates = [paddle.matmul(rows, weight) + bias for bias, rows, weight in directions]
    else:
        gates = [paddle.addmm(bias, rows, weight) for bias, rows, weight in directions]
    return paddle.stack([of_one.reshape([steps, batch, of_one.shape[-1]]) for of_one in gates], axis=1)


class _Operands(NamedTuple):
    """What a step multiplies with, from the weights of a layer; tanh takes half of three gates, see `_activated`.

    gate_w, bias: of each direction. transposed_w, recurrent_w: `[directions, 4·hidden, embed]`, the latter halved.
    projection_w: `[directions, hidden, embed]`. shares, one: see `_activated`, `[4·hidden]` and `[1]`.
    lerp: what makes the gates of them.
    """

    gate_w: Tensors
    bias: Tensors
    transposed_w: paddle.Tensor
    recurrent_w: paddle.Tensor
    projection_w: paddle.Tensor
    shares: paddle.Tensor
    one: paddle.Tensor
    lerp: Callable = paddle.lerp


def _operands(weights):
    one = paddle.ones([1], "float32")
    size = weights.projection_w[0].shape[0]
    halves = F.pad(one.expand([size]), [0, 3 * size], value=0.5)
    gate_w, bias = ([weight * halves for weight in group] for group in (weights.gate_w, weights.bias))
    # Transposed, since MKL takes twice as long for few rows times a matrix whose rows are a power of 2 of bytes apart.
    transposed_w = paddle.stack([_transposed(weight) for weight in weights.recurrent_w])
    recurrent_w = transposed_w * halves.unsqueeze(1)
    return _Operands(gate_w, bias, transposed_w, recurrent_w, paddle.stack(weights.projection_w), halves, one)


def _transposed(weight):
    return weight.t() if in_program() else weight.t().contiguous()


def _activated(gates, operands):
    """Return candidate, input, forget and output gate from what tanh made of them: sigmoid(x) = (1 + tanh(x / 2)) / 2.

    So one tanh does for all four; on CPU Paddle's sigmoid takes eight times as long. The candidate stays as it is.
    """
    return paddle.split(operands.lerp(operands.one, gates, operands.shares), 4, axis=-1)


def _step(gates, hidden, cell, operands, clips):
    """Return gates as tanh left them, hidden and cell after a step, from its gates before the recurrence."""
    cell_clip, proj_clip = clips
    gates = paddle.tanh(paddle.matmul(hidden, operands.recurrent_w, transpose_y=True) + gates)
    candidate, in_gate, forget_gate, out_gate = _activated(gates, operands)
    cell = paddle.clip(candidate * in_gate + cell * forget_gate, -cell_clip, cell_clip)
    hidden = paddle.matmul(out_gate * paddle.tanh(cell), operands.projection_w)
    return gates, paddle.clip(hidden, -proj_clip, proj_clip), cell


def _steps_in_paddle(inputs, weights, hidden, cell, clips, keep, precision="float32"):
    operands = _operands(weights)
    kept = Kept([], [hidden], [cell], operands.transposed_w)
    steps, at_once = inputs.shape[1], inputs.shape[1] if keep else STEPS_AT_ONCE
    for start in range(0, steps, at_once):
        for gates in paddle.unbind(_projected(inputs[:, start : start + at_once], operands)):
            gates, hidden, cell = _step(gates, hidden, cell, operands, clips)
            kept.hiddens.append(hidden)
            if keep:
                kept.gates.append(gates)
                kept.cells.append(cell)
    return paddle.stack(kept.hiddens[1:], axis=1), hidden, cell, kept


def _steps_in_program(inputs, weights, hidden, cell, clips):
    """Return the outputs alone, `[directions, steps, batch, embed]`."""
    operands = _operands(weights)
    if inputs.shape[1] > 0:  # for ONNX (see `loop`): paddle2onnx has no lerp
        operands = operands._replace(lerp=lambda one, gates, shares: one + shares * (gates - one))
    outputs = loop(
        lambda gates, *states: _step(gates, *states, operands, clips)[1:], _projected(inputs, operands), hidden, cell
    )
    return outputs.transpose([1, 0, 2, 3])


def _inside(values, bound):
    """Return 0 where values were clipped, and equal the bound, 1 elsewhere: a clipped value has no gradient."""
    return paddle.sign(bound - values.abs())


def _slopes(kept, clips):
    """Return what the backward pass of a layer multiplies with, of all steps at once, as nothing of it recurs.

    Returns:
        tensors `[steps, directions, batch, …]`: the slope of the hidden state by its clip; of the cell by the output
        gate · tanh(cell), which is projected; of the gates before activation, three by the cell and one by what is
        projected; of the cell before by this one; and what is projected, which is not worth keeping from forward.
    """
    cell_clip, proj_clip = clips
    gates, cells = paddle.stack(kept.gates), paddle.stack(kept.cells)
    before, cells, inside = cells[:-1], cells[1:], _inside(cells, cell_clip)
    candidate, in_gate, forget_gate, out_gate = paddle.split(gates, 4, axis=-1)
    forget_gate, out_gate = (paddle.scale(gate, 0.5, 0.5) for gate in (forget_gate, out_gate))  # see `_activated`
    squashed = paddle.tanh(cells)
    projected = out_gate * squashed
    by_projected = (out_gate - projected * squashed) * inside[1:]
    # (1 - tanh²) / 4 is the slope of the three sigmoids, and a quarter of that of the candidate.
    slope = (gates * gates).scale_(-0.25, 0.25)
    by_gates = paddle.concat([paddle.scale(in_gate, 2.0, 2.0), candidate, before, squashed], axis=-1).multiply_(slope)
    by_output = _inside(paddle.stack(kept.hiddens[1:]), proj_clip)
    return by_output, by_projected, by_gates, forget_gate * inside[:-1], projected


def _gradients_in_paddle(inputs, d_outputs, kept, weights, clips, wanted, precision="float32"):
    gate_w, projection_w = paddle.stack(weights.gate_w), paddle.stack(weights.projection_w)
    *slopes, projected = (paddle.unbind(slope, axis=0) for slope in _slopes(kept, clips))
    d_hidden, d_cell, d_gates, d_projections = 0.0, 0.0, [], []
    of_steps = zip(_by_step(paddle.unbind(d_outputs, axis=0)), *slopes)
    for d_output, by_output, by_projected, by_gates, by_cell in reversed(list(of_steps)):
        d_projection = (d_output + d_hidden) * by_output
        d_projected = paddle.matmul(d_projection, projection_w, transpose_y=True)
        d_cell = d_cell + d_projected * by_projected
        d_gate = paddle.concat([d_cell, d_cell, d_cell, d_projected], axis=-1) * by_gates
        d_cell, d_hidden = d_cell * by_cell, paddle.matmul(d_gate, kept.transposed_w)
        d_gates.append(d_gate)
        d_projections.append(d_projection)
    # All steps of a direction as rows of one matrix.
    joined = kept.hiddens[:-1], projected, d_gates[::-1], d_projections[::-1]
    hiddens, projected, d_gates, d_projections = (paddle.concat(steps, axis=1) for steps in joined)
    d_inputs = paddle.matmul(d_gates, gate_w, transpose_y=True).reshape(inputs.shape) if wanted else None
    pairs = (inputs.flatten(1, 2), d_gates), (hiddens, d_gates), (projected, d_projections)
    d_weights = [paddle.matmul(*pair, transpose_x=True) for pair in pairs]
    # Column sums: as a product they take a tenth of the time.
    ones = paddle.ones([d_gates.shape[0], 1, d_gates.shape[1]], "float32")
    d_weights.append(paddle.matmul(ones, d_gates))
    return d_inputs, *(direction for d_weight in d_weights for direction in paddle.unbind(d_weight, axis=0))


class _Steps(PyLayer):
    """All steps of one layer in every direction, with a backward pass of its own.

    Autograd would record a dozen nodes a step and sum the weight gradients step by step; here they
    are one product over all steps.
    """

    @staticmethod
    def forward(ctx, clips, keep, precision, inputs, hidden, cell, *weights):
        steps = _steps_in_cpp if kernels.library() else _steps_in_paddle
        *results, kept = steps(inputs, _by_name(weights, inputs), hidden, cell, clips, keep, precision)
        if keep:
            ctx.kept, ctx.clips, ctx.precision = kept, clips, precision
            ctx.save_for_backward(inputs, *weights)
            ctx.frozen = [weight.stop_gradient for weight in weights]
        return tuple(results)

    @staticmethod
    def backward(ctx, d_outputs, *_):
        kept, ctx.kept = ctx.kept, None
        inputs, *weights = ctx.saved_tensor()
        gradients, wanted = _gradients_in_cpp if kernels.library() else _gradients_in_paddle, not inputs.stop_gradient
        d = gradients(inputs, d_outputs, kept, _by_name(weights, inputs), ctx.clips, wanted, ctx.precision)
        # Paddle refuses a gradient of what has none.
        return d[0], None, None, *(None if frozen else d_weight for frozen, d_weight in zip(ctx.frozen, d[1:]))


def _once() -> Callable[[paddle.Tensor], None]:
    """Return a hook for the gradient of what `_Steps` gives: it raises `RuntimeError` where Paddle would crash.

    Paddle frees the context of a `PyLayer` after its first backward pass, and copies it wrongly in `paddle.grad`; what
    follows is a segmentation fault before `backward` is called. Hooks are called before that.
    """
    passes = []

    def check(gradient):
        frame = sys._getframe(1)
        while frame and frame.f_code is not inspect.unwrap(paddle.grad).__code__:
            frame = frame.f_back
        if frame or passes:
            found = "paddle.grad" if frame else "a second backward pass"
            raise RuntimeError(
                f"{found} through a finetuned biLM is not possible: its own backward pass runs once, in backward(). "
                "Add losses up before backward(), or make the encoder with autograd=True (slower)"
            )
        passes.append(gradient.shape)

    return check


def float32(tensor: paddle.Tensor) -> paddle.Tensor:
    """Return a tensor in the type that the kernels compute in; a parameter has another after `Layer.to(dtype=…)`."""
    return tensor if tensor.dtype == paddle.float32 else tensor.astype("float32")


def _by_name(weights, inputs):
    count = inputs.shape[0]
    return Weights(*(list(weights[n : n + count]) for n in range(0, len(weights), count)))


class LSTMP(nn.Layer):
    """The parameters of one LSTM layer of one direction with a projected hidden state and two clips.

    For each step, with the gate columns in the order candidate, input, forget, output:

        c = clip(tanh(candidate) * sigmoid(input) + c_before * sigmoid(forget), ±cell_clip)
        h = clip((sigmoid(output) * tanh(c)) @ projection_w, ±proj_clip)

    where the gates are `x @ gate_w + h_before @ recurrent_w + bias`. No peepholes. The clipped values
    are what recurs; a clipped value passes no gradient.

    Args:
        embed_size: size of the input and of the projected hidden state.
        hidden_size: size of the cell.
        cell_clip, proj_clip: bounds of the cell and of the hidden state, both > 0.
        precision: of the products where a backward pass follows, see `precision.py`; otherwise it is float32.
    """

    def __init__(
        self,
        embed_size: int,
        hidden_size: int,
        cell_clip: float = 3.0,
        proj_clip: float = 3.0,
        precision: str = "float32",
    ):
        super().__init__()
        self.embed_size, self.hidden_size, self.precision = embed_size, hidden_size, precision
        self.cell_clip, self.proj_clip = cell_clip, proj_clip
        xavier = nn.initializer.XavierUniform()
        self.gate_w = self.create_parameter([embed_size, 4 * hidden_size], dtype="float32", default_initializer=xavier)
        self.recurrent_w = self.create_parameter(
            [embed_size, 4 * hidden_size], dtype="float32", default_initializer=xavier
        )
        self.projection_w = self.create_parameter(
            [hidden_size, embed_size], dtype="float32", default_initializer=xavier
        )
        self.bias = self.create_parameter([1, 4 * hidden_size], dtype="float32", is_bias=True)

    def extra_repr(self) -> str:
        """Return the sizes, for `print(network)`."""
        return f"{self.embed_size}, {self.hidden_size}, clips={self.cell_clip}, {self.proj_clip}"

    def forward(self, inputs: paddle.Tensor, hidden: paddle.Tensor, cell: paddle.Tensor, results=None):
        """Run all steps of this direction alone; see `run_directions`, whose first axis is left out.

        Args:
            results: what was computed together with another direction; it is returned, so that hooks get to see it.
        """
        if results is not None:
            return results
        results = run_directions([self], *(tensor.unsqueeze(0) for tensor in (inputs, hidden, cell)))
        return tuple(result.squeeze(0) for result in results)


def run_directions(
    layers: Sequence[LSTMP],
    inputs: paddle.Tensor,
    hidden: paddle.Tensor,
    cell: paddle.Tensor,
    autograd: bool = False,
) -> Tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Run all steps of layers of the same sizes that do not depend on each other, at the same time.

    Args:
        layers: one for each direction; their clips and precision are the same.
        inputs: float32 `[directions, steps, batch, embed]`.
        hidden, cell: the states before the first step, `[directions, batch, embed]` and `[directions, batch, hidden]`;
            taken as constants (no gradient flows into them) and not clipped.
        autograd: leave the backward pass to Paddle's own autograd, see `ElmoEncoder`.

    Returns:
        the outputs `[directions, steps, batch, embed]`, the last hidden state and the last cell (both detached); in a
        program (`program.py`) the outputs, None and None.

    Raises:
        RuntimeError: see `refuse_training`.
    """
    clips = (layers[0].cell_clip, layers[0].proj_clip)
    if in_program():
        for layer in layers:
            refuse_training(layer, inputs)
        weights = Weights(*([float32(getattr(layer, name)) for layer in layers] for name in Weights._fields))
        return _steps_in_program(inputs, weights, hidden, cell, clips), None, None
    hidden, cell = hidden.detach(), cell.detach()
    weights = [float32(getattr(layer, name)) for name in Weights._fields for layer in layers]
    if autograd and paddle.is_grad_enabled():
        outputs, operands = [], _operands(_by_name(weights, inputs))
        for gates in paddle.unbind(_projected(inputs, operands)):
            _, hidden, cell = _step(gates, hidden, cell, operands, clips)
            outputs.append(hidden)
        return paddle.stack(outputs, axis=1), hidden.detach(), cell.detach()
    tensors = inputs.contiguous(), hidden.contiguous(), cell.contiguous()
    keep = paddle.is_grad_enabled()
    precision = layers[0].precision if keep else "float32"
    outputs, hidden, cell = _Steps.apply(clips, keep, precision, *tensors, *weights)
    if not outputs.stop_gradient:
        outputs.register_hook(_once())
    return outputs, hidden.detach(), cell.detach()
