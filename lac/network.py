"""The tagger's network: ELMo vectors and word embedding → BiGRU blocks → one number for each tag → CRF.

Inside, tensors are time-major, `[words, batch, size]`, as in `bilm.py`. Sizes, multipliers of the learning
rate and decay are those of Baidu's LAC on Paddle Fluid, where a gated recurrent unit (Cho et al. 2014) is

    u, r = sigmoid(x_u + h W_u), sigmoid(x_r + h W_r)       update and reset gate
    h = (1 - u) · h + u · tanh(x_c + (r · h) W_c)           the candidate sees the state after the reset

`paddle.nn.GRU` resets after the product with W_c and turns u round, so it cannot hold such weights.
"""

from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from bilm import ElmoEncoder, StepRandom
from lac.crf import crf_costs


class _Recurrence(PyLayer):
    """All steps of a GRU in both directions at once, with a backward pass of its own.

    As for the LSTM (`lstmp.py`): autograd would record ten nodes a step and sum up the gradients of the
    weights step by step; here they are one product over all steps.
    """

    @staticmethod
    def forward(ctx, gates, candidates, gate_w, candidate_w, keep):
        hidden = paddle.zeros(candidates.shape[1:])
        hiddens, saved = [hidden], []
        for gate, candidate in zip(paddle.unbind(gates), paddle.unbind(candidates)):
            gate = F.sigmoid(gate + paddle.matmul(hidden, gate_w))
            update, reset = paddle.split(gate, 2, axis=-1)
            kept = reset * hidden
            candidate = paddle.tanh(candidate + paddle.matmul(kept, candidate_w))
            hidden = hidden + update * (candidate - hidden)
            hiddens.append(hidden)
            if keep:  # for the backward pass
                saved.append((gate, kept, candidate))
        ctx.saved, ctx.hiddens = saved, hiddens
        ctx.save_for_backward(gate_w, candidate_w)
        return paddle.stack(hiddens[1:])

    @staticmethod
    def backward(ctx, d_hiddens):
        gate_w, candidate_w = ctx.saved_tensor()
        d_hidden = paddle.zeros_like(ctx.hiddens[0])
        d_gates, d_candidates = [], []
        steps = zip(ctx.saved, ctx.hiddens, paddle.unbind(d_hiddens))
        for (gate, _, candidate), before, d_out in reversed(list(steps)):
            update, reset = paddle.split(gate, 2, axis=-1)
            d_hidden = d_hidden + d_out
            d_candidate = d_hidden * update * (1 - candidate * candidate)
            d_kept = paddle.matmul(d_candidate, candidate_w, transpose_y=True)
            d_gate = paddle.concat([d_hidden * (candidate - before), d_kept * before], axis=-1) * gate * (1 - gate)
            d_hidden = d_hidden * (1 - update) + d_kept * reset
            d_hidden = d_hidden + paddle.matmul(d_gate, gate_w, transpose_y=True)
            d_gates.append(d_gate)
            d_candidates.append(d_candidate)
        d_gates, d_candidates = d_gates[::-1], d_candidates[::-1]
        d_gate_w = _product(ctx.hiddens[:-1], d_gates)
        d_candidate_w = _product([kept for _, kept, _ in ctx.saved], d_candidates)
        return paddle.stack(d_gates), paddle.stack(d_candidates), d_gate_w, d_candidate_w


def _product(inputs, gradients):
    """Return the sum over steps of inputᵀ · gradient, for lists of `[2, batch, size]`."""
    inputs, gradients = paddle.concat(inputs, axis=1), paddle.concat(gradients, axis=1)
    return paddle.matmul(inputs, gradients, transpose_x=True)


def _weight(layer, shape, decay):
    attribute = paddle.ParamAttr(
        initializer=nn.initializer.Uniform(-0.1, 0.1), regularizer=paddle.regularizer.L2Decay(decay)
    )
    return layer.create_parameter(shape, attr=attribute)


class GRU(nn.Layer):
    """The weights of one direction. Columns are update, reset, candidate.

    Args:
        input_size: size of the input. hidden_size: size of the state. decay: L2 decay of the weights.
    """

    def __init__(self, input_size: int, hidden_size: int, decay: float):
        super().__init__()
        self.input_w = _weight(self, [input_size, 3 * hidden_size], decay)
        self.input_b = self.create_parameter([3 * hidden_size], is_bias=True)
        self.gate_w = _weight(self, [hidden_size, 2 * hidden_size], decay)
        self.candidate_w = _weight(self, [hidden_size, hidden_size], decay)

    def project(self, inputs: paddle.Tensor) -> paddle.Tensor:
        """Return what all steps get from the input, `[…, 3·hidden]`: one product."""
        return F.linear(inputs, self.input_w, self.input_b)


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
        ahead, back = self.forward_gru, self.backward_gru
        projected = paddle.stack([ahead.project(inputs), reorder(back.project(inputs), reverse)], axis=1)
        gates, candidates = paddle.split(projected, [2 * self.hidden_size, self.hidden_size], axis=-1)
        states = _Recurrence.apply(
            gates,
            candidates,
            paddle.stack([ahead.gate_w, back.gate_w]),
            paddle.stack([ahead.candidate_w, back.candidate_w]),
            paddle.is_grad_enabled(),
        )
        return paddle.concat([states[:, 0], reorder(states[:, 1], reverse)], axis=-1)


