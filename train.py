"""Pretrain the bidirectional language model.

    sh run.sh                                     # set-up, then this with the data/ of the project
    python train.py --train_path 'data/train/*' --test_path 'data/dev/*' \\
        --vocab_path data/vocabulary.txt          # one process; on CPU add small sizes
    CPU_NUM=2 sh run.sh                           # two processes on CPU
    CUDA_VISIBLE_DEVICES=0,1,2,3 sh run.sh        # four GPUs
    python train.py … --load_dir auto             # resume after a kill; run.sh always does

Top to bottom: one step, evaluation, set-up, resuming, the loop.
"""

import argparse
import contextlib
import math
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from elmo_chinese import runtime
from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say
from elmo_chinese.network import kernels
from elmo_chinese.network.gradients import (
    SPARSE,
    Adagrad,
    all_reduce_sum,
    data_parallel,
    scale_gradients,
    share_row_gradients,
    step_figures,
)
from elmo_chinese.network.precision import why_no_bfloat16
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint, CheckpointError, Score
from elmo_chinese.storage.pretrained import bilm_numbers
from elmo_chinese.text.vocabulary import Vocabulary
from elmo_chinese.training import session
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.metrics import MetricsLog, StepClock, describe, perplexity, read_metrics, report_step
from elmo_chinese.training.options import make_parser
from elmo_chinese.training.session import StopRequest, TrainingError, choose_device, versions
from elmo_chinese.training.states import cells_at_clip, reset_rows, warn_of_zero_state, zero_state_ratio

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import BiLM, StepRandom, init_pretraining_params
from reader import BidirectionalReader

# What `checkpoint.json` must hold for a run to resume.
INFO = {
    **{"step": int, "flags": dict, "rows": int, "vocabulary_sha256": str, "vocabulary_size": int},
}
States = Tuple[paddle.Tensor, paddle.Tensor]  # hidden and cell, see `BiLSTM`
MOST_ROWS = 65_535  # of a row-sparse update on a GPU: Paddle starts a block for each, along an axis that has no more
LOOKED_AT = 100_000  # words of the text, to tell whether the vocabulary is one of it


def train_step(
    model: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    batch: Sequence[np.ndarray],
    states: Optional[States],
    random: StepRandom,
    accumulate: int = 1,
    max_grad_norm: float = 10.0,
    stop: bool = False,
) -> Tuple[float, float, States, bool]:
    """Do one update.

    Args:
        model: a `BiLM`, or a `paddle.DataParallel` around one.
        batch: x, y, x_reverse, y_reverse of this process, int64 `[rows, steps]`.
        states: of all rows of this process, or None for zeros.
        random: `StepRandom` of this step, at this process's first row.
        accumulate: the rows are worked on in so many equal parts.
        stop: this process was asked to stop.

    Returns:
        `(loss, grad_norm, states, stop)`: mean of all token losses of the global batch in nats, gradient
        norm before clipping, the detached states, and whether any process was asked to stop.

    Raises:
        TrainingError: loss or gradient is not finite; the parameters are as they were before the step.
    """
    rows, num_steps = batch[0].shape
    part = rows // accumulate
    losses, new_states = [], []
    for number in range(accumulate):
        mine = slice(number * part, (number + 1) * part)
        inputs = [paddle.to_tensor(array[mine]) for array in batch]
        part_states = None if states is None else (states[0][:, mine], states[1][:, mine])
        part_random = random._replace(first_row=random.first_row + mine.start)
        # Gradients are averaged over processes once, with the last part; the forward pass arms that.
        alone = number < accumulate - 1 and isinstance(model, paddle.DataParallel)
        with model.no_sync() if alone else contextlib.nullcontext():
            forward_losses, backward_losses, after = model(*inputs, part_states, part_random)
            loss = (forward_losses + backward_losses).mean() / (2 * accumulate)
            (loss * num_steps).backward()
        losses.append(loss.detach())
        new_states.append(after)
    if isinstance(model, paddle.DataParallel):
        share_row_gradients(model.parameters())
    loss, norm, stop = step_figures(losses, stop, model.parameters())
    scale_gradients(model.parameters(), norm, max_grad_norm, optimizer)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.clear_grad()
        raise TrainingError(f"loss is {loss}, gradient norm is {norm}")
    optimizer.step()
    optimizer.clear_grad(set_to_zero=False)  # zeros would only be overwritten
    if accumulate > 1:
        states = tuple(paddle.concat(parts, axis=1) for parts in zip(*new_states))
    else:
        states = new_states[0]
    return loss, norm, states, stop


