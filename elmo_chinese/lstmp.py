"""One LSTM layer with projection and clips: the inner loop of everything here."""

from contextlib import suppress
from typing import List, NamedTuple, Sequence, Tuple

from elmo_chinese import kernels

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

Tensors = List[paddle.Tensor]


class Weights(NamedTuple):
    """The parameters of a layer, one tensor a direction in each list; shapes as in `LSTMP`."""

    gate_w: Tensors
    recurrent_w: Tensors
    projection_w: Tensors
    bias: Tensors


class Kept(NamedTuple):
    """What the steps of a layer leave behind, one tensor a direction in each list.

    gates: activated, `[steps, batch, 4·hidden]`.
    hiddens, cells: `[steps + 1, batch, …]`, the state before the first step in front.

    Where no backward pass will follow, cells holds the first and the last one, gates nothing of use.
    """

    gates: Tensors
    hiddens: Tensors
    cells: Tensors


class Gradients(NamedTuple):
    """Gradients of the gates before activation, of the projection before its clip, of inputs and bias.

    And what was projected, output gate · tanh(cell), `[steps, batch, hidden]`: it is not worth keeping from forward.
    """

    gates: Tensors
    projected: Tensors
    inputs: Tensors
    bias: Tensors
    outputs: Tensors


def _sum_rows(matrix):
    """Return the column sums, `[1, columns]`; as a product, which takes a tenth of the time of Paddle's sum."""
    return paddle.matmul(paddle.ones([1, matrix.shape[0]]), matrix)


def _shape(inputs, cells):
    return [len(inputs), *inputs[0].shape, cells[0].shape[-1]]


# Gates that a backward pass is done with; the next step writes over them. They are by far the largest tensors here
# (160 MB each at hidden size 4096), and what the heap holds besides would soon lie across the place of freed ones.
_used_gates: Tensors = []


def _new_gates(shape):
    with suppress(IndexError):  # none is left
        while True:
            gates = _used_gates.pop()  # in one go: other threads may look for gates at the same time
            if gates.shape == shape:
                return gates
    return paddle.empty(shape)


def _steps_in_cpp(inputs, weights, hiddens, cells, clips, keep):
    _, steps, batch, embed, size = _shape(inputs, cells)
    held = steps if keep else 1
    gates = [_new_gates([held, batch, 4 * size]) for _ in inputs]
    shapes = [steps + 1, batch, embed], [held + 1, batch, size]
    kept = Kept(gates, *([paddle.empty(shape) for _ in inputs] for shape in shapes))
    sizes = [*_shape(inputs, cells), int(keep)]
    kernels.call("lstm_steps", sizes, clips, inputs, *weights, hiddens, cells, *kept)
    return kept


def _gradients_in_cpp(d_outputs, kept, weights, clips, wanted):
    _, steps, batch, embed, size = shape = _shape(d_outputs, kept.cells)
    d_outputs = [gradient.contiguous() for gradient in d_outputs]
    d_projected = [paddle.empty([steps, batch, embed]) for _ in d_outputs]
    d_inputs = [paddle.empty([steps, batch, embed]) if want else None for want in wanted]
    d_bias = [paddle.empty([1, 4 * size]) for _ in d_outputs]
    read = [d_outputs, *weights[:3], kept.hiddens, kept.cells]
    kernels.call("lstm_steps_backward", shape, clips, *read, kept.gates, d_projected, d_inputs, d_bias)
    # Gates were written over the activated ones, outputs over the cells.
    return Gradients(kept.gates, d_projected, d_inputs, d_bias, [cells[1:] for cells in kept.cells])


