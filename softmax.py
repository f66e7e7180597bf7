"""The losses of the language model: exact softmax in blocks, and sampled softmax."""

from typing import Tuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

CHUNK_LOGITS = 2**23  # logits held at a time (32 MB): one block of tokens × the vocabulary
KEPT_LOGITS = 2**25  # up to this many (128 MB) probabilities are kept for the backward pass; beyond, computed again


def _loss_and_probabilities(logits, labels):
    """Return cross entropy `[tokens, 1]` and softmax `[tokens, words]`; Paddle's fused operator is the fastest way."""
    return F.softmax_with_cross_entropy(logits, labels.unsqueeze(1), return_softmax=True)


def _logits(hidden, weight, bias):
    return paddle.addmm(bias.unsqueeze(0), hidden, weight.t())


def _column_sums(matrix):
    """Return the sum over rows; as a product it takes a tenth of the time."""
    return paddle.matmul(paddle.ones([1, matrix.shape[0]]), matrix).flatten()


def _logit_gradients(probabilities, labels, d_losses):
    """Return d losses / d logits: probability, less 1 where the logit is the label's."""
    scale = d_losses.unsqueeze(1)
    return paddle.put_along_axis(probabilities * scale, labels.unsqueeze(1), -scale, 1, reduce="add")


class _FullSoftmax(PyLayer):
    """Token losses under the exact softmax without tokens × vocabulary in memory."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels):
        tokens, words = hidden.shape[0], weight.shape[0]
        ctx.rows = max(1, CHUNK_LOGITS // words)
        ctx.kept = [] if tokens * words <= KEPT_LOGITS else None
        losses = []
        for start in range(0, tokens, ctx.rows):
            block = slice(start, start + ctx.rows)
            logits = _logits(hidden[block], weight, bias)
            loss, probabilities = _loss_and_probabilities(logits, labels[block])
            losses.append(loss)
            if ctx.kept is not None:
                ctx.kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, bias, labels)
        return paddle.concat(losses).flatten()

    @staticmethod
    def backward(ctx, d_losses):
        hidden, weight, bias, labels = ctx.saved_tensor()
        d_hidden, d_weight, d_bias = [], paddle.zeros_like(weight), paddle.zeros_like(bias)
        for index, start in enumerate(range(0, hidden.shape[0], ctx.rows)):
            block = slice(start, start + ctx.rows)
            if ctx.kept is not None:
                probabilities = ctx.kept[index]
            else:
                probabilities = F.softmax(_logits(hidden[block], weight, bias))
            d_logits = _logit_gradients(probabilities, labels[block], d_losses[block])
            d_hidden.append(paddle.matmul(d_logits, weight))
            d_weight += paddle.matmul(d_logits, hidden[block], transpose_x=True)
            d_bias += _column_sums(d_logits)
        return paddle.concat(d_hidden), d_weight, d_bias, None


def full_softmax_losses(
    hidden: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, labels: paddle.Tensor
) -> paddle.Tensor:
    """Return the exact softmax cross entropy of each token, float32 `[tokens]` in nats.

    Args:
        hidden: float32 `[tokens, embed]`.
        weight, bias: `[vocab, embed]` and `[vocab]`.
        labels: int64 `[tokens]`.
    """
    return _FullSoftmax.apply(hidden, weight, bias, labels)


def log_uniform_sample(generator: np.random.Philox, count: int, vocab_size: int) -> Tuple[np.ndarray, int]:
    """Draw `count` different word ids with p(k) = log((k+2)/(k+1)) / log(vocab_size+1).

    Returns:
        int64 `[count]`, and the number of draws (with repetition) that it took to see that many.

    Raises:
        ValueError: more ids asked for than there are.
    """
    if count > vocab_size:
        raise ValueError(f"cannot draw {count} different negative samples from {vocab_size} words")
    uniform = np.random.Generator(generator)
    draws = np.empty(0, dtype=np.int64)
    while True:
        more = np.exp(uniform.random(2 * count + len(draws)) * np.log(vocab_size + 1)).astype(np.int64) - 1
        draws = np.concatenate([draws, np.minimum(more, vocab_size - 1)])
        words, first_seen = np.unique(draws, return_index=True)
        if len(words) >= count:
            order = np.argsort(first_seen)[:count]
            return words[order], int(first_seen[order[-1]]) + 1


def log_expected_count(ids: paddle.Tensor, tries: int, vocab_size: int) -> paddle.Tensor:
    """Return log Q, float32: Q = 1 - (1-p)^tries is the chance that an id is among `tries` log-uniform draws."""
    rank = ids.astype("float32")
    probability = paddle.log1p(1 / (rank + 1)) / float(np.log(vocab_size + 1))
    return paddle.log(-paddle.expm1(tries * paddle.log1p(-probability)))


class _SampledSoftmax(PyLayer):
    """Cross entropy of each token over its own word (put into column 0) and the shared negatives."""

    @staticmethod
    def forward(ctx, hidden, true_rows, true_offsets, rows, offsets, hits):
        first = paddle.zeros_like(hits)
        true_logits = (hidden * true_rows).sum(axis=1, keepdim=True) + true_offsets.unsqueeze(1)
        logits = _logits(hidden, rows, offsets)
        # A token without a hit has hits = 0 and loses nothing: column 0 is written right after.
        logits = paddle.put_along_axis(logits, hits.unsqueeze(1), -1e20, 1)
        logits = paddle.put_along_axis(logits, first.unsqueeze(1), true_logits, 1)
        losses, ctx.probabilities = _loss_and_probabilities(logits, first)
        ctx.save_for_backward(hidden, true_rows, rows, first)
        return losses.flatten()

    @staticmethod
    def backward(ctx, d_losses):
        hidden, true_rows, rows, first = ctx.saved_tensor()
        d_logits = _logit_gradients(ctx.probabilities, first, d_losses)
        d_true = d_logits[:, :1]
        d_logits = paddle.put_along_axis(d_logits, first.unsqueeze(1), 0.0, 1)
        d_hidden = paddle.matmul(d_logits, rows) + d_true * true_rows
        d_rows = paddle.matmul(d_logits, hidden, transpose_x=True)
        return d_hidden, d_true * hidden, d_true.flatten(), d_rows, _column_sums(d_logits), None


def sampled_softmax_losses(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    labels: paddle.Tensor,
    negatives: np.ndarray,
    tries: int,
) -> paddle.Tensor:
    """Return each token's cross entropy over its own word and the negatives, float32 `[tokens]` in nats.

    Each logit is lowered by log Q (Jean et al. 2015, "On using very large target vocabulary"), and a
    negative that is a token's own word is left out for that token. Not comparable with a perplexity.

    Args:
        hidden, weight, bias, labels: as for `full_softmax_losses`; only the rows of `weight` that are
            labels or negatives are read.
        negatives, tries: what `log_uniform_sample` returned.
    """
    tokens, vocab_size = labels.shape[0], weight.shape[0]
    negatives = paddle.to_tensor(np.sort(negatives))
    place = paddle.searchsorted(negatives, labels).clip(max=len(negatives) - 1)
    hits = paddle.where(paddle.gather(negatives, place) == labels, place + 1, paddle.zeros_like(place))
    # The first negative stands twice: its first place is the column for each token's own word.
    ids = paddle.concat([labels, negatives[:1], negatives])
    rows = F.embedding(ids, weight)
    offsets = paddle.gather(bias, ids) - log_expected_count(ids, tries, vocab_size)
    return _SampledSoftmax.apply(hidden, rows[:tokens], offsets[:tokens], rows[tokens:], offsets[tokens:], hits)