@paddle.no_grad()
def evaluate(
    model: paddle.nn.Layer, reader: BidirectionalReader, unknown: int, asked: Callable[[], bool] = lambda: False
) -> Optional[Dict[str, float]]:
    """Return exact perplexities over a whole text; the LSTM state starts at zero and is carried through.

    Args:
        model: a `BiLM` or a `paddle.DataParallel` around one.
        reader: of the held-out text, for this process.
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


def make_optimizer(name: str, learning_rate: float, parameters: Sequence[paddle.Tensor]) -> paddle.optimizer.Optimizer:
    """Return the optimizer a flag names. Clipping is done by `scale_gradients`."""
    common = dict(learning_rate=learning_rate, parameters=parameters)
    if name == "adagrad":
        return Adagrad(epsilon=0.0, initial_accumulator_value=1.0, **common)
    if name == "adam":
        return paddle.optimizer.Adam(**common)
    if name == "sgd":
        return paddle.optimizer.SGD(**common)
    return paddle.optimizer.RMSProp(**common)


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


def report_start(run: "Run", device: str, found: Optional[Checkpoint], progress: "Progress") -> None:
    """Print what is about to be trained, on what, and for how long."""
    options, step = run.options, progress.step
    parameters = sum(parameter.size for parameter in run.lm.parameters())
    # Value, gradient and optimizer state of each parameter, and what the backward pass keeps of a step.
    copies = 4 if options.optim == "adam" else 3
    kept = (
        options.batch_size
        * options.num_steps
        * options.num_layers
        * (16 * options.hidden_size + 8 * options.embed_size)
    )
    gigabytes = (parameters * copies + kept) * 4 / 2**30
    softmax = f"sampled, {options.n_negative_samples_batch} negatives" if options.sample_softmax else "full"
    reader = run.train_reader
    if found:
        place = f"epoch {run.epoch(progress.tokens):.2f}, file {int(found.state['position'][1]) + 1}"
        say(f"resuming from {found.path}: step {step}, {place}")
    say(f"devices     {dist.get_world_size()} × {device} ({runtime.SETTINGS}; {kernels.describe()})")
    say("versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    say(
        f"network     {options.num_layers} layers, embed {options.embed_size}, hidden {options.hidden_size}, "
        f"vocabulary {run.vocabulary.size}, softmax {softmax}"
    )
    say(f"parameters  {parameters:,} (about {gigabytes:.1f} GB with gradients, optimizer and activations)")
    say(f"text        {reader.tokens_per_epoch:,} words an epoch in {len(reader.shards)} files")
    unknown = np.mean(reader.shards[0].tokens[:LOOKED_AT] == run.vocabulary.unknown)
    if unknown > 0.5:
        say(
            f"warning: {100 * unknown:.0f} % of the training text is <UNK>: {options.vocab_path} is not the vocabulary "
            "of this text; make one with: python preprocess.py vocabulary"
        )
    say(
        f"steps       {step} → {run.total_steps} of {reader.rows} rows × {options.num_steps} words "
        f"({run.epoch(run.all_tokens(progress)):.2f} epochs), seed {options.random_seed}"
    )


def count_steps(options: argparse.Namespace, train_reader: BidirectionalReader, progress: "Progress") -> int:
    """Return the number of the last step, from the words that are counted and those that were trained on already."""
    tokens = train_reader.tokens_per_epoch
    if tokens < train_reader.rows * options.num_steps:
        raise OptionError(
            f"the training text has {tokens} words, less than one batch of "
            f"{train_reader.rows} rows × {options.num_steps} words; lower --batch_size or --num_steps, or bring more"
        )
    if options.all_train_tokens:
        if abs(options.all_train_tokens - tokens) > 0.01 * tokens:
            say(f"warning: --all_train_tokens {options.all_train_tokens}, but {tokens} words were counted")
        tokens = options.all_train_tokens
    left = math.ceil(options.max_epoch * tokens) - progress.tokens
    steps = -(-left // (train_reader.rows * options.num_steps))
    return progress.step + max(steps, 0 if progress.step else 1)


def check_resumable(found: Checkpoint) -> None:
    """Raise `CheckpointError` if no run of this program can resume from a checkpoint."""
    checkpoint.check_kind(found, "rows")
    checkpoint.check_info(found, INFO)


def keep_rows(options: argparse.Namespace, given: Set[str], found: Checkpoint) -> None:
    """Choose the batch size and the passes that were not given so that a step has as many rows as before."""
    rows, processes = found.info["rows"], dist.get_world_size()
    if "accumulate" not in given:
        known = "batch_size" in given
        passes = rows // (processes * options.batch_size) if known else found.info["flags"].get("accumulate", 1)
        if passes and rows % (processes * passes) == 0:
            options.accumulate = passes
            if known and passes > 1:
                say(f"--accumulate {passes}: so a step has {rows} rows as before")
    passes = processes * options.accumulate
    if "batch_size" not in given and rows % passes == 0:
        options.batch_size = rows // passes


def load_vocabulary(options: argparse.Namespace, found: Optional[Checkpoint]) -> Vocabulary:
    """Return the vocabulary that was asked for, or the checkpoint's own."""
    if not options.vocab_path:
        raise OptionError("--vocab_path is missing; make a vocabulary with: python preprocess.py vocabulary")
    vocabulary = Vocabulary(options.vocab_path)
    if found and found.info["vocabulary_sha256"] != vocabulary.sha256:
        raise OptionError(
            f"{options.vocab_path} ({vocabulary.size} words) is not the vocabulary of {found.path} "
            f"({found.info['vocabulary_size']} words); use {found.path / checkpoint.VOCABULARY_FILE}"
        )
    if options.visualdl_embeddings > vocabulary.size - 3:
        raise OptionError(
            f"--visualdl_embeddings {options.visualdl_embeddings} is more than the {vocabulary.size - 3} words of "
            f"{options.vocab_path} besides <S>, </S> and <UNK>; lower it"
        )
    if found:  # before memory is set aside for these sizes
        numbers = bilm_numbers(vocabulary.size, options.embed_size, options.hidden_size, options.num_layers)
        if numbers > sum(array.size for array in found.model.values()):
            raise CheckpointError(
                f"{found.path}: {checkpoint.MODEL_FILE} is too small for the sizes in {checkpoint.INFO_FILE}"
            )
    return vocabulary