def _steps_in_paddle(inputs, weights, hiddens, cells, clips, keep):
    cell_clip, proj_clip = clips
    kept = Kept([], [], [])
    for x, gate_w, recurrent_w, projection_w, bias, hidden, cell in zip(inputs, *weights, hiddens, cells):
        steps, batch, _ = x.shape
        if keep:
            projected = paddle.addmm(bias, x.flatten(0, 1), gate_w).reshape([steps, batch, -1])  # one for all steps
        else:  # less to hold at a time, for long sentences
            projected = (paddle.addmm(bias, step, gate_w) for step in paddle.unbind(x, axis=0))
        all_gates, all_hiddens, all_cells = [], [hidden], [cell]
        for gate in projected:
            candidate, in_gate, forget_gate, out_gate = paddle.split(paddle.addmm(gate, hidden, recurrent_w), 4, axis=1)
            candidate = paddle.tanh(candidate)
            in_gate, forget_gate, out_gate = F.sigmoid(in_gate), F.sigmoid(forget_gate), F.sigmoid(out_gate)
            cell = paddle.clip(candidate * in_gate + cell * forget_gate, -cell_clip, cell_clip)
            output = out_gate * paddle.tanh(cell)
            hidden = paddle.clip(paddle.matmul(output, projection_w), -proj_clip, proj_clip)
            all_hiddens.append(hidden)
            if keep:
                all_cells.append(cell)
                all_gates.append(paddle.concat([candidate, in_gate, forget_gate, out_gate], axis=1))
        kept.hiddens.append(paddle.stack(all_hiddens))
        kept.cells.append(paddle.stack(all_cells if keep else [all_cells[0], cell]))
        kept.gates.append(paddle.stack(all_gates) if keep else None)
    return kept


def _gradients_in_paddle(d_outputs, kept, weights, clips, wanted):
    cell_clip, proj_clip = clips
    result = Gradients([], [], [], [], [])
    for direction, (gate_w, recurrent_w, projection_w) in enumerate(zip(*weights[:3])):
        gates, hiddens, cells = (tensors[direction] for tensors in kept)
        # A clipped value equals the bound and has no gradient.
        inside_hidden = (hiddens[1:].abs() < proj_clip).astype(hiddens.dtype)
        inside_cell = (cells[1:].abs() < cell_clip).astype(cells.dtype)
        squashed = paddle.tanh(cells[1:])
        d_hidden, d_cell = paddle.zeros_like(hiddens[0]), paddle.zeros_like(cells[0])
        d_gates, d_projected = [], []
        for step in reversed(range(gates.shape[0])):
            candidate, in_gate, forget_gate, out_gate = paddle.split(gates[step], 4, axis=1)
            d_projected.append((d_outputs[direction][step] + d_hidden) * inside_hidden[step])
            d_output = paddle.matmul(d_projected[-1], projection_w, transpose_y=True)
            d_cell = d_cell + d_output * out_gate * (1 - squashed[step] * squashed[step])
            d_cell = d_cell * inside_cell[step]
            d_gate = [
                d_cell * in_gate * (1 - candidate * candidate),
                d_cell * candidate * in_gate * (1 - in_gate),
                d_cell * cells[step] * forget_gate * (1 - forget_gate),
                d_output * squashed[step] * out_gate * (1 - out_gate),
            ]
            d_gates.append(paddle.concat(d_gate, axis=1))
            d_cell = d_cell * forget_gate
            d_hidden = paddle.matmul(d_gates[-1], recurrent_w, transpose_y=True)
        d_gates = paddle.stack(d_gates[::-1])
        flat = d_gates.flatten(0, 1)
        shape = d_outputs[direction].shape
        d_inputs = paddle.matmul(flat, gate_w, transpose_y=True).reshape(shape) if wanted[direction] else None
        outputs = paddle.split(gates, 4, axis=2)[3] * squashed
        found = d_gates, paddle.stack(d_projected[::-1]), d_inputs, _sum_rows(flat), outputs
        for values, value in zip(result, found):
            values.append(value)
    return result


