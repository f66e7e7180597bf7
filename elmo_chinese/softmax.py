"""The losses of the language model: exact softmax in blocks, and sampled softmax."""

import warnings
from typing import Tuple

from elmo_chinese import kernels

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

CHUNK_LOGITS = 2**24  # logits held at a time (64 MB): one block of tokens × the vocabulary
KEPT_LOGITS = 2**25  # up to this many (128 MB) probabilities are kept for the backward pass; beyond, computed again

# Paddle 3 wants cross_entropy in its place, which does not return the probabilities.
warnings.filterwarnings("ignore", "(?s).*softmax_with_cross_entropy", UserWarning)


def _normalize(logits, offsets, labels=None, own=None, hits=None):
    """Softmax and cross entropy of each row of logits, which are used up, after adding the offsets of the columns.

    Args:
        logits, offsets: `[tokens, words]` and `[words]`.
        labels: int64 `[tokens]`, the column of each token's own word.
        own, hits: where it has no column: its logit, and a column to leave out (or -1), `[tokens]` each.

    Returns:
        losses `[tokens]`, probabilities `[tokens, words]`, and that of each token's own word where it has no column.
    """
    if kernels.library():
        losses = paddle.empty([logits.shape[0]])
        own = None if own is None else own.clone()
        kernels.call("softmax_losses", logits.shape, [], [logits], [offsets], [labels], [own], [hits], [losses])
        return losses, logits, own
    logits = logits + offsets
    if own is not None:  # put in front; a token without a column to leave out has 0 there, which is written anew
        first = paddle.zeros_like(hits).unsqueeze(1)
        logits = paddle.concat([own.unsqueeze(1), logits], axis=1)
        logits = paddle.put_along_axis(logits, hits.unsqueeze(1) + 1, -1e30, 1)
        logits = paddle.put_along_axis(logits, first, own.unsqueeze(1), 1)
        labels = first.squeeze(1)
    losses, probabilities = F.softmax_with_cross_entropy(logits, labels.unsqueeze(1), return_softmax=True)
    if own is not None:
        own, probabilities = probabilities[:, 0], probabilities[:, 1:]
    return losses.flatten(), probabilities, own


def _gradients(probabilities, d_losses, labels=None, own=None):
    """Return the gradients of logits, of offsets, and of `own`, from what `_normalize` returned (used up)."""
    if kernels.library():
        d_offsets = paddle.zeros([probabilities.shape[1]])
        gradients = [d_losses.contiguous()], [d_offsets]
        kernels.call("softmax_losses_backward", probabilities.shape, [], [probabilities], [labels], [own], *gradients)
        return probabilities, d_offsets, own
    scale = d_losses.unsqueeze(1)
    d_logits = probabilities * scale
    if own is None:
        d_logits = paddle.put_along_axis(d_logits, labels.unsqueeze(1), -scale, 1, reduce="add")
    else:
        own = (own - 1) * d_losses
    # Column sums: as a product they take a tenth of the time.
    return d_logits, paddle.matmul(paddle.ones([1, d_logits.shape[0]]), d_logits).flatten(), own


class _FullSoftmax(PyLayer):
    """Token losses under the exact softmax without tokens × vocabulary in memory."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels):
        tokens, words = hidden.shape[0], weight.shape[0]
        keep = tokens * words <= KEPT_LOGITS
        ctx.rows, ctx.kept = (tokens, []) if keep else (max(1, CHUNK_LOGITS // words), None)
        losses = []
        for start in range(0, tokens, ctx.rows):
            block = slice(start, start + ctx.rows)
            logits = paddle.matmul(hidden[block], weight, transpose_y=True)
            loss, probabilities, _ = _normalize(logits, bias, labels[block])
            losses.append(loss)
            if ctx.kept is not None:
                ctx.kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, bias, labels)
        return paddle.concat(losses)

    @staticmethod
    def backward(ctx, d_losses):
        hidden, weight, bias, labels = ctx.saved_tensor()
        d_hidden, d_weight, d_bias = [], None, paddle.zeros_like(bias)
        for index, start in enumerate(range(0, hidden.shape[0], ctx.rows)):
            block = slice(start, start + ctx.rows)
            if ctx.kept is not None:
                probabilities, ctx.kept[index] = ctx.kept[index], None
            else:
                logits = paddle.matmul(hidden[block], weight, transpose_y=True)
                _, probabilities, _ = _normalize(logits, bias, labels[block])
            d_logits, d_offsets, _ = _gradients(probabilities, d_losses[block], labels[block])
            d_hidden.append(paddle.matmul(d_logits, weight))
            product = paddle.matmul(d_logits, hidden[block], transpose_x=True)
            d_weight = product if d_weight is None else d_weight.add_(product)
            d_bias += d_offsets
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
    """Cross entropy of each token over its own word and the shared negatives.

    rows and offsets are those of the tokens' words, then those of the negatives: cut apart in here, since Paddle
    would fill up the gradient of each part with zeros and add them.
    """

    @staticmethod
    def forward(ctx, hidden, rows, offsets, hits):
        own_rows, own_offsets = rows[: hidden.shape[0]], offsets[: hidden.shape[0]]
        rows, offsets = rows[hidden.shape[0] :], offsets[hidden.shape[0] :]
        own = (hidden * own_rows).sum(axis=1) + own_offsets
        logits = paddle.matmul(hidden, rows, transpose_y=True)
        losses, *ctx.kept = _normalize(logits, offsets, own=own, hits=hits)
        ctx.save_for_backward(hidden, own_rows, rows)
        return losses

    @staticmethod
    def backward(ctx, d_losses):
        hidden, own_rows, rows = ctx.saved_tensor()
        (probabilities, own), ctx.kept = ctx.kept, None
        d_logits, d_offsets, d_own = _gradients(probabilities, d_losses, own=own)
        # d_own for each number of a row; as a product it takes a tenth of the time of broadcasting.
        spread = paddle.matmul(d_own.unsqueeze(1), paddle.ones([1, hidden.shape[1]]))
        d_hidden = paddle.matmul(d_logits, rows) + spread * own_rows
        d_rows = paddle.concat([spread * hidden, paddle.matmul(d_logits, hidden, transpose_x=True)])
        return d_hidden, d_rows, paddle.concat([d_own, d_offsets]), None


def sampled_softmax_losses(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    labels: paddle.Tensor,
    negatives: np.ndarray,
    tries: int,
    sparse: bool = False,
) -> paddle.Tensor:
    """Return each token's cross entropy over its own word and the negatives, float32 `[tokens]` in nats.

    Each logit is lowered by log Q (Jean et al. 2015, "On using very large target vocabulary"), and a
    negative that is a token's own word is left out for that token. Not comparable with a perplexity.

    Args:
        hidden, weight, bias, labels: as for `full_softmax_losses`; only the rows of `weight` that are
            labels or negatives are read.
        negatives, tries: what `log_uniform_sample` returned.
        sparse: the gradient of `weight` holds only those rows (as of `paddle.nn.Embedding`).
    """
    vocab_size = weight.shape[0]
    negatives = paddle.to_tensor(np.sort(negatives))
    place = paddle.searchsorted(negatives, labels).clip(max=len(negatives) - 1)
    hits = paddle.where(paddle.gather(negatives, place) == labels, place, paddle.full_like(place, -1))
    ids = paddle.concat([labels, negatives])
    rows = F.embedding(ids, weight, sparse=sparse)
    offsets = paddle.gather(bias, ids) - log_expected_count(ids, tries, vocab_size)
    return _SampledSoftmax.apply(hidden, rows, offsets, hits)
