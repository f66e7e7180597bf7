"""The losses of the language model: exact softmax in blocks, and sampled softmax."""

import warnings
from typing import Sequence, Tuple, Union

from elmo_chinese.network import kernels
from elmo_chinese.network.precision import matmul

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

CHUNK_LOGITS = 2**24  # logits held at a time (64 MB): one block of tokens × the vocabulary
KEPT_LOGITS = 2**26  # up to this many (256 MB) probabilities are kept for the backward pass; beyond, computed again
NO_LABEL = -(2**31)  # in place of Paddle's -100, which would be left out of the loss and not of the gradient

# Paddle 3 wants cross_entropy in its place, which does not return the probabilities.
warnings.filterwarnings("ignore", "(?s).*softmax_with_cross_entropy", UserWarning)


def _call(name, *tensors):
    """Call a function of the C++ library for the rows of the first tensor, of each direction if it has three axes."""
    if len(tensors[0].shape) == 2:
        return kernels.call(name, tensors[0].shape, [], *([tensor] for tensor in tensors))
    for direction in range(tensors[0].shape[0]):
        _call(name, *(None if tensor is None else tensor[direction] for tensor in tensors))


def _normalize(logits, offsets, labels=None, own=None, hits=None):
    """Softmax and cross entropy of each row of logits, which are used up, after adding the offsets of the columns.

    Args:
        logits, offsets: `[…, tokens, words]` and `[…, words]`, where … is nothing, or the directions.
        labels: int64 `[tokens]`, the column of each token's own word.
        own, hits: where it has no column: its logit, and a column to leave out (or -1), `[…, tokens]` each.

    Returns:
        losses `[…, tokens]`, probabilities like logits, and that of each token's own word where it has no column;
        then, in Paddle, the probabilities are those among the columns alone, which saves a pass over them.
    """
    if kernels.library():
        if labels is not None:  # it would read, and write, what is not its own
            least, most = int(labels.min()), int(labels.max())
            if least < 0 or most >= logits.shape[-1]:
                raise ValueError(f"labels go from {least} to {most}, but there are {logits.shape[-1]} words")
        losses = paddle.empty(logits.shape[:-1])
        own = None if own is None else own.clone()
        _call("softmax_losses", logits, offsets, labels, own, hits, losses)
        return losses, logits, own
    logits = logits.add_(offsets.unsqueeze(-2).expand(logits.shape))
    if own is None:
        how = dict(ignore_index=NO_LABEL, return_softmax=True)
        losses, probabilities = F.softmax_with_cross_entropy(logits, labels.unsqueeze(1), **how)
        return losses.flatten(), probabilities, None
    rows, hits = logits.flatten(0, -2), hits.reshape([-1, 1])
    left_out = paddle.scale(hits.clip(-1, 0).astype(logits.dtype), -1e30, -1e30)  # 0 where there is none
    hits = hits.clip(min=0)
    rows.put_along_axis_(hits, left_out, 1, reduce="add")
    # The loss of any column that is not left out, and its logit, give the logarithm of the sum over the columns.
    column = (1 - hits).clip(0, logits.shape[-1] - 1)
    losses, probabilities = F.softmax_with_cross_entropy(rows, column, return_softmax=True)
    others = (losses + paddle.index_sample(rows, column)).reshape(own.shape) - own
    return F.softplus(others), probabilities.reshape(logits.shape), F.sigmoid(-others)


def _gradients(probabilities, d_losses, labels=None, own=None):
    """Return the gradients of logits, of offsets, and of `own`, from what `_normalize` returned (used up)."""
    if kernels.library():
        d_offsets = paddle.zeros(probabilities.shape[:-2] + probabilities.shape[-1:])
        _call("softmax_losses_backward", probabilities, labels, own, d_losses.contiguous(), d_offsets)
        return probabilities, d_offsets, own
    scale = (d_losses if own is None else (1 - own) * d_losses).unsqueeze(-1)
    d_logits = probabilities * scale.expand(probabilities.shape)
    if own is None:
        d_logits = d_logits.put_along_axis_(labels.unsqueeze(1), -scale, 1, reduce="add")
    else:
        own = -scale.squeeze(-1)
    # Column sums: as a product they take a tenth of the time.
    d_offsets = paddle.matmul(paddle.ones_like(scale), d_logits, transpose_x=True).squeeze(-2)
    return d_logits, d_offsets, own