class _Steps(PyLayer):
    """All steps of one layer in every direction, with a backward pass of its own.

    Autograd would record a dozen nodes a step and sum the weight gradients step by step; here they
    are one product over all steps.
    """

    @staticmethod
    def forward(ctx, directions, clips, keep, *tensors):
        inputs, *rest = [list(tensors[n : n + directions]) for n in range(0, len(tensors), directions)]
        weights, (hiddens, cells) = Weights(*rest[:4]), rest[4:]
        steps = _steps_in_cpp if kernels.library() else _steps_in_paddle
        kept = steps(inputs, weights, hiddens, cells, clips, keep)
        if keep:
            ctx.kept, ctx.clips = kept, clips
            ctx.save_for_backward(*inputs, *(weight for weights in weights[:3] for weight in weights))
        return (
            *(hidden[1:] for hidden in kept.hiddens),
            *(hidden[-1] for hidden in kept.hiddens),
            *(cell[-1] for cell in kept.cells),
        )

    @staticmethod
    def backward(ctx, *d_results):
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            raise RuntimeError("the backward pass of an LSTM layer can run only once: it uses up what forward kept")
        directions, saved = len(kept.gates), ctx.saved_tensor()
        inputs, *weights = [saved[n : n + directions] for n in range(0, len(saved), directions)]
        wanted = [not x.stop_gradient for x in inputs]
        gradients = _gradients_in_cpp if kernels.library() else _gradients_in_paddle
        d = gradients(list(d_results[:directions]), kept, Weights(*map(list, weights), None), ctx.clips, wanted)
        d_gate_w, d_recurrent_w, d_projection_w = [], [], []
        for x, hidden, output, d_gates, d_projected in zip(inputs, kept.hiddens, d.outputs, d.gates, d.projected):
            d_gates = d_gates.flatten(0, 1)
            before = hidden[:-1].flatten(0, 1)
            d_gate_w.append(paddle.matmul(x.flatten(0, 1), d_gates, transpose_x=True))
            d_recurrent_w.append(paddle.matmul(before, d_gates, transpose_x=True))
            flat = output.flatten(0, 1), d_projected.flatten(0, 1)
            d_projection_w.append(paddle.matmul(*flat, transpose_x=True))
        if kernels.library():
            _used_gates.extend(d.gates)
        return (*d.inputs, *d_gate_w, *d_recurrent_w, *d_projection_w, *d.bias, *[None] * (2 * directions))


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
    """

    def __init__(self, embed_size: int, hidden_size: int, cell_clip: float = 3.0, proj_clip: float = 3.0):
        super().__init__()
        self.cell_clip, self.proj_clip = cell_clip, proj_clip
        xavier = nn.initializer.XavierUniform()
        self.gate_w = self.create_parameter([embed_size, 4 * hidden_size], default_initializer=xavier)
        self.recurrent_w = self.create_parameter([embed_size, 4 * hidden_size], default_initializer=xavier)
        self.projection_w = self.create_parameter([hidden_size, embed_size], default_initializer=xavier)
        self.bias = self.create_parameter([1, 4 * hidden_size], is_bias=True)

    def forward(self, inputs: paddle.Tensor, hidden: paddle.Tensor, cell: paddle.Tensor):
        """Run all steps of this direction alone; see `run_directions`."""
        outputs, hiddens, cells = run_directions([self], [inputs], [hidden], [cell])
        return outputs[0], hiddens[0], cells[0]


def run_directions(
    layers: Sequence[LSTMP], inputs: Sequence[paddle.Tensor], hiddens: Sequence[paddle.Tensor], cells: Sequence
) -> Tuple[Tensors, Tensors, Tensors]:
    """Run all steps of layers of the same sizes that do not depend on each other, at the same time.

    Args:
        layers: one for each direction; their clips are the same.
        inputs: float32 `[steps, batch, embed]` of each.
        hiddens, cells: the states before the first step, `[batch, embed]` and `[batch, hidden]`; taken
            as constants (no gradient flows into them) and not clipped.

    Returns:
        lists of the outputs `[steps, batch, embed]`, the last hiddens and the last cells (both detached).
    """
    count, clips = len(layers), (layers[0].cell_clip, layers[0].proj_clip)
    weights = [[getattr(layer, name) for layer in layers] for name in Weights._fields]
    states = [state.detach().contiguous() for state in (*hiddens, *cells)]
    tensors = [*(x.contiguous() for x in inputs), *(weight for group in weights for weight in group), *states]
    results = _Steps.apply(count, clips, paddle.is_grad_enabled(), *tensors)
    last = [state.detach() for state in results[count:]]
    return list(results[:count]), last[:count], last[count:]