def make_readers(
    options: argparse.Namespace, vocabulary: Vocabulary
) -> Tuple[BidirectionalReader, Optional[BidirectionalReader]]:
    """Return the readers of training and held-out text; the second is None if there is none."""
    if not options.train_path:
        raise OptionError("--train_path is missing; --help says what it takes")
    place = dict(rank=dist.get_rank(), world_size=dist.get_world_size(), cache_dir=options.cache_dir)
    rows = options.batch_size * options.accumulate
    order = dict(shuffle=options.shuffle, seed=options.random_seed)
    train = BidirectionalReader(options.train_path, vocabulary, rows, options.num_steps, **order, **place)
    dev = (
        BidirectionalReader(options.test_path, vocabulary, rows, options.num_steps, **place)
        if options.test_path
        else None
    )
    return train, dev


def make_model(options: argparse.Namespace, vocabulary: Vocabulary) -> BiLM:
    """Return a freshly initialised `BiLM`."""
    if options.sample_softmax and options.n_negative_samples_batch > vocabulary.size:
        raise OptionError(
            f"--n_negative_samples_batch {options.n_negative_samples_batch} is more than the {vocabulary.size} words "
            "of the vocabulary; lower it, or leave out --sample_softmax"
        )
    if options.precision == "bfloat16" and why_no_bfloat16():
        raise OptionError(f"--precision bfloat16 cannot be had: {why_no_bfloat16()}; leave it out")
    paddle.seed(options.random_seed)
    return BiLM(
        vocabulary.size,
        options.embed_size,
        options.hidden_size,
        options.num_layers,
        options.cell_clip,
        options.proj_clip,
        options.dropout,
        options.n_negative_samples_batch if options.sample_softmax else 0,
        sparse=options.optim in SPARSE and (paddle.device.get_device() == "cpu" or vocabulary.size <= MOST_ROWS),
        precision=options.precision,
    )