def reverse_places(words: int, lengths: paddle.Tensor) -> paddle.Tensor:
    """Return where, in `[words, batch]` as one row, the reversed sentences' words are; padding stays.

    A sentence's reverse starts at its own last word, so it does not depend on what it is padded to.
    """
    place = paddle.arange(words).unsqueeze(1)
    swapped = paddle.where(place < lengths, lengths - 1 - place, place.expand([words, lengths.shape[0]]))
    return (swapped * lengths.shape[0] + paddle.arange(lengths.shape[0])).flatten()


def reorder(tensor: paddle.Tensor, places: paddle.Tensor) -> paddle.Tensor:
    """Return `[words, batch, size]` with its words at other places of their sentences."""
    return paddle.gather(tensor.flatten(0, 1), places).reshape(tensor.shape)


class Tagger(nn.Layer):
    """Word ids to a number for each word and tag, and the CRF's weights.

    Args:
        num_words: size of the word embedding's vocabulary.
        num_tags: size of the tag set.
        word_emb_dim: width of the word embedding.
        grnn_hidden_dim: size of a GRU.
        bigru_num: blocks.
        emb_learning_rate, crf_learning_rate: multipliers of the learning rate.
        encoder: an `ElmoEncoder`, None for the tagger without ELMo.

    Attributes:
        config: the sizes, as arguments of this class.
        crfw: the CRF's weights, see `lac/crf.py`.
    """

    def __init__(
        self,
        num_words: int,
        num_tags: int,
        word_emb_dim: int = 128,
        grnn_hidden_dim: int = 256,
        bigru_num: int = 2,
        emb_learning_rate: float = 5.0,
        crf_learning_rate: float = 0.2,
        encoder: Optional[ElmoEncoder] = None,
    ):
        super().__init__()
        self.config = dict(
            num_words=num_words,
            num_tags=num_tags,
            word_emb_dim=word_emb_dim,
            grnn_hidden_dim=grnn_hidden_dim,
            bigru_num=bigru_num,
        )
        uniform = nn.initializer.Uniform(-0.1, 0.1)
        self.word_embedding = self.create_parameter(
            [num_words, word_emb_dim], attr=paddle.ParamAttr(initializer=uniform, learning_rate=emb_learning_rate)
        )
        self.encoder = encoder
        width = word_emb_dim + (encoder.embedding_dim if encoder else 0)
        sizes = [width] + [2 * grnn_hidden_dim] * bigru_num
        self.blocks = nn.LayerList([BiGRU(size, grnn_hidden_dim) for size in sizes[:-1]])
        self.output_w = _weight(self, [sizes[-1], num_tags], decay=1e-4)
        self.output_b = self.create_parameter([num_tags], is_bias=True)
        self.crfw = self.create_parameter(
            [num_tags + 2, num_tags],
            attr=paddle.ParamAttr(initializer=nn.initializer.XavierUniform(), learning_rate=crf_learning_rate),
        )

    def trained_parameters(self):
        """Return the parameters that an optimizer should get: all but those of a frozen biLM."""
        return [parameter for parameter in self.parameters() if not parameter.stop_gradient]

    def forward(
        self,
        word_ids: paddle.Tensor,
        lengths: paddle.Tensor,
        elmo: Optional[paddle.Tensor] = None,
        random: Optional[StepRandom] = None,
    ) -> paddle.Tensor:
        """Return the emissions of the CRF.

        Args:
            word_ids: int64 `[batch, words]`, of the word embedding's vocabulary.
            lengths: int64 `[batch]`, at least 1.
            elmo: with an encoder, its word ids, int64 `[batch, words]`, or what its `layers` returned for them,
                float32 `[layers, batch, words, 2·embed]`.
            random: where the dropout of the ELMo layers comes from in training mode.

        Returns:
            float32 `[batch, words, tags]`; at padding something without a meaning.
        """
        inputs = F.embedding(word_ids.t(), self.word_embedding)
        if self.encoder:
            layers = self.encoder.layers(elmo, lengths) if len(elmo.shape) == 2 else elmo
            inputs = paddle.concat([self.encoder.mix(layers, random).transpose([1, 0, 2]), inputs], axis=-1)
        reverse = reverse_places(word_ids.shape[1], lengths)
        for block in self.blocks:
            inputs = block(inputs, reverse)
        return F.linear(inputs, self.output_w, self.output_b).transpose([1, 0, 2])

    def costs(
        self,
        word_ids: paddle.Tensor,
        lengths: paddle.Tensor,
        tags: paddle.Tensor,
        elmo: Optional[paddle.Tensor] = None,
        random: Optional[StepRandom] = None,
    ) -> paddle.Tensor:
        """Return the negative log likelihood of each sentence's tags (int64 `[batch, words]`): `[batch]`."""
        return crf_costs(self(word_ids, lengths, elmo, random), tags, lengths, self.crfw)
