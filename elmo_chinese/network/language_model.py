"""The bidirectional LSTM language model: `BiLSTM`, word embedding and the layers of both directions, and `BiLM`, which
`train.py` trains; the layers are those of `lstmp.py`, the losses those of `softmax.py`.

Inside, tensors are time-major, `[steps, batch, size]`, so that the slice of one step is one block of memory; `BiLM`
takes and gives batch-major tensors. LSTM states are arguments and return values, never attributes: the same call gives
the same answer.
"""

from typing import Dict, Optional, Sequence, Tuple

from elmo_chinese.network.lstmp import LSTMP, float32, run_directions
from elmo_chinese.network.program import in_program
from elmo_chinese.network.softmax import full_softmax_losses, log_uniform_sample, sampled_softmax_losses
from elmo_chinese.network.step_random import StepRandom, fresh_random

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

States = Tuple[paddle.Tensor, paddle.Tensor]


class BiLSTM(nn.Layer):
    """Word embedding and the LSTM layers of both directions: what a task takes over from a language model.

    It computes in float32, whatever Paddle's default type is, and whatever `to(dtype=…)` made of the parameters.

    Args:
        vocab_size: number of words.
        embed_size: size of embedding and projection.
        hidden_size: size of the LSTM cells.
        num_layers: layers per direction, at least 1.
        cell_clip, proj_clip: see `LSTMP`.
        sparse: the gradient of `embedding` holds only the rows that were looked up, as of `paddle.nn.Embedding`;
            for optimizers that leave rows without a gradient alone (SGD, Adagrad).
        precision: see `LSTMP`.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int = 512,
        hidden_size: int = 4096,
        num_layers: int = 2,
        cell_clip: float = 3.0,
        proj_clip: float = 3.0,
        sparse: bool = False,
        precision: str = "float32",
    ):
        super().__init__()
        self.sparse, self.autograd = sparse, False
        sizes = dict(vocab_size=vocab_size, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers)
        for name, value in dict(sizes, cell_clip=cell_clip, proj_clip=proj_clip).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.config = dict(sizes, cell_clip=cell_clip, proj_clip=proj_clip)
        self.embedding = self.create_parameter(
            [vocab_size, embed_size], dtype="float32", default_initializer=nn.initializer.XavierUniform()
        )
        clips = (cell_clip, proj_clip, precision)
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
            paddle.zeros([layers, batch, self.config["embed_size"]], "float32"),
            paddle.zeros([layers, batch, self.config["hidden_size"]], "float32"),
        )

    def forward(self, word_ids: Sequence[paddle.Tensor], states: States, dropout=None, from_embeddings: bool = False):
        """Run both directions.

        Args:
            word_ids: int64 `[batch, steps]` twice: in reading order of the forward and of the backward LSTM.
            states: `(hidden [2·layers, batch, embed], cell [2·layers, batch, hidden])`, forward 1..L, backward 1..L.
            dropout: None, or a function `(tensor, number)` → tensor, applied to each layer's input and, under the
                next number, to the top output.
            from_embeddings: every layer reads the embedded words instead of the layer below.

        Returns:
            `(embedded, outputs, top, states)`: the embedded words, the list of layer outputs before the residual
            sum, and the top output (each `[2, steps, batch, embed]`, forward and backward); and the last states, None
            in a program.
        """
        dropout = dropout or (lambda tensor, number: tensor)
        count = len(self.forward_layers)
        ids = paddle.stack(list(word_ids)).transpose([0, 2, 1])
        embedded = top = float32(F.embedding(ids, self.embedding, sparse=self.sparse))
        hidden, cell = (paddle.unbind(state, axis=0) for state in states)
        outputs, hiddens, cells = [], [], []
        for index, layers in enumerate(zip(self.forward_layers, self.backward_layers)):
            inputs = dropout(embedded if from_embeddings else top, index)
            before = [paddle.stack(state[index::count]) for state in (hidden, cell)]
            found = run_directions(layers, inputs, *before, self.autograd)
            if not in_program() and any(layer._forward_post_hooks for layer in layers):  # paddle.summary has some
                found = _past_hooks(layers, [inputs, *before], found)
            for results, result in zip((outputs, hiddens, cells), found):
                results.append(result)
            top = outputs[-1] + inputs if index else outputs[-1]
        if in_program():  # which has outputs alone
            return embedded, outputs, dropout(top, count), None
        states = (paddle.stack(state, axis=1).flatten(0, 1) for state in (hiddens, cells))
        return embedded, outputs, dropout(top, count), tuple(states)


def _past_hooks(layers, inputs, results):
    """Return the results of layers that ran together, as the layers' hooks leave them."""
    of_each = zip(layers, *(paddle.unbind(tensor, axis=0) for tensor in (*inputs, *results)))
    seen = [layer(*tensors[:3], results=tuple(tensors[3:])) for layer, *tensors in of_each]
    return tuple(paddle.stack(tensors) for tensors in zip(*seen))