@dataclass
class Progress:
    """What the loop carries from step to step, besides parameters, optimizer and states.

    Attributes:
        step: steps done. tokens: words trained on.
        best: the lowest dev perplexity so far. losses: sum over the steps since the last log line, in nats.
        evaluation_due: the evaluation of the last step was not made, or not to its end, because of a stop.
    """

    step: int = 0
    tokens: int = 0
    best: Optional[float] = None
    losses: float = 0.0
    steps_since_log: int = 0
    evaluation_due: bool = False


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    options: argparse.Namespace
    vocabulary: Vocabulary
    lm: BiLM
    model: paddle.nn.Layer  # lm, or paddle.DataParallel around it
    optimizer: paddle.optimizer.Optimizer
    train_reader: BidirectionalReader
    dev_reader: Optional[BidirectionalReader]
    total_steps: int
    log: Optional[MetricsLog]  # of the first process

    @property
    def words_per_step(self) -> int:
        return self.train_reader.rows * self.options.num_steps

    def epoch(self, tokens: int) -> float:
        return tokens / self.train_reader.tokens_per_epoch

    def all_tokens(self, progress: Progress) -> int:
        """Return the words that will have been trained on after the last step."""
        return progress.tokens + (self.total_steps - progress.step) * self.words_per_step


def progress_of(found: Checkpoint, dev_reader: Optional[BidirectionalReader]) -> Progress:
    """Return the progress of a checkpoint; what was of another held-out text, or is due on none, is left out."""
    progress, text = checkpoint.progress_of(found, Progress), dev_reader and dev_reader.corpus
    if found.info.get("dev_text", text) != text:
        progress.best = None
    progress.evaluation_due = progress.evaluation_due and text is not None
    return progress


def set_up(
    parser: TrainingParser, arguments: List[str], options: argparse.Namespace, given: Set[str]
) -> Tuple[Run, Progress, Optional[States]]:
    """Make everything a run needs; return the `Run`, and progress and states to start the loop with."""
    device = choose_device(options.use_gpu)
    found, options = session.checkpoint_to_resume(parser, arguments, options, "para_save_dir", check_resumable)
    if found:
        keep_rows(options, given, found)
    vocabulary = load_vocabulary(options, found)
    train_reader, dev_reader = make_readers(options, vocabulary)
    progress = progress_of(found, dev_reader) if found else Progress()
    total_steps = count_steps(options, train_reader, progress)
    lm = make_model(options, vocabulary)
    optimizer = make_optimizer(options.optim, options.learning_rate, lm.parameters())
    if options.load_pretraining_params and not found:
        init_pretraining_params(None, options.load_pretraining_params, lm)
    states = resume(found, lm, optimizer, train_reader, options) if found else None
    model = data_parallel(lm) if dist.get_world_size() > 1 else lm
    log = None
    if dist.get_rank() == 0:
        hparams = dict(parser.compared(options), global_batch=train_reader.rows, vocabulary_size=vocabulary.size)
        log = open_log(options, hparams, progress.step)
    run = Run(options, vocabulary, lm, model, optimizer, train_reader, dev_reader, total_steps, log)
    if log:
        report_start(run, device, found, progress)
    return run, progress, states


def open_log(options: argparse.Namespace, hparams: Dict[str, Any], step: int) -> MetricsLog:
    """Return the `MetricsLog` of a run that starts from a step."""
    curve, root = "dev/perplexity", Path(options.para_save_dir)
    if not options.test_path:
        curve = "train/sampled_loss" if options.sample_softmax else "train/loss"
    return MetricsLog(root / "log", checkpoint.run_of(root), step, hparams, [curve])


