"""The losses of the language model: exact softmax in blocks, and sampled softmax."""

from typing import Tuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

CHUNK_LOGITS = 2**23  # logits held at a time (32 MB): one block of tokens × the vocabulary
KEPT_LOGITS = 2**25  # up to this many (128 MB) the backward pass keeps them; beyond, it computes them again


class _FullSoftmax(PyLayer):
    """Token losses under the exact softmax without tokens × vocabulary in memory."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels):
        tokens, words = hidden.shape[0], weight.shape[0]
        ctx.rows = max(1, CHUNK_LOGITS // words)
        ctx.kept = [] if tokens * words <= KEPT_LOGITS else None
        losses, log_sums = [], []
        for start in range(0, tokens, ctx.rows):
            block = slice(start, start + ctx.rows)
            logits = F.linear(hidden[block], weight.t(), bias)
            log_sum = paddle.logsumexp(logits, axis=1, keepdim=True)
            losses.append(log_sum - paddle.take_along_axis(logits, labels[block].unsqueeze(1), axis=1))
            log_sums.append(log_sum)
            if ctx.kept is not None:
                ctx.kept.append(logits)
        ctx.log_sums = log_sums
        ctx.save_for_backward(hidden, weight, bias, labels)
        return paddle.concat(losses).flatten()

    @staticmethod
    def backward(ctx, d_losses):
        hidden, weight, bias, labels = ctx.saved_tensor()
        d_hidden, d_weight, d_bias = [], paddle.zeros_like(weight), paddle.zeros_like(bias)
        for index, start in enumerate(range(0, hidden.shape[0], ctx.rows)):
            block = slice(start, start + ctx.rows)
            logits = ctx.kept[index] if ctx.kept is not None else F.linear(hidden[block], weight.t(), bias)
            scale = d_losses[block].unsqueeze(1)
            # d loss / d logit = probability - (1 where the logit is the label's)
            d_logits = paddle.put_along_axis(
                paddle.exp(logits - ctx.log_sums[index]) * scale, labels[block].unsqueeze(1), -scale, 1, reduce="add"
            )
            d_hidden.append(paddle.matmul(d_logits, weight))
            d_weight += paddle.matmul(d_logits, hidden[block], transpose_x=True)
            d_bias += d_logits.sum(axis=0)
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
    negatives = paddle.to_tensor(negatives)
    ids = paddle.concat([labels, negatives])
    rows = F.embedding(ids, weight)
    offsets = paddle.gather(bias, ids) - log_expected_count(ids, tries, vocab_size)
    true_logits = (hidden * rows[:tokens]).sum(axis=1, keepdim=True) + offsets[:tokens].unsqueeze(1)
    logits = F.linear(hidden, rows[tokens:].t(), offsets[tokens:])
    hits = (labels.unsqueeze(1) == negatives.unsqueeze(0)).astype(logits.dtype)
    logits = paddle.concat([true_logits, logits - 1e20 * hits], axis=1)
    return (paddle.logsumexp(logits, axis=1, keepdim=True) - true_logits).flatten()
