"""One LSTM layer of one direction with projection and clips: the inner loop of everything here."""

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer


class _Recurrence(PyLayer):
    """The steps of one LSTMP layer, with a backward pass of its own.

    Autograd would record a dozen nodes a step and sum the weight gradients step by step; here they
    are one product over all steps.
    """

    @staticmethod
    def forward(ctx, gates, recurrent_w, projection_w, hidden, cell, cell_clip, proj_clip, keep):
        ctx.cell_clip, ctx.proj_clip = cell_clip, proj_clip
        size = projection_w.shape[0]
        hiddens, cells, saved = [hidden], [cell], []
        for gate in paddle.unbind(gates, axis=0):
            gate = paddle.addmm(gate, hidden, recurrent_w)
            candidate = paddle.tanh(gate[:, :size])
            in_gate, forget_gate, out_gate = paddle.split(F.sigmoid(gate[:, size:]), 3, axis=1)
            cell = paddle.clip(candidate * in_gate + cell * forget_gate, -cell_clip, cell_clip)
            tanh_cell = paddle.tanh(cell)
            output = out_gate * tanh_cell
            hidden = paddle.clip(paddle.matmul(output, projection_w), -proj_clip, proj_clip)
            hiddens.append(hidden)
            cells.append(cell)
            if keep:  # for the backward pass
                saved.append((candidate, in_gate, forget_gate, out_gate, tanh_cell, output))
        ctx.cells, ctx.saved, ctx.hiddens = cells, saved, hiddens
        ctx.save_for_backward(recurrent_w, projection_w)
        return paddle.stack(hiddens[1:]), hidden, cell

    @staticmethod
    def backward(ctx, d_hiddens, _d_last_hidden, _d_last_cell):
        recurrent_w, projection_w = ctx.saved_tensor()
        d_hidden = d_cell = 0.0
        d_gates, d_projected = [], []
        steps = list(zip(ctx.saved, ctx.cells[1:], ctx.cells[:-1], ctx.hiddens[1:], paddle.unbind(d_hiddens, axis=0)))
        for (candidate, in_gate, forget_gate, out_gate, tanh_cell, _), cell, cell_before, hidden, d_out in steps[::-1]:
            # A clipped value equals the bound and has no gradient.
            d_hidden = (d_out + d_hidden) * (hidden.abs() < ctx.proj_clip).astype(d_out.dtype)
            d_projected.append(d_hidden)
            d_output = paddle.matmul(d_hidden, projection_w, transpose_y=True)
            d_cell = d_cell + d_output * out_gate * (1 - tanh_cell * tanh_cell)
            d_cell = d_cell * (cell.abs() < ctx.cell_clip).astype(d_cell.dtype)
            d_gate = paddle.concat(
                [
                    d_cell * in_gate * (1 - candidate * candidate),
                    d_cell * candidate * in_gate * (1 - in_gate),
                    d_cell * cell_before * forget_gate * (1 - forget_gate),
                    d_output * tanh_cell * out_gate * (1 - out_gate),
                ],
                axis=1,
            )
            d_gates.append(d_gate)
            d_cell = d_cell * forget_gate
            d_hidden = paddle.matmul(d_gate, recurrent_w, transpose_y=True)
        d_gates, d_projected = paddle.stack(d_gates[::-1]), paddle.stack(d_projected[::-1])
        before, outputs = paddle.concat(ctx.hiddens[:-1]), paddle.concat([step[-1] for step in ctx.saved])
        d_recurrent = paddle.matmul(before, d_gates.flatten(0, 1), transpose_x=True)
        d_projection = paddle.matmul(outputs, d_projected.flatten(0, 1), transpose_x=True)
        return d_gates, d_recurrent, d_projection, None, None


class LSTMP(nn.Layer):
    """One LSTM layer of one direction with a projected hidden state and two clips.

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
        """Run all steps.

        Args:
            inputs: float32 `[steps, batch, embed]`.
            hidden, cell: the state before the first step, `[batch, embed]` and `[batch, hidden]`; taken
                as constants (no gradient flows into them) and not clipped.

        Returns:
            outputs `[steps, batch, embed]`, last hidden and last cell (both detached).
        """
        gates = F.linear(inputs, self.gate_w, self.bias.flatten())  # one product for all steps
        outputs, hidden, cell = _Recurrence.apply(
            gates,
            self.recurrent_w,
            self.projection_w,
            hidden.detach(),
            cell.detach(),
            self.cell_clip,
            self.proj_clip,
            paddle.is_grad_enabled(),
        )
        return outputs, hidden.detach(), cell.detach()
