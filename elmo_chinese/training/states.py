"""LSTM states between the steps of training, and what a language model is worth from a zero state.

Evaluation and every sentence that gets ELMo vectors start from a zero state. Rows of training that are never put back
to zero leave it behind for ever: some cells are held where they are once (many at the clip, or a few short of it),
the weights are fitted to that, and from zero the same network can stay in another state, in which it knows nothing.
"""

import itertools
from typing import Callable, Dict, Optional, Tuple

from elmo_chinese.console import say
from elmo_chinese.network.gradients import all_reduce_sum
from elmo_chinese.training.metrics import perplexity

import numpy as np
import paddle
import paddle.distributed as dist

States = Tuple[paddle.Tensor, paddle.Tensor]

# Of the random streams of a step: dropout has the first ones, negative samples take the last two.
RESETS = 2**32 - 3
# It may be one sentence in ten that goes wrong, so one batch would not show it.
BATCHES = 20
# Sound networks had at most 1.3, wrong ones 4 and more (docs/experiments.md).
MUCH_WORSE = 2.0


def reset_rows(states: Optional[States], share: float, random) -> Optional[States]:
    """Return the states with some rows put to zero, drawn anew in every step.

    Args:
        states: hidden and cell, `[2·layers, rows, …]`, of this process's rows; None if they are all zero still.
        share: the probability of each row.
        random: the `StepRandom` of the step, at this process's first row.
    """
    if states is None or not share:
        return states
    kept = random.keep_mask(RESETS, states[0].shape[1], 1, share)
    if kept.all():
        return states
    factor = paddle.to_tensor(kept.astype(np.float32))
    return states[0] * factor, states[1] * factor


def gather_states(states: States) -> Dict[str, np.ndarray]:
    """Return the states of all rows of the global batch as arrays, from every process's rows."""
    parts = states
    if dist.get_world_size() > 1:
        parts = []
        for tensor in states:
            received = []
            dist.all_gather(received, tensor)
            parts.append(paddle.concat(received, axis=1))
    return {"hidden": parts[0].numpy(), "cell": parts[1].numpy()}


def cells_at_clip(states: States, clip: float) -> float:
    """Return the share of all cells, of all processes, that stand at the clip."""
    at_clip, cells = all_reduce_sum([float((states[1].abs() >= clip).sum()), states[1].size])
    return at_clip / cells


@paddle.no_grad()
def evaluate(
    model: paddle.nn.Layer, reader, unknown: int, asked: Callable[[], bool] = lambda: False
) -> Optional[Dict[str, float]]:
    """Return exact perplexities over a whole text; the LSTM state starts at zero and is carried through.

    Args:
        model: a `BiLM` or a `paddle.DataParallel` around one.
        reader: a `BidirectionalReader` of the dev text, for this process.
        unknown: id of `<UNK>`.
        asked: whether this process was asked to stop; looked at with each batch.

    Returns:
        `perplexity`, `perplexity_forward`, `perplexity_backward` (exp of the mean loss in nats per word, the
        first over both directions), `tokens` and `unknown_tokens`. None if any process was asked to stop.
    """
    model.eval()
    sums, states = np.zeros(4), None
    for (x, y, x_reverse, y_reverse), mask in reader.single_pass():
        if any(all_reduce_sum([float(asked())])):
            model.train()
            return None
        inputs = [paddle.to_tensor(array) for array in (x, y, x_reverse, y_reverse)]
        forward_losses, backward_losses, states = model(*inputs, states)
        sums += [
            forward_losses.numpy()[mask].sum(dtype=np.float64),
            backward_losses.numpy()[mask].sum(dtype=np.float64),
            mask.sum(),
            (y[mask] == unknown).sum(),
        ]
    model.train()
    forward, backward, tokens, unknown_tokens = all_reduce_sum(sums.tolist())
    return {
        "perplexity": perplexity((forward + backward) / (2 * tokens)),
        "perplexity_forward": perplexity(forward / tokens),
        "perplexity_backward": perplexity(backward / tokens),
        "tokens": int(tokens),
        "unknown_tokens": int(unknown_tokens),
    }


@paddle.no_grad()
def zero_state_ratio(model, reader, states: States) -> float:
    """Return how many times higher the perplexity is from a zero state than from the one that training carries.

    Both are exact, without dropout, over the same words: each of the first batches of a held-out text is begun with
    either state, which have read nothing of use both. The loss of training would be no measure: it may be sampled, and
    its state has read what stands before.

    Args:
        model: a `BiLM` or a `paddle.DataParallel` around one.
        reader: of the held-out text, for this process.
        states: after the last step, of this process's rows.

    Returns:
        the higher ratio of the two directions; about 1 for a sound network.
    """
    model.eval()
    sums = np.zeros(5)
    for batch, mask in itertools.islice(reader.single_pass(), BATCHES):
        inputs = [paddle.to_tensor(array) for array in batch]
        losses = [*model(*inputs, None)[:2], *model(*inputs, states)[:2]]
        sums += [*(loss.numpy()[mask].sum(dtype=np.float64) for loss in losses), mask.sum()]
    model.train()
    forward, backward, carried_forward, carried_backward, words = all_reduce_sum(sums.tolist())
    return perplexity(max(forward - carried_forward, backward - carried_backward) / words)


def warn_of_zero_state(ratio: float, share: float) -> None:
    """Print a warning if a `zero_state_ratio` is high; `share` is that of `reset_rows`."""
    if ratio <= MUCH_WORSE:
        return
    advice = (
        "if it stays, raise --reset_states or lower --learning_rate"
        if share
        else "stop, and resume with --load_dir auto --reset_states 0.1"
    )
    say(
        f"warning: from a zero LSTM state, as evaluation and ELMo vectors start, the perplexity is {ratio:.1f} times "
        "that from the state training carries: this network's vectors are worth little, whatever its training figures "
        f"say; {advice}"
    )