def resume(
    found: Checkpoint,
    lm: BiLM,
    optimizer: paddle.optimizer.Optimizer,
    train_reader: BidirectionalReader,
    options: argparse.Namespace,
) -> States:
    """Put everything back to where a checkpoint was; return the states of this process's rows."""
    train_reader.load_state_dict(found.state)
    where, layers, rows = found.path, 2 * options.num_layers, train_reader.rows
    shapes = {"hidden": [layers, rows, options.embed_size], "cell": [layers, rows, options.hidden_size]}
    states = {name: found.state[name] for name in shapes if name in found.state}
    checkpoint.check_arrays(shapes, states, where / checkpoint.STATE_FILE)
    shapes = {name: parameter.shape for name, parameter in lm.state_dict().items()}
    checkpoint.check_arrays(shapes, found.model, where / checkpoint.MODEL_FILE)
    lm.set_state_dict(found.model)
    checkpoint.restore_optimizer(optimizer, lm, found.optimizer, where / checkpoint.OPTIMIZER_FILE)
    mine = slice(train_reader.first_row, train_reader.first_row + train_reader.batch_size)
    return tuple(paddle.to_tensor(found.state[name][:, mine]) for name in ("hidden", "cell"))


def save_checkpoint(run: Run, progress: Progress, states: States, dev: Optional[Dict[str, float]]) -> None:
    """Write everything a resumed run needs; all processes call this, the first one writes."""
    arrays = {**run.train_reader.state_dict(), **gather_states(states)}
    if dist.get_rank() == 0:
        info = {
            "step": progress.step,
            "tokens": progress.tokens,
            "progress": asdict(progress),
            "dev": dev,
            "dev_text": run.dev_reader and run.dev_reader.corpus,
            "model": run.lm.lstm.config,
            "optim": run.options.optim,
            "flags": vars(run.options),
            "rows": run.train_reader.rows,
            "vocabulary_size": run.vocabulary.size,
            "vocabulary_sha256": run.vocabulary.sha256,
            "versions": versions(),
        }
        moments = checkpoint.optimizer_arrays(run.optimizer, run.lm)
        score = Score(-dev["perplexity"], run.dev_reader.corpus) if dev else None
        root, keep = run.options.para_save_dir, session.kept(run.options.keep)
        run.log.sync()
        checkpoint.save(root, info, run.lm.state_dict(), moments, arrays, run.vocabulary.text, keep, score)
    if dist.get_world_size() > 1:
        dist.barrier()


def log_training(run: Run, progress: Progress, states: States, norm: float, clock: StepClock) -> None:
    """Write the figures of the steps since the last log line."""
    step, mean = progress.step, progress.losses / progress.steps_since_log
    progress.losses, progress.steps_since_log = 0.0, 0
    sampled = run.options.sample_softmax
    figures = {
        "epoch": run.epoch(progress.tokens),
        **({"sampled_loss": mean} if sampled else {"loss": mean, "perplexity": perplexity(mean)}),
        "grad_norm": norm,
        "cells_at_clip": cells_at_clip(states, run.options.cell_clip),
        "learning_rate": run.optimizer.get_lr(),
        "tokens_per_second": run.words_per_step * clock.steps_per_second(),
    }
    if run.log:
        run.log.write("train", step, figures)
        report_step(step, run.total_steps, figures, clock.left(run.total_steps - step))


def log_evaluation(
    run: Run, progress: Progress, states: States, asked: Callable[[], bool]
) -> Tuple[Optional[Dict[str, float]], bool]:
    """Evaluate, write the figures; return them, and whether they are the best so far. None if asked to stop."""
    dev = evaluate(run.model, run.dev_reader, run.vocabulary.unknown, asked)
    progress.evaluation_due = dev is None
    if dev is None:
        return None, False
    dev["zero_state_ratio"] = zero_state_ratio(run.model, run.dev_reader, states)
    best = dev["perplexity"] < (math.inf if progress.best is None else progress.best)  # NaN is never the best
    if best:
        progress.best = dev["perplexity"]
    if run.log:
        run.log.write("dev", progress.step, dev)
        say(f"step {progress.step}/{run.total_steps}  dev {describe(dev)}")
        warn_of_zero_state(dev["zero_state_ratio"], run.options.reset_states)
    return dev, best


