"""One LSTM layer of one direction with projection and clips: the inner loop of everything here."""

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from lstm_step import choose


class _Steps(PyLayer):
    """All steps of one LSTMP layer, with a backward pass of its own.

    Autograd would record a dozen nodes a step and sum the weight gradients step by step; here they
    are one product over all steps. Column sums are products with ones: Paddle's own take ten times as long.
    """

    @staticmethod
    def forward(ctx, inputs, gate_w, recurrent_w, projection_w, bias, hidden, cell, cell_clip, proj_clip, keep):
        functions = choose()
        steps, batch, _ = inputs.shape
        gates = paddle.addmm(bias, inputs.flatten(0, 1), gate_w)  # one product for all steps
        hiddens, cells, saved = [hidden], [cell], []
        for gate in paddle.unbind(gates.reshape([steps, batch, -1]), axis=0):
            gate = paddle.addmm(gate, hidden, recurrent_w)
            activated, cell, output = functions.step(gate, cell, cell_clip)
            hidden = paddle.clip(paddle.matmul(output, projection_w), -proj_clip, proj_clip)
            hiddens.append(hidden)
            if keep:  # for the backward pass
                cells.append(cell)
                saved.append((activated, output))
        ctx.clips, ctx.cells, ctx.saved, ctx.hiddens = (cell_clip, proj_clip), cells, saved, hiddens
        ctx.save_for_backward(inputs, gate_w, recurrent_w, projection_w)
        return paddle.stack(hiddens[1:]), hidden, cell

    @staticmethod
    def backward(ctx, d_hiddens, _d_last_hidden, _d_last_cell):
        functions = choose()
        cell_clip, proj_clip = ctx.clips
        inputs, gate_w, recurrent_w, projection_w = ctx.saved_tensor()
        d_hidden, d_cell = paddle.zeros_like(ctx.hiddens[0]), paddle.zeros_like(ctx.cells[0])
        d_gates, d_projected = [], []
        steps = zip(ctx.saved, ctx.cells, ctx.cells[1:], ctx.hiddens[1:], paddle.unbind(d_hiddens, axis=0))
        for (activated, _), cell, next_cell, hidden, d_out in reversed(list(steps)):
            d_hidden = functions.clip_grad(d_out, d_hidden, hidden, proj_clip)
            d_projected.append(d_hidden)
            d_output = paddle.matmul(d_hidden, projection_w, transpose_y=True)
            d_gate, d_cell = functions.step_grad(d_output, d_cell, activated, cell, next_cell, cell_clip)
            d_gates.append(d_gate)
            d_hidden = paddle.matmul(d_gate, recurrent_w, transpose_y=True)
        d_gates, d_projected = paddle.concat(d_gates[::-1]), paddle.concat(d_projected[::-1])
        before, outputs = paddle.concat(ctx.hiddens[:-1]), paddle.concat([output for _, output in ctx.saved])
        d_inputs = paddle.matmul(d_gates, gate_w, transpose_y=True).reshape(inputs.shape)
        d_gate_w = paddle.matmul(inputs.flatten(0, 1), d_gates, transpose_x=True)
        d_recurrent_w = paddle.matmul(before, d_gates, transpose_x=True)
        d_projection_w = paddle.matmul(outputs, d_projected, transpose_x=True)
        d_bias = paddle.matmul(paddle.ones([1, d_gates.shape[0]]), d_gates)
        d_inputs = None if inputs.stop_gradient else d_inputs
        return d_inputs, d_gate_w, d_recurrent_w, d_projection_w, d_bias, None, None


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
        outputs, hidden, cell = _Steps.apply(
            inputs,
            self.gate_w,
            self.recurrent_w,
            self.projection_w,
            self.bias,
            hidden.detach(),
            cell.detach(),
            self.cell_clip,
            self.proj_clip,
            paddle.is_grad_enabled(),
        )
        return outputs, hidden.detach(), cell.detach()