def _unless(frozen, *gradients):
    """Return gradients, None for what is frozen: Paddle refuses any other."""
    return (None if leave else gradient for leave, gradient in zip(frozen, gradients))


class _FullSoftmax(PyLayer):
    """Token losses under the exact softmax without tokens × vocabulary in memory."""

    @staticmethod
    def forward(ctx, precision, hidden, weight, bias, labels):
        tokens, words = hidden.shape[0], weight.shape[0]
        keep = tokens * words <= KEPT_LOGITS
        ctx.rows, ctx.kept = (tokens, []) if keep else (max(1, CHUNK_LOGITS // words), None)
        losses, ctx.precision = [], precision
        for start in range(0, tokens, ctx.rows):
            block = slice(start, start + ctx.rows)
            logits = matmul(hidden[block], weight, precision, transpose_y=True)
            loss, probabilities, _ = _normalize(logits, bias, labels[block])
            losses.append(loss)
            if ctx.kept is not None:
                ctx.kept.append(probabilities)
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.frozen = [tensor.stop_gradient for tensor in (hidden, weight, bias)]
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
                logits = matmul(hidden[block], weight, ctx.precision, transpose_y=True)
                _, probabilities, _ = _normalize(logits, bias, labels[block])
            d_logits, d_offsets, _ = _gradients(probabilities, d_losses[block], labels[block])
            d_hidden.append(matmul(d_logits, weight, ctx.precision))
            product = matmul(d_logits, hidden[block], ctx.precision, transpose_x=True)
            d_weight = product if d_weight is None else d_weight.add_(product)
            d_bias += d_offsets
        return *_unless(ctx.frozen, paddle.concat(d_hidden), d_weight, d_bias), None


def full_softmax_losses(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    labels: paddle.Tensor,
    precision: str = "float32",
) -> paddle.Tensor:
    """Return the exact softmax cross entropy of each token, float32 `[tokens]` in nats.

    Args:
        hidden: float32 `[tokens, embed]`.
        weight, bias: `[vocab, embed]` and `[vocab]`.
        labels: int64 `[tokens]`.
        precision: of the products, see `precision.py`.
    """
    return _FullSoftmax.apply(precision, hidden, weight, bias, labels)


def log_uniform_sample(generator: np.random.Philox, count: int, vocab_size: int) -> Tuple[np.ndarray, int]:
    """Draw `count` different word ids with p(k) = log((k+2)/(k+1)) / log(vocab_size+1).

    Returns:
        int64 `[count]` in rising order, and the number of draws (with repetition) that it took to see that many.

    Raises:
        ValueError: more ids asked for than there are.
    """
    if count > vocab_size:
        raise ValueError(f"cannot draw {count} different negative samples from {vocab_size} words")
    uniform = np.random.Generator(generator)
    draws, drawn = [], np.zeros(vocab_size, dtype=bool)
    while np.count_nonzero(drawn) < count:
        more = np.exp(uniform.random(count) * np.log(vocab_size + 1)).astype(np.int64) - 1
        draws.append(np.minimum(more, vocab_size - 1))
        drawn[draws[-1]] = True
    draws = np.concatenate(draws)
    # The first draw of each word, without sorting, which would take ten times as long.
    number, first = np.arange(len(draws)), np.empty(vocab_size, dtype=np.int64)
    first[draws[::-1]] = number[::-1]
    tries = int(np.flatnonzero(first[draws] == number)[count - 1]) + 1
    drawn[:] = False
    drawn[draws[:tries]] = True
    return np.flatnonzero(drawn), tries


def log_expected_count(ids: paddle.Tensor, tries: Union[int, paddle.Tensor], vocab_size: int) -> paddle.Tensor:
    """Return log Q, float32: Q = 1 - (1-p)^tries is the chance that an id is among `tries` log-uniform draws."""
    negative = paddle.log1p(paddle.reciprocal(ids.astype("float32") + 1)) / -float(np.log(vocab_size + 1))  # -p
    return paddle.log(-paddle.expm1(paddle.log1p(negative) * tries))


class _SampledSoftmax(PyLayer):
    """Cross entropy of each token over its own word and the shared negatives.

    rows and offsets are those of the tokens' words, then those of the negatives: cut apart in here, since Paddle
    would fill up the gradient of each part with zeros and add them.
    """

    @staticmethod
    def forward(ctx, precision, hidden, rows, offsets, hits):
        frozen = [tensor.stop_gradient for tensor in (hidden, rows, offsets)]
        parts = [hidden.shape[1], rows.shape[1] - hidden.shape[1]]
        own_rows, rows = paddle.split(rows, parts, axis=1)
        own_offsets, offsets = paddle.split(offsets, parts, axis=1)
        own = (hidden * own_rows).sum(axis=-1) + own_offsets
        logits = matmul(hidden, rows, precision, transpose_y=True)
        ctx.precision = precision
        losses, *ctx.kept = _normalize(logits, offsets, own=own, hits=hits)
        ctx.save_for_backward(hidden, own_rows, rows)
        ctx.frozen = frozen
        return losses

    @staticmethod
    def backward(ctx, d_losses):
        hidden, own_rows, rows = ctx.saved_tensor()
        (probabilities, own), ctx.kept = ctx.kept, None
        d_logits, d_offsets, d_own = _gradients(probabilities, d_losses, own=own)
        spread = d_own.unsqueeze(-1).expand(hidden.shape)
        d_hidden = matmul(d_logits, rows, ctx.precision).add_(spread * own_rows)
        d_rows = matmul(d_logits, hidden, ctx.precision, transpose_x=True)
        d_rows = paddle.concat([spread * hidden, d_rows], axis=1)
        return *_unless(ctx.frozen, d_hidden, d_rows, paddle.concat([d_own, d_offsets], axis=1)), None


def sampled_softmax_losses(
    hidden: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    labels: paddle.Tensor,
    negatives: np.ndarray,
    tries: Sequence[int],
    sparse: bool = False,
    precision: str = "float32",
) -> paddle.Tensor:
    """Return each token's cross entropy over its own word and the negatives, float32 `[directions, tokens]` in nats.

    Each logit is lowered by log Q (Jean et al. 2015, "On using very large target vocabulary"), and a
    negative that is a token's own word is left out for that token. Not comparable with a perplexity.

    Args:
        hidden: float32 `[directions, tokens, embed]`.
        weight, bias: `[vocab, embed]` and `[vocab]`; only the rows of `weight` that are labels or negatives are read.
        labels: int64 `[directions, tokens]`.
        negatives, tries: what `log_uniform_sample` returned for each direction, `[directions, count]` and a number.
        sparse: the gradient of `weight` holds only those rows (as of `paddle.nn.Embedding`).
        precision: of the products, see `precision.py`.
    """
    negatives = paddle.to_tensor(negatives)
    tries = paddle.to_tensor(np.array(tries, dtype=np.float32)[:, None])
    place = paddle.searchsorted(negatives, labels).clip(max=negatives.shape[1] - 1)
    # Not take_along_axis, which reads back whether all places exist.
    found = paddle.index_sample(negatives, place) == labels
    hits = paddle.where(found, place, paddle.full_like(place, -1))
    ids = paddle.concat([labels, negatives], axis=1)
    rows = F.embedding(ids, weight, sparse=sparse)
    offsets = paddle.gather(bias, ids.flatten()).reshape(ids.shape)
    offsets = offsets - log_expected_count(ids, tries, weight.shape[0])
    return _SampledSoftmax.apply(precision, hidden, rows, offsets, hits)