class BiLM(nn.Layer):
    """The bidirectional language model: a forward and a backward LSTM that share embedding and softmax.

    Args:
        vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip: see `BiLSTM`.
        dropout: share of the numbers dropped at each layer's input and at the top output, in training
            mode only; what is kept is scaled up by 1 / (1 - dropout).
        n_negative_samples: 0 = exact softmax; else, in training mode, the sampled softmax with that many
            negatives, shared by all tokens of a direction. Wants a vocabulary sorted by frequency.
        sparse: see `BiLSTM`; with sampled softmax for `softmax_weight` too.
        precision: of the products of training steps, the softmax's among them: see `precision.py`.
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
        sparse: bool = False,
        precision: str = "float32",
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if not 0 <= n_negative_samples <= vocab_size:
            raise ValueError(f"n_negative_samples must be from 0 to the {vocab_size} words, got {n_negative_samples}")
        self.dropout, self.n_negative_samples = dropout, n_negative_samples
        self.lstm = BiLSTM(vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip, sparse, precision)
        self.precision = precision
        self.softmax_weight = self.create_parameter(
            [vocab_size, embed_size], default_initializer=nn.initializer.XavierUniform()
        )
        self.softmax_bias = self.create_parameter([vocab_size], is_bias=True)

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
        _, _, top, states = self.lstm((x, x_reverse), states, self._dropout(random, x.shape))
        labels = paddle.stack([y, y_reverse]).transpose([0, 2, 1])
        losses = self._losses(top.flatten(1, 2), labels.flatten(1, 2), random).reshape(labels.shape)
        forward, backward = paddle.unbind(losses.transpose([0, 2, 1]), axis=0)
        return forward, backward, states

    def _dropout(self, random, shape):
        if not self.training or self.dropout == 0:
            return None
        (batch, steps), sizes = shape, self.lstm.config
        shape = [sizes["num_layers"] + 1, 2, steps, batch, sizes["embed_size"]]
        factors = paddle.unbind(random.keep_factor(0, shape, 3, self.dropout), axis=0)
        return lambda tensor, number: tensor * factors[number]

    def _losses(self, hidden, labels, random):
        weights, vocab_size = (self.softmax_weight, self.softmax_bias), self.softmax_weight.shape[0]
        if not (self.training and self.n_negative_samples):
            precision = self.precision if self.training else "float32"
            return full_softmax_losses(hidden.flatten(0, 1), *weights, labels.flatten(), precision)
        # Dropout has the first streams of its step; counting down from the end keeps clear of them.
        generators = [random.generator(2**32 - 1 - direction) for direction in range(len(hidden))]
        samples = [log_uniform_sample(generator, self.n_negative_samples, vocab_size) for generator in generators]
        negatives, tries = zip(*samples)
        how = dict(sparse=self.lstm.sparse, precision=self.precision)
        return sampled_softmax_losses(hidden, *weights, labels, np.stack(negatives), tries, **how)