def write_vectors(run: Run) -> None:
    """Give VisualDL the vectors of the most frequent words, which stand first in the vocabulary."""
    vocabulary, count = run.vocabulary, run.options.visualdl_embeddings
    specials = (vocabulary.start, vocabulary.end, vocabulary.unknown)
    ids = [number for number in range(vocabulary.size) if number not in specials][:count]
    run.log.write_vectors(vocabulary.decode(ids), run.lm.lstm.embedding.numpy()[ids])


def linear_rate(run: Run, progress: Progress) -> float:
    """Return the learning rate of the next step: the same in every process and after a resume."""
    words = run.all_tokens(progress)
    return run.options.learning_rate * (words - progress.tokens) / words


def next_step(
    run: Run, progress: Progress, states: Optional[States], batches: Iterator, stop: bool
) -> Tuple[float, States, bool]:
    """Train on the next batch; return the gradient norm, the states, and whether any process was asked to stop."""
    options, step = run.options, progress.step + 1
    batch, random = next(batches), StepRandom(options.random_seed, step, run.train_reader.first_row)
    states = reset_rows(states, options.reset_states, random)
    if options.lr_schedule == "linear":
        run.optimizer.set_lr(linear_rate(run, progress))
    how = dict(accumulate=options.accumulate, max_grad_norm=options.max_grad_norm, stop=stop)
    try:
        loss, norm, states, stop = train_step(run.model, run.optimizer, batch, states, random, **how)
    except TrainingError as error:
        raise TrainingError(
            f"step {step}: {error}; stopped. The checkpoints in {options.para_save_dir} are from before: "
            "resume one of them with a lower --learning_rate"
        )
    progress.step = step
    progress.tokens += run.words_per_step
    progress.losses += loss
    progress.steps_since_log += 1
    return norm, states, stop


def train(run: Run, progress: Progress, states: Optional[States]) -> None:
    """The loop: step → log → evaluate → save, until the last step or until asked to stop."""
    options, request, clock = run.options, StopRequest(), StepClock()
    batches, stop = iter(run.train_reader), False
    while not (stop or ended(run, progress)):
        if not progress.evaluation_due:
            with clock:
                norm, states, stop = next_step(run, progress, states, batches, request.asked)
            last = progress.step == run.total_steps
            if progress.step % options.log_interval == 0 or last:
                log_training(run, progress, states, norm, clock)
            progress.evaluation_due = bool(run.dev_reader) and (progress.step % options.dev_interval == 0 or last)
        dev, best = None, False
        if progress.evaluation_due and not stop:
            dev, best = log_evaluation(run, progress, states, lambda: request.asked)
            stop = dev is None
        if progress.step % options.save_interval == 0 or best or stop or progress.step == run.total_steps:
            save_checkpoint(run, progress, states, dev)
    if run.log:
        if options.visualdl_embeddings:
            write_vectors(run)
        run.log.close()
        report_end(run, progress)


def ended(run: Run, progress: Progress) -> bool:
    """Say whether all steps are done, and the last evaluation."""
    return progress.step >= run.total_steps and not progress.evaluation_due


def report_end(run: Run, progress: Progress) -> None:
    """Print the last evaluation and where everything is."""
    root, step = Path(run.options.para_save_dir), progress.step
    folder = next(checkpoint.candidates(root))
    if not ended(run, progress):
        say(f"asked to stop: saved step {step}; resume with the same command and --load_dir auto")
    else:
        say(f"trained to step {step}; more with --load_dir auto and a larger --max_epoch")
        dev = [record for record in read_metrics(root / "log" / "metrics.jsonl") if record["kind"] == "dev"]
        if dev:
            say(f"held-out   {describe(dev[-1])}")
    curves = shlex.quote(os.path.relpath(root / "log"))
    say(f"checkpoint {folder}\nlogs       {root / 'log'}\ncurves     visualdl --logdir {curves}")


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with command():
        parser = make_parser(__doc__)
        options, given = parser.parse(arguments)
        with checkpoint.only_run(options.para_save_dir, "--para_save_dir"):
            train(*set_up(parser, arguments, options, given))
    session.leave()


if __name__ == "__main__":
    main()
