"""The bidirectional LSTM language model: everything that is a tensor.

From the bottom up: `LSTMP` (one layer, one direction), `BiLSTM` (word embedding and the layers of
both directions) and `BiLM` (the language model that `train.py` trains). The losses are in `softmax.py`.

Inside, tensors are time-major, `[steps, batch, size]`, so that the slice of one step is one block of
memory; `BiLM` takes and gives batch-major tensors. LSTM states are arguments and return values, never
attributes: the same call gives the same answer.

The formulas are those of Baidu's ELMo for Paddle Fluid; the network is that of Peters et al. 2018,
"Deep contextualized word representations", with a word instead of a character input.
"""

from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from pretrained import load_pretrained
from softmax import full_softmax_losses, log_uniform_sample, sampled_softmax_losses

States = Tuple[paddle.Tensor, paddle.Tensor]


class StepRandom(NamedTuple):
    """The random numbers of one training step, as a pure function of where we are in the run.

    Dropout masks depend on seed, step and the row's place in the global batch, negative samples on
    seed and step. So they are the same after a resume, and however many processes share the batch.
    Philox is a counter-based generator: a process starts at its own rows without drawing the others'.
    """

    seed: int
    step: int
    first_row: int = 0

    def generator(self, stream: int, block: int = 0) -> np.random.Philox:
        """Return a bit generator; `stream` tells uses within a step apart, `block` skips 256 bits each."""
        key = np.array([self.seed, self.step], dtype=np.uint64)
        return np.random.Philox(key=key, counter=np.array([block, 0, 0, stream], dtype=np.uint64))

    def keep_mask(self, stream: int, rows: int, size: int, dropout: float) -> np.ndarray:
        """Return bool `[rows, size]`, False with probability `dropout` (to a 65536th)."""
        blocks = -(-size // 16)  # one block is four 64-bit words, one decision takes 16 bits
        generator = self.generator(stream, self.first_row * blocks)
        bits = generator.random_raw(rows * blocks * 4).view(np.uint16).reshape(rows, blocks * 16)
        return bits[:, :size] >= round(dropout * 65536)


def fresh_random() -> StepRandom:
    """Return a `StepRandom` drawn from Paddle's global generator, so `paddle.seed` governs it."""
    seed, step = paddle.randint(0, 2**31 - 1, [2]).tolist()
    return StepRandom(seed, step)


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


class BiLSTM(nn.Layer):
    """Word embedding and the LSTM layers of both directions: what a task takes over from a language model.

    Args:
        vocab_size: number of words.
        embed_size: size of embedding and projection.
        hidden_size: size of the LSTM cells.
        num_layers: layers per direction, at least 1.
        cell_clip, proj_clip: see `LSTMP`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int = 512,
        hidden_size: int = 4096,
        num_layers: int = 2,
        cell_clip: float = 3.0,
        proj_clip: float = 3.0,
    ):
        super().__init__()
        sizes = dict(vocab_size=vocab_size, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers)
        for name, value in dict(sizes, cell_clip=cell_clip, proj_clip=proj_clip).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.config = dict(sizes, cell_clip=cell_clip, proj_clip=proj_clip)
        self.embedding = self.create_parameter(
            [vocab_size, embed_size], default_initializer=nn.initializer.XavierUniform()
        )
        clips = (cell_clip, proj_clip)
        self.forward_layers = nn.LayerList([LSTMP(embed_size, hidden_size, *clips) for _ in range(num_layers)])
        self.backward_layers = nn.LayerList([LSTMP(embed_size, hidden_size, *clips) for _ in range(num_layers)])

    def fluid_parameters(self) -> Dict[str, paddle.Tensor]:
        """Return the parameters under the names that the original gave them, in its creation order."""
        named = {"embedding_para": self.embedding}
        count = len(self.forward_layers)
        for index, layer in enumerate([*self.forward_layers, *self.backward_layers]):
            direction = "fw" if index < count else "bw"
            named[f"{direction}_layer{index % count + 1}_gate_w"] = layer.gate_w
            named[f"lstmp_{index}.w_0"] = layer.recurrent_w
            named[f"lstmp_{index}.w_1"] = layer.projection_w
            named[f"lstmp_{index}.b_0"] = layer.bias
        return named

    def zero_states(self, batch: int) -> States:
        """Return zero states `(hidden [2·layers, batch, embed], cell [2·layers, batch, hidden])`."""
        layers = 2 * self.config["num_layers"]
        return (
            paddle.zeros([layers, batch, self.config["embed_size"]]),
            paddle.zeros([layers, batch, self.config["hidden_size"]]),
        )

    def forward(self, layers: nn.LayerList, word_ids: paddle.Tensor, states: States, dropout=None):
        """Run one direction.

        Args:
            layers: `forward_layers` or `backward_layers`.
            word_ids: int64 `[batch, steps]` in reading order of that direction.
            states: `(hidden [layers, batch, embed], cell [layers, batch, hidden])` of that direction.
            dropout: None, or a function `(tensor, layer index)` → tensor, applied to each layer's input
                and (with index `num_layers`) to the top output.

        Returns:
            `(embedded, outputs, top, hiddens, cells)`: the embedded words, the list of layer outputs before
            the residual sum, the top output (each `[steps, batch, embed]`), and the lists of last states.
        """
        dropout = dropout or (lambda tensor, layer: tensor)
        embedded = top = F.embedding(word_ids.t(), self.embedding)
        outputs, hiddens, cells = [], [], []
        for index, layer in enumerate(layers):
            layer_input = dropout(top, index)
            output, hidden, cell = layer(layer_input, states[0][index], states[1][index])
            top = output if index == 0 else output + layer_input
            outputs.append(output)
            hiddens.append(hidden)
            cells.append(cell)
        return embedded, outputs, dropout(top, len(layers)), hiddens, cells


class BiLM(nn.Layer):
    """The bidirectional language model: a forward and a backward LSTM that share embedding and softmax.

    Args:
        vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip: see `BiLSTM`.
        dropout: share of the numbers dropped at each layer's input and at the top output, in training
            mode only; what is kept is scaled up by 1 / (1 - dropout).
        n_negative_samples: 0 = exact softmax; else, in training mode, the sampled softmax with that many
            negatives, shared by all tokens of a direction. Wants a vocabulary sorted by frequency.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int = 512,
        hidden_size: int = 4096,
        num_layers: int = 2,
        cell_clip: float = 3.0,
        proj_clip: float = 3.0,
        dropout: float = 0.1,
        n_negative_samples: int = 0,
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if not 0 <= n_negative_samples <= vocab_size:
            raise ValueError(f"n_negative_samples must be from 0 to the {vocab_size} words, got {n_negative_samples}")
        self.dropout, self.n_negative_samples = dropout, n_negative_samples
        self.lstm = BiLSTM(vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip)
        self.softmax_weight = self.create_parameter(
            [vocab_size, embed_size], default_initializer=nn.initializer.XavierUniform()
        )
        bound = (3.0 / vocab_size) ** 0.5
        self.softmax_bias = self.create_parameter(
            [vocab_size], default_initializer=nn.initializer.Uniform(-bound, bound)
        )

    def fluid_parameters(self) -> Dict[str, paddle.Tensor]:
        """Return the parameters under the names that the original gave them."""
        own = {"softmax_weight": self.softmax_weight, "softmax_bias": self.softmax_bias}
        return {**self.lstm.fluid_parameters(), **own}

    def forward(
        self,
        x: paddle.Tensor,
        y: paddle.Tensor,
        x_reverse: paddle.Tensor,
        y_reverse: paddle.Tensor,
        states: Optional[States] = None,
        random: Optional[StepRandom] = None,
    ) -> Tuple[paddle.Tensor, paddle.Tensor, States]:
        """Return the loss of every token in both directions.

        Args:
            x, y: int64 `[batch, steps]`, words and the words that follow them.
            x_reverse, y_reverse: the same for the text read from its end.
            states: what the last call returned, or None for zeros: `(hidden [2·layers, batch, embed],
                cell [2·layers, batch, hidden])` in the order forward 1..L, backward 1..L.
            random: where dropout and negative samples come from; None draws from Paddle's generator.

        Returns:
            `(forward_losses, backward_losses, states)`: float32 `[batch, steps]` each, in nats, and the
            detached states after the last step.
        """
        if states is None:
            states = self.lstm.zero_states(x.shape[0])
        if self.training and random is None:
            random = fresh_random()
        losses, hiddens, cells = [], [], []
        layers = len(self.lstm.forward_layers)
        for direction, (stack, words, labels) in enumerate(
            [(self.lstm.forward_layers, x, y), (self.lstm.backward_layers, x_reverse, y_reverse)]
        ):
            part = slice(direction * layers, (direction + 1) * layers)
            _, _, top, last_hiddens, last_cells = self.lstm(
                stack,
                words,
                (states[0][part], states[1][part]),
                self._dropout(random, direction * (layers + 1)),
            )
            losses.append(self._losses(top, labels, random, direction))
            hiddens += last_hiddens
            cells += last_cells
        return losses[0], losses[1], (paddle.stack(hiddens), paddle.stack(cells))

    def _dropout(self, random, first_stream):
        if not self.training or self.dropout == 0:
            return None

        def drop(tensor, layer):
            steps, batch, size = tensor.shape
            keep = random.keep_mask(first_stream + layer, batch, steps * size, self.dropout)
            keep = keep.reshape(batch, steps, size).transpose(1, 0, 2)
            return tensor * paddle.to_tensor(keep.astype(np.float32) / (1 - self.dropout))

        return drop

    def _losses(self, top, labels, random, direction):
        hidden, flat_labels = top.flatten(0, 1), labels.t().flatten()
        if self.training and self.n_negative_samples:
            # Dropout has streams 0, 1, 2 … of its step; counting down from the end keeps clear of them.
            generator = random.generator(2**32 - 1 - direction)
            sample = log_uniform_sample(generator, self.n_negative_samples, self.softmax_weight.shape[0])
            losses = sampled_softmax_losses(hidden, self.softmax_weight, self.softmax_bias, flat_labels, *sample)
        else:
            losses = full_softmax_losses(hidden, self.softmax_weight, self.softmax_bias, flat_labels)
        return losses.reshape([labels.shape[1], labels.shape[0]]).t()


def init_pretraining_params(exe, pretraining_params_path: str, main_program: nn.Layer) -> None:
    """Fill the biLM parameters of a layer from a pretrained model; nothing else of it is touched.

    Args:
        exe: not used any more (the original's executor); None will do.
        pretraining_params_path: a folder of Fluid variables (one file each, original names) or a
            checkpoint of this project. Optimizer state and learning rate in it are left alone.
        main_program: a `BiLM`, or any layer with one or a `BiLSTM` inside.

    Raises:
        PretrainedError: a name is missing, a shape is wrong, a file is damaged, nothing is usable.
            `softmax_weight` and `softmax_bias` may be missing (they are, in the released archive).
    """
    load_pretrained(main_program, pretraining_params_path)
